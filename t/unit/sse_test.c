/*
 * The event-stream scanner: streams of each dialect, what each event is, the
 * rules of lines and fields, and any split into pieces.  LLM_SEED=n repeats a
 * run, LLM_STREAMS=n sets its length.
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


#define STREAM 16384
#define EVENTS 1024
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))


/* What a scan gave: the events, and what it was about the end. */
typedef struct {
    size_t n;
    bool pending;
    unsigned last;
    unsigned events[EVENTS];
    llm_sse_t s;
} result_t;


typedef struct {
    const char *data;
    unsigned events;
} case_t;


static uint64_t seed, rnd;


/* a chat with all that surrounds it */
static const char chat[] =
    ": OPENROUTER PROCESSING\n\n"
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
    "\"created\":1741570283,\"model\":\"gpt-4o\",\"choices\":[],"
    "\"prompt_filter_results\":[{\"prompt_index\":0}]}\n\n"
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
    "\"created\":1741570283,\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,"
    "\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
    "\"logprobs\":null,\"finish_reason\":null}]}\n\n"
    "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":"
    "{\"content\":\"Hel\"},\"finish_reason\":null}],\"usage\":null}\n\n"
    "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":"
    "{\"content\":\"lo \\\"you\\\"\\n\"},\"finish_reason\":null}]}\n\n"
    "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{},"
    "\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n"
    "data: {\"id\":\"chatcmpl-1\",\"choices\":[],\"usage\":{"
    "\"prompt_tokens\":19,\"completion_tokens\":10,\"total_tokens\":29,"
    "\"prompt_tokens_details\":{\"cached_tokens\":16,\"audio_tokens\":0},"
    "\"completion_tokens_details\":{\"reasoning_tokens\":4,"
    "\"accepted_prediction_tokens\":0}}}\n\n"
    "data: [DONE]\n\n";

static const char tools[] =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\","
    "\"content\":null,\"tool_calls\":[]},\"finish_reason\":null}]}\r\n\r\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,"
    "\"id\":\"call_D\",\"type\":\"function\",\"function\":{\"name\":"
    "\"get_weather\",\"arguments\":\"\"}}]},\"finish_reason\":null}]}\r\n\r\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,"
    "\"function\":{\"arguments\":\"{\\\"\"}}]},\"finish_reason\":null}]}"
    "\r\n\r\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"!\"},"
    "\"finish_reason\":\"tool_calls\"}]}\r\n\r\n"
    "data: [DONE]\r\n\r\n";

static const char legacy[] =
    "data:{\"id\":\"cmpl-7\",\"object\":\"text_completion\",\"choices\":["
    "{\"text\":\"\",\"index\":0,\"logprobs\":null,\"finish_reason\":null}]}\r\r"
    "data:{\"id\":\"cmpl-7\",\"object\":\"text_completion\",\"choices\":["
    "{\"text\":\"1,\",\"index\":0,\"logprobs\":null,\"finish_reason\":null}]}"
    "\r\r"
    "data:{\"id\":\"cmpl-7\",\"choices\":[{\"text\":\"\",\"index\":0,"
    "\"finish_reason\":\"length\"}]}\r\r"
    "data:[DONE]\r\r";

static const char responses[] =
    "event: response.created\n"
    "data: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\","
    "\"object\":\"response\",\"status\":\"in_progress\",\"error\":null,"
    "\"output\":[],\"usage\":null},\"sequence_number\":0}\n\n"
    "event: response.in_progress\n"
    "data: {\"type\":\"response.in_progress\",\"response\":{\"id\":\"resp_1\","
    "\"error\":null}}\n\n"
    "event: response.output_item.added\n"
    "data: {\"type\":\"response.output_item.added\",\"output_index\":0,"
    "\"item\":{\"id\":\"msg_1\",\"type\":\"message\",\"content\":[]}}\n\n"
    "event: response.content_part.added\n"
    "data: {\"type\":\"response.content_part.added\",\"part\":{\"type\":"
    "\"output_text\",\"text\":\"\",\"annotations\":[]}}\n\n"
    "event: response.output_text.delta\n"
    "data: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\","
    "\"output_index\":0,\"content_index\":0,\"delta\":\"Hi\"}\n\n"
    "event: response.output_text.done\n"
    "data: {\"type\":\"response.output_text.done\",\"text\":\"Hi\"}\n\n"
    "event: response.output_item.added\n"
    "data: {\"item\":{\"type\":\"function_call\",\"id\":\"fc_1\",\"name\":"
    "\"f\",\"arguments\":\"\"},\"type\":\"response.output_item.added\"}\n\n"
    "event: response.function_call_arguments.delta\n"
    "data: {\"delta\":\"{\\\"city\",\"type\":"
    "\"response.function_call_arguments.delta\"}\n\n"
    "event: response.completed\n"
    "data: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\","
    "\"status\":\"completed\",\"error\":null,\"output\":[{\"type\":\"message\","
    "\"content\":[{\"type\":\"output_text\",\"text\":\"Hi\"}]}],\"usage\":"
    "{\"input_tokens\":37,\"input_tokens_details\":{\"cached_tokens\":5},"
    "\"output_tokens\":11,\"output_tokens_details\":{\"reasoning_tokens\":3},"
    "\"total_tokens\":48}}}\n\n";

static const char messages[] =
    "event: message_start\n"
    "data: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":"
    "\"message\",\"role\":\"assistant\",\"content\":[],\"model\":\"claude\","
    "\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{"
    "\"input_tokens\":25,\"cache_creation_input_tokens\":7,"
    "\"cache_read_input_tokens\":9,"
    "\"output_tokens\":1,\"service_tier\":\"standard\"}}}\n\n"
    "event: content_block_start\n"
    "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
    "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n\n"
    "event: ping\n"
    "data: {\"type\": \"ping\"}\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
    "\"thinking_delta\",\"thinking\":\"So\"}}\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
    "\"signature_delta\",\"signature\":\"EqQB\"}}\n\n"
    "event: content_block_stop\n"
    "data: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
    "event: content_block_start\n"
    "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":"
    "{\"type\":\"text\",\"text\":\"\"}}\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":"
    "\"text_delta\",\"text\":\"Hello\"}}\n\n"
    "event: content_block_start\n"
    "data: {\"type\":\"content_block_start\",\"index\":2,\"content_block\":"
    "{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"f\",\"input\":{}}}"
    "\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":"
    "\"input_json_delta\",\"partial_json\":\"\"}}\n\n"
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":"
    "\"input_json_delta\",\"partial_json\":\"{\\\"a\"}}\n\n"
    "event: message_delta\n"
    "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\","
    "\"stop_sequence\":null},\"usage\":{\"output_tokens\":89}}\n\n"
    "event: message_stop\n"
    "data: {\"type\":\"message_stop\"}\n\n";

