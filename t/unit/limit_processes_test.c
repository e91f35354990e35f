/*
 * Limits between processes, three ways:
 *
 * - one process is stopped at every single instruction of a call, another
 *   acts meanwhile, and the first goes on (or is killed there);
 * - sixteen processes take all they can at each moment of a common clock,
 *   while limits and windows change;
 * - sixteen processes live as workers do, on clocks that are read late, and
 *   are killed while they do.
 *
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

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "llm_limit.h"


#define PROCESSES 16
#define MINUTE LLM_LIMIT_WINDOW
#define BUCKET LLM_TOKEN_BUCKET
#define SILENCE (MINUTE + BUCKET)

#define LARGEST 256 /* rpm */
#define WINDOWS 400 /* to move to, in one test */

#define TICKS 2000
#define STEPS 20000 /* of each process, without kills */
#define KILLS 300
#define HELD 4 /* requests that a process has in flight */
#define LOG 1000000
#define LEDGER (1 << 20)

#define NO_PTRACE 77
#define MANY 40000  /* instructions, in all plays of a scene */
#define CHANGES 64  /* of memory, in one call */
#define FAR 1000000 /* instructions; no call is as long as that */


enum {
    FINE = 0,
    TOO_MANY_IN_FLIGHT,
    TOO_LONG
};


typedef union {
    llm_window_t window;
    uint8_t room[sizeof(llm_window_t) + LARGEST * sizeof(uint64_t)];
} any_window_t;


/* All that the limits know. */
typedef struct {
    llm_limits_t limits;
    _Atomic uint32_t slots[PROCESSES];
    any_window_t windows[2];
} memory_t;


/* What a call of the stepped process told. */
typedef struct {
    llm_limit_t limit;
    llm_grant_t grant;
    uint32_t wait;
    _Atomic bool done;
} told_t;


typedef struct {
    memory_t memory;
    told_t told;

    alignas(64) _Atomic uint64_t clock;
    _Atomic uint32_t error;
    _Atomic uint32_t born;
    _Atomic uint32_t tick;
    _Atomic uint32_t arrived;
    _Atomic uint32_t rpm;
    _Atomic uint32_t admitted;

    /* bits 0-31: in flight, as the process believes; 32-63: serial */
    _Atomic uint64_t held[PROCESSES];

    _Atomic uint32_t logged;
    _Atomic uint64_t log[LOG];       /* requests: when */
    _Atomic uint32_t ledger[LEDGER]; /* tokens, by bucket from the first on */

    _Atomic uint32_t moved;
    any_window_t windows[WINDOWS];
} shared_t;


typedef struct {
    uint64_t random;
    uint32_t n;
    uint32_t lag;
    uint32_t serial;
    llm_limit_conf_t conf;
    llm_grant_t grants[HELD];
} process_t;


static shared_t *shared;
static llm_limits_t *limits;
static uint64_t seed;
static cpu_set_t cpus; /* that we may run on */
static pid_t pids[PROCESSES];

/* it wraps on the way, in a window */
static const uint64_t beginning = (UINT64_C(1) << 40) - 5 * MINUTE;


static void
clear(void)
{
    memset(&shared->memory, 0, sizeof(memory_t));
    limits->in_flight = shared->memory.slots;
    limits->workers = PROCESSES;
    shared->told = (told_t) { 0 };
}


static int
setup(void **state)
{
    (void) state;

    (void) sched_setaffinity(0, sizeof(cpus), &cpus);
    memset(shared, 0, sizeof(shared_t));
    clear();
    shared->clock = beginning;

    return 0;
}


/* A test that failed leaves nobody behind. */
static int
teardown(void **state)
{
    (void) state;

    for (uint32_t n = 0; n < PROCESSES; n++) {
        if (pids[n] > 0) {
            (void) kill(pids[n], SIGKILL);
            (void) waitpid(pids[n], NULL, 0);
            pids[n] = 0;
        }
    }

    return 0;
}


