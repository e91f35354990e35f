/*
 * Hints: what a provider may write, and what is left of it.  Each
 * value is read from a buffer that has no byte too many.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "llm_hint.h"


#define NOT_UNDERSTOOD -1
#define NOW 784111777 /* Sun, 06 Nov 1994 08:49:37 GMT */
#define DAY 86400


typedef struct {
    const char *value;
    int64_t ms;
} hint_t;


typedef enum {
    RETRY_AFTER,
    RETRY_AFTER_MS,
    DURATION,
    RESET
} header_t;


static bool
read_as(header_t header, const uint8_t *p, size_t len, int64_t now,
    uint32_t *ms)
{
    switch (header) {
    case RETRY_AFTER:
        return llm_hint_retry_after(p, len, now, ms);
    case RETRY_AFTER_MS:
        return llm_hint_retry_after_ms(p, len, ms);
    case DURATION:
        return llm_hint_duration(p, len, ms);
    default:
        return llm_hint_reset(p, len, now, ms);
    }
}


static int64_t
hint(const char *value, int64_t now, header_t header)
{
    bool understood;
    size_t len;
    uint8_t *copy;
    uint32_t ms;

    len = strlen(value);
    copy = malloc(len);
    assert_true(copy != NULL || len == 0);

    if (len != 0) {
        memcpy(copy, value, len);
    }

    ms = 4711;
    understood = read_as(header, copy, len, now, &ms);
    free(copy);

    if (!understood) {
        assert_int_equal(ms, 4711);
        return NOT_UNDERSTOOD;
    }

    return ms;
}


static void
assert_hints(const hint_t *hints, size_t n, header_t header)
{
    size_t i;
    int64_t ms;

    for (i = 0; i < n; i++) {
        ms = hint(hints[i].value, NOW, header);

        if (ms != hints[i].ms) {
            fail_msg("\"%s\": %lld ms, not %lld", hints[i].value,
                (long long) ms, (long long) hints[i].ms);
        }
    }
}


static void
seconds_and_fractions_are_understood(void **state)
{
    static const hint_t hints[] = {
        { "0", 0 },
        { "1", 1000 },
        { "120", 120000 },
        { "007", 7000 },
        { "1.5", 1500 },
        { "0.25", 250 },
        { "2.000", 2000 },
        { "0.0001", 1 },
        { "1.9991", 2000 },
        { "0.0000000000000000000000000000000001", 1 },
        { " 30\t", 30000 },
        { "\t \t30 ", 30000 },
    };

    (void) state;

    assert_hints(hints, sizeof(hints) / sizeof(hint_t), RETRY_AFTER);
}


static void
milliseconds_are_understood(void **state)
{
    static const hint_t hints[] = {
        { "0", 0 },
        { "1500", 1500 },
        { " 20 ", 20 },
        { "20.0", 20 },
        { "20.0001", 21 },
        { "0.5", 1 },
        { "4294967295", UINT32_MAX },
        { "4294967296", UINT32_MAX },
        { "4294967295.5", UINT32_MAX },
        { "99999999999999999999999999999999", UINT32_MAX },
        { "", NOT_UNDERSTOOD },
        { "-5", NOT_UNDERSTOOD },
        { "5ms", NOT_UNDERSTOOD },
        { "Sun, 06 Nov 1994 08:49:37 GMT", NOT_UNDERSTOOD },
    };

    (void) state;

    assert_hints(hints, sizeof(hints) / sizeof(hint_t), RETRY_AFTER_MS);
}


static void
a_huge_hint_is_cut_and_does_not_wrap_to_a_short_one(void **state)
{
    static const hint_t hints[] = {
        { "4294967", INT64_C(4294967000) },
        { "4294967.295", UINT32_MAX },
        { "4294967.2951", UINT32_MAX },
        { "4294968", UINT32_MAX },
        { "4294967296", UINT32_MAX },
        { "18446744073709551616", UINT32_MAX },
        { "18446744073709552", UINT32_MAX },
        { "99999999999999999999999999999999.9", UINT32_MAX },
        { "Sun, 06 Nov 2044 08:49:37 GMT", UINT32_MAX },
        { "Fri, 31 Dec 9999 23:59:60 GMT", UINT32_MAX },
    };

    (void) state;

    assert_hints(hints, sizeof(hints) / sizeof(hint_t), RETRY_AFTER);
}