/* all that can be wrong with lines, and an end without a blank one */
static const char odd
    [] = "\xef\xbb\xbf: hello\r\n"
         "retry: 3000\r"
         "id: 7\n"
         "data: {\"choices\":[{\"delta\":\r\n"
         "data:  {\"content\"\r"
         "data::\"x\"}}]}\n"
         "\r\n"
         "data\n\n"
         "event: error\rdata: {\"error\":{\"type\":\"a\",\"code\":\"b\"}}\r\r\n"
         "\n\r\r\n"
         "data: nonsense\n\n"
         "dat: 1\ndatax: 2\n data: 3\nDATA: 4\n\n"
         "event: message\ndata: [DONE]\n\n"
         "data: {\"choices\":[{\"text\":\"y\"";


static const struct {
    const char *text;
    size_t len;
} streams[] = {
    { chat, sizeof(chat) - 1 },
    { tools, sizeof(tools) - 1 },
    { legacy, sizeof(legacy) - 1 },
    { responses, sizeof(responses) - 1 },
    { messages, sizeof(messages) - 1 },
    { odd, sizeof(odd) - 1 },
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
start(result_t *r)
{
    memset(r, 0xa5, sizeof(result_t));
    r->n = 0;
    llm_sse_init(&r->s);
}


/* Scans a copy of the piece that has no byte too many. */
static void
scan_piece(result_t *r, const uint8_t *p, size_t len)
{
    size_t used, at;
    unsigned events;
    uint8_t *copy;

    copy = malloc(len);
    assert_true(copy != NULL || len == 0);

    if (len != 0) {
        memcpy(copy, p, len);
    }

    for (at = 0; at <= len; at += used) {
        events = ~0u;
        used = llm_sse_scan(&r->s, copy + at, len - at, &events);
        assert_true(used <= len - at);

        if (used == 0) {
            assert_int_equal(events, LLM_SSE_NOTHING);
            break;
        }

        assert_true(r->n < EVENTS);
        r->events[r->n++] = events;
    }

    free(copy);
}


static void
finish(result_t *r)
{
    r->last = ~0u;
    r->pending = llm_sse_end(&r->s, &r->last);
}


static void
scan_whole(result_t *r, const void *text, size_t len)
{
    start(r);
    scan_piece(r, text, len);
    finish(r);

    assert_int_equal(r->s.offset, len);
    assert_int_equal(r->s.events, r->n);
}


static void
scan(result_t *r, const char *text)
{
    scan_whole(r, text, strlen(text));
}


/* One letter for each bit, a dash for none, a blank between events. */
static const char *
kinds(const result_t *r)
{
    size_t i, bit, n;

    static char text[EVENTS * 8];

    n = 0;
    text[0] = '\0';

    for (i = 0; i < r->n; i++) {
        if (i != 0) {
            text[n++] = ' ';
        }

        for (bit = 0; bit < 7; bit++) {
            if (r->events[i] & (1u << bit)) {
                text[n++] = "CFDEBSU"[bit];
            }
        }

        assert_true(r->events[i] < 1u << 7);

        if (r->events[i] == LLM_SSE_NOTHING) {
            text[n++] = '-';
        }

        text[n] = '\0';
    }

    return text;
}


static void
assert_kinds(const char *text, const char *expected)
{
    result_t r;

    scan(&r, text);
    assert_string_equal(kinds(&r), expected);
    assert_false(r.pending);
    assert_int_equal(r.last, LLM_SSE_NOTHING);
}


static void
assert_cases(const case_t *cases, size_t n)
{
    size_t i;
    char text[STREAM];
    result_t r;

    for (i = 0; i < n; i++) {
        snprintf(text, sizeof(text), "data: %s\n\n", cases[i].data);
        scan(&r, text);

        if (r.n != 1 || r.events[0] != cases[i].events) {
            fail_msg("%s: %#x instead of %#x", cases[i].data, r.events[0],
                cases[i].events);
        }
    }
}


static void
assert_word(const llm_sse_word_t *word, const char *expected)
{
    assert_int_equal(word->len, strlen(expected));
    assert_memory_equal(word->text, expected, word->len);
}


static void
assert_error(const char *data, const char *type, const char *code)
{
    char text[STREAM];
    result_t r;

    snprintf(text, sizeof(text), "data: {}\n\ndata: %s\n\n", data);
    scan(&r, text);

    assert_string_equal(kinds(&r), "- E");
    assert_int_equal(r.s.errors, 1);
    assert_word(&r.s.error_type, type);
    assert_word(&r.s.error_code, code);
}


static void
the_first_token_of_a_chat_is_found(void **state)
{
    result_t r;

    (void) state;

    assert_kinds(chat, "- - - C C F U D");
    assert_kinds(tools, "- C C CF D");
    assert_kinds(legacy, "- C F D");

    scan(&r, chat);
    assert_int_equal(r.s.contents, 2);
    assert_int_equal(r.s.errors, 0);
    assert_int_equal(r.s.broken, 0);
    assert_memory_equal(chat + r.s.content_end - 24,
        "\"finish_reason\":null}],\"usage\":null}\n\n" + 14, 24);
    assert_memory_equal(chat + r.s.content_end, "data: {", 7);
}


static void
the_first_token_of_a_response_is_found(void **state)
{
    (void) state;

    assert_kinds(responses, "- - - - C - C C F");
}


static void
the_first_token_of_a_message_is_found(void **state)
{
    (void) state;

    assert_kinds(messages, "- - - C - - - C C - C S F");
}


static void
what_a_person_or_program_would_use_is_content(void **state)
{
    size_t i;
    char text[STREAM];
    result_t r;

    static const case_t deltas[] = {
        { "\"content\":\"x\"", LLM_SSE_CONTENT },
        { "\"content\":\" \"", LLM_SSE_CONTENT },
        { "\"content\":\"\\n\"", LLM_SSE_CONTENT },
        { "\"content\":\"\\ud800\"", LLM_SSE_CONTENT },
        { "\"c\\u006fntent\":\"x\"", LLM_SSE_CONTENT },
        { "\"reasoning_content\":\"x\"", LLM_SSE_CONTENT },
        { "\"reasoning\":\"x\"", LLM_SSE_CONTENT },
        { "\"thinking\":\"x\"", LLM_SSE_CONTENT },
        { "\"refusal\":\"x\"", LLM_SSE_CONTENT },
        { "\"content\":null,\"refusal\":\"x\"", LLM_SSE_CONTENT },
        { "\"reasoning_details\":[{\"type\":\"reasoning.text\",\"text\":"
          "\"x\",\"format\":\"f\"}]",
            LLM_SSE_CONTENT },
        { "\"function_call\":{\"name\":\"f\",\"arguments\":\"\"}",
            LLM_SSE_CONTENT },
        { "\"function_call\":{\"arguments\":\"{\"}", LLM_SSE_CONTENT },
        { "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"1\"}}]",
            LLM_SSE_CONTENT },
        { "\"tool_calls\":[{\"index\":0,\"id\":\"c\"}]", LLM_SSE_CONTENT },
        { "\"tool_calls\":[{\"index\":0},{\"index\":1,\"id\":\"c\"}]",
            LLM_SSE_CONTENT },
        { "\"audio\":{\"id\":\"a\",\"data\":\"AAA=\"}", LLM_SSE_CONTENT },
        { "\"audio\":{\"id\":\"a\",\"transcript\":\"x\"}", LLM_SSE_CONTENT },
        { "\"images\":[{\"type\":\"image_url\",\"image_url\":{\"url\":"
          "\"data:\"}}]",
            LLM_SSE_CONTENT },
        { "\"content\":[{\"type\":\"text\",\"text\":\"x\"}]", LLM_SSE_CONTENT },
        { "\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":"
          "\"text\",\"text\":\"x\"}]}]",
            LLM_SSE_CONTENT },

        { "", LLM_SSE_NOTHING },
        { "\"role\":\"assistant\"", LLM_SSE_NOTHING },
        { "\"content\":\"\"", LLM_SSE_NOTHING },
        { "\"content\":null", LLM_SSE_NOTHING },
        { "\"content\":[]", LLM_SSE_NOTHING },
        { "\"content\":[{\"type\":\"text\",\"text\":\"\"}]", LLM_SSE_NOTHING },
        { "\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":null,"
          "\"function_call\":null,\"audio\":null,\"refusal\":null,"
          "\"reasoning\":null,\"reasoning_content\":\"\"",
            LLM_SSE_NOTHING },
        { "\"tool_calls\":[]", LLM_SSE_NOTHING },
        { "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\"}}]",
            LLM_SSE_NOTHING },
        { "\"function_call\":{}", LLM_SSE_NOTHING },
        { "\"audio\":{\"id\":\"a\"}", LLM_SSE_NOTHING },
        { "\"reasoning_details\":[]", LLM_SSE_NOTHING },
        { "\"x\":{\"content\":\"x\"}", LLM_SSE_NOTHING },
        { "\"Content\":\"x\",\"contents\":\"x\",\"conten\":\"x\"",
            LLM_SSE_NOTHING },
    };

    (void) state;

    for (i = 0; i < COUNT(deltas); i++) {
        snprintf(text, sizeof(text),
            "data: {\"choices\":[{\"index\":0,\"delta\":{%s},\"finish_reason\":"
            "null}]}\n\n"
            "data: {\"choices\":[{\"delta\":{}},{\"delta\":{%s},"
            "\"finish_reason\":\"stop\"}]}\n\n"
            "data: {\"delta\":{%s},\"x\":[{\"delta\":{%s}}]}\n\n",
            deltas[i].data, deltas[i].data, deltas[i].data, deltas[i].data);
        scan(&r, text);

        if (r.n != 3 || r.events[0] != deltas[i].events
            || r.events[1] != (deltas[i].events | LLM_SSE_FINISH)
            || r.events[2] != LLM_SSE_NOTHING)
        {
            fail_msg("%s: %s", deltas[i].data, kinds(&r));
        }
    }
}


static void
what_the_other_dialects_send_is_told_apart(void **state)
{
    int i;
    char text[256];

    static const case_t cases[] = {
        { "{\"choices\":[{\"text\":\"x\"}]}", LLM_SSE_CONTENT },
        { "{\"choices\":[{\"text\":\"\"}]}", LLM_SSE_NOTHING },
        { "{\"choices\":[{\"text\":null}]}", LLM_SSE_NOTHING },
        { "{\"choices\":[{\"delta\":null,\"message\":{\"content\":\"x\"}}]}",
            LLM_SSE_CONTENT },
        { "{\"text\":\"x\"}", LLM_SSE_NOTHING },

        { "{\"type\":\"response.refusal.delta\",\"delta\":\"x\"}",
            LLM_SSE_CONTENT },
        { "{\"type\":\"response.reasoning_text.delta\",\"delta\":\"x\"}",
            LLM_SSE_CONTENT },
        { "{\"type\":\"response.reasoning_summary_text.delta\",\"delta\":"
          "\"x\"}",
            LLM_SSE_CONTENT },
        { "{\"delta\":\"x\",\"type\":\"response.audio.transcript.delta\"}",
            LLM_SSE_CONTENT },
        { "{\"type\":\"response.code_interpreter_call_code.delta\",\"delta\":"
          "\"x\"}",
            LLM_SSE_CONTENT },
        { "{\"type\":\"response.custom_tool_call_input.delta\",\"delta\":"
          "\"x\"}",
            LLM_SSE_CONTENT },
        { "{\"type\":\"response.image_generation_call.partial_image\","
          "\"partial_image_b64\":\"x\"}",
            LLM_SSE_CONTENT },
        { "{\"type\":\"response.output_text.delta\",\"delta\":\"\"}",
            LLM_SSE_NOTHING },
        { "{\"type\":\"response.output_text.delta\"}", LLM_SSE_NOTHING },
        { "{\"type\":\"response.output_text.deltas\",\"delta\":\"x\"}",
            LLM_SSE_NOTHING },
        { "{\"type\":\"x.output_text.delta\",\"delta\":\"x\"}",
            LLM_SSE_NOTHING },
        { "{\"type\":\"response.queued\"}", LLM_SSE_NOTHING },
        { "{\"type\":\"response.reasoning_summary_part.added\",\"part\":"
          "{\"type\":\"summary_text\",\"text\":\"\"}}",
            LLM_SSE_NOTHING },
        { "{\"type\":\"response.web_search_call.searching\"}",
            LLM_SSE_NOTHING },

        { "{\"type\":\"response.output_item.added\",\"item\":{\"type\":"
          "\"custom_tool_call\"}}",
            LLM_SSE_CONTENT },
        { "{\"type\":\"response.output_item.added\",\"item\":{\"type\":"
          "\"reasoning\",\"summary\":[]}}",
            LLM_SSE_NOTHING },
        { "{\"type\":\"response.output_item.added\",\"item\":{\"type\":"
          "\"function_call\",\"type\":\"message\"}}",
            LLM_SSE_NOTHING },
        { "{\"type\":\"response.output_item.added\",\"item\":null}",
            LLM_SSE_NOTHING },
        { "{\"type\":\"response.output_item.other\",\"item\":{\"type\":"
          "\"function_call\"}}",
            LLM_SSE_NOTHING },

        { "{\"type\":\"content_block_start\",\"content_block\":{\"type\":"
          "\"server_tool_use\",\"id\":\"s\",\"input\":{}}}",
            LLM_SSE_CONTENT },
        { "{\"type\":\"content_block_start\",\"content_block\":{\"type\":"
          "\"mcp_tool_use\"}}",
            LLM_SSE_CONTENT },
        { "{\"type\":\"content_block_start\",\"content_block\":{\"type\":"
          "\"redacted_thinking\",\"data\":\"Em\"}}",
            LLM_SSE_CONTENT },
        { "{\"content_block\":{\"text\":\"x\",\"type\":\"text\"},\"type\":"
          "\"content_block_start\"}",
            LLM_SSE_CONTENT },
        { "{\"type\":\"content_block_start\",\"content_block\":{\"type\":"
          "\"tool_used\"}}",
            LLM_SSE_NOTHING },
        { "{\"type\":\"content_block_stop\",\"content_block\":{\"type\":"
          "\"tool_use\"}}",
            LLM_SSE_NOTHING },
        { "{\"type\":\"content_block_delta\",\"delta\":{\"text\":\"\"}}",
            LLM_SSE_NOTHING },
        { "{\"type\":\"content_block_delta\",\"delta\":{\"thinking\":\"\"}}",
            LLM_SSE_NOTHING },
        { "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":null}}",
            LLM_SSE_NOTHING },
        { "{\"delta\":{\"stop_reason\":\"end_turn\"},\"type\":"
          "\"message_delta\"}",
            LLM_SSE_CLOSING },

        /* an array that is empty leaves nothing for what follows it */
        { "{\"choices\":[[],{\"text\":\"x\"}]}", LLM_SSE_CONTENT },
        { "{\"choices\":[{\"delta\":{\"content\":[[],{\"text\":\"x\"}]}}]}",
            LLM_SSE_CONTENT },

        /* a name of any length is some name */
        { "{\"choices\":[{\"delta\":{\"content\":[{\"a_name_that_is_far_too_"
          "long_for_\\u0061_table\":\"x\"}]}}]}",
            LLM_SSE_CONTENT },
        { "{\"choices\":[{\"delta\":{\"a_name_that_is_far_too_long_for_"
          "\\u0061_table\":\"x\"}}]}",
            LLM_SSE_NOTHING },
        { "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"\\ud800\":\"x\"}]}}]}",
            LLM_SSE_CONTENT },

        /* of two types the last one counts */
        { "{\"type\":\"message_stop\",\"type\":\"ping\"}", LLM_SSE_NOTHING },
        { "{\"type\":\"ping\",\"type\":\"message_stop\"}", LLM_SSE_FINISH },

        /* what is further inside is somebody's text */
        { "{\"x\":{\"type\":\"message_stop\",\"error\":1}}", LLM_SSE_NOTHING },
        { "{\"choices\":[[{\"x\":[{\"text\":\"x\"}]}]]}", LLM_SSE_NOTHING },
        { "\"message_stop\"", LLM_SSE_NOTHING },
        { "[]", LLM_SSE_NOTHING },
        { "{}", LLM_SSE_NOTHING },
        { "0", LLM_SSE_NOTHING },
    };

    (void) state;

    assert_cases(cases, COUNT(cases));

    /* a type is known as a whole or not at all */

    for (i = 40; i < 60; i++) {
        snprintf(text, sizeof(text),
            "data: {\"type\":\"response.%0*d.deltas\",\"delta\":\"x\"}\n\n", i,
            0);
        assert_kinds(text, "-");
    }
}


