/*
 * Histograms: percentiles against a sorted list, the conventions' buckets
 * against counting.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "llm_histogram.h"


#define VALUES 20000


static llm_histogram_t histogram;
static uint64_t values[VALUES];
static uint64_t seed = 1;


static uint64_t
draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;

    return seed;
}


static int
compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

    return x < y ? -1 : x > y;
}


static const llm_histogram_view_t *
read_it(void)
{
    static llm_histogram_view_t view;

    llm_histogram_view(&histogram, &view);

    return &view;
}


/* 0.1 ms to ten minutes, all magnitudes alike */
static void
fill(void)
{
    memset(&histogram, 0, sizeof(histogram));

    for (unsigned i = 0; i < VALUES; i++) {
        unsigned magnitude = draw() % 23;
        uint64_t us = 100
                      * ((UINT64_C(1) << magnitude)
                          + draw() % (UINT64_C(1) << magnitude));

        values[i] = us > 600000000 ? 600000000 : us;
        llm_histogram_add(&histogram, values[i]);
    }

    qsort(values, VALUES, sizeof(values[0]), compare);
}


static void
test_percentiles_are_within_five_percent(void **state)
{
    (void) state;

    for (unsigned round = 0; round < 20; round++) {
        const llm_histogram_view_t *view;

        fill();
        view = read_it();

        for (unsigned q = 1; q <= 1000; q++) {
            double is = (double)
                values[(VALUES * (uint64_t) q + 999) / 1000 - 1];
            double told = (double) llm_histogram_quantile(view, q);

            assert_true(told > is * 0.95 && told < is * 1.05);
        }
    }
}


static void
count_edges(const uint32_t *edge)
{
    for (; *edge != 0; edge++) {
        uint64_t n = 0;

        for (unsigned i = 0; i < VALUES; i++) {
            n += values[i] <= *edge;
        }

        assert_int_equal(llm_histogram_below(read_it(), *edge), n);
    }
}


static void
test_buckets_of_the_conventions_are_exact(void **state)
{
    const uint32_t *edge;

    (void) state;

    fill();

    /* and values that are edges themselves, or next to them */

    for (edge = llm_histogram_durations; *edge != 0; edge++) {
        for (unsigned i = 0; i < 3; i++) {
            unsigned at = draw() % VALUES;
            values[at] = *edge + i - 1;
        }
    }

    memset(&histogram, 0, sizeof(histogram));

    for (unsigned i = 0; i < VALUES; i++) {
        llm_histogram_add(&histogram, values[i]);
    }

    count_edges(llm_histogram_durations);
    count_edges(llm_histogram_first_tokens);
}


static void
test_the_sum_is_exact(void **state)
{
    uint64_t sum = 0;

    (void) state;

    fill();

    for (unsigned i = 0; i < VALUES; i++) {
        sum += values[i];
    }

    assert_int_equal(read_it()->sum, sum);
    assert_int_equal(llm_histogram_total(read_it()), VALUES);
}


static void
test_nothing_zero_and_endless(void **state)
{
    (void) state;

    memset(&histogram, 0, sizeof(histogram));
    assert_int_equal(llm_histogram_quantile(read_it(), 500), 0);
    assert_int_equal(llm_histogram_total(read_it()), 0);

    llm_histogram_add(&histogram, 0);
    assert_true(llm_histogram_quantile(read_it(), 500) <= 10);
    assert_int_equal(llm_histogram_below(read_it(), 1000), 1);

    memset(&histogram, 0, sizeof(histogram));
    llm_histogram_add(&histogram, UINT64_C(1) << 50);
    assert_int_equal(llm_histogram_quantile(read_it(), 1), 600000000);
    assert_int_equal(llm_histogram_quantile(read_it(), 1000), 600000000);
    assert_int_equal(llm_histogram_below(read_it(), 81920000), 0);
    assert_int_equal(llm_histogram_total(read_it()), 1);
}


static void
test_a_copy_tells_the_same(void **state)
{
    llm_histogram_t copy;

    (void) state;

    fill();
    memset(&copy, 0, sizeof(copy));
    llm_histogram_copy(&copy, &histogram);

    assert_memory_equal(&copy, &histogram, sizeof(copy));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentiles_are_within_five_percent),
        cmocka_unit_test(test_buckets_of_the_conventions_are_exact),
        cmocka_unit_test(test_the_sum_is_exact),
        cmocka_unit_test(test_nothing_zero_and_endless),
        cmocka_unit_test(test_a_copy_tells_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
