/*
 * The JSON scanner: examples, any split into pieces, and a comparison with
 * jansson over generated documents.  LLM_SEED=n repeats a run, LLM_DOCUMENTS=n
 * sets its length.
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

#include "llm_json.h"
#include "llm_json_skip.h"


#define DOCUMENT 4096


typedef struct {
    size_t len;
    uint8_t text[DOCUMENT];
} document_t;


static uint64_t seed, rnd;

static const char plain[] =
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 abcde"
    "fghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 abcdefghij"
    "klmnop";

/* of getting over text; whatever the processor can do is tested */
static const char *const ways[LLM_JSON_WAYS] = {
    [LLM_JSON_PORTABLE] = "portable",
    [LLM_JSON_SSE2] = "SSE2",
    [LLM_JSON_AVX2] = "AVX2",
    [LLM_JSON_AVX512] = "AVX-512",
};


static uint32_t
below(uint32_t n)
{
    rnd ^= rnd << 13;
    rnd ^= rnd >> 7;
    rnd ^= rnd << 17;

    return (uint32_t) ((rnd >> 32) % n);
}


/* Scans a copy of the piece that has no byte too many. */
static llm_json_rc_t
scan_piece(llm_json_t *j, const uint8_t *p, size_t len)
{
    uint8_t *copy;
    llm_json_rc_t rc;

    copy = malloc(len);
    assert_true(copy != NULL || len == 0);

    if (len != 0) {
        memcpy(copy, p, len);
    }

    rc = llm_json_scan(j, copy, len);
    free(copy);

    return rc;
}


static void
start(llm_json_t *j)
{
    memset(j, 0xa5, sizeof(llm_json_t));
    llm_json_init(j);
}


static llm_json_rc_t
scan_whole(llm_json_t *j, const void *text, size_t len)
{
    start(j);
    scan_piece(j, text, len);

    return llm_json_end(j);
}


static llm_json_rc_t
scan(llm_json_t *j, const char *text)
{
    return scan_whole(j, text, strlen(text));
}


static void
assert_error(const char *text, const char *error, uint64_t offset)
{
    llm_json_t j;

    assert_int_equal(scan(&j, text), LLM_JSON_ERROR);
    assert_string_equal(j.error, error);
    assert_int_equal(j.offset, offset);
}


static void
assert_model(const char *text, const char *model, size_t from, size_t to)
{
    llm_json_t j;

    assert_int_equal(scan(&j, text), LLM_JSON_OK);
    assert_int_equal(j.model, LLM_JSON_STRING_VALUE);
    assert_false(j.model_unfit);
    assert_int_equal(j.model_len, strlen(model));
    assert_memory_equal(j.model_value, model, strlen(model));
    assert_int_equal(j.model_start, from);
    assert_int_equal(j.model_end, to);
}


static void
model_and_stream_of_a_chat_are_found(void **state)
{
    llm_json_t j;

    (void) state;

    assert_model("{\"model\":\"gpt-4o\",\"stream\":true}", "gpt-4o", 9, 17);
    assert_model(" { \"a\" : [ 1 , {} ] ,\t\"model\"\r:\n\"m\" } ", "m", 32,
        35);
    assert_model("{\"model\":\"\"}", "", 9, 11);

    assert_int_equal(scan(&j, "{\"stream\": false}"), LLM_JSON_OK);
    assert_int_equal(j.root, LLM_JSON_OBJECT);
    assert_int_equal(j.model, LLM_JSON_ABSENT);
    assert_int_equal(j.stream, LLM_JSON_FALSE);
    assert_int_equal(j.offset, 17);
}


static void
every_type_of_a_member_is_told(void **state)
{
    size_t i;
    char text[64];
    llm_json_t j;

    static const char *values[] = { "\"x\"", "-1.5e+3", "true", "false", "null",
        "{\"a\":{}}", "[\"model\"]" };

    (void) state;

    for (i = 0; i < 7; i++) {
        snprintf(text, sizeof(text), "{\"model\":%s}", values[i]);
        assert_int_equal(scan(&j, text), LLM_JSON_OK);
        assert_int_equal(j.model, LLM_JSON_STRING_VALUE + i);
        assert_int_equal(j.stream, LLM_JSON_ABSENT);

        snprintf(text, sizeof(text), "{\"stream\":%s}", values[i]);
        assert_int_equal(scan(&j, text), LLM_JSON_OK);
        assert_int_equal(j.stream, LLM_JSON_STRING_VALUE + i);
        assert_int_equal(j.model, LLM_JSON_ABSENT);

        assert_int_equal(scan(&j, values[i]), LLM_JSON_OK);
        assert_int_equal(j.root, LLM_JSON_STRING_VALUE + i);
        assert_int_equal(j.model, LLM_JSON_ABSENT);
    }
}


static void
a_model_further_inside_is_not_taken_for_the_model(void **state)
{
    llm_json_t j;

    (void) state;

    assert_model("{\"o\":{\"model\":\"bad\"},\"l\":[{\"model\":\"bad\"}],"
                 "\"model\":\"good\",\"p\":{\"model\":2,\"stream\":1}}",
        "good", 51, 57);

    assert_int_equal(scan(&j, "[{\"model\":\"bad\"},\"model\",\"x\"]"),
        LLM_JSON_OK);
    assert_int_equal(j.root, LLM_JSON_ARRAY);
    assert_int_equal(j.model, LLM_JSON_ABSENT);

    assert_int_equal(scan(&j, "{\"x\":\"model\",\"models\":\"a\","
                              "\"mode\":\"b\",\"Model\":\"c\","
                              "\"modelmodel\":\"d\"}"),
        LLM_JSON_OK);
    assert_int_equal(j.model, LLM_JSON_ABSENT);
}


static void
names_may_be_written_with_escapes(void **state)
{
    llm_json_t j;

    (void) state;

    assert_model("{\"mod\\u0065l\":\"m\"}", "m", 14, 17);
    assert_model("{\"\\u006D\\u006f\\u0064\\u0065\\u006C\":\"m\"}", "m", 34,
        37);

    assert_int_equal(scan(&j, "{\"str\\u0065am\":null,\"model\\u0000\":1,"
                              "\"mod\\\\u0065l\":2,\"model\\ud800\":3,"
                              "\"\\udc00model\":4,\"model\\n\":5,"
                              "\"model\\ud800\\udc00\":6}"),
        LLM_JSON_OK);
    assert_int_equal(j.stream, LLM_JSON_NULL);
    assert_int_equal(j.model, LLM_JSON_ABSENT);
}


