/*
 * The event-stream scanner: a stream in one piece, in the pieces that the
 * first two bytes of the input ask for, and without frames, when every event
 * is parsed, must give the same events, and what is said of them must be true
 * of the stream.  All of it comes once more with a byte that is wrong: events
 * that are nearly those of before.
 */

#include <stdlib.h>
#include <string.h>

#include "llm_sse.h"


#define EVENTS 4096
#define TWICE 2048
#define PIECES 256


typedef struct {
    size_t n;
    bool framed;
    bool pending;
    unsigned last;
    unsigned events[EVENTS];
    llm_sse_t s;
} result_t;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(int ok)
{
    if (!ok) {
        abort();
    }
}


static void
start(result_t *r, bool framed)
{
    memset(&r->s, framed ? 0xa5 : 0x5a, sizeof(llm_sse_t));
    llm_sse_init(&r->s);

    r->n = 0;
    r->framed = framed;
}


/* Scans a copy of the piece that has no byte too many. */
static void
scan_piece(result_t *r, const uint8_t *p, size_t len)
{
    size_t at, used;
    uint64_t before;
    unsigned events;
    uint8_t *copy;

    copy = malloc(len);

    if (copy == NULL) {
        return;
    }

    memcpy(copy, p, len);

    for (at = 0; at < len; at += used) {
        events = ~0u;
        before = r->s.offset;
        used = llm_sse_scan(&r->s, copy + at, len - at, &events);

        check(used <= len - at && events < 1u << 7);
        check(r->s.offset - before == (used ? used : len - at));

        if (used == 0) {
            check(events == LLM_SSE_NOTHING);
            break;
        }

        /* an event ends with the end of a line */
        check(copy[at + used - 1] == '\n' || copy[at + used - 1] == '\r');

        if (r->n < EVENTS) {
            r->events[r->n] = events;
        }

        r->n++;

        if (!r->framed) {
            r->s.frame.pieces[0] = 0;
        }
    }

    free(copy);
}


/* One piece of first bytes, the others of step. */
static void
scan(result_t *r, const uint8_t *p, size_t len, size_t first, size_t step)
{
    size_t n;

    start(r, true);

    for (n = first; len != 0; n = step) {
        n = (n > len) ? len : n;
        scan_piece(r, p, n);
        p += n;
        len -= n;
    }

    r->pending = llm_sse_end(&r->s, &r->last);
}


/* Every event has to be parsed. */
static void
scan_parsed(result_t *r, const uint8_t *p, size_t len)
{
    start(r, false);
    scan_piece(r, p, len);

    check(r->s.framed == 0);
    r->pending = llm_sse_end(&r->s, &r->last);
}


static void
check_word(const llm_sse_word_t *a, const llm_sse_word_t *b)
{
    uint8_t i;

    check(a->len <= LLM_SSE_WORD && a->len == b->len);
    check(memcmp(a->text, b->text, a->len) == 0);

    for (i = 0; i < a->len; i++) {
        check(a->text[i] >= ' ' && a->text[i] <= '~');
    }
}


static void
check_same(const result_t *a, const result_t *b)
{
    size_t n;

    n = (a->n < EVENTS) ? a->n : EVENTS;

    check(a->n == b->n && a->pending == b->pending && a->last == b->last);
    check(memcmp(a->events, b->events, n * sizeof(unsigned)) == 0);

    check(a->s.offset == b->s.offset && a->s.events == b->s.events);
    check(a->s.contents == b->s.contents && a->s.errors == b->s.errors);
    check(a->s.broken == b->s.broken);
    check(a->s.content_end == b->s.content_end);
    check(memcmp(&a->s.usage, &b->s.usage, sizeof(a->s.usage)) == 0);

    check_word(&a->s.error_type, &b->s.error_type);
    check_word(&a->s.error_code, &b->s.error_code);
}


/* What is held until the first content is enough to see it, and no less is. */
static void
check_content(const llm_sse_t *s, const uint8_t *p, size_t len)
{
    size_t n;

    static result_t held;

    check((s->contents != 0) == (s->content_end != 0));
    check(s->content_end <= len);

    if (s->content_end == 0) {
        return;
    }

    n = (size_t) s->content_end;

    start(&held, true);
    scan_piece(&held, p, n - 2);
    check(held.s.contents == 0);

    scan_piece(&held, p + n - 2, 2);
    check(held.s.contents == 1 && held.s.content_end == n);
    check(!llm_sse_end(&held.s, &held.last));
}


static void
check_frame(const uint8_t *p, size_t len, size_t first, size_t step)
{
    size_t at;

    static const char bytes[] = "\"\\{}[]:,019an \n\r\t\xe4";
    static uint8_t twice[2 * TWICE];
    static result_t whole, split, parsed;

    memcpy(twice, p, len);
    memcpy(twice + len, p, len);

    at = len + (first * 256 + step) % len;
    twice[at] = (uint8_t) bytes[(first + step) % (sizeof(bytes) - 1)];

    scan_parsed(&parsed, twice, 2 * len);
    scan(&whole, twice, 2 * len, 2 * len, 1);
    scan(&split, twice, 2 * len, at, 2 * len);

    check_same(&parsed, &whole);
    check_same(&parsed, &split);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t first, step;

    static result_t whole, split, parsed;

    if (size < 2) {
        return 0;
    }

    first = data[0];
    step = (data[1] < 64) ? 1 : data[1] * 3u; /* often byte by byte */
    data += 2;
    size -= 2;

    if (step < size / PIECES) {
        step = size / PIECES;
    }

    scan(&whole, data, size, size, 1);
    scan(&split, data, size, first, step);

    check(whole.s.offset == size && whole.s.events == whole.n);
    check_same(&whole, &split);

    scan_parsed(&parsed, data, size);
    check_same(&whole, &parsed);

    check_content(&whole.s, data, size);

    if (size != 0 && size <= TWICE) {
        check_frame(data, size, first, step);
    }

    return 0;
}