/* How many requests are admitted at this moment; ends where none is refused. */
static uint32_t
take_all(const llm_limit_conf_t *conf, uint64_t now, uint64_t tokens)
{
    llm_grant_t grant;
    uint32_t wait, n = 0;

    while (n <= LARGEST
           && llm_limits_acquire(limits, conf, 0, now, tokens, &grant, &wait)
                  == LLM_LIMIT_NONE)
    {
        n++;
    }

    return n;
}


static llm_limit_usage_t
usage(uint64_t now)
{
    llm_limit_usage_t u;

    llm_limits_usage(limits, now, &u);

    return u;
}


/* Everybody is dead or done: all there is to take can be taken again. */
static void
must_recover(uint64_t now, uint32_t rpm)
{
    llm_limit_conf_t conf = { .rpm = rpm };
    llm_limit_usage_t u;

    for (uint32_t n = 0; n < PROCESSES; n++) {
        shared->memory.slots[n] = 0;
    }

    now += SILENCE;
    u = usage(now);
    assert_int_equal(u.requests, 0);
    assert_int_equal(u.tokens, 0);
    assert_int_equal(u.in_flight, 0);

    if (rpm != 0) {
        assert_int_equal(take_all(&conf, now, 1), rpm);
        assert_int_equal(usage(now).requests, rpm);
    }

    conf = (llm_limit_conf_t) { .tpm = 100 };
    assert_int_equal(take_all(&conf, now, 10), 10);
    assert_int_equal(usage(now).tokens, 100);

    conf = (llm_limit_conf_t) { .concurrency = 20 };
    assert_int_equal(take_all(&conf, now, 1), 20);
    assert_int_equal(usage(now).in_flight, 20);
}


/* ---- one process, instruction by instruction ---- */


typedef struct {
    llm_limit_conf_t conf;
    void (*prepare)(void);
    void (*act)(told_t *told); /* in the stepped process */
    void (*meanwhile)(void);   /* in this one */
    void (*check)(void);
} scene_t;


static const llm_limit_conf_t *sc;
static uint64_t now;
static uint32_t mine;
static llm_grant_t held;


static void
acquire(told_t *told)
{
    told->limit = llm_limits_acquire(limits, sc, 1, now, 60, &told->grant,
        &told->wait);
}


static void
settle(told_t *told)
{
    told->grant = held;
    llm_limits_settle(limits, &told->grant, 10);
}


static void
move(told_t *told)
{
    (void) told;
    llm_limits_use(limits, &shared->memory.windows[1].window);
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
    sc = &scene->conf;
    now = beginning;
    held = (llm_grant_t) { 0 };

    llm_window_init(&shared->memory.windows[0].window, 4);
    llm_window_init(&shared->memory.windows[1].window, 8);
    llm_limits_use(limits, &shared->memory.windows[0].window);

    if (scene->prepare != NULL) {
        scene->prepare();
    }

    pid = stopped_process(scene);

    if (pid < 0) {
        skip();
    }

    return pid;
}


static void
play_until(const scene_t *scene, uint32_t at)
{
    pid_t pid = begin(scene);
    bool through = false;

    for (uint32_t i = 0; i < at && !through; i++) {
        through = step(pid);
    }

    scene->meanwhile();
    finish(pid);
    scene->check();
    must_recover(now + 2 * MINUTE, sc->rpm);
}


/*
 * Plays the scene once for each instruction it could be stopped at.  Where
 * there are many: before and behind each that changes memory, and for an even
 * choice of the others, another one with each seed.
 */
