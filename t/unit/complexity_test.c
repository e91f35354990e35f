/*
 * The complexity of a prompt: what is counted, what the thresholds make of
 * it, and that neither pieces nor escapes nor the order of members matter.
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

#include "llm_complexity.h"


#define SIMPLE LLM_COMPLEXITY_SIMPLE
#define MEDIUM LLM_COMPLEXITY_MEDIUM
#define COMPLEX LLM_COMPLEXITY_COMPLEX

#define TERM(s)          \
    {                    \
        s, sizeof(s) - 1 \
    }


static uint64_t rnd;

static const llm_complexity_term_t words[] = { TERM("prove"), TERM("Derive"),
    TERM("theorem"), TERM("PROVE"), TERM("b\xc3\xa9zout"), TERM("x") };

static llm_complexity_conf_t conf;


static uint32_t
below(uint32_t n)
{
    rnd ^= rnd << 13;
    rnd ^= rnd >> 7;
    rnd ^= rnd << 17;

    return (uint32_t) ((rnd >> 32) % n);
}


/* A list in memory that has no byte too many. */
static llm_complexity_terms_t *
build(const llm_complexity_term_t *terms, size_t n)
{
    void *memory;

    memory = malloc(llm_complexity_terms_size(terms, n));
    assert_non_null(memory);
    assert_ptr_equal(llm_complexity_terms_build(memory, terms, n), memory);

    return memory;
}


static int
set_up(void **state)
{
    llm_complexity_defaults(&conf);
    *state = build(words, sizeof(words) / sizeof(words[0]));
    conf.list = *state;

    return 0;
}


static int
tear_down(void **state)
{
    free(*state);
    return 0;
}


/* Scans a copy of the piece that has no byte too many. */
static void
scan_piece(llm_complexity_t *c, const char *p, size_t len)
{
    uint8_t *copy;

    copy = malloc(len);
    assert_true(copy != NULL || len == 0);

    if (len != 0) {
        memcpy(copy, p, len);
    }

    llm_complexity_scan(c, copy, len);
    free(copy);
}


static void
start(llm_complexity_t *c)
{
    memset(c, 0xa5, sizeof(*c));
    llm_complexity_init(c, &conf);
}


static void
measure(llm_complexity_t *c, const char *body)
{
    start(c);
    scan_piece(c, body, strlen(body));
    assert_int_equal(llm_complexity_end(c), LLM_JSON_OK);
}


static void
assert_question(const char *body, uint64_t n, unsigned terms, bool code)
{
    llm_complexity_t c;

    measure(&c, body);
    assert_int_equal(c.question.words, n);
    assert_int_equal(c.question.terms, terms);
    assert_int_equal(c.question.code, code);
}


static void
assert_all(const char *body, uint64_t all_words, uint64_t messages)
{
    llm_complexity_t c;

    measure(&c, body);
    assert_int_equal(c.all_words, all_words);
    assert_int_equal(c.messages, messages);
}


/* A chat of one message with this text. */
static void
ask(llm_complexity_t *c, const char *text, size_t len)
{
    char *body;
    json_t *root;

    root = json_pack("{s[{ssss%}]}", "messages", "role", "user", "content",
        text, len);
    assert_non_null(root);
    body = json_dumps(root, 0);
    assert_non_null(body);

    measure(c, body);

    free(body);
    json_decref(root);
}


static void
assert_words(const char *text, uint64_t n)
{
    llm_complexity_t c;

    ask(&c, text, strlen(text));
    assert_int_equal(c.question.words, n);
}


static void
assert_code(const char *text, bool code)
{
    llm_complexity_t c;

    ask(&c, text, strlen(text));

    if (c.question.code != code) {
        fail_msg("%s: %s", code ? "no code" : "code", text);
    }
}


