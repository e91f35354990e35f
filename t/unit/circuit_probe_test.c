/*
 * Active probes and the circuit: what each finds, and what comes of it; at
 * last, threads that race with calls.
 */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "llm_circuit.h"


#define OPEN 1000
#define HOLD 5000
#define THREADS 4
#define ROUNDS 200000


static llm_circuit_t c;
static llm_circuit_conf_t conf;
static uint32_t now;
static llm_token_t token;
static llm_transition_t tr;
static uint32_t wait;
static bool late;


static int
setup(void **state)
{
    (void) state;

    memset(&c, 0, sizeof(c));
    memset(&token, 0, sizeof(token));

    conf = (llm_circuit_conf_t) { .failure_threshold = 2,
        .success_threshold = 2,
        .open = OPEN,
        .open_max = 8 * OPEN,
        .half_open_max_calls = 1,
        .half_open_timeout = 500 };

    now = 100000;

    return 0;
}


static void
probe(void)
{
    assert_true(llm_circuit_probe(&c, &conf, now, &token, &wait, &tr));
    assert_int_not_equal(token.kind, LLM_TOKEN_NONE);
}


static void
no_probe(uint32_t ms)
{
    assert_false(llm_circuit_probe(&c, &conf, now, &token, &wait, &tr));
    assert_int_equal(token.kind, LLM_TOKEN_NONE);
    assert_int_equal(wait, ms);
}


static void
tell(llm_class_t class, bool passive, uint32_t hint)
{
    llm_transition_t none;
    bool never;

    assert_true(llm_circuit_probe_report(&c, &conf, &token, class, passive,
        hint, HOLD, now, 0, &late, &tr));
    assert_false(llm_circuit_probe_report(&c, &conf, &token, class, passive,
        hint, HOLD, now, 0, &never, &none));
}


static llm_circuit_view_t
view(void)
{
    llm_circuit_view_t v;

    llm_circuit_view(&c, &conf, now, &v);

    return v;
}


static void
trip(void)
{
    for (uint32_t i = 0; i < conf.failure_threshold; i++) {
        llm_token_t call;

        assert_int_equal(llm_circuit_acquire(&c, &conf, now, &call, &wait, &tr),
            LLM_ADMITTED);
        (void) llm_circuit_report(&c, &conf, &call, LLM_CLASS_FAILURE, 0, now,
            0, &late, &tr);
    }

    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);
}


static void
moved(llm_circuit_state_t from, llm_circuit_state_t to, llm_reason_t reason)
{
    assert_int_equal(tr.reason, reason);
    assert_int_equal(tr.from, from);
    assert_int_equal(tr.to, to);
    assert_int_equal(view().state, to);
}


static void
closed_circuit_learns_nothing(void **state)
{
    (void) state;

    static const llm_class_t classes[] = { LLM_CLASS_SUCCESS, LLM_CLASS_FAILURE,
        LLM_CLASS_CREDENTIAL, LLM_CLASS_CAPABILITY, LLM_CLASS_NEUTRAL };

    for (unsigned i = 0; i < 5 * 5; i++) {
        llm_circuit_t before = c;

        probe();
        tell(classes[i % 5], false, 0);
        assert_int_equal(tr.reason, LLM_REASON_NONE);
        assert_memory_equal(&c, &before, sizeof(c));
    }
}


static void
passive_probe_counts_like_a_call(void **state)
{
    (void) state;

    probe();
    tell(LLM_CLASS_FAILURE, true, 0);
    assert_int_equal(view().failures, 1);

    probe();
    tell(LLM_CLASS_SUCCESS, true, 0);
    assert_int_equal(view().failures, 1); /* a success moves nothing */

    probe();
    tell(LLM_CLASS_FAILURE, true, 0);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_THRESHOLD);
}


static void
passive_credential_opens(void **state)
{
    (void) state;

    probe();
    tell(LLM_CLASS_CREDENTIAL, true, 0);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_CREDENTIAL);
}


static void
success_half_opens_before_time(void **state)
{
    (void) state;

    trip();
    now += 10;
    probe();
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    tell(LLM_CLASS_SUCCESS, false, 0);
    moved(LLM_CIRCUIT_OPEN, LLM_CIRCUIT_HALF_OPEN, LLM_REASON_PROBED);
    assert_int_equal(view().successes, 1);

    probe();
    assert_int_equal(token.kind, LLM_TOKEN_PROBE);
    no_probe(500); /* there is one permit, ... */
    assert_int_equal(llm_circuit_peek(&c, &conf, now, &wait),
        LLM_REFUSED_HALF_OPEN);
}