static void
the_last_of_duplicates_counts_with_all_its_parts(void **state)
{
    llm_json_t j;

    (void) state;

    assert_model("{\"model\":\"long one\",\"model\":\"m\"}", "m", 28, 31);
    assert_model("{\"model\":\"a\\u0000\",\"model\":\"m\"}", "m", 27, 30);
    assert_model("{\"model\":[1],\"model\":\"m\"}", "m", 21, 24);

    assert_int_equal(scan(&j, "{\"model\":\"a\\u0000\",\"stream\":true,"
                              "\"model\":7,\"stream\":1}"),
        LLM_JSON_OK);
    assert_int_equal(j.model, LLM_JSON_NUMBER);
    assert_int_equal(j.stream, LLM_JSON_NUMBER);
    assert_int_equal(j.model_len, 0);
    assert_int_equal(j.model_start, 0);
    assert_int_equal(j.model_end, 0);
    assert_false(j.model_unfit);
}


static void
assert_max_tokens(const char *text, bool has, uint64_t value)
{
    llm_json_t j;

    assert_int_equal(scan(&j, text), LLM_JSON_OK);
    assert_int_equal(j.has_max_tokens, has);
    assert_int_equal(j.max_tokens, value);
}


static void
the_longest_answer_that_is_asked_for_is_found(void **state)
{
    (void) state;

    assert_max_tokens("{\"max_tokens\":512}", true, 512);
    assert_max_tokens("{\"max_tokens\": 0 }", true, 0);
    assert_max_tokens("{\"max_completion_tokens\":1}", true, 1);
    assert_max_tokens("{\"m\\u0061x_output_tokens\":7}", true, 7);

    /* the newer names win, wherever they stand, if they say something */

    assert_max_tokens("{\"max_tokens\":1,\"max_completion_tokens\":2}", true,
        2);
    assert_max_tokens("{\"max_completion_tokens\":2,\"max_tokens\":1}", true,
        2);
    assert_max_tokens("{\"max_output_tokens\":3,\"max_tokens\":1}", true, 3);
    assert_max_tokens("{\"max_output_tokens\":3,\"max_completion_tokens\":2}",
        true, 2);
    assert_max_tokens("{\"max_tokens\":1,\"max_completion_tokens\":null}", true,
        1);

    /* the last of duplicates, whatever it is */

    assert_max_tokens("{\"max_tokens\":10,\"max_tokens\":2}", true, 2);
    assert_max_tokens("{\"max_tokens\":10,\"max_tokens\":null}", false, 0);
    assert_max_tokens("{\"max_tokens\":\"x\",\"max_tokens\":2}", true, 2);
    assert_max_tokens("{\"max_tokens\":-1,\"max_tokens\":2}", true, 2);

    assert_max_tokens("{\"max_tokens\":18446744073709551615}", true,
        UINT64_MAX);
}


static void
a_limit_that_is_no_count_is_ignored(void **state)
{
    size_t i;
    char text[80];
    llm_json_t j;

    static const char *values[] = { "-1", "-0", "1.0", "1e3", "\"5\"", "null",
        "true", "[5]", "{\"max_tokens\":5}", "18446744073709551616",
        "18446744073709551620", "99999999999999999999" };

    (void) state;

    for (i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        snprintf(text, sizeof(text), "{\"max_tokens\":%s}", values[i]);
        assert_max_tokens(text, false, 0);

        snprintf(text, sizeof(text), "{\"n\":%s}", values[i]);
        assert_int_equal(scan(&j, text), LLM_JSON_OK);
        assert_int_equal(j.n, 1);
    }

    assert_max_tokens("{\"a\":{\"max_tokens\":5}}", false, 0);
    assert_max_tokens("[{\"max_tokens\":5}]", false, 0);
}


static void
the_number_of_answers_is_found(void **state)
{
    llm_json_t j;

    (void) state;

    assert_int_equal(scan(&j, "{\"n\":3}"), LLM_JSON_OK);
    assert_int_equal(j.n, 3);
    assert_int_equal(scan(&j, "{\"n\":0}"), LLM_JSON_OK);
    assert_int_equal(j.n, 1);
    assert_int_equal(scan(&j, "{}"), LLM_JSON_OK);
    assert_int_equal(j.n, 1);
}


/* The body with what is inserted into it; the caller's to free. */
static char *
inserted(const char *text, size_t len, const llm_json_inject_t *inject,
    size_t *out_len)
{
    char *out;
    size_t at, behind;

    assert_true(inject->offset + inject->cut_len <= len);

    at = (size_t) inject->offset;
    behind = at + (size_t) inject->cut_len;

    out = malloc(len + inject->len + 1);
    assert_non_null(out);

    memcpy(out, text, at);
    memcpy(out + at, inject->text, inject->len);
    memcpy(out + at + inject->len, text + behind, len - behind);

    *out_len = len - (size_t) inject->cut_len + inject->len;
    out[*out_len] = '\0';

    return out;
}


/* to: NULL where nothing is to be done */
static void
assert_usage(const char *from, const char *to)
{
    char *out;
    size_t len;
    llm_json_t j;
    llm_json_inject_t inject;

    assert_int_equal(scan(&j, from), LLM_JSON_OK);
    inject = llm_json_usage_insert(&j);

    if (to == NULL) {
        assert_null(inject.text);
        assert_int_equal(inject.len, 0);
        assert_int_equal(inject.cut_len, 0);
        return;
    }

    assert_non_null(inject.text);
    out = inserted(from, strlen(from), &inject, &len);
    assert_string_equal(out, to);
    free(out);
}


