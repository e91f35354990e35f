#include "llm_counters.h"

#include <assert.h>


static_assert(LLM_CALLS == 0 && LLM_REQUESTS == 0, "sums are read last");
static_assert(LLM_MOVES + 6 <= LLM_COUNTERS - 1, "a provider's counters fit");
static_assert(LLM_ROUTE_COUNTERS <= LLM_COUNTERS - 1, "and a route's");
static_assert(LLM_USAGE_COUNTERS <= LLM_COUNTERS - 1, "and those of answers");


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


void
llm_counters_total(const llm_counters_t *c, unsigned n,
    uint64_t total[LLM_COUNTERS])
{
    for (unsigned i = 0; i < LLM_COUNTERS; i++) {
        total[i] = 0;
    }

    /* backwards: LLM_CALLS and LLM_REQUESTS behind what they are the sum of */

    for (unsigned slot = 0; slot < n; slot++) {
        for (unsigned i = LLM_COUNTERS; i-- > 0;) {
            uint64_t v = atomic_load_explicit(&c[slot].v[i],
                memory_order_acquire);

            if (i != LLM_LAST_SUCCESS) {
                total[i] += v;

            } else if (v > total[i]) {
                total[i] = v;
            }
        }
    }
}


uint64_t
llm_counters_in_flight(const uint64_t total[LLM_COUNTERS])
{
    uint64_t settled = total[LLM_CALLS_SUCCESSFUL] + total[LLM_CALLS_FAILED]
                       + total[LLM_CALLS_THROTTLED] + total[LLM_CALLS_NEUTRAL];

    return total[LLM_CALLS] > settled ? total[LLM_CALLS] - settled : 0;
}


void
llm_counters_settle(llm_counters_t *c)
{
    uint64_t calls, settled;

    settled = llm_counters_settled(c);
    calls = llm_counters_read(c, LLM_CALLS);

    if (calls > settled) {
        llm_count_n(c, LLM_CALLS_NEUTRAL, calls - settled);
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

        llm_count_n(to, i, v);
    }
}
