/*
 * The key of a body: what it depends on and what not, by examples and over
 * generated documents that jansson writes in many ways; and SHA-256.
 * LLM_SEED=n repeats a run.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <jansson.h>

#include "llm_canonical.h"


#define KEY (LLM_CANONICAL_HEX + 1)


static uint64_t rnd;
static llm_canonical_t c;


static uint32_t
below(uint32_t n)
{
    rnd ^= rnd << 13;
    rnd ^= rnd >> 7;
    rnd ^= rnd << 17;

    return (uint32_t) ((rnd >> 32) % n);
}


static void
start(void)
{
    memset(&c, 0xa5, sizeof(c));
    llm_canonical_init(&c);
}


/* Scans a copy of the piece that has no byte too many. */
static llm_json_rc_t
scan_piece(const char *p, size_t len)
{
    uint8_t *copy;
    llm_json_rc_t rc;

    copy = malloc(len);
    assert_true(copy != NULL || len == 0);

    if (len != 0) {
        memcpy(copy, p, len);
    }

    rc = llm_canonical_scan(&c, copy, len);
    free(copy);

    return rc;
}


static void
key_of(char key[KEY], const char *body)
{
    start();
    scan_piece(body, strlen(body));

    if (llm_canonical_end(&c) != LLM_JSON_OK) {
        fail_msg("%s at %llu: %s", c.error, (unsigned long long) c.offset,
            body);
    }

    llm_canonical_hex(&c, key);
    key[LLM_CANONICAL_HEX] = '\0';
}


static void
assert_key(const char *body, const char *key)
{
    char is[KEY];

    key_of(is, body);
    assert_string_equal(is, key);
}


static void
assert_same(const char *a, const char *b)
{
    char x[KEY], y[KEY];

    key_of(x, a);
    key_of(y, b);

    if (strcmp(x, y) != 0) {
        fail_msg("another key: %s, %s", a, b);
    }
}


static void
assert_other(const char *a, const char *b)
{
    char x[KEY], y[KEY];

    key_of(x, a);
    key_of(y, b);

    if (strcmp(x, y) == 0) {
        fail_msg("the same key: %s, %s", a, b);
    }
}


static void
assert_error(const char *body, size_t len, const char *error, uint64_t offset)
{
    size_t at;

    start();
    scan_piece(body, len);
    assert_int_equal(llm_canonical_end(&c), LLM_JSON_ERROR);
    assert_string_equal(c.error, error);
    assert_int_equal(c.offset, offset);
    assert_int_equal(scan_piece("{}", 2), LLM_JSON_ERROR);

    start();

    for (at = 0; at < len; at++) {
        scan_piece(body + at, 1);
    }

    assert_int_equal(llm_canonical_end(&c), LLM_JSON_ERROR);
    assert_string_equal(c.error, error);
    assert_int_equal(c.offset, offset);
}


static void
assert_digest(const void *p, size_t len, size_t piece, const char *hex)
{
    size_t i, at, n;
    char is[2 * LLM_SHA256_LEN + 1];
    uint8_t digest[LLM_SHA256_LEN];
    llm_sha256_t s;

    llm_sha256_init(&s);

    for (at = 0; at < len; at += n) {
        n = (len - at < piece) ? len - at : piece;
        llm_sha256_update(&s, (const uint8_t *) p + at, n);
    }

    llm_sha256_final(&s, digest);

    for (i = 0; i < LLM_SHA256_LEN; i++) {
        sprintf(is + 2 * i, "%02x", digest[i]);
    }

    assert_string_equal(is, hex);
}


