/*
 * Usage: the answers of each dialect, what their numbers add up to, numbers
 * that are none, and any split into pieces.  LLM_SEED=n repeats a run.
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

#include "llm_sse.h"
#include "llm_usage.h"


#define COUNT(a) (sizeof(a) / sizeof((a)[0]))


/* An answer, and: all input, cached, written, all output, reasoning. */
typedef struct {
    const char *who;
    const char *text;
    llm_usage_totals_t totals;
} answer_t;


static uint64_t seed, rnd;


static const answer_t answers[] = {
    { "chat completions",
        "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":"
        "1741570283,\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"message\":"
        "{\"role\":\"assistant\",\"content\":\"The \\\"usage\\\": "
        "{\\\"prompt_tokens\\\": 7}\\n\\u00e9 is text.\",\"refusal\":null,"
        "\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":1117,\"completion_tokens\":46,"
        "\"total_tokens\":1163,\"prompt_tokens_details\":{\"cached_tokens\":"
        "1024,\"audio_tokens\":0},\"completion_tokens_details\":{"
        "\"reasoning_tokens\":30,\"audio_tokens\":0,"
        "\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}},"
        "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_1\"}",
        { 1117, 1024, 0, 46, 30 } },

    { "legacy completions",
        "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"choices\":[{"
        "\"text\":\"\\n\\nyes\",\"index\":0,\"finish_reason\":\"length\"}],"
        "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,"
        "\"total_tokens\":12}}",
        { 5, 0, 0, 7, 0 } },

    { "embeddings",
        "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"embedding\""
        ":[0.0023064255,-0.009327292,-1.5e-05],\"index\":0}],\"model\":"
        "\"text-embedding-3-small\",\"usage\":{\"prompt_tokens\":8,"
        "\"total_tokens\":8}}",
        { 8, 0, 0, 0, 0 } },

    { "the Responses API",
        "{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"completed\","
        "\"error\":null,\"output\":[{\"type\":\"message\",\"content\":[{"
        "\"type\":\"output_text\",\"text\":\"Hi\"}]}],\"usage\":{"
        "\"input_tokens\":328,\"input_tokens_details\":{\"cached_tokens\":64},"
        "\"output_tokens\":52,\"output_tokens_details\":{\"reasoning_tokens\":"
        "12},\"total_tokens\":380},\"user\":null,\"metadata\":{}}",
        { 328, 64, 0, 52, 12 } },

    { "Azure, written to a cache",
        "{\"object\":\"response\",\"usage\":{\"input_tokens\":2000,"
        "\"input_tokens_details\":{\"cached_tokens\":300,"
        "\"cache_write_tokens\":1500},\"output_tokens\":9,\"total_tokens\":"
        "2009}}",
        { 2000, 300, 1500, 9, 0 } },

    { "images",
        "{\"created\":1,\"data\":[{\"b64_json\":\"iVBORw0KGgo=\"}],\"usage\":{"
        "\"total_tokens\":100,\"input_tokens\":50,\"output_tokens\":50,"
        "\"input_tokens_details\":{\"text_tokens\":10,\"image_tokens\":40}}}",
        { 50, 0, 0, 50, 0 } },

    { "Anthropic",
        "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\","
        "\"content\":[{\"type\":\"text\",\"text\":\"Hi!\"}],\"model\":"
        "\"claude-sonnet-4-5\",\"stop_reason\":\"end_turn\",\"usage\":{"
        "\"input_tokens\":21,\"cache_creation_input_tokens\":188,"
        "\"cache_read_input_tokens\":2086,\"cache_creation\":{"
        "\"ephemeral_5m_input_tokens\":188,\"ephemeral_1h_input_tokens\":0},"
        "\"output_tokens\":393,\"service_tier\":\"standard\"}}",
        { 21 + 188 + 2086, 2086, 188, 393, 0 } },

    { "Anthropic without a cache",
        "{\"type\":\"message\",\"usage\":{\"input_tokens\":2095,"
        "\"cache_creation_input_tokens\":null,\"cache_read_input_tokens\":null,"
        "\"output_tokens\":503}}",
        { 2095, 0, 0, 503, 0 } },

    { "DeepSeek",
        "{\"choices\":[{\"message\":{\"content\":\"Hi\",\"reasoning_content\":"
        "\"So\"}}],\"usage\":{\"prompt_tokens\":1700,\"completion_tokens\":50,"
        "\"total_tokens\":1750,\"prompt_tokens_details\":{\"cached_tokens\":"
        "1664},\"completion_tokens_details\":{\"reasoning_tokens\":40},"
        "\"prompt_cache_hit_tokens\":1664,\"prompt_cache_miss_tokens\":36}}",
        { 1700, 1664, 0, 50, 40 } },

    { "Moonshot",
        "{\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":13,"
        "\"total_tokens\":32,\"cached_tokens\":10}}",
        { 19, 10, 0, 13, 0 } },

    { "Mistral",
        "{\"id\":\"cmpl-e\",\"object\":\"chat.completion\",\"usage\":{"
        "\"prompt_audio_seconds\":null,\"prompt_tokens\":13,"
        "\"total_tokens\":35,\"completion_tokens\":22}}",
        { 13, 0, 0, 22, 0 } },

    { "Groq",
        "{\"usage\":{\"queue_time\":0.037493756,\"prompt_tokens\":18,"
        "\"prompt_time\":0.000680594,\"completion_tokens\":556,"
        "\"completion_time\":0.463333333,\"total_tokens\":574,\"total_time\":"
        "0.464013927},\"x_groq\":{\"id\":\"req_1\"}}",
        { 18, 0, 0, 556, 0 } },

    { "OpenRouter",
        "{\"id\":\"gen-1\",\"provider\":\"Anthropic\",\"usage\":{"
        "\"prompt_tokens\":194,\"completion_tokens\":12,\"total_tokens\":206,"
        "\"cost\":0.95,\"is_byok\":false,\"prompt_tokens_details\":{"
        "\"cached_tokens\":20,\"cache_write_tokens\":100,\"audio_tokens\":0,"
        "\"video_tokens\":0},\"cost_details\":{\"upstream_inference_cost\":"
        "null},\"completion_tokens_details\":{\"reasoning_tokens\":0}}}",
        { 194, 20, 100, 12, 0 } },

    { "LiteLLM: Anthropic's names, as parts of the prompt",
        "{\"usage\":{\"completion_tokens\":300,\"prompt_tokens\":2006,"
        "\"total_tokens\":2306,\"prompt_tokens_details\":{\"cached_tokens\":"
        "1500},\"cache_creation_input_tokens\":420,"
        "\"cache_read_input_tokens\":1500}}",
        { 2006, 1500, 420, 300, 0 } },

    { "a gateway that tells the names of both APIs",
        "{\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":79,"
        "\"total_tokens\":89,\"input_tokens\":0,\"output_tokens\":0,"
        "\"input_tokens_details\":null}}",
        { 10, 0, 0, 79, 0 } },

    { "the same, the other way round",
        "{\"usage\":{\"input_tokens\":10,\"output_tokens\":79,"
        "\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":89}}",
        { 10, 0, 0, 79, 0 } },

    { "xAI: reasoning beside the completion",
        "{\"usage\":{\"prompt_tokens\":32,\"completion_tokens\":9,"
        "\"total_tokens\":135,\"prompt_tokens_details\":{\"text_tokens\":32,"
        "\"cached_tokens\":6},\"completion_tokens_details\":{"
        "\"reasoning_tokens\":94},\"num_sources_used\":0}}",
        { 32, 6, 0, 103, 94 } },

    { "Gemini's compatible endpoint: reasoning in the total alone",
        "{\"usage\":{\"completion_tokens\":3,\"prompt_tokens\":9,"
        "\"total_tokens\":105}}",
        { 9, 0, 0, 96, 0 } },

    { "the same, where reasoning took all there was",
        "{\"usage\":{\"prompt_tokens\":9,\"total_tokens\":105}}",
        { 9, 0, 0, 96, 0 } },

    { "Voyage: a total alone",
        "{\"object\":\"list\",\"data\":[],\"model\":\"voyage-3\",\"usage\":{"
        "\"total_tokens\":10}}",
        { 10, 0, 0, 0, 0 } },

    { "blanks, and usage first",
        " {\n  \"usage\" : {\n    \"prompt_tokens\" : 4 ,\n\t\"completion_"
        "tokens\" : 5\r\n  } ,\n  \"choices\" : [ ]\n}\n",
        { 4, 0, 0, 5, 0 } },

    { "names with escapes", "{\"us\\u0061ge\":{\"prompt\\u005ftokens\":4}}",
        { 4, 0, 0, 0, 0 } },

    { "no part is larger than the whole",
        "{\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":5,"
        "\"prompt_tokens_details\":{\"cached_tokens\":80,"
        "\"cache_write_tokens\":90},\"completion_tokens_details\":{"
        "\"reasoning_tokens\":6}}}",
        { 100, 80, 20, 5, 5 } },

    { "nor is the cache",
        "{\"usage\":{\"prompt_tokens\":100,\"prompt_cache_hit_tokens\":101,"
        "\"cache_creation_input_tokens\":1}}",
        { 100, 100, 0, 0, 0 } },

    { "a total that is too small says nothing",
        "{\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,"
        "\"total_tokens\":1}}",
        { 10, 0, 0, 5, 0 } },
};