static void
a_stream_comes_to_ask_for_its_usage(void **state)
{
    (void) state;

    assert_usage(" { \"stream\":true}",
        " {\"stream_options\":{\"include_usage\":true}, \"stream\":true}");
    assert_usage("{\"stream\":true,\"stream_options\":{ }}",
        "{\"stream\":true,\"stream_options\":{\"include_usage\":true }}");
    assert_usage("{\"stream_options\":{\"a\":[]},\"stream\":true}",
        "{\"stream_options\":{\"include_usage\":true,\"a\":[]},"
        "\"stream\":true}");
    assert_usage("{\"stream\":true,\"stream_options\": null }",
        "{\"stream\":true,\"stream_options\": {\"include_usage\":true} }");
    assert_usage("{\"stream\":true,\"stream_options\":"
                 "{\"include_usage\":false}}",
        "{\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    assert_usage("{\"stream\":true,\"stream_options\":"
                 "{\"include\\u005fusage\":null,\"a\":{}}}",
        "{\"stream\":true,\"stream_options\":"
        "{\"include\\u005fusage\":true,\"a\":{}}}");

    /* of duplicates the last one */

    assert_usage("{\"stream_options\":{\"include_usage\":true},"
                 "\"stream_options\":{},\"stream\":true}",
        "{\"stream_options\":{\"include_usage\":true},"
        "\"stream_options\":{\"include_usage\":true},\"stream\":true}");
    assert_usage("{\"stream_options\":{\"include_usage\":true,"
                 "\"include_usage\":false},\"stream\":true}",
        "{\"stream_options\":{\"include_usage\":true,"
        "\"include_usage\":true},\"stream\":true}");
    assert_usage("{\"stream_options\":{\"a\":1},\"stream_options\":{},"
                 "\"stream\":true}",
        "{\"stream_options\":{\"a\":1},"
        "\"stream_options\":{\"include_usage\":true},\"stream\":true}");
}


static void
a_body_is_left_alone_where_usage_cannot_be_asked_for(void **state)
{
    (void) state;

    assert_usage("{\"stream\":true,\"stream_options\":"
                 "{\"include_usage\":true}}",
        NULL);

    /* no stream */

    assert_usage("{}", NULL);
    assert_usage("[]", NULL);
    assert_usage("true", NULL);
    assert_usage("{\"stream\":false}", NULL);
    assert_usage("{\"stream\":null,\"stream_options\":{}}", NULL);
    assert_usage("{\"stream\":true,\"stream\":1}", NULL);
    assert_usage("{\"a\":{\"stream\":true}}", NULL);

    /* the provider's to refuse */

    assert_usage("{\"stream\":true,\"stream_options\":[]}", NULL);
    assert_usage("{\"stream\":true,\"stream_options\":"
                 "[{\"include_usage\":false}]}",
        NULL);
    assert_usage("{\"stream\":true,\"stream_options\":false}", NULL);
    assert_usage("{\"stream\":true,\"stream_options\":"
                 "{\"include_usage\":0}}",
        NULL);
    assert_usage("{\"stream\":true,\"stream_options\":"
                 "{\"include_usage\":{}}}",
        NULL);
}


static void
a_model_is_decoded(void **state)
{
    (void) state;

    assert_model("{\"model\":\"a\\\"\\\\\\/z\"}", "a\"\\/z", 9, 19);
    assert_model("{\"model\":\"\\u007e\\u0080\\u07FF\\u0800\\uffff\"}",
        "~\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf", 9, 41);
    assert_model("{\"model\":\"\\ud800\\udc00-\\uDBFF\\uDFFF\"}",
        "\xf0\x90\x80\x80-\xf4\x8f\xbf\xbf", 9, 36);
    assert_model("{\"model\":\"\xc3\xa9 \xff\"}", "\xc3\xa9 \xff", 9, 15);
}


static void
a_model_of_256_bytes_is_kept_and_a_longer_one_told(void **state)
{
    int i;
    char text[512];
    llm_json_t j;

    (void) state;

    for (i = 250; i <= 300; i++) {
        snprintf(text, sizeof(text), "{\"model\":\"\\u0041%0*d\"}", i - 1, 0);
        assert_int_equal(scan(&j, text), LLM_JSON_OK);
        assert_int_equal(j.model_unfit, i > 256);
        assert_int_equal(j.model_len, (i > 256) ? 0 : i);
        assert_int_equal(j.model_end, 9 + 1 + 6 + i - 1 + 1);
    }

    /* a character must not be cut in two */

    snprintf(text, sizeof(text), "{\"model\":\"%0*d\\u00e9\"}", 255, 0);
    assert_int_equal(scan(&j, text), LLM_JSON_OK);
    assert_true(j.model_unfit);
}


static void
a_control_character_makes_no_model(void **state)
{
    static const char *const bad[] = { "\\u0000", "\\r\\n", "\\n", "\\t", "\\b",
        "\\f", "\\u001f", "\\u007f", "\x7f" };
    unsigned i;
    char text[64];
    llm_json_t j;

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text), "{\"model\":\"a%sb\"}", bad[i]);
        assert_int_equal(scan(&j, text), LLM_JSON_OK);
        assert_true(j.model_unfit);
        assert_int_equal(j.model_len, 0);
    }

    assert_int_equal(scan(&j, "{\"model\":\"a \\u0080 b\"}"), LLM_JSON_OK);
    assert_false(j.model_unfit);
    assert_int_equal(j.model_len, 6);
}


static void
a_second_model_is_told(void **state)
{
    llm_json_t j;

    (void) state;

    assert_int_equal(scan(&j, "{\"model\":\"a\",\"x\":{\"model\":\"b\"}}"),
        LLM_JSON_OK);
    assert_false(j.model_again);

    assert_int_equal(scan(&j, "{\"model\":null,\"mod\\u0065l\":\"b\"}"),
        LLM_JSON_OK);
    assert_true(j.model_again);

    assert_int_equal(scan(&j, "{\"model\":\"a\",\"model\":\"b\",\"model\":1}"),
        LLM_JSON_OK);
    assert_true(j.model_again);
}


