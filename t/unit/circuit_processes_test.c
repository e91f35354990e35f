/*
 * The circuit between processes, three ways:
 *
 * - one process is stopped at every single instruction of a call, another
 *   acts meanwhile, and the first goes on (or is killed there);
 * - sixteen processes do whatever they like;
 * - and are killed while they do.
 *
 * Time is virtual and common; each process reads it up to a second late.
 * LLM_SEED=N repeats a choice of random numbers.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "llm_circuit.h"


#define PROCESSES 16
#define TOKENS 4     /* calls that a process has under way */
#define STEPS 400000 /* of each process, without kills */
#define KILLS 300
#define SKEW 1000
#define PERMITS 3
#define LEASE 300
#define HINT 900
#define WINDOW 2000
#define MIN_REQUESTS 8
#define SLOW 60
#define EPOCHS 1024 /* whose requests are counted; a power of two */
#define NO_PTRACE 77
#define MANY 150  /* instructions; longer calls: see play() */
#define FAR 20000 /* instructions; no call is as long as that */


enum {
    FINE = 0,
    TOO_MANY_PROBES,
    NOT_REPORTED_ONCE,
    REFUSED_WITHOUT_WAIT,
    OPENED_ON_A_SUCCESS,
    OPENED_TOO_EARLY
};


/* What a call of the stepped process told. */
typedef struct {
    llm_token_t token;
    llm_transition_t tr;
    llm_admission_t admission;
    bool late;
    bool shed;
    _Atomic bool done;
} told_t;


typedef struct {
    llm_circuit_t circuit;
    told_t told;
    alignas(64) _Atomic uint32_t clock;
    _Atomic uint32_t error;
    _Atomic uint32_t born;
    _Atomic uint64_t transitions; /* seen by who won them */
    _Atomic uint64_t probes;
    _Atomic uint64_t rates; /* transitions by the rate of failures */
    _Atomic uint64_t sheds;

    /* what may be in an epoch's window, and perhaps some more */
    _Atomic uint32_t requests[EPOCHS];

    /* bits 0-15: epoch, 16-31: serial, 32-63: lease ends; 0: no probe */
    _Atomic uint64_t probe[PROCESSES * TOKENS];
} shared_t;


typedef struct {
    uint64_t random;
    uint32_t n;
    uint32_t lag;
    uint16_t serial;
    llm_token_t tokens[TOKENS];
} process_t;


static shared_t *shared;
static cpu_set_t cpus; /* that we may run on */
static uint64_t seed;


static const llm_circuit_conf_t conf = { .failure_threshold = 3,
    .success_threshold = 4,
    .open = 50,
    .open_max = 400,
    .half_open_max_calls = PERMITS,
    .half_open_timeout = LEASE,
    .failure_rate = 40,
    .window = WINDOW,
    .min_requests = MIN_REQUESTS,
    .slow_start = SLOW };


static void
clear(void)
{
    memset(shared, 0, sizeof(shared_t));
    shared->clock = (uint32_t) -5000; /* it wraps on the way */
}


static int
setup(void **state)
{
    (void) state;

    (void) sched_setaffinity(0, sizeof(cpus), &cpus);
    clear();

    return 0;
}


/* ---- one process, instruction by instruction ---- */


typedef struct {
    const llm_circuit_conf_t *conf;
    void (*prepare)(void);
    void (*act)(told_t *told); /* in the stepped process */
    void (*meanwhile)(void);   /* in this one */
    void (*check)(void);
} scene_t;


static llm_circuit_conf_t sc;
static told_t mine;
static llm_token_t held, other;
static uint16_t epoch_then;
static bool taken_then;
static uint32_t steps_of_mine;
static uint32_t now;


static llm_circuit_view_t
view(void)
{
    llm_circuit_view_t v;

    llm_circuit_view(&shared->circuit, &sc, now, &v);

    return v;
}


static void
acquire(told_t *told)
{
    uint32_t wait;

    told->admission = llm_circuit_acquire(&shared->circuit, &sc, now,
        &told->token, &wait, &told->tr);
}


static void
report(told_t *told, llm_token_t token, llm_class_t class, uint32_t hint)
{
    (void) llm_circuit_report(&shared->circuit, &sc, &token, class, hint, now,
        0, &told->late, &told->tr);
}


static llm_token_t
admitted(void)
{
    acquire(&mine);
    assert_int_equal(mine.admission, LLM_ADMITTED);

    return mine.token;
}


static void
trip(void)
{
    while (view().state == LLM_CIRCUIT_CLOSED) {
        report(&mine, admitted(), LLM_CLASS_FAILURE, 0);
    }

    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);
}


/* From wherever it is: it must close, and soon. */
static void
must_recover(void)
{
    now += 2 * (LLM_CIRCUIT_HINT_MAX + sc.open_max);

    for (uint32_t i = 0; i <= sc.success_threshold; i++) {
        report(&mine, admitted(), LLM_CLASS_SUCCESS, 0);
    }

    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    assert_int_equal(view().probes, 0);
}


