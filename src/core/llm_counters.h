/*
 * Counters in shared memory: each process adds to a slot of its own, padded
 * to cache lines, and a reader sums the slots.
 *
 * A slot outlives its process: the counts of a killed worker stay, and its
 * successor goes on from there.  What a dead process had under way is
 * settled by llm_counters_settle().
 */

#ifndef LLM_COUNTERS_H
#define LLM_COUNTERS_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>


#define LLM_COUNTERS 16


/* of a provider; CALLS = the four behind it + what is in flight */
enum {
    LLM_CALLS = 0,
    LLM_CALLS_SUCCESSFUL,
    LLM_CALLS_FAILED,
    LLM_CALLS_THROTTLED,
    LLM_CALLS_NEUTRAL,
    LLM_CALLS_REJECTED,
    LLM_CALLS_LATE,
    LLM_UNREADABLE_FRAMES,
    LLM_MOVES,                          /* six, see llm_move() */
    LLM_LAST_SUCCESS = LLM_COUNTERS - 1 /* not a count: wall clock, ms */
};


/*
 * Of a server that is observed: as of a provider, but nothing is rejected.
 * REJECTED would have been, and of that so many were good all the same.
 */
enum {
    LLM_CALLS_REJECTED_GOOD = LLM_UNREADABLE_FRAMES
};


/* of a route; REQUESTS = the outcomes + what is in flight */
enum {
    LLM_REQUESTS = 0,
    LLM_FAILOVERS,
    LLM_REQUESTS_WAITED,
    LLM_REJECTED_CIRCUITS, /* requests that the gate refused, by why */
    LLM_REJECTED_LIMITS,
    LLM_REJECTED_MODEL,
    LLM_REJECTED_REQUEST,
    LLM_OUTCOME_OK, /* requests that are over, by how they ended */
    LLM_OUTCOME_FAILOVER,
    LLM_OUTCOME_REJECTED,
    LLM_OUTCOME_TRUNCATED,
    LLM_OUTCOME_ERROR,
    LLM_OUTCOME_ABORTED,
    LLM_OUTCOME_CACHED,
    LLM_ROUTE_COUNTERS
};


/* of answers, by provider and by route (llm_usage.h, llm_price.h) */
enum {
    LLM_USAGE_TOLD = 0,     /* answers that told their usage */
    LLM_USAGE_MISSING,      /* completions that did not */
    LLM_USAGE_BAD,          /* numbers that are none */
    LLM_TOKENS_IN,          /* all of the input, ... */
    LLM_TOKENS_CACHED,      /* ... of it, read from a cache, ... */
    LLM_TOKENS_CACHE_WRITE, /* ... or written to one */
    LLM_TOKENS_OUT,         /* all of the output, ... */
    LLM_TOKENS_REASONING,   /* ... of it, thoughts */
    LLM_COST,               /* pico-USD */
    LLM_COST_SAVED,         /* by failover: the first choice was dearer, ... */
    LLM_COST_ADDED,         /* ... or cheaper; pico-USD */
    LLM_STREAM_BROKEN,      /* broke behind its commit: by why */
    LLM_STREAM_STALLED,
    LLM_STREAM_ERROR_EVENT,
    LLM_USAGE_COUNTERS
};


typedef struct {
    alignas(64) _Atomic uint64_t v[LLM_COUNTERS];
} llm_counters_t;


/* Adds one.  Slots may be shared in need, so this is an atomic addition. */
static inline void
llm_count(llm_counters_t *c, unsigned what)
{
    atomic_fetch_add_explicit(&c->v[what], 1, memory_order_release);
}


/* Adds n. */
static inline void
llm_count_n(llm_counters_t *c, unsigned what, uint64_t n)
{
    if (n != 0) {
        atomic_fetch_add_explicit(&c->v[what], n, memory_order_release);
    }
}


/* The counter of a circuit's changes from a state to another, 0 to 2. */
static inline unsigned
llm_move(unsigned from, unsigned to)
{
    return LLM_MOVES + 2 * from + to - (to > from);
}


/* Notes a moment in a counter that is no count. */
static inline void
llm_counters_stamp(llm_counters_t *c, unsigned what, uint64_t value)
{
    atomic_store_explicit(&c->v[what], value, memory_order_relaxed);
}


/*
 * What n slots have counted, each counter in sum; of LLM_LAST_SUCCESS the
 * latest.  Calls are never fewer than their verdicts, nor requests than their
 * outcomes, whatever others count meanwhile.
 */
void llm_counters_total(const llm_counters_t *c, unsigned n,
    uint64_t total[LLM_COUNTERS]);

/* A provider's calls that have no verdict yet. */
uint64_t llm_counters_in_flight(const uint64_t total[LLM_COUNTERS]);

/*
 * The process of this slot is gone: what it had in flight will never get a
 * verdict and is counted as neutral.
 */
void llm_counters_settle(llm_counters_t *c);

/* The same of a route: its requests' callers were left alone. */
void llm_counters_settle_route(llm_counters_t *c);

/* Adds all counts of a slot to another one; LLM_LAST_SUCCESS is a maximum. */
void llm_counters_add(llm_counters_t *to, const llm_counters_t *from);

#endif /* LLM_COUNTERS_H */
