/*
 * The moving average of a provider's latency.
 */

#include "llm_latency.h"


#define LLM_LATENCY_EXPLORED (UINT64_C(1) << 32)


static inline uint64_t
llm_latency_pack(uint64_t us, uint32_t now)
{
    return (uint64_t) now << 32 | (us < LLM_LATENCY_MAX ? us : LLM_LATENCY_MAX);
}


static inline uint32_t
llm_latency_us(uint64_t average)
{
    return (uint32_t) average;
}


/* ms */
static inline uint32_t
llm_latency_since(uint32_t then, uint32_t now)
{
    uint32_t ms = now - then;

    return ms < UINT32_MAX - LLM_LATENCY_SKEW ? ms : 0;
}


/* ms without a sample or a failure */
static inline uint32_t
llm_latency_age(uint64_t average, uint32_t now)
{
    return llm_latency_since((uint32_t) (average >> 32), now);
}


void
llm_latency_success(llm_latency_t *l, uint64_t us, uint32_t now)
{
    uint64_t average = atomic_load(&l->average);
    uint64_t next;

    if (us == 0) {
        us = 1;
    }

    if (us > LLM_LATENCY_MAX) {
        us = LLM_LATENCY_MAX;
    }

    do {
        if (llm_latency_us(average) == 0
            || llm_latency_age(average, now) >= LLM_LATENCY_OLD)
        {
            next = us;

        } else {
            next = (UINT64_C(7) * llm_latency_us(average) + 3 * us + 5) / 10;
        }

        next = llm_latency_pack(next, now);

    } while (!atomic_compare_exchange_weak(&l->average, &average, next));
}


void
llm_latency_failure(llm_latency_t *l, uint32_t now)
{
    uint64_t average = atomic_load(&l->average);
    uint64_t next;

    do {
        if (llm_latency_us(average) == 0) {
            return;
        }

        next = llm_latency_pack(UINT64_C(2) * llm_latency_us(average), now);

    } while (!atomic_compare_exchange_weak(&l->average, &average, next));
}


uint32_t
llm_latency_average(const llm_latency_t *l)
{
    return llm_latency_us(atomic_load(&l->average));
}


static uint32_t
llm_latency_overdue(uint64_t average, uint64_t explored, uint32_t now)
{
    uint32_t pause = LLM_LATENCY_EXPLORE;
    uint32_t age = LLM_LATENCY_UNKNOWN;
    uint32_t since;

    if (llm_latency_us(average) != 0) {
        pause = LLM_LATENCY_OLD;
        age = llm_latency_age(average, now);

        if (age < pause) {
            return LLM_LATENCY_NOT_DUE;
        }
    }

    if (explored & LLM_LATENCY_EXPLORED) {
        since = llm_latency_since((uint32_t) explored, now);

        if (since < pause) {
            return LLM_LATENCY_NOT_DUE;
        }

        if (age != LLM_LATENCY_UNKNOWN && since < age) {
            age = since;
        }
    }

    return age;
}


uint32_t
llm_latency_due(const llm_latency_t *l, uint32_t now)
{
    return llm_latency_overdue(atomic_load(&l->average),
        atomic_load(&l->explored), now);
}


bool
llm_latency_explore(llm_latency_t *l, uint32_t now)
{
    uint64_t explored = atomic_load(&l->explored);

    if (llm_latency_overdue(atomic_load(&l->average), explored, now)
        == LLM_LATENCY_NOT_DUE)
    {
        return false;
    }

    return atomic_compare_exchange_strong(&l->explored, &explored,
        LLM_LATENCY_EXPLORED | now);
}
