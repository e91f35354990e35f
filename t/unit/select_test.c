/*
 * The order in which providers are asked, by strategy.  Between processes:
 * select_processes_test.c.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "llm_select.h"


#define MANY 64
#define SLOTS 4
#define CASES 1000000
#define FAR 3      /* calls from a share, with up to four providers */
#define MIXED 2000 /* calls with two weights */


typedef struct {
    llm_candidate_t c[MANY];
    llm_turns_t turns[MANY];
    llm_latency_t latency[MANY];
    _Atomic uint32_t in_flight[MANY][SLOTS];
    uint8_t marks[MANY];
    llm_vtime_t vtime;
    llm_select_t s;
} route_t;


static route_t r;
static uint32_t now;
static uint64_t seed = 1;


static uint32_t
any(void)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;

    return (uint32_t) (seed >> 32);
}


static uint32_t
below(uint32_t n)
{
    return (uint32_t) ((uint64_t) any() * n >> 32);
}


static void
begin(void)
{
    memset(r.marks, LLM_SELECT_LEFT, sizeof(r.marks));
}


/* A fresh route; no weights: all have 1. */
static void
route(llm_strategy_t strategy, unsigned n, const uint32_t *weights)
{
    memset(&r, 0, sizeof(r));

    for (unsigned i = 0; i < n; i++) {
        r.c[i].weight = weights != NULL ? weights[i] : 1;
        r.c[i].turns = &r.turns[i];
        r.c[i].latency = &r.latency[i];
        r.c[i].in_flight = r.in_flight[i];
    }

    llm_select_prepare(r.c, n);

    r.s.strategy = strategy;
    r.s.candidates = r.c;
    r.s.marks = r.marks;
    r.s.n = n;
    r.s.slots = SLOTS;
    r.s.vtime = &r.vtime;
}


static int
next(void)
{
    return llm_select_next(&r.s, now, any());
}


static void
refuse(int i)
{
    r.marks[i] = LLM_SELECT_EXCLUDED;
}


/* of a request that is served by whom it asks first */
static int
first(void)
{
    begin();

    return next();
}


/* Who is asked first, request by request: "abc". */
static const char *
firsts(unsigned n)
{
    static char order[256];

    for (unsigned i = 0; i < n; i++) {
        order[i] = (char) ('a' + first());
    }

    order[n] = '\0';

    return order;
}


/* Who is asked by one request until nobody is left. */
static const char *
walk(void)
{
    static char order[MANY + 1];
    unsigned n = 0;
    int i;

    begin();

    while ((i = next()) != -1) {
        assert_in_range(i, 0, r.s.n - 1);
        assert_int_equal(r.marks[i], LLM_SELECT_TRIED);
        assert_true(n < r.s.n);
        order[n++] = (char) ('a' + i);
    }

    order[n] = '\0';

    return order;
}


static void
strategies_are_known_by_their_names(void **state)
{
    (void) state;

    for (int i = 0; i < LLM_STRATEGIES; i++) {
        const char *name = llm_strategy_name((llm_strategy_t) i);

        assert_int_equal(llm_strategy_by_name((const uint8_t *) name,
                             strlen(name)),
            i);
        assert_int_equal(llm_strategy_by_name((const uint8_t *) name,
                             strlen(name) - 1),
            -1);
    }

    assert_string_equal(llm_strategy_name(LLM_STRATEGY_LEAST_CONN),
        "least_conn");
    assert_int_equal(llm_strategy_by_name((const uint8_t *) "Cost", 4), -1);
    assert_int_equal(llm_strategy_by_name((const uint8_t *) "", 0), -1);
}


static void
everybody_is_asked_once_and_backups_last(void **state)
{
    (void) state;

    for (int strategy = 0; strategy < LLM_STRATEGIES; strategy++) {
        for (unsigned round = 0; round < 1000; round++) {
            const char *order;

            if (round % 10 == 0) {
                route((llm_strategy_t) strategy, 1 + below(20), NULL);

                for (unsigned i = 0; i < r.s.n; i++) {
                    r.c[i].backup = below(3) == 0;
                }
            }

            order = walk();
            assert_int_equal(strlen(order), r.s.n);

            for (unsigned i = 0; i < r.s.n; i++) {
                assert_non_null(strchr(order, (int) ('a' + i)));

                if (i > 0 && r.c[order[i - 1] - 'a'].backup) {
                    assert_true(r.c[order[i] - 'a'].backup);
                }
            }
        }
    }
}


static void
nobody_is_chosen_where_nobody_is_left(void **state)
{
    (void) state;

    for (int strategy = 0; strategy < LLM_STRATEGIES; strategy++) {
        route((llm_strategy_t) strategy, 5, NULL);
        r.c[3].backup = true;

        memset(r.marks, LLM_SELECT_EXCLUDED, sizeof(r.marks));
        assert_int_equal(next(), -1);

        r.marks[2] = LLM_SELECT_LEFT;
        assert_int_equal(next(), 2);
        assert_int_equal(next(), -1);

        route((llm_strategy_t) strategy, 0, NULL);
        assert_int_equal(next(), -1);
    }
}