static void
a_lone_surrogate_is_an_error_in_the_model_only(void **state)
{
    llm_json_t j;
    const char *lone = "lone surrogate in \"model\"";

    (void) state;

    assert_error("{\"model\":\"\\ud800\"}", lone, 10);
    assert_error("{\"model\":\"ab\\udc00\"}", lone, 12);
    assert_error("{\"model\":\"\\ud800x\\udc00\"}", lone, 10);
    assert_error("{\"model\":\"\\ud800\\n\"}", lone, 10);
    assert_error("{\"model\":\"\\ud800\\u0041\"}", lone, 10);
    assert_error("{\"model\":\"\\ud800\\ud800\\udc00\"}", lone, 10);
    assert_error("{\"model\":\"\\ud800\\udc00\\udc00\"}", lone, 22);
    assert_error("{\"model\":\"\\ud800\",\"model\":1}", lone, 10);

    assert_int_equal(scan(&j, "{\"x\":\"\\ud800\",\"y\":[\"\\udc00\\ud800\"],"
                              "\"\\ud800\":1,\"model\":\"m\"}"),
        LLM_JSON_OK);
    assert_int_equal(j.model, LLM_JSON_STRING_VALUE);
}


static void
whoever_sends_bad_json_learns_what_and_where(void **state)
{
    size_t i;

    static const struct {
        const char *text;
        const char *error;
        uint64_t offset;
    } cases[] = {
        { "", "empty document", 0 },
        { " \n", "empty document", 2 },
        { "\xef\xbb\xbf{}", "unexpected character", 0 },
        { "{", "unexpected end", 1 },
        { "{\"a\"", "unexpected end", 4 },
        { "{\"a\":", "unexpected end", 5 },
        { "{\"a\":1,", "unexpected end", 7 },
        { "[1,2", "unexpected end", 4 },
        { "[tru", "unexpected end", 4 },
        { "-", "unexpected end", 1 },
        { "1.", "unexpected end", 2 },
        { "1e+", "unexpected end", 3 },
        { "\"abc", "unterminated string", 4 },
        { "\"abc\\", "unterminated string", 5 },
        { "\"abc\\u00", "unterminated string", 8 },
        { "{\"model", "unterminated string", 7 },
        { "{\"a\":1,}", "unexpected character", 7 },
        { "{,}", "unexpected character", 1 },
        { "{\"a\" 1}", "unexpected character", 5 },
        { "{\"a\":}", "unexpected character", 5 },
        { "{\"a\":1 \"b\":2}", "unexpected character", 7 },
        { "{a:1}", "unexpected character", 1 },
        { "{\"a\":1]", "unexpected character", 6 },
        { "[1}", "unexpected character", 2 },
        { "[1,]", "unexpected character", 3 },
        { "[,1]", "unexpected character", 1 },
        { "[1 2]", "unexpected character", 3 },
        { "]", "unexpected character", 0 },
        { "'a'", "unexpected character", 0 },
        { "[\x0b]", "unexpected character", 1 },
        { "\xc2\xa0[]", "unexpected character", 0 },
        { "{} x", "unexpected character behind the document", 3 },
        { "{}{}", "unexpected character behind the document", 2 },
        { "01", "unexpected character behind the document", 1 },
        { "[01]", "unexpected character", 2 },
        { "[-]", "malformed number", 2 },
        { "[-a]", "malformed number", 2 },
        { "[1.]", "malformed number", 3 },
        { "[1.e5]", "malformed number", 3 },
        { "[1e]", "malformed number", 3 },
        { "[1e+-1]", "malformed number", 4 },
        { "[.5]", "unexpected character", 1 },
        { "[+1]", "unexpected character", 1 },
        { "[1.5.2]", "unexpected character", 4 },
        { "[1e5e]", "unexpected character", 4 },
        { "[trux]", "malformed literal", 4 },
        { "[nul]", "malformed literal", 4 },
        { "[falsey]", "unexpected character", 6 },
        { "True", "unexpected character", 0 },
        { "NaN", "unexpected character", 0 },
        { "\"a\nb\"", "control character in a string", 2 },
        { "{\"mod\tel\":1}", "control character in a string", 5 },
        { "{\"model\":\"a\x1f\"}", "control character in a string", 11 },
        { "\"\\x\"", "bad escape in a string", 2 },
        { "\"\\u12g4\"", "bad escape in a string", 5 },
        { "\"\\u12\"", "bad escape in a string", 5 },
        { "{\"model\":\"\\q\"}", "bad escape in a string", 11 },
        { "{\"model\":\"\\U0041\"}", "bad escape in a string", 11 },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_error(cases[i].text, cases[i].error, cases[i].offset);
    }
}


static void
good_numbers_are_accepted(void **state)
{
    size_t i;
    char text[80];
    llm_json_t j;

    static const char *numbers[] = { "0", "-0", "7", "-12", "1234567890", "0.0",
        "10.25", "-0.5", "1e5", "1E+5", "0e0", "0E-0", "1.5e-07", "-9.99E+99",
        "1e999999", "123456789012345678901234567890" };

    (void) state;

    for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        assert_int_equal(scan(&j, numbers[i]), LLM_JSON_OK);
        assert_int_equal(j.root, LLM_JSON_NUMBER);

        snprintf(text, sizeof(text), "[%s,%s ]", numbers[i], numbers[i]);
        assert_int_equal(scan(&j, text), LLM_JSON_OK);
    }
}


static void
nesting_is_accepted_to_the_limit_and_not_beyond(void **state)
{
    size_t n;
    uint8_t *text;
    llm_json_t j;

    (void) state;

    text = malloc(2 * (LLM_JSON_DEPTH + 1) * 5);
    assert_non_null(text);

    n = LLM_JSON_DEPTH;
    memset(text, '[', n);
    memset(text + n, ']', n);
    assert_int_equal(scan_whole(&j, text, 2 * n), LLM_JSON_OK);

    text[n] = '{';
    assert_int_equal(scan_whole(&j, text, n + 1), LLM_JSON_ERROR);
    assert_string_equal(j.error, "nested too deeply");
    assert_int_equal(j.offset, n);

    /* objects and arrays in turns: each closing bracket must fit */

    for (n = 0; n < LLM_JSON_DEPTH; n += 2) {
        memcpy(text + n / 2 * 5, "{\"\":[", 5);
    }

    for (n = 0; n < LLM_JSON_DEPTH; n += 2) {
        memcpy(text + LLM_JSON_DEPTH / 2 * 5 + n, "]}", 2);
    }

    n = LLM_JSON_DEPTH / 2 * 5 + LLM_JSON_DEPTH;
    assert_int_equal(scan_whole(&j, text, n), LLM_JSON_OK);

    text[n - 1000] ^= ']' ^ '}';
    assert_int_equal(scan_whole(&j, text, n), LLM_JSON_ERROR);
    assert_int_equal(j.offset, n - 1000);

    free(text);
}


