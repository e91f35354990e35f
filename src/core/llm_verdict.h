/*
 * Whose fault an answer is.
 *
 * One table maps what a provider answered to a class; the class decides
 * what the circuit learns and whether another provider is tried.
 */

#ifndef LLM_VERDICT_H
#define LLM_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>


typedef enum {
    LLM_CLASS_SUCCESS = 0, /* 2xx, 3xx */
    LLM_CLASS_FAILURE,     /* the provider is at fault: counts, next provider */
    LLM_CLASS_THROTTLE,    /* asked to slow down: steer away for a while */
    LLM_CLASS_CREDENTIAL,  /* our key or our money: waiting does not help */
    LLM_CLASS_CAPABILITY,  /* this provider can not, another one may */
    LLM_CLASS_NEUTRAL      /* the caller's own: passed on unchanged */
} llm_class_t;

#define LLM_CLASSES 6


typedef struct {
    bool completion; /* a completions, embeddings, responses, messages call */
    bool own_key;    /* made with the provider's key, not the caller's */
} llm_call_t;


/*
 * The class of an answer with this HTTP status, before its body is looked
 * at.  A status that is no final one of HTTP (under 200, over 599) is a
 * failure.
 *
 * What a caller can provoke at will must not move a circuit for others.  So
 * a call that is no completion is held against a provider only for a 5xx
 * (and a broken transport, which has no status): its 4xx are all neutral,
 * 408, 429 and 498 as well.  And a 401 or 402 on a completion is the
 * provider's trouble only if the key was the provider's own.
 */
llm_class_t llm_verdict_status(unsigned status, llm_call_t call);

/*
 * Whether an answer of this class sends the request to another provider.
 */
bool llm_verdict_next(llm_class_t class);

/*
 * Whether a request path (without its query) ends in a completion call:
 * ".../completions", ".../embeddings", ".../responses", ".../messages".
 * Case matters, slashes at the end do not.
 */
bool llm_verdict_completion(const uint8_t *path, size_t len);

/* "success", "failure", ...; the words of the "classify" directive */
const char *llm_class_name(llm_class_t class);

/* the class of such a word; -1 if there is none */
int llm_class_parse(const uint8_t *word, size_t len);

#endif /* LLM_VERDICT_H */
