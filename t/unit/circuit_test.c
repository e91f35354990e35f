/*
 * The circuit, cell by cell of its table.  One process; what several do to
 * each other is in circuit_processes_test.c.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "llm_circuit.h"


#define OPEN 1000
#define OPEN_MAX 8000
#define LEASE 500
#define WINDOW 10000
#define SLOW 2000
#define STORY 3000 /* calls between two openings */


static llm_circuit_t c;
static llm_circuit_conf_t conf;
static uint32_t now;
static uint32_t jitter;

/* what the last call told */
static llm_token_t token;
static llm_transition_t tr;
static uint32_t wait;
static bool late;


static int
setup(void **state)
{
    (void) state;

    memset(&c, 0, sizeof(c));

    conf = (llm_circuit_conf_t) { .failure_threshold = 3,
        .success_threshold = 2,
        .open = OPEN,
        .open_max = OPEN_MAX,
        .half_open_max_calls = 1,
        .half_open_timeout = LEASE };

    now = 100000;
    jitter = 0;

    memset(&token, 0, sizeof(token));
    memset(&tr, 0xff, sizeof(tr));
    wait = 4711;
    late = true;

    return 0;
}


static llm_admission_t
ask(void)
{
    return llm_circuit_acquire(&c, &conf, now, &token, &wait, &tr);
}


static llm_admission_t
peek(void)
{
    return llm_circuit_peek(&c, &conf, now, &wait);
}


static llm_token_t
admitted(void)
{
    assert_int_equal(ask(), LLM_ADMITTED);
    assert_int_equal(wait, 0);
    assert_int_not_equal(token.kind, LLM_TOKEN_NONE);

    return token;
}


static void
refused(llm_admission_t why, uint32_t ms)
{
    llm_circuit_t before = c;

    assert_int_equal(peek(), why);
    assert_int_equal(wait, ms);
    assert_int_equal(ask(), why);
    assert_int_equal(wait, ms);
    assert_int_equal(token.kind, LLM_TOKEN_NONE);
    assert_memory_equal(&c, &before, sizeof(c));
}


static void
report_hint(llm_token_t *t, llm_class_t class, uint32_t hint)
{
    assert_true(
        llm_circuit_report(&c, &conf, t, class, hint, now, jitter, &late, &tr));
    assert_int_equal(t->kind, LLM_TOKEN_NONE);
}


static void
report(llm_token_t *t, llm_class_t class)
{
    report_hint(t, class, 0);
}


static void
call_hint(llm_class_t class, uint32_t hint)
{
    llm_token_t t = admitted();

    report_hint(&t, class, hint);
}


static void
call(llm_class_t class)
{
    call_hint(class, 0);
}


static llm_circuit_view_t
view(void)
{
    llm_circuit_view_t v;

    llm_circuit_view(&c, &conf, now, &v);

    return v;
}


static void
moved(llm_circuit_state_t from, llm_circuit_state_t to, llm_reason_t reason)
{
    assert_int_equal(tr.reason, reason);
    assert_int_equal(tr.from, from);
    assert_int_equal(tr.to, to);
    assert_int_equal(tr.epoch, view().epoch);
    assert_int_equal(view().state, to);
    assert_int_equal(view().reason, reason);
}


static void
trip(void)
{
    for (uint32_t i = 0; i < conf.failure_threshold; i++) {
        assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
        call(LLM_CLASS_FAILURE);
    }

    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);
}


/* Open, and the first probe is under way. */
static llm_token_t
probing(void)
{
    llm_token_t t;

    trip();
    now += OPEN;
    t = admitted();

    assert_int_equal(t.kind, LLM_TOKEN_PROBE);

    return t;
}


/* From open and due, or half-open with a free permit, to closed. */
static void
recover(void)
{
    do {
        call(LLM_CLASS_SUCCESS);
    } while (view().state == LLM_CIRCUIT_HALF_OPEN);

    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
}


/* Trips, waits, fails the probe, until the level is reached. */
static void
climb(uint32_t level)
{
    trip();

    while (view().level < level) {
        now += view().retry;
        call(LLM_CLASS_FAILURE);
        assert_int_equal(view().state, LLM_CIRCUIT_OPEN);
    }
}


/* ---- closed ---- */


static void
zeroed_memory_is_a_closed_circuit(void **state)
{
    (void) state;

    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    assert_int_equal(view().admin, LLM_ADMIN_AUTO);
    assert_int_equal(view().reason, LLM_REASON_NONE);
    assert_int_equal(peek(), LLM_ADMITTED);
    assert_int_equal(wait, 0);
    assert_int_equal(admitted().kind, LLM_TOKEN_NORMAL);
    assert_int_equal(tr.reason, LLM_REASON_NONE);
}


static void
a_healthy_success_writes_nothing_that_others_read(void **state)
{
    llm_circuit_t before = c;

    (void) state;

    for (int i = 0; i < 10; i++) {
        now++;
        call(LLM_CLASS_SUCCESS);
        assert_false(late);
        assert_int_equal(tr.reason, LLM_REASON_NONE);
    }

    assert_memory_equal(&c, &before, sizeof(c));
}


static void
the_threshold_opens_and_one_less_does_not(void **state)
{
    (void) state;

    call(LLM_CLASS_FAILURE);
    call(LLM_CLASS_FAILURE);
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    assert_int_equal(view().failures, 2);
    assert_int_equal(view().epoch, 0);
    assert_int_equal(peek(), LLM_ADMITTED);

    call(LLM_CLASS_FAILURE);
    assert_false(late);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_THRESHOLD);
    assert_int_equal(tr.duration, OPEN);
    assert_int_equal(view().epoch, 1);
    assert_int_equal(view().retry, OPEN);
    refused(LLM_REFUSED_OPEN, OPEN);
}


static void
a_success_in_between_forgives_failures(void **state)
{
    (void) state;

    for (int i = 0; i < 10; i++) {
        call(LLM_CLASS_FAILURE);
        call(LLM_CLASS_FAILURE);
        call(LLM_CLASS_SUCCESS);
        assert_int_equal(view().failures, 0);
        assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    }
}


static void
a_callers_mistakes_neither_open_nor_forgive(void **state)
{
    (void) state;

    call(LLM_CLASS_FAILURE);
    call(LLM_CLASS_FAILURE);

    for (int i = 0; i < 10; i++) {
        call(LLM_CLASS_NEUTRAL);
        call(LLM_CLASS_CAPABILITY);
        assert_int_equal(view().failures, 2);
    }

    call(LLM_CLASS_FAILURE);
    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);
}


static void
the_largest_threshold_can_be_reached(void **state)
{
    (void) state;

    conf.failure_threshold = 255;
    trip();
    assert_int_equal(view().epoch, 1);
}


static void
a_rejected_key_opens_at_once_for_the_longest_time(void **state)
{
    (void) state;

    call(LLM_CLASS_CREDENTIAL);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_CREDENTIAL);
    assert_int_equal(tr.duration, OPEN_MAX);
    assert_int_equal(view().level, 0);
    refused(LLM_REFUSED_OPEN, OPEN_MAX);
}


static void
a_rejected_key_found_by_a_probe_opens_for_the_longest_time(void **state)
{
    llm_token_t t = probing();

    (void) state;

    report(&t, LLM_CLASS_CREDENTIAL);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_OPEN, LLM_REASON_CREDENTIAL);
    assert_int_equal(tr.duration, OPEN_MAX);
    assert_int_equal(view().level, 1);
}


static void
two_simultaneous_last_failures_are_one_transition(void **state)
{
    llm_token_t a, b;

    (void) state;

    call(LLM_CLASS_FAILURE);
    call(LLM_CLASS_FAILURE);

    a = admitted();
    b = admitted();

    report(&a, LLM_CLASS_FAILURE);
    assert_int_equal(tr.reason, LLM_REASON_FAILURE_THRESHOLD);

    report(&b, LLM_CLASS_FAILURE);
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    assert_true(late);
    assert_int_equal(view().epoch, 1);
    assert_int_equal(view().level, 0);
}


static void
a_token_counts_once(void **state)
{
    llm_token_t t = admitted();
    uint64_t word;

    (void) state;

    report(&t, LLM_CLASS_FAILURE);
    word = c.word;
    late = true;

    for (int class = 0; class < LLM_CLASSES; class ++) {
        assert_false(llm_circuit_report(&c, &conf, &t, (llm_class_t) class, 9,
            now, 0, &late, &tr));
        assert_false(late);
        assert_int_equal(tr.reason, LLM_REASON_NONE);
        assert_true(c.word == word);
        assert_true(c.throttle == 0);
    }
}


static void
a_token_that_was_never_given_counts_nothing(void **state)
{
    llm_token_t none = { 0 };

    (void) state;

    assert_false(llm_circuit_report(&c, &conf, &none, LLM_CLASS_CREDENTIAL, 0,
        now, 0, &late, &tr));
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
}


/* ---- open ---- */


static void
an_open_circuit_tells_how_long_it_stays(void **state)
{
    (void) state;

    trip();

    now += OPEN - 1;
    refused(LLM_REFUSED_OPEN, 1);
    assert_int_equal(view().retry, 1);

    now += 1;
    assert_int_equal(view().retry, 0);
    assert_int_equal(peek(), LLM_ADMITTED);
    assert_int_equal(wait, 0);
    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);

    assert_int_equal(admitted().kind, LLM_TOKEN_PROBE);
    moved(LLM_CIRCUIT_OPEN, LLM_CIRCUIT_HALF_OPEN, LLM_REASON_OPEN_ELAPSED);
    assert_int_equal(view().epoch, 2);
    assert_int_equal(view().probes, 1);
}


static void
a_status_page_moves_no_circuit_and_takes_no_permit(void **state)
{
    llm_circuit_t before;

    (void) state;

    trip();
    now += OPEN;
    before = c;

    for (int i = 0; i < 1000; i++) {
        assert_int_equal(peek(), LLM_ADMITTED);
        (void) view();
    }

    assert_memory_equal(&c, &before, sizeof(c));
    assert_int_equal(admitted().kind, LLM_TOKEN_PROBE);
}


static void
a_late_success_after_the_trip_changes_nothing(void **state)
{
    llm_token_t slow = admitted();
    llm_circuit_t before;

    (void) state;

    trip();
    before = c;
    report_hint(&slow, LLM_CLASS_SUCCESS, 60000);
    assert_true(late);
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    assert_memory_equal(&c, &before, sizeof(c));
}