static void
priority_is_the_order_of_the_configuration(void **state)
{
    (void) state;

    route(LLM_STRATEGY_PRIORITY, 4, NULL);
    assert_string_equal(walk(), "abcd");
    assert_string_equal(firsts(3), "aaa");

    r.c[0].backup = true;
    r.c[2].backup = true;
    assert_string_equal(walk(), "bdac");
}


/* ---- turns ---- */


static void
turns_are_spread_evenly(void **state)
{
    static const struct {
        uint32_t weights[4];
        unsigned n;
        const char *order;
    } routes[] = {
        { { 3, 1, 1 }, 3,
            "aabac"
            "aabac" },
        { { 1, 3 }, 2,
            "babb"
            "babb" },
        { { 5, 1, 1 }, 3,
            "aaabaac"
            "aaabaac" },
        { { 2, 2, 2 }, 3,
            "abcabc"
            "abcabc" },
        { { 4, 2, 1, 1 }, 4,
            "abaacbad"
            "abaacbad" },
        { { 7 }, 1,
            "aaaaaaa"
            "aaaaaaa" },
    };

    (void) state;

    for (unsigned i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        route(LLM_STRATEGY_WEIGHTED, routes[i].n, routes[i].weights);
        assert_string_equal(firsts((unsigned) strlen(routes[i].order)),
            routes[i].order);
    }
}


static void
round_robin_goes_round_whatever_the_weights(void **state)
{
    static const uint32_t weights[] = { 10, 1, 3, 2 };

    (void) state;

    route(LLM_STRATEGY_ROUND_ROBIN, 4, weights);
    assert_string_equal(firsts(12), "abcdabcdabcd");
}


static uint32_t
random_weights(uint32_t *weights, unsigned n)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < n; i++) {
        weights[i] = 1 + below(1 + below(40));
        sum += weights[i];
    }

    return sum;
}


/* The next sum requests are shared exactly. */
static void
assert_shares(const uint32_t *weights, unsigned n, uint32_t sum)
{
    uint32_t counts[MANY] = { 0 };

    for (uint32_t i = 0; i < sum; i++) {
        counts[first()]++;
    }

    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(counts[i], weights[i]);
    }
}


static void
shares_are_exact_in_every_window_of_a_round(void **state)
{
    (void) state;

    for (unsigned i = 0; i < 300; i++) {
        uint32_t weights[MANY];
        unsigned n = 1 + below(12);
        uint32_t sum = random_weights(weights, n);

        route(LLM_STRATEGY_WEIGHTED, n, weights);

        for (unsigned round = 0; round < 10; round++) {
            assert_shares(weights, n, sum);
        }

        for (uint32_t shift = below(sum); shift > 0; shift--) {
            (void) first();
        }

        assert_shares(weights, n, sum);
    }
}


static void
shares_never_drift(void **state)
{
    static const uint32_t weights[] = { 7, 3, 11 };
    uint32_t counts[3] = { 0 };

    (void) state;

    route(LLM_STRATEGY_WEIGHTED, 3, weights);

    for (unsigned i = 0; i < 21 * 500000; i++) {
        counts[first()]++;
    }

    assert_int_equal(counts[0], 7 * 500000);
    assert_int_equal(counts[1], 3 * 500000);
    assert_int_equal(counts[2], 11 * 500000);
}


static void
shares_are_exact_with_the_largest_weights(void **state)
{
    static const uint32_t weights[] = { 1, LLM_WEIGHT_MAX, 999983, 2 };

    (void) state;

    route(LLM_STRATEGY_WEIGHTED, 4, weights);

    assert_shares(weights, 4, 1 + LLM_WEIGHT_MAX + 999983 + 2);
    assert_shares(weights, 4, 1 + LLM_WEIGHT_MAX + 999983 + 2);
}


static void
nobody_is_far_from_its_share_at_any_moment(void **state)
{
    double worst = 0;

    (void) state;

    for (unsigned i = 0; i < 1000; i++) {
        uint32_t weights[MANY], counts[MANY] = { 0 };
        unsigned n = 1 + below(12);
        uint32_t sum = random_weights(weights, n);

        route(LLM_STRATEGY_WEIGHTED, n, weights);

        for (uint32_t t = 1; t <= sum; t++) {
            counts[first()]++;

            for (unsigned j = 0; j < n; j++) {
                double off = counts[j] - (double) t * weights[j] / sum;

                off = off < 0 ? -off : off;
                worst = off > worst ? off : worst;
            }
        }
    }

    assert_true(worst < 2);
}


/* The same requests, while some providers are not there. */
static void
count_without(uint32_t gone, unsigned requests, uint32_t *counts)
{
    memset(counts, 0, MANY * sizeof(*counts));

    for (unsigned i = 0; i < requests; i++) {
        begin();

        for (unsigned j = 0; j < r.s.n; j++) {
            if (gone & 1u << j) {
                r.marks[j] = LLM_SELECT_EXCLUDED;
            }
        }

        counts[next()]++;
    }
}