static uint32_t
below(uint32_t n)
{
    rnd ^= rnd << 13;
    rnd ^= rnd >> 7;
    rnd ^= rnd << 17;

    return (uint32_t) ((rnd >> 32) % n);
}


static void
start(llm_usage_scan_t *u)
{
    memset(u, 0xa5, sizeof(llm_usage_scan_t));
    llm_usage_init(u);
}


/* Scans a copy of the piece that has no byte too many. */
static llm_json_rc_t
scan_piece(llm_usage_scan_t *u, const char *p, size_t len)
{
    uint8_t *copy;
    llm_json_rc_t rc;

    copy = malloc(len);
    assert_true(copy != NULL || len == 0);

    if (len != 0) {
        memcpy(copy, p, len);
    }

    rc = llm_usage_scan(u, copy, len);
    free(copy);

    return rc;
}


static llm_json_rc_t
scan(llm_usage_scan_t *u, const char *text)
{
    start(u);
    (void) scan_piece(u, text, strlen(text));

    return llm_usage_end(u);
}


static void
assert_totals(const llm_usage_totals_t *t, const llm_usage_totals_t *expected)
{
    assert_int_equal(t->input, expected->input);
    assert_int_equal(t->cached, expected->cached);
    assert_int_equal(t->cache_write, expected->cache_write);
    assert_int_equal(t->output, expected->output);
    assert_int_equal(t->reasoning, expected->reasoning);
}