static void
late_failures_do_not_keep_a_provider_out_longer(void **state)
{
    llm_token_t slow[20];

    (void) state;

    for (int i = 0; i < 20; i++) {
        slow[i] = admitted();
    }

    trip();

    for (int i = 0; i < 20; i++) {
        now += 10;
        report(&slow[i], LLM_CLASS_FAILURE);
        assert_true(late);
        assert_int_equal(tr.reason, LLM_REASON_NONE);
    }

    refused(LLM_REFUSED_OPEN, OPEN - 200);
    assert_int_equal(view().epoch, 1);
}


static void
a_late_failures_retry_after_pushes_out_and_never_in(void **state)
{
    llm_token_t a = admitted();
    llm_token_t b = admitted();
    llm_token_t d = admitted();
    llm_token_t e = admitted();
    uint64_t word;

    (void) state;

    trip();

    report_hint(&a, LLM_CLASS_FAILURE, OPEN + 500);
    assert_true(late);
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    assert_int_equal(view().epoch, 1);
    refused(LLM_REFUSED_OPEN, OPEN + 500);

    word = c.word;
    report_hint(&b, LLM_CLASS_FAILURE, 200);
    assert_true(late);
    assert_true(c.word == word);

    report_hint(&d, LLM_CLASS_CREDENTIAL, 4000);
    refused(LLM_REFUSED_OPEN, 4000);

    report_hint(&e, LLM_CLASS_FAILURE, UINT32_MAX);
    refused(LLM_REFUSED_OPEN, LLM_CIRCUIT_HINT_MAX);
}


static void
a_late_hint_holds_off_a_probe_that_is_due(void **state)
{
    llm_token_t slow = admitted();

    (void) state;

    trip();
    now += OPEN + 1;
    report_hint(&slow, LLM_CLASS_FAILURE, 700);
    refused(LLM_REFUSED_OPEN, 700);
}


static void
late_hints_of_other_classes_push_nothing(void **state)
{
    llm_token_t a = admitted();
    llm_token_t b = admitted();
    uint64_t word;

    (void) state;

    trip();
    word = c.word;
    report_hint(&a, LLM_CLASS_NEUTRAL, 5000);
    assert_true(late);
    report_hint(&b, LLM_CLASS_CAPABILITY, 5000);
    assert_true(late);
    assert_true(c.word == word);
}


static void
a_late_hint_moves_neither_closed_nor_half_open(void **state)
{
    llm_token_t a = admitted();
    llm_token_t b = admitted();
    llm_token_t probe;
    uint64_t word;

    (void) state;

    probe = probing();
    word = c.word;
    report_hint(&a, LLM_CLASS_FAILURE, 60000);
    assert_true(late);
    assert_true(c.word == word);

    report(&probe, LLM_CLASS_SUCCESS);
    recover();
    word = c.word;
    report_hint(&b, LLM_CLASS_FAILURE, 60000);
    assert_true(late);
    assert_true(c.word == word);
}


/* ---- retry-after ---- */


static void
a_provider_that_asks_for_more_time_gets_it(void **state)
{
    (void) state;

    call(LLM_CLASS_FAILURE);
    call(LLM_CLASS_FAILURE);
    call_hint(LLM_CLASS_FAILURE, 20000);
    assert_int_equal(tr.duration, 20000);
    refused(LLM_REFUSED_OPEN, 20000);
}


static void
a_provider_that_asks_for_less_time_gets_the_open_time(void **state)
{
    (void) state;

    call(LLM_CLASS_FAILURE);
    call(LLM_CLASS_FAILURE);
    call_hint(LLM_CLASS_FAILURE, 1);
    assert_int_equal(tr.duration, OPEN);
}


static void
an_absurd_retry_after_costs_five_minutes_at_most(void **state)
{
    static const uint32_t hints[] = { 300000, 300001, 1000000000, INT32_MAX,
        UINT32_MAX };

    (void) state;

    for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++) {
        (void) setup(NULL);
        call(LLM_CLASS_FAILURE);
        call(LLM_CLASS_FAILURE);
        call_hint(LLM_CLASS_FAILURE, hints[i]);
        assert_int_equal(tr.duration, 300000);
        refused(LLM_REFUSED_OPEN, 300000);
        now += 300000;
        assert_int_equal(peek(), LLM_ADMITTED);
    }
}


/* ---- open time ---- */


static void
jitter_spreads_the_open_time_by_a_tenth_at_most(void **state)
{
    (void) state;

    jitter = UINT32_MAX;
    trip();
    assert_in_range(tr.duration, OPEN + OPEN / 10 - 1, OPEN + OPEN / 10);
    assert_int_equal(view().retry, tr.duration);

    (void) setup(NULL);
    jitter = UINT32_MAX / 2;
    trip();
    assert_in_range(tr.duration, OPEN + OPEN / 20 - 1, OPEN + OPEN / 20);
}


static void
the_longest_open_time_with_full_jitter_is_waited_out(void **state)
{
    (void) state;

    conf.open = conf.open_max = LLM_CIRCUIT_LONGEST;
    jitter = UINT32_MAX;
    trip();
    assert_int_equal(view().retry, tr.duration);
    assert_true(tr.duration >= LLM_CIRCUIT_LONGEST / 10 * 11 - 2);
    now += tr.duration - 1;
    refused(LLM_REFUSED_OPEN, 1);
    now += 1;
    assert_int_equal(peek(), LLM_ADMITTED);
}


static void
each_failed_probe_doubles_the_open_time_up_to_its_limit(void **state)
{
    static const uint32_t times[] = { 2000, 4000, 8000, 8000, 8000 };

    (void) state;

    trip();

    for (uint32_t i = 0; i < 5; i++) {
        now += view().retry;
        call(LLM_CLASS_FAILURE);
        moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_OPEN, LLM_REASON_PROBE_FAILED);
        assert_int_equal(tr.duration, times[i]);
        assert_int_equal(view().level, i + 1);
        assert_int_equal(view().epoch, 2 * i + 3);
    }
}


static void
a_long_outage_does_not_overflow_the_level(void **state)
{
    (void) state;

    conf.open_max = LLM_CIRCUIT_LONGEST;
    conf.open = LLM_CIRCUIT_LONGEST / 2;
    climb(15);

    for (int i = 0; i < 3; i++) {
        now += view().retry;
        call(LLM_CLASS_FAILURE);
        assert_int_equal(view().level, 15);
        assert_int_equal(tr.duration, LLM_CIRCUIT_LONGEST);
    }
}


/* ---- half-open ---- */


static void
one_probe_at_a_time_is_let_through(void **state)
{
    llm_token_t t = probing();

    (void) state;

    refused(LLM_REFUSED_HALF_OPEN, LEASE);
    now += LEASE - 1;
    refused(LLM_REFUSED_HALF_OPEN, 1);

    report(&t, LLM_CLASS_SUCCESS);
    assert_int_equal(view().successes, 1);
    assert_int_equal(view().probes, 0);
    assert_int_equal(peek(), LLM_ADMITTED);
    assert_int_equal(admitted().kind, LLM_TOKEN_PROBE);
    assert_int_equal(tr.reason, LLM_REASON_NONE);
}


static void
as_many_probes_as_configured_run_at_once(void **state)
{
    llm_token_t t[LLM_CIRCUIT_PERMITS];

    (void) state;

    conf.half_open_max_calls = LLM_CIRCUIT_PERMITS;
    t[0] = probing();

    for (int i = 1; i < LLM_CIRCUIT_PERMITS; i++) {
        now++;
        t[i] = admitted();
        assert_int_equal(t[i].kind, LLM_TOKEN_PROBE);
        assert_int_equal(view().probes, i + 1);
    }

    /* the first lease to end is what there is to wait for */
    refused(LLM_REFUSED_HALF_OPEN, LEASE - (LLM_CIRCUIT_PERMITS - 1));

    report(&t[7], LLM_CLASS_NEUTRAL);
    assert_int_equal(view().probes, LLM_CIRCUIT_PERMITS - 1);
    assert_int_equal(admitted().permit, 7);
    assert_int_equal(ask(), LLM_REFUSED_HALF_OPEN);
}


static void
one_permit_is_enough_for_three_successes(void **state)
{
    llm_token_t t;

    (void) state;

    conf.success_threshold = 3;
    t = probing();
    report(&t, LLM_CLASS_SUCCESS);
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    call(LLM_CLASS_SUCCESS);
    assert_int_equal(view().successes, 2);
    assert_int_equal(view().state, LLM_CIRCUIT_HALF_OPEN);
    call(LLM_CLASS_SUCCESS);
    assert_false(late);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_CLOSED, LLM_REASON_RECOVERED);
    assert_int_equal(view().epoch, 3);
    assert_int_equal(view().failures, 0);
    assert_int_equal(admitted().kind, LLM_TOKEN_NORMAL);
}


static void
one_failed_probe_reopens_and_voids_the_others(void **state)
{
    llm_token_t a, b;
    llm_circuit_t before;

    (void) state;

    conf.half_open_max_calls = 2;
    a = probing();
    b = admitted();

    report(&a, LLM_CLASS_FAILURE);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_OPEN, LLM_REASON_PROBE_FAILED);

    before = c;
    report(&b, LLM_CLASS_SUCCESS);
    assert_true(late);
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    assert_true(c.word == before.word);

    /* both permits are to be had in the next episode */
    now += 2 * OPEN;
    assert_int_equal(admitted().kind, LLM_TOKEN_PROBE);
    assert_int_equal(admitted().kind, LLM_TOKEN_PROBE);
    assert_int_equal(ask(), LLM_REFUSED_HALF_OPEN);
}


static void
a_permit_of_an_old_episode_does_not_block_a_new_one(void **state)
{
    llm_token_t a, b;

    (void) state;

    conf.half_open_max_calls = 2;
    conf.half_open_timeout = 100 * OPEN;
    a = probing();
    b = admitted();
    report(&a, LLM_CLASS_FAILURE);
    now += 2 * OPEN;

    (void) admitted();
    (void) admitted();
    assert_int_equal(view().probes, 2);

    /* and its holder frees nothing in the new one */
    report(&b, LLM_CLASS_NEUTRAL);
    assert_true(late);
    assert_int_equal(view().probes, 2);
    assert_int_equal(ask(), LLM_REFUSED_HALF_OPEN);
}


