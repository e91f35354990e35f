/*
 * Dates of HTTP and RFC 3339.
 */

#include <string.h>

#include "llm_date.h"


typedef struct {
    int64_t year;
    int64_t month; /* 0 .. 11 */
    int64_t day;
    int64_t hour;
    int64_t minute;
    int64_t second;
} llm_date_t;


static bool llm_date_match(const char *form, const uint8_t *p,
    const uint8_t *end, llm_date_t *d);
static const uint8_t *llm_date_field(char field, const uint8_t *p,
    const uint8_t *end, llm_date_t *d);
static const uint8_t *llm_date_name(const char *const *names, size_t n,
    const uint8_t *p, const uint8_t *end, int64_t *index);
static const uint8_t *llm_date_digits(int n, const uint8_t *p,
    const uint8_t *end, int64_t *value);
static const uint8_t *llm_date_fraction(const uint8_t *p, const uint8_t *end,
    uint32_t *ms);
static bool llm_date_zone(const uint8_t *p, const uint8_t *end,
    int64_t *offset);
static bool llm_date_possible(const llm_date_t *d);
static int64_t llm_date_century(llm_date_t d, int64_t now);
static int64_t llm_date_unix(const llm_date_t *d);


static const char *const llm_date_days[] = { "Sunday", "Monday", "Tuesday",
    "Wednesday", "Thursday", "Friday", "Saturday" };


static const char *const llm_date_short_days[] = { "Sun", "Mon", "Tue", "Wed",
    "Thu", "Fri", "Sat" };


static const char *const llm_date_months[] = { "Jan", "Feb", "Mar", "Apr",
    "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };


/* RFC 9110, 5.6.7; the letters as in strftime() */
static const char llm_date_fixdate[] = "%a, %d %b %Y %H:%M:%S GMT";
static const char llm_date_rfc850[] = "%A, %d-%b-%y %H:%M:%S GMT";
static const char llm_date_asctime[] = "%a %b %e %H:%M:%S %Y";

/* RFC 3339, 5.6, up to the seconds; %T: the letter between date and time */
static const char llm_date_datetime[] = "%Y-%m-%d%T%H:%M:%S";
#define LLM_DATE_DATETIME (sizeof("2000-01-01T00:00:00") - 1)


bool
llm_date_http(const uint8_t *p, size_t len, int64_t now, int64_t *second)
{
    const uint8_t *end;
    llm_date_t d;

    if (len == 0) {
        return false;
    }

    end = p + len;

    if (llm_date_match(llm_date_rfc850, p, end, &d)) {
        d.year = llm_date_century(d, now);

    } else if (!llm_date_match(llm_date_fixdate, p, end, &d)
               && !llm_date_match(llm_date_asctime, p, end, &d))
    {
        return false;
    }

    if (!llm_date_possible(&d)) {
        return false;
    }

    *second = llm_date_unix(&d);
    return true;
}


bool
llm_date_rfc3339(const uint8_t *p, size_t len, int64_t *second, uint32_t *ms)
{
    int64_t offset;
    uint32_t fraction;
    const uint8_t *end;
    llm_date_t d;

    if (len <= LLM_DATE_DATETIME
        || !llm_date_match(llm_date_datetime, p, p + LLM_DATE_DATETIME, &d)
        || !llm_date_possible(&d))
    {
        return false;
    }

    end = p + len;
    p = llm_date_fraction(p + LLM_DATE_DATETIME, end, &fraction);

    if (p == NULL || !llm_date_zone(p, end, &offset)) {
        return false;
    }

    *second = llm_date_unix(&d) - offset;
    *ms = fraction;
    return true;
}


/* A point and digits, or nothing; returns behind it, or NULL. */
static const uint8_t *
llm_date_fraction(const uint8_t *p, const uint8_t *end, uint32_t *ms)
{
    bool more;
    uint32_t digit, place;
    const uint8_t *start;

    *ms = 0;

    if (p == end || *p != '.') {
        return p;
    }

    more = false;
    place = 1000;
    start = ++p;

    for (/* void */; p < end && *p >= '0' && *p <= '9'; p++) {
        digit = (uint32_t) (*p - '0');
        place /= 10;
        *ms += digit * place;
        more = more || (place == 0 && digit != 0);
    }

    *ms += more;

    return p != start ? p : NULL;
}


/* "Z", or hours and minutes ahead of or behind it; offset in seconds. */
static bool
llm_date_zone(const uint8_t *p, const uint8_t *end, int64_t *offset)
{
    bool behind;
    llm_date_t d;

    *offset = 0;

    if (end - p == 1) {
        return *p == 'Z' || *p == 'z';
    }

    if (p == end || (*p != '+' && *p != '-')) {
        return false;
    }

    behind = (*p == '-');

    if (!llm_date_match("%H:%M", p + 1, end, &d) || d.hour > 23
        || d.minute > 59) {
        return false;
    }

    *offset = (d.hour * 60 + d.minute) * 60;

    if (behind) {
        *offset = -*offset;
    }

    return true;
}


static bool
llm_date_match(const char *form, const uint8_t *p, const uint8_t *end,
    llm_date_t *d)
{
    for (/* void */; *form != '\0'; form++) {

        if (*form == '%') {
            p = llm_date_field(*++form, p, end, d);

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
llm_date_field(char field, const uint8_t *p, const uint8_t *end, llm_date_t *d)
{
    int64_t day;

    switch (field) {
    case 'a':
        return llm_date_name(llm_date_short_days, 7, p, end, &day);
    case 'A':
        return llm_date_name(llm_date_days, 7, p, end, &day);
    case 'b':
        return llm_date_name(llm_date_months, 12, p, end, &d->month);
    case 'd':
        return llm_date_digits(2, p, end, &d->day);
    case 'e':
        return (p < end && *p == ' ') ? llm_date_digits(1, p + 1, end, &d->day)
                                      : llm_date_digits(2, p, end, &d->day);
    case 'H':
        return llm_date_digits(2, p, end, &d->hour);
    case 'm':
        p = llm_date_digits(2, p, end, &d->month);
        return (p != NULL && --d->month >= 0 && d->month < 12) ? p : NULL;
    case 'M':
        return llm_date_digits(2, p, end, &d->minute);
    case 'S':
        return llm_date_digits(2, p, end, &d->second);
    case 'T':
        return (p < end && (*p == 'T' || *p == 't' || *p == ' ')) ? p + 1
                                                                  : NULL;
    case 'y':
        return llm_date_digits(2, p, end, &d->year);
    default: /* 'Y' */
        return llm_date_digits(4, p, end, &d->year);
    }
}


static const uint8_t *
llm_date_name(const char *const *names, size_t n, const uint8_t *p,
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
llm_date_digits(int n, const uint8_t *p, const uint8_t *end, int64_t *value)
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
llm_date_possible(const llm_date_t *d)
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
llm_date_century(llm_date_t d, int64_t now)
{
    int64_t year;

    for (year = 1900 + d.year; /* void */; year += 100) {
        d.year = year + 100 - 50;

        if (llm_date_unix(&d) > now) {
            return year;
        }
    }
}


/* Seconds since 1970; a year runs from March, the leap day is its last. */
static int64_t
llm_date_unix(const llm_date_t *d)
{
    int64_t year, month, days;

    year = d->year - (d->month < 2);
    month = (d->month + 10) % 12;

    days = 365 * year + year / 4 - year / 100 + year / 400
           + (153 * month + 2) / 5 + d->day - 1 - 719468;

    return ((days * 24 + d->hour) * 60 + d->minute) * 60 + d->second;
}