/* The search for the end of a string looks at 64 bytes at a time. */
static void
what_ends_a_run_of_text_is_seen_at_every_place(void **state)
{
    int c;
    size_t at, len;
    uint8_t text[200];
    llm_json_t j;

    (void) state;

    for (len = 1; len < 150; len++) {
        for (at = 0; at < len; at++) {
            for (c = 0; c < 256; c += (c < 0x23) ? 1 : 0x1d) {
                memset(text, 'x', sizeof(text));
                text[0] = '"';
                text[1 + at] = (uint8_t) c;
                text[1 + len] = '"';

                scan_whole(&j, text, len + 2);

                if (c == '"') {
                    assert_int_equal(j.offset, at + 2);
                    assert_non_null(j.error);

                } else if (c < 0x20) {
                    assert_non_null(j.error);
                    assert_int_equal(j.offset, at + 1);

                } else {
                    assert_null(j.error);
                }
            }
        }
    }
}


/* Runs of backslashes of all lengths at all places: as byte by byte. */
static void
what_an_escape_ends_with_is_seen_at_every_place(void **state)
{
    size_t i, n, lead, run, len;
    char text[256];
    llm_json_t one, all;

    static const char *tails[] = { "", "n", "t", "x", "\"", "\",", "u0041",
        "u00e", "u123\"", "uD83D\\ude00", "\x01", "n\\", "\xc3\xa9" };

    (void) state;

    for (i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
        for (lead = 0; lead < 70; lead++) {
            for (run = 0; run < 6; run++) {
                len = (size_t) sprintf(text, "[\"%.*s%.*s%s%.*s\"]", (int) lead,
                    plain, (int) run, "\\\\\\\\\\\\", tails[i],
                    (int) (5 * run * run), plain);

                start(&one);
                for (n = 0; n < len; n++) {
                    llm_json_scan(&one, (const uint8_t *) text + n, 1);
                }
                llm_json_end(&one);

                start(&all);
                llm_json_scan(&all, (const uint8_t *) text, len);
                llm_json_end(&all);

                assert_ptr_equal(all.error, one.error);
                assert_int_equal(all.offset, one.offset);
            }
        }
    }
}


static void
the_caller_is_told_when_the_document_is_whole(void **state)
{
    llm_json_t j;
    const uint8_t *text = (const uint8_t *) "{} x";

    (void) state;

    start(&j);
    assert_int_equal(llm_json_scan(&j, NULL, 0), LLM_JSON_AGAIN);
    assert_int_equal(llm_json_scan(&j, text, 1), LLM_JSON_AGAIN);
    assert_int_equal(llm_json_scan(&j, text + 1, 1), LLM_JSON_OK);
    assert_int_equal(llm_json_scan(&j, NULL, 0), LLM_JSON_OK);
    assert_int_equal(llm_json_scan(&j, text + 2, 1), LLM_JSON_OK);
    assert_int_equal(llm_json_end(&j), LLM_JSON_OK);
    assert_int_equal(llm_json_end(&j), LLM_JSON_OK);
    assert_int_equal(llm_json_scan(&j, text + 3, 1), LLM_JSON_ERROR);
    assert_int_equal(llm_json_scan(&j, text, 2), LLM_JSON_ERROR);
    assert_int_equal(llm_json_end(&j), LLM_JSON_ERROR);
    assert_int_equal(j.offset, 3);

    start(&j);
    assert_int_equal(llm_json_scan(&j, (const uint8_t *) "12", 2),
        LLM_JSON_AGAIN);
    assert_int_equal(llm_json_end(&j), LLM_JSON_OK);
    assert_int_equal(llm_json_end(&j), LLM_JSON_OK);
}


/* Generated documents */

static void
put(document_t *d, const char *s)
{
    size_t n;

    n = strlen(s);

    if (d->len + n <= DOCUMENT) {
        memcpy(d->text + d->len, s, n);
        d->len += n;
    }
}


static const char *
any(const char *const *list, uint32_t n)
{
    return list[below(n)];
}


static void
put_blank(document_t *d)
{
    static const char *const blanks[] = { " ", "\n", "\t", "\r\n", "    " };

    while (below(5) == 0) {
        put(d, any(blanks, 5));
    }
}


static void
put_string(document_t *d)
{
    uint32_t n;

    static const char *const parts[] = { "a", "b",
        "the quick brown fox jumps over the lazy dog. ", "model", "\\n", "\\\"",
        "\\\\", "\\/", "\\t", "\\b", "\\f", "\\r", "\\u0041", "\\u00E9",
        "\\u20ac", "\\ud83d\\ude00", "\xc3\xa9", "\xe2\x82\xac",
        "\xf0\x9f\x98\x80", "\\uDBFF\\udfff", "\x7f", "{[,:]}",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "\\u0000", "\\ud800", "\\udc00", "\xff", "\xed\xa0\x80" };

    put(d, "\"");

    for (n = below(below(8) == 0 ? 40 : 5); n != 0; n--) {
        put(d, any(parts, below(20) == 0 ? 28 : 23));
    }

    put(d, "\"");
}


static void
put_number(document_t *d)
{
    char s[32];

    static const char *const forms[] = { "0", "-7", "0.5", "-1.25", "1e5",
        "2E-3", "3.5e+2", "-9007199254" };

    if (below(2) == 0) {
        put(d, any(forms, 8));
        return;
    }

    snprintf(s, sizeof(s), "%u", below(100000));
    put(d, s);
}


static void
put_name(document_t *d)
{
    static const char *const names[] = { "\"model\"", "\"stream\"",
        "\"mod\\u0065l\"", "\"\\u0073tream\"", "\"messages\"", "\"m\"",
        "\"models\"", "\"role\"", "\"\"", "\"model \"", "\"stream_options\"",
        "\"\\\\model\"", "\"max_tokens\"", "\"max_completion_tokens\"",
        "\"max_output_tokens\"", "\"n\"", "\"include_usage\"" };

    if (below(8) == 0) {
        put_string(d);

    } else {
        put(d, any(names, 17));
    }
}