static pid_t
stopped_process(const scene_t *scene)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);

    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
            _exit(NO_PTRACE);
        }

        (void) kill(getpid(), SIGSTOP);
        scene->act(&shared->told);
        atomic_store(&shared->told.done, true);
        _exit(0);
    }

    assert_int_equal(waitpid(pid, &status, 0), pid);

    return WIFSTOPPED(status) ? pid : -1;
}


/* One instruction; true: it is through with the call. */
static bool
step(pid_t pid)
{
    int status;

    assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSTOPPED(status));

    return atomic_load(&shared->told.done);
}


static void
finish(pid_t pid)
{
    int status;

    assert_int_equal(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}


/* Stepper and stepped take turns: ten times as fast on one processor. */
static void
share_a_cpu(void)
{
    int cpu = sched_getcpu();
    cpu_set_t one;

    if (cpu >= 0) {
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        (void) sched_setaffinity(0, sizeof(one), &one);
    }
}


/* The scene is set and the other process is about to act. */
static pid_t
begin(const scene_t *scene)
{
    pid_t pid;

#if !defined(__x86_64__)
    /* a step may come between a load-linked and its store, for ever */
    skip();
#endif

    clear();
    sc = *scene->conf;
    now = (uint32_t) -100;
    scene->prepare();

    pid = stopped_process(scene);

    if (pid < 0) {
        skip();
    }

    return pid;
}


/* Instructions to the end of the call, when nobody disturbs it. */
static uint32_t
length(const scene_t *scene)
{
    pid_t pid = begin(scene);
    uint32_t steps = 1;

    while (!step(pid)) {
        assert_true(++steps < FAR);
    }

    finish(pid);

    return steps;
}


/*
 * Plays the scene once for each instruction it could be stopped at; where
 * there are many, for an even choice of them, another one with each seed.
 */
static void
play(const scene_t *scene)
{
    uint32_t steps, stride;

    share_a_cpu();

    steps = length(scene);
    stride = 1 + steps / MANY;

    for (uint32_t at = seed % stride; at <= steps; at += stride) {
        pid_t pid = begin(scene);
        bool through = false;

        for (uint32_t i = 0; i < at && !through; i++) {
            through = step(pid);
        }

        scene->meanwhile();
        finish(pid);
        scene->check();
        must_recover();
    }
}


/*
 * What a process leaves behind that is killed at an instruction is the
 * memory as it was then.  So one play shows all of its deaths.
 */
static void
die(const scene_t *scene)
{
    pid_t pid = begin(scene);
    uint32_t then = now, steps = 0;
    bool through;

    share_a_cpu();

    do {
        llm_circuit_t left = shared->circuit;

        must_recover();

        shared->circuit = left;
        now = then;
        through = step(pid);

        assert_true(++steps < FAR);
    } while (!through);

    finish(pid);
}


static const llm_circuit_conf_t one_permit = { .failure_threshold = 2,
    .success_threshold = 2,
    .open = 50,
    .open_max = 400,
    .half_open_max_calls = 1,
    .half_open_timeout = LEASE };


static const llm_circuit_conf_t two_permits = { .failure_threshold = 2,
    .success_threshold = 2,
    .open = 50,
    .open_max = 400,
    .half_open_max_calls = 2,
    .half_open_timeout = LEASE };


/* half of at least four, or of at least five */
static const llm_circuit_conf_t by_rate = { .failure_threshold = 255,
    .success_threshold = 1,
    .open = 50,
    .open_max = 400,
    .half_open_max_calls = 2,
    .half_open_timeout = LEASE,
    .failure_rate = 50,
    .window = 10000,
    .min_requests = 4,
    .slow_start = SLOW };


static const llm_circuit_conf_t by_rate_of_five = { .failure_threshold = 255,
    .success_threshold = 1,
    .open = 50,
    .open_max = 400,
    .half_open_max_calls = 2,
    .half_open_timeout = LEASE,
    .failure_rate = 50,
    .window = 10000,
    .min_requests = 5 };


static void
be_due(void)
{
    trip();
    now += 50;
}


static void
be_half_open(void)
{
    be_due();
    report(&mine, admitted(), LLM_CLASS_NEUTRAL, 0);
    assert_int_equal(view().state, LLM_CIRCUIT_HALF_OPEN);
}


/* The operator speaks while the other process asks. */
static void
speak(void)
{
    epoch_then = (uint16_t) view().epoch;
    taken_then = view().probes != 0;
    (void) llm_circuit_admin_for(&shared->circuit, LLM_ADMIN_OBSERVE, 0, now,
        &mine.tr);
    (void) llm_circuit_admin_for(&shared->circuit, LLM_ADMIN_AUTO, 0, now,
        &mine.tr);
}


static void
was_no_probe_of_the_past(void)
{
    assert_int_equal(shared->told.admission, LLM_ADMITTED);
    assert_int_equal(shared->told.token.kind, LLM_TOKEN_PROBE);

    if (shared->told.token.epoch == epoch_then) {
        /* then it had its permit before the word was spoken */
        assert_true(taken_then);

    } else {
        assert_int_equal(shared->told.token.epoch, view().epoch);
        assert_int_equal(view().probes, 1);
    }
}


static void
nobody_probes_in_an_episode_that_is_over(void **state)
{
    static const scene_t scene = { &one_permit, be_half_open, acquire, speak,
        was_no_probe_of_the_past };

    (void) state;
    play(&scene);
}


/* The episode fails, and the next one begins with a probe of our own. */
static void
begin_the_next_episode(void)
{
    llm_token_t token = { .epoch = (uint16_t) view().epoch };

    llm_circuit_break(&shared->circuit, &sc, &token, now, 0, &mine.late,
        &mine.tr);
    assert_int_equal(mine.tr.reason, LLM_REASON_PROBE_FAILED);
    now += 100;
    held = admitted();
    assert_int_equal(held.kind, LLM_TOKEN_PROBE);
    now -= 100;
}


static void
the_held_permit_is_still_held(void)
{
    uint64_t permit = shared->circuit.permit[held.permit];

    assert_int_equal((uint16_t) permit, held.epoch);
    assert_int_equal((permit >> 16) & 0x7fff, held.nonce);
    assert_int_equal(permit >> 31 & 1, 1);
    assert_int_equal(view().probes, 1);
}


static void
a_process_of_the_past_takes_no_permit_of_the_present(void **state)
{
    static const scene_t scene = { &one_permit, be_half_open, acquire,
        begin_the_next_episode, the_held_permit_is_still_held };

    (void) state;
    play(&scene);
}


static void
hold_a_permit_too_long(void)
{
    be_half_open();
    other = admitted();
    now += LEASE;
}


static void
report_neutral(told_t *told)
{
    report(told, other, LLM_CLASS_NEUTRAL, 0);
}


static void
take_a_permit(void)
{
    held = admitted();
}


static void
who_lost_a_permit_does_not_free_it_for_the_new_holder(void **state)
{
    static const scene_t scene = { &one_permit, hold_a_permit_too_long,
        report_neutral, take_a_permit, the_held_permit_is_still_held };

    (void) state;
    play(&scene);
}


static void
ask_too(void)
{
    acquire(&mine);
}


static void
one_probe_and_one_step(void)
{
    assert_int_equal((mine.tr.reason != LLM_REASON_NONE)
                         + (shared->told.tr.reason != LLM_REASON_NONE),
        1);
    assert_int_equal((mine.admission == LLM_ADMITTED)
                         + (shared->told.admission == LLM_ADMITTED),
        1);
    assert_int_equal(view().probes, 1);
    assert_int_equal(view().epoch, 2);
}


static void
two_who_come_at_once_are_one_probe(void **state)
{
    static const scene_t scene = { &one_permit, be_due, acquire, ask_too,
        one_probe_and_one_step };

    (void) state;
    play(&scene);
}


static void
be_near_the_threshold(void)
{
    report(&mine, admitted(), LLM_CLASS_FAILURE, 0);
    held = admitted();
    other = admitted();
}


static void
report_failure(told_t *told)
{
    report(told, other, LLM_CLASS_FAILURE, 0);
}


static void
fail_too(void)
{
    report(&mine, held, LLM_CLASS_FAILURE, 0);
}


static void
one_of_two_moved_it(void)
{
    assert_int_equal((mine.tr.reason != LLM_REASON_NONE)
                         + (shared->told.tr.reason != LLM_REASON_NONE),
        1);
    assert_int_equal(mine.late + shared->told.late, 1);
    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);
    assert_int_equal(view().epoch, 1);
    assert_int_equal(view().retry, 50);
    assert_int_equal(view().reason, LLM_REASON_FAILURE_THRESHOLD);
}