static void
assert_same(const llm_usage_scan_t *a, const llm_usage_scan_t *b)
{
    assert_memory_equal(&a->usage, &b->usage, sizeof(llm_usage_t));
    assert_int_equal(a->offset, b->offset);
    assert_ptr_equal(a->error, b->error);
}


static void
every_providers_answer_adds_up(void **state)
{
    size_t i;
    llm_usage_scan_t u;
    llm_usage_totals_t t;

    (void) state;

    for (i = 0; i < COUNT(answers); i++) {
        print_message("%s\n", answers[i].who);

        assert_int_equal(scan(&u, answers[i].text), LLM_JSON_OK);
        assert_int_equal(u.usage.bad, 0);
        assert_int_equal(u.offset, strlen(answers[i].text));

        memset(&t, 0xa5, sizeof(t));
        assert_true(llm_usage_totals(&u.usage, &t));
        assert_totals(&t, &answers[i].totals);
    }
}


static void
an_event_tells_the_same_as_an_answer(void **state)
{
    size_t i, len;
    char event[4096];
    unsigned events;
    llm_sse_t s;
    llm_usage_scan_t u;

    (void) state;

    for (i = 0; i < COUNT(answers); i++) {
        if (strchr(answers[i].text, '\n') != NULL) {
            continue;
        }

        len = (size_t) snprintf(event, sizeof(event), "data: %s\n\n",
            answers[i].text);
        assert_true(len < sizeof(event));

        llm_sse_init(&s);
        assert_int_equal(llm_sse_scan(&s, (const uint8_t *) event, len,
                             &events),
            len);

        assert_int_equal(scan(&u, answers[i].text), LLM_JSON_OK);
        assert_memory_equal(&s.usage, &u.usage, sizeof(llm_usage_t));
    }
}