static void
the_last_message_of_the_user_is_the_question(void **state)
{
    const char *body;

    (void) state;

    body = "{\"messages\":[{\"role\":\"system\",\"content\":\"Prove a b c\"},"
           "{\"role\":\"user\",\"content\":\"Derive this and that\"},"
           "{\"role\":\"assistant\",\"content\":\"```x```\"},"
           "{\"role\":\"user\",\"content\":\"And why\"},"
           "{\"role\":\"tool\",\"content\":\"prove it again\"}]}";
    assert_question(body, 2, 0, false);
    assert_all(body, 14, 5);

    /* the order of members means nothing */

    assert_question(
        "{\"messages\":[{\"content\":\"one two\",\"role\":\"user\"},"
        "{\"content\":\"one\",\"role\":\"assistant\"}]}",
        2, 0, false);

    /* nor does a message without words, as with results of tools */

    assert_question("{\"messages\":[{\"role\":\"user\",\"content\":\"a b\"},"
                    "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
                    "\"content\":[{\"type\":\"text\",\"text\":\"c\"}]}]},"
                    "{\"role\":\"user\",\"content\":\" ?! \"}]}",
        2, 0, false);

    /* others are no users, whatever they are called */

    assert_question("{\"messages\":[{\"role\":\"use\",\"content\":\"a\"}]}", 0,
        0, false);
    assert_question("{\"messages\":[{\"role\":\"users\",\"content\":\"a\"}]}",
        0, 0, false);
    assert_question("{\"messages\":[{\"role\":\"u\\u0073er\",\"role\":\"\","
                    "\"content\":\"a\"}]}",
        0, 0, false);

    /* what an earlier question held is not held against the last */

    assert_question(
        "{\"messages\":[{\"role\":\"user\",\"content\":\"prove x\"},"
        "{\"role\":\"user\",\"content\":\"prove\"}]}",
        1, 1, false);

    assert_question("{\"messages\":[{\"content\":\"nobody said\"},"
                    "{\"role\":\"users\",\"content\":\"a\"},"
                    "{\"role\":\"use\",\"content\":\"a\"},"
                    "{\"role\":\"\",\"content\":\"a\"},"
                    "{\"role\":null,\"content\":\"a\"},"
                    "{\"role\":\"us\\u0065r\",\"content\":\"a b c\"},"
                    "{\"role\":\"user\",\"role\":\"tool\",\"content\":\"a\"},"
                    "{\"role\":\"user\",\"role\":1,\"content\":\"a\"},"
                    "{\"role\":\"User\",\"content\":\"a\"}]}",
        3, 0, false);
}


static void
every_dialect_is_read(void **state)
{
    (void) state;

    /* parts, of chat and of Anthropic's messages, and its system prompt */

    assert_question("{\"messages\":[{\"role\":\"user\",\"content\":["
                    "{\"type\":\"text\",\"text\":\"one two\"},"
                    "{\"type\":\"image_url\",\"image_url\":{\"url\":\"x y\"}},"
                    "{\"type\":\"text\",\"text\":\"prove\"}]}],"
                    "\"system\":[{\"type\":\"text\",\"text\":\"a x c\"}]}",
        3, 1, false);
    assert_all("{\"system\":\"a b c\",\"messages\":[{\"role\":\"user\","
               "\"content\":\"d\"}]}",
        4, 1);
    assert_all("{\"messages\":[{\"role\":\"user\",\"content\":\"d\"}],"
               "\"system\":[{\"type\":\"text\",\"text\":\"a b c\"}]}",
        4, 1);

    /* legacy completions */

    assert_question("{\"prompt\":\"prove x\"}", 2, 2, false);
    assert_question("{\"prompt\":[\"a b c\",\"d e\"]}", 2, 0, false);
    assert_all("{\"prompt\":[\"a b c\",\"d e\"]}", 5, 2);
    assert_all("{\"prompt\":[1,2,3]}", 0, 0);

    /* the Responses API */

    assert_question("{\"input\":\"a b\",\"instructions\":\"c d e\"}", 2, 0,
        false);
    assert_all("{\"input\":\"a b\",\"instructions\":\"c d e\"}", 5, 1);
    assert_question("{\"input\":[{\"role\":\"user\",\"content\":"
                    "[{\"type\":\"input_text\",\"text\":\"a b c\"}]},"
                    "{\"type\":\"function_call_output\",\"output\":\"d\"}]}",
        3, 0, false);
    assert_all(
        "{\"prompt\":{\"id\":\"p\",\"content\":\"a b\"},\"input\":\"c\"}", 1,
        1);

    /* nothing to read */

    assert_question("{}", 0, 0, false);
    assert_question("[\"a b\"]", 0, 0, false);
    assert_question("\"a b\"", 0, 0, false);
    assert_all("{\"a\":{\"messages\":[{\"role\":\"user\","
               "\"content\":\"d\"}]},\"text\":\"a\"}",
        0, 0);
}


