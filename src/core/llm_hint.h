/*
 * How long a provider asks to be left alone: the retry hints and the reset
 * times of rate limits in an answer's header.
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

/*
 * A duration in milliseconds, rounded up: numbers, perhaps with a fraction,
 * each with its unit (h, m, s, ms, us, ns), as Go writes them ("6m0s",
 * "1h2m3.5s", "120ms"), and with it what protobuf's JSON mapping writes
 * ("37s", "1.5s").
 *
 * False: not understood, *ms untouched.  Over UINT32_MAX ms: cut to it.
 */
bool llm_hint_duration(const uint8_t *p, size_t len, uint32_t *ms);

/*
 * The value of a header that tells when a rate limit is over, in
 * milliseconds from unix_now (seconds), rounded up.  Understood is whatever
 * providers write:
 *
 *     x-ratelimit-reset-requests, -tokens    a duration as above
 *     anthropic-ratelimit-*-reset            a date-time of RFC 3339
 *     others                                 seconds; an HTTP date; seconds
 *                                            or milliseconds since 1970, by
 *                                            their size: from 10^9 and 10^11
 *
 * False: not understood, *ms untouched.  The past: 0 ms.  Over
 * UINT32_MAX ms: cut to it.
 */
bool llm_hint_reset(const uint8_t *p, size_t len, int64_t unix_now,
    uint32_t *ms);

#endif /* LLM_HINT_H */
