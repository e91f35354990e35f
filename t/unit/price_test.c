/*
 * Prices: how they are written, what tokens cost at them, exact to the last
 * digit, and how an amount is shown.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "llm_price.h"


#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define UNTOUCHED UINT64_C(0xa5a5a5a5a5a5a5a5)


/* Parses a copy that has no byte too many. */
static const char *
parse(const char *text, uint64_t *pico)
{
    size_t len;
    uint8_t *copy;
    const char *expected;

    len = strlen(text);
    copy = malloc(len);
    assert_true(copy != NULL || len == 0);

    if (len != 0) {
        memcpy(copy, text, len);
    }

    expected = llm_price_parse(copy, len, pico);
    free(copy);

    return expected;
}


static uint64_t
price_of(const char *text)
{
    uint64_t pico;

    pico = UNTOUCHED;
    assert_null(parse(text, &pico));

    return pico;
}


static void
assert_text(uint64_t pico, const char *expected)
{
    char buf[LLM_PRICE_TEXT + 1];

    memset(buf, 'x', sizeof(buf));
    assert_int_equal(llm_price_format(pico, buf), strlen(expected));
    assert_string_equal(buf, expected);
    assert_int_equal(buf[LLM_PRICE_TEXT], 'x');
}


static void
prices_are_read_as_providers_list_them(void **state)
{
    size_t i;

    static const struct {
        const char *text;
        uint64_t pico;
    } cases[] = {
        { "2.00", 2000000 },
        { "2", 2000000 },
        { "002.5", 2500000 },
        { "0.075", 75000 },
        { "0.28", 280000 },
        { "0", 0 },
        { "0.0", 0 },
        { "0.000001", 1 },
        { "0.123456", 123456 },
        { "150", 150000000 },
        { "999999.999999", UINT64_C(999999999999) },
        { "1000000", UINT64_C(1000000000000) },
        { "1000000.000000", UINT64_C(1000000000000) },
        { "0000000000000000000000000000001", 1000000 },
    };

    (void) state;

    for (i = 0; i < COUNT(cases); i++) {
        assert_int_equal(price_of(cases[i].text), cases[i].pico);
    }
}


static void
every_price_with_six_decimals_is_exact(void **state)
{
    char text[32];
    uint64_t i, pico;

    (void) state;

    for (i = 0; i < 2000000; i += 7) {
        snprintf(text, sizeof(text), "%llu.%06llu",
            (unsigned long long) (i / 1000000),
            (unsigned long long) (i % 1000000));

        assert_null(
            llm_price_parse((const uint8_t *) text, strlen(text), &pico));
        assert_int_equal(pico, i);
    }
}


static void
what_is_no_price_is_refused_with_what_is_expected(void **state)
{
    size_t i;
    char limit[32];
    uint64_t pico;
    const char *expected;

    static const struct {
        const char *text;
        const char *says;
    } cases[] = {
        { "", "decimal number" },
        { "-", "decimal number" },
        { ".", "decimal number" },
        { ".5", "decimal number" },
        { "5.", "decimal number" },
        { "$2", "decimal number" },
        { "+2", "decimal number" },
        { " 2", "decimal number" },
        { "2 ", "decimal number" },
        { "2,00", "decimal number" },
        { "2.00.0", "decimal number" },
        { "1e-3", "decimal number" },
        { "0x2", "decimal number" },
        { "free", "decimal number" },
        { "-free", "decimal number" },
        { "--1", "decimal number" },
        { "1.0000001x", "decimal number" },
        { "99999999999x", "decimal number" },
        { "-1", "0 or more" },
        { "-0.5", "0 or more" },
        { "0.0000001", "at most 6 decimals" },
        { "1.0000000", "at most 6 decimals" },
        { "1000000.000001", "at most 1000000" },
        { "1000001", "at most 1000000" },
        { "10000000", "at most 1000000" },
        { "18446744073709551616", "at most 1000000" },
        { "99999999999999999999999999999999999999.5", "at most 1000000" },
    };

    (void) state;

    for (i = 0; i < COUNT(cases); i++) {
        pico = UNTOUCHED;
        expected = parse(cases[i].text, &pico);

        assert_non_null(expected);
        assert_non_null(strstr(expected, cases[i].says));
        assert_int_equal(pico, UNTOUCHED);
    }

    /* the texts tell the limits as they are */

    snprintf(limit, sizeof(limit), "at most %d decimals", LLM_PRICE_DECIMALS);
    assert_string_equal(parse("0.0000001", &pico), limit);

    snprintf(limit, sizeof(limit), "at most %llu USD",
        (unsigned long long) LLM_PRICE_LARGEST);
    assert_non_null(strstr(parse("1000001", &pico), limit));
}


static void
an_answer_costs_what_the_provider_bills(void **state)
{
    llm_price_t price;

    (void) state;

    /* 1117 tokens in, 1024 of them from the cache, 46 out */

    llm_price_init(&price, price_of("2.50"), price_of("10.00"));

    assert_text(llm_price_cost(&price,
                    &(llm_usage_totals_t) { 1117, 0, 0, 46, 30 }),
        "0.0032525");
    assert_text(llm_price_cost(&price,
                    &(llm_usage_totals_t) { 1117, 1024, 0, 46, 30 }),
        "0.0032525");

    price.cached = price_of("1.25");

    assert_text(llm_price_cost(&price,
                    &(llm_usage_totals_t) { 1117, 1024, 0, 46, 30 }),
        "0.0019725");

    /* a message that writes 188 tokens to the cache and reads 2086 */

    llm_price_init(&price, price_of("3"), price_of("15"));
    price.cached = price_of("0.30");
    price.cache_write = price_of("3.75");

    assert_text(llm_price_cost(&price,
                    &(llm_usage_totals_t) { 2295, 2086, 188, 393, 0 }),
        "0.0072888");

    /* free, and nothing */

    assert_int_equal(llm_price_cost(&price,
                         &(llm_usage_totals_t) { 0, 0, 0, 0, 0 }),
        0);

    llm_price_init(&price, 0, 0);
    assert_int_equal(llm_price_cost(&price,
                         &(llm_usage_totals_t) { 9, 1, 1, 9, 0 }),
        0);
}