static void
a_probe_that_says_nothing_frees_its_permit_only(void **state)
{
    static const llm_class_t classes[] = { LLM_CLASS_NEUTRAL,
        LLM_CLASS_CAPABILITY };
    llm_token_t t = probing();

    (void) state;

    report(&t, LLM_CLASS_SUCCESS);

    for (int i = 0; i < 2; i++) {
        uint64_t word = c.word;

        t = admitted();
        assert_int_equal(view().probes, 1);
        report(&t, classes[i]);
        assert_false(late);
        assert_int_equal(tr.reason, LLM_REASON_NONE);
        assert_true(c.word == word);
        assert_int_equal(view().probes, 0);
    }
}


static void
a_throttled_probe_frees_its_permit_and_fails_nobody(void **state)
{
    llm_token_t t = probing();
    uint64_t word = c.word;

    (void) state;

    report_hint(&t, LLM_CLASS_THROTTLE, 200);
    assert_false(late);
    assert_true(c.word == word);
    assert_int_equal(view().probes, 0);
    refused(LLM_REFUSED_THROTTLED, 200);
    now += 200;
    assert_int_equal(admitted().kind, LLM_TOKEN_PROBE);
}


static void
a_killed_workers_permit_comes_back(void **state)
{
    (void) state;

    (void) probing();
    now += LEASE - 1;
    refused(LLM_REFUSED_HALF_OPEN, 1);
    now += 1;
    assert_int_equal(view().probes, 0);
    assert_int_equal(peek(), LLM_ADMITTED);
    assert_int_equal(admitted().kind, LLM_TOKEN_PROBE);
    assert_int_equal(view().probes, 1);
    assert_int_equal(view().state, LLM_CIRCUIT_HALF_OPEN);
}


static void
a_slow_probe_still_counts_after_its_lease(void **state)
{
    llm_token_t slow = probing();
    llm_token_t other;

    (void) state;

    now += LEASE;
    other = admitted();
    assert_int_equal(other.permit, slow.permit);

    report(&slow, LLM_CLASS_SUCCESS);
    assert_false(late);
    assert_int_equal(view().successes, 1);

    report(&other, LLM_CLASS_SUCCESS);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_CLOSED, LLM_REASON_RECOVERED);
}


static void
a_slow_probe_frees_nobody_elses_permit(void **state)
{
    llm_token_t slow = probing();
    llm_token_t other;

    (void) state;

    now += LEASE;
    other = admitted();

    report(&slow, LLM_CLASS_NEUTRAL);
    assert_int_equal(view().probes, 1);
    refused(LLM_REFUSED_HALF_OPEN, LEASE);

    report(&other, LLM_CLASS_NEUTRAL);
    assert_int_equal(view().probes, 0);
}


static void
a_slow_probes_failure_reopens(void **state)
{
    llm_token_t slow = probing();

    (void) state;

    now += LEASE;
    (void) admitted();
    report(&slow, LLM_CLASS_FAILURE);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_OPEN, LLM_REASON_PROBE_FAILED);
}


static void
the_nonce_wraps_without_mixing_up_permits(void **state)
{
    llm_token_t slow = probing();

    (void) state;

    for (int i = 0; i < 3 * 32768 + 7; i++) {
        llm_token_t next;

        now += LEASE;
        next = admitted();
        assert_int_not_equal(next.nonce, slow.nonce);
        report(&slow, LLM_CLASS_NEUTRAL);
        assert_int_equal(view().probes, 1);
        slow = next;
    }
}


/* ---- calm ---- */


static void
a_relapse_in_the_calm_opens_for_longer(void **state)
{
    llm_token_t t = probing();

    (void) state;

    report(&t, LLM_CLASS_SUCCESS);
    recover();
    now += OPEN - 1;
    trip();
    assert_int_equal(view().level, 1);
    assert_int_equal(tr.duration, 2 * OPEN);

    now += 2 * OPEN;
    recover();
    assert_int_equal(view().level, 1);
    now += 2 * OPEN;
    call(LLM_CLASS_SUCCESS);
    assert_int_equal(view().level, 0);
}


static void
after_the_calm_a_trip_is_a_first_one(void **state)
{
    (void) state;

    climb(2);
    now += view().retry;
    (void) admitted();
    now += LEASE;
    recover();
    assert_int_equal(view().level, 2);

    now += 4 * OPEN;
    trip();
    assert_int_equal(view().level, 0);
    assert_int_equal(tr.duration, OPEN);
}


static void
after_the_calm_one_failure_that_trips_is_a_first_one(void **state)
{
    (void) state;

    conf.failure_threshold = 1;
    climb(2);
    now += view().retry;
    recover();
    now += 4 * OPEN;
    trip();
    assert_int_equal(view().level, 0);
    assert_int_equal(tr.duration, OPEN);
}


static void
the_calm_lasts_as_long_as_the_open_time_of_the_level(void **state)
{
    (void) state;

    jitter = UINT32_MAX;
    climb(3);
    now += view().retry;
    call(LLM_CLASS_SUCCESS);
    recover();

    now += 8 * OPEN - 1;
    call(LLM_CLASS_SUCCESS);
    assert_int_equal(view().level, 3);
    now += 1;
    call(LLM_CLASS_SUCCESS);
    assert_int_equal(view().level, 0);
    assert_true(c.word >> 32 == 0);
    assert_int_equal(view().epoch, 9);
}


static void
a_success_in_the_calm_writes_nothing(void **state)
{
    llm_circuit_t before;

    (void) state;

    climb(1);
    now += view().retry;
    call(LLM_CLASS_SUCCESS);
    recover();
    before = c;
    now += 5;
    call(LLM_CLASS_SUCCESS);
    assert_memory_equal(&c, &before, sizeof(c));
}


static void
a_recovery_at_level_0_has_its_calm_as_well(void **state)
{
    llm_token_t t = probing();

    (void) state;

    report(&t, LLM_CLASS_SUCCESS);
    recover();
    now += OPEN;
    call(LLM_CLASS_SUCCESS);
    assert_true(c.word >> 32 == 0);
    trip();
    assert_int_equal(view().level, 0);
}


static void
a_calm_that_ends_at_0_is_no_missing_calm(void **state)
{
    llm_token_t t;

    (void) state;

    now = (uint32_t) -2 * OPEN;
    t = probing();
    assert_int_equal(now, (uint32_t) -OPEN);
    report(&t, LLM_CLASS_SUCCESS);
    recover();
    now += OPEN / 2;
    trip();
    assert_int_equal(view().level, 1);
}


/* ---- throttle ---- */


static void
a_throttle_steers_away_and_is_no_failure(void **state)
{
    uint64_t word = c.word;

    (void) state;

    for (int i = 0; i < 10; i++) {
        call_hint(LLM_CLASS_THROTTLE, 2000);
        assert_true(c.word == word);
        assert_int_equal(tr.reason, LLM_REASON_NONE);
        refused(LLM_REFUSED_THROTTLED, 2000);
        assert_int_equal(view().throttled, 2000);
        now += 1999;
        refused(LLM_REFUSED_THROTTLED, 1);
        now += 1;
        assert_int_equal(view().throttled, 0);
        assert_int_equal(peek(), LLM_ADMITTED);
    }
}


static void
a_throttle_without_a_hint_lasts_five_seconds(void **state)
{
    (void) state;

    call(LLM_CLASS_THROTTLE);
    refused(LLM_REFUSED_THROTTLED, 5000);
}


static void
an_absurd_throttle_lasts_five_minutes_at_most(void **state)
{
    (void) state;

    call_hint(LLM_CLASS_THROTTLE, UINT32_MAX);
    refused(LLM_REFUSED_THROTTLED, 300000);
}


static void
a_shorter_throttle_does_not_shorten_a_longer_one(void **state)
{
    llm_token_t a = admitted();
    llm_token_t b = admitted();
    llm_token_t d = admitted();

    (void) state;

    report_hint(&a, LLM_CLASS_THROTTLE, 9000);
    report_hint(&b, LLM_CLASS_THROTTLE, 10);
    refused(LLM_REFUSED_THROTTLED, 9000);
    now += 5000;
    report(&d, LLM_CLASS_THROTTLE);
    refused(LLM_REFUSED_THROTTLED, 5000);
}


static void
a_throttle_that_ends_at_the_wrap_is_one(void **state)
{
    (void) state;

    now = (uint32_t) -300;
    call_hint(LLM_CLASS_THROTTLE, 300);
    refused(LLM_REFUSED_THROTTLED, 300);
    now += 300;
    assert_int_equal(ask(), LLM_ADMITTED);
}


static void
a_throttle_does_not_come_back_when_the_clock_wraps(void **state)
{
    (void) state;

    call_hint(LLM_CLASS_THROTTLE, 1000);
    now += 1000;
    call(LLM_CLASS_SUCCESS);
    now -= 500; /* seven weeks later */
    assert_int_equal(ask(), LLM_ADMITTED);
}


static void
a_late_throttle_is_heeded(void **state)
{
    llm_token_t slow = admitted();

    (void) state;

    trip();
    report_hint(&slow, LLM_CLASS_THROTTLE, 3000);
    assert_true(late);
    assert_int_equal(view().throttled, 3000);
    refused(LLM_REFUSED_OPEN, 3000);
}


static void
open_and_throttled_tells_the_longer_wait(void **state)
{
    llm_token_t slow = admitted();

    (void) state;

    trip();
    report_hint(&slow, LLM_CLASS_THROTTLE, 300);
    refused(LLM_REFUSED_OPEN, OPEN);
}


static void
a_throttled_circuit_that_is_due_stays_open(void **state)
{
    llm_token_t slow = admitted();

    (void) state;

    trip();
    report_hint(&slow, LLM_CLASS_THROTTLE, OPEN + 50);
    now += OPEN;
    refused(LLM_REFUSED_THROTTLED, 50);
    now += 50;
    assert_int_equal(admitted().kind, LLM_TOKEN_PROBE);
}


/* ---- the operator ---- */


static void
admin(llm_admin_t word)
{
    llm_circuit_view_t before = view();

    assert_true(llm_circuit_admin_for(&c, word, 0, now, &tr));
    moved(before.state, before.state, LLM_REASON_OPERATOR);
    assert_int_equal(view().admin, word);
    assert_int_equal(view().level, before.level);
    assert_int_equal(view().failures, before.failures);
    assert_int_equal(view().successes, before.successes);
    assert_int_equal(view().retry, before.retry);
    assert_int_equal(view().epoch, before.epoch + 1);
}


