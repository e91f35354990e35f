/*
 * How long a provider asks to be left alone: the retry hints of an answer's
 * header.
 */

#ifndef LLM_HINT_H
#define LLM_HINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>


/*
 * The value of a Retry-After header (RFC 9110, 10.2.3) in milliseconds:
 * seconds, seconds with a fraction, or an HTTP date in any of the three
 * forms of RFC 9110, 5.6.7, taken against unix_now (seconds).
 *
 * False: not understood (junk, negative, empty), *ms untouched.  A date in
 * the past and "0" are understood: 0 ms.  Values over UINT32_MAX ms
 * are cut to it.
 */
bool llm_hint_retry_after(const uint8_t *p, size_t len, int64_t unix_now,
    uint32_t *ms);

/* The value of a retry-after-ms header: milliseconds, perhaps a fraction. */
bool llm_hint_retry_after_ms(const uint8_t *p, size_t len, uint32_t *ms);

#endif /* LLM_HINT_H */