static void
put_value(document_t *d, int depth)
{
    uint32_t kind, n;

    static const char *const words[] = { "true", "false", "null" };

    put_blank(d);

    kind = (depth == 0) ? below(20) == 0 ? below(10) : 9 : below(10);

    if (depth > 5 && kind > 7) {
        kind = 0;
    }

    if (kind < 4) {
        put_string(d);

    } else if (kind < 6) {
        put_number(d);

    } else if (kind < 8) {
        put(d, any(words, 3));

    } else {
        put(d, (kind == 8) ? "[" : "{");
        put_blank(d);

        for (n = below(6); n != 0; n--) {
            if (kind == 9) {
                put_name(d);
                put_blank(d);
                put(d, ":");
            }

            put_value(d, depth + 1);
            put(d, (n > 1) ? "," : "");
            put_blank(d);
        }

        put(d, (kind == 8) ? "]" : "}");
    }

    put_blank(d);
}


/* Removes, doubles, swaps or overwrites a few bytes. */
static void
mutate(document_t *d)
{
    size_t at, n;
    uint32_t times;

    static const uint8_t bytes[] =
        "\"\"\"\\\\{}[],::0019-+.eEtfnu \n\0\x01\x1f\x7f\x80\xc3\xed\xef\xff";

    for (times = 1 + below(3); times != 0 && d->len > 1; times--) {
        at = below((uint32_t) d->len);

        switch (below(5)) {

        case 0:
            d->len = at;
            break;

        case 1:
            memmove(d->text + at, d->text + at + 1, d->len - at - 1);
            d->len--;
            break;

        case 2:
            if (d->len < DOCUMENT) {
                memmove(d->text + at + 1, d->text + at, d->len - at);
                d->len++;
            }

            break;

        case 3:
            d->text[at] = bytes[below(sizeof(bytes) - 1)];
            break;

        default:
            n = below((uint32_t) (d->len - at));
            memmove(d->text + at, d->text + at + n, d->len - at - n);
            d->len -= n;
        }
    }
}


static void
generate(document_t *d)
{
    d->len = 0;
    put_value(d, 0);

    if (below(2) == 0) {
        mutate(d);
    }
}


static void
show(const document_t *d)
{
    size_t i;

    print_message("LLM_SEED=%llu, %zu bytes: ", (unsigned long long) seed,
        d->len);

    for (i = 0; i < d->len; i++) {
        if (d->text[i] >= 0x20 && d->text[i] < 0x7f) {
            print_message("%c", d->text[i]);

        } else {
            print_message("<%02x>", d->text[i]);
        }
    }

    print_message("\n");
}


static bool
same_usage(const llm_json_t *a, const llm_json_t *b)
{
    llm_json_inject_t x, y;

    x = llm_json_usage_insert(a);
    y = llm_json_usage_insert(b);

    return x.offset == y.offset && x.cut_len == y.cut_len && x.len == y.len
           && x.text == y.text;
}


static bool
same(const llm_json_t *a, const llm_json_t *b)
{
    if (a->error != NULL || b->error != NULL) {
        return a->error == b->error && a->offset == b->offset;
    }

    return a->root == b->root && a->model == b->model && a->stream == b->stream
           && a->offset == b->offset && a->model_unfit == b->model_unfit
           && a->model_start == b->model_start && a->model_end == b->model_end
           && a->has_max_tokens == b->has_max_tokens
           && a->max_tokens == b->max_tokens && a->n == b->n
           && a->stream_options == b->stream_options
           && a->include_usage == b->include_usage && same_usage(a, b)
           && a->model_len == b->model_len
           && memcmp(a->model_value, b->model_value, a->model_len) == 0;
}


/* Scans in pieces of up to max bytes, or of just max for max = 1. */
static void
scan_pieces(llm_json_t *j, const document_t *d, uint32_t max)
{
    size_t at, n;

    start(j);

    for (at = 0; at < d->len; at += n) {
        n = 1 + below(max);
        n = (n > d->len - at) ? d->len - at : n;
        scan_piece(j, d->text + at, n);
    }

    llm_json_end(j);
}


static void
no_split_of_a_body_changes_what_is_found(void **state)
{
    int i, times;
    size_t at;
    document_t d;
    llm_json_t whole, split;

    (void) state;

    for (times = 0; times < 1500; times++) {
        generate(&d);
        scan_whole(&whole, d.text, d.len);

        for (at = 0; at <= d.len && d.len < 300; at++) {
            start(&split);
            scan_piece(&split, d.text, at);
            scan_piece(&split, d.text + at, d.len - at);
            llm_json_end(&split);

            if (!same(&whole, &split)) {
                show(&d);
                fail_msg("split at %zu differs", at);
            }
        }

        for (i = 0; i < 12; i++) {
            scan_pieces(&split, &d, (i == 0) ? 1 : 1u << i);

            if (!same(&whole, &split)) {
                show(&d);
                fail_msg("pieces of up to %u bytes differ", 1u << i);
            }
        }
    }
}


/* Length of the UTF-8 character at p, 0 if there is none (RFC 3629). */
static size_t
utf8(const uint8_t *p, size_t len)
{
    size_t i, n;

    static const struct {
        uint8_t first, last; /* of the first byte */
        uint8_t low, high;   /* of the second */
        size_t len;
    } forms[] = {
        { 0x00, 0x7f, 0, 0, 1 },
        { 0xc2, 0xdf, 0x80, 0xbf, 2 },
        { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
        { 0xe1, 0xec, 0x80, 0xbf, 3 },
        { 0xed, 0xed, 0x80, 0x9f, 3 },
        { 0xee, 0xef, 0x80, 0xbf, 3 },
        { 0xf0, 0xf0, 0x90, 0xbf, 4 },
        { 0xf1, 0xf3, 0x80, 0xbf, 4 },
        { 0xf4, 0xf4, 0x80, 0x8f, 4 },
    };

    for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (*p >= forms[i].first && *p <= forms[i].last) {
            break;
        }
    }

    if (i == sizeof(forms) / sizeof(forms[0]) || forms[i].len > len) {
        return 0;
    }

    if (forms[i].len > 1 && (p[1] < forms[i].low || p[1] > forms[i].high)) {
        return 0;
    }

    for (n = 2; n < forms[i].len; n++) {
        if ((p[n] & 0xc0) != 0x80) {
            return 0;
        }
    }

    return forms[i].len;
}