/* They are there, but refuse. */
static void
count_refused(uint32_t refusing, unsigned requests, uint32_t *counts)
{
    memset(counts, 0, MANY * sizeof(*counts));

    for (unsigned i = 0; i < requests; i++) {
        int j;

        begin();

        while ((j = next()) != -1 && (refusing & 1u << j)) {
            refuse(j);
        }

        if (j != -1) {
            counts[j]++;
        }
    }
}


/* Within 1 % of its share, or a turn. */
static void
assert_share(uint32_t count, uint32_t weight, uint32_t sum, unsigned requests)
{
    double want = (double) requests * weight / sum;
    double off = count - want;

    off = off < 0 ? -off : off;

    if (off > 1.5 && off > want / 100) {
        fail_msg("%u requests, not %.1f", count, want);
    }
}


static void
who_is_away_leaves_its_turns_and_comes_back_to_its_share(void **state)
{
    static const uint32_t weights[] = { 10, 3, 2 };
    uint32_t counts[MANY];

    (void) state;

    route(LLM_STRATEGY_WEIGHTED, 3, weights);

    assert_shares(weights, 3, 15);

    count_without(1, 100000, counts);
    assert_int_equal(counts[1], 60000);
    assert_int_equal(counts[2], 40000);

    count_without(0, 15, counts);
    assert_in_range(counts[0], 9, 11);
    assert_in_range(counts[1], 2, 4);
    assert_in_range(counts[2], 1, 3);

    assert_shares(weights, 3, 15);
    assert_shares(weights, 3, 15);
}


static void
a_refusal_costs_only_who_refuses(void **state)
{
    static const uint32_t weights[] = { 10, 3, 2 };
    uint32_t counts[MANY];

    (void) state;

    for (uint32_t refusing = 1; refusing < 7; refusing++) {
        uint32_t sum = 0;

        route(LLM_STRATEGY_WEIGHTED, 3, weights);
        (void) firsts(below(15));

        count_refused(refusing, 30000, counts);

        for (unsigned i = 0; i < 3; i++) {
            sum += refusing & 1u << i ? 0 : weights[i];
        }

        for (unsigned i = 0; i < 3; i++) {
            if (refusing & 1u << i) {
                assert_int_equal(counts[i], 0);
            } else {
                assert_share(counts[i], weights[i], sum, 30000);
            }
        }

        /* and then it does not any more */
        count_refused(0, 15, counts);

        for (unsigned i = 0; i < 3; i++) {
            assert_in_range(counts[i], weights[i] - 1, weights[i] + 1);
        }

        assert_shares(weights, 3, 15);
    }
}


static void
an_outage_of_all_leaves_nothing_behind(void **state)
{
    static const uint32_t weights[] = { 10, 3, 2 };
    uint32_t counts[MANY];

    (void) state;

    route(LLM_STRATEGY_WEIGHTED, 3, weights);
    count_refused(7, 10000, counts);
    count_refused(0, 15, counts);

    for (unsigned i = 0; i < 3; i++) {
        assert_in_range(counts[i], weights[i] - 1, weights[i] + 1);
    }

    for (unsigned i = 0; i < 10000; i++) {
        (void) walk();
    }

    assert_shares(weights, 3, 15);
}


static void
who_refuses_now_and_then_takes_nothing_from_others(void **state)
{
    static const uint32_t weights[] = { 20, 6, 4, 10 };
    uint32_t counts[MANY] = { 0 };
    unsigned requests = 0;

    (void) state;

    route(LLM_STRATEGY_WEIGHTED, 4, weights);

    for (unsigned i = 0; i < 100000; i++) {
        int j;

        begin();

        while ((j = next()) == 0 && below(2) == 0) {
            refuse(0);
        }

        counts[j]++;
        requests += j != 0;
    }

    for (unsigned i = 1; i < 4; i++) {
        assert_share(counts[i], weights[i], 20, requests);
    }
}


static void
failovers_are_shared_by_weight_and_cost_no_turn(void **state)
{
    static const uint32_t weights[] = { 10, 3, 2, 1 };
    uint32_t counts[MANY] = { 0 }, failovers[MANY] = { 0 };

    (void) state;

    route(LLM_STRATEGY_WEIGHTED, 4, weights);

    for (unsigned i = 0; i < 16 * 3000; i++) {
        int j = first();

        counts[j]++;

        if (j == 0) {
            failovers[next()]++;
        }
    }

    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(counts[i], weights[i] * 3000);
    }

    assert_int_equal(failovers[0], 0);
    assert_int_equal(failovers[1], 15000);
    assert_int_equal(failovers[2], 10000);
    assert_int_equal(failovers[3], 5000);

    /* and a refusal there is settled there */
    for (unsigned i = 0; i < 6000; i++) {
        int j;

        begin();
        r.marks[0] = LLM_SELECT_TRIED;

        j = next();

        if (j == 1) {
            refuse(1);
            j = next();
        }

        counts[j]++;
    }

    assert_int_equal(counts[2], 6000 + 4000);
    assert_int_equal(counts[3], 3000 + 2000);
    assert_shares(weights, 4, 16);
}