static void
play(const scene_t *scene)
{
    static memory_t seen;
    uint32_t changed[CHANGES], changes = 0, steps = 0;
    uint64_t stride;
    bool through;
    pid_t pid;

    share_a_cpu();

    pid = begin(scene);

    do {
        memcpy(&seen, &shared->memory, sizeof(seen));
        through = step(pid);
        assert_true(++steps < FAR);

        if (memcmp(&seen, &shared->memory, sizeof(seen)) != 0) {
            assert_true(changes < CHANGES);
            changed[changes++] = steps;
        }
    } while (!through);

    finish(pid);
    assert_true(changes != 0);

    for (uint32_t i = 0; i < changes; i++) {
        play_until(scene, changed[i] - 1);
        play_until(scene, changed[i]);
    }

    stride = 1 + (uint64_t) steps * steps / 2 / MANY;

    for (uint64_t at = seed % stride; at <= steps; at += stride) {
        play_until(scene, (uint32_t) at);
    }
}


/*
 * What a process leaves behind that is killed at an instruction is the
 * memory as it was then.  So one play shows all of its deaths.
 */
static void
die(const scene_t *scene)
{
    static memory_t left, seen;
    pid_t pid = begin(scene);
    uint32_t changes = 0, steps = 0;
    bool through;

    share_a_cpu();
    memset(&seen, 0xff, sizeof(seen));

    do {
        if (memcmp(&seen, &shared->memory, sizeof(seen)) != 0) {
            memcpy(&left, &shared->memory, sizeof(left));
            must_recover(now, sc->rpm);
            memcpy(&shared->memory, &left, sizeof(left));
            memcpy(&seen, &left, sizeof(seen));
            changes++;
        }

        through = step(pid);
        assert_true(++steps < FAR);

    } while (!through);

    finish(pid);
    assert_true(changes > 1);
}


static bool
admitted(uint64_t clock, uint64_t tokens)
{
    llm_grant_t grant;
    uint32_t wait;

    return llm_limits_acquire(limits, sc, 0, clock, tokens, &grant, &wait)
           == LLM_LIMIT_NONE;
}


/* The window has gone round, and one request is a minute old. */
static void
be_full_but_for_one(void)
{
    llm_limit_conf_t conf = { .rpm = 4 };

    assert_int_equal(take_all(&conf, now - 2 * MINUTE, 1), 4);
    conf.rpm = 1;
    assert_int_equal(take_all(&conf, now - MINUTE, 1), 1);
    conf.rpm = 4;
    assert_int_equal(take_all(&conf, now - 10, 1), 3);
    assert_int_equal(usage(now).requests, 3);
}


static void
take_the_rest(void)
{
    mine = take_all(sc, now, 60);
}


static void
replace_and_take_the_rest(void)
{
    llm_limits_use(limits, &shared->memory.windows[1].window);
    mine = take_all(sc, now, 60);
}


static void
one_of_us_was_admitted(void)
{
    assert_int_equal(mine + (shared->told.limit == LLM_LIMIT_NONE), 1);
}


static void
four_of_us_were_admitted(void)
{
    assert_int_equal(mine + (shared->told.limit == LLM_LIMIT_NONE), 4);
    assert_int_equal(usage(now).requests, 4);
}


static void
the_last_request_of_a_minute_is_made_once(void **state)
{
    static const scene_t scene = { { .rpm = 4 }, be_full_but_for_one, acquire,
        take_the_rest, one_of_us_was_admitted };

    (void) state;
    play(&scene);
}


static void
no_request_is_lost_or_won_between_two(void **state)
{
    static const scene_t scene = { { .rpm = 4 }, NULL, acquire, take_the_rest,
        four_of_us_were_admitted };

    (void) state;
    play(&scene);
}


/* The window has gone round, and all of it is long ago. */
static void
be_full_of_the_past(void)
{
    assert_int_equal(take_all(sc, now - 2 * MINUTE, 1), 4);
}


static void
take_one(void)
{
    assert_true(admitted(now, 60));
}


static void
both_were_admitted(void)
{
    assert_int_equal(shared->told.limit, LLM_LIMIT_NONE);
    assert_int_equal(usage(now).requests, 2);
    assert_int_equal(take_all(sc, now, 1), 2);
}