/* The examples of FIPS 180, and each length there is around a block. */
static void
sha256_is_the_standard_s(void **state)
{
    size_t i;
    uint8_t *a;
    uint8_t digests[300 * LLM_SHA256_LEN];
    llm_sha256_t s;

    static const size_t pieces[] = { 1, 3, 55, 63, 64, 65, 1000000 };

    (void) state;

    assert_digest("", 0, 1,
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_digest("abc", 3, 3,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        56, 56,
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");

    a = malloc(1000000);
    assert_non_null(a);
    memset(a, 'a', 1000000);

    for (i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        assert_digest(a, 1000000, pieces[i],
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }

    /* as another program says of the digests of 0 to 299 bytes together */

    for (i = 0; i < 300; i++) {
        llm_sha256_init(&s);
        llm_sha256_update(&s, a, i);
        llm_sha256_final(&s, digests + i * LLM_SHA256_LEN);
    }

    assert_digest(digests, sizeof(digests), sizeof(digests),
        "80e953e3b006c4bab43fd5d792f8bd29c122f6cf1497318365fe66bf2d61398d");

    free(a);
}


/*
 * Computed by another program, from what llm_canonical.c says of the form:
 * a key that changes loses what is in the cache.
 */
static void
keys_stay_what_they_are(void **state)
{
    (void) state;

    assert_key("{}",
        "73430888fd1c1028cba8e6698a2b7d00a84a0fdf15b0c28c54e2c4ac316caf1f");
    assert_key("\"a\"",
        "783e208b38cab2fb29eebf27d412cba9f1187d6a8014af13a8c1d8b21d8ce155");
    assert_key("{\"a\":1,\"a\":2,\"b\":3}",
        "ab5909e01f28120fe28761ad3e6b4a5ce1fdd6781f4f9afbaef4d2f8bb231674");
    assert_key("[1,{\"b\":2,\"a\":[null,{}]}]",
        "6f34a564dc1f8b9d396c844d6e6a4c3d1cd4bc1c9a8bc147fc5a31bad0146242");
    assert_key("{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\","
               "\"content\":\"Hi \\\"you\\\"\\n\\u00e9\\ud83d\\ude00\\ud800\"}"
               "],\"temperature\":0.7,\"stream\":true,\"user\":\"u\"}",
        "4cbdb77884a852b7ab56591c65bf7319494c2b1f703500d783146a39050dd8a6");
}


static void
the_look_of_a_document_does_not_matter(void **state)
{
    (void) state;

    assert_same("{\"a\":1,\"b\":[true,null]}",
        " {\r\n\t\"b\" : [ true , null ] ,\n\"a\" : 1 } ");
    assert_same("{\"a\":{\"b\":1,\"c\":2},\"d\":{}}",
        "{\"d\":{},\"a\":{\"c\":2,\"b\":1}}");
    assert_same("[{\"a\":1,\"b\":2}]", "[{\"b\":2,\"a\":1}]");
    assert_same("{}", " { } ");
    assert_same("[]", "[ ]");
    assert_same("12", " 12\n");

    assert_same("\"A/\xc3\xa9\xf0\x9f\x98\x80\"",
        "\"\\u0041\\/\\u00E9\\uD83D\\ude00\"");
    assert_same("\"\\n\\t\\b\\f\\r\\\"\\\\\"",
        "\"\\u000a\\u0009\\u0008\\u000C\\u000d\\u0022\\u005c\"");
    assert_same("{\"abc\":1,\"d\":2}", "{\"\\u0064\":2,\"a\\u0062c\":1}");
    assert_same("\"\\uD800x\\udfff\"", "\"\\ud800x\\uDFFF\"");
}


static void
what_may_change_an_answer_changes_the_key(void **state)
{
    size_t i, k, n;

    static const char *const bodies[] = { "{}", "[]", "[{}]", "[{},{}]", "[[]]",
        "\"\"", "\"{}\"", "0", "-0", "1", "1.0", "1e0", "10e-1", "true",
        "false", "null", "\"1\"", "\"true\"", "[1]", "[1,1]", "[11]", "[1,11]",
        "[11,1]", "[[1],1]", "[1,[1]]", "[[1,1]]", "[\"1,1\"]", "[\"1\",1]",
        "[\"1\",\"1\"]", "[\"1\\\",\\\"1\"]", "{\"a\":1}", "{\"a\":\"1\"}",
        "{\"a\":[1]}", "{\"a\":{}}", "{\"a\":{\"a\":1}}", "[{\"a\":1}]",
        "{\"A\":1}", "{\"a\":2}", "{\"b\":1}", "{\"a\":1,\"b\":2}",
        "{\"a\":2,\"b\":1}", "{\"a\":{\"b\":1}}", "{\"a\":{\"b\":1},\"c\":{}}",
        "{\"a\":{\"b\":1,\"c\":{}}}", "{\"a\":{},\"c\":{\"b\":1}}",
        "{\"a\":1,\"a\":2}", "{\"a\":2,\"a\":1}", "{\"a\":2,\"a\":2}",
        "{\"a\":2,\"a\":1,\"a\":2}", "{\"\":1}", "{\"a\\\":1\":1}", "\"a\"",
        "\"\\u0000\"", "\"\\u0000\\u0000\"", "\"\\\\u0000\"", "\"\\ud800\"",
        "\"\\\\ud800\"", "\"\xed\xa0\x80\"", "\"\\udc00\"",
        "\"\\ud800\\ud800\"", "\"\\udc00\\ud800\"", "\"\\ud800\\udc00\"",
        "\"\xef\xbf\xbd\"", "\"\xff\"", "\"\\u00ff\"", "\"a \"", "\" a\"",
        "{\"stream\":true}", "{\"stream\":false}",
        "{\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
        "{\"store\":true}", "{\"n\":2}", "{\"seed\":2}", "{\"users\":1}",
        "{\"use\":1}", "{\"User\":1}", "{\"a\":{\"user\":1}}",
        "{\"a\":{\"user\":2}}", "[{\"user\":1}]", "[{\"user\":2}]",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"A\"}]}",
        "{\"messages\":[{\"role\":\"user\"},{\"content\":\"a\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
        "{\"role\":\"user\",\"content\":\"b\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"b\"},"
        "{\"role\":\"user\",\"content\":\"a\"}]}" };

    (void) state;

    n = sizeof(bodies) / sizeof(bodies[0]);

    for (i = 0; i < n; i++) {
        for (k = 0; k < i; k++) {
            assert_other(bodies[i], bodies[k]);
        }
    }
}


static void
who_asks_does_not_change_the_key(void **state)
{
    (void) state;

    assert_same("{\"model\":\"m\"}", "{\"user\":\"u\",\"model\":\"m\"}");
    assert_same("{}", "{\"\\u0075ser\":\"u\",\"user\":[{\"user\":1}]}");
    assert_same("{\"n\":1}",
        "{\"metadata\":{\"n\":2},\"safety_identifier\":\"x\",\"n\":1,"
        "\"prompt_cache_key\":1,\"prompt_cache_retention\":\"24h\","
        "\"service_tier\":\"flex\"}");
    assert_other("{}", "{\"prompt_cache_retention_\":1}");
    assert_other("{}",
        "{\"metadatametadatametadatametadatametadatametadata\":1}");
}


static void
nesting_has_a_limit(void **state)
{
    size_t i;
    char body[8 * LLM_CANONICAL_DEPTH + 64], *p;

    (void) state;

    /* arrays are the reader's business */

    for (i = 0; i < LLM_CANONICAL_DEPTH + 1; i++) {
        memcpy(body + 6 * i, "{\"a\":[", 6);
    }

    p = body + 6 * LLM_CANONICAL_DEPTH;
    assert_error(body, 6 * LLM_CANONICAL_DEPTH + 6,
        "nested too deeply for a key", 6 * LLM_CANONICAL_DEPTH);

    /* the first mistake is told, wherever pieces end */

    p[6] = '!';
    assert_error(body, 6 * LLM_CANONICAL_DEPTH + 7,
        "nested too deeply for a key", 6 * LLM_CANONICAL_DEPTH);

    for (i = 0; i < LLM_CANONICAL_DEPTH; i++) {
        memcpy(p + 2 * i, "]}", 2);
    }

    p[2 * i] = '\0';
    start();
    scan_piece(body, strlen(body));
    assert_int_equal(llm_canonical_end(&c), LLM_JSON_OK);
    assert_int_equal(llm_canonical_end(&c), LLM_JSON_OK);
}


/* An object of n members that are numbered from first on. */
static char *
put_members(char *p, unsigned first, unsigned n)
{
    unsigned i;

    *p++ = '{';

    for (i = 0; i < n; i++) {
        p += sprintf(p, "%s\"%u\":%u", (i == 0) ? "" : ",", first + i, i);
    }

    *p++ = '}';
    *p = '\0';

    return p;
}


static void
the_number_of_members_has_a_limit(void **state)
{
    size_t n;
    char *body, *p;

    (void) state;

    body = malloc(100 * LLM_CANONICAL_MEMBERS);
    assert_non_null(body);

    put_members(body, 0, LLM_CANONICAL_MEMBERS);
    start();
    scan_piece(body, strlen(body));
    assert_int_equal(llm_canonical_end(&c), LLM_JSON_OK);

    n = strlen(body);
    put_members(body, 0, LLM_CANONICAL_MEMBERS + 1);
    assert_error(body, strlen(body), "too many members for a key",
        strlen(body) - 1);
    assert_true(n < strlen(body));

    /* members of objects that are closed do not count any more */

    p = body;
    *p++ = '[';

    for (n = 0; n < 3; n++) {
        p = put_members(p, 0, LLM_CANONICAL_MEMBERS);
        *p++ = (n == 2) ? ']' : ',';
    }

    *p = '\0';
    start();
    scan_piece(body, strlen(body));
    assert_int_equal(llm_canonical_end(&c), LLM_JSON_OK);

    /* but those around them do */

    p = put_members(body, 0, LLM_CANONICAL_MEMBERS / 2);
    p += sprintf(p - 1, ",\"x\":") - 1;
    p = put_members(p, 0, LLM_CANONICAL_MEMBERS / 2 + 1);
    *p++ = '}';
    *p = '\0';
    assert_error(body, strlen(body), "too many members for a key",
        strlen(body) - 2);

    free(body);
}


static void
members_are_put_in_order_however_many(void **state)
{
    unsigned i, n;
    char *up, *down, *p;

    (void) state;

    up = malloc(32 * LLM_CANONICAL_MEMBERS);
    down = malloc(32 * LLM_CANONICAL_MEMBERS);
    assert_true(up != NULL && down != NULL);

    for (n = 1; n <= LLM_CANONICAL_MEMBERS; n = 2 * n + below(2)) {
        put_members(up, 0, n);

        p = down;
        *p++ = '{';

        for (i = n; i-- > 0; /* void */) {
            p += sprintf(p, "\"%u\":%u%s", i, i, (i == 0) ? "}" : ",");
        }

        assert_same(up, down);
    }

    free(up);
    free(down);
}


static void
bad_json_has_no_key(void **state)
{
    (void) state;

    assert_error("", 0, "empty document", 0);
    assert_error("{\"a\":1", 6, "unexpected end", 6);
    assert_error("{\"a\":tru}", 9, "malformed literal", 8);
    assert_error("[1}", 3, "unexpected character", 2);
    assert_error("{}}", 3, "unexpected character behind the document", 2);
    assert_error("\"\\u12x4\"", 8, "bad escape in a string", 5);
    assert_error("\"\\q\"", 4, "bad escape in a string", 2);
    assert_error("[\"a\x01\"]", 6, "control character in a string", 3);
}


/* Generated documents */

static json_t *
any_string(void)
{
    char text[256];
    size_t len;
    uint32_t n;
    const char *part;

    static const char *const parts[] = { "a", "b", "user", "\"", "\\", "/",
        "\n", "\x01", "\xc3\xa9", "\xe4\xbb\x8a", "\xf0\x9f\x98\x80", "{", "]",
        ",", ":", "\\u0041", " " };

    len = 0;

    for (n = below(4); n != 0; n--) {
        part = parts[below(sizeof(parts) / sizeof(parts[0]))];
        len += (size_t) sprintf(text + len, "%s", part);
    }

    return json_stringn(text, len);
}


/* Few enough of each kind that some documents are the same. */
static json_t *
any_value(int depth)
{
    uint32_t n;
    json_t *value, *name;

    switch (below((depth > 3) ? 6 : 9)) {

    case 0:
        return json_true();

    case 1:
        return json_null();

    case 2:
    case 3:
        return json_integer(below(3));

    case 4:
        return json_real(0.5 * below(3));

    case 5:
        return any_string();

    case 6:
        value = json_array();

        for (n = below(4); n != 0; n--) {
            json_array_append_new(value, any_value(depth + 1));
        }

        return value;

    default:
        value = json_object();

        for (n = below(5); n != 0; n--) {
            name = any_string();
            json_object_set_new(value, json_string_value(name),
                any_value(depth + 1));
            json_decref(name);
        }

        return value;
    }
}


/* The same, its members in another order. */
static json_t *
shuffled(const json_t *from)
{
    size_t i, k, n;
    json_t *to;
    const char *names[64], *name;
    json_t *value;

    if (json_is_array(from)) {
        to = json_array();

        for (i = 0; i < json_array_size(from); i++) {
            json_array_append_new(to, shuffled(json_array_get(from, i)));
        }

        return to;
    }

    if (!json_is_object(from)) {
        return json_deep_copy(from);
    }

    n = 0;
    to = json_object();

    json_object_foreach((json_t *) (uintptr_t) from, name, value)
    {
        names[n++] = name;
    }

    for (i = 0; i < n; i++) {
        k = i + below((uint32_t) (n - i));
        name = names[k];
        names[k] = names[i];
        json_object_set_new(to, name, shuffled(json_object_get(from, name)));
    }

    return to;
}


static void
key_as(char key[KEY], const json_t *root, size_t flags)
{
    char *body;

    body = json_dumps(root, flags | JSON_ENCODE_ANY);
    assert_non_null(body);
    key_of(key, body);
    free(body);
}


static void
no_way_of_writing_a_document_changes_its_key(void **state)
{
    int i;
    char key[KEY], other[KEY], *body;
    size_t k, at, n, len;
    json_t *root, *mixed;

    static const size_t ways[] = { JSON_COMPACT, JSON_INDENT(4),
        JSON_ENSURE_ASCII, JSON_SORT_KEYS, JSON_ESCAPE_SLASH | JSON_INDENT(1) };

    (void) state;

    for (i = 0; i < 1500; i++) {
        root = any_value(0);
        mixed = shuffled(root);
        assert_true(json_equal(root, mixed));
        key_as(key, root, 0);

        for (k = 0; k < sizeof(ways) / sizeof(ways[0]); k++) {
            key_as(other, mixed, ways[k]);
            assert_string_equal(key, other);
        }

        body = json_dumps(root, JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
        len = strlen(body);

        for (k = 0; k <= len + 5 && k < 200; k++) {
            start();

            for (at = 0; at < len; at += n) {
                n = (k <= len) ? (at == 0) ? k : len - k : 1 + below(9);
                n = (n == 0) ? len : (n > len - at) ? len - at : n;
                scan_piece(body + at, n);
            }

            assert_int_equal(llm_canonical_end(&c), LLM_JSON_OK);
            llm_canonical_hex(&c, other);
            assert_string_equal(key, other);
        }

        free(body);
        json_decref(mixed);
        json_decref(root);
    }
}


typedef struct {
    char *text; /* in one form, jansson's */
    char key[KEY];
} keyed_t;


static int
by_text(const void *a, const void *b)
{
    return strcmp(((const keyed_t *) a)->text, ((const keyed_t *) b)->text);
}


static int
by_key(const void *a, const void *b)
{
    return strcmp(((const keyed_t *) a)->key, ((const keyed_t *) b)->key);
}


static void
two_documents_have_two_keys(void **state)
{
    size_t i, texts, keys;
    json_t *root;
    keyed_t *all;

    enum {
        DOCUMENTS = 10000
    };

    (void) state;

    all = calloc(DOCUMENTS, sizeof(keyed_t));
    assert_non_null(all);

    for (i = 0; i < DOCUMENTS; i++) {
        root = any_value(0);

        if (json_is_object(root)) {
            json_object_del(root, "user");
        }

        all[i].text = json_dumps(root,
            JSON_SORT_KEYS | JSON_COMPACT | JSON_ENCODE_ANY);
        key_as(all[i].key, root, JSON_INDENT(1));
        json_decref(root);
    }

    texts = 1;
    keys = 1;

    qsort(all, DOCUMENTS, sizeof(keyed_t), by_text);

    for (i = 1; i < DOCUMENTS; i++) {
        texts += (by_text(&all[i - 1], &all[i]) != 0);
    }

    qsort(all, DOCUMENTS, sizeof(keyed_t), by_key);

    for (i = 1; i < DOCUMENTS; i++) {
        keys += (by_key(&all[i - 1], &all[i]) != 0);
        assert_int_equal(by_key(&all[i - 1], &all[i]) == 0,
            by_text(&all[i - 1], &all[i]) == 0);
    }

    assert_int_equal(texts, keys);
    assert_true(texts > 1000 && texts < DOCUMENTS);

    for (i = 0; i < DOCUMENTS; i++) {
        free(all[i].text);
    }

    free(all);
}


int
main(void)
{
    uint64_t seed;

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_is_the_standard_s),
        cmocka_unit_test(keys_stay_what_they_are),
        cmocka_unit_test(the_look_of_a_document_does_not_matter),
        cmocka_unit_test(what_may_change_an_answer_changes_the_key),
        cmocka_unit_test(who_asks_does_not_change_the_key),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(the_number_of_members_has_a_limit),
        cmocka_unit_test(members_are_put_in_order_however_many),
        cmocka_unit_test(bad_json_has_no_key),
        cmocka_unit_test(no_way_of_writing_a_document_changes_its_key),
        cmocka_unit_test(two_documents_have_two_keys),
    };

    seed = (uint64_t) time(NULL);

    if (getenv("LLM_SEED") != NULL) {
        seed = strtoull(getenv("LLM_SEED"), NULL, 10);
    }

    rnd = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    print_message("LLM_SEED=%llu\n", (unsigned long long) seed);

    return cmocka_run_group_tests(tests, NULL, NULL);
}
