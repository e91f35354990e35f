/*
 * What a provider may be asked for, all processes together: requests a
 * minute (rpm), tokens a minute (tpm), requests in flight (concurrency).
 * A minute is any 60 seconds, never one of the clock.
 *
 * Everything here is lock-free: a process that is killed at any instruction
 * leaves nothing locked.  What it had taken from rpm and tpm leaves with its
 * minute; what it had in flight leaves when its slot is set to 0.
 *
 * Times are milliseconds on a monotonic clock that all processes share and
 * may read late: what was taken at a moment still to come counts as just
 * taken.  Limits may differ between processes, so a reload may change them
 * at any moment; each process is held to its own.
 *
 * No pointer argument may be NULL.
 */

#ifndef LLM_LIMIT_H
#define LLM_LIMIT_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llm_window.h"


#define LLM_TPM_MAX UINT32_MAX        /* a larger limit counts as this one */
#define LLM_TOKENS_UNKNOWN UINT64_MAX /* to settle(): keep the estimate */

#define LLM_TOKEN_BUCKETS 128 /* a power of two, > window / bucket + 1 */
#define LLM_TOKEN_BUCKET 500  /* ms */


typedef enum {
    LLM_LIMIT_NONE = 0,
    LLM_LIMIT_RPM,
    LLM_LIMIT_TPM,
    LLM_LIMIT_CONCURRENCY
} llm_limit_t;


/* 0: off */
typedef struct {
    uint32_t rpm;
    uint32_t concurrency; /* UINT32_MAX: counted, never refused */
    uint64_t tpm;
} llm_limit_conf_t;


/*
 * In shared memory at the same address for all.  All zeroes is ready for
 * use, but a limit whose memory is missing does not limit: rpm needs a
 * window, concurrency needs slots.
 */
typedef struct {
    /* bits 0-31: tokens, 32-63: number of the bucket since 0 ms */
    alignas(64) _Atomic uint64_t bucket[LLM_TOKEN_BUCKETS];

    _Atomic(llm_window_t *) window; /* see llm_limits_use() */
    _Atomic uint32_t *in_flight;    /* a slot for each worker */
    uint32_t workers;               /* slots there are */
} llm_limits_t;


/* What a request has taken.  Process-local; all zeroes is no grant. */
typedef struct {
    uint32_t tokens; /* 0: none */
    uint32_t bucket; /* the number of theirs */
    uint32_t slot;
    bool in_flight;
} llm_grant_t;


/* What a status page shows. */
typedef struct {
    uint64_t requests; /* of the last 60 s */
    uint64_t tokens;   /* of the last 60 s, and up to 500 ms more */
    uint32_t in_flight;
} llm_limit_usage_t;


/*
 * Would acquire() admit now?  Reads only.  *wait: ms until it will if nobody
 * else comes, 0 if it would now, LLM_LIMIT_WAIT_UNKNOWN if that depends on
 * when requests end.  Where several refuse, concurrency goes before tpm,
 * tpm before rpm, and *wait is for the one that takes longest.
 */
llm_limit_t llm_limits_peek(const llm_limits_t *l, const llm_limit_conf_t *conf,
    uint64_t now, uint64_t tokens, uint32_t *wait);

/*
 * Asks for one request of about so many tokens: takes from all limits that
 * are on, or from none, and tells which one refused, and *wait as above.
 * NONE: *grant must be given back with exactly one settle().
 *
 * slot: the worker's own, < l->workers.
 *
 * More tokens than the limit count as the limit, or there would never be
 * room; none count as one, so that a full minute refuses them, too.
 *
 * No limit is ever exceeded.  rpm refuses only when it is full.  The others
 * may refuse more than they must where several ask for the last room at the
 * same moment, or give some back.
 */
llm_limit_t llm_limits_acquire(llm_limits_t *l, const llm_limit_conf_t *conf,
    uint32_t slot, uint64_t now, uint64_t tokens, llm_grant_t *grant,
    uint32_t *wait);

/*
 * The request is over: it is in flight no more, and the tokens it really
 * took stand in the place of the estimate, in the bucket of the estimate;
 * they may exceed the limit.  0 takes them back.  After a minute there is
 * nothing left to correct.  Ends the grant: a second call does nothing.
 */
void llm_limits_settle(llm_limits_t *l, llm_grant_t *grant, uint64_t tokens);

/* What of the limits is used; reads only. */
void llm_limits_usage(const llm_limits_t *l, uint64_t now,
    llm_limit_usage_t *usage);

/*
 * Gives rpm another window; the first, or a larger one when a limit was
 * raised.  Others may go on meanwhile: the old window is closed, what it
 * knows is moved, and nobody is admitted in between; who is killed over it
 * is finished for by the next.  A smaller one takes what is the latest, and
 * no limit is larger than the window then.
 *
 * By one process at a time.  The old window is still read by those who have
 * seen it: its memory is free when they all have done something else since.
 */
void llm_limits_use(llm_limits_t *l, llm_window_t *window);

/*
 * Copies buckets and window into limits that nobody else knows yet; a window
 * they must have already.  Slots are not copied.
 */
void llm_limits_copy(llm_limits_t *to, const llm_limits_t *from);


/* Requests in flight, for those who only count. */
static inline void
llm_in_flight_add(_Atomic uint32_t *slots, uint32_t slot)
{
    (void) atomic_fetch_add(&slots[slot], 1);
}


/* Never below 0, even if the slot was set to 0 since. */
static inline void
llm_in_flight_sub(_Atomic uint32_t *slots, uint32_t slot)
{
    uint32_t n = atomic_load(&slots[slot]);

    while (n != 0 && !atomic_compare_exchange_weak(&slots[slot], &n, n - 1)) {
        /* void */
    }
}


static inline uint32_t
llm_in_flight_sum(const _Atomic uint32_t *slots, uint32_t n)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        sum += atomic_load(&slots[i]);
    }

    return sum;
}

#endif /* LLM_LIMIT_H */