static void
junk_is_no_hint(void **state)
{
    static const hint_t hints[] = {
        { "", NOT_UNDERSTOOD },
        { " ", NOT_UNDERSTOOD },
        { "\t", NOT_UNDERSTOOD },
        { "-1", NOT_UNDERSTOOD },
        { "+1", NOT_UNDERSTOOD },
        { "1e9", NOT_UNDERSTOOD },
        { "1.5e3", NOT_UNDERSTOOD },
        { "0x10", NOT_UNDERSTOOD },
        { ".5", NOT_UNDERSTOOD },
        { "5.", NOT_UNDERSTOOD },
        { ".", NOT_UNDERSTOOD },
        { "1.2.3", NOT_UNDERSTOOD },
        { "1,5", NOT_UNDERSTOOD },
        { "1, 2", NOT_UNDERSTOOD },
        { "1 2", NOT_UNDERSTOOD },
        { "5s", NOT_UNDERSTOOD },
        { "\n5", NOT_UNDERSTOOD },
        { "soon", NOT_UNDERSTOOD },
        { "NaN", NOT_UNDERSTOOD },
        { "inf", NOT_UNDERSTOOD },
        { "\xd9\xa5", NOT_UNDERSTOOD },
    };

    (void) state;

    assert_hints(hints, sizeof(hints) / sizeof(hint_t), RETRY_AFTER);
}


static void
the_three_forms_of_a_date_are_understood(void **state)
{
    static const hint_t hints[] = {
        { "Sun, 06 Nov 1994 08:49:37 GMT", 0 },
        { "Sun, 06 Nov 1994 08:49:38 GMT", 1000 },
        { "Sun, 06 Nov 1994 08:50:37 GMT", 60000 },
        { "Sun, 06 Nov 1994 09:49:37 GMT", 3600000 },
        { "Mon, 07 Nov 1994 08:49:37 GMT", 86400000 },
        { "Tue, 06 Dec 1994 08:49:37 GMT", INT64_C(30) * DAY * 1000 },
        { "Sun, 06 Nov 1994 08:49:36 GMT", 0 },
        { "Thu, 01 Jan 1970 00:00:00 GMT", 0 },
        { "Mon, 01 Jan 0000 00:00:00 GMT", 0 },
        { "Sunday, 06-Nov-94 08:49:47 GMT", 10000 },
        { "Wednesday, 09-Nov-94 08:49:37 GMT", 3 * DAY * 1000 },
        { "Sun Nov  6 08:49:47 1994", 10000 },
        { "Wed Nov 16 08:49:37 1994", 10 * DAY * 1000 },
        { "Wed Nov 06 08:49:39 1994", 2000 },
        { " Sun, 06 Nov 1994 08:49:47 GMT\t", 10000 },
        { "Sun, 06 Nov 1994 08:49:60 GMT", 23000 },
    };

    (void) state;

    assert_hints(hints, sizeof(hints) / sizeof(hint_t), RETRY_AFTER);
}


