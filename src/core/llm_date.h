/*
 * Dates, as they stand in the headers of answers.
 */

#ifndef LLM_DATE_H
#define LLM_DATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>


#define LLM_DATE_LAST INT64_C(253402300799) /* the last second of 9999 */


/*
 * An HTTP date in any of the three forms of RFC 9110, 5.6.7, in seconds
 * since 1970.  now: the same, up to LLM_DATE_LAST, for the century of a year
 * that is written with two digits.  False: none; *second is untouched.
 */
bool llm_date_http(const uint8_t *p, size_t len, int64_t now, int64_t *second);

/*
 * A date-time of RFC 3339, 5.6, in seconds since 1970 and milliseconds on
 * top, rounded up: 0 to 1000.  False: none; both are untouched.
 */
bool llm_date_rfc3339(const uint8_t *p, size_t len, int64_t *second,
    uint32_t *ms);

#endif /* LLM_DATE_H */
