/*
 * The frame of the event-stream scanner: events like the one before are not
 * parsed, and nobody can tell.  What is parsed whatever it looks like is a
 * stream that comes byte by byte.  LLM_SEED=n repeats a run, LLM_STREAMS=n
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

#include "llm_sse.h"


#define STREAM 32768
#define EVENTS 8192
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))


/* What a scan gave: the events, and what it was about the end. */
typedef struct {
    size_t n;
    bool pending;
    unsigned last;
    unsigned events[EVENTS];
    llm_sse_t s;
} result_t;


static uint64_t seed, rnd;


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
scan_piece(result_t *r, const void *p, size_t len)
{
    size_t used, at;
    unsigned events;
    uint8_t *copy;

    copy = malloc(len + 1);
    assert_non_null(copy);

    memcpy(copy + 1, p, len);

    for (at = 0; at < len; at += used) {
        used = llm_sse_scan(&r->s, copy + 1 + at, len - at, &events);
        assert_true(used <= len - at);

        if (used == 0) {
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
    r->pending = llm_sse_end(&r->s, &r->last);
}


static void
scan(result_t *r, const void *text, size_t len)
{
    start(r);
    scan_piece(r, text, len);
    finish(r);
}


/* No event lies whole in a byte. */
static void
scan_bytes(result_t *r, const char *text, size_t len)
{
    start(r);

    for (/* void */; len != 0; len--) {
        scan_piece(r, text++, 1);
    }

    finish(r);
    assert_int_equal(r->s.framed, 0);
}


static void
assert_word(const llm_sse_word_t *a, const llm_sse_word_t *b)
{
    assert_int_equal(a->len, b->len);
    assert_memory_equal(a->text, b->text, a->len);
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
    assert_memory_equal(&a->s.usage, &b->s.usage, sizeof(a->s.usage));

    assert_word(&a->s.error_type, &b->s.error_type);
    assert_word(&a->s.error_code, &b->s.error_code);
}


/* In the text ' stands for a quote. */
static size_t
fill(char *stream, const char *text)
{
    size_t i, len;

    len = strlen(text);
    assert_true(len < STREAM);

    for (i = 0; i <= len; i++) {
        stream[i] = (char) (text[i] == '\'' ? '"' : text[i]);
    }

    return len;
}


/* How many events of the stream were not parsed, wherever it is cut in two. */
static unsigned
framed(const char *text)
{
    size_t i, len;
    char stream[STREAM];
    result_t whole, bytes;

    static result_t cut;

    len = fill(stream, text);

    scan(&whole, stream, len);
    scan_bytes(&bytes, stream, len);
    assert_same(&whole, &bytes);

    for (i = 0; i < len; i++) {
        start(&cut);
        scan_piece(&cut, stream, i);
        scan_piece(&cut, stream + i, len - i);
        finish(&cut);
        assert_same(&cut, &whole);
        assert_true(cut.s.framed <= whole.s.framed);
    }

    return (unsigned) whole.s.framed;
}


/*
 * How many events were not parsed of a stream that is this text twice, with
 * a cut behind so many bytes of the second one, and another one behind more.
 */
static unsigned
framed_cut(const char *text, size_t at, size_t more)
{
    size_t len;
    char stream[STREAM];

    static result_t cut, bytes;

    len = fill(stream, text);
    fill(stream + len, text);

    at += len;
    len *= 2;
    assert_true(at + more <= len);

    start(&cut);
    scan_piece(&cut, stream, at);
    scan_piece(&cut, stream + at, more);
    scan_piece(&cut, stream + at + more, len - at - more);
    finish(&cut);

    scan_bytes(&bytes, stream, len);
    assert_same(&cut, &bytes);

    return (unsigned) cut.s.framed;
}


/* The same of a stream that is this text and once more this text. */
static unsigned
framed_twice(const char *text)
{
    char stream[STREAM];

    snprintf(stream, sizeof(stream), "%s%s", text, text);
    return framed(stream);
}


#define CHAT(content)                                                \
    "data: {'id':'c-1','object':'chat.completion.chunk','created':1" \
    ",'choices':[{'index':0,'delta':{'content':'" content            \
    "'},'logprobs':null,'finish_reason':null}]}\n\n"

#define PADDED(content, padding)                                \
    "data: {'choices':[{'index':0,'delta':{'content':'" content \
    "'},'finish_reason':null}],'usage':null,'obfuscation':'" padding "'}\n\n"

#define LEGACY(content)                                   \
    "data: {'object':'text_completion','choices':[{"      \
    "'text':'" content "','index':0,'finish_reason':null" \
    "}],'model':'m'}\n\n"

#define BLOCK(content)                                       \
    "event: content_block_delta\n"                           \
    "data: {'type':'content_block_delta','index':0,'delta':" \
    "{'type':'text_delta','text':'" content "'}}\n\n"

#define DELTA(content, number, padding)                             \
    "event: response.output_text.delta\n"                           \
    "data: {'type':'response.output_text.delta','item_id':'msg_1'," \
    "'delta':'" content "','logprobs':[],'sequence_number':" number \
    ",'obfuscation':'" padding "'}\n\n"

#define NEWLINE "data: {'choices':[{'text':'\\n'}]}\n\n"
#define UNICODE "data: {'choices':[{'text':'\\u00e4'}]}\n\n"
#define NOBODY_KNOWS(value) "data: {'choices':[{'text':'a'}],'x':" value "}\n\n"


static void
events_like_the_one_before_are_not_parsed(void **state)
{
    (void) state;

    assert_int_equal(framed(CHAT("a")), 0);
    assert_int_equal(framed(CHAT("a") CHAT("a") CHAT("longer") CHAT("b")), 3);
    assert_int_equal(framed(PADDED("a", "xyz") PADDED("b", "") PADDED("b", "c")
                             PADDED("c", "1\\\"")),
        3);
    assert_int_equal(framed(PADDED("a", "") PADDED("b", "x")), 1);
    assert_int_equal(framed(LEGACY("a") LEGACY("b") LEGACY("c")), 2);
    assert_int_equal(framed(BLOCK("a") BLOCK("b") BLOCK("c")), 2);
    assert_int_equal(framed(DELTA("a", "9", "x") DELTA("b", "10", "yyy")
                             DELTA("c", "0", "")),
        2);

    /* with what is in between */

    assert_int_equal(framed(CHAT("a") ": hello\n\n\n" CHAT("b")), 1);
    assert_int_equal(framed(CHAT("a") "data: {}\n\n" CHAT("b")), 1);
    assert_int_equal(framed(CHAT("a") "data: [\n\n" CHAT("b")), 1);
    assert_int_equal(framed("\n" CHAT("a") "\r\n" CHAT("b")), 1);
    assert_int_equal(framed("\xef\xbb\xbf" CHAT("a") CHAT("b")), 1);

    /* the last one is the frame */

    assert_int_equal(framed(CHAT("a") LEGACY("a") LEGACY("b") CHAT("b")), 1);

    /* lines as the standard allows them */

    assert_int_equal(framed("id: 1\nevent: x\n:\ndata:{'choices':[{'text':'a'}]"
                            "}\r\n\r\n"
                            "id: 1\nevent: x\n:\ndata:{'choices':[{'text':'b'}]"
                            "}\r\n\r\n"),
        1);
}


static void
an_event_in_two_pieces_is_not_parsed_either(void **state)
{
    size_t at, len;
    char text[2 * LLM_SSE_KEPT];

    static const char delta[] = DELTA("ab", "10", "xyz");
    static const char feeds[] = "data:{'choices':[{'text':'a'}]}\r\n\r\n";

    (void) state;

    for (at = 0; at <= sizeof(delta) - 1; at++) {
        assert_int_equal(framed_cut(delta, at, 0), 1);
    }

    /* in three, it is; so it is where an escape is cut */

    for (at = 1; at <= sizeof(delta) - 3; at++) {
        assert_int_equal(framed_cut(delta, at, 1), 0);
    }

    len = strlen("data: {'choices':[{'text':'");

    assert_int_equal(framed_cut(NEWLINE, len + 1, 0), 1);
    assert_int_equal(framed_cut(UNICODE, len + 1, 0), 1);
    assert_int_equal(framed_cut(UNICODE, len + 3, 0), 0);
    assert_int_equal(framed_cut(UNICODE, len + 6, 0), 1);

    /* an event may end with each CR, as far as one knows */

    len = strlen(feeds);

    assert_int_equal(framed_cut(feeds, len - 4, 0), 1);
    assert_int_equal(framed_cut(feeds, len - 3, 0), 0);
    assert_int_equal(framed_cut(feeds, len - 2, 0), 1);
    assert_int_equal(framed_cut(feeds, len - 1, 0), 0);

    /* as long as can be kept, and one byte longer */

    for (len = LLM_SSE_KEPT; len <= LLM_SSE_KEPT + 1; len++) {
        snprintf(text, sizeof(text), CHAT("%0*d"),
            (int) (len - (sizeof(CHAT("")) - 1)), 0);
        assert_int_equal(strlen(text), len);

        assert_int_equal(framed_cut(text, 1, 0), len == LLM_SSE_KEPT);
        assert_int_equal(framed_cut(text, 300, 0), len == LLM_SSE_KEPT);
        assert_int_equal(framed_cut(text, len - 1, 0), len == LLM_SSE_KEPT);
        assert_int_equal(framed_cut(text, len, 0), 1);
    }
}


static void
any_string_may_be_the_content(void **state)
{
    (void) state;

    assert_int_equal(framed(CHAT("a") CHAT("\\\"")), 1);
    assert_int_equal(framed(CHAT("a") CHAT("\\\\")), 1);
    assert_int_equal(framed(CHAT("a") CHAT("\\\\\\\"")), 1);
    assert_int_equal(framed(CHAT("\\n") CHAT("b\\u00e4 \\ud83d\\ude00")), 1);
    assert_int_equal(framed(CHAT("a") CHAT("\\ud83d") CHAT("\\udfff")), 2);
    assert_int_equal(framed(CHAT("a") CHAT("\xc3\xa4\xff")), 1);
    assert_int_equal(framed(CHAT("a") CHAT("{}[]:,") CHAT("\x7f")), 2);
    assert_int_equal(framed(CHAT("a") CHAT("'}}]},{")
                             CHAT("data: {\\\"choices\\\":[")),
        1);

    /* but these are none, or there is no content */

    assert_int_equal(framed(CHAT("a") CHAT("")), 0);
    assert_int_equal(framed(CHAT("") CHAT("a")), 0);
    assert_int_equal(framed(CHAT("") CHAT("")), 0);
    assert_int_equal(framed(CHAT("a") CHAT("'")), 0);
    assert_int_equal(framed(CHAT("a") CHAT("\\")), 0);
    assert_int_equal(framed(CHAT("a") CHAT("\\\\'")), 0);
    assert_int_equal(framed(CHAT("a") CHAT("\\x") CHAT("\\u12g4")), 0);
    assert_int_equal(framed(CHAT("a") CHAT("\t") CHAT("\x1f")), 0);
    assert_int_equal(framed(CHAT("a") CHAT("b\nc") CHAT("b\rc")), 0);
    assert_int_equal(framed(CHAT("a") CHAT("b\ndata: c")), 0);
    assert_int_equal(framed(CHAT("a") CHAT("b','content':'")), 0);
    assert_int_equal(framed(CHAT("a") CHAT("b','role':'assistant")), 0);
}


static void
a_number_has_to_be_one(void **state)
{
    (void) state;

    assert_int_equal(framed(DELTA("a", "9", "") DELTA("b", "0", "")), 1);
    assert_int_equal(framed(DELTA("a", "-1.5", "") DELTA("b", "10", "")), 1);

    assert_int_equal(framed(DELTA("a", "9", "") DELTA("b", "", "")), 0);
    assert_int_equal(framed(DELTA("a", "9", "") DELTA("b", "01", "")), 0);
    assert_int_equal(framed(DELTA("a", "9", "") DELTA("b", "00", "")), 0);
    assert_int_equal(framed(DELTA("a", "9", "") DELTA("b", "1 ", "")), 0);
    assert_int_equal(framed(DELTA("a", "9", "") DELTA("b", "1.5", "")), 0);
    assert_int_equal(framed(DELTA("a", "9", "") DELTA("b", "-1", "")), 0);
    assert_int_equal(framed(DELTA("a", "9", "") DELTA("b", "'1'", "")), 0);
    assert_int_equal(framed(DELTA("a", "'9'", "") DELTA("b", "9", "")), 0);
    assert_int_equal(framed(DELTA("a", "9", "") DELTA("b", "null", "")), 0);
    assert_int_equal(framed(DELTA("a", "9", "") DELTA("b", "1,'a':2", "")), 0);
    assert_int_equal(framed(DELTA("a", "9", "") DELTA("b", "1}", "")), 0);
}


#define FINISH "'finish_reason':'stop'"
#define PART(member) \
    "data: {'choices':[{'delta':{'content':'a'," member "}}]}\n\n"
#define BESIDE(member) "data: {'choices':[{'text':'a'}]," member "}\n\n"


static void
what_counts_is_never_passed_over(void **state)
{
    size_t i;
    char text[4096];

    static const char told[] = BESIDE("'usage':{'total_tokens':7}");

    static const char *const near[] = {
        "data: {'choices':[{'text':'a','finish_reason':null}]}\n\n",
        "data: {'choices':[{'text':'a','finish_reason':'stop'}]}\n\n",
        "data: {'choices':[{'text':'a','finish_reason':'error'}]}\n\n",
        "data: {'choices':[{'text':'','finish_reason':null}]}\n\n",
        "data: {'choices':[{'text':null,'finish_reason':null}]}\n\n",
        "data: {'choices':[{'text':'a'},'finish_reason':null]}\n\n",
        "data: {'choices':[{'text':'a','finish_reason':null}]}\ndata:]\n\n",
        "data: {'choices':[{'text':'a','finish_reason':null}]}\n"
        "event: error\n\n",
        "event: ping\n"
        "data: {'choices':[{'text':'a','finish_reason':null}]}\n\n",
        "data: {'choices':[{'text':'a','finish_reason':null}],"
        "'usage':{'prompt_tokens':3}}\n\n",
        "data: {'choices':[{'text':'a','finish_reason':null}],"
        "'usage':{'prompt_tokens':-3}}\n\n",
        "data: {'choices':[{'text':'a','finish_reason':null}],'error':1}\n\n",
        "data: {'error':{'type':'a'},"
        "'choices':[{'text':'a','finish_reason':null}]}\n\n",
        "data: {'object':'error',"
        "'choices':[{'text':'a','finish_reason':null}]}\n\n",
        "data: [DONE]\n\n",
        "data: {'choices':[{'text':'a','finish_reason':null}]}\n",
        "data: {'choices':[{'text':'a','finish_reason':null}]}\r",
        "data: {'choices':[{'text':'a','finish_reason':null}]}",
        "data:{'choices':[{'text':'a','finish_reason':null}]}\n\n",
        "data: {'choices':[{'txt':'a','finish_reason':null}]}\n\n",
        ": {'choices':[{'text':'a','finish_reason':null}]}\n\n",
        "Data: {'choices':[{'text':'a','finish_reason':null}]}\n\n",
    };

    (void) state;

    /* the first with each of the others, and the other way round */

    for (i = 1; i < COUNT(near); i++) {
        snprintf(text, sizeof(text), "%s%s", near[0], near[i]);
        assert_int_equal(framed(text), 0);

        snprintf(text, sizeof(text), "%s%s", near[i], near[0]);
        assert_int_equal(framed(text), 0);
    }

    /* the same numbers told again may be told behind others */

    snprintf(text, sizeof(text), "%s%s%s%s", told, told,
        "data: {'usage':{'total_tokens':9}}\n\n", told);
    assert_int_equal(framed(text), 0);
    assert_int_equal(framed(BESIDE("'usage':{'total_tokens':-7}")
                             BESIDE("'usage':{'total_tokens':-7}")),
        0);

    /* words are no holes, wherever they are */

    assert_int_equal(framed(BESIDE("'type':'x'") BESIDE("'type':'error'")), 0);
    assert_int_equal(framed(BESIDE("'object':'x'") BESIDE("'object':'error'")),
        0);
    assert_int_equal(framed(BESIDE("'code':'1'") BESIDE("'code':'2'")), 0);
    assert_int_equal(framed(NOBODY_KNOWS("'1'") NOBODY_KNOWS("'2'")), 0);
    assert_int_equal(
        framed(BESIDE("'delta':{'stop_reason':null}")
                BESIDE("'delta':{'stop_reason':'end'},'type':'message_delta'")),
        0);

    /* an event without content is none, whatever else is in it */

    assert_int_equal(framed("data: {'choices':[{'text':'a'," FINISH "}]}\n\n"
                            "data: {'choices':[{'text':'a'," FINISH "}]}\n\n"),
        0);
    assert_int_equal(framed("data: {'type':'message_stop','p':'a'}\n\n"
                            "data: {'type':'message_stop','p':'a'}\n\n"),
        0);
    assert_int_equal(framed("data: [DONE]\n\ndata: [DONE]\n\n"), 0);
}


static void
several_values_may_differ(void **state)
{
    (void) state;

    assert_int_equal(framed(PART("'reasoning':'b'") PART("'reasoning':'c'")),
        1);
    assert_int_equal(framed(PART("'reasoning':'b'") PART("'reasoning':''")), 0);
    assert_int_equal(framed(PART("'reasoning':''") PART("'reasoning':'b'")), 0);
    assert_int_equal(framed(PART("'reasoning':''") PART("'reasoning':''")), 1);
    assert_int_equal(framed(PART("'content':'b'") PART("'content':'c'")), 1);

    /* more of them than are kept: the others must be the same */

    assert_int_equal(framed(PART("'content':['b','c','d','e']")
                             PART("'content':['f','g','h','e']")),
        1);
    assert_int_equal(framed(PART("'content':['b','c','d','e']")
                             PART("'content':['f','g','h','i']")),
        0);

    /* a call without any of them */

    assert_int_equal(framed("data: {'type':'response.output_item.added',"
                            "'item':{'type':'function_call'}}\n\n"
                            "data: {'type':'response.output_item.added',"
                            "'item':{'type':'function_call'}}\n\n"),
        1);
}


static void
what_is_no_frame_is_parsed(void **state)
{
    size_t i, len;
    char text[2 * LLM_SSE_FRAME], head[] = "data: {'choices':[{'text':'a'}],";
    result_t r;

    (void) state;

    /* a document of several lines */

    assert_int_equal(framed("data: {'choices':\ndata: [{'text':'a'}]}\n\n"
                            "data: {'choices':\ndata: [{'text':'b'}]}\n\n"),
        0);

    /* an end that may be none yet, and one that is */

    assert_int_equal(framed("data: {'choices':[{'text':'a'}]}\r\r"
                            "data: {'choices':[{'text':'b'}]}\r\r"),
        0);
    assert_int_equal(framed("data: {'choices':[{'text':'a'}]}\r\n\r\n"
                            "data: {'choices':[{'text':'b'}]}\r\n\r"),
        0);
    assert_int_equal(framed("data: {'choices':[{'text':'a'}]}\r\n\r\n"
                            "data: {'choices':[{'text':'b'}]}\r\n\n"),
        0);

    /* one byte too long for it, or not; a hole ends behind the quote */

    for (i = LLM_SSE_FRAME; i <= LLM_SSE_FRAME + 1; i++) {
        len = (i + 2 - strlen(head)) - strlen("'':0}\n\n");
        snprintf(text, sizeof(text), "%s'%0*d':0}\n\n", head, (int) len, 0);
        assert_int_equal(strlen(text), i + 2);
        assert_int_equal(framed_twice(text), i == LLM_SSE_FRAME);
    }

    /* nor is half of it one, and the other half of the one before */

    snprintf(text, sizeof(text),
        "data: {'choices':[{'text':'a'}]}\n\n"
        "data:{'choices':[{'text':'a'}],'%0*d':0}\n\n"
        "data:{'choices':[{'text':'a''}]}\n\n",
        LLM_SSE_FRAME, 0);
    assert_int_equal(framed(text), 0);

    /* the content is not kept, however long it is */

    snprintf(text, sizeof(text), "data: {'choices':[{'text':'%0*d'}]}\n\n",
        LLM_SSE_FRAME, 0);
    assert_int_equal(framed_twice(text), 1);

    /* another stream */

    for (i = 0; i < 2; i++) {
        static const char
            event[] = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";

        if (i == 0) {
            start(&r);

        } else {
            llm_sse_init(&r.s);
        }

        scan_piece(&r, event, sizeof(event) - 1);
        assert_int_equal(r.s.framed, 0);
        assert_int_equal(r.s.contents, 1);
        scan_piece(&r, event, sizeof(event) - 1);
        assert_int_equal(r.s.framed, 1);
    }
}


static const char *const events[] = { CHAT("a"), CHAT("weather"), CHAT(" \\n"),
    CHAT(""), CHAT("\\\""), CHAT("\\"), CHAT("\\ud83d"), CHAT("'"),
    PADDED("a", "xyz"), PADDED("b", ""), PADDED("b", "0123456789abcdefghij"),
    LEGACY("a"), LEGACY("b"), LEGACY(""), BLOCK("a"), BLOCK("two words"),
    BLOCK(""), DELTA("a", "9", "x"), DELTA("b", "10", "yy"),
    DELTA("c", "11", ""), DELTA("d", "012", "z"), DELTA("", "13", "z"),
    PART("'reasoning':'b'"), PART("'reasoning':''"), PART("'role':'x'"),
    BESIDE("'usage':{'total_tokens':7}"), BESIDE("'usage':{'total_tokens':8}"),
    BESIDE("'usage':{'total_tokens':-7}"), BESIDE("'usage':null"),
    BESIDE("'error':null"), BESIDE("'error':{'type':'e','code':5}"),
    BESIDE("'type':'error'"), BESIDE("'object':'error'"), BESIDE("'p':'ab'"),
    BESIDE("'p':1"), "data: {'choices':[{'text':'a'," FINISH "}]}\n\n",
    "data: {'type':'message_stop'}\n\n", "data: [DONE]\n\n", ": x\n\n", "\n",
    "id: 1\n" CHAT("a"), "id: 2\n" CHAT("b"), "event: ping\n" CHAT("a"),
    "event: error\n" CHAT("a"), ": x\n" CHAT("a"), "\xef\xbb\xbf" CHAT("a"),
    "data: {'choices':[{\ndata: 'text':'a'}]}\n\n", "data: {}\n" };


/* Some of the events, mostly the same ones, with a byte that is wrong. */
static size_t
generate(char *text)
{
    size_t i, n, len;
    uint32_t pick, near, eol;
    const char *c;

    static const char bytes[] = "\"\"\\\\{}[],:01n \n\r\t\xe4";

    len = 0;
    eol = below(3);
    pick = below(COUNT(events));

    for (i = 2 + below(40); i != 0; i--) {
        near = (below(8) == 0) ? below(COUNT(events)) : pick + below(3);

        if (below(12) == 0) {
            pick = near;
        }

        c = events[near % COUNT(events)];
        n = len;

        for (/* void */; *c != '\0'; c++) {
            if (*c == '\n' && eol != 0) {
                text[len++] = '\r';
            }

            if (*c != '\n' || eol != 1) {
                text[len++] = (char) (*c == '\'' ? '"' : *c);
            }
        }

        if (below(12) == 0) {
            text[n + below((uint32_t) (len - n))] = bytes[below(
                sizeof(bytes) - 1)];
        }

        assert_true(len < STREAM - 1024);
    }

    return len;
}


static void
no_stream_and_no_split_shows_it(void **state)
{
    long i, n;
    size_t len, at, piece;
    uint64_t seen, known;
    const char *end;
    uint32_t most, ends;
    result_t bytes, whole, split;

    static char text[STREAM];

    (void) state;

    n = 2000;
    seen = 0;
    known = 0;

    if (getenv("LLM_STREAMS") != NULL) {
        n = strtol(getenv("LLM_STREAMS"), NULL, 10);
    }

    for (i = 0; i < n; i++) {
        len = generate(text);

        scan_bytes(&bytes, text, len);
        scan(&whole, text, len);
        assert_same(&whole, &bytes);

        /* at random, or where events seem to end, or near that */

        start(&split);
        ends = below(4);
        most = 1 + below(600);

        for (at = 0; at < len; at += piece) {
            piece = 1 + below(most);
            end = (ends != 0) ? memchr(text + at, '\n', len - at) : NULL;

            if (end != NULL) {
                piece = (size_t) (end - (text + at)) + below(ends) + 1;
            }

            piece = (piece > len - at) ? len - at : piece;
            scan_piece(&split, text + at, piece);
        }

        finish(&split);
        assert_same(&split, &bytes);

        seen += bytes.s.contents;
        known += whole.s.framed + split.s.framed;
    }

    print_message("%ld streams: of %llu contents %llu were not parsed\n", n,
        (unsigned long long) seen * 2, (unsigned long long) known);
    assert_true(n < 100 || (known > seen / 10 && known < seen * 2));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_like_the_one_before_are_not_parsed),
        cmocka_unit_test(an_event_in_two_pieces_is_not_parsed_either),
        cmocka_unit_test(any_string_may_be_the_content),
        cmocka_unit_test(a_number_has_to_be_one),
        cmocka_unit_test(what_counts_is_never_passed_over),
        cmocka_unit_test(several_values_may_differ),
        cmocka_unit_test(what_is_no_frame_is_parsed),
        cmocka_unit_test(no_stream_and_no_split_shows_it),
    };

    seed = (uint64_t) time(NULL);

    if (getenv("LLM_SEED") != NULL) {
        seed = strtoull(getenv("LLM_SEED"), NULL, 10);
    }

    rnd = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    print_message("LLM_SEED=%llu\n", (unsigned long long) seed);

    return cmocka_run_group_tests(tests, NULL, NULL);
}