static void
the_second_success_closes(void **state)
{
    (void) state;

    trip();
    probe();
    tell(LLM_CLASS_SUCCESS, false, 0);
    probe();
    tell(LLM_CLASS_SUCCESS, false, 0);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_CLOSED, LLM_REASON_RECOVERED);
}


static void
one_more_even_where_one_is_enough(void **state)
{
    (void) state;

    conf.success_threshold = 1;
    trip();
    probe();
    tell(LLM_CLASS_SUCCESS, false, 0);
    moved(LLM_CIRCUIT_OPEN, LLM_CIRCUIT_HALF_OPEN, LLM_REASON_PROBED);
    assert_int_equal(view().successes, 0);

    assert_int_equal(llm_circuit_acquire(&c, &conf, now, &token, &wait, &tr),
        LLM_ADMITTED);
    llm_circuit_report(&c, &conf, &token, LLM_CLASS_SUCCESS, 0, now, 0, &late,
        &tr);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_CLOSED, LLM_REASON_RECOVERED);
}


static void
failure_in_half_open_opens_again(void **state)
{
    (void) state;

    trip();
    probe();
    tell(LLM_CLASS_SUCCESS, false, 0);
    probe();
    tell(LLM_CLASS_FAILURE, false, 0);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_OPEN, LLM_REASON_PROBE_FAILED);
    assert_int_equal(view().level, 1);
}


static void
failure_holds_the_circuit_open(void **state)
{
    (void) state;

    uint32_t epoch;

    trip();
    epoch = view().epoch;

    for (unsigned i = 0; i < 100; i++) {
        now += 900;
        probe();
        tell(LLM_CLASS_FAILURE, false, 0);
        assert_int_equal(tr.reason, LLM_REASON_NONE);
        assert_int_equal(view().retry, HOLD);
    }

    assert_int_equal(view().epoch, epoch);
    assert_int_equal(view().level, 0);

    /* out, but never in */
    probe();
    tell(LLM_CLASS_FAILURE, false, 60000);
    assert_int_equal(view().retry, 60000);
    now += 10;
    probe();
    tell(LLM_CLASS_FAILURE, false, 0);
    assert_int_equal(view().retry, 59990);

    /* not for longer than any hint */
    probe();
    tell(LLM_CLASS_FAILURE, false, UINT32_MAX);
    assert_int_equal(view().retry, LLM_CIRCUIT_HINT_MAX);
}


static void
what_says_nothing_of_its_health_does_not(void **state)
{
    (void) state;

    llm_class_t classes[] = { LLM_CLASS_CREDENTIAL, LLM_CLASS_CAPABILITY,
        LLM_CLASS_NEUTRAL };

    trip();

    for (unsigned i = 0; i < 3; i++) {
        probe();
        tell(classes[i], true, 0);
        assert_int_equal(view().retry, OPEN);
    }
}


static void
throttle_is_heeded_in_every_state(void **state)
{
    (void) state;

    probe();
    tell(LLM_CLASS_THROTTLE, false, 700);
    assert_int_equal(view().throttled, 700);
    no_probe(700);

    now += 700;
    trip();
    probe();
    tell(LLM_CLASS_THROTTLE, false, 900);
    assert_int_equal(view().throttled, 900);
    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);
    no_probe(900);
}


static void
late_verdict_moves_nothing(void **state)
{
    (void) state;

    llm_token_t old;

    trip();
    probe();
    old = token;
    llm_circuit_reset(&c, now, &tr);
    trip();

    token = old;
    tell(LLM_CLASS_SUCCESS, false, 0);
    assert_true(late);
    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);

    token = old;
    token.kind = LLM_TOKEN_WATCH;
    tell(LLM_CLASS_FAILURE, false, 0);
    assert_true(late);
    assert_int_equal(view().retry, OPEN);
}


static void
due_circuit_is_entered_like_by_a_call(void **state)
{
    (void) state;

    trip();
    now += OPEN;
    probe();
    moved(LLM_CIRCUIT_OPEN, LLM_CIRCUIT_HALF_OPEN, LLM_REASON_OPEN_ELAPSED);
    assert_int_equal(token.kind, LLM_TOKEN_PROBE);
}