static void
two_last_failures_are_one_transition_and_one_log_line(void **state)
{
    static const scene_t scene = { &two_permits, be_near_the_threshold,
        report_failure, fail_too, one_of_two_moved_it };

    (void) state;
    play(&scene);
}


static void
be_near_the_rate(void)
{
    report(&mine, admitted(), LLM_CLASS_SUCCESS, 0);
    report(&mine, admitted(), LLM_CLASS_FAILURE, 0);
    report(&mine, admitted(), LLM_CLASS_FAILURE, 0);
    held = admitted();
    other = admitted();
}


static void
one_of_two_reached_the_rate(void)
{
    assert_int_equal((mine.tr.reason != LLM_REASON_NONE)
                         + (shared->told.tr.reason != LLM_REASON_NONE),
        1);
    assert_in_range(mine.late + shared->told.late, sc.min_requests == 4, 1);
    assert_int_equal(view().state, LLM_CIRCUIT_OPEN);
    assert_int_equal(view().epoch, 1);
    assert_int_equal(view().reason, LLM_REASON_FAILURE_RATE);
}


static void
two_failures_that_reach_the_rate_are_one_transition(void **state)
{
    static const scene_t scene = { &by_rate, be_near_the_rate, report_failure,
        fail_too, one_of_two_reached_the_rate };

    (void) state;
    play(&scene);
}


