/*
 * The arithmetic of retries: how long to pause before the next round, and
 * whether there may be a retry at all.
 *
 * No pointer argument may be NULL.
 */

#ifndef LLM_RETRY_H
#define LLM_RETRY_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>


#define LLM_RETRY_NO_DEADLINE UINT32_MAX

#define LLM_BUDGET_BUCKETS 32 /* a power of two, >= window + 2 * ahead */
#define LLM_BUDGET_WINDOW 10  /* buckets that count */
#define LLM_BUDGET_AHEAD 10   /* and of clocks that are ahead of ours */
#define LLM_BUDGET_FLOOR 3    /* retries that are allowed in any window */


typedef struct {
    uint32_t base;   /* ms; before round 0 */
    uint32_t max;    /* ms; growth ends here */
    uint32_t factor; /* of growth, in thousandths: 2000 doubles */
    uint32_t jitter; /* in thousandths, over 1000 counts as 1000: 500 spreads
                        a pause evenly over 75 % to 125 % of itself */
} llm_retry_conf_t;


/*
 * The pause before a round, counted from 0:
 *
 *     min(base * factor ^ round, max) * (1 +- jitter / 2)
 *
 * and never shorter than hint, ms, what the provider asked for (0: nothing).
 * random: any 32 random bits.
 *
 * left: ms until the request's deadline, or LLM_RETRY_NO_DEADLINE.  False:
 * when the pause is over nothing would be left for an attempt; *pause is
 * untouched.
 *
 * Any values are understood; a pause over UINT32_MAX ms is cut to it.
 */
bool llm_retry_pause(const llm_retry_conf_t *conf, uint32_t round,
    uint32_t hint, uint32_t left, uint32_t random, uint32_t *pause);


/*
 * The budget: which share of the requests of the last ten seconds may be
 * retries or failovers, so that an outage is not multiplied.  In shared
 * memory; all zeroes is ready for use.  Lock-free: a process that is killed
 * at any instruction leaves nothing locked.
 *
 * Time is in buckets of 1024 ms: the 32-bit clock is a whole number of them
 * (and of rings of buckets), so its wrap is a second like any other.  A
 * bucket is one word, so it is cleared and added to in one compare-and-swap:
 *
 *     bits    field
 *     0-20    retries, stops at its largest
 *     21-41   requests, stops at its largest
 *     42-63   which bucket of the clock this is
 *
 * Clocks of processes may differ by LLM_CIRCUIT_SKEW: what others have
 * counted ahead of a clock that lags is seen, and nobody clears a bucket
 * that another still needs.
 */
typedef struct {
    alignas(64) _Atomic uint64_t bucket[LLM_BUDGET_BUCKETS];
} llm_budget_t;


/* Counts a request of a caller; once, however often it is tried. */
void llm_budget_request(llm_budget_t *b, uint32_t now);

/*
 * Asks for one retry or failover, and counts it if it is allowed:
 *
 *     retries, with this one <= max(percent % of requests, LLM_BUDGET_FLOOR)
 *
 * No number of processes takes more than that together.  Where two of
 * them ask in different buckets for the last one, both may be refused.
 */
bool llm_budget_take(llm_budget_t *b, uint32_t percent, uint32_t now);

/* What was counted in the window that ends now; reads only. */
void llm_budget_read(const llm_budget_t *b, uint32_t now, uint64_t *requests,
    uint64_t *retries);

#endif /* LLM_RETRY_H */
