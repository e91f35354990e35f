/*
 * Hints: seconds, milliseconds, durations, and dates of HTTP and RFC 3339.
 */

#include <string.h>

#include "llm_hint.h"


#define LLM_HINT_LAST INT64_C(253402300799) /* the last second of 9999 */

/* a reset time that large is no number of seconds from now */
#define LLM_HINT_EPOCH INT64_C(1000000000)
#define LLM_HINT_EPOCH_MS INT64_C(100000000000)

/* what is read of a fraction exactly */
#define LLM_HINT_FRACTION UINT64_C(1000000000)


typedef struct {
    int64_t year;
    int64_t month; /* 0 .. 11 */
    int64_t day;
    int64_t hour;
    int64_t minute;
    int64_t second;
} llm_hint_date_t;


typedef struct {
    const char *name;
    uint32_t ms;  /* or: */
    uint32_t per; /* that many are a ms */
} llm_hint_unit_t;


static bool llm_hint_number(const uint8_t *p, const uint8_t *end, uint32_t unit,
    uint32_t *ms);
static bool llm_hint_fraction(const uint8_t *p, const uint8_t *end,
    uint32_t unit, uint64_t *ms);
static bool llm_hint_seconds(const uint8_t *p, const uint8_t *end,
    int64_t unix_now, uint32_t *ms);
static const llm_hint_unit_t *llm_hint_unit(const uint8_t *p,
    const uint8_t *end);
static bool llm_hint_rfc3339(const uint8_t *p, const uint8_t *end,
    int64_t unix_now, uint32_t *ms);
static bool llm_hint_zone(const uint8_t *p, const uint8_t *end,
    int64_t *offset);
static int64_t llm_hint_now(int64_t unix_now);
static uint32_t llm_hint_until(int64_t second, int64_t unix_now, uint64_t ms);
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

/* RFC 3339, 5.6, up to the seconds; %T: the letter between date and time */
static const char llm_hint_datetime[] = "%Y-%m-%d%T%H:%M:%S";
#define LLM_HINT_DATETIME (sizeof("2000-01-01T00:00:00") - 1)


/* of names that begin alike the longer one is first */
static const llm_hint_unit_t llm_hint_units[] = {
    { .name = "h", .ms = 3600000 },
    { .name = "ms", .ms = 1 },
    { .name = "m", .ms = 60000 },
    { .name = "s", .ms = 1000 },
    { .name = "us", .per = 1000 },
    { .name = "\xc2\xb5s", .per = 1000 }, /* the micro sign, */
    { .name = "\xce\xbcs", .per = 1000 }, /* or the letter mu */
    { .name = "ns", .per = 1000000 },
};

#define LLM_HINT_UNITS (sizeof(llm_hint_units) / sizeof(llm_hint_units[0]))


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


bool
llm_hint_duration(const uint8_t *p, size_t len, uint32_t *ms)
{
    uint32_t part;
    uint64_t sum;
    const uint8_t *end, *number;
    const llm_hint_unit_t *unit;

    if (len == 0) {
        return false;
    }

    end = p + len;
    llm_hint_trim(&p, &end);

    if (p == end) {
        return false;
    }

    sum = 0;

    while (p < end) {
        number = p;

        while (p < end && ((*p >= '0' && *p <= '9') || *p == '.')) {
            p++;
        }

        unit = llm_hint_unit(p, end);

        if (unit == NULL
            || !llm_hint_number(number, p, unit->ms != 0 ? unit->ms : 1, &part))
        {
            return false;
        }

        if (unit->per != 0) {
            part = part / unit->per + (part % unit->per != 0);
        }

        sum += part;

        if (sum > UINT32_MAX) {
            sum = UINT32_MAX;
        }

        p += strlen(unit->name);
    }

    *ms = (uint32_t) sum;
    return true;
}


bool
llm_hint_reset(const uint8_t *p, size_t len, int64_t unix_now, uint32_t *ms)
{
    const uint8_t *end;

    if (len == 0) {
        return false;
    }

    end = p + len;
    llm_hint_trim(&p, &end);

    return llm_hint_duration(p, (size_t) (end - p), ms)
           || llm_hint_rfc3339(p, end, unix_now, ms)
           || llm_hint_seconds(p, end, unix_now, ms)
           || llm_hint_date(p, end, unix_now, ms);
}


/* Seconds from now; or since 1970, if there are that many. */
static bool
llm_hint_seconds(const uint8_t *p, const uint8_t *end, int64_t unix_now,
    uint32_t *ms)
{
    int64_t value;
    const uint8_t *digit;

    value = 0;

    for (digit = p; digit < end && *digit >= '0' && *digit <= '9'; digit++) {
        value = value * 10 + (*digit - '0');

        if (value > LLM_HINT_LAST * 1000) {
            value = LLM_HINT_LAST * 1000;
        }
    }

    if (value < LLM_HINT_EPOCH) {
        return llm_hint_number(p, end, 1000, ms);
    }

    if (digit != end) {
        return false;
    }

    *ms = (value < LLM_HINT_EPOCH_MS) ? llm_hint_until(value, unix_now, 0)
                                      : llm_hint_until(value / 1000, unix_now,
                                          (uint64_t) (value % 1000));
    return true;
}