static void
a_finished_answer_is_told_from_a_cut_one(void **state)
{
    static const case_t cases[] = {
        { "{\"choices\":[{\"finish_reason\":\"stop\"}]}", LLM_SSE_FINISH },
        { "{\"choices\":[{\"delta\":{\"content\":\"x\"},\"finish_reason\":"
          "\"length\"}]}",
            LLM_SSE_CONTENT | LLM_SSE_FINISH },
        { "{\"choices\":[{\"finish_reason\":\"content_filter\"}]}",
            LLM_SSE_FINISH },
        { "{\"choices\":[{\"finish_reason\":null}]}", LLM_SSE_NOTHING },
        { "{\"choices\":[{\"finish_reason\":\"\"}]}", LLM_SSE_NOTHING },
        { "{\"finish_reason\":\"stop\"}", LLM_SSE_NOTHING },
        { "{\"type\":\"message_stop\"}", LLM_SSE_FINISH },
        { "{\"type\":\"response.completed\"}", LLM_SSE_FINISH },
        { "{\"type\":\"response.incomplete\",\"response\":{\"error\":null,"
          "\"incomplete_details\":{\"reason\":\"max_output_tokens\"}}}",
            LLM_SSE_FINISH },
        { "[DONE]", LLM_SSE_DONE },
        { "  [DONE] ", LLM_SSE_DONE },
        { "[DONE", LLM_SSE_BROKEN },
        { "[DONE]x", LLM_SSE_BROKEN },
        { "[DONE][DONE]", LLM_SSE_BROKEN },
        { "[ DONE]", LLM_SSE_BROKEN },
        { "[done]", LLM_SSE_BROKEN },
        { "\"[DONE]\"", LLM_SSE_NOTHING },

        /* a provider that gives up calls even that a finish */
        { "{\"choices\":[{\"finish_reason\":\"error\"}]}",
            LLM_SSE_FINISH | LLM_SSE_ERROR },
        { "{\"choices\":[{\"finish_reason\":\"insufficient_system_resource\"}]"
          "}",
            LLM_SSE_FINISH | LLM_SSE_ERROR },
    };

    (void) state;

    assert_cases(cases, COUNT(cases));

    assert_kinds("data: [DO\ndata: NE]\n\n", "B");
    assert_kinds("data:\ndata: [DONE]\ndata\n\n", "D");
}