/*
 * Bytes that are no UTF-8 become '?': jansson takes none of them.  A plain
 * NUL becomes another control character: jansson overlooks it after a number.
 */
static void
to_utf8(uint8_t *p, size_t len)
{
    size_t at, n;

    for (at = 0; at < len; at += n) {
        n = utf8(p + at, len - at);

        if (n == 0) {
            p[at] = '?';
            n = 1;

        } else if (p[at] == '\0') {
            p[at] = '\x01';
        }
    }
}


/* The surrogate that the escape at p stands for, or 0. */
static unsigned
surrogate(const uint8_t *p, size_t len)
{
    char hex[5], *end;
    unsigned c;

    if (len < 6 || p[0] != '\\' || p[1] != 'u') {
        return 0;
    }

    memcpy(hex, p + 2, 4);
    hex[4] = '\0';
    c = (unsigned) strtoul(hex, &end, 16);

    return (end == hex + 4 && c >= 0xd800 && c <= 0xdfff) ? c : 0;
}


/* Lone surrogates become question marks; tells if there were any. */
static bool
to_pairs(uint8_t *p, size_t len)
{
    bool lone;
    size_t at;
    unsigned c;

    lone = false;

    for (at = 0; at < len; at++) {
        if (p[at] != '\\') {
            continue;
        }

        c = surrogate(p + at, len - at);

        if (c != 0 && c < 0xdc00
            && surrogate(p + at + 6, len - at - 6) >= 0xdc00) {
            at += 11;

        } else if (c != 0) {
            memcpy(p + at, "\\u003f", 6);
            lone = true;

        } else {
            at++;
        }
    }

    return lone;
}


static llm_json_type_t
type_of(const json_t *value)
{
    if (value == NULL) {
        return LLM_JSON_ABSENT;
    }

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return LLM_JSON_OBJECT;
    case JSON_ARRAY:
        return LLM_JSON_ARRAY;
    case JSON_STRING:
        return LLM_JSON_STRING_VALUE;
    case JSON_TRUE:
        return LLM_JSON_TRUE;
    case JSON_FALSE:
        return LLM_JSON_FALSE;
    case JSON_NULL:
        return LLM_JSON_NULL;
    default:
        return LLM_JSON_NUMBER;
    }
}


static bool
same_model(llm_json_t *j, const json_t *model)
{
    bool unfit;
    size_t i, len;
    const char *value;

    if (j->model != LLM_JSON_STRING_VALUE) {
        return true;
    }

    len = json_string_length(model);
    value = json_string_value(model);
    unfit = len > LLM_JSON_STRING;

    for (i = 0; i < len; i++) {
        unfit = unfit || (unsigned char) value[i] < ' ' || value[i] == '\x7f';
    }

    if (unfit || j->model_unfit) {
        return unfit == j->model_unfit && j->model_len == 0;
    }

    to_utf8(j->model_value, j->model_len);

    return len == j->model_len && memcmp(value, j->model_value, len) == 0;
}


/*
 * What jansson has no room for, or will not have: integers over 64 bits,
 * numbers out of a double's range, a NUL in a name.
 */
static bool
is_a_limit_of_jansson(const json_error_t *e)
{
    return strstr(e->text, "too big") != NULL
           || strstr(e->text, "overflow") != NULL
           || strstr(e->text, "NUL byte in object key") != NULL;
}


/* A count, as jansson sees it; false if it is none. */
static bool
count_of(const json_t *root, const char *name, uint64_t *count)
{
    const json_t *value;

    value = json_object_get(root, name);

    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }

    *count = (uint64_t) json_integer_value(value);
    return true;
}


static bool
same_counts(const llm_json_t *j, const json_t *root, const document_t *d)
{
    bool has;
    uint64_t n, max;

    max = 0;
    has = count_of(root, "max_completion_tokens", &max)
          || count_of(root, "max_output_tokens", &max)
          || count_of(root, "max_tokens", &max);

    if (!count_of(root, "n", &n) || n == 0) {
        n = 1;
    }

    /* a -0 is no count, but jansson's 0 */

    if (memmem(d->text, d->len, "-0", 2) != NULL) {
        return true;
    }

    return j->has_max_tokens == has && j->max_tokens == max && j->n == n;
}


/* Says what differs, NULL if nothing does. */
static const char *
differs(llm_json_t *j, const json_t *root, const document_t *d, bool lone)
{
    const json_t *model, *stream;

    if (j->error != NULL && lone && strstr(j->error, "lone") != NULL) {
        return NULL;
    }

    if ((j->error == NULL) != (root != NULL)) {
        return (root != NULL) ? "only jansson accepts it"
                              : "only the scanner accepts it";
    }

    if (root == NULL) {
        return NULL;
    }

    model = json_object_get(root, "model");
    stream = json_object_get(root, "stream");

    if (j->root != type_of(root) || j->model != type_of(model)
        || j->stream != type_of(stream))
    {
        return "another type";
    }

    if (j->stream_options != type_of(json_object_get(root, "stream_options"))) {
        return "other options";
    }

    if (!same_counts(j, root, d)) {
        return "other counts";
    }

    return same_model(j, model) ? NULL : "another model";
}


static void
a_body_is_accepted_and_read_as_by_jansson(void **state)
{
    bool lone;
    long i, documents, accepted, skipped;
    json_t *root;
    document_t d, clean;
    llm_json_t j;
    const char *difference;
    json_error_t e;

    (void) state;

    documents = getenv("LLM_DOCUMENTS") ? atol(getenv("LLM_DOCUMENTS")) : 20000;
    accepted = 0;
    skipped = 0;

    for (i = 0; i < documents; i++) {
        generate(&d);
        scan_whole(&j, d.text, d.len);

        clean = d;
        to_utf8(clean.text, clean.len);
        lone = to_pairs(clean.text, clean.len);

        root = json_loadb((const char *) clean.text, clean.len,
            JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);

        if (root == NULL && is_a_limit_of_jansson(&e)) {
            skipped++;
            continue;
        }

        accepted += (root != NULL);
        difference = differs(&j, root, &clean, lone);
        json_decref(root);

        if (difference != NULL) {
            show(&d);
            fail_msg("%s; jansson: %s; scanner: %s", difference,
                root ? "" : e.text, j.error ? j.error : "");
        }
    }

    print_message("%ld documents, %ld accepted, %ld beyond jansson\n",
        documents, accepted, skipped);

    /* neither side may be all there is */

    assert_true(documents < 1000
                || (accepted > documents / 4 && accepted < documents * 9 / 10
                    && skipped < documents / 10));
}