static void
the_same_word_twice_is_told_once(void **state)
{
    (void) state;

    assert_false(llm_circuit_admin_for(&c, LLM_ADMIN_AUTO, 0, now, &tr));
    assert_int_equal(tr.reason, LLM_REASON_NONE);

    admin(LLM_ADMIN_OPEN);
    assert_false(llm_circuit_admin_for(&c, LLM_ADMIN_OPEN, 0, now, &tr));
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    assert_int_equal(view().epoch, 1);
}


static void
forced_open_refuses_until_it_is_taken_back(void **state)
{
    (void) state;

    admin(LLM_ADMIN_OPEN);
    refused(LLM_REFUSED_FORCED, LLM_CIRCUIT_WAIT_UNKNOWN);
    now += 10000000;
    refused(LLM_REFUSED_FORCED, LLM_CIRCUIT_WAIT_UNKNOWN);
    admin(LLM_ADMIN_AUTO);
    assert_int_equal(admitted().kind, LLM_TOKEN_NORMAL);
}


static void
the_word_lasts(llm_admin_t word, uint64_t ms, uint64_t at)
{
    uint64_t left;

    assert_int_equal(llm_circuit_admin_now(&c, at, &left), word);
    assert_int_equal(left, ms);
}


static void
forced_open_refuses_where_the_circuit_is_off(void **state)
{
    (void) state;

    conf.off = true;
    admin(LLM_ADMIN_OPEN);
    refused(LLM_REFUSED_FORCED, LLM_CIRCUIT_WAIT_UNKNOWN);
    admin(LLM_ADMIN_OBSERVE);
    assert_int_equal(admitted().kind, LLM_TOKEN_NORMAL);
}


static void
a_word_with_an_end_is_taken_back_when_it_is_over(void **state)
{
    /* the longest there is, and more than 32 bits of a clock */
    uint64_t ms = UINT64_C(30) * 86400000, at = UINT64_C(5) << 32 | 100000;

    (void) state;

    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_OPEN, ms, at, &tr));
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_CLOSED, LLM_REASON_OPERATOR);
    the_word_lasts(LLM_ADMIN_OPEN, ms, at);

    at += ms - 1;
    assert_false(llm_circuit_admin_expire(&c, at, &tr));
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    the_word_lasts(LLM_ADMIN_OPEN, 1, at);
    refused(LLM_REFUSED_FORCED, LLM_CIRCUIT_WAIT_UNKNOWN);

    at++;
    the_word_lasts(LLM_ADMIN_AUTO, 0, at);
    refused(LLM_REFUSED_FORCED, LLM_CIRCUIT_WAIT_UNKNOWN);
    assert_true(llm_circuit_admin_expire(&c, at, &tr));
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_CLOSED, LLM_REASON_TTL);
    assert_false(llm_circuit_admin_expire(&c, at, &tr));
    the_word_lasts(LLM_ADMIN_AUTO, 0, at);
    assert_int_equal(admitted().kind, LLM_TOKEN_NORMAL);
    assert_int_equal(view().epoch, 2);
}


static void
a_word_may_get_another_end_or_lose_it(void **state)
{
    uint64_t at = 100000;

    (void) state;

    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_OBSERVE, 10, at, &tr));
    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_OBSERVE, 90, at, &tr));
    the_word_lasts(LLM_ADMIN_OBSERVE, 90, at);
    assert_false(llm_circuit_admin_expire(&c, at + 89, &tr));

    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_OBSERVE, 0, 100000, &tr));
    assert_false(llm_circuit_admin_for(&c, LLM_ADMIN_OBSERVE, 0, 100000, &tr));
    the_word_lasts(LLM_ADMIN_OBSERVE, 0, at + 90);
    assert_false(llm_circuit_admin_expire(&c, at + 1000, &tr));

    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_DISABLED, 10, at, &tr));
    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_AUTO, 0, at, &tr));
    the_word_lasts(LLM_ADMIN_AUTO, 0, at);
    assert_false(llm_circuit_admin_expire(&c, at + 1000, &tr));
}


static void
an_end_survives_everything_but_a_word(void **state)
{
    llm_circuit_t copy;
    uint64_t at = now, left;

    (void) state;

    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_OBSERVE, 1000, at, &tr));
    call(LLM_CLASS_CREDENTIAL);
    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);
    llm_circuit_reset(&c, now, &tr);
    the_word_lasts(LLM_ADMIN_OBSERVE, 1000, at);

    memset(&copy, 0, sizeof(copy));
    llm_circuit_copy(&copy, &c);
    assert_int_equal(llm_circuit_admin_now(&copy, at, &left),
        LLM_ADMIN_OBSERVE);
    assert_int_equal(left, 1000);
}


static void
an_operators_word_keeps_a_deadline(void **state)
{
    (void) state;

    trip();
    now += 100;
    admin(LLM_ADMIN_OPEN);
    assert_int_equal(tr.duration, OPEN - 100);
    now += 100;
    admin(LLM_ADMIN_AUTO);
    refused(LLM_REFUSED_OPEN, OPEN - 200);
}


static void
disabled_admits_whatever_happens(void **state)
{
    (void) state;

    trip();
    admin(LLM_ADMIN_DISABLED);

    for (int i = 0; i < 100; i++) {
        uint64_t word = c.word;

        assert_int_equal(peek(), LLM_ADMITTED);
        assert_int_equal(admitted().kind, LLM_TOKEN_NORMAL);
        report_hint(&token, (llm_class_t) (i % LLM_CLASSES), 60000);
        assert_false(late);
        assert_int_equal(tr.reason, LLM_REASON_NONE);
        assert_true(c.word == word);
    }
}


static void
disabled_counts_no_failure_and_opens_for_none(void **state)
{
    (void) state;

    call(LLM_CLASS_FAILURE);
    admin(LLM_ADMIN_DISABLED);

    for (int i = 0; i < 100; i++) {
        call(LLM_CLASS_FAILURE);
        call(LLM_CLASS_CREDENTIAL);
        llm_circuit_break(&c, &conf, &token, now, 0, &late, &tr);
        assert_int_equal(tr.reason, LLM_REASON_NONE);
        assert_int_equal(view().failures, 1);
        assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    }
}


static void
a_throttle_outlives_a_while_of_being_disabled(void **state)
{
    (void) state;

    call_hint(LLM_CLASS_THROTTLE, 4000);
    admin(LLM_ADMIN_DISABLED);
    call(LLM_CLASS_SUCCESS);
    admin(LLM_ADMIN_AUTO);
    refused(LLM_REFUSED_THROTTLED, 4000);
}


static void
a_circuit_that_is_switched_off_is_closed(void **state)
{
    llm_token_t late_one = admitted();

    (void) state;

    trip();
    c.throttle = (uint64_t) 1 << 32 | (now + 1000);
    assert_int_not_equal(view().throttled, 0);
    assert_false(llm_circuit_switch_off(&c, &conf, now, &tr));
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);

    conf.off = true;
    assert_true(llm_circuit_switch_off(&c, &conf, now, &tr));
    assert_int_equal(tr.from, LLM_CIRCUIT_OPEN);
    assert_int_equal(tr.to, LLM_CIRCUIT_CLOSED);
    assert_int_equal(tr.reason, LLM_REASON_OFF);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    assert_int_equal(view().reason, LLM_REASON_OFF);
    assert_int_equal(view().throttled, 0);
    assert_int_equal(view().level, 0);
    assert_false(llm_circuit_switch_off(&c, &conf, now, &tr));

    report(&late_one, LLM_CLASS_FAILURE);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);

    /* a worker of before the reload opens it once more */
    conf.off = false;
    trip();
    conf.off = true;
    assert_int_equal(admitted().kind, LLM_TOKEN_NORMAL);
    assert_int_equal(tr.reason, LLM_REASON_OFF);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);

    /* switched on again it begins anew */
    conf.off = false;
    assert_int_equal(admitted().kind, LLM_TOKEN_NORMAL);
}


static void
a_circuit_that_is_off_admits_and_writes_nothing(void **state)
{
    llm_circuit_t before;

    (void) state;

    conf.off = true;
    before = c;

    for (int i = 0; i < 100; i++) {
        llm_token_t t;

        assert_int_equal(peek(), LLM_ADMITTED);
        t = admitted();
        assert_int_equal(t.kind, LLM_TOKEN_NORMAL);
        report_hint(&t, (llm_class_t) (i % LLM_CLASSES), 60000);
        llm_circuit_break(&c, &conf, &t, now, 0, &late, &tr);
        assert_false(late);
        assert_int_equal(tr.reason, LLM_REASON_NONE);
    }

    assert_memory_equal(&c, &before, sizeof(c));
}


static void
a_probe_of_before_the_reload_frees_its_permit_when_off(void **state)
{
    llm_token_t t = probing();

    (void) state;

    conf.off = true;
    report(&t, LLM_CLASS_FAILURE);
    assert_int_equal(view().state, LLM_CIRCUIT_HALF_OPEN);
    assert_int_equal(view().probes, 0);
}


static void
observe_moves_as_always_and_refuses_nobody(void **state)
{
    llm_token_t probe, t;

    (void) state;

    admin(LLM_ADMIN_OBSERVE);
    trip();
    assert_int_equal(tr.reason, LLM_REASON_FAILURE_THRESHOLD);

    assert_int_equal(peek(), LLM_ADMITTED);
    assert_int_equal(wait, 0);
    assert_int_equal(view().retry, OPEN);
    assert_int_equal(admitted().kind, LLM_TOKEN_NORMAL);
    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);

    /* calls that would not have been made say nothing */
    for (int i = 0; i < 10; i++) {
        uint64_t word = c.word;

        t = admitted();
        report_hint(&t, i % 2 ? LLM_CLASS_SUCCESS : LLM_CLASS_FAILURE, 90000);
        assert_false(late);
        assert_true(c.word == word);
    }

    now += OPEN;
    probe = admitted();
    assert_int_equal(probe.kind, LLM_TOKEN_PROBE);
    assert_int_equal(tr.reason, LLM_REASON_OPEN_ELAPSED);
    assert_int_equal(peek(), LLM_ADMITTED);

    t = admitted();
    assert_int_equal(t.kind, LLM_TOKEN_NORMAL);
    report(&t, LLM_CLASS_SUCCESS);
    assert_int_equal(view().successes, 0);
    assert_int_equal(view().probes, 1);

    report(&probe, LLM_CLASS_SUCCESS);
    assert_int_equal(view().successes, 1);
    call(LLM_CLASS_SUCCESS);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_CLOSED, LLM_REASON_RECOVERED);
    assert_int_equal(view().admin, LLM_ADMIN_OBSERVE);
}