static void
who_serves_few_requests_gets_its_share_of_them(void **state)
{
    static const uint32_t weights[] = { 30, 10, 20 };
    uint32_t counts[MANY] = { 0 };

    (void) state;

    route(LLM_STRATEGY_WEIGHTED, 3, weights);

    for (unsigned i = 0; i < 400000; i++) {
        bool rare = below(20) == 0;
        int j;

        begin();
        r.marks[rare ? 2 : 1] = LLM_SELECT_EXCLUDED;
        j = next();

        if (rare) {
            counts[j]++;
        }
    }

    /* how its slots meet the others' is by chance */
    assert_in_range(counts[1], (counts[0] + counts[1]) * 37 / 100,
        (counts[0] + counts[1]) * 43 / 100);
}


static void
backups_share_by_weight_and_cost_no_turn(void **state)
{
    static const uint32_t weights[] = { 2, 4, 3, 1 };
    uint32_t counts[MANY];

    (void) state;

    route(LLM_STRATEGY_WEIGHTED, 4, weights);
    r.c[1].backup = true;
    r.c[3].backup = true;

    assert_string_equal(firsts(5), "accac");

    for (unsigned i = 0; i < 100; i++) {
        count_refused(5, 5, counts);
        assert_int_equal(counts[1], 4);
        assert_int_equal(counts[3], 1);

        count_refused(0, 5, counts);
        assert_int_equal(counts[0], 2);
        assert_int_equal(counts[2], 3);
    }
}


/* The same turns, with weights of their own from now on. */
static void
reweigh(unsigned n, const uint32_t *weights)
{
    llm_vtime_t vtime = r.vtime;
    llm_turns_t turns[MANY];

    memcpy(turns, r.turns, sizeof(turns));
    route(LLM_STRATEGY_WEIGHTED, n, weights);
    memcpy(r.turns, turns, sizeof(turns));
    r.vtime = vtime;
}


static void
weights_may_change_at_any_moment(void **state)
{
    (void) state;

    route(LLM_STRATEGY_WEIGHTED, 1, NULL);

    for (unsigned i = 0; i < 2000; i++) {
        uint32_t weights[MANY];
        unsigned n = 1 + below(8);
        uint32_t sum = random_weights(weights, n);

        reweigh(n, weights);
        assert_shares(weights, n, sum);

        for (uint32_t j = below(sum); j > 0; j--) {
            (void) first();
        }
    }
}


/* From the next call on nobody is far from its share, in any count. */
static void
assert_at_once(unsigned n, const uint32_t *weights, uint32_t calls)
{
    uint32_t counts[MANY] = { 0 };
    double sum = 0;

    for (unsigned i = 0; i < n; i++) {
        sum += weights[i];
    }

    for (uint32_t call = 1; call <= calls; call++) {
        counts[first()]++;

        for (unsigned i = 0; i < n; i++) {
            double off = counts[i] - call * weights[i] / sum;

            if (off < -FAR || off > FAR) {
                fail_msg("%u of %u calls with weight %u of %.0f", counts[i],
                    call, weights[i], sum);
            }
        }
    }
}


static void
shares_are_right_from_the_first_call_after_a_change(void **state)
{
    static const uint32_t factors[] = { 1, 2, 3, 7, 10, 99, 1000, 65537, 500000,
        LLM_WEIGHT_MAX };

    (void) state;
    route(LLM_STRATEGY_WEIGHTED, 4, NULL);

    for (unsigned i = 0; i < 5000; i++) {
        uint32_t weights[4];
        unsigned n = 2 + below(3);

        for (unsigned j = 0; j < n; j++) {
            weights[j] = factors[below(sizeof(factors) / sizeof(*factors))];
        }

        reweigh(n, weights);
        assert_at_once(n, weights, below(500));
    }
}


/* All weights by one factor, up and down, are the same shares. */
static void
shares_go_on_when_all_weights_grow_or_shrink(void **state)
{
    (void) state;
    route(LLM_STRATEGY_WEIGHTED, 3, NULL);

    for (uint32_t factor = 1; factor <= LLM_WEIGHT_MAX / 5; factor *= 3) {
        uint32_t small[] = { 5, 3, 2 };
        uint32_t large[] = { 5 * factor, 3 * factor, 2 * factor };

        for (unsigned i = 0; i < 300; i++) {
            reweigh(3, i % 2 ? small : large);
            assert_at_once(3, small, below(300));
        }
    }
}


/*
 * In a reload old and new processes serve side by side.  Whose two shares are
 * 1 % or more gets at least half of the smaller, and not much more than the
 * larger; once the old ones are gone its share is right at once.
 */