/* The unit that p begins with, or NULL. */
static const llm_hint_unit_t *
llm_hint_unit(const uint8_t *p, const uint8_t *end)
{
    size_t i, len;

    for (i = 0; i < LLM_HINT_UNITS; i++) {
        len = strlen(llm_hint_units[i].name);

        if ((size_t) (end - p) >= len
            && memcmp(p, llm_hint_units[i].name, len) == 0) {
            return &llm_hint_units[i];
        }
    }

    return NULL;
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
    uint64_t digit, place, fraction;

    if (*p++ != '.' || p == end) {
        return false;
    }

    more = false;
    fraction = 0;
    place = LLM_HINT_FRACTION;

    for (/* void */; p < end; p++) {
        if (*p < '0' || *p > '9') {
            return false;
        }

        digit = (uint64_t) (*p - '0');
        place /= 10;
        fraction += digit * place;
        more = more || (place == 0 && digit != 0);
    }

    fraction *= unit;
    *ms += fraction / LLM_HINT_FRACTION
           + (fraction % LLM_HINT_FRACTION != 0 || more);
    return true;
}


static bool
llm_hint_rfc3339(const uint8_t *p, const uint8_t *end, int64_t unix_now,
    uint32_t *ms)
{
    int64_t offset;
    uint64_t fraction;
    const uint8_t *zone;
    llm_hint_date_t d;

    if ((size_t) (end - p) <= LLM_HINT_DATETIME
        || !llm_hint_match(llm_hint_datetime, p, p + LLM_HINT_DATETIME, &d)
        || !llm_hint_possible(&d))
    {
        return false;
    }

    p += LLM_HINT_DATETIME;
    fraction = 0;

    zone = p;

    while (zone < end && ((*zone >= '0' && *zone <= '9') || *zone == '.')) {
        zone++;
    }

    if ((zone != p && !llm_hint_fraction(p, zone, 1000, &fraction))
        || !llm_hint_zone(zone, end, &offset))
    {
        return false;
    }

    *ms = llm_hint_until(llm_hint_unix(&d) - offset, unix_now, fraction);
    return true;
}


/* "Z", or hours and minutes ahead of or behind it; offset in seconds. */
static bool
llm_hint_zone(const uint8_t *p, const uint8_t *end, int64_t *offset)
{
    bool behind;
    llm_hint_date_t d;

    *offset = 0;

    if (end - p == 1) {
        return *p == 'Z' || *p == 'z';
    }

    if (p == end || (*p != '+' && *p != '-')) {
        return false;
    }

    behind = (*p == '-');

    if (!llm_hint_match("%H:%M", p + 1, end, &d) || d.hour > 23
        || d.minute > 59) {
        return false;
    }

    *offset = (d.hour * 60 + d.minute) * 60;

    if (behind) {
        *offset = -*offset;
    }

    return true;
}


static int64_t
llm_hint_now(int64_t unix_now)
{
    if (unix_now < 0) {
        return 0;
    }

    return unix_now < LLM_HINT_LAST ? unix_now : LLM_HINT_LAST;
}


/* ms from now to some ms behind a second since 1970; the past: 0. */
static uint32_t
llm_hint_until(int64_t second, int64_t unix_now, uint64_t ms)
{
    uint64_t rest;

    second -= llm_hint_now(unix_now);

    if (second < 0) {
        return 0;
    }

    rest = (uint64_t) second * 1000 + ms;

    return rest < UINT32_MAX ? (uint32_t) rest : UINT32_MAX;
}


static bool
llm_hint_date(const uint8_t *p, const uint8_t *end, int64_t unix_now,
    uint32_t *ms)
{
    llm_hint_date_t d;

    if (llm_hint_match(llm_hint_rfc850, p, end, &d)) {
        d.year = llm_hint_century(d, llm_hint_now(unix_now));

    } else if (!llm_hint_match(llm_hint_fixdate, p, end, &d)
               && !llm_hint_match(llm_hint_asctime, p, end, &d))
    {
        return false;
    }

    if (!llm_hint_possible(&d)) {
        return false;
    }

    *ms = llm_hint_until(llm_hint_unix(&d), unix_now, 0);
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
    case 'm':
        p = llm_hint_digits(2, p, end, &d->month);
        return (p != NULL && --d->month >= 0 && d->month < 12) ? p : NULL;
    case 'M':
        return llm_hint_digits(2, p, end, &d->minute);
    case 'S':
        return llm_hint_digits(2, p, end, &d->second);
    case 'T':
        return (p < end && (*p == 'T' || *p == 't' || *p == ' ')) ? p + 1
                                                                  : NULL;
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