static void
the_extra_event_of_the_usage_is_told_from_others(void **state)
{
    static const case_t cases[] = {
        { "{\"choices\":[],\"usage\":{\"prompt_tokens\":1}}", LLM_SSE_USAGE },
        { "{\"usage\":{\"total_tokens\":1},\"choices\": [ ] }", LLM_SSE_USAGE },
        { "{\"choices\":[],\"usage\":{\"prompt_tokens\":\"1\"}}",
            LLM_SSE_USAGE },
        { "{\"choices\":[{}],\"choices\":[],\"usage\":{\"total_tokens\":1}}",
            LLM_SSE_USAGE },

        { "{\"choices\":[],\"usage\":null}", LLM_SSE_NOTHING },
        { "{\"choices\":[],\"usage\":{}}", LLM_SSE_NOTHING },
        { "{\"choices\":[],\"usage\":{\"prompt_tokens\":null}}",
            LLM_SSE_NOTHING },
        { "{\"choices\":[]}", LLM_SSE_NOTHING },
        { "{\"choices\":{},\"usage\":{\"total_tokens\":1}}", LLM_SSE_NOTHING },
        { "{\"choices\":null,\"usage\":{\"total_tokens\":1}}",
            LLM_SSE_NOTHING },
        { "{\"usage\":{\"total_tokens\":1}}", LLM_SSE_NOTHING },
        { "{\"choices\":[{}],\"usage\":{\"total_tokens\":1}}",
            LLM_SSE_NOTHING },
        { "{\"choices\":[null],\"usage\":{\"total_tokens\":1}}",
            LLM_SSE_NOTHING },
        { "{\"choices\":[],\"choices\":[{}],\"usage\":{\"total_tokens\":1}}",
            LLM_SSE_NOTHING },
        { "{\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":"
          "{\"total_tokens\":1}}",
            LLM_SSE_FINISH },
        { "{\"choices\":[],\"error\":{},\"usage\":{\"total_tokens\":1}}",
            LLM_SSE_ERROR },
        { "{\"type\":\"message_stop\",\"choices\":[],\"usage\":"
          "{\"total_tokens\":1}}",
            LLM_SSE_FINISH },
    };

    (void) state;

    assert_cases(cases, COUNT(cases));

    assert_kinds("event: error\ndata: {\"choices\":[],\"usage\":"
                 "{\"total_tokens\":1}}\n\n",
        "EU");
}