static void
two_failures_that_reach_the_rate_together_do_reach_it(void **state)
{
    static const scene_t scene = { &by_rate_of_five, be_near_the_rate,
        report_failure, fail_too, one_of_two_reached_the_rate };

    (void) state;
    play(&scene);
}


static void
be_counting(void)
{
    report(&mine, admitted(), LLM_CLASS_FAILURE, 0);
    other = admitted();
}


static void
close_again_and_count(void)
{
    trip();
    now += sc.open;
    report(&mine, admitted(), LLM_CLASS_SUCCESS, 0);
    assert_int_equal(mine.tr.reason, LLM_REASON_RECOVERED);

    report(&mine, admitted(), LLM_CLASS_SUCCESS, 0);
    report(&mine, admitted(), LLM_CLASS_SUCCESS, 0);
    report(&mine, admitted(), LLM_CLASS_FAILURE, 0);
}


static void
the_window_has_what_was_counted_since(void)
{
    assert_int_equal(view().rate.requests, 3);
    assert_int_equal(view().rate.failures, 1);
    assert_int_equal(view().epoch, 3);
}


static void
a_process_of_the_past_counts_nothing_in_the_present_window(void **state)
{
    static const scene_t scene = { &by_rate, be_counting, report_failure,
        close_again_and_count, the_window_has_what_was_counted_since };

    (void) state;
    play(&scene);
}


static void
be_started(void)
{
    trip();
    now += sc.open;
    report(&mine, admitted(), LLM_CLASS_SUCCESS, 0);
    assert_int_equal(mine.tr.reason, LLM_REASON_RECOVERED);
    now += SLOW;
}


static void
ask_to_be_shed(told_t *told)
{
    told->shed = llm_circuit_shed(&shared->circuit, &sc, now, UINT32_MAX);
}


static void
the_new_start_is_slow(void)
{
    ask_to_be_shed(&mine);
    assert_true(mine.shed);
}


static void
who_ends_a_slow_start_does_not_end_the_next_one(void **state)
{
    static const scene_t scene = { &by_rate, be_started, ask_to_be_shed,
        close_again_and_count, the_new_start_is_slow };

    (void) state;
    play(&scene);
}


static void
be_two_probes(void)
{
    be_half_open();
    held = admitted();
    other = admitted();
}


static void
report_success(told_t *told)
{
    report(told, other, LLM_CLASS_SUCCESS, 0);
}


static void
succeed_too(void)
{
    report(&mine, held, LLM_CLASS_SUCCESS, 0);
}


static void
both_counted(void)
{
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    assert_int_equal(view().epoch, 3);
    assert_int_equal((mine.tr.reason != LLM_REASON_NONE)
                         + (shared->told.tr.reason != LLM_REASON_NONE),
        1);
    assert_int_equal(mine.late + shared->told.late, 0);
}


static void
no_success_of_two_at_once_is_lost(void **state)
{
    static const scene_t scene = { &two_permits, be_two_probes, report_success,
        succeed_too, both_counted };

    (void) state;
    play(&scene);
}


static void
be_open_with_two_late(void)
{
    held = admitted();
    other = admitted();
    trip();
}


static void
report_short_hint(told_t *told)
{
    report(told, other, LLM_CLASS_FAILURE, 300);
}


static void
hint_longer(void)
{
    report(&mine, held, LLM_CLASS_FAILURE, 700);
}


static void
the_longer_hint_holds(void)
{
    assert_int_equal(view().retry, 700);
    assert_int_equal(view().epoch, 1);
}


static void
of_two_late_hints_the_longer_one_holds(void **state)
{
    static const scene_t scene = { &two_permits, be_open_with_two_late,
        report_short_hint, hint_longer, the_longer_hint_holds };

    (void) state;
    play(&scene);
}


static void
report_short_throttle(told_t *told)
{
    report(told, other, LLM_CLASS_THROTTLE, 300);
}


static void
throttle_longer(void)
{
    report(&mine, held, LLM_CLASS_THROTTLE, 700);
}


static void
the_longer_throttle_holds(void)
{
    assert_int_equal(view().throttled, 700);
}


static void
of_two_throttles_the_longer_one_holds(void **state)
{
    static const scene_t scene = { &two_permits, be_open_with_two_late,
        report_short_throttle, throttle_longer, the_longer_throttle_holds };

    (void) state;
    play(&scene);
}


static void
be_throttled_no_more(void)
{
    held = admitted();
    other = admitted();
    report(&mine, other, LLM_CLASS_THROTTLE, 100);
    now += 100;
}


static void
who_asks_takes_away_no_new_throttle(void **state)
{
    static const scene_t scene = { &two_permits, be_throttled_no_more, acquire,
        throttle_longer, the_longer_throttle_holds };

    (void) state;
    play(&scene);
}


