/*
 * A scanner over the event stream of a provider's answer: it finds where each
 * event ends and tells what the event is, for OpenAI's chat completions,
 * legacy completions and Responses API and for Anthropic's messages.  Which of
 * them it is shows in the data of the events; nobody has to say it.
 *
 * The bytes are those behind the transfer decoding, in any number of pieces.
 * There is no allocation, and no event is too long: nothing of it is kept but
 * what is found in it, of content what the next event may have in common with
 * it, and the beginning of an event that so far has it (llm_sse_frame.h).
 *
 * Lines and fields: WHATWG HTML, 9.2 "Server-sent events".  Data: one JSON
 * document (llm_json_reader.h) or "[DONE]".  Dialects: the providers'
 * references of their streaming events.
 */

#ifndef LLM_SSE_H
#define LLM_SSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llm_json_reader.h"
#include "llm_usage.h"


/*
 * What an event is, one of these bits or several:
 *
 * NOTHING  a comment, ping, role, empty delta, ...
 * CONTENT  what a person or a program would use: text, reasoning, a refusal,
 *          a call, audio
 * FINISH   the answer is whole: finish_reason, message_stop,
 *          response.completed, response.incomplete
 * DONE     [DONE]
 * ERROR    the provider tells of an error
 * BROKEN   data that is neither JSON nor [DONE]
 * CLOSING  Anthropic's stop_reason: the content is whole, but message_stop is
 *          still to come
 * USAGE    mere usage, with "choices" that are empty: the extra event that
 *          "include_usage" asks for (llm_json.h)
 */
#define LLM_SSE_NOTHING 0x00u
#define LLM_SSE_CONTENT 0x01u
#define LLM_SSE_FINISH 0x02u
#define LLM_SSE_DONE 0x04u
#define LLM_SSE_ERROR 0x08u
#define LLM_SSE_BROKEN 0x10u
#define LLM_SSE_CLOSING 0x20u
#define LLM_SSE_USAGE 0x40u

#define LLM_SSE_WORD 64 /* what is kept of an error's type and code */


typedef struct {
    uint8_t len; /* 0: none was told */
    uint8_t rank;
    char text[LLM_SSE_WORD]; /* printable ASCII, no final NUL; cut if longer */
} llm_sse_word_t;


/* What the content events of a stream have in common: llm_sse_frame.h. */

#define LLM_SSE_FRAME 640 /* bytes kept of an event, those of holes left out */
#define LLM_SSE_HOLES 4
#define LLM_SSE_KEPT 640 /* bytes of an event that comes in two pieces */

typedef struct {
    uint8_t holes;
    uint8_t kinds[LLM_SSE_HOLES];
    uint16_t pieces[LLM_SSE_HOLES + 1]; /* bytes before, between, and behind
                                           the holes; [0] is 0: no frame */
    uint8_t text[LLM_SSE_FRAME];        /* of all pieces */
} llm_sse_frame_t;


/* A value of the event at hand that may differ in the next one. */
typedef struct {
    uint8_t kind;
    uint64_t start; /* in the document, behind the quote of a string */
    uint64_t end;   /* behind the other one */
} llm_sse_hole_t;


typedef struct {
    uint64_t offset;      /* bytes consumed */
    uint64_t events;      /* whole events, those that are nothing included */
    uint64_t contents;    /* of them: content ... */
    uint64_t errors;      /* ... errors ... */
    uint64_t broken;      /* ... unreadable */
    uint64_t content_end; /* offset behind the first content event; 0: none */

    /* of the first error event: "overloaded_error", "rate_limit_exceeded" */
    llm_sse_word_t error_type;
    llm_sse_word_t error_code;

    llm_usage_t usage; /* of the whole events */

    uint64_t framed; /* events that were not parsed: they fit the frame */

    /* the scanner's own: lines */
    bool pending;  /* the event at hand has some bytes */
    bool cr;       /* a line feed may follow that belongs to the CR */
    uint8_t bom;   /* bytes of a byte order mark seen */
    uint8_t state; /* place in a line */
    uint8_t field; /* what the line is */
    uint8_t name_len;
    uint8_t name[5]; /* of the field */
    uint8_t event_len;
    uint8_t event[5]; /* value of the last event: line */

    /* the event at hand */
    bool data;                /* it has a data: line ... */
    bool joined;              /* ... or several */
    const uint8_t *document;  /* in the piece, during a call only */
    uint8_t done;             /* bytes of [DONE] seen */
    uint8_t type;             /* row of the table of types */
    uint8_t holes;            /* in ->hole */
    uint32_t facts;           /* what was found in the data */
    llm_sse_word_t type_word; /* candidates for ->error_... */
    llm_sse_word_t code_word;
    llm_usage_t fresh;         /* ... for ->usage, cleared but for ->n */
    llm_usage_number_t number; /* a number of tokens */
    bool word_cut;
    uint8_t word_len; /* a string so far */
    char word[LLM_SSE_WORD];
    uint64_t value; /* where in the document the one at hand begins */
    llm_json_type_t value_type;
    llm_sse_hole_t hole[LLM_SSE_HOLES];
    llm_json_reader_t reader;

    llm_sse_frame_t frame;
    uint16_t kept; /* bytes of the event at hand that were not parsed yet */
    uint8_t bytes[LLM_SSE_KEPT];
} llm_sse_t;


/* Starts over, for another stream; cheap: the buffers are not cleared. */
void llm_sse_init(llm_sse_t *s);

/*
 * Takes bytes up to the end of the next event, the blank line included, and
 * returns how many; *events is what the event is.  Returns 0 if the input
 * ends before that: then all of it was taken, is not needed afterwards, and
 * *events is LLM_SSE_NOTHING.  A blank line behind a comment or alone ends an
 * event, too, which is nothing.
 *
 * Any split into pieces gives the same events and counters.  Only the line
 * feed of a final CRLF that is cut in two belongs to the bytes of the next
 * event.
 *
 * An event is what the official clients make of it: "event: error" is an
 * error even without data, "event: ping" is nothing whatever the data is.
 */
size_t llm_sse_scan(llm_sse_t *s, const uint8_t *p, size_t len,
    unsigned *events);

/*
 * No more input.  True if an event is not at its end: a client would never
 * see it.  *events tells what it is, as far as it came: "data: [DONE]"
 * without a blank line is LLM_SSE_DONE, half a document is LLM_SSE_BROKEN.
 * The counters do not count it.
 */
bool llm_sse_end(llm_sse_t *s, unsigned *events);

#endif /* LLM_SSE_H */