static void
words_are_counted(void **state)
{
    (void) state;

    assert_words("word", 1);
    assert_words(" two  words\n", 2);
    assert_words("a,b;c-d", 4);
    assert_words("snake_case is_1 word2", 3);
    assert_words("caf\xc3\xa9 na\xc3\xafve", 2);
    assert_words("\xd0\xbf\xd1\x80\xd0\xb8 \xd0\xb2\xd0\xb5\xd1\x82", 2);
    assert_words("...", 0);
    assert_words("a\tb\r\nc\x01"
                 "d",
        4);

    /* between Chinese words there are no blanks */

    assert_words("\xe4\xbb\x8a", 1);
    assert_words("\xe4\xbb\x8a\xe6\x97\xa5", 1);
    assert_words("\xe4\xbb\x8a\xe6\x97\xa5\xe3\x81\xaf", 2);
    assert_words("\xe4\xbb\x8a\xe6\x97\xa5\xe3\x81\xaf\xe3\x81\x84 ok", 3);

    /* parts and messages end words */

    assert_question("{\"messages\":[{\"role\":\"user\",\"content\":["
                    "{\"text\":\"one\"},{\"text\":\"two\"},\"three\"]}]}",
        3, 0, false);
}


static void
escapes_are_read_as_what_they_stand_for(void **state)
{
    (void) state;

    assert_question("{\"prompt\":\"a\\nb\\tc\\u0020d\\u00e9e\\/f\"}", 5, 0,
        false);
    assert_question("{\"prompt\":\"pr\\u006fve, \\u0042\\u00e9zout\"}", 2, 2,
        false);
    assert_question("{\"prompt\":\"\\u0060\\u0060`\"}", 0, 0, false);
    assert_question("{\"prompt\":\"\\u0060\\u0060` a\"}", 1, 0, true);
    assert_question("{\"prompt\":\"a\\ud800 \\ud83d\\ude00b\"}", 2, 0, false);
}


static void
different_terms_are_counted_as_whole_words_in_any_case(void **state)
{
    size_t i;
    llm_complexity_t c;

    static const struct {
        const char *text;
        unsigned terms;
    } cases[] = {
        { "prove", 1 },
        { "Prove it, PROVE it!", 1 },
        { "prove,derive(theorem)", 3 },
        { "proved unprove prove_ _prove prove1", 0 },
        { "approve x", 1 },
        { "b\xc3\xa9zout B\xc3\xa9ZOUT", 1 },
        { "B\xc3\x89ZOUT bezout", 0 },
        { "prove\xc3\xa9", 0 },
        { "", 0 },
    };

    (void) state;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ask(&c, cases[i].text, strlen(cases[i].text));

        if (c.question.terms != cases[i].terms) {
            fail_msg("%u terms: %s", c.question.terms, cases[i].text);
        }
    }

    conf.list = NULL;
    ask(&c, "prove", 5);
    assert_int_equal(c.question.terms, 0);
}


static void
a_list_may_be_empty_or_full(void **state)
{
    unsigned i;
    char text[LLM_COMPLEXITY_TERMS][LLM_COMPLEXITY_TERM + 1], other[256];
    llm_complexity_t c;
    llm_complexity_term_t terms[LLM_COMPLEXITY_TERMS];
    llm_complexity_terms_t *list;

    (void) state;

    list = build(NULL, 0);
    conf.list = list;
    ask(&c, "prove", 5);
    assert_int_equal(c.question.words, 1);
    assert_int_equal(c.question.terms, 0);
    free(list);

    for (i = 0; i < LLM_COMPLEXITY_TERMS; i++) {
        snprintf(text[i], sizeof(text[i]), "T%0*u", 1 + (int) i % 62, i);
        terms[i].text = text[i];
        terms[i].len = strlen(text[i]);
        assert_true(llm_complexity_is_term(&terms[i]));
    }

    list = build(terms, LLM_COMPLEXITY_TERMS);
    conf.list = list;

    for (i = 0; i < LLM_COMPLEXITY_TERMS; i++) {
        snprintf(other, sizeof(other), "%.63s t%.62s %.63sq", text[i],
            text[i] + 1, text[i]);
        ask(&c, other, strlen(other));
        assert_int_equal(c.question.words, 3);
        assert_int_equal(c.question.terms, 1);
    }

    free(list);
}