static void
nobody_starves_while_two_weights_are_in_force(void **state)
{
    (void) state;

    for (unsigned i = 0; i < 300; i++) {
        uint32_t weights[2][4], counts[4] = { 0 };
        double sums[2] = { 0 };
        unsigned n = 2 + below(3), old = 1 + below(9);

        for (unsigned j = 0; j < n; j++) {
            for (unsigned k = 0; k < 2; k++) {
                weights[k][j] = 1 + below(1U << below(20));
                sums[k] += weights[k][j];
            }
        }

        route(LLM_STRATEGY_WEIGHTED, n, weights[0]);
        assert_at_once(n, weights[0], below(500));

        for (unsigned call = 0; call < MIXED; call++) {
            reweigh(n, weights[below(10) >= old]);
            counts[first()]++;
        }

        for (unsigned j = 0; j < n; j++) {
            double a = MIXED * weights[0][j] / sums[0];
            double b = MIXED * weights[1][j] / sums[1];
            double low = a < b ? a : b, high = a < b ? b : a;

            if (low >= MIXED / 100
                && (counts[j] < low / 2 || counts[j] > high * 1.5)) {
                fail_msg("%u of %u calls, not %.0f to %.0f", counts[j], MIXED,
                    low, high);
            }
        }

        reweigh(n, weights[1]);
        assert_at_once(n, weights[1], 500);
    }
}


static void
shared_words_may_hold_anything(void **state)
{
    (void) state;

    for (unsigned i = 0; i < 5000; i++) {
        uint32_t weights[MANY];
        unsigned n = 1 + below(8);
        uint32_t sum = random_weights(weights, n);
        llm_strategy_t strategy = LLM_STRATEGY_WEIGHTED;

        if (below(2)) {
            strategy = LLM_STRATEGY_ROUND_ROBIN;
            sum = n;
        }

        route(strategy, n, weights);

        for (unsigned j = 0; j < n; j++) {
            for (unsigned k = 0; k < 4; k++) {
                r.turns[j].taken[k] = (uint64_t) any() << 32 | any();
            }

            weights[j] = strategy == LLM_STRATEGY_WEIGHTED ? weights[j] : 1;
        }

        for (unsigned k = 0; k < 8; k++) {
            r.vtime.now[k] = (uint64_t) any() << 32 | any();
        }

        for (uint32_t j = 0; j < 3 * sum; j++) {
            (void) first();
        }

        assert_shares(weights, n, sum);
        assert_int_equal(strlen(walk()), n);
    }
}


static void
the_wrap_is_a_moment_like_any_other(void **state)
{
    static const uint32_t weights[] = { 5, 1, 3 };

    (void) state;

    route(LLM_STRATEGY_WEIGHTED, 3, weights);

    for (unsigned k = 0; k < 8; k++) {
        r.vtime.now[k] = -(UINT64_C(10) << 44);
    }

    for (unsigned i = 0; i < 20; i++) {
        assert_shares(weights, 3, 9);
    }

    assert_in_range(r.vtime.now[4], UINT64_C(9) << 44, UINT64_C(10) << 44);
}


/* ---- least_conn ---- */


static void
the_least_busy_for_its_weight_is_asked(void **state)
{
    static const uint32_t weights[] = { 1, 2, 10 };

    (void) state;

    route(LLM_STRATEGY_LEAST_CONN, 3, weights);

    r.in_flight[0][0] = 1;
    r.in_flight[1][0] = 1;
    r.in_flight[2][0] = 3;
    r.in_flight[2][SLOTS - 1] = 3;

    assert_string_equal(walk(), "bca");

    r.in_flight[2][1] = 5;
    assert_string_equal(walk(), "bac");

    for (unsigned i = 0; i < SLOTS; i++) {
        r.in_flight[1][i] = UINT32_MAX;
        r.in_flight[2][i] = UINT32_MAX;
    }

    r.c[1].weight = LLM_WEIGHT_MAX - 1;
    r.c[2].weight = LLM_WEIGHT_MAX;
    llm_select_prepare(r.c, 3);
    assert_string_equal(walk(), "acb");
}


static void
ties_are_drawn_by_lot(void **state)
{
    static const uint32_t weights[] = { 1, 1, 5, 3 };
    uint32_t counts[MANY] = { 0 };

    (void) state;

    route(LLM_STRATEGY_LEAST_CONN, 4, weights);
    r.in_flight[1][2] = 1;

    for (unsigned i = 0; i < 900000; i++) {
        counts[first()]++;
    }

    assert_int_equal(counts[1], 0);
    assert_share(counts[0], 1, 9, 900000);
    assert_share(counts[2], 5, 9, 900000);
    assert_share(counts[3], 3, 9, 900000);
}


/* ---- cost ---- */


static void
price(unsigned i, uint64_t input, uint64_t output)
{
    r.c[i].price_input = input;
    r.c[i].price_output = output;
}


static void
the_cheapest_for_this_request_is_asked(void **state)
{
    (void) state;

    route(LLM_STRATEGY_COST, 3, NULL);
    price(0, 5, 10);
    price(1, 1, 20);
    price(2, 3, 15);

    r.s.input_tokens = 100;
    r.s.output_tokens = 1000;
    assert_string_equal(walk(), "acb");

    r.s.input_tokens = 10000;
    assert_string_equal(walk(), "bca");

    r.s.input_tokens = 0;
    r.s.output_tokens = 0;
    assert_string_equal(walk(), "abc");
}