static void
observe_heeds_a_failure_beside_the_probe(void **state)
{
    llm_token_t t;

    (void) state;

    admin(LLM_ADMIN_OBSERVE);
    (void) probing();
    t = admitted();
    assert_int_equal(t.kind, LLM_TOKEN_NORMAL);
    report(&t, LLM_CLASS_FAILURE);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_OPEN, LLM_REASON_PROBE_FAILED);
}


static void
observe_is_not_throttled(void **state)
{
    (void) state;

    admin(LLM_ADMIN_OBSERVE);
    call_hint(LLM_CLASS_THROTTLE, 2000);
    assert_int_equal(view().throttled, 2000);
    assert_int_equal(peek(), LLM_ADMITTED);
    assert_int_equal(wait, 0);
    assert_int_equal(admitted().kind, LLM_TOKEN_NORMAL);

    /* nor does it probe where it would have been */
    trip();
    now += OPEN;
    assert_int_equal(admitted().kind, LLM_TOKEN_NORMAL);
    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);
    now += 2000;
    assert_int_equal(admitted().kind, LLM_TOKEN_PROBE);
}


static void
an_operators_word_voids_a_running_probe(void **state)
{
    llm_token_t t = probing();
    uint64_t word;

    (void) state;

    admin(LLM_ADMIN_OPEN);
    admin(LLM_ADMIN_AUTO);
    assert_int_equal(view().state, LLM_CIRCUIT_HALF_OPEN);
    assert_int_equal(view().probes, 0);
    word = c.word;

    report(&t, LLM_CLASS_FAILURE);
    assert_true(late);
    assert_true(c.word == word);
    assert_int_equal(admitted().kind, LLM_TOKEN_PROBE);
}


static void
a_reset_closes_and_forgets_all_but_the_operators_word(void **state)
{
    llm_token_t probe, slow = admitted();

    (void) state;

    report_hint(&slow, LLM_CLASS_THROTTLE, 90000);
    now += 90000;
    climb(2);
    now += view().retry;
    call(LLM_CLASS_SUCCESS);
    probe = admitted();
    report_hint(&probe, LLM_CLASS_THROTTLE, 90000);
    admin(LLM_ADMIN_OBSERVE);

    llm_circuit_reset(&c, now, &tr);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_CLOSED, LLM_REASON_RESET);
    assert_int_equal(view().level, 0);
    assert_int_equal(view().failures, 0);
    assert_int_equal(view().throttled, 0);
    assert_int_equal(view().admin, LLM_ADMIN_OBSERVE);
    assert_true(c.word >> 32 == 0);

    admin(LLM_ADMIN_AUTO);
    assert_int_equal(peek(), LLM_ADMITTED);
    trip();
    assert_int_equal(view().level, 0);
}


static void
verdicts_of_before_a_reset_are_late(void **state)
{
    llm_token_t t = admitted();

    (void) state;

    call(LLM_CLASS_FAILURE);
    call(LLM_CLASS_FAILURE);
    llm_circuit_reset(&c, now, &tr);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_CLOSED, LLM_REASON_RESET);

    report(&t, LLM_CLASS_FAILURE);
    assert_true(late);
    assert_int_equal(view().failures, 0);
}


/* ---- streams that break ---- */


static void
a_broken_stream_is_one_failure(void **state)
{
    llm_token_t t = admitted();

    (void) state;

    report(&t, LLM_CLASS_SUCCESS);
    call(LLM_CLASS_FAILURE);

    llm_circuit_break(&c, &conf, &t, now, 0, &late, &tr);
    assert_false(late);
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    assert_int_equal(view().failures, 2);

    llm_circuit_break(&c, &conf, &t, now, 0, &late, &tr);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_THRESHOLD);

    llm_circuit_break(&c, &conf, &t, now, 0, &late, &tr);
    assert_true(late);
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    assert_int_equal(view().epoch, 1);
}


static void
a_probes_broken_stream_reopens_and_frees_no_permit(void **state)
{
    llm_token_t t = probing();

    (void) state;

    report(&t, LLM_CLASS_SUCCESS);
    (void) admitted();
    assert_int_equal(view().probes, 1);

    llm_circuit_break(&c, &conf, &t, now, 0, &late, &tr);
    assert_false(late);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_OPEN, LLM_REASON_PROBE_FAILED);
}


static void
a_stream_that_outlived_its_episode_breaks_nothing(void **state)
{
    llm_token_t t = probing();
    uint64_t word;

    (void) state;

    report(&t, LLM_CLASS_SUCCESS);
    recover();
    word = c.word;
    llm_circuit_break(&c, &conf, &t, now, 0, &late, &tr);
    assert_true(late);
    assert_true(c.word == word);
}


/* ---- clocks and wraps ---- */


static void
every_step_works_across_the_wrap_of_the_clock(void **state)
{
    (void) state;

    for (uint32_t before = 0; before < 8 * OPEN; before += 37) {
        llm_token_t t;

        (void) setup(NULL);
        now = (uint32_t) 0 - before;

        trip();
        refused(LLM_REFUSED_OPEN, OPEN);
        now += OPEN - 1;
        refused(LLM_REFUSED_OPEN, 1);
        now += 1;
        t = admitted();
        refused(LLM_REFUSED_HALF_OPEN, LEASE);
        now += LEASE;
        report(&t, LLM_CLASS_FAILURE);
        now += 2 * OPEN - 1;
        refused(LLM_REFUSED_OPEN, 1);
        now += 1;
        recover();
    }
}


static void
a_circuit_that_was_never_open_is_in_no_calm_at_any_time(void **state)
{
    static const uint32_t times[] = { 0, 1, INT32_MAX, (uint32_t) INT32_MAX + 1,
        (uint32_t) -1, (uint32_t) -OPEN, (uint32_t) -OPEN_MAX };

    (void) state;

    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        (void) setup(NULL);
        now = times[i];
        assert_int_equal(peek(), LLM_ADMITTED);
        trip();
        assert_int_equal(view().level, 0);
        refused(LLM_REFUSED_OPEN, OPEN);
    }
}


static void
every_step_works_across_the_wrap_of_the_epoch(void **state)
{
    (void) state;

    for (uint32_t epoch = 65530; epoch < 65536; epoch++) {
        llm_token_t slow, t;

        (void) setup(NULL);
        c.word = (uint64_t) epoch << 16;
        c.cause = (uint64_t) epoch << 16;

        slow = admitted();
        trip();
        assert_int_equal(view().reason, LLM_REASON_FAILURE_THRESHOLD);
        now += OPEN;
        t = admitted();
        assert_int_equal(t.kind, LLM_TOKEN_PROBE);
        refused(LLM_REFUSED_HALF_OPEN, LEASE);
        report(&slow, LLM_CLASS_FAILURE);
        assert_true(late);
        report(&t, LLM_CLASS_FAILURE);
        assert_int_equal(view().reason, LLM_REASON_PROBE_FAILED);
        now += 2 * OPEN;
        recover();
        assert_int_equal(view().reason, LLM_REASON_RECOVERED);
        trip();
        now += 4 * OPEN;
        recover();
        assert_int_equal(view().epoch, (epoch + 8) % 65536);
        assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
        assert_int_equal(view().admin, LLM_ADMIN_AUTO);
    }
}


static void
seventy_thousand_transitions_do_not_wear_it_out(void **state)
{
    (void) state;

    trip();

    for (int i = 0; i < 35000; i++) {
        now += view().retry;
        call(LLM_CLASS_FAILURE);
        assert_int_equal(tr.reason, LLM_REASON_PROBE_FAILED);
    }

    assert_int_equal(view().epoch, 70001 % 65536);
    assert_int_equal(view().reason, LLM_REASON_PROBE_FAILED);
    now += view().retry;
    recover();
}


static void
a_year_idle_then_one_failure(void **state)
{
    static const uint64_t year = UINT64_C(365) * 86400 * 1000;

    (void) state;

    climb(3);
    now += view().retry;
    recover();
    now += OPEN_MAX;
    call(LLM_CLASS_SUCCESS);

    now += (uint32_t) year;
    call(LLM_CLASS_FAILURE);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    assert_int_equal(view().failures, 1);
    call(LLM_CLASS_FAILURE);
    call(LLM_CLASS_FAILURE);
    assert_int_equal(view().level, 0);

    now += (uint32_t) year;
    assert_int_equal(admitted().kind, LLM_TOKEN_PROBE);
}


static void
a_failure_after_the_calm_ends_it_for_good(void **state)
{
    (void) state;

    climb(1);
    now += view().retry;
    recover();
    now += OPEN_MAX;
    call(LLM_CLASS_FAILURE);
    assert_int_equal(view().level, 0);
    assert_true(c.word >> 32 == 0);
}


static void
a_worker_whose_clock_lags_agrees_on_every_deadline(void **state)
{
    llm_token_t slow;

    (void) state;

    /* each at the longest there is, and then a second into the past */
    conf.open = conf.open_max = 1000000;
    conf.half_open_timeout = 400000;
    jitter = UINT32_MAX;

    slow = admitted();
    trip();
    now -= 1000;
    refused(LLM_REFUSED_OPEN, tr.duration + 1000);
    now += 1000;
    report_hint(&slow, LLM_CLASS_THROTTLE, LLM_CIRCUIT_HINT_MAX);
    now += tr.duration;
    slow = admitted();
    now -= 1000;
    refused(LLM_REFUSED_HALF_OPEN, 401000);
    now += 1000;
    report_hint(&slow, LLM_CLASS_THROTTLE, LLM_CIRCUIT_HINT_MAX);
    now -= 1000;
    refused(LLM_REFUSED_THROTTLED, LLM_CIRCUIT_HINT_MAX + 1000);
}


static void
a_lagging_clock_does_not_shorten_a_calm(void **state)
{
    (void) state;

    conf.open = conf.open_max = 1000000;
    trip();
    now += OPEN_MAX + 1000000;
    recover();
    now -= 1000;
    call(LLM_CLASS_SUCCESS);
    trip();
    assert_int_equal(view().level, 1);
}


