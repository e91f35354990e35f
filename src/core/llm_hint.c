/*
 * Retry hints: seconds, milliseconds and the three forms of an HTTP date.
 */

#include <string.h>

#include "llm_hint.h"


#define LLM_HINT_LAST INT64_C(253402300799) /* the last second of 9999 */


typedef struct {
    int64_t year;
    int64_t month; /* 0 .. 11 */
    int64_t day;
    int64_t hour;
    int64_t minute;
    int64_t second;
} llm_hint_date_t;


static bool llm_hint_number(const uint8_t *p, const uint8_t *end, uint32_t unit,
    uint32_t *ms);
static bool llm_hint_fraction(const uint8_t *p, const uint8_t *end,
    uint32_t unit, uint64_t *ms);
static bool llm_hint_date(const uint8_t *p, const uint8_t *end,
    int64_t unix_now, uint32_t *ms);
static bool llm_hint_match(const char *form, const uint8_t *p,
    const uint8_t *end, llm_hint_date_t *d);
static const uint8_t *llm_hint_field(char field, const uint8_t *p,
    const uint8_t *end, llm_hint_date_t *d);
static const uint8_t *llm_hint_name(const char *const *names, size_t n,
    const uint8_t *p, const uint8_t *end, int64_t *index);
static const uint8_t *llm_hint_digits(int n, const uint8_t *p,
    const uint8_t *end, int64_t *value);
static bool llm_hint_possible(const llm_hint_date_t *d);
static int64_t llm_hint_century(llm_hint_date_t d, int64_t unix_now);
static int64_t llm_hint_unix(const llm_hint_date_t *d);


static const char *const llm_hint_days[] = { "Sunday", "Monday", "Tuesday",
    "Wednesday", "Thursday", "Friday", "Saturday" };


static const char *const llm_hint_short_days[] = { "Sun", "Mon", "Tue", "Wed",
    "Thu", "Fri", "Sat" };