static void
nobody_is_refused_while_there_is_room(void **state)
{
    static const scene_t scene = { { .rpm = 4 }, be_full_of_the_past, acquire,
        take_one, both_were_admitted };

    (void) state;
    play(&scene);
}


static void
who_asks_while_the_window_is_replaced_is_counted(void **state)
{
    static const scene_t scenes[] = { { { .rpm = 4 }, be_full_but_for_one,
                                          acquire, replace_and_take_the_rest,
                                          one_of_us_was_admitted },
        { { .rpm = 4 }, NULL, acquire, replace_and_take_the_rest,
            four_of_us_were_admitted } };

    (void) state;
    play(&scenes[0]);
    play(&scenes[1]);
}


static void
one_before_and_one_after(void)
{
    assert_int_equal(mine, 1);
    assert_int_equal(take_all(sc, now, 1), 0);
    assert_int_equal(usage(now).requests, 4);
    assert_ptr_equal(limits->window, &shared->memory.windows[1].window);
}


static void
a_window_is_replaced_at_no_moment_that_shows(void **state)
{
    static const scene_t scene = { { .rpm = 4 }, be_full_but_for_one, move,
        take_the_rest, one_before_and_one_after };

    (void) state;
    play(&scene);
}


/* The new window goes round before the other process is through. */
static void
go_round(void)
{
    mine = take_all(sc, now, 1);

    for (unsigned i = 0; i < 4; i++) {
        now += MINUTE;
        assert_int_equal(take_all(sc, now, 1), 4);
    }
}


static void
the_last_minute_is_known(void)
{
    assert_int_equal(mine, 1);
    assert_int_equal(usage(now).requests, 4);
    assert_int_equal(take_all(sc, now, 1), 0);
    assert_int_equal(take_all(sc, now + MINUTE, 1), 4);
}


static void
who_was_stopped_while_it_replaced_a_window_undoes_nothing(void **state)
{
    static const scene_t scene = { { .rpm = 4 }, be_full_but_for_one, move,
        go_round, the_last_minute_is_known };

    (void) state;
    play(&scene);
}


/* The other process is in the bucket before ours. */
static void
be_late(void)
{
    now = now / BUCKET * BUCKET - 1;
}


static void
take_the_rest_in_the_next_bucket(void)
{
    mine = take_all(sc, now + 1, 60);
}


static void
tokens_of_two_buckets_are_not_given_twice(void **state)
{
    static const scene_t scene = { { .tpm = 100 }, be_late, acquire,
        take_the_rest_in_the_next_bucket, one_of_us_was_admitted };

    (void) state;
    play(&scene);
}


static void
hold_tokens_of_the_first_bucket(void)
{
    assert_true(admitted(now - MINUTE, 50));
}


/* So late that the first bucket is used anew. */
static void
take_some_before_and_after(void)
{
    mine = admitted(now - BUCKET, 20);
    assert_true(admitted(now - MINUTE + LLM_TOKEN_BUCKETS * BUCKET, 1));
}


static void
the_minute_did_not_get_all_three(void)
{
    assert_int_equal(shared->told.limit, LLM_LIMIT_NONE);

    if (shared->told.grant.bucket == (uint32_t) (now / BUCKET)) {
        assert_int_equal(mine, 0);
    }
}


static void
who_was_stopped_for_long_looks_again(void **state)
{
    static const scene_t scene = { { .tpm = 120 },
        hold_tokens_of_the_first_bucket, acquire, take_some_before_and_after,
        the_minute_did_not_get_all_three };

    (void) state;
    play(&scene);
}


static void
the_last_tokens_are_given_once(void **state)
{
    static const scene_t scene = { { .tpm = 100 }, NULL, acquire, take_the_rest,
        one_of_us_was_admitted };

    (void) state;
    play(&scene);
}