static uint64_t
cost_of(const llm_price_t *price, uint64_t input, uint64_t output)
{
    llm_usage_totals_t t = { .input = input, .output = output };

    return llm_price_cost(price, &t);
}


static void
a_million_tokens_cost_their_price(void **state)
{
    llm_price_t price;
    llm_usage_totals_t in, cached, cache_write, out;

    (void) state;

    memset(&in, 0, sizeof(in));
    in.input = 1000000;

    cached = in;
    cached.cached = 1000000;

    cache_write = in;
    cache_write.cache_write = 1000000;

    memset(&out, 0, sizeof(out));
    out.output = 1000000;

    llm_price_init(&price, price_of("0.28"), price_of("0.42"));

    assert_text(llm_price_cost(&price, &in), "0.28");
    assert_text(llm_price_cost(&price, &cached), "0.28");
    assert_text(llm_price_cost(&price, &cache_write), "0.28");
    assert_text(llm_price_cost(&price, &out), "0.42");

    price.cached = price_of("0.028");
    price.cache_write = price_of("0.35");

    assert_text(llm_price_cost(&price, &in), "0.28");
    assert_text(llm_price_cost(&price, &cached), "0.028");
    assert_text(llm_price_cost(&price, &cache_write), "0.35");
    assert_text(cost_of(&price, 1000000, 1000000), "0.7");
}


static void
a_sum_that_is_too_large_stays_the_largest(void **state)
{
    llm_price_t price;
    llm_usage_totals_t t;

    (void) state;

    llm_price_init(&price, price_of("1000000"), price_of("1000000"));

    memset(&t, 0, sizeof(t));
    t.input = LLM_USAGE_MAX;
    assert_int_equal(llm_price_cost(&price, &t), UINT64_MAX);

    t.cached = LLM_USAGE_MAX;
    assert_int_equal(llm_price_cost(&price, &t), UINT64_MAX);

    t.cached = 0;
    t.cache_write = LLM_USAGE_MAX;
    assert_int_equal(llm_price_cost(&price, &t), UINT64_MAX);

    memset(&t, 0, sizeof(t));
    t.output = UINT64_MAX;
    assert_int_equal(llm_price_cost(&price, &t), UINT64_MAX);

    assert_int_equal(cost_of(&price, UINT64_MAX, UINT64_MAX), UINT64_MAX);

    /* the last one that fits, and the first that does not */

    assert_int_equal(cost_of(&price, 18446744, 0),
        UINT64_C(18446744000000000000));
    assert_int_equal(cost_of(&price, 18446745, 0), UINT64_MAX);
    assert_int_equal(cost_of(&price, 9223372, 9223372),
        UINT64_C(18446744000000000000));
    assert_int_equal(cost_of(&price, 9223372, 9223373), UINT64_MAX);

    assert_int_equal(llm_price_add(UINT64_MAX - 1, 1), UINT64_MAX);
    assert_int_equal(llm_price_add(UINT64_MAX - 2, 1), UINT64_MAX - 1);
    assert_int_equal(llm_price_add(1, UINT64_MAX), UINT64_MAX);
}


static void
an_amount_is_shown_without_loss(void **state)
{
    int i;
    char buf[LLM_PRICE_TEXT], back[32];
    uint64_t amount, rnd;

    (void) state;

    assert_text(0, "0");
    assert_text(1, "0.000000000001");
    assert_text(LLM_PRICE_USD, "1");
    assert_text(LLM_PRICE_USD * 12, "12");
    assert_text(LLM_PRICE_USD * 100, "100");
    assert_text(LLM_PRICE_USD / 2, "0.5");
    assert_text(LLM_PRICE_USD / 10 * 15, "1.5");
    assert_text(UINT64_C(123000000), "0.000123");
    assert_text(LLM_PRICE_USD + 1, "1.000000000001");
    assert_text(LLM_PRICE_USD - 1, "0.999999999999");
    assert_text(UINT64_MAX, "18446744.073709551615");

    assert_int_equal(sizeof("18446744.073709551615"), LLM_PRICE_TEXT);

    /* with all twelve decimals it is the number itself */

    rnd = 1;

    for (i = 0; i < 10000; i++) {
        rnd ^= rnd << 13;
        rnd ^= rnd >> 7;
        rnd ^= rnd << 17;

        amount = rnd >> (i % 64);
        llm_price_format(amount, buf);

        snprintf(back, sizeof(back), "%s%s", buf,
            strchr(buf, '.') != NULL ? "" : ".");
        while (strlen(strchr(back, '.')) < 13) {
            strcat(back, "0");
        }

        memmove(strchr(back, '.'), strchr(back, '.') + 1, 13);
        assert_int_equal(strtoull(back, NULL, 10), amount);
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prices_are_read_as_providers_list_them),
        cmocka_unit_test(every_price_with_six_decimals_is_exact),
        cmocka_unit_test(what_is_no_price_is_refused_with_what_is_expected),
        cmocka_unit_test(an_answer_costs_what_the_provider_bills),
        cmocka_unit_test(a_million_tokens_cost_their_price),
        cmocka_unit_test(a_sum_that_is_too_large_stays_the_largest),
        cmocka_unit_test(an_amount_is_shown_without_loss),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