static const char *const llm_hint_months[] = { "Jan", "Feb", "Mar", "Apr",
    "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };


/* RFC 9110, 5.6.7; the letters as in strftime() */
static const char llm_hint_fixdate[] = "%a, %d %b %Y %H:%M:%S GMT";
static const char llm_hint_rfc850[] = "%A, %d-%b-%y %H:%M:%S GMT";
static const char llm_hint_asctime[] = "%a %b %e %H:%M:%S %Y";


static void
llm_hint_trim(const uint8_t **p, const uint8_t **end)
{
    while (*p < *end && (**p == ' ' || **p == '\t')) {
        (*p)++;
    }

    while (*p < *end && ((*end)[-1] == ' ' || (*end)[-1] == '\t')) {
        (*end)--;
    }
}


bool
llm_hint_retry_after(const uint8_t *p, size_t len, int64_t unix_now,
    uint32_t *ms)
{
    const uint8_t *end;

    if (len == 0) {
        return false;
    }

    end = p + len;
    llm_hint_trim(&p, &end);

    return llm_hint_number(p, end, 1000, ms)
           || llm_hint_date(p, end, unix_now, ms);
}


bool
llm_hint_retry_after_ms(const uint8_t *p, size_t len, uint32_t *ms)
{
    const uint8_t *end;

    if (len == 0) {
        return false;
    }

    end = p + len;
    llm_hint_trim(&p, &end);

    return llm_hint_number(p, end, 1, ms);
}


/* Digits, perhaps a point and more digits; a unit is that many ms. */
static bool
llm_hint_number(const uint8_t *p, const uint8_t *end, uint32_t unit,
    uint32_t *ms)
{
    uint64_t value;
    const uint8_t *start;

    value = 0;

    for (start = p; p < end && *p >= '0' && *p <= '9'; p++) {
        value = value * 10 + (uint64_t) (*p - '0');

        if (value > UINT32_MAX) {
            value = UINT32_MAX;
        }
    }

    if (p == start) {
        return false;
    }

    value *= unit;

    if (p < end && !llm_hint_fraction(p, end, unit, &value)) {
        return false;
    }

    *ms = (value > UINT32_MAX) ? UINT32_MAX : (uint32_t) value;
    return true;
}


/* Adds what stands from the point on, rounded up: never too short a rest. */
static bool
llm_hint_fraction(const uint8_t *p, const uint8_t *end, uint32_t unit,
    uint64_t *ms)
{
    bool more;
    uint32_t digit;

    if (*p++ != '.' || p == end) {
        return false;
    }

    more = false;

    for (/* void */; p < end; p++) {
        if (*p < '0' || *p > '9') {
            return false;
        }

        digit = (uint32_t) (*p - '0');
        unit /= 10;
        *ms += digit * unit;
        more = more || (unit == 0 && digit != 0);
    }

    *ms += more;
    return true;
}


static bool
llm_hint_date(const uint8_t *p, const uint8_t *end, int64_t unix_now,
    uint32_t *ms)
{
    int64_t rest;
    llm_hint_date_t d;

    if (unix_now < 0) {
        unix_now = 0;
    }

    if (unix_now > LLM_HINT_LAST) {
        unix_now = LLM_HINT_LAST;
    }

    if (llm_hint_match(llm_hint_rfc850, p, end, &d)) {
        d.year = llm_hint_century(d, unix_now);

    } else if (!llm_hint_match(llm_hint_fixdate, p, end, &d)
               && !llm_hint_match(llm_hint_asctime, p, end, &d))
    {
        return false;
    }

    if (!llm_hint_possible(&d)) {
        return false;
    }

    rest = llm_hint_unix(&d) - unix_now;

    if (rest <= 0) {
        *ms = 0;

    } else if (rest > UINT32_MAX / 1000) {
        *ms = UINT32_MAX;

    } else {
        *ms = (uint32_t) rest * 1000;
    }

    return true;
}


static bool
llm_hint_match(const char *form, const uint8_t *p, const uint8_t *end,
    llm_hint_date_t *d)
{
    for (/* void */; *form != '\0'; form++) {

        if (*form == '%') {
            p = llm_hint_field(*++form, p, end, d);

            if (p == NULL) {
                return false;
            }

        } else if (p == end || *p++ != (uint8_t) *form) {
            return false;
        }
    }

    return p == end;
}


/* Reads one field of a date; returns behind it, or NULL. */
static const uint8_t *
llm_hint_field(char field, const uint8_t *p, const uint8_t *end,
    llm_hint_date_t *d)
{
    int64_t day;

    switch (field) {
    case 'a':
        return llm_hint_name(llm_hint_short_days, 7, p, end, &day);
    case 'A':
        return llm_hint_name(llm_hint_days, 7, p, end, &day);
    case 'b':
        return llm_hint_name(llm_hint_months, 12, p, end, &d->month);
    case 'd':
        return llm_hint_digits(2, p, end, &d->day);
    case 'e':
        return (p < end && *p == ' ') ? llm_hint_digits(1, p + 1, end, &d->day)
                                      : llm_hint_digits(2, p, end, &d->day);
    case 'H':
        return llm_hint_digits(2, p, end, &d->hour);
    case 'M':
        return llm_hint_digits(2, p, end, &d->minute);
    case 'S':
        return llm_hint_digits(2, p, end, &d->second);
    case 'y':
        return llm_hint_digits(2, p, end, &d->year);
    default: /* 'Y' */
        return llm_hint_digits(4, p, end, &d->year);
    }
}


static const uint8_t *
llm_hint_name(const char *const *names, size_t n, const uint8_t *p,
    const uint8_t *end, int64_t *index)
{
    size_t i, len;

    for (i = 0; i < n; i++) {
        len = strlen(names[i]);

        if ((size_t) (end - p) >= len && memcmp(p, names[i], len) == 0) {
            *index = (int64_t) i;
            return p + len;
        }
    }

    return NULL;
}


static const uint8_t *
llm_hint_digits(int n, const uint8_t *p, const uint8_t *end, int64_t *value)
{
    *value = 0;

    while (n-- != 0) {
        if (p == end || *p < '0' || *p > '9') {
            return NULL;
        }

        *value = *value * 10 + (*p++ - '0');
    }

    return p;
}


/* Whether there is such a day and time; 60: a leap second. */
static bool
llm_hint_possible(const llm_hint_date_t *d)
{
    bool leap;
    int64_t days;

    static const uint8_t in_month[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31,
        30, 31 };

    leap = (d->year % 4 == 0 && d->year % 100 != 0) || d->year % 400 == 0;
    days = in_month[d->month] + (d->month == 1 && leap);

    return d->day >= 1 && d->day <= days && d->hour < 24 && d->minute < 60
           && d->second <= 60;
}


/*
 * RFC 9110, 5.6.7: a year of two digits that seems to be over 50 years ahead
 * is the latest one in the past with these digits.  That is the latest year
 * of all that is not over 50 years ahead.
 */
static int64_t
llm_hint_century(llm_hint_date_t d, int64_t unix_now)
{
    int64_t year;

    for (year = 1900 + d.year; /* void */; year += 100) {
        d.year = year + 100 - 50;

        if (llm_hint_unix(&d) > unix_now) {
            return year;
        }
    }
}


/* Seconds since 1970; a year runs from March, the leap day is its last. */
static int64_t
llm_hint_unix(const llm_hint_date_t *d)
{
    int64_t year, month, days;

    year = d->year - (d->month < 2);
    month = (d->month + 10) % 12;

    days = 365 * year + year / 4 - year / 100 + year / 400
           + (153 * month + 2) / 5 + d->day - 1 - 719468;

    return ((days * 24 + d->hour) * 60 + d->minute) * 60 + d->second;
}