static void
a_date_that_is_none_is_no_hint(void **state)
{
    static const hint_t hints[] = {
        { "Sun, 06 Nov 1994 08:49:37", NOT_UNDERSTOOD },
        { "Sun, 06 Nov 1994 08:49:37 UTC", NOT_UNDERSTOOD },
        { "Sun, 06 Nov 1994 08:49:37 GMT+1", NOT_UNDERSTOOD },
        { "Sun, 06 Nov 1994 08:49:37 GM", NOT_UNDERSTOOD },
        { "Sun, 6 Nov 1994 08:49:37 GMT", NOT_UNDERSTOOD },
        { "Sun, 06 Nov 94 08:49:37 GMT", NOT_UNDERSTOOD },
        { "Sun,06 Nov 1994 08:49:37 GMT", NOT_UNDERSTOOD },
        { "Sunday, 06 Nov 1994 08:49:37 GMT", NOT_UNDERSTOOD },
        { "Sun, 06-Nov-94 08:49:37 GMT", NOT_UNDERSTOOD },
        { "Sunday, 06-Nov-1994 08:49:37 GMT", NOT_UNDERSTOOD },
        { "Xyz, 06 Nov 1994 08:49:37 GMT", NOT_UNDERSTOOD },
        { "Sun, 06 Nox 1994 08:49:37 GMT", NOT_UNDERSTOOD },
        { "Sun, 00 Nov 1994 08:49:37 GMT", NOT_UNDERSTOOD },
        { "Sun, 31 Nov 1994 08:49:37 GMT", NOT_UNDERSTOOD },
        { "Sun, 29 Feb 1994 08:49:37 GMT", NOT_UNDERSTOOD },
        { "Sun, 29 Feb 2100 08:49:37 GMT", NOT_UNDERSTOOD },
        { "Sun, 06 Nov 1994 24:00:00 GMT", NOT_UNDERSTOOD },
        { "Sun, 06 Nov 1994 08:60:00 GMT", NOT_UNDERSTOOD },
        { "Sun, 06 Nov 1994 08:49:61 GMT", NOT_UNDERSTOOD },
        { "Sun, 06 Nov 1994 -8:49:37 GMT", NOT_UNDERSTOOD },
        { "Sun Nov 6 08:49:37 1994", NOT_UNDERSTOOD },
        { "Sun Nov  6 08:49:37 1994 GMT", NOT_UNDERSTOOD },
        { "Sun", NOT_UNDERSTOOD },
        { "1994-11-06T08:49:37Z", NOT_UNDERSTOOD },
    };

    (void) state;

    assert_hints(hints, sizeof(hints) / sizeof(hint_t), RETRY_AFTER);
}


static void
a_year_of_two_digits_is_at_most_50_years_ahead(void **state)
{
    (void) state;

    /* 1994: "44" is 50 years ahead, a second more is a century back */

    assert_int_equal(hint("Sunday, 06-Nov-44 08:49:37 GMT", NOW, RETRY_AFTER),
        UINT32_MAX);
    assert_int_equal(hint("Sunday, 06-Nov-44 08:49:38 GMT", NOW, RETRY_AFTER),
        0);

    /* over the turn of a century, from 1999-12-31 and 2099-12-31 */

    assert_int_equal(hint("Saturday, 01-Jan-00 00:00:00 GMT", 946684790,
                         RETRY_AFTER),
        10000);
    assert_int_equal(hint("Friday, 01-Jan-00 00:00:00 GMT", 4102444790,
                         RETRY_AFTER),
        10000);

    /* 2000 was a leap year and 2100 will be none */

    assert_int_equal(hint("Tuesday, 29-Feb-00 00:00:00 GMT", 951782390,
                         RETRY_AFTER),
        10000);
    assert_int_equal(hint("Tuesday, 29-Feb-00 00:00:00 GMT", 4107542390,
                         RETRY_AFTER),
        NOT_UNDERSTOOD);
}


static void
a_wrong_clock_does_no_harm(void **state)
{
    const char *dates[] = { "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994" };
    size_t i;

    (void) state;

    for (i = 0; i < 3; i++) {
        assert_int_equal(hint(dates[i], 0, RETRY_AFTER), UINT32_MAX);
        assert_int_equal(hint(dates[i], -1, RETRY_AFTER), UINT32_MAX);
        assert_int_equal(hint(dates[i], INT64_MIN, RETRY_AFTER), UINT32_MAX);
    }

    assert_int_equal(hint(dates[0], INT64_MAX, RETRY_AFTER), 0);
    assert_int_equal(hint(dates[2], INT64_MAX, RETRY_AFTER), 0);
    assert_int_equal(hint(dates[1], INT64_MAX, RETRY_AFTER), 0);
}