static void
an_error_in_a_stream_is_seen_and_named(void **state)
{
    char text[256], long_word[80];
    result_t r;

    static const case_t cases[] = {
        { "{\"error\":\"overloaded\"}", LLM_SSE_ERROR },
        { "{\"error\":{}}", LLM_SSE_ERROR },
        { "{\"error\":[]}", LLM_SSE_ERROR },
        { "{\"error\":1}", LLM_SSE_ERROR },
        { "{\"error\":null}", LLM_SSE_NOTHING },
        { "{\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"error\":{}}",
            LLM_SSE_CONTENT | LLM_SSE_ERROR },
        { "{\"choices\":[{\"error\":{\"code\":502}}]}", LLM_SSE_ERROR },
        { "{\"choices\":[{\"error\":null}]}", LLM_SSE_NOTHING },
        { "{\"x_groq\":{\"id\":\"r\",\"error\":\"over_capacity\"}}",
            LLM_SSE_ERROR },
        { "{\"x_groq\":{\"id\":\"r\",\"usage\":{}}}", LLM_SSE_NOTHING },
        { "{\"response\":{\"error\":{}}}", LLM_SSE_NOTHING },
    };

    (void) state;

    assert_cases(cases, COUNT(cases));

    assert_error("{\"error\":{\"message\":\"Overloaded.\",\"type\":"
                 "\"server_error\",\"param\":null,\"code\":"
                 "\"rate_limit_exceeded\"}}",
        "server_error", "rate_limit_exceeded");
    assert_error("{\"error\":{\"code\":502,\"message\":\"Bad gateway\"}}", "",
        "502");
    assert_error("{\"type\":\"error\",\"error\":{\"type\":"
                 "\"overloaded_error\",\"message\":\"Overloaded\"}}",
        "overloaded_error", "");
    assert_error("{\"error\":{\"type\":\"overloaded_error\"},\"type\":"
                 "\"error\"}",
        "overloaded_error", "");
    assert_error("[{\"error\":{\"code\":503,\"message\":\"x\",\"status\":"
                 "\"UNAVAILABLE\"}}]",
        "UNAVAILABLE", "503");
    assert_error("{\"type\":\"error\",\"code\":\"ERR_SOMETHING\",\"message\":"
                 "\"x\",\"param\":null,\"sequence_number\":1}",
        "error", "ERR_SOMETHING");
    assert_error("{\"type\":\"response.failed\",\"response\":{\"status\":"
                 "\"failed\",\"error\":{\"code\":\"server_error\",\"message\":"
                 "\"x\"}}}",
        "response.failed", "server_error");
    assert_error("{\"object\":\"error\",\"message\":\"x\",\"type\":"
                 "\"BadRequestError\",\"param\":null,\"code\":400}",
        "BadRequestError", "400");
    assert_error("{\"error\":{\"type\":\"a\\u0000\\n\\u001b\\u00e9z\",\"code\":"
                 "\"\"}}",
        "a\?\?\?\?\?z", "");

    /* words have a bound, wherever they come from */

    memset(long_word, 'w', sizeof(long_word));
    snprintf(text, sizeof(text), "{\"error\":{\"type\":\"%.64s\",\"code\":1}}",
        long_word);
    long_word[64] = '\0';
    assert_error(text, long_word, "1");

    scan(&r, "data: {\"error\":{\"type\":\"first\"}}\n\n"
             "data: {\"error\":{\"type\":\"second\"}}\n\n");
    assert_word(&r.s.error_type, "first");
    assert_int_equal(r.s.errors, 2);

    long_word[0] = '1';
    memset(long_word + 1, '7', 63);
    snprintf(text, sizeof(text), "{\"code\":%s77,\"object\":\"error\"}",
        long_word);
    assert_error(text, "", long_word);

    /* the words of what is no error are not kept */

    scan(&r, "data: {\"type\":\"ping\",\"code\":\"c\"}\n\n");
    assert_word(&r.s.error_type, "");
    assert_word(&r.s.error_code, "");
}