/*
 * A stream's body in which the options are often there.  Names may stand
 * twice.
 */
static void
generate_stream(document_t *d)
{
    uint32_t n;

    static const char *const values[] = { "null", "{}", "{ }",
        "{\"include_usage\":true}", "{\"include_usage\" : false , \"a\":1}",
        "{\"a\":\"}\",\"include\\u005fusage\":null}",
        "{\"a\":{\"include_usage\":false}}",
        "{\"include_usage\":true,\"b\":[{}],\"include_usage\":null}" };

    d->len = 0;
    put_blank(d);
    put(d, "{");

    for (n = below(8); n != 0; n--) {
        put_blank(d);

        if (below(2) == 0) {
            put(d, "\"stream_options\":");
            put(d, any(values, 8));

        } else {
            put_name(d);
            put(d, ":");
            put_value(d, 4);
        }

        put(d, ",");
    }

    put_blank(d);
    put(d, "\"stream\" :true}");
    put_blank(d);
}


/* What became of the body; both are taken apart here. */
static void
assert_only_usage_differs(json_t *before, json_t *after)
{
    json_t *options, *old;

    options = json_object_get(after, "stream_options");
    assert_true(json_is_true(json_object_get(options, "include_usage")));

    old = json_object_get(before, "stream_options");
    assert_true(old == NULL || json_is_null(old) || json_is_object(old));

    if (json_object_size(old) == 0
        && json_object_get(old, "include_usage") == NULL) {
        assert_int_equal(json_object_size(options), 1);
    }

    if (json_is_object(old)) {
        json_object_set_new(old, "include_usage", json_true());

    } else {
        json_object_set_new(before, "stream_options",
            json_pack("{sb}", "include_usage", 1));
    }

    assert_true(json_equal(before, after));
}


static void
nothing_but_usage_is_added_to_a_body(void **state)
{
    int i, done, left;
    char *out;
    size_t len;
    json_t *before, *after, *options;
    document_t d;
    llm_json_t j;
    llm_json_inject_t inject;

    (void) state;

    done = 0;
    left = 0;

    for (i = 0; i < 5000; i++) {
        generate_stream(&d);
        to_utf8(d.text, d.len);
        to_pairs(d.text, d.len);

        before = json_loadb((const char *) d.text, d.len, JSON_ALLOW_NUL, NULL);

        if (before == NULL) {
            continue;
        }

        assert_int_equal(scan_whole(&j, d.text, d.len), LLM_JSON_OK);
        inject = llm_json_usage_insert(&j);
        options = json_object_get(before, "stream_options");

        if (inject.text == NULL) {
            left++;
            assert_true(options != NULL && !json_is_null(options));
            options = json_object_get(options, "include_usage");
            assert_true(options == NULL || !json_is_null(options));
            assert_false(json_is_false(options));

        } else {
            done++;
            out = inserted((const char *) d.text, d.len, &inject, &len);
            after = json_loadb(out, len, JSON_ALLOW_NUL, NULL);

            if (after == NULL) {
                show(&d);
            }

            assert_non_null(after);
            assert_only_usage_differs(before, after);

            /* and once is enough */

            assert_int_equal(scan_whole(&j, out, len), LLM_JSON_OK);
            assert_null(llm_json_usage_insert(&j).text);

            json_decref(after);
            free(out);
        }

        json_decref(before);
    }

    assert_true(done > 1000 && left > 100);
}


int
main(void)
{
    unsigned way;
    int failed;

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_and_stream_of_a_chat_are_found),
        cmocka_unit_test(every_type_of_a_member_is_told),
        cmocka_unit_test(a_model_further_inside_is_not_taken_for_the_model),
        cmocka_unit_test(names_may_be_written_with_escapes),
        cmocka_unit_test(the_last_of_duplicates_counts_with_all_its_parts),
        cmocka_unit_test(the_longest_answer_that_is_asked_for_is_found),
        cmocka_unit_test(a_limit_that_is_no_count_is_ignored),
        cmocka_unit_test(the_number_of_answers_is_found),
        cmocka_unit_test(a_stream_comes_to_ask_for_its_usage),
        cmocka_unit_test(a_body_is_left_alone_where_usage_cannot_be_asked_for),
        cmocka_unit_test(a_model_is_decoded),
        cmocka_unit_test(a_model_of_256_bytes_is_kept_and_a_longer_one_told),
        cmocka_unit_test(a_control_character_makes_no_model),
        cmocka_unit_test(a_second_model_is_told),
        cmocka_unit_test(a_lone_surrogate_is_an_error_in_the_model_only),
        cmocka_unit_test(whoever_sends_bad_json_learns_what_and_where),
        cmocka_unit_test(good_numbers_are_accepted),
        cmocka_unit_test(nesting_is_accepted_to_the_limit_and_not_beyond),
        cmocka_unit_test(what_ends_a_run_of_text_is_seen_at_every_place),
        cmocka_unit_test(what_an_escape_ends_with_is_seen_at_every_place),
        cmocka_unit_test(the_caller_is_told_when_the_document_is_whole),
        cmocka_unit_test(no_split_of_a_body_changes_what_is_found),
        cmocka_unit_test(a_body_is_accepted_and_read_as_by_jansson),
        cmocka_unit_test(nothing_but_usage_is_added_to_a_body)
    };

    seed = (uint64_t) time(NULL);

    if (getenv("LLM_SEED") != NULL) {
        seed = strtoull(getenv("LLM_SEED"), NULL, 10);
    }

    rnd = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    print_message("LLM_SEED=%llu\n", (unsigned long long) seed);

    failed = 0;

    for (way = 0; way < LLM_JSON_WAYS; way++) {
        if (!llm_json_skip_by(way)) {
            print_message("%s: not on this machine\n", ways[way]);
            continue;
        }

        failed += cmocka_run_group_tests_name(ways[way], tests, NULL, NULL);
    }

    return failed;
}