static void
what_is_no_single_word_is_no_term(void **state)
{
    size_t i;
    llm_complexity_term_t term;

    static const llm_complexity_term_t bad[] = { TERM(""), TERM("two words"),
        TERM("step-by-step"), TERM("a\0b"), TERM("a.") };

    (void) state;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(llm_complexity_is_term(&bad[i]));
    }

    term.text =
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    term.len = 63;
    assert_true(llm_complexity_is_term(&term));
    term.len = 64;
    assert_false(llm_complexity_is_term(&term));
}


static void
code_is_recognized_and_prose_is_not(void **state)
{
    (void) state;

    assert_code("Why?\n```python\nx = 1\n```", true);
    assert_code("a ``` b", true);
    assert_code("`a` and ``b``", false);
    assert_code("a `` ` b", false);
    assert_code("a ``\n` b", false);

    assert_code("int main(void)\n{\n    return f(1);\n}\n", true);
    assert_code("int main(void)\r\n{ \t\r\n    return f(1);\r\n}", true);
    assert_code("a = 1;\nb = 2;\nc();", true);
    assert_code("def f(x):\n  if g(x):\n    for i in range(3):\n", true);
    assert_code("[\n {\n \"b\": 1\n },\n {\n \"b\": 2", true);

    /* two lines are not enough, and lists are no code */

    assert_code("a = 1;\nb = 2;\nc", false);
    assert_code("We need:\n- apples;\n- pears;\n- plums;\n- nuts;", false);
    assert_code("First:\nSecond:\nThird:\nFourth:", false);
    assert_code("Hello,\nmy order (48213),\nis late (very),\nplease,\n", false);
    assert_code("a (b) c:\nd (e) f:\ng (h) i:\nj (k) l:", false);
    assert_code("{ } and { } and { } are brackets", false);

    /* the lines of one message, in whatever parts of it */

    assert_question("{\"messages\":[{\"role\":\"user\",\"content\":["
                    "{\"text\":\"f(x) {\"},{\"text\":\"g();\\n}\"}]}]}",
        3, 1, true);
    assert_question(
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a {\\n}\"},"
        "{\"role\":\"user\",\"content\":\"b {\\n}\"}]}",
        1, 0, false);

    /* nor does one begin in one part and end in the next */

    assert_question("{\"messages\":[{\"role\":\"user\",\"content\":["
                    "{\"text\":\"a``\"},{\"text\":\"`b\"}]}]}",
        2, 0, false);
}


/* Of so many words, a term, and code if that is asked for. */
static llm_complexity_level_t
level_of(unsigned n, unsigned terms, bool code)
{
    char text[8192];
    size_t len;
    unsigned i;
    llm_complexity_t c;

    static const char *list[] = { "prove ", "derive ", "theorem ", "x " };

    len = 0;
    text[0] = '\0';

    for (i = 0; i < n; i++) {
        len += (size_t) sprintf(text + len, "%s",
            (i < terms) ? list[i] : "word ");
    }

    len += (size_t) sprintf(text + len, "%s", code ? "```" : "");
    ask(&c, text, len);
    assert_int_equal(c.question.words, n);

    return llm_complexity_level(&c);
}