static void
reset(void)
{
    llm_circuit_reset(&shared->circuit, now, &mine.tr);
}


static void
it_was_the_reset(void)
{
    assert_int_equal(view().state, LLM_CIRCUIT_CLOSED);
    assert_int_equal(view().reason, LLM_REASON_RESET);
    assert_int_equal(view().epoch, shared->told.late ? 1 : 2);
}


static void
the_status_tells_the_reason_of_the_last_transition(void **state)
{
    static const scene_t scene = { &two_permits, be_near_the_threshold,
        report_failure, reset, it_was_the_reset };

    (void) state;
    play(&scene);
}


/* A process with a late clock reopens, and for us that is over already. */
static void
reopen_in_the_past(void)
{
    llm_token_t token;

    steps_of_mine = 0;
    now -= 500;

    if (view().state == LLM_CIRCUIT_OPEN) {
        now += 500;
        (void) admitted();
        steps_of_mine += mine.tr.reason != LLM_REASON_NONE;
        now -= 500;
    }

    token = (llm_token_t) { .epoch = (uint16_t) view().epoch };
    llm_circuit_break(&shared->circuit, &sc, &token, now, 0, &mine.late,
        &mine.tr);
    steps_of_mine += mine.tr.reason != LLM_REASON_NONE;
    now += 500;
}


static void
no_step_went_untold(void)
{
    assert_int_equal(view().epoch,
        1 + steps_of_mine + (shared->told.tr.reason != LLM_REASON_NONE));
}


static void
no_transition_is_missing_in_the_log(void **state)
{
    static const scene_t scene = { &one_permit, be_due, acquire,
        reopen_in_the_past, no_step_went_untold };

    (void) state;
    play(&scene);
}


static void
a_worker_killed_at_any_instruction_wedges_nothing(void **state)
{
    static const scene_t scenes[] = { { &one_permit, be_due, acquire, NULL,
                                          NULL },
        { &one_permit, be_half_open, acquire, NULL, NULL },
        { &two_permits, be_near_the_threshold, report_failure, NULL, NULL },
        { &two_permits, be_two_probes, report_failure, NULL, NULL },
        { &two_permits, be_two_probes, report_success, NULL, NULL },
        { &one_permit, hold_a_permit_too_long, report_neutral, NULL, NULL },
        { &by_rate, be_near_the_rate, report_failure, NULL, NULL },
        { &by_rate, be_near_the_rate, report_success, NULL, NULL },
        { &by_rate, be_started, ask_to_be_shed, NULL, NULL },
        { &two_permits, be_two_probes, report_short_throttle, NULL, NULL } };

    (void) state;

    for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++) {
        die(&scenes[i]);
    }
}


/* An end of an operator's word, on the clock that does not wrap. */
static uint64_t
long_now(void)
{
    return UINT64_C(1) << 32 | now;
}


static void
be_forced_and_over(void)
{
    assert_true(llm_circuit_admin_for(&shared->circuit, LLM_ADMIN_OPEN, 50,
        long_now() - 60, &mine.tr));
}


static void
expire(told_t *told)
{
    told->late = llm_circuit_admin_expire(&shared->circuit, long_now(),
        &told->tr);
}


static void
expire_meanwhile(void)
{
    expire(&mine);
}


static void
force_anew(told_t *told)
{
    (void) llm_circuit_admin_for(&shared->circuit, LLM_ADMIN_OPEN, 100,
        long_now(), &told->tr);
}


static void
force_anew_meanwhile(void)
{
    force_anew(&mine);
}


static void
is_forced_anew(void)
{
    uint64_t left;

    assert_int_equal(llm_circuit_admin_now(&shared->circuit, long_now(), &left),
        LLM_ADMIN_OPEN);
    assert_int_equal(left, 100);
    (void) llm_circuit_admin_for(&shared->circuit, LLM_ADMIN_AUTO, 0, now,
        &mine.tr);
}


static void
a_new_word_outlives_the_end_of_the_old_one(void **state)
{
    static const scene_t ends = { &one_permit, be_forced_and_over, expire,
        force_anew_meanwhile, is_forced_anew };
    static const scene_t begins = { &one_permit, be_forced_and_over, force_anew,
        expire_meanwhile, is_forced_anew };

    (void) state;
    play(&ends);
    play(&begins);
}


static void
was_taken_back_once(void)
{
    assert_int_equal(shared->told.late + mine.late, 1);
    assert_int_equal(view().admin, LLM_ADMIN_AUTO);
    assert_int_equal(view().reason, LLM_REASON_TTL);
    assert_int_equal(view().epoch, 2);
    assert_int_equal(shared->circuit.until, 0);
}


static void
a_word_that_is_over_is_taken_back_once(void **state)
{
    static const scene_t scene = { &one_permit, be_forced_and_over, expire,
        expire_meanwhile, was_taken_back_once };

    (void) state;
    play(&scene);
}


