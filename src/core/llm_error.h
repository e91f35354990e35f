/*
 * Whose fault an error is, by what its body says.
 *
 * The status alone does not tell a full account from a busy one, nor a model
 * that is not there from a request that is wrong.  Providers say it in a few
 * strings of a JSON body: machine-readable words (OpenAI's error.code and
 * error.type, Anthropic's error.type, Google's error.status and the reasons
 * in error.details) and, where there is no word for it, a message.
 *
 * A word is the provider's own.  A message may quote the caller, so it never
 * makes a provider guilty by a part in its middle.
 */

#ifndef LLM_ERROR_H
#define LLM_ERROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llm_verdict.h"


/* in place of a status: an error event in a stream has none of its own */
#define LLM_ERROR_EVENT 0


typedef struct {
    llm_class_t class;
    bool has_retry;  /* the body tells when to come back: */
    uint32_t retry;  /* ms, rounded up (google.rpc.RetryInfo) */
    const char *why; /* what the body was recognized by, static text;
                        NULL: it was not, the status decided */
} llm_error_t;


/*
 * The class of an error answer with this status and this body, which may be
 * cut off anywhere and be any bytes.  body: may be NULL if len is 0.
 *
 * Where the body says nothing that is known, or the call is no completion,
 * or the status is no error, the class is that of llm_verdict_status().
 * What would be the provider's credential trouble is neutral with a key of
 * the caller's.
 *
 * Reads up to len bytes once, without allocation and without recursion.
 */
llm_error_t llm_error_class(unsigned status, const uint8_t *body, size_t len,
    llm_call_t call);

#endif /* LLM_ERROR_H */