static void
operators_word_is_heeded(void **state)
{
    (void) state;

    llm_circuit_t before;

    trip();
    probe();
    llm_circuit_admin_for(&c, LLM_ADMIN_OPEN, 0, now, &tr);
    no_probe(LLM_CIRCUIT_WAIT_UNKNOWN);

    llm_circuit_admin_for(&c, LLM_ADMIN_DISABLED, 0, now, &tr);
    before = c;
    probe();
    tell(LLM_CLASS_SUCCESS, true, 0);
    probe();
    tell(LLM_CLASS_FAILURE, true, 0);
    assert_memory_equal(&c, &before, sizeof(c));

    llm_circuit_admin_for(&c, LLM_ADMIN_OBSERVE, 0, now, &tr);
    probe();
    tell(LLM_CLASS_SUCCESS, false, 0);
    moved(LLM_CIRCUIT_OPEN, LLM_CIRCUIT_HALF_OPEN, LLM_REASON_PROBED);
    assert_int_equal(view().admin, LLM_ADMIN_OBSERVE);
}


static void
circuit_off_never_moves(void **state)
{
    (void) state;

    llm_circuit_t before = c;

    conf.off = true;

    for (unsigned class = 0; class < LLM_CLASSES; class ++) {
        probe();
        tell((llm_class_t) class, true, 100);
        assert_memory_equal(&c, &before, sizeof(c));
    }
}


/* Every transition is told once: as many as there are epochs. */

typedef struct {
    unsigned seed;
    unsigned moves;
    unsigned halves;
} thread_t;


static void
count(thread_t *t, const llm_transition_t *x)
{
    t->moves += x->reason != LLM_REASON_NONE;
    t->halves += x->reason == LLM_REASON_PROBED;
}


static void *
race(void *arg)
{
    thread_t *t = arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned dice = (unsigned) rand_r(&t->seed);
        llm_class_t class = dice % 3 == 0 ? LLM_CLASS_FAILURE
                                          : LLM_CLASS_SUCCESS;
        uint32_t time = 100000 + i / 50;
        llm_transition_t x;
        llm_token_t own;
        uint32_t ms;
        bool behind;

        if (dice / 3 % 2 == 0) {
            if (llm_circuit_probe(&c, &conf, time, &own, &ms, &x)) {
                count(t, &x);
                (void) llm_circuit_probe_report(&c, &conf, &own, class,
                    dice / 6 % 2 == 0, 0, 20, time, 0, &behind, &x);
            }

        } else if (llm_circuit_acquire(&c, &conf, time, &own, &ms, &x)
                   == LLM_ADMITTED) {
            count(t, &x);
            (void) llm_circuit_report(&c, &conf, &own, class, 0, time, 0,
                &behind, &x);
        }

        count(t, &x);
    }

    return NULL;
}


static void
races_with_calls_are_told_once(void **state)
{
    (void) state;

    pthread_t thread[THREADS];
    thread_t t[THREADS] = { { 0 } };
    unsigned moves = 0, halves = 0;

    conf.open = 10;
    conf.open_max = 40;

    for (unsigned i = 0; i < THREADS; i++) {
        t[i].seed = i + 1;
        assert_int_equal(pthread_create(&thread[i], NULL, race, &t[i]), 0);
    }

    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        moves += t[i].moves;
        halves += t[i].halves;
    }

    assert_true(halves > 100);
    assert_int_equal(view().epoch, moves & 0xffff);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(closed_circuit_learns_nothing, setup),
        cmocka_unit_test_setup(passive_probe_counts_like_a_call, setup),
        cmocka_unit_test_setup(passive_credential_opens, setup),
        cmocka_unit_test_setup(success_half_opens_before_time, setup),
        cmocka_unit_test_setup(the_second_success_closes, setup),
        cmocka_unit_test_setup(one_more_even_where_one_is_enough, setup),
        cmocka_unit_test_setup(failure_in_half_open_opens_again, setup),
        cmocka_unit_test_setup(failure_holds_the_circuit_open, setup),
        cmocka_unit_test_setup(what_says_nothing_of_its_health_does_not, setup),
        cmocka_unit_test_setup(throttle_is_heeded_in_every_state, setup),
        cmocka_unit_test_setup(late_verdict_moves_nothing, setup),
        cmocka_unit_test_setup(due_circuit_is_entered_like_by_a_call, setup),
        cmocka_unit_test_setup(operators_word_is_heeded, setup),
        cmocka_unit_test_setup(circuit_off_never_moves, setup),
        cmocka_unit_test_setup(races_with_calls_are_told_once, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