static void
a_deadline_no_configuration_allows_has_elapsed(void **state)
{
    (void) state;

    conf.open = conf.open_max = LLM_CIRCUIT_LONGEST;
    trip();
    conf.open = conf.open_max = 1000;
    assert_int_equal(peek(), LLM_ADMITTED);
    assert_int_equal(view().retry, 0);
    assert_int_equal(admitted().kind, LLM_TOKEN_PROBE);
}


/* ---- reload ---- */


static void
a_lower_failure_threshold_holds_from_the_next_failure(void **state)
{
    (void) state;

    conf.failure_threshold = 200;

    for (int i = 0; i < 100; i++) {
        call(LLM_CLASS_FAILURE);
    }

    conf.failure_threshold = 2;
    call(LLM_CLASS_SUCCESS);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);

    conf.failure_threshold = 200;

    for (int i = 0; i < 100; i++) {
        call(LLM_CLASS_FAILURE);
    }

    conf.failure_threshold = 2;
    call(LLM_CLASS_FAILURE);
    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);
}


static void
a_lower_success_threshold_holds_from_the_next_success(void **state)
{
    llm_token_t t;

    (void) state;

    conf.success_threshold = 10;
    t = probing();
    report(&t, LLM_CLASS_SUCCESS);
    call(LLM_CLASS_SUCCESS);
    call(LLM_CLASS_SUCCESS);
    conf.success_threshold = 1;
    call(LLM_CLASS_SUCCESS);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
}


static void
a_higher_threshold_goes_on_counting(void **state)
{
    (void) state;

    call(LLM_CLASS_FAILURE);
    call(LLM_CLASS_FAILURE);
    conf.failure_threshold = 5;
    call(LLM_CLASS_FAILURE);
    call(LLM_CLASS_FAILURE);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    call(LLM_CLASS_FAILURE);
    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);
}


static void
fewer_permits_after_a_reload_still_close_the_circuit(void **state)
{
    llm_token_t t[3];

    (void) state;

    conf.half_open_max_calls = 3;
    t[0] = probing();
    t[1] = admitted();
    t[2] = admitted();
    conf.half_open_max_calls = 1;
    assert_int_equal(view().probes, 3);
    assert_int_equal(ask(), LLM_REFUSED_HALF_OPEN);
    report(&t[2], LLM_CLASS_SUCCESS);
    report(&t[1], LLM_CLASS_SUCCESS);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    report(&t[0], LLM_CLASS_SUCCESS);
    assert_true(late);
}


static void
a_shorter_lease_after_a_reload_takes_no_running_probes_permit(void **state)
{
    (void) state;

    conf.half_open_timeout = 60000;
    (void) probing();
    conf.half_open_timeout = 1000;
    refused(LLM_REFUSED_HALF_OPEN, 60000);
}


/* ---- the rate of failures ---- */


static void
by_rate(uint32_t percent)
{
    conf.failure_threshold = 255;
    conf.failure_rate = percent;
    conf.window = WINDOW;
    conf.min_requests = 20;
}


static void
counted(uint32_t requests, uint32_t failures)
{
    assert_int_equal(view().rate.requests, requests);
    assert_int_equal(view().rate.failures, failures);
}


static void
calls(uint32_t n, llm_class_t class)
{
    while (n-- > 0) {
        assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
        call(class);
    }
}


static void
every_second_failure_opens_at_the_request_that_is_enough(void **state)
{
    (void) state;

    by_rate(50);

    for (uint32_t i = 0; i < 9; i++) {
        calls(1, LLM_CLASS_SUCCESS);
        calls(1, LLM_CLASS_FAILURE);
        counted(2 * i + 2, i + 1);
        now += WINDOW / 20;
    }

    calls(1, LLM_CLASS_SUCCESS);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    call(LLM_CLASS_FAILURE);
    assert_false(late);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_RATE);
    assert_int_equal(tr.duration, OPEN);
    assert_int_equal(view().epoch, 1);
    counted(0, 0);
    refused(LLM_REFUSED_OPEN, OPEN);
}


static void
a_rate_just_below_does_not_open(void **state)
{
    (void) state;

    by_rate(51);

    for (int i = 0; i < 1000; i++) {
        calls(1, LLM_CLASS_SUCCESS);
        calls(1, LLM_CLASS_FAILURE);
        now += 3;
    }

    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    assert_int_equal(view().epoch, 0);
}


static void
no_rate_is_judged_before_enough_requests(void **state)
{
    (void) state;

    by_rate(1);
    calls(19, LLM_CLASS_FAILURE);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    counted(19, 19);
    call(LLM_CLASS_FAILURE);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_RATE);
}


static void
no_circuit_opens_on_a_success(void **state)
{
    (void) state;

    by_rate(50);
    calls(15, LLM_CLASS_FAILURE);
    calls(10, LLM_CLASS_SUCCESS);
    counted(25, 15);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    call(LLM_CLASS_FAILURE);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_RATE);
}


static void
where_both_thresholds_are_reached_failures_in_a_row_are_named(void **state)
{
    (void) state;

    by_rate(50);
    conf.failure_threshold = 20;
    calls(20, LLM_CLASS_FAILURE);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_THRESHOLD);

    /* and it opens beside the rate as without it */
    (void) setup(NULL);
    by_rate(50);
    conf.failure_threshold = 3;
    trip();
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_THRESHOLD);
}


static void
a_callers_mistakes_and_throttles_are_not_in_the_window(void **state)
{
    (void) state;

    by_rate(50);

    for (int i = 0; i < 50; i++) {
        call(LLM_CLASS_NEUTRAL);
        call(LLM_CLASS_CAPABILITY);
        call_hint(LLM_CLASS_THROTTLE, 1);
        now += 1;
    }

    counted(0, 0);
}


static void
with_a_rate_a_healthy_success_writes_its_bucket_only(void **state)
{
    llm_circuit_t before = c;

    (void) state;

    by_rate(50);
    call(LLM_CLASS_SUCCESS);
    assert_false(late);
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    counted(1, 0);
    memset(&c.rate, 0, sizeof(c.rate));
    assert_memory_equal(&c, &before, offsetof(llm_circuit_t, rate));

    /* and without one, none */
    conf.failure_rate = 0;
    call(LLM_CLASS_FAILURE);
    call(LLM_CLASS_SUCCESS);
    assert_memory_equal(&c.rate, &before.rate, sizeof(c.rate));
    counted(0, 0);
}


static void
failures_of_long_ago_open_nothing(void **state)
{
    (void) state;

    by_rate(50);

    for (int i = 0; i < 50; i++) {
        calls(1, LLM_CLASS_SUCCESS);
        calls(18, LLM_CLASS_FAILURE);
        counted(19, 18);
        now += WINDOW;
        counted(0, 0);
    }
}


static void
a_window_starts_afresh_when_the_circuit_closes(void **state)
{
    llm_token_t slow;
    llm_rate_t before;

    (void) state;

    by_rate(50);
    conf.window = LLM_RATE_LONGEST;
    slow = admitted();
    calls(20, LLM_CLASS_FAILURE);
    assert_int_equal(tr.reason, LLM_REASON_FAILURE_RATE);

    /* probes are not in it */
    now += OPEN;
    before = c.rate;
    recover();
    assert_memory_equal(&c.rate, &before, sizeof(before.bucket));
    counted(0, 0);

    report(&slow, LLM_CLASS_FAILURE);
    assert_true(late);
    counted(0, 0);

    calls(19, LLM_CLASS_FAILURE);
    counted(19, 19);
    call(LLM_CLASS_FAILURE);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_RATE);

    /* it was in the calm: the rate knows it as well */
    assert_int_equal(view().level, 1);
    assert_int_equal(tr.duration, 2 * OPEN);
}


static void
a_window_starts_afresh_with_a_word_and_a_reset(void **state)
{
    (void) state;

    by_rate(50);
    calls(19, LLM_CLASS_FAILURE);
    llm_circuit_reset(&c, now, &tr);
    counted(0, 0);
    calls(19, LLM_CLASS_FAILURE);
    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_OBSERVE, 0, now, &tr));
    counted(0, 0);
    calls(20, LLM_CLASS_FAILURE);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_RATE);
}


static void
a_broken_stream_is_the_failure_of_a_request_that_was_counted(void **state)
{
    (void) state;

    by_rate(100);

    for (uint32_t i = 0; i < 20; i++) {
        llm_token_t t = admitted();

        assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
        report(&t, LLM_CLASS_SUCCESS);
        counted(i + 1, i);
        llm_circuit_break(&c, &conf, &t, now, 0, &late, &tr);
        assert_false(late);
    }

    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_RATE);
}


static void
two_simultaneous_failures_that_reach_the_rate_are_one_transition(void **state)
{
    llm_token_t a, b;

    (void) state;

    by_rate(50);
    calls(19, LLM_CLASS_FAILURE);
    a = admitted();
    b = admitted();

    report(&a, LLM_CLASS_FAILURE);
    assert_int_equal(tr.reason, LLM_REASON_FAILURE_RATE);

    report(&b, LLM_CLASS_FAILURE);
    assert_int_equal(tr.reason, LLM_REASON_NONE);
    assert_true(late);
    assert_int_equal(view().epoch, 1);
}


static void
disabled_and_off_put_nothing_into_the_window(void **state)
{
    (void) state;

    by_rate(50);
    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_DISABLED, 0, now, &tr));
    calls(10, LLM_CLASS_SUCCESS);
    calls(50, LLM_CLASS_FAILURE);
    counted(0, 0);

    llm_circuit_reset(&c, now, &tr);
    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_AUTO, 0, now, &tr));
    conf.off = true;
    calls(10, LLM_CLASS_SUCCESS);
    calls(50, LLM_CLASS_FAILURE);
    counted(0, 0);
}


static void
another_rate_after_a_reload_holds_from_the_next_failure(void **state)
{
    (void) state;

    by_rate(90);

    for (int i = 0; i < 50; i++) {
        calls(1, LLM_CLASS_SUCCESS);
        calls(1, LLM_CLASS_FAILURE);
    }

    conf.failure_rate = 40;
    conf.min_requests = 200;
    call(LLM_CLASS_FAILURE);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    conf.min_requests = 100;
    call(LLM_CLASS_SUCCESS);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    call(LLM_CLASS_FAILURE);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_RATE);
}


