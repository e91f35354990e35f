/*
 * What is known of a provider's active probes, when the next one is due, and
 * who sends them.
 *
 * In shared memory; lock-free: a process that is killed at any instruction
 * leaves nothing locked.  All zeroes is ready for use.  One process at a time
 * sends probes and writes here; that two do for a moment does no harm.
 */

#ifndef LLM_PROBE_H
#define LLM_PROBE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>


#define LLM_PROBE_HOUR 12        /* buckets of five minutes */
#define LLM_PROBE_DAY 24         /* buckets of an hour */
#define LLM_PROBE_LATENCY 131071 /* ms; the largest that is told */
#define LLM_PROBE_FAULTS 27      /* largest fault */


typedef enum {
    LLM_PROBE_NONE = 0, /* no probe yet */
    LLM_PROBE_SUCCESS,
    LLM_PROBE_FAILURE,
    LLM_PROBE_CREDENTIAL, /* the provider refuses the key */
    LLM_PROBE_THROTTLE,   /* it asks for a pause */
    LLM_PROBE_RESULTS
} llm_probe_result_t;


/* The last probe. */
typedef struct {
    llm_probe_result_t result;
    unsigned status;  /* of the answer; 0: there was none; < 1024 */
    unsigned fault;   /* of a failure, the caller's own number */
    uint32_t latency; /* ms */
    uint64_t time;    /* seconds since 1970; below 2^32 */
} llm_probe_last_t;


typedef struct {
    uint32_t good;
    uint32_t all;
} llm_probe_share_t;


typedef struct {
    _Atomic uint64_t last; /* see llm_probe.c */
    _Atomic uint64_t next; /* ms, when the next one is due; 0: never said */
    _Atomic uint64_t mark; /* of what is asked for: another, another probe */
    _Atomic uint64_t count[LLM_PROBE_RESULTS];
    _Atomic uint64_t hour[LLM_PROBE_HOUR];
    _Atomic uint64_t day[LLM_PROBE_DAY];
} llm_probe_t;


/* Adds a probe that is over. */
void llm_probe_add(llm_probe_t *p, const llm_probe_last_t *last);

/* The last one; false: there was none yet. */
bool llm_probe_last(const llm_probe_t *p, llm_probe_last_t *last);

/* How many of a result there were. */
uint64_t llm_probe_count(const llm_probe_t *p, llm_probe_result_t result);

/*
 * How many of the last hour's probes, or the last day's, were good; now:
 * seconds since 1970.  The hour goes by five minutes, the day by hours, what
 * has begun included.  A clock that was set back or ahead loses some of them.
 */
llm_probe_share_t llm_probe_hour(const llm_probe_t *p, uint64_t now);
llm_probe_share_t llm_probe_day(const llm_probe_t *p, uint64_t now);

/*
 * When the next one is due: after an interval that is up to a tenth shorter,
 * so that nobody is asked in step with others.  random: any 32 random bits.
 */
uint64_t llm_probe_next(uint64_t now, uint32_t interval, uint32_t random);

/* Copies one into another that nobody else knows yet. */
void llm_probe_copy(llm_probe_t *to, const llm_probe_t *from);

/*
 * A history as numbers below 2^63 that outlive the process: what is due next
 * is not among them.  saved(): whether these can be such numbers, of faults
 * below "faults".
 */
#define LLM_PROBE_NUMBERS \
    (5 + LLM_PROBE_RESULTS + 2 * (LLM_PROBE_HOUR + LLM_PROBE_DAY))

void llm_probe_save(const llm_probe_t *p, uint64_t *v);
bool llm_probe_saved(const uint64_t *v, unsigned faults);
void llm_probe_restore(llm_probe_t *p, const uint64_t *v);

const char *llm_probe_result_name(llm_probe_result_t result);


/*
 * Who sends the probes: one process of all that ask for it.  It asks again
 * before ms are over and keeps it; one that does not, is not waited for.
 *
 * owner: not 0, and no other process's.  now: ms on a monotonic clock that
 * all processes share; may wrap.  ms: below 2^31.
 */
bool llm_lease_take(_Atomic uint64_t *lease, uint32_t owner, uint32_t now,
    uint32_t ms);

/* Who has it, whether its time is over or not; 0: nobody. */
uint32_t llm_lease_owner(const _Atomic uint64_t *lease);

/* Gives it back, if it is the owner's; true: it was. */
bool llm_lease_leave(_Atomic uint64_t *lease, uint32_t owner);

#endif /* LLM_PROBE_H */