static void
an_event_may_be_called_an_error(void **state)
{
    (void) state;

    assert_kinds("event: error\ndata: {\"message\":\"x\"}\n\n", "E");
    assert_kinds("event:error\ndata: oops\n\n", "EB");
    assert_kinds("data: {}\nevent: error\n\n", "E");
    assert_kinds("event: error\n\ndata: {}\n\n", "E -");
    assert_kinds("event: errors\ndata: {}\n\n", "-");
    assert_kinds("event: erro\ndata: {}\n\n", "-");
    assert_kinds("event:  error\ndata: {}\n\n", "-");
    assert_kinds("event: error\nevent: x\ndata: {}\n\n", "-");
    assert_kinds("event: error\nevent\ndata: {}\n\n", "-");
    assert_kinds("event: x\nevent: error\ndata: {}\n\n", "E");
    assert_kinds("events: error\ndata: {}\n\n", "-");
    assert_kinds("event: ping\ndata: \n\nevent: ping\n\n", "- -");
    assert_kinds("event: ping\ndata: oops\n\ndata: oops\n\n", "- B");
}


static void
data_that_cannot_be_read_is_told(void **state)
{
    size_t i, n;
    char *text;
    result_t r;

    static const case_t cases[] = {
        { "", LLM_SSE_BROKEN },
        { " ", LLM_SSE_BROKEN },
        { "{", LLM_SSE_BROKEN },
        { "{}}", LLM_SSE_BROKEN },
        { "{\"choices\":[{\"delta\":{\"content\":\"x\"}}]", LLM_SSE_BROKEN },
        { "{\"error\":{\"type\":\"x\"}", LLM_SSE_BROKEN },
        { "{\"type\":\"message_stop\",}", LLM_SSE_BROKEN },
        { "<html>502 Bad Gateway</html>", LLM_SSE_BROKEN },
        { "data: {}", LLM_SSE_BROKEN },
        { "\xef\xbb\xbf{}", LLM_SSE_BROKEN },
    };

    (void) state;

    assert_cases(cases, COUNT(cases));

    assert_kinds("data: {\"a\":\"b\ndata: c\"}\n\n", "B");
    assert_kinds("data: 1\ndata: 2\n\n", "B");

    /* and it leaves nothing behind */

    scan(&r, "data: {\"error\":{\"type\":\"x\"},\"usage\":{\"input_tokens\":1,"
             "\"output_tokens\":-1}\n\ndata: 7\n\n");
    assert_string_equal(kinds(&r), "B -");
    assert_int_equal(r.s.broken, 1);
    assert_int_equal(r.s.errors, 0);
    assert_int_equal(r.s.usage.told, 0);
    assert_int_equal(r.s.usage.bad, 0);
    assert_word(&r.s.error_type, "");

    /* nothing is too long, and only what is too deep is refused */

    n = 1 << 20;
    text = malloc(n + 100);
    assert_non_null(text);

    i = (size_t) sprintf(text, "data: {\"choices\":[{\"delta\":"
                               "{\"content\":\"");
    memset(text + i, 'x', n);
    strcpy(text + i + n, "\"}}]}\n\n");
    assert_kinds(text, "C");

    for (i = LLM_JSON_DEPTH; i <= LLM_JSON_DEPTH + 1; i++) {
        n = (size_t) sprintf(text, "data: ");
        memset(text + n, '[', i);
        memset(text + n + i, ']', i);
        strcpy(text + n + 2 * i, "\n\n");
        assert_kinds(text, (i == LLM_JSON_DEPTH) ? "-" : "B");
    }

    free(text);
}


static void
lines_and_fields_are_those_of_the_standard(void **state)
{
    size_t i, k;
    char text[256];
    result_t r;

    static const char *eols[] = { "\n", "\r", "\r\n" };
    static const char stop[] = "data: {\"type\":\"message_stop\"}\n\n";

    (void) state;

    scan_whole(&r, odd, sizeof(odd) - 1);
    assert_string_equal(kinds(&r), "C B E - - - B - D");
    assert_true(r.pending);
    assert_int_equal(r.last, LLM_SSE_BROKEN);

    for (i = 0; i < COUNT(eols); i++) {
        for (k = 0; k < COUNT(eols); k++) {
            snprintf(text, sizeof(text),
                "event: x%sdata: {\"type\":%sdata:\"message_stop\"}%s%s",
                eols[i], eols[k], eols[i], (i == 1 && k == 0) ? "\r" : eols[k]);
            assert_kinds(text, "F");
        }
    }

    /* one blank is no part of the value, and none is needed */

    assert_kinds("data:[DONE]\n\ndata: [DONE]\n\n", "D D");
    assert_kinds("data: 1\ndata:\n\n", "-");
    assert_kinds("data :1\n\n", "-");
    assert_kinds("\n\n\r\r\n", "- - - -");
    assert_kinds(":\n\n: data: [DONE]\n\n:data: 1\n\n", "- - -");
    assert_kinds("id\nretry\nid: 1\nretry: x\n\n", "-");

    /* a byte order mark, whole and once */

    snprintf(text, sizeof(text), "\xef\xbb\xbf%s%s", stop, stop);
    assert_kinds(text, "F F");
    snprintf(text, sizeof(text), "\xef\xbb\xbf\xef\xbb\xbf%s%s", stop, stop);
    assert_kinds(text, "- F");
    snprintf(text, sizeof(text), "\xef\xbb%s%s", stop, stop);
    assert_kinds(text, "- F");
    snprintf(text, sizeof(text), "\xef%s%s", stop, stop);
    assert_kinds(text, "- F");
    snprintf(text, sizeof(text), "%s\xef\xbb\xbf%s%s", stop, stop, stop);
    assert_kinds(text, "F - F");
    assert_kinds("\xef\xbb\xbf", "");
    assert_kinds("\xef\xbb\xbf\n", "-");
    assert_kinds("\xef\xbb\n\n", "-");
}