/* What happens is put on a list, and the list says what must happen. */
static void
a_rate_that_a_reload_takes_away_opens_nothing(void **state)
{
    (void) state;

    by_rate(90);

    for (int i = 0; i < 50; i++) {
        calls(1, LLM_CLASS_SUCCESS);
        calls(1, LLM_CLASS_FAILURE);
    }

    conf.failure_rate = 0;
    conf.min_requests = 0;
    conf.window = 0;
    calls(1, LLM_CLASS_FAILURE);
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    counted(0, 0);
}


static void
any_story_of_failures_is_judged_as_a_list_of_it_would(void **state)
{
    static struct {
        uint32_t time;
        bool failed;
    } list[STORY];
    uint32_t n = 0, in_a_row = 0, rates = 0, rows = 0;

    (void) state;

    by_rate(60);
    conf.failure_threshold = 6;
    srand(4711);

    for (int i = 0; i < 200000; i++) {
        uint32_t requests = 0, failures = 0, since;
        llm_reason_t reason = LLM_REASON_NONE;

        now += (uint32_t) rand()
               % (rand() % 99 == 0 ? 2 * WINDOW : WINDOW / 40);
        since = now / (WINDOW / 10) * (WINDOW / 10) - WINDOW / 10 * 9;

        assert_true(n < STORY);
        list[n].time = now;
        list[n].failed = rand() % 100 < 45;
        in_a_row = list[n].failed ? in_a_row + 1 : 0;
        n++;

        for (uint32_t k = n; k > 0 && list[k - 1].time >= since; k--) {
            requests++;
            failures += list[k - 1].failed;
        }

        if (in_a_row >= conf.failure_threshold) {
            reason = LLM_REASON_FAILURE_THRESHOLD;
            rows++;

        } else if (list[n - 1].failed && requests >= conf.min_requests
                   && failures * 100 >= requests * conf.failure_rate)
        {
            reason = LLM_REASON_FAILURE_RATE;
            rates++;
        }

        call(list[n - 1].failed ? LLM_CLASS_FAILURE : LLM_CLASS_SUCCESS);
        assert_int_equal(tr.reason, reason);

        if (reason == LLM_REASON_NONE) {
            counted(requests, failures);

        } else {
            now += view().retry;
            recover();
            n = 0;
            in_a_row = 0;
        }

        if (n == STORY) {
            llm_circuit_reset(&c, now, &tr);
            n = 0;
            in_a_row = 0;
        }
    }

    assert_true(rates > 100);
    assert_true(rows > 100);
}


/* ---- the slow start ---- */


/* Of 1000 calls that ask, how many are not shed? */
static uint32_t
share(void)
{
    uint32_t taken = 0;

    for (uint32_t i = 0; i < 1000; i++) {
        taken += !llm_circuit_shed(&c, &conf, now,
            (uint32_t) ((UINT64_C(0x100000000) * i + 500) / 1000));
    }

    return taken;
}


static void
start_slowly(void)
{
    conf.slow_start = SLOW;
    trip();
    now += OPEN;
    recover();
}


static void
a_circuit_that_recovered_takes_its_share_linearly(void **state)
{
    (void) state;

    start_slowly();
    assert_int_equal(tr.reason, LLM_REASON_RECOVERED);

    for (uint32_t tenth = 0; tenth <= 10; tenth++) {
        assert_in_range(share(), 100 + 90 * tenth - 1, 100 + 90 * tenth + 1);
        now += SLOW / 10;
    }

    assert_int_equal(share(), 1000);
}


static void
the_largest_and_the_smallest_slow_start_are_linear_too(void **state)
{
    (void) state;

    conf.slow_start = 1;
    start_slowly();
    conf.slow_start = LLM_CIRCUIT_LONGEST;
    assert_in_range(share(), 99, 101);
    now += LLM_CIRCUIT_LONGEST / 2;
    assert_in_range(share(), 549, 551);
    now += LLM_CIRCUIT_LONGEST / 2 - 1;
    assert_int_equal(share(), 1000);

    (void) setup(NULL);
    start_slowly();
    conf.slow_start = 1;
    assert_in_range(share(), 99, 101);
    now += 1;
    assert_int_equal(share(), 1000);
}


static void
who_has_nobody_else_is_served_in_a_slow_start(void **state)
{
    (void) state;

    start_slowly();
    assert_true(llm_circuit_shed(&c, &conf, now, UINT32_MAX));
    assert_int_equal(peek(), LLM_ADMITTED);
    assert_int_equal(wait, 0);
    assert_int_equal(admitted().kind, LLM_TOKEN_NORMAL);
}


static void
asking_in_a_slow_start_writes_nothing(void **state)
{
    llm_circuit_t before;

    (void) state;

    start_slowly();
    before = c;

    for (uint32_t i = 0; i < SLOW; i++) {
        (void) share();
        now++;
    }

    assert_memory_equal(&c, &before, sizeof(c));
}


static void
without_a_recovery_nothing_starts_slowly(void **state)
{
    (void) state;

    conf.slow_start = SLOW;
    now = 0;
    assert_int_equal(share(), 1000);

    /* neither open nor half-open, where permits do it */
    trip();
    assert_int_equal(share(), 1000);
    now += OPEN;
    (void) admitted();
    assert_int_equal(view().state, LLM_CIRCUIT_HALF_OPEN);
    assert_int_equal(share(), 1000);

    llm_circuit_reset(&c, now, &tr);
    assert_int_equal(share(), 1000);

    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_OPEN, 0, now, &tr));
    assert_int_equal(share(), 1000);
    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_AUTO, 0, now, &tr));
    assert_int_equal(share(), 1000);
}


static void
a_slow_start_ends_with_a_trip_a_reset_and_an_operators_word(void **state)
{
    (void) state;

    start_slowly();
    trip();
    assert_int_equal(share(), 1000);

    (void) setup(NULL);
    start_slowly();
    llm_circuit_reset(&c, now, &tr);
    assert_int_equal(share(), 1000);

    (void) setup(NULL);
    start_slowly();
    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_DISABLED, 0, now, &tr));
    assert_int_equal(share(), 1000);
    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_AUTO, 0, now, &tr));
    assert_int_equal(share(), 1000);
}


/* The process that moved it was killed before it said why. */
static void
a_slow_start_is_of_the_epoch_that_recovered(void **state)
{
    (void) state;

    start_slowly();
    assert_in_range(share(), 99, 101);
    c.word += 1 << 16;
    assert_int_equal(share(), 1000);
}


static void
who_must_not_be_refused_is_not_shed(void **state)
{
    (void) state;

    start_slowly();
    conf.off = true;
    assert_int_equal(share(), 1000);
    conf.off = false;
    conf.slow_start = 0;
    assert_int_equal(share(), 1000);

    (void) setup(NULL);
    assert_true(llm_circuit_admin_for(&c, LLM_ADMIN_OBSERVE, 0, now, &tr));
    start_slowly();
    assert_int_equal(tr.reason, LLM_REASON_RECOVERED);
    assert_int_equal(share(), 1000);
}


static void
every_recovery_starts_slowly_anew(void **state)
{
    (void) state;

    for (int i = 0; i < 3; i++) {
        start_slowly();
        assert_in_range(share(), 99, 101);
        now += SLOW;
        assert_int_equal(share(), 1000);
    }
}


static void
a_slow_start_that_is_over_does_not_come_back(void **state)
{
    (void) state;

    start_slowly();
    now += SLOW;
    assert_int_equal(share(), 1000);
    assert_int_equal(view().reason, LLM_REASON_RECOVERED);

    /* seven weeks later, or after a reload */
    now -= SLOW;
    assert_int_equal(share(), 1000);
    conf.slow_start = 100 * SLOW;
    assert_int_equal(share(), 1000);
    assert_int_equal(view().reason, LLM_REASON_RECOVERED);
}


static void
a_year_idle_is_no_slow_start(void **state)
{
    static const uint64_t year = UINT64_C(365) * 86400 * 1000;

    (void) state;

    start_slowly();
    now += (uint32_t) year;
    assert_int_equal(share(), 1000);
}


static void
a_slow_start_works_across_the_wrap_of_the_clock(void **state)
{
    (void) state;

    for (uint32_t before = 0; before <= OPEN + SLOW; before += SLOW / 5) {
        (void) setup(NULL);
        now = (uint32_t) 0 - before;
        start_slowly();
        assert_in_range(share(), 99, 101);
        now += SLOW / 2;
        assert_in_range(share(), 549, 551);
        now += SLOW / 2;
        assert_int_equal(share(), 1000);
    }
}


static void
a_clock_that_lags_does_not_end_a_slow_start(void **state)
{
    (void) state;

    start_slowly();
    now -= 1000;
    assert_in_range(share(), 99, 101);
    now += 1000 + SLOW / 2;
    assert_in_range(share(), 549, 551);
}


/* ---- slow answers ---- */


/* The caller has a limit of its own, and calls what is slower a failure. */
static void
an_answer_that_was_too_slow_reopens_after_good_probes(void **state)
{
    llm_token_t slow;

    (void) state;

    conf.success_threshold = 5;
    slow = probing();

    for (int i = 0; i < 4; i++) {
        now += LEASE;
        call(LLM_CLASS_SUCCESS);
    }

    assert_int_equal(view().successes, 4);
    report(&slow, LLM_CLASS_FAILURE);
    assert_false(late);
    moved(LLM_CIRCUIT_HALF_OPEN, LLM_CIRCUIT_OPEN, LLM_REASON_PROBE_FAILED);
    assert_int_equal(view().level, 1);
}


/* ---- copies ---- */


static void
a_copy_goes_on_where_the_circuit_was(void **state)
{
    llm_circuit_t copy;

    (void) state;

    by_rate(50);
    conf.slow_start = SLOW;
    conf.open_max = OPEN_MAX;
    call_hint(LLM_CLASS_CREDENTIAL, 0);
    now += OPEN_MAX;
    recover();
    calls(19, LLM_CLASS_FAILURE);
    call_hint(LLM_CLASS_THROTTLE, 300);

    memset(&copy, 0, sizeof(copy));
    llm_circuit_copy(&copy, &c);
    c = copy;

    counted(19, 19);
    assert_in_range(share(), 99, 101);
    refused(LLM_REFUSED_THROTTLED, 300);
    now += 300;
    call(LLM_CLASS_FAILURE);
    moved(LLM_CIRCUIT_CLOSED, LLM_CIRCUIT_OPEN, LLM_REASON_FAILURE_RATE);
    assert_int_equal(view().level, 1);
}


/* ---- words ---- */