/* Against the C library's calendar, a time of each day of 200 years. */
static void
every_day_is_counted_right(void **state)
{
    char value[64];
    time_t t;
    size_t i;
    struct tm *tm;

    static const char *forms[] = { "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y" };

    (void) state;

    for (t = DAY; t < (time_t) 200 * 365 * DAY; t += DAY + 12347) {
        tm = gmtime(&t);
        assert_non_null(tm);

        for (i = 0; i < 3; i++) {
            assert_int_not_equal(strftime(value, sizeof(value), forms[i], tm),
                0);
            assert_int_equal(hint(value, t - 7, RETRY_AFTER), 7000);
            assert_int_equal(hint(value, t + 1, RETRY_AFTER), 0);
            assert_int_equal(hint(value, t - DAY, RETRY_AFTER), DAY * 1000);
        }
    }
}


static void
durations_are_understood(void **state)
{
    static const hint_t hints[] = {
        { "1s", 1000 },
        { "6m0s", 360000 },
        { "120ms", 120 },
        { "1h2m3.5s", 3723500 },
        { "24h0m0s", 86400000 },
        { "1m30.951s", 90951 },
        { "7.66s", 7660 },
        { "37s", 37000 },
        { "0s", 0 },
        { "0.123456789s", 124 },
        { "0.000000001s", 1 },
        { "0.0000000000000000001s", 1 },
        { "59.9999999999s", 60000 },
        { "1.5m", 90000 },
        { "0.1h", 360000 },
        { "17.5ms", 18 },
        { "250us", 1 },
        { "2500us", 3 },
        { "2000\xc2\xb5s", 2 },
        { "2001\xce\xbcs", 3 },
        { "1ns", 1 },
        { "3000000ns", 3 },
        { " 2s\t", 2000 },
        { "1193h2m47.295s", UINT32_MAX },
        { "1193h2m47.296s", UINT32_MAX },
        { "1193h2m47.294s", UINT32_MAX - 1 },
        { "99999999999999999999h99999999999999999999h", UINT32_MAX },
        { "", NOT_UNDERSTOOD },
        { " ", NOT_UNDERSTOOD },
        { "s", NOT_UNDERSTOOD },
        { "5", NOT_UNDERSTOOD },
        { "6m0", NOT_UNDERSTOOD },
        { "-1s", NOT_UNDERSTOOD },
        { "1.s", NOT_UNDERSTOOD },
        { ".5s", NOT_UNDERSTOOD },
        { "1.2.3s", NOT_UNDERSTOOD },
        { "1 s", NOT_UNDERSTOOD },
        { "1s ago", NOT_UNDERSTOOD },
        { "1e3s", NOT_UNDERSTOOD },
        { "1d", NOT_UNDERSTOOD },
        { "1u", NOT_UNDERSTOOD },
        { "1\xc2", NOT_UNDERSTOOD },
    };

    (void) state;

    assert_hints(hints, sizeof(hints) / sizeof(hint_t), DURATION);
}


