#include "llm_counters.h"

#include <assert.h>


static_assert(LLM_MOVES + 6 <= LLM_COUNTERS - 1, "a provider's counters fit");
static_assert(LLM_ROUTE_COUNTERS <= LLM_COUNTERS - 1, "and a route's");


static uint64_t
llm_counters_read(const llm_counters_t *c, unsigned what)
{
    return atomic_load_explicit(&c->v[what], memory_order_relaxed);
}


static uint64_t
llm_counters_settled(const llm_counters_t *c)
{
    return llm_counters_read(c, LLM_CALLS_SUCCESSFUL)
           + llm_counters_read(c, LLM_CALLS_FAILED)
           + llm_counters_read(c, LLM_CALLS_THROTTLED)
           + llm_counters_read(c, LLM_CALLS_NEUTRAL);
}


uint64_t
llm_counters_sum(const llm_counters_t *c, unsigned n, unsigned what)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < n; i++) {
        sum += llm_counters_read(&c[i], what);
    }

    return sum;
}


uint64_t
llm_counters_latest(const llm_counters_t *c, unsigned n, unsigned what)
{
    uint64_t latest = 0;

    for (unsigned i = 0; i < n; i++) {
        uint64_t v = llm_counters_read(&c[i], what);

        if (v > latest) {
            latest = v;
        }
    }

    return latest;
}


uint64_t
llm_counters_in_flight(const llm_counters_t *c, unsigned n)
{
    uint64_t calls, settled;

    /*
     * Verdicts are read first: a call that is made and settled between the
     * two reads would otherwise be seen as settled only, below zero.
     */

    settled = 0;

    for (unsigned i = 0; i < n; i++) {
        settled += llm_counters_settled(&c[i]);
    }

    atomic_thread_fence(memory_order_acquire);

    calls = llm_counters_sum(c, n, LLM_CALLS);

    return calls > settled ? calls - settled : 0;
}


void
llm_counters_settle(llm_counters_t *c)
{
    uint64_t calls, settled;

    settled = llm_counters_settled(c);
    calls = llm_counters_read(c, LLM_CALLS);

    if (calls > settled) {
        atomic_fetch_add_explicit(&c->v[LLM_CALLS_NEUTRAL], calls - settled,
            memory_order_relaxed);
    }
}


void
llm_counters_settle_route(llm_counters_t *c)
{
    uint64_t requests, ended = 0;

    for (unsigned i = LLM_OUTCOME_OK; i <= LLM_OUTCOME_CACHED; i++) {
        ended += llm_counters_read(c, i);
    }

    requests = llm_counters_read(c, LLM_REQUESTS);

    if (requests > ended) {
        llm_count_n(c, LLM_OUTCOME_ABORTED, requests - ended);
    }
}


void
llm_counters_add(llm_counters_t *to, const llm_counters_t *from)
{
    for (unsigned i = 0; i < LLM_COUNTERS; i++) {
        uint64_t v = llm_counters_read(from, i);

        if (i == LLM_LAST_SUCCESS) {
            if (v > llm_counters_read(to, i)) {
                llm_counters_stamp(to, i, v);
            }

            continue;
        }

        atomic_fetch_add_explicit(&to->v[i], v, memory_order_relaxed);
    }
}