static void
every_state_has_its_name_on_the_status_page(void **state)
{
    (void) state;

    assert_string_equal(llm_circuit_state_name(LLM_CIRCUIT_CLOSED), "closed");
    assert_string_equal(llm_circuit_state_name(LLM_CIRCUIT_OPEN), "open");
    assert_string_equal(llm_circuit_state_name(LLM_CIRCUIT_HALF_OPEN),
        "half_open");
    assert_string_equal(llm_admin_name(LLM_ADMIN_AUTO), "auto");
    assert_string_equal(llm_admin_name(LLM_ADMIN_OPEN), "open");
    assert_string_equal(llm_admin_name(LLM_ADMIN_DISABLED), "disabled");
    assert_string_equal(llm_admin_name(LLM_ADMIN_OBSERVE), "observe");
    assert_string_equal(llm_reason_name(LLM_REASON_NONE), "none");
    assert_string_equal(llm_reason_name(LLM_REASON_FAILURE_THRESHOLD),
        "failure_threshold");
    assert_string_equal(llm_reason_name(LLM_REASON_FAILURE_RATE),
        "failure_rate");
    assert_string_equal(llm_reason_name(LLM_REASON_CREDENTIAL), "credential");
    assert_string_equal(llm_reason_name(LLM_REASON_PROBE_FAILED),
        "probe_failed");
    assert_string_equal(llm_reason_name(LLM_REASON_OPEN_ELAPSED),
        "open_elapsed");
    assert_string_equal(llm_reason_name(LLM_REASON_RECOVERED), "recovered");
    assert_string_equal(llm_reason_name(LLM_REASON_OPERATOR), "operator");
    assert_string_equal(llm_reason_name(LLM_REASON_RESET), "reset");
    assert_string_equal(llm_reason_name(LLM_REASON_TTL), "ttl");
    assert_string_equal(llm_reason_name(LLM_REASON_PROBED), "probe_succeeded");
    assert_string_equal(llm_reason_name(LLM_REASON_OFF), "off");
    assert_string_equal(llm_reason_name((llm_reason_t) 99), "unknown");
}


#define TEST(f) cmocka_unit_test_setup(f, setup)


int
main(void)
{
    const struct CMUnitTest tests[] = { TEST(zeroed_memory_is_a_closed_circuit),
        TEST(a_healthy_success_writes_nothing_that_others_read),
        TEST(the_threshold_opens_and_one_less_does_not),
        TEST(a_success_in_between_forgives_failures),
        TEST(a_callers_mistakes_neither_open_nor_forgive),
        TEST(the_largest_threshold_can_be_reached),
        TEST(a_rejected_key_opens_at_once_for_the_longest_time),
        TEST(a_rejected_key_found_by_a_probe_opens_for_the_longest_time),
        TEST(two_simultaneous_last_failures_are_one_transition),
        TEST(a_token_counts_once),
        TEST(a_token_that_was_never_given_counts_nothing),
        TEST(an_open_circuit_tells_how_long_it_stays),
        TEST(a_status_page_moves_no_circuit_and_takes_no_permit),
        TEST(a_late_success_after_the_trip_changes_nothing),
        TEST(late_failures_do_not_keep_a_provider_out_longer),
        TEST(a_late_failures_retry_after_pushes_out_and_never_in),
        TEST(a_late_hint_holds_off_a_probe_that_is_due),
        TEST(late_hints_of_other_classes_push_nothing),
        TEST(a_late_hint_moves_neither_closed_nor_half_open),
        TEST(a_provider_that_asks_for_more_time_gets_it),
        TEST(a_provider_that_asks_for_less_time_gets_the_open_time),
        TEST(an_absurd_retry_after_costs_five_minutes_at_most),
        TEST(jitter_spreads_the_open_time_by_a_tenth_at_most),
        TEST(the_longest_open_time_with_full_jitter_is_waited_out),
        TEST(each_failed_probe_doubles_the_open_time_up_to_its_limit),
        TEST(a_long_outage_does_not_overflow_the_level),
        TEST(one_probe_at_a_time_is_let_through),
        TEST(as_many_probes_as_configured_run_at_once),
        TEST(one_permit_is_enough_for_three_successes),
        TEST(one_failed_probe_reopens_and_voids_the_others),
        TEST(a_permit_of_an_old_episode_does_not_block_a_new_one),
        TEST(a_probe_that_says_nothing_frees_its_permit_only),
        TEST(a_throttled_probe_frees_its_permit_and_fails_nobody),
        TEST(a_killed_workers_permit_comes_back),
        TEST(a_slow_probe_still_counts_after_its_lease),
        TEST(a_slow_probe_frees_nobody_elses_permit),
        TEST(a_slow_probes_failure_reopens),
        TEST(the_nonce_wraps_without_mixing_up_permits),
        TEST(a_relapse_in_the_calm_opens_for_longer),
        TEST(after_the_calm_a_trip_is_a_first_one),
        TEST(after_the_calm_one_failure_that_trips_is_a_first_one),
        TEST(the_calm_lasts_as_long_as_the_open_time_of_the_level),
        TEST(a_success_in_the_calm_writes_nothing),
        TEST(a_recovery_at_level_0_has_its_calm_as_well),
        TEST(a_calm_that_ends_at_0_is_no_missing_calm),
        TEST(a_throttle_steers_away_and_is_no_failure),
        TEST(a_throttle_without_a_hint_lasts_five_seconds),
        TEST(an_absurd_throttle_lasts_five_minutes_at_most),
        TEST(a_shorter_throttle_does_not_shorten_a_longer_one),
        TEST(a_throttle_that_ends_at_the_wrap_is_one),
        TEST(a_throttle_does_not_come_back_when_the_clock_wraps),
        TEST(a_late_throttle_is_heeded),
        TEST(open_and_throttled_tells_the_longer_wait),
        TEST(a_throttled_circuit_that_is_due_stays_open),
        TEST(the_same_word_twice_is_told_once),
        TEST(forced_open_refuses_until_it_is_taken_back),
        TEST(forced_open_refuses_where_the_circuit_is_off),
        TEST(a_word_with_an_end_is_taken_back_when_it_is_over),
        TEST(a_word_may_get_another_end_or_lose_it),
        TEST(an_end_survives_everything_but_a_word),
        TEST(an_operators_word_keeps_a_deadline),
        TEST(disabled_admits_whatever_happens),
        TEST(disabled_counts_no_failure_and_opens_for_none),
        TEST(a_throttle_outlives_a_while_of_being_disabled),
        TEST(a_circuit_that_is_switched_off_is_closed),
        TEST(a_circuit_that_is_off_admits_and_writes_nothing),
        TEST(a_probe_of_before_the_reload_frees_its_permit_when_off),
        TEST(observe_moves_as_always_and_refuses_nobody),
        TEST(observe_heeds_a_failure_beside_the_probe),
        TEST(observe_is_not_throttled),
        TEST(an_operators_word_voids_a_running_probe),
        TEST(a_reset_closes_and_forgets_all_but_the_operators_word),
        TEST(verdicts_of_before_a_reset_are_late),
        TEST(a_broken_stream_is_one_failure),
        TEST(a_probes_broken_stream_reopens_and_frees_no_permit),
        TEST(a_stream_that_outlived_its_episode_breaks_nothing),
        TEST(every_step_works_across_the_wrap_of_the_clock),
        TEST(a_circuit_that_was_never_open_is_in_no_calm_at_any_time),
        TEST(every_step_works_across_the_wrap_of_the_epoch),
        TEST(seventy_thousand_transitions_do_not_wear_it_out),
        TEST(a_year_idle_then_one_failure),
        TEST(a_failure_after_the_calm_ends_it_for_good),
        TEST(a_worker_whose_clock_lags_agrees_on_every_deadline),
        TEST(a_lagging_clock_does_not_shorten_a_calm),
        TEST(a_deadline_no_configuration_allows_has_elapsed),
        TEST(a_lower_failure_threshold_holds_from_the_next_failure),
        TEST(a_lower_success_threshold_holds_from_the_next_success),
        TEST(a_higher_threshold_goes_on_counting),
        TEST(fewer_permits_after_a_reload_still_close_the_circuit),
        TEST(a_shorter_lease_after_a_reload_takes_no_running_probes_permit),
        TEST(every_second_failure_opens_at_the_request_that_is_enough),
        TEST(a_rate_just_below_does_not_open),
        TEST(no_rate_is_judged_before_enough_requests),
        TEST(no_circuit_opens_on_a_success),
        TEST(where_both_thresholds_are_reached_failures_in_a_row_are_named),
        TEST(a_callers_mistakes_and_throttles_are_not_in_the_window),
        TEST(with_a_rate_a_healthy_success_writes_its_bucket_only),
        TEST(failures_of_long_ago_open_nothing),
        TEST(a_window_starts_afresh_when_the_circuit_closes),
        TEST(a_window_starts_afresh_with_a_word_and_a_reset),
        TEST(a_broken_stream_is_the_failure_of_a_request_that_was_counted),
        TEST(two_simultaneous_failures_that_reach_the_rate_are_one_transition),
        TEST(disabled_and_off_put_nothing_into_the_window),
        TEST(another_rate_after_a_reload_holds_from_the_next_failure),
        TEST(a_rate_that_a_reload_takes_away_opens_nothing),
        TEST(any_story_of_failures_is_judged_as_a_list_of_it_would),
        TEST(a_circuit_that_recovered_takes_its_share_linearly),
        TEST(the_largest_and_the_smallest_slow_start_are_linear_too),
        TEST(who_has_nobody_else_is_served_in_a_slow_start),
        TEST(asking_in_a_slow_start_writes_nothing),
        TEST(without_a_recovery_nothing_starts_slowly),
        TEST(a_slow_start_ends_with_a_trip_a_reset_and_an_operators_word),
        TEST(a_slow_start_is_of_the_epoch_that_recovered),
        TEST(who_must_not_be_refused_is_not_shed),
        TEST(every_recovery_starts_slowly_anew),
        TEST(a_slow_start_that_is_over_does_not_come_back),
        TEST(a_year_idle_is_no_slow_start),
        TEST(a_slow_start_works_across_the_wrap_of_the_clock),
        TEST(a_clock_that_lags_does_not_end_a_slow_start),
        TEST(an_answer_that_was_too_slow_reopens_after_good_probes),
        TEST(a_copy_goes_on_where_the_circuit_was),
        TEST(every_state_has_its_name_on_the_status_page) };

    return cmocka_run_group_tests_name("circuit", tests, NULL, NULL);
}