static void
an_event_without_its_blank_line_is_pending(void **state)
{
    size_t i;
    result_t r;

    static const case_t cases[] = {
        { "d", LLM_SSE_NOTHING },
        { ": x", LLM_SSE_NOTHING },
        { "event: error", LLM_SSE_ERROR },
        { "data: [DONE]", LLM_SSE_DONE },
        { "data: [DONE]\n", LLM_SSE_DONE },
        { "data: [DONE]\r", LLM_SSE_DONE },
        { "data: [DONE]\r\n", LLM_SSE_DONE },
        { "data: [DON", LLM_SSE_BROKEN },
        { "data: {\"type\":\"message_stop\"}\n", LLM_SSE_FINISH },
        { "data: {\"type\":\"message_st", LLM_SSE_BROKEN },
        { "\xef", LLM_SSE_NOTHING },
        { "\xef\xbb", LLM_SSE_NOTHING },
        { "\n\ndata: 7", LLM_SSE_NOTHING },
    };

    (void) state;

    for (i = 0; i < COUNT(cases); i++) {
        scan(&r, cases[i].data);
        assert_true(r.pending);
        assert_int_equal(r.last, cases[i].events);
        assert_int_equal(r.s.contents + r.s.errors + r.s.broken, 0);
    }

    scan(&r, "");
    assert_false(r.pending);

    /* the line feed of a final CRLF is of the event before it */

    start(&r);
    scan_piece(&r, (const uint8_t *) "data: 1\r\n\r", 10);
    assert_int_equal(r.n, 1);
    scan_piece(&r, (const uint8_t *) "\n", 1);
    assert_int_equal(r.n, 1);
    finish(&r);
    assert_false(r.pending);
    assert_int_equal(r.s.offset, 11);
}


static void
the_held_bytes_end_with_the_first_content(void **state)
{
    size_t i, len, first;
    result_t r;

    static const char
        text[] = ": x\r\n\r\ndata: {\"choices\":[{\"text\":\"a\"}]}\r\n\r\n"
                 "data: {\"choices\":[{\"text\":\"b\"}]}\r\n\r\n";

    (void) state;

    len = sizeof(text) - 1;
    first = (size_t) (strstr(text + 8, "data") - text);

    for (i = 0; i <= len; i++) {
        start(&r);
        scan_piece(&r, (const uint8_t *) text, i);
        scan_piece(&r, (const uint8_t *) text + i, len - i);

        assert_int_equal(r.s.contents, 2);
        assert_int_equal(r.s.content_end, first);
    }

    scan(&r, "data: {}\n\n");
    assert_int_equal(r.s.content_end, 0);
}


static void
assert_usage(const char *text, const char *expected)
{
    int i;
    size_t n;
    char told[256];
    result_t r;

    scan(&r, text);

    for (i = 0, n = 0; i < LLM_USAGES; i++) {
        if (r.s.usage.told & (1u << i)) {
            n += (size_t) snprintf(told + n, sizeof(told) - n, "%c%llu ",
                "picothnRWr"[i], (unsigned long long) r.s.usage.n[i]);

        } else {
            assert_int_equal(r.s.usage.n[i], 0);
        }
    }

    snprintf(told + n, sizeof(told) - n, "!%u", r.s.usage.bad);
    assert_string_equal(told, expected);
}


static void
tokens_are_counted_as_the_provider_tells(void **state)
{
    (void) state;

    assert_usage(chat, "p19 c10 t29 h16 r4 !0");
    assert_usage(responses, "i37 o11 t48 h5 r3 !0");
    assert_usage(messages, "i25 o89 R9 W7 !0");
    assert_usage(tools, "!0");

    assert_usage("data: {\"choices\":[{\"usage\":{\"prompt_tokens\":3,"
                 "\"cached_tokens\":2}}]}\n\n",
        "p3 h2 !0");
    assert_usage("data: {\"x_groq\":{\"usage\":{\"prompt_tokens\":3}}}\n\n",
        "p3 !0");
    assert_usage("data: {\"usage\":{\"prompt_cache_hit_tokens\":8,"
                 "\"prompt_cache_miss_tokens\":9}}\n\n",
        "h8 !0");
    assert_usage("data: {\"usage\":{\"prompt_tokens\":0,\"total_tokens\":5}}"
                 "\n\n",
        "p0 t5 !0");

    /* the last word counts */

    assert_usage("data: {\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}"
                 "\n\ndata: {\"usage\":{\"output_tokens\":7}}\n\n",
        "i3 o7 !0");

    /* nothing is no bad number, but these are */

    assert_usage("data: {\"usage\":{\"prompt_tokens\":null,"
                 "\"prompt_tokens_details\":null}}\n\ndata: {\"usage\":[]}\n\n",
        "!0");
    assert_usage("data: {\"usage\":{\"input_tokens\":9007199254740991,"
                 "\"output_tokens\":9007199254740992}}\n\n",
        "i9007199254740991 !1");
    assert_usage("data: {\"usage\":{\"input_tokens\":5}}\n\n"
                 "data: {\"usage\":{\"input_tokens\":-1}}\n\n"
                 "data: {\"usage\":{\"input_tokens\":1.0}}\n\n"
                 "data: {\"usage\":{\"input_tokens\":1e2}}\n\n"
                 "data: {\"usage\":{\"input_tokens\":18446744073709551617}}\n\n"
                 "data: {\"usage\":{\"input_tokens\":99999999999999999999999}}"
                 "\n\n"
                 "data: {\"usage\":{\"input_tokens\":\"6\"}}\n\n"
                 "data: {\"usage\":{\"input_tokens\":true}}\n\n"
                 "data: {\"usage\":{\"input_tokens\":[6]}}\n\n"
                 "data: {\"usage\":{\"input_tokens\":{\"a\":6}}}\n\n",
        "i5 !9");

    /* what a stream without its end told is not told */

    assert_usage("data: {\"usage\":{\"input_tokens\":5}}\n", "!0");
}


