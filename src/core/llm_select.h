/*
 * Which provider of a route is the next to ask.
 *
 * A request walks the providers of its route in the order of a strategy.  It
 * calls llm_select_next(), tries to acquire what came out, and calls again
 * where that refused or failed: failover follows the strategy as well.
 * Providers marked backup come when no other is left, among themselves by
 * the same strategy.
 *
 * priority      In the order of the configuration.
 *
 * weighted      Requests are shared in proportion of the weights, exactly
 *               and over all processes: of any W consecutive ones, W being
 *               the sum of the weights, each provider gets its weight.
 *               Turns are spread evenly: a a b a c, not a a a b c.  A turn
 *               that is refused goes to the others in proportion of their
 *               weights, and is not made up for later.  A request that fails
 *               over goes there too, but on an account of its own, and costs
 *               nobody a turn.
 *
 * round_robin   The same with all weights equal.
 *
 * least_conn    The smallest in_flight / weight.  Ties are drawn by lot, in
 *               proportion of the weights.
 *
 * least_latency The smallest average (llm_latency.h); weights do not matter.
 *               Providers without one come last.  A provider that is due is
 *               asked before all others, the one with the oldest news first,
 *               so that one call a minute tells whether a slow one became
 *               fast, and one a second whether an unknown one works at all.
 *               A request that failed already is not used for that.  On a
 *               route with less than a request a minute for each provider
 *               everybody is due, so they take turns.
 *
 * cost          The cheapest for what this request will probably need, those
 *               first whose output price is within the budget.  Ties in the
 *               order of the configuration.
 *
 * How turns are kept: a provider with weight w has w slots in each round of
 * virtual time, W / w calls apart, and not at the same points as others.
 * Its shared word is the time of the slot that it took last.  A call takes
 * the earliest next slot of all candidates by compare-and-swap; who loses
 * looks again.  Slots only grow, so what was the earliest when it was seen
 * still is when the exchange succeeds.  The virtual time of the route is the
 * latest slot that was taken; slots before it are lost, so a provider that
 * was away for an hour comes back to its share and not to an hour's backlog.
 *
 * A time means the same with all weights, and what follows it is found with
 * the weight in force: after a change nobody waits for longer than until the
 * first of its new slots, and nobody catches up.  As long as processes with
 * other weights ask too, shares are approximate.
 *
 * Lock-free: a process that is killed at any instruction leaves nothing
 * locked, and costs one provider one turn at most.  Weights and the order of
 * the configuration may differ between processes, as they do in a reload.
 * Whatever the shared words hold is understood.
 *
 * No pointer argument may be NULL, nor what the strategy reads of a
 * candidate.
 */

#ifndef LLM_SELECT_H
#define LLM_SELECT_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llm_latency.h"


#define LLM_SELECT_MAX 256 /* candidates */
#define LLM_WEIGHT_MAX 1000000


typedef enum {
    LLM_STRATEGY_PRIORITY = 0,
    LLM_STRATEGY_ROUND_ROBIN,
    LLM_STRATEGY_WEIGHTED,
    LLM_STRATEGY_LEAST_LATENCY,
    LLM_STRATEGY_COST,
    LLM_STRATEGY_LEAST_CONN
} llm_strategy_t;

#define LLM_STRATEGIES 6


/*
 * What became of a candidate in this request.  llm_select_next() marks what
 * it gives TRIED.  Where a circuit or a limit refuses then, so that nothing
 * is sent, the caller makes that EXCLUDED: the next one is no failover.
 */
enum {
    LLM_SELECT_LEFT = 0,
    LLM_SELECT_TRIED,
    LLM_SELECT_EXCLUDED /* does not serve the request, or refused it */
};


/*
 * Turns of a provider in a route, in shared memory; all zeroes is fresh.
 * Virtual time of the slot that was taken last.  Round robin and weighted do
 * not disturb each other, nor do requests and those that fail over.
 */
typedef struct {
    _Atomic uint64_t taken[4];
} llm_turns_t;


/*
 * Virtual time of a route, in shared memory; all zeroes is fresh.  In 2^-44
 * of a round; for each account of turns, with and without backups.
 */
typedef struct {
    alignas(64) _Atomic uint64_t now[8];
} llm_vtime_t;


/* A provider in a route; shared words may be shared with other routes. */
typedef struct {
    bool backup;
    uint32_t weight;                   /* 1..LLM_WEIGHT_MAX */
    uint64_t price_input;              /* of a million tokens; in any unit */
    uint64_t price_output;             /* in the same unit */
    llm_turns_t *turns;                /* of this route */
    llm_latency_t *latency;            /* of the provider */
    const _Atomic uint32_t *in_flight; /* of the provider, for each slot */

    uint64_t step;  /* set by llm_select_prepare() */
    uint64_t first; /* the same */
} llm_candidate_t;


/*
 * One request's walk.  With marks as at the beginning it is walked again,
 * like a request of its own.
 */
typedef struct {
    llm_strategy_t strategy;
    const llm_candidate_t *candidates;
    uint8_t *marks;        /* one for each candidate; first all LEFT, or
                              EXCLUDED where it does not serve the request */
    unsigned n;            /* of them, up to LLM_SELECT_MAX */
    unsigned slots;        /* counters in in_flight */
    llm_vtime_t *vtime;    /* of the route */
    uint64_t input_tokens; /* that the request will probably need */
    uint64_t output_tokens;
    uint64_t budget; /* highest price_output; 0: any */
} llm_select_t;


/*
 * Once, when the route is configured.  A weight that is out of range is cut
 * to it.
 */
void llm_select_prepare(llm_candidate_t *candidates, unsigned n);

/*
 * The index of the next candidate, which is marked TRIED and does not come
 * again; -1: none is left.
 *
 * now: ms, as in llm_latency.h; random: any 32 random bits.
 */
int llm_select_next(const llm_select_t *s, uint32_t now, uint32_t random);

/* "priority", "round_robin", ...; the words of the directive */
const char *llm_strategy_name(llm_strategy_t strategy);

/* the strategy of such a word; -1: there is none */
int llm_strategy_by_name(const uint8_t *name, size_t len);

#endif /* LLM_SELECT_H */