static void
sums_that_a_stream_repeats_are_not_added_up(void **state)
{
    size_t at, used;
    unsigned events;
    llm_sse_t s;
    llm_usage_totals_t t;

    static const char gemini[] =
        "data: {\"choices\":[{\"delta\":{\"content\":\"1\"}}],\"usage\":{"
        "\"completion_tokens\":1,\"prompt_tokens\":9,\"total_tokens\":103}}\n\n"
        "data: {\"choices\":[{\"delta\":{\"content\":\"2\"}}],\"usage\":{"
        "\"completion_tokens\":3,\"prompt_tokens\":9,\"total_tokens\":105}}\n\n"
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"completion_tokens\":4,\"prompt_tokens\":9,"
        "\"total_tokens\":106}}\n\n"
        "data: [DONE]\n\n";

    static const char anthropic
        [] = "event: message_start\n"
             "data: {\"type\":\"message_start\",\"message\":{\"usage\":{"
             "\"input_tokens\":25,\"cache_creation_input_tokens\":7,"
             "\"cache_read_input_tokens\":9,\"output_tokens\":1}}}\n\n"
             "event: message_delta\n"
             "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
             "\"end_turn\"},\"usage\":{\"input_tokens\":25,"
             "\"cache_creation_input_tokens\":7,\"cache_read_input_tokens\":9,"
             "\"output_tokens\":89}}\n\n";

    (void) state;

    llm_sse_init(&s);

    for (at = 0; at < sizeof(gemini) - 1; at += used) {
        used = llm_sse_scan(&s, (const uint8_t *) gemini + at,
            sizeof(gemini) - 1 - at, &events);
        assert_true(used != 0);
    }

    assert_true(llm_usage_totals(&s.usage, &t));
    assert_totals(&t, &(llm_usage_totals_t) { 9, 0, 0, 97, 0 });

    llm_sse_init(&s);

    for (at = 0; at < sizeof(anthropic) - 1; at += used) {
        used = llm_sse_scan(&s, (const uint8_t *) anthropic + at,
            sizeof(anthropic) - 1 - at, &events);
        assert_true(used != 0);
    }

    assert_true(llm_usage_totals(&s.usage, &t));
    assert_totals(&t, &(llm_usage_totals_t) { 41, 9, 7, 89, 0 });
}


/* Whether nothing is told, and how many bad numbers there were. */
static void
assert_nothing(const char *text, llm_json_rc_t rc, unsigned bad)
{
    llm_usage_scan_t u;
    llm_usage_totals_t t;

    assert_int_equal(scan(&u, text), rc);
    assert_int_equal(u.usage.told, 0);
    assert_int_equal(u.usage.bad, bad);

    memset(&t, 0xa5, sizeof(t));
    assert_false(llm_usage_totals(&u.usage, &t));
    assert_totals(&t, &(llm_usage_totals_t) { 0 });
}