static void
assert_same(const result_t *a, const result_t *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->events, b->events, a->n * sizeof(unsigned));
    assert_int_equal(a->pending, b->pending);
    assert_int_equal(a->last, b->last);

    assert_int_equal(a->s.offset, b->s.offset);
    assert_int_equal(a->s.events, b->s.events);
    assert_int_equal(a->s.contents, b->s.contents);
    assert_int_equal(a->s.errors, b->s.errors);
    assert_int_equal(a->s.broken, b->s.broken);
    assert_int_equal(a->s.content_end, b->s.content_end);

    assert_int_equal(a->s.error_type.len, b->s.error_type.len);
    assert_memory_equal(a->s.error_type.text, b->s.error_type.text,
        a->s.error_type.len);
    assert_int_equal(a->s.error_code.len, b->s.error_code.len);
    assert_memory_equal(a->s.error_code.text, b->s.error_code.text,
        a->s.error_code.len);

    assert_memory_equal(&a->s.usage, &b->s.usage, sizeof(a->s.usage));
}


static void
no_split_of_a_stream_changes_what_is_found(void **state)
{
    size_t i, k, len;
    const uint8_t *p;
    result_t whole, split;

    (void) state;

    for (i = 0; i < COUNT(streams); i++) {
        p = (const uint8_t *) streams[i].text;
        len = streams[i].len;

        scan_whole(&whole, p, len);

        for (k = 0; k <= len; k++) {
            start(&split);
            scan_piece(&split, p, k);
            scan_piece(&split, p + k, len - k);
            finish(&split);
            assert_same(&whole, &split);
        }

        start(&split);

        for (k = 0; k < len; k++) {
            scan_piece(&split, p + k, 1);
        }

        finish(&split);
        assert_same(&whole, &split);
    }
}


/* Some of the streams' lines in any order, with some bytes that are wrong. */
static size_t
generate(uint8_t *text)
{
    size_t i, n, len, from;
    const char *line, *end;
    uint32_t eol, wrong;

    len = 0;
    eol = below(4);

    for (i = 2 + below(30); i != 0; i--) {
        n = below(COUNT(streams));
        from = below((uint32_t) streams[n].len);
        line = streams[n].text + from;

        while (line > streams[n].text && line[-1] != '\n' && line[-1] != '\r') {
            line--;
        }

        n = strcspn(line, "\r\n");
        end = line + n;

        if (len + n + 4 > STREAM) {
            break;
        }

        memcpy(text + len, line, (size_t) (end - line));
        len += n;

        for (n = (below(4) == 0) ? 1 : 2; n != 0; n--) {
            switch ((eol == 3) ? below(3) : eol) {
            case 0:
                text[len++] = '\n';
                break;
            case 1:
                text[len++] = '\r';
                break;
            default:
                text[len++] = '\r';
                text[len++] = '\n';
            }
        }
    }

    static const char bytes[] = "\r\n\r\n\"{}[]:,\\0 d\xef";

    for (wrong = below(4) == 0 ? below(6) : 0; wrong != 0; wrong--) {
        text[below((uint32_t) len)] = (uint8_t) bytes[below(sizeof(bytes) - 1)];
    }

    return len;
}


static void
no_random_split_of_a_random_stream_does_either(void **state)
{
    long i, n, found;
    size_t len, at, piece, most;
    result_t whole, split;

    static uint8_t text[STREAM];

    (void) state;

    n = 4000;
    found = 0;

    if (getenv("LLM_STREAMS") != NULL) {
        n = strtol(getenv("LLM_STREAMS"), NULL, 10);
    }

    for (i = 0; i < n; i++) {
        len = generate(text);
        most = 1 + below(below(2) ? 8 : 400);

        scan_whole(&whole, text, len);
        start(&split);

        for (at = 0; at < len; at += piece) {
            piece = below((uint32_t) most + 1);
            piece = (piece > len - at) ? len - at : piece;
            scan_piece(&split, text + at, piece);
        }

        finish(&split);
        assert_same(&whole, &split);

        found += (whole.s.contents != 0);
    }

    print_message("%ld streams, %ld with content\n", n, found);
    assert_true(n < 100 || (found > n / 4 && found < n));
}


static void
a_scanner_is_small_and_used_again(void **state)
{
    result_t r;

    (void) state;

    assert_true(sizeof(llm_sse_t) <= 2560);

    scan(&r, odd);
    llm_sse_init(&r.s);
    r.n = 0;
    scan_piece(&r, (const uint8_t *) chat, sizeof(chat) - 1);
    finish(&r);
    assert_string_equal(kinds(&r), "- - - C C F U D");
    assert_int_equal(r.s.errors, 0);
    assert_word(&r.s.error_type, "");
    assert_int_equal(r.s.offset, sizeof(chat) - 1);
}


int
main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(
                                            the_first_token_of_a_chat_is_found),
        cmocka_unit_test(the_first_token_of_a_response_is_found),
        cmocka_unit_test(the_first_token_of_a_message_is_found),
        cmocka_unit_test(what_a_person_or_program_would_use_is_content),
        cmocka_unit_test(what_the_other_dialects_send_is_told_apart),
        cmocka_unit_test(a_finished_answer_is_told_from_a_cut_one),
        cmocka_unit_test(the_extra_event_of_the_usage_is_told_from_others),
        cmocka_unit_test(an_error_in_a_stream_is_seen_and_named),
        cmocka_unit_test(an_event_may_be_called_an_error),
        cmocka_unit_test(data_that_cannot_be_read_is_told),
        cmocka_unit_test(lines_and_fields_are_those_of_the_standard),
        cmocka_unit_test(an_event_without_its_blank_line_is_pending),
        cmocka_unit_test(the_held_bytes_end_with_the_first_content),
        cmocka_unit_test(tokens_are_counted_as_the_provider_tells),
        cmocka_unit_test(no_split_of_a_stream_changes_what_is_found),
        cmocka_unit_test(no_random_split_of_a_random_stream_does_either),
        cmocka_unit_test(a_scanner_is_small_and_used_again) };

    seed = (uint64_t) time(NULL);

    if (getenv("LLM_SEED") != NULL) {
        seed = strtoull(getenv("LLM_SEED"), NULL, 10);
    }

    rnd = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    print_message("LLM_SEED=%llu\n", (unsigned long long) seed);

    return cmocka_run_group_tests(tests, NULL, NULL);
}