static void
thresholds_decide_and_the_highest_wins(void **state)
{
    (void) state;

    assert_int_equal(level_of(0, 0, false), SIMPLE);
    assert_int_equal(level_of(79, 0, false), SIMPLE);
    assert_int_equal(level_of(80, 0, false), MEDIUM);
    assert_int_equal(level_of(399, 0, false), MEDIUM);
    assert_int_equal(level_of(400, 0, false), COMPLEX);
    assert_int_equal(level_of(1, 1, false), MEDIUM);
    assert_int_equal(level_of(2, 2, false), MEDIUM);
    assert_int_equal(level_of(3, 3, false), COMPLEX);
    assert_int_equal(level_of(1, 0, true), MEDIUM);
    assert_int_equal(level_of(99, 0, true), MEDIUM);
    assert_int_equal(level_of(100, 0, true), COMPLEX);
    assert_int_equal(level_of(400, 1, false), COMPLEX);

    conf.code = SIMPLE;
    assert_int_equal(level_of(1, 0, true), SIMPLE);
    assert_int_equal(level_of(100, 0, true), COMPLEX);
    conf.code_words = 0;
    assert_int_equal(level_of(100, 0, true), MEDIUM);
    conf.code = COMPLEX;
    assert_int_equal(level_of(1, 0, true), COMPLEX);

    memset(&conf.words, 0, sizeof(conf.words));
    assert_int_equal(level_of(500, 0, false), SIMPLE);
    conf.words.complex = 10;
    assert_int_equal(level_of(9, 0, false), SIMPLE);
    assert_int_equal(level_of(10, 0, false), COMPLEX);
}


static void
the_whole_prompt_decides_where_a_threshold_is_set(void **state)
{
    llm_complexity_t c;
    const char *body = "{\"system\":\"a b c d\",\"messages\":["
                       "{\"role\":\"user\",\"content\":\"e\"},"
                       "{\"role\":\"assistant\",\"content\":\"f\"},"
                       "{\"role\":\"user\",\"content\":\"g\"}]}";

    (void) state;

    measure(&c, body);
    assert_int_equal(llm_complexity_level(&c), SIMPLE);

    conf.all_words.medium = 7;
    conf.all_words.complex = 8;
    assert_int_equal(llm_complexity_level(&c), MEDIUM);
    conf.all_words.complex = 7;
    assert_int_equal(llm_complexity_level(&c), COMPLEX);

    memset(&conf.all_words, 0, sizeof(conf.all_words));
    conf.messages.medium = 3;
    assert_int_equal(llm_complexity_level(&c), MEDIUM);
    conf.messages.medium = 4;
    assert_int_equal(llm_complexity_level(&c), SIMPLE);

    assert_string_equal(llm_complexity_name(SIMPLE), "simple");
    assert_string_equal(llm_complexity_name(MEDIUM), "medium");
    assert_string_equal(llm_complexity_name(COMPLEX), "complex");
}


static void
bad_json_is_an_error(void **state)
{
    llm_complexity_t c;

    (void) state;

    start(&c);
    scan_piece(&c, "{\"prompt\":\"a b\"", 15);
    assert_int_equal(llm_complexity_end(&c), LLM_JSON_ERROR);
    assert_string_equal(c.error, "unexpected end");
    assert_int_equal(c.offset, 15);
}


/* Generated prompts */

static json_t *
any_text(void)
{
    char text[2048];
    size_t len;
    uint32_t n;
    const char *part;

    static const char *const parts[] = { "word", "prove", "Derive", "x", " ",
        " ", " ", "\n", "\n", ".", "caf\xc3\xa9", "\xe4\xbb\x8a\xe6\x97\xa5",
        "\xf0\x9f\x98\x80", "`", "``", "```", "{", "}", ");", "):", "},", "= ",
        "\"", "\\", "\t", "\r\n", "a_b", "theorem ",
        "a_long_word_of_more_than_sixty_four_bytes_that_is_no_term_at_all_x" };

    len = 0;

    for (n = below(30); n != 0; n--) {
        part = parts[below(sizeof(parts) / sizeof(parts[0]))];
        len += (size_t) sprintf(text + len, "%s", part);
    }

    return json_stringn(text, len);
}


static json_t *
any_content(void)
{
    uint32_t n;
    json_t *parts;

    if (below(2) == 0) {
        return any_text();
    }

    parts = json_array();

    for (n = below(4); n != 0; n--) {
        json_array_append_new(parts,
            json_pack("{ssso}", "type", "text", "text", any_text()));
    }

    return parts;
}


static json_t *
any_message(void)
{
    const char *role;

    static const char *const roles[] = { "user", "user", "assistant", "system",
        "tool", "us" };

    role = roles[below(6)];

    return (below(2) == 0)
               ? json_pack("{ssso}", "role", role, "content", any_content())
               : json_pack("{soss}", "content", any_content(), "role", role);
}