static void
the_last_place_is_given_once(void **state)
{
    static const scene_t scene = { { .concurrency = 1 }, NULL, acquire,
        take_the_rest, one_of_us_was_admitted };

    (void) state;
    play(&scene);
}


static void
hold_one(void)
{
    uint32_t wait;

    assert_int_equal(llm_limits_acquire(limits, sc, 1, now, 60, &held, &wait),
        LLM_LIMIT_NONE);
}


/* The other's bucket is used anew, and its place in flight is not. */
static void
take_tokens_later(void)
{
    now += LLM_TOKEN_BUCKETS * BUCKET;
    mine = take_all(sc, now, 50);
}


static void
only_its_own_was_settled(void)
{
    assert_int_equal(mine, 2);
    assert_int_equal(usage(now).tokens, 100);
    assert_int_equal(usage(now).in_flight, 2);
}


static void
a_late_settlement_takes_only_what_is_its_own(void **state)
{
    static const scene_t scene = { { .tpm = 100, .concurrency = UINT32_MAX },
        hold_one, settle, take_tokens_later, only_its_own_was_settled };

    (void) state;
    play(&scene);
}


static void
a_worker_killed_at_any_instruction_takes_nothing_along(void **state)
{
    static const llm_limit_conf_t all = { .rpm = 4,
        .tpm = 100,
        .concurrency = 5 };
    const scene_t scenes[] = { { all, NULL, acquire, NULL, NULL },
        { { .rpm = 4 }, be_full_but_for_one, acquire, NULL, NULL },
        { { .rpm = 4 }, be_full_but_for_one, move, NULL, NULL },
        { all, hold_one, settle, NULL, NULL } };

    (void) state;

    for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++) {
        die(&scenes[i]);
    }
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


static void
wrong(uint32_t error)
{
    atomic_store(&shared->error, error);
    _exit(1);
}


/* In the order in which they are given: one process at a time may ask. */
static void
use_another_window(uint32_t rpm)
{
    uint32_t i = atomic_load(&shared->moved);

    if (i < WINDOWS) {
        atomic_store(&shared->moved, i + 1);
        llm_window_init(&shared->windows[i].window, rpm);
        llm_limits_use(limits, &shared->windows[i].window);
    }
}


static pid_t
process(void (*live)(process_t *p, uint32_t steps), uint32_t n, uint32_t life,
    uint32_t steps)
{
    pid_t pid = fork();

    assert_true(pid >= 0);

    if (pid == 0) {
        process_t p = { .random = seed + ((uint64_t) n << 32) + life,
            .n = n,
            .lag = n * 1000 / (PROCESSES - 1) };

        /* the first ones begin together */
        (void) atomic_fetch_add(&shared->born, 1);

        while (atomic_load(&shared->born) < PROCESSES) {
            (void) sched_yield();
        }

        live(&p, steps);
        _exit(0);
    }

    return pid;
}


static void
all_ended_well(void)
{
    for (uint32_t n = 0; n < PROCESSES; n++) {
        int status;

        assert_int_equal(waitpid(pids[n], &status, 0), pids[n]);
        pids[n] = 0;
        assert_int_equal(atomic_load(&shared->error), FINE);
        assert_int_equal(status, 0);
    }
}


/* At each tick: all that there is, and one more try. */
static void
take_all_of_each_tick(process_t *p, uint32_t ticks)
{
    for (uint32_t tick = 1; tick <= ticks; tick++) {
        llm_limit_conf_t conf = { 0 };

        while (atomic_load(&shared->tick) != tick) {
            (void) sched_yield();
        }

        conf.rpm = atomic_load(&shared->rpm);

        for (uint32_t i = p->n; i < 16 && chance(p, 2); i++) {
            (void) sched_yield();
        }

        (void) atomic_fetch_add(&shared->admitted,
            take_all(&conf, atomic_load(&shared->clock), 1));
        (void) atomic_fetch_add(&shared->arrived, 1);
    }
}