static void
be_disabled(void)
{
    assert_true(llm_circuit_admin_for(&shared->circuit, LLM_ADMIN_DISABLED, 0,
        now, &mine.tr));
}


/* As it would be left, were the other process killed now. */
static void
is_one_word_or_the_other(void)
{
    uint64_t left;

    if (llm_circuit_admin_now(&shared->circuit, long_now(), &left)
        == LLM_ADMIN_DISABLED)
    {
        assert_int_equal(left, 0);
        now += 1000;
        expire(&mine);
        now -= 1000;
        assert_false(mine.late);

    } else {
        assert_int_equal(view().admin, LLM_ADMIN_OPEN);
        assert_int_equal(left, 100);
    }
}


static void
an_operator_killed_at_any_instruction_ends_no_other_word(void **state)
{
    static const scene_t scene = { &one_permit, be_disabled, force_anew,
        is_one_word_or_the_other, is_forced_anew };

    (void) state;
    play(&scene);
}


/* ---- sixteen processes ---- */


static uint32_t
random32(process_t *p)
{
    uint64_t z = p->random += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);

    return (uint32_t) (z ^ z >> 31);
}


static bool
chance(process_t *p, uint32_t one_of)
{
    return random32(p) % one_of == 0;
}


/* Time goes on by whoever does something, and is read late. */
static uint32_t
late_clock(process_t *p)
{
    uint32_t lag = chance(p, 4) ? random32(p) % (p->lag + 1) : 0;

    return atomic_fetch_add(&shared->clock, random32(p) % 3) - lag;
}


static void
wrong(uint32_t error)
{
    atomic_store(&shared->error, error);
    _exit(1);
}


static void
saw(const llm_transition_t *tr)
{
    if (tr->reason != LLM_REASON_NONE) {
        (void) atomic_fetch_add(&shared->transitions, 1);
        atomic_store(&shared->requests[(tr->epoch + EPOCHS / 2) % EPOCHS], 0);
    }
}


/* What a verdict of this class, on a call of this epoch, has moved. */
static void
judged(const llm_transition_t *tr, llm_class_t class, uint16_t epoch)
{
    saw(tr);

    if (tr->reason == LLM_REASON_NONE || tr->to != LLM_CIRCUIT_OPEN) {
        return;
    }

    if (class != LLM_CLASS_FAILURE && class != LLM_CLASS_CREDENTIAL) {
        wrong(OPENED_ON_A_SUCCESS);
    }

    if (tr->reason == LLM_REASON_FAILURE_RATE) {
        (void) atomic_fetch_add(&shared->rates, 1);

        if (class != LLM_CLASS_FAILURE || tr->from != LLM_CIRCUIT_CLOSED) {
            wrong(OPENED_ON_A_SUCCESS);
        }

        if (atomic_load(&shared->requests[epoch % EPOCHS]) < MIN_REQUESTS) {
            wrong(OPENED_TOO_EARLY);
        }
    }
}


/*
 * Counts the probes of an episode that hold a permit which nobody could
 * think elapsed: no clock is ahead of the common one.  They are written
 * down after acquire() and struck out before report(), so what is found by
 * two equal readings in a row did hold permits at one time.
 */
static uint32_t
live_probes(uint16_t epoch)
{
    uint64_t probes[PROCESSES * TOKENS];
    uint32_t live = 0, clock;

    for (size_t i = 0; i < PROCESSES * TOKENS; i++) {
        probes[i] = atomic_load(&shared->probe[i]);
    }

    clock = atomic_load(&shared->clock);

    for (size_t i = 0; i < PROCESSES * TOKENS; i++) {
        uint32_t left = (uint32_t) (probes[i] >> 32) - clock;

        if (atomic_load(&shared->probe[i]) != probes[i]) {
            return 0;
        }

        live += probes[i] != 0 && (uint16_t) probes[i] == epoch && left != 0
                && left <= LEASE;
    }

    return live;
}


static void
begin_call(process_t *p, uint32_t slot)
{
    llm_token_t *token = &p->tokens[slot];
    uint32_t wait, clock = late_clock(p);
    llm_transition_t tr;

    if (chance(p, 2)
        && llm_circuit_shed(&shared->circuit, &conf, clock, random32(p)))
    {
        (void) atomic_fetch_add(&shared->sheds, 1);
        return;
    }

    if (llm_circuit_acquire(&shared->circuit, &conf, clock, token, &wait, &tr)
            != LLM_ADMITTED
        && wait == 0)
    {
        wrong(REFUSED_WITHOUT_WAIT);
    }

    saw(&tr);

    if (token->kind != LLM_TOKEN_PROBE) {
        return;
    }

    (void) atomic_fetch_add(&shared->probes, 1);
    p->serial++;
    atomic_store(&shared->probe[p->n * TOKENS + slot],
        (uint64_t) token->epoch | (uint64_t) p->serial << 16
            | (uint64_t) (token->time + LEASE) << 32);

    if (live_probes(token->epoch) > PERMITS) {
        wrong(TOO_MANY_PROBES);
    }
}