static void
reset_times_of_rate_limits_are_understood(void **state)
{
    static const hint_t hints[] = {
        { "6m0s", 360000 },
        { "120ms", 120 },
        { "60", 60000 },
        { "0", 0 },
        { "1.25", 1250 },
        { " 2 ", 2000 },
        { "1994-11-06T08:49:37Z", 0 },
        { "1994-11-06T08:49:38Z", 1000 },
        { "1994-11-06T08:50:37Z", 60000 },
        { "1994-11-06t08:50:37z", 60000 },
        { "1994-11-06 08:50:37Z", 60000 },
        { "1994-11-06T08:49:37.5Z", 500 },
        { "1994-11-06T08:49:37.0001Z", 1 },
        { "1994-11-06T08:49:40.123456Z", 3124 },
        { "1994-11-06T09:49:38+01:00", 1000 },
        { "1994-11-06T03:19:38-05:30", 1000 },
        { "1994-11-06T08:49:38+00:00", 1000 },
        { "1994-11-05T23:59:60Z", 0 },
        { "1990-01-01T00:00:00Z", 0 },
        { "2004-02-29T00:00:00Z", UINT32_MAX },
        { "9999-12-31T23:59:59Z", UINT32_MAX },
        { "9999-12-31T23:59:59.999999-23:59", UINT32_MAX },
        { "0000-01-01T00:00:00+23:59", 0 },
        { "Sun, 06 Nov 1994 08:49:47 GMT", 10000 },
        { "999999999", UINT32_MAX },
        { "", NOT_UNDERSTOOD },
        { "soon", NOT_UNDERSTOOD },
        { "-1", NOT_UNDERSTOOD },
        { "1994-11-06", NOT_UNDERSTOOD },
        { "1994-11-06T08:49:38", NOT_UNDERSTOOD },
        { "1994-11-06T08:49:38.Z", NOT_UNDERSTOOD },
        { "1994-11-06T08:49:38.5.5Z", NOT_UNDERSTOOD },
        { "1994-11-06T08:49:38Y", NOT_UNDERSTOOD },
        { "1994-11-06T08:49:38ZZ", NOT_UNDERSTOOD },
        { "1994-11-06T08:49:385Z", NOT_UNDERSTOOD },
        { "1994-11-06T08:49:38+1:00", NOT_UNDERSTOOD },
        { "1994-11-06T08:49:38+24:00", NOT_UNDERSTOOD },
        { "1994-11-06T08:49:38+00:60", NOT_UNDERSTOOD },
        { "1994-11-06T08:49:38+00:00Z", NOT_UNDERSTOOD },
        { "1994-11-06T08:49:38\xff", NOT_UNDERSTOOD },
        { "1994-00-06T08:49:38Z", NOT_UNDERSTOOD },
        { "1994-13-06T08:49:38Z", NOT_UNDERSTOOD },
        { "1994-02-29T08:49:38Z", NOT_UNDERSTOOD },
        { "1994-11-06T24:00:00Z", NOT_UNDERSTOOD },
        { "1994-11-06X08:49:38Z", NOT_UNDERSTOOD },
    };

    (void) state;

    assert_hints(hints, sizeof(hints) / sizeof(hint_t), RESET);
}


static void
a_reset_time_may_count_from_1970(void **state)
{
    static const int64_t now = 1760000000;

    (void) state;

    assert_int_equal(hint("1760000060", now, RESET), 60000);
    assert_int_equal(hint("1759999999", now, RESET), 0);
    assert_int_equal(hint("1760000060250", now, RESET), 60250);
    assert_int_equal(hint("1759999999999", now, RESET), 0);
    assert_int_equal(hint("99999999999", now, RESET), UINT32_MAX);
    assert_int_equal(hint("99999999999999999999999", now, RESET), UINT32_MAX);
    assert_int_equal(hint("1760000060.5", now, RESET), NOT_UNDERSTOOD);
    assert_int_equal(hint("1760000060", INT64_MAX, RESET), 0);
    assert_int_equal(hint("1760000060", INT64_MIN, RESET), UINT32_MAX);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seconds_and_fractions_are_understood),
        cmocka_unit_test(milliseconds_are_understood),
        cmocka_unit_test(a_huge_hint_is_cut_and_does_not_wrap_to_a_short_one),
        cmocka_unit_test(junk_is_no_hint),
        cmocka_unit_test(the_three_forms_of_a_date_are_understood),
        cmocka_unit_test(a_date_that_is_none_is_no_hint),
        cmocka_unit_test(a_year_of_two_digits_is_at_most_50_years_ahead),
        cmocka_unit_test(a_wrong_clock_does_no_harm),
        cmocka_unit_test(every_day_is_counted_right),
        cmocka_unit_test(durations_are_understood),
        cmocka_unit_test(reset_times_of_rate_limits_are_understood),
        cmocka_unit_test(a_reset_time_may_count_from_1970)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