/* Times of the requests that were admitted, the latest last. */
typedef struct {
    uint64_t at[LARGEST];
    uint32_t n;
} list_t;


static uint32_t
of_this_minute(const list_t *list, uint64_t clock)
{
    uint32_t n = 0;

    while (n < list->n && list->at[list->n - 1 - n] + MINUTE > clock) {
        n++;
    }

    return n;
}


static void
keep_the_last(list_t *list, uint32_t n)
{
    if (list->n > n) {
        memmove(list->at, list->at + list->n - n, n * sizeof(list->at[0]));
        list->n = n;
    }
}


static void
sixteen_workers_make_as_many_requests_as_they_may_and_no_more(void **state)
{
    process_t p = { .random = ~seed };
    uint32_t refused = 0, full = 0, total = 0, rpm = 10;
    list_t list = { .n = 0 };

    (void) state;

    use_another_window(rpm);

    for (uint32_t n = 0; n < PROCESSES; n++) {
        pids[n] = process(take_all_of_each_tick, n, 0, TICKS);
    }

    for (uint32_t tick = 1; tick <= TICKS; tick++) {
        uint64_t clock = atomic_load(&shared->clock);
        uint32_t before, admitted, want;
        bool moves = chance(&p, 10) && shared->moved < WINDOWS - 1;

        clock += chance(&p, 20) ? random32(&p) % (2 * MINUTE)
                                : random32(&p) % (MINUTE / 8);

        if (moves && chance(&p, 2)) {
            rpm = 1 + random32(&p) % 100;

            if (rpm > llm_window_capacity(limits->window)) {
                use_another_window(rpm);
            }
        }

        before = of_this_minute(&list, clock);
        want = before < rpm ? rpm - before : 0;

        atomic_store(&shared->clock, clock);
        atomic_store(&shared->rpm, rpm);
        atomic_store(&shared->admitted, 0);
        atomic_store(&shared->arrived, 0);
        atomic_store(&shared->tick, tick);

        if (moves) {
            /* while they ask */
            use_another_window(rpm + random32(&p) % 50);
        }

        while (atomic_load(&shared->arrived) != PROCESSES) {
            assert_int_equal(atomic_load(&shared->error), FINE);
            (void) sched_yield();
        }

        admitted = atomic_load(&shared->admitted);

        if (admitted != want) {
            print_message("tick %u: limit %u, %u before, %u admitted\n", tick,
                rpm, before, admitted);
        }

        assert_int_equal(admitted, want);
        full += want == 0;
        refused += before > rpm;
        total += admitted;

        keep_the_last(&list, LARGEST - admitted);

        while (admitted-- != 0) {
            list.at[list.n++] = clock;
        }

        keep_the_last(&list, (uint32_t) llm_window_capacity(limits->window));
    }

    all_ended_well();
    print_message("%u requests, %u windows, %u ticks full, %u lowered\n", total,
        shared->moved, full, refused);
    assert_true(shared->moved > 50 && full > 10 && refused > 10);
    assert_true(total > 1000);
    must_recover(shared->clock, rpm);
}


#define RPM 50
#define TPM 3000
#define CONCURRENCY 20


/* What is in flight for sure: two readings that are the same. */
static uint32_t
surely_in_flight(void)
{
    uint64_t words[PROCESSES];
    uint32_t sum = 0;

    for (uint32_t n = 0; n < PROCESSES; n++) {
        words[n] = atomic_load(&shared->held[n]);
        sum += (uint32_t) words[n];
    }

    for (uint32_t n = 0; n < PROCESSES; n++) {
        if (atomic_load(&shared->held[n]) != words[n]) {
            return 0;
        }
    }

    return sum;
}


static void
hold(process_t *p, int more)
{
    uint32_t n = (uint32_t) atomic_load(&shared->held[p->n]) + (uint32_t) more;

    atomic_store(&shared->held[p->n], (uint64_t) ++p->serial << 32 | n);
}