static void
end_call(process_t *p, uint32_t slot)
{
    static const llm_class_t classes[] = { LLM_CLASS_SUCCESS, LLM_CLASS_SUCCESS,
        LLM_CLASS_SUCCESS, LLM_CLASS_SUCCESS, LLM_CLASS_SUCCESS,
        LLM_CLASS_SUCCESS, LLM_CLASS_FAILURE, LLM_CLASS_FAILURE,
        LLM_CLASS_NEUTRAL, LLM_CLASS_CAPABILITY };
    llm_class_t class = classes[random32(p) % 10];
    uint32_t hint = chance(p, 50) ? random32(p) % HINT : 0;
    uint32_t clock = late_clock(p), random = random32(p);
    llm_token_t *token = &p->tokens[slot];
    llm_transition_t tr;
    bool late;

    if (chance(p, 500)) {
        class = chance(p, 4) ? LLM_CLASS_CREDENTIAL : LLM_CLASS_THROTTLE;
        hint = 1 + random32(p) % HINT;
    }

    atomic_store(&shared->probe[p->n * TOKENS + slot], 0);

    if (class == LLM_CLASS_SUCCESS || class == LLM_CLASS_FAILURE) {
        (void) atomic_fetch_add(&shared->requests[token->epoch % EPOCHS], 1);
    }

    if (!llm_circuit_report(&shared->circuit, &conf, token, class, hint, clock,
            random, &late, &tr))
    {
        wrong(NOT_REPORTED_ONCE);
    }

    judged(&tr, class, token->epoch);

    if (chance(p, 100)) {
        (void) atomic_fetch_add(&shared->requests[token->epoch % EPOCHS], 1);
        llm_circuit_break(&shared->circuit, &conf, token, clock, random, &late,
            &tr);
        judged(&tr, LLM_CLASS_FAILURE, token->epoch);
    }

    if (llm_circuit_report(&shared->circuit, &conf, token, class, hint, clock,
            random, &late, &tr))
    {
        wrong(NOT_REPORTED_ONCE);
    }
}


static void
be_operator(process_t *p)
{
    llm_admin_t admin = chance(p, 4) ? (llm_admin_t) (random32(p) % 4)
                                     : LLM_ADMIN_AUTO;
    uint32_t clock = late_clock(p);
    llm_transition_t tr;

    if (chance(p, 8)) {
        llm_circuit_reset(&shared->circuit, clock, &tr);

    } else {
        (void) llm_circuit_admin_for(&shared->circuit, admin, 0, clock, &tr);
    }

    saw(&tr);
}


static void
live_a_life(uint32_t n, uint32_t life, uint32_t steps)
{
    process_t p = { .random = seed + ((uint64_t) n << 32) + life,
        .n = n,
        .lag = n * SKEW / (PROCESSES - 1) };

    for (uint32_t i = 0; i < steps; i++) {
        uint32_t slot = random32(&p) % TOKENS;

        if (p.tokens[slot].kind == LLM_TOKEN_NONE) {
            begin_call(&p, slot);

        } else {
            end_call(&p, slot);
        }

        if (chance(&p, 3000)) {
            be_operator(&p);
        }

        if (chance(&p, 200)) {
            (void) sched_yield();
        }
    }

    for (uint32_t slot = 0; slot < TOKENS; slot++) {
        if (p.tokens[slot].kind != LLM_TOKEN_NONE) {
            end_call(&p, slot);
        }
    }
}


static pid_t
born(uint32_t n, uint32_t life, uint32_t steps)
{
    pid_t pid = fork();

    assert_true(pid >= 0);

    if (pid == 0) {
        for (uint32_t slot = 0; slot < TOKENS; slot++) {
            /* nobody writes down the past life's probes any more */
            atomic_store(&shared->probe[n * TOKENS + slot], 0);
        }

        /* the first ones begin together */
        (void) atomic_fetch_add(&shared->born, 1);

        while (atomic_load(&shared->born) < PROCESSES) {
            (void) sched_yield();
        }

        live_a_life(n, life, steps);
        _exit(0);
    }

    return pid;
}


static void
nothing_went_wrong(uint64_t missing)
{
    uint64_t seen = atomic_load(&shared->transitions);
    uint16_t unseen = (uint16_t) ((shared->circuit.word >> 16) - seen);

    print_message("transitions %llu, by rate %llu, unseen %u, probes %llu, "
                  "shed %llu\n",
        (unsigned long long) seen,
        (unsigned long long) atomic_load(&shared->rates), unseen,
        (unsigned long long) atomic_load(&shared->probes),
        (unsigned long long) atomic_load(&shared->sheds));

    assert_int_equal(atomic_load(&shared->error), FINE);
    assert_true(unseen <= missing);
    assert_true(seen > 100);
    assert_true(atomic_load(&shared->probes) > 100);
    assert_true(atomic_load(&shared->rates) > 50);
    assert_true(atomic_load(&shared->sheds) > 100);
}


