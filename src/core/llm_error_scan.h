/*
 * The strings of an error's body that may tell whose fault it is.  For
 * llm_error.c only.
 *
 * The scanner is a lenient one: a body may be cut off, and whether it is
 * good JSON is of no interest.  It knows at which places of which objects
 * something may stand, and looks at nothing else.
 */

#ifndef LLM_ERROR_SCAN_H
#define LLM_ERROR_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>


#define LLM_ERROR_TEXT 512 /* what is kept of a string */
#define LLM_ERROR_KEY 16   /* longer names are none that count */
#define LLM_ERROR_DEPTH 8  /* no place that counts is deeper */


/* what a value is: */
typedef enum {
    LLM_ERROR_NOTHING = 0, /* that counts */

    LLM_ERROR_WORD,    /* a machine-readable string */
    LLM_ERROR_MESSAGE, /* a string for people */
    LLM_ERROR_DELAY,   /* "retryDelay" of google.rpc.RetryInfo */

    LLM_ERROR_DOCUMENT, /* where others stand: the whole, */
    LLM_ERROR_LIST,     /* an array around it, as in Google's streams */
    LLM_ERROR_BODY,
    LLM_ERROR_RESPONSE, /* of "response.failed" in OpenAI's Responses API */
    LLM_ERROR_OBJECT,
    LLM_ERROR_DETAILS,
    LLM_ERROR_DETAIL
} llm_error_what_t;


typedef struct {
    /* what was found: a word, a message or a delay */
    llm_error_what_t what;
    size_t len;
    bool cut; /* the text is not all of the string */
    char text[LLM_ERROR_TEXT];

    /* the scanner's own */
    const uint8_t *p;
    const uint8_t *end;
    size_t depth;
    llm_error_what_t inside[LLM_ERROR_DEPTH + 1];
    size_t key_len;
    char key[LLM_ERROR_KEY];
} llm_error_scan_t;


/* body: stays where it is while it is read; may be NULL if len is 0 */
void llm_error_scan_init(llm_error_scan_t *s, const uint8_t *body, size_t len);

/*
 * Finds the next string.  Escapes are decoded; what is not ASCII and written
 * as an escape is "?".  False: there is no more, or it is no JSON from here.
 */
bool llm_error_scan_next(llm_error_scan_t *s);

#endif /* LLM_ERROR_SCAN_H */
