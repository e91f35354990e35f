/*
 * Hints: seconds, milliseconds, durations and dates.
 */

#include <string.h>

#include "llm_date.h"
#include "llm_hint.h"


/* a reset time that large is no number of seconds from now */
#define LLM_HINT_EPOCH INT64_C(1000000000)
#define LLM_HINT_EPOCH_MS INT64_C(100000000000)

/* what is read of a fraction exactly */
#define LLM_HINT_FRACTION UINT64_C(1000000000)


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
static bool llm_hint_datetime(const uint8_t *p, const uint8_t *end,
    int64_t unix_now, uint32_t *ms);
static int64_t llm_hint_now(int64_t unix_now);
static uint32_t llm_hint_until(int64_t second, int64_t unix_now, uint64_t ms);
static bool llm_hint_date(const uint8_t *p, const uint8_t *end,
    int64_t unix_now, uint32_t *ms);


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
           || llm_hint_datetime(p, end, unix_now, ms)
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

        if (value > LLM_DATE_LAST * 1000) {
            value = LLM_DATE_LAST * 1000;
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
llm_hint_datetime(const uint8_t *p, const uint8_t *end, int64_t unix_now,
    uint32_t *ms)
{
    int64_t second;
    uint32_t fraction;

    if (!llm_date_rfc3339(p, (size_t) (end - p), &second, &fraction)) {
        return false;
    }

    *ms = llm_hint_until(second, unix_now, fraction);
    return true;
}


static int64_t
llm_hint_now(int64_t unix_now)
{
    if (unix_now < 0) {
        return 0;
    }

    return unix_now < LLM_DATE_LAST ? unix_now : LLM_DATE_LAST;
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
    int64_t second;

    if (!llm_date_http(p, (size_t) (end - p), llm_hint_now(unix_now), &second))
    {
        return false;
    }

    *ms = llm_hint_until(second, unix_now, 0);
    return true;
}