/*
 * The provider is healthy again.  In the worst case the longest hint, the
 * longest throttle and the leases of dead probes are to be waited for, one
 * after the other, as the clock that lags most sees them.
 */
static void
closes_again_soon(void)
{
    uint32_t longest = 2 * (HINT + LLM_CIRCUIT_THROTTLE) + LEASE + SKEW;
    uint32_t calls = longest / 10 + conf.success_threshold + 1;
    llm_circuit_t *c = &shared->circuit;
    llm_circuit_view_t v;
    llm_transition_t tr;
    llm_token_t token;
    uint32_t wait;
    bool late;

    (void) llm_circuit_admin_for(c, LLM_ADMIN_AUTO, 0, shared->clock, &tr);

    for (uint32_t i = 0; i < calls; i++) {
        shared->clock += 10;

        if (llm_circuit_acquire(c, &conf, shared->clock, &token, &wait, &tr)
            == LLM_ADMITTED)
        {
            (void) llm_circuit_report(c, &conf, &token, LLM_CLASS_SUCCESS, 0,
                shared->clock, 0, &late, &tr);
        }
    }

    llm_circuit_view(c, &conf, shared->clock, &v);
    assert_int_equal(v.state, LLM_CIRCUIT_CLOSED);
    assert_int_equal(v.failures, 0);
    assert_int_equal(v.throttled, 0);
    assert_int_equal(llm_circuit_peek(c, &conf, shared->clock, &wait),
        LLM_ADMITTED);
}


static void
sixteen_workers_agree_on_every_transition(void **state)
{
    pid_t pids[PROCESSES];

    (void) state;

    for (uint32_t n = 0; n < PROCESSES; n++) {
        pids[n] = born(n, 0, STEPS);
    }

    for (uint32_t n = 0; n < PROCESSES; n++) {
        assert_int_equal(waitpid(pids[n], NULL, 0), pids[n]);
    }

    nothing_went_wrong(0);
    closes_again_soon();
}


static void
killed_workers_cost_no_more_than_their_own_log_line(void **state)
{
    process_t p = { .random = ~seed };
    pid_t pids[PROCESSES];

    (void) state;

    for (uint32_t n = 0; n < PROCESSES; n++) {
        pids[n] = born(n, 1, UINT32_MAX);
    }

    for (uint32_t i = 0; i < KILLS + PROCESSES; i++) {
        struct timespec pause = { 0, 1000 * (long) (random32(&p) % 5000) };
        uint32_t n = i < KILLS ? random32(&p) % PROCESSES : i - KILLS;

        if (i < KILLS) {
            (void) nanosleep(&pause, NULL);
        }

        (void) kill(pids[n], SIGKILL);
        assert_int_equal(waitpid(pids[n], NULL, 0), pids[n]);

        if (i < KILLS) {
            pids[n] = born(n, i + 2, UINT32_MAX);
        }
    }

    nothing_went_wrong(KILLS + PROCESSES);
    closes_again_soon();
}


#define TEST(f) cmocka_unit_test_setup(f, setup)


int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nobody_probes_in_an_episode_that_is_over),
        TEST(a_process_of_the_past_takes_no_permit_of_the_present),
        TEST(who_lost_a_permit_does_not_free_it_for_the_new_holder),
        TEST(two_who_come_at_once_are_one_probe),
        TEST(two_last_failures_are_one_transition_and_one_log_line),
        TEST(two_failures_that_reach_the_rate_are_one_transition),
        TEST(two_failures_that_reach_the_rate_together_do_reach_it),
        TEST(a_process_of_the_past_counts_nothing_in_the_present_window),
        TEST(who_ends_a_slow_start_does_not_end_the_next_one),
        TEST(no_success_of_two_at_once_is_lost),
        TEST(of_two_late_hints_the_longer_one_holds),
        TEST(of_two_throttles_the_longer_one_holds),
        TEST(who_asks_takes_away_no_new_throttle),
        TEST(the_status_tells_the_reason_of_the_last_transition),
        TEST(no_transition_is_missing_in_the_log),
        TEST(a_worker_killed_at_any_instruction_wedges_nothing),
        TEST(a_new_word_outlives_the_end_of_the_old_one),
        TEST(a_word_that_is_over_is_taken_back_once),
        TEST(an_operator_killed_at_any_instruction_ends_no_other_word),
        TEST(sixteen_workers_agree_on_every_transition),
        TEST(killed_workers_cost_no_more_than_their_own_log_line)
    };
    const char *given = getenv("LLM_SEED");

    seed = given != NULL ? strtoull(given, NULL, 0)
                         : (uint64_t) time(NULL) << 16 ^ (uint64_t) getpid();

    shared = mmap(NULL, sizeof(shared_t), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("mmap");
        return 1;
    }

    (void) sched_getaffinity(0, sizeof(cpus), &cpus);

    print_message("LLM_SEED=%llu\n", (unsigned long long) seed);

    return cmocka_run_group_tests_name("circuit processes", tests, NULL, NULL);
}
