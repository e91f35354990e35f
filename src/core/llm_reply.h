/*
 * The reply to a call of the gateway's own: how long its header asks for a
 * pause, and what a probe learns from it.
 */

#ifndef LLM_REPLY_H
#define LLM_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llm_probe.h"
#include "llm_verdict.h"


/* All zeroes: nothing was asked for. */
typedef struct {
    uint8_t rank; /* of the header that asked; 0: none did */
    uint32_t ms;
} llm_reply_hint_t;


typedef struct {
    unsigned status; /* 200 to 599; others are a failure whatever follows */
    bool expected;   /* the status is one that a good probe has */
    int class;       /* what the status is by configuration; -1: the usual */
    bool own_key;    /* the call was made with the provider's key */
    bool strict;     /* what is not expected counts against the provider */
    const uint8_t *body; /* its beginning; may be NULL if len is 0 */
    size_t len;
} llm_reply_t;


typedef struct {
    llm_probe_result_t result;
    llm_class_t class; /* for the circuit */
    uint32_t retry;    /* ms, as the body asks for; 0: it does not */
} llm_reply_verdict_t;


/*
 * Takes a line of the header, with or without its end, whatever bytes it has:
 * the first that is understood of retry-after-ms, x-ms-retry-after-ms and
 * Retry-After counts, and of two alike the longer one, however they come.  A
 * status line begins another header, where nothing was asked for.
 *
 * False: it begins like a status line of HTTP/1 and is none.
 */
bool llm_reply_header(llm_reply_hint_t *hint, const uint8_t *line, size_t len,
    int64_t unix_now);

/* A reply means what it would mean to a request, but for what is expected. */
llm_reply_verdict_t llm_reply_judge(const llm_reply_t *reply);

#endif /* LLM_REPLY_H */