static void
begin_request(process_t *p, llm_grant_t *grant)
{
    uint64_t clock = atomic_fetch_add(&shared->clock, random32(p) % 16);
    uint32_t tokens = random32(p) % (chance(p, 20) ? 2 * TPM : TPM / 25);
    uint32_t wait, i;

    if (chance(p, 4)) {
        clock -= random32(p) % (p->lag + 1);
    }

    if (llm_limits_acquire(limits, &p->conf, p->n, clock, tokens, grant, &wait)
        != LLM_LIMIT_NONE)
    {
        return;
    }

    hold(p, 1);

    if (surely_in_flight() > CONCURRENCY) {
        wrong(TOO_MANY_IN_FLIGHT);
    }

    if (p->conf.rpm != 0) {
        i = atomic_fetch_add(&shared->logged, 1);

        if (i >= LOG) {
            wrong(TOO_LONG);
        }

        atomic_store(&shared->log[i], clock);
    }
}


/*
 * The ledger has the final figures: as they are not more than what was
 * reserved, they are within the limit, too.
 */
static void
end_request(process_t *p, llm_grant_t *grant)
{
    uint64_t first = beginning / BUCKET - LLM_TOKEN_BUCKETS;
    uint32_t tokens = grant->tokens;
    uint32_t i = grant->bucket - (uint32_t) first;

    if (tokens != 0) {
        if (i >= LEDGER) {
            wrong(TOO_LONG);
        }

        tokens = chance(p, 2) ? random32(p) % (tokens + 1) : tokens;
        (void) atomic_fetch_add(&shared->ledger[i], tokens);
    }

    hold(p, -1);
    llm_limits_settle(limits, grant,
        tokens == grant->tokens ? LLM_TOKENS_UNKNOWN : tokens);
}


static void
live_a_life(process_t *p, uint32_t steps)
{
    /* not all see the same configuration, and each sees one limit most */
    switch (random32(p) % 4) {
    case 0:
        p->conf.rpm = RPM;
        break;
    case 1:
        p->conf.rpm = RPM - 10;
        p->conf.tpm = TPM;
        break;
    default:
        p->conf.tpm = TPM;
    }

    p->conf.concurrency = CONCURRENCY;

    for (uint32_t i = 0; i < steps; i++) {
        llm_grant_t *grant = &p->grants[random32(p) % HELD];

        if (!grant->in_flight) {
            begin_request(p, grant);

        } else {
            end_request(p, grant);
        }

        if (p->n == 0 && chance(p, 500)) {
            use_another_window(RPM + random32(p) % 100);
        }

        if (chance(p, 100)) {
            (void) sched_yield();
        }
    }

    for (uint32_t i = 0; i < HELD; i++) {
        if (p->grants[i].in_flight) {
            end_request(p, &p->grants[i]);
        }
    }
}


static int
compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *) a;
    uint64_t y = *(const uint64_t *) b;

    return (x > y) - (x < y);
}


static void
no_minute_had_too_many_requests(void)
{
    uint32_t n = atomic_load(&shared->logged), first = 0;
    uint64_t *log = (uint64_t *) shared->log;

    qsort(log, n, sizeof(log[0]), compare);

    /* who was killed had no time to write it down */
    while (first < n && log[first] == 0) {
        first++;
    }

    for (uint32_t i = first; i + RPM < n; i++) {
        assert_true(log[i + RPM] - log[i] >= MINUTE);
    }

    print_message("requests %u, windows %u\n", n - first, shared->moved);
    assert_true(n - first > 200);
}


static void
no_minute_had_too_many_tokens(void)
{
    uint64_t sum = 0, total = 0, most = 0;

    for (uint32_t i = 0; i < LEDGER; i++) {
        sum += shared->ledger[i];
        total += shared->ledger[i];

        if (i > MINUTE / BUCKET) {
            sum -= shared->ledger[i - MINUTE / BUCKET - 1];
        }

        most = sum > most ? sum : most;
    }

    print_message("tokens %llu, most in a minute %llu\n",
        (unsigned long long) total, (unsigned long long) most);
    assert_true(most <= TPM);
    assert_true(total > 10 * TPM);
}