static void
who_is_within_the_budget_comes_first(void **state)
{
    (void) state;

    route(LLM_STRATEGY_COST, 4, NULL);
    price(0, 1, 100);
    price(1, 9, 20);
    price(2, 9, 10);
    price(3, 0, 0);
    r.c[3].backup = true;

    r.s.input_tokens = 1000;
    r.s.output_tokens = 1;
    assert_string_equal(walk(), "acbd");

    r.s.budget = 20;
    assert_string_equal(walk(), "cbad");

    r.s.budget = 19;
    assert_string_equal(walk(), "cabd");

    r.s.budget = 9; /* none fits, so the cheapest */
    assert_string_equal(walk(), "acbd");
}


static void
no_price_is_too_high(void **state)
{
    (void) state;

    route(LLM_STRATEGY_COST, 3, NULL);
    price(0, UINT64_MAX, UINT64_MAX);
    price(1, UINT64_MAX - 1, 1);
    price(2, UINT64_MAX, 0);

    r.s.input_tokens = UINT64_MAX;
    r.s.output_tokens = UINT64_MAX;
    assert_string_equal(walk(), "abc");

    r.s.input_tokens = 1;
    r.s.output_tokens = 0;
    assert_string_equal(walk(), "bac");
}


/* ---- least_latency ---- */


static void
succeed(unsigned i, uint64_t us)
{
    llm_latency_success(&r.latency[i], us, now);
}


static void
the_fastest_is_asked(void **state)
{
    (void) state;

    now = 5000;
    route(LLM_STRATEGY_LEAST_LATENCY, 4, NULL);

    succeed(0, 300);
    succeed(1, 100);
    succeed(2, 100);
    succeed(3, 50);

    assert_string_equal(walk(), "dbca");
    r.c[3].backup = true;
    assert_string_equal(walk(), "bcad");

    llm_latency_failure(&r.latency[1], now);
    llm_latency_failure(&r.latency[2], now);
    llm_latency_failure(&r.latency[2], now);
    assert_string_equal(walk(), "bacd");
}


static void
an_unknown_provider_is_asked_once_a_second_until_it_works(void **state)
{
    unsigned asked = 0;

    (void) state;

    now = (uint32_t) -3000;
    route(LLM_STRATEGY_LEAST_LATENCY, 3, NULL);

    succeed(0, 100);
    succeed(2, 200);

    for (unsigned ms = 0; ms < 10000; ms += 10, now += 10) {
        int i = first();

        if (i == 1) {
            asked++;
            llm_latency_failure(&r.latency[1], now);
        } else {
            assert_int_equal(i, 0);
        }
    }

    assert_int_equal(asked, 10);

    assert_int_equal(first(), 1);
    succeed(1, 50);
    assert_string_equal(firsts(3), "bbb");
}


static void
a_slow_one_is_asked_again_when_its_figure_is_old(void **state)
{
    unsigned asked = 0;

    (void) state;

    now = 77000;
    route(LLM_STRATEGY_LEAST_LATENCY, 2, NULL);

    succeed(0, 100);
    succeed(1, 200);

    for (unsigned ms = 0; ms < 600000; ms += 100, now += 100) {
        int i = first();

        asked += i == 1;
        succeed((unsigned) i, i == 1 ? 200 : 100);
    }

    assert_int_equal(asked, 9);

    now += LLM_LATENCY_OLD;
    succeed(0, 100);
    assert_int_equal(first(), 1);
    succeed(1, 20);
    assert_int_equal(first(), 1);
}


static void
a_request_that_failed_is_not_used_to_explore(void **state)
{
    (void) state;

    now = 1000000;
    route(LLM_STRATEGY_LEAST_LATENCY, 4, NULL);

    succeed(0, 100);
    succeed(2, 300);
    now += LLM_LATENCY_OLD - 1;
    succeed(3, 200);

    begin();
    r.marks[3] = LLM_SELECT_TRIED;
    assert_int_equal(next(), 0);
    assert_int_equal(next(), 2);
    assert_int_equal(next(), 1);

    now++;

    /* unknown, then old, in their order; a refusal is no failure */
    begin();
    assert_int_equal(next(), 1);
    refuse(1);
    assert_int_equal(next(), 0);
    refuse(0);
    assert_int_equal(next(), 2);
    refuse(2);
    assert_int_equal(next(), 3);
    assert_int_equal(first(), 0);
}


static void
who_fails_half_of_its_calls_does_not_look_the_fastest(void **state)
{
    unsigned asked = 0;

    (void) state;

    now = 0;
    route(LLM_STRATEGY_LEAST_LATENCY, 2, NULL);

    for (unsigned i = 0; i < 100000; i++, now += 10) {
        if (first() == 1) {
            succeed(1, 500000);
            continue;
        }

        asked++;

        if (below(2) == 0) {
            succeed(0, 1000);
        } else {
            llm_latency_failure(&r.latency[0], now);
        }
    }

    assert_true(asked < 1000);
}


/* ---- against what is naive ---- */


typedef struct {
    unsigned i;
    bool backup;
    bool beyond;
    uint64_t price;
} plain_t;