static json_t *
any_body(void)
{
    uint32_t n;
    json_t *root, *messages;

    root = json_pack("{ss}", "model", "m");
    messages = json_array();

    for (n = below(6); n != 0; n--) {
        json_array_append_new(messages, any_message());
    }

    switch (below(4)) {

    case 0:
        json_object_set_new(root, "input", messages);
        json_object_set_new(root, "instructions", any_text());
        break;

    case 1:
        json_decref(messages);
        json_object_set_new(root, "prompt", any_content());
        break;

    default:
        json_object_set_new(root, "messages", messages);

        if (below(2) == 0) {
            json_object_set_new(root, "system", any_content());
        }
    }

    return root;
}


static void
assert_same(const llm_complexity_t *a, const llm_complexity_t *b,
    const char *body)
{
    if (a->error != b->error || a->offset != b->offset
        || a->question.words != b->question.words
        || a->question.terms != b->question.terms
        || a->question.code != b->question.code || a->all_words != b->all_words
        || a->messages != b->messages)
    {
        fail_msg("differs: %s", body);
    }
}


/* Writes the body with its members in one order, its escapes in one way. */
static void
measure_as(llm_complexity_t *c, const json_t *root, size_t flags)
{
    char *body;

    body = json_dumps(root, flags);
    assert_non_null(body);
    measure(c, body);
    c->offset = 0;
    free(body);
}


static void
neither_pieces_nor_escapes_nor_order_matter(void **state)
{
    int i;
    char *body;
    size_t len, at, n;
    unsigned questions, terms, code;
    json_t *root;
    llm_complexity_t whole, split;

    (void) state;

    questions = 0;
    terms = 0;
    code = 0;

    for (i = 0; i < 1500; i++) {
        root = any_body();
        assert_non_null(root);
        body = json_dumps(root, 0);
        assert_non_null(body);
        len = strlen(body);

        measure(&whole, body);
        questions += (whole.question.words != 0);
        terms += (whole.question.terms != 0);
        code += whole.question.code;

        for (at = 0; at <= len && len < 300; at++) {
            start(&split);
            scan_piece(&split, body, at);
            scan_piece(&split, body + at, len - at);
            llm_complexity_end(&split);
            assert_same(&whole, &split, body);
        }

        start(&split);

        for (at = 0; at < len; at += n) {
            n = (i % 2) ? 1 : 1 + below(20);
            n = (n > len - at) ? len - at : n;
            scan_piece(&split, body + at, n);
        }

        llm_complexity_end(&split);
        assert_same(&whole, &split, body);

        whole.offset = 0;
        measure_as(&split, root, JSON_ENSURE_ASCII);
        assert_same(&whole, &split, body);
        measure_as(&split, root, JSON_SORT_KEYS | JSON_ESCAPE_SLASH);
        assert_same(&whole, &split, body);

        free(body);
        json_decref(root);
    }

    assert_true(questions > 500 && terms > 200 && code > 100);
}


int
main(void)
{
    uint64_t seed;

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

    const struct CMUnitTest tests[] = {
        TEST(the_last_message_of_the_user_is_the_question),
        TEST(every_dialect_is_read),
        TEST(words_are_counted),
        TEST(escapes_are_read_as_what_they_stand_for),
        TEST(different_terms_are_counted_as_whole_words_in_any_case),
        TEST(a_list_may_be_empty_or_full),
        TEST(what_is_no_single_word_is_no_term),
        TEST(code_is_recognized_and_prose_is_not),
        TEST(thresholds_decide_and_the_highest_wins),
        TEST(the_whole_prompt_decides_where_a_threshold_is_set),
        TEST(bad_json_is_an_error),
        TEST(neither_pieces_nor_escapes_nor_order_matter),
    };

    seed = (uint64_t) time(NULL);

    if (getenv("LLM_SEED") != NULL) {
        seed = strtoull(getenv("LLM_SEED"), NULL, 10);
    }

    rnd = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    print_message("LLM_SEED=%llu\n", (unsigned long long) seed);

    return cmocka_run_group_tests(tests, NULL, NULL);
}