static void
only_usage_of_the_answer_itself_counts(void **state)
{
    (void) state;

    assert_nothing("{}", LLM_JSON_OK, 0);
    assert_nothing("[{\"usage\":{\"prompt_tokens\":1}}]", LLM_JSON_OK, 0);
    assert_nothing("{\"a\":{\"usage\":{\"prompt_tokens\":1}}}", LLM_JSON_OK, 0);
    assert_nothing("{\"choices\":[{\"usage\":{\"prompt_tokens\":1}}]}",
        LLM_JSON_OK, 0);
    assert_nothing("{\"prompt_tokens\":1,\"Usage\":{\"prompt_tokens\":1}}",
        LLM_JSON_OK, 0);
    assert_nothing("{\"usage\":null}", LLM_JSON_OK, 0);
    assert_nothing("{\"usage\":7}", LLM_JSON_OK, 0);
    assert_nothing("{\"usage\":\"prompt_tokens\"}", LLM_JSON_OK, 0);
    assert_nothing("{\"usage\":[{\"prompt_tokens\":1}]}", LLM_JSON_OK, 0);
    assert_nothing("{\"usage\":{\"x\":{\"prompt_tokens\":1}}}", LLM_JSON_OK, 0);
    assert_nothing("7", LLM_JSON_OK, 0);
    assert_nothing("", LLM_JSON_ERROR, 0);
    assert_nothing("RIFF\x01WAVE", LLM_JSON_ERROR, 0);
}


static void
numbers_that_are_none_are_ignored_and_counted(void **state)
{
    size_t i;
    char text[256];
    llm_usage_scan_t u;

    static const char *const bad[] = { "-1", "-0", "1.0", "0.5", "1e2", "1E0",
        "9007199254740992", "18446744073709551617", "99999999999999999999999",
        "\"6\"", "\"\"", "true", "false", "[6]", "{}", "{\"a\":6}" };

    (void) state;

    for (i = 0; i < COUNT(bad); i++) {
        snprintf(text, sizeof(text), "{\"usage\":{\"prompt_tokens\":%s}}",
            bad[i]);
        assert_nothing(text, LLM_JSON_OK, 1);

        snprintf(text, sizeof(text),
            "{\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":6,"
            "\"prompt_tokens\":%s}}",
            bad[i]);
        assert_int_equal(scan(&u, text), LLM_JSON_OK);
        assert_int_equal(u.usage.n[LLM_USAGE_PROMPT], 5);
        assert_int_equal(u.usage.n[LLM_USAGE_COMPLETION], 6);
        assert_int_equal(u.usage.bad, 1);
    }

    assert_nothing("{\"usage\":{\"prompt_tokens\":null,"
                   "\"prompt_tokens_details\":null}}",
        LLM_JSON_OK, 0);

    assert_int_equal(scan(&u, "{\"usage\":{\"prompt_tokens\":9007199254740991,"
                              "\"completion_tokens\":0}}"),
        LLM_JSON_OK);
    assert_int_equal(u.usage.n[LLM_USAGE_PROMPT], LLM_USAGE_MAX);
    assert_int_equal(u.usage.told,
        1u << LLM_USAGE_PROMPT | 1u << LLM_USAGE_COMPLETION);
    assert_int_equal(u.usage.bad, 0);
}


static void
what_half_an_answer_told_stays(void **state)
{
    llm_usage_scan_t u;

    (void) state;

    assert_int_equal(scan(&u, "{\"usage\":{\"prompt_tokens\":5,\"x"),
        LLM_JSON_ERROR);
    assert_int_equal(u.usage.n[LLM_USAGE_PROMPT], 5);
    assert_non_null(u.error);
    assert_int_equal(u.offset, 30);

    /* half a number is none */

    assert_nothing("{\"usage\":{\"prompt_tokens\":5", LLM_JSON_ERROR, 0);

    assert_int_equal(scan(&u, "{\"usage\":{\"prompt_tokens\":5,}} \"usage\""),
        LLM_JSON_ERROR);
    assert_int_equal(u.usage.n[LLM_USAGE_PROMPT], 5);
    assert_int_equal(u.offset, 28);
    assert_int_equal(scan_piece(&u, "{", 1), LLM_JSON_ERROR);
    assert_int_equal(u.offset, 28);
}