static int
plain_order(const void *a, const void *b)
{
    const plain_t *x = a;
    const plain_t *y = b;

    if (x->backup != y->backup) {
        return x->backup - y->backup;
    }

    if (x->beyond != y->beyond) {
        return x->beyond - y->beyond;
    }

    if (x->price != y->price) {
        return x->price < y->price ? -1 : 1;
    }

    return (int) x->i - (int) y->i;
}


static uint64_t
any_price(void)
{
    return below(20) == 0 ? (uint64_t) any() << 32 | any() : below(4);
}


static uint64_t
plain_price(const llm_candidate_t *c)
{
    long double exact = (long double) r.s.input_tokens * c->price_input
                        + (long double) r.s.output_tokens * c->price_output;

    return exact > (long double) UINT64_MAX
               ? UINT64_MAX
               : r.s.input_tokens * c->price_input
                     + r.s.output_tokens * c->price_output;
}


static void
priority_and_cost_are_as_if_sorted(void **state)
{
    (void) state;

    route(LLM_STRATEGY_COST, 8, NULL);

    for (unsigned round = 0; round < CASES; round++) {
        bool cost = below(2) == 0;
        plain_t plain[8];
        unsigned n = 0;

        r.s.strategy = cost ? LLM_STRATEGY_COST : LLM_STRATEGY_PRIORITY;
        r.s.n = 1 + below(8);
        r.s.input_tokens = any_price();
        r.s.output_tokens = any_price();
        r.s.budget = any_price();
        begin();

        for (unsigned i = 0; i < r.s.n; i++) {
            price(i, any_price(), any_price());
            r.c[i].backup = below(3) == 0;

            if (below(5) == 0) {
                r.marks[i] = LLM_SELECT_EXCLUDED;
                continue;
            }

            plain[n++] = (plain_t) {
                .i = i,
                .backup = r.c[i].backup,
                .beyond = cost && r.s.budget
                          && r.c[i].price_output > r.s.budget,
                .price = cost ? plain_price(&r.c[i]) : 0,
            };
        }

        qsort(plain, n, sizeof(plain_t), plain_order);

        for (unsigned i = 0; i < n; i++) {
            int j = next();

            assert_int_equal(j, plain[i].i);

            if (below(2) == 0) {
                refuse(j);
            }
        }

        assert_int_equal(next(), -1);
    }
}


static void
least_conn_is_always_a_least_one(void **state)
{
    (void) state;

    route(LLM_STRATEGY_LEAST_CONN, 8, NULL);

    for (unsigned round = 0; round < CASES; round++) {
        uint64_t busy[8];
        int i;

        r.s.n = 1 + below(8);
        begin();

        for (unsigned j = 0; j < r.s.n; j++) {
            busy[j] = 0;

            for (unsigned k = 0; k < SLOTS; k++) {
                uint32_t in_flight = below(100) == 0 ? any() : below(3);

                r.in_flight[j][k] = in_flight;
                busy[j] += in_flight;
            }

            r.c[j].weight = 1 + below(below(10) == 0 ? LLM_WEIGHT_MAX : 3);
            r.c[j].backup = below(3) == 0;
            r.marks[j] = below(5) == 0 ? LLM_SELECT_EXCLUDED : LLM_SELECT_LEFT;
        }

        for (;;) {
            uint8_t before[8];

            memcpy(before, r.marks, sizeof(before));
            i = next();

            for (unsigned j = 0; j < r.s.n; j++) {
                if (before[j] != LLM_SELECT_LEFT) {
                    assert_int_not_equal(i, j);
                    continue;
                }

                assert_int_not_equal(i, -1);

                if (r.c[j].backup != r.c[i].backup) {
                    assert_true(r.c[j].backup);
                    continue;
                }

                assert_true((unsigned __int128) busy[i] * r.c[j].weight
                            <= (unsigned __int128) busy[j] * r.c[i].weight);
            }

            if (i == -1) {
                break;
            }
        }
    }
}


/* what a naive reader of llm_latency.h and llm_select.h keeps */
typedef struct {
    bool known;
    bool explored;
    uint64_t us;
    uint64_t news; /* ms, never wraps */
    uint64_t exploration;
} known_t;


static uint64_t
known_due(const known_t *k, uint64_t ms)
{
    uint64_t last = k->known ? k->news : 0;

    if (k->explored && k->exploration > last) {
        last = k->exploration;
    }

    if (!k->known) {
        return !k->explored || ms - last >= LLM_LATENCY_EXPLORE ? UINT64_MAX
                                                                : 0;
    }

    return ms - last >= LLM_LATENCY_OLD ? ms - last : 0;
}


static int
known_next(known_t *known, uint64_t ms)
{
    int best = -1, due = -1;
    bool backup = true, failed = false;

    for (unsigned i = 0; i < r.s.n; i++) {
        backup = backup && (r.marks[i] != LLM_SELECT_LEFT || r.c[i].backup);
        failed = failed || r.marks[i] == LLM_SELECT_TRIED;
    }

    for (unsigned i = 0; i < r.s.n; i++) {
        const known_t *k = &known[i];

        if (r.marks[i] != LLM_SELECT_LEFT || r.c[i].backup != backup) {
            continue;
        }

        if (best == -1 || (k->known && !known[best].known)
            || (k->known && k->us < known[best].us))
        {
            best = (int) i;
        }

        if (known_due(k, ms) > 0
            && (due == -1 || known_due(k, ms) > known_due(&known[due], ms)))
        {
            due = (int) i;
        }
    }

    if (failed || due == -1) {
        return best;
    }

    known[due].explored = true;
    known[due].exploration = ms;

    return due;
}