static void
sixteen_workers_stay_within_all_limits(void **state)
{

    (void) state;
    use_another_window(RPM);

    for (uint32_t n = 0; n < PROCESSES; n++) {
        pids[n] = process(live_a_life, n, 0, STEPS);
    }

    all_ended_well();
    assert_int_equal(usage(shared->clock).in_flight, 0);
    no_minute_had_too_many_requests();
    no_minute_had_too_many_tokens();
    must_recover(shared->clock, RPM);
}


static void
killed_workers_cost_no_more_than_a_minute_of_what_they_took(void **state)
{
    process_t p = { .random = ~seed };

    (void) state;
    use_another_window(RPM);

    for (uint32_t n = 0; n < PROCESSES; n++) {
        pids[n] = process(live_a_life, n, 1, UINT32_MAX);
    }

    for (uint32_t i = 0; i < KILLS + PROCESSES; i++) {
        struct timespec pause = { 0, 1000 * (long) (random32(&p) % 5000) };
        uint32_t n = i < KILLS ? random32(&p) % PROCESSES : i - KILLS;
        int status;

        if (i < KILLS) {
            /* who replaces windows dies most */
            n = chance(&p, 4) ? 0 : n;
            (void) nanosleep(&pause, NULL);
        }

        (void) kill(pids[n], SIGKILL);
        assert_int_equal(waitpid(pids[n], &status, 0), pids[n]);
        pids[n] = 0;
        assert_int_equal(atomic_load(&shared->error), FINE);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

        /* as the owner of the zone does; the order is for our own figures */
        atomic_store(&shared->held[n], 0);
        atomic_store(&shared->memory.slots[n], 0);

        if (i < KILLS) {
            pids[n] = process(live_a_life, n, i + 2, UINT32_MAX);
        }
    }

    assert_int_equal(usage(shared->clock).in_flight, 0);
    no_minute_had_too_many_requests();
    no_minute_had_too_many_tokens();
    must_recover(shared->clock, RPM);
}


#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)


int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_last_request_of_a_minute_is_made_once),
        TEST(no_request_is_lost_or_won_between_two),
        TEST(nobody_is_refused_while_there_is_room),
        TEST(who_asks_while_the_window_is_replaced_is_counted),
        TEST(a_window_is_replaced_at_no_moment_that_shows),
        TEST(who_was_stopped_while_it_replaced_a_window_undoes_nothing),
        TEST(tokens_of_two_buckets_are_not_given_twice),
        TEST(the_last_tokens_are_given_once),
        TEST(who_was_stopped_for_long_looks_again),
        TEST(the_last_place_is_given_once),
        TEST(a_late_settlement_takes_only_what_is_its_own),
        TEST(a_worker_killed_at_any_instruction_takes_nothing_along),
        TEST(sixteen_workers_make_as_many_requests_as_they_may_and_no_more),
        TEST(sixteen_workers_stay_within_all_limits),
        TEST(killed_workers_cost_no_more_than_a_minute_of_what_they_took)
    };

    const char *chosen = getenv("LLM_SEED");

    seed = chosen != NULL ? strtoull(chosen, NULL, 0)
                          : (uint64_t) time(NULL) << 20 ^ (uint64_t) getpid();
    print_message("LLM_SEED=%llu\n", (unsigned long long) seed);

    if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0) {
        CPU_ZERO(&cpus);
    }

    shared = mmap(NULL, sizeof(shared_t), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (shared == MAP_FAILED) {
        perror("mmap");
        return 1;
    }

    limits = &shared->memory.limits;

    return cmocka_run_group_tests(tests, NULL, NULL);
}