/* Scans one piece of first bytes, the others of step; 0: of random sizes. */
static void
scan_split(llm_usage_scan_t *u, const char *p, size_t first, size_t step)
{
    size_t n, len;

    start(u);
    len = strlen(p);

    for (n = first; len != 0; n = (step != 0) ? step : below(80)) {
        n = (n > len) ? len : n;
        (void) scan_piece(u, p, n);
        p += n;
        len -= n;
    }

    (void) llm_usage_end(u);
}


static void
no_split_of_an_answer_changes_what_is_found(void **state)
{
    size_t i, k, len;
    const char *p;
    llm_usage_scan_t whole, split;

    static const char *const odd[] = {
        "{\"usage\":{\"prompt_tokens\":12345,\"completion_tokens\":-12,"
        "\"total_tokens\":9007199254740992,\"input_tokens\":\"1\"}",
        "{\"usage\":{\"prompt_tokens\":12345,}",
        "{\"usage\":{\"prompt_tokens\":1.5e10}}",
        "{\"\\u0075\\u0073\\u0061\\u0067\\u0065\":{\"prompt_tokens\":12}} x",
    };

    (void) state;

    print_message("LLM_SEED=%llu\n", (unsigned long long) seed);

    for (i = 0; i < COUNT(answers) + COUNT(odd); i++) {
        p = (i < COUNT(answers)) ? answers[i].text : odd[i - COUNT(answers)];
        len = strlen(p);

        scan(&whole, p);

        for (k = 0; k <= len; k++) {
            scan_split(&split, p, k, len);
            assert_same(&whole, &split);
        }

        for (k = 1; k <= 64; k++) {
            scan_split(&split, p, k, k);
            assert_same(&whole, &split);
        }

        for (k = 0; k < 100; k++) {
            scan_split(&split, p, below(80), 0);
            assert_same(&whole, &split);
        }
    }
}


static void
an_estimate_is_never_nothing(void **state)
{
    llm_usage_totals_t t;

    (void) state;

    llm_tokens_estimate(&t, 0, 0);
    assert_totals(&t, &(llm_usage_totals_t) { .output = LLM_TOKENS_OUTPUT });

    llm_tokens_estimate(&t, 1, 1);
    assert_totals(&t, &(llm_usage_totals_t) { .input = 1, .output = 1 });

    llm_tokens_estimate(&t, 4, 256);
    assert_totals(&t, &(llm_usage_totals_t) { .input = 1, .output = 256 });

    llm_tokens_estimate(&t, 5, 256);
    assert_totals(&t, &(llm_usage_totals_t) { .input = 2, .output = 256 });

    llm_tokens_estimate(&t, UINT64_MAX, UINT64_MAX);
    assert_totals(&t, &(llm_usage_totals_t) { .input = UINT64_C(1) << 62,
                          .output = LLM_USAGE_MAX });
}


int
main(void)
{
    const char *env;

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_providers_answer_adds_up),
        cmocka_unit_test(an_event_tells_the_same_as_an_answer),
        cmocka_unit_test(sums_that_a_stream_repeats_are_not_added_up),
        cmocka_unit_test(only_usage_of_the_answer_itself_counts),
        cmocka_unit_test(numbers_that_are_none_are_ignored_and_counted),
        cmocka_unit_test(what_half_an_answer_told_stays),
        cmocka_unit_test(no_split_of_an_answer_changes_what_is_found),
        cmocka_unit_test(an_estimate_is_never_nothing),
    };

    env = getenv("LLM_SEED");
    seed = (env != NULL) ? strtoull(env, NULL, 10) : (uint64_t) time(NULL);
    rnd = seed * 2654435761u + 1;

    return cmocka_run_group_tests(tests, NULL, NULL);
}