static void
known_news(known_t *k, bool success, uint64_t us, uint64_t ms)
{
    if (!success && !k->known) {
        return;
    }

    if (!success) {
        k->us *= 2;

    } else if (!k->known || ms - k->news >= LLM_LATENCY_OLD) {
        k->us = us;

    } else {
        k->us = (7 * k->us + 3 * us + 5) / 10;
    }

    if (k->us > LLM_LATENCY_MAX) {
        k->us = LLM_LATENCY_MAX;
    }

    k->known = true;
    k->news = ms;
}


static void
least_latency_is_as_its_rules_say(void **state)
{
    known_t known[6];
    uint64_t ms = 0;

    (void) state;

    for (unsigned round = 0; round < CASES; round++) {
        int i;

        if (round % 1000 == 0) {
            memset(known, 0, sizeof(known));
            route(LLM_STRATEGY_LEAST_LATENCY, 1 + below(6), NULL);

            for (unsigned j = 0; j < r.s.n; j++) {
                r.c[j].backup = below(3) == 0;
            }
        }

        ms += below(below(20) == 0 ? 100000 : 500);
        now = (uint32_t) ms;
        begin();

        for (unsigned j = 0; j < r.s.n; j++) {
            r.marks[j] = below(5) == 0 ? LLM_SELECT_EXCLUDED : LLM_SELECT_LEFT;
        }

        do {
            int want = known_next(known, ms);

            i = next();
            assert_int_equal(i, want);

            if (i == -1) {
                break;
            }

            switch (below(4)) {

            case 0:
                refuse(i);
                break;

            case 1:
                llm_latency_failure(&r.latency[i], now);
                known_news(&known[i], false, 0, ms);
                break;

            default:
                known_news(&known[i], true, 1 + (uint64_t) i, ms);
                succeed((unsigned) i, 1 + (uint64_t) i);
            }

        } while (below(4) != 0);
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strategies_are_known_by_their_names),
        cmocka_unit_test(everybody_is_asked_once_and_backups_last),
        cmocka_unit_test(nobody_is_chosen_where_nobody_is_left),
        cmocka_unit_test(priority_is_the_order_of_the_configuration),
        cmocka_unit_test(turns_are_spread_evenly),
        cmocka_unit_test(round_robin_goes_round_whatever_the_weights),
        cmocka_unit_test(shares_are_exact_in_every_window_of_a_round),
        cmocka_unit_test(shares_never_drift),
        cmocka_unit_test(shares_are_exact_with_the_largest_weights),
        cmocka_unit_test(nobody_is_far_from_its_share_at_any_moment),
        cmocka_unit_test(
            who_is_away_leaves_its_turns_and_comes_back_to_its_share),
        cmocka_unit_test(a_refusal_costs_only_who_refuses),
        cmocka_unit_test(an_outage_of_all_leaves_nothing_behind),
        cmocka_unit_test(who_refuses_now_and_then_takes_nothing_from_others),
        cmocka_unit_test(failovers_are_shared_by_weight_and_cost_no_turn),
        cmocka_unit_test(who_serves_few_requests_gets_its_share_of_them),
        cmocka_unit_test(backups_share_by_weight_and_cost_no_turn),
        cmocka_unit_test(weights_may_change_at_any_moment),
        cmocka_unit_test(shares_are_right_from_the_first_call_after_a_change),
        cmocka_unit_test(shares_go_on_when_all_weights_grow_or_shrink),
        cmocka_unit_test(nobody_starves_while_two_weights_are_in_force),
        cmocka_unit_test(shared_words_may_hold_anything),
        cmocka_unit_test(the_wrap_is_a_moment_like_any_other),
        cmocka_unit_test(the_least_busy_for_its_weight_is_asked),
        cmocka_unit_test(ties_are_drawn_by_lot),
        cmocka_unit_test(the_cheapest_for_this_request_is_asked),
        cmocka_unit_test(who_is_within_the_budget_comes_first),
        cmocka_unit_test(no_price_is_too_high),
        cmocka_unit_test(the_fastest_is_asked),
        cmocka_unit_test(
            an_unknown_provider_is_asked_once_a_second_until_it_works),
        cmocka_unit_test(a_slow_one_is_asked_again_when_its_figure_is_old),
        cmocka_unit_test(a_request_that_failed_is_not_used_to_explore),
        cmocka_unit_test(who_fails_half_of_its_calls_does_not_look_the_fastest),
        cmocka_unit_test(priority_and_cost_are_as_if_sorted),
        cmocka_unit_test(least_conn_is_always_a_least_one),
        cmocka_unit_test(least_latency_is_as_its_rules_say),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
