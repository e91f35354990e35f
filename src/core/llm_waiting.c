/*
 * Since when processes have somebody who waits.  A word has one writer.
 */

#include "llm_waiting.h"


#define LLM_WAITING_UNTIL_SHIFT 32


static inline bool
llm_waiting_counts(uint64_t word, uint32_t now)
{
    uint32_t left = (uint32_t) (word >> LLM_WAITING_UNTIL_SHIFT) - now;

    return word != 0 && left != 0 && left <= LLM_WAITING_LONGEST;
}


static inline bool
llm_waiting_earlier(uint64_t word, uint32_t since)
{
    return (int32_t) ((uint32_t) word - since) < 0;
}


void
llm_waiting_say(_Atomic uint64_t *words, uint32_t worker, uint32_t since,
    uint32_t until, uint32_t now)
{
    uint64_t word = atomic_load_explicit(&words[worker], memory_order_relaxed);

    /* of several that the worker has, the earliest */

    if (llm_waiting_counts(word, now) && llm_waiting_earlier(word, since)) {
        since = (uint32_t) word;
    }

    atomic_store_explicit(&words[worker],
        (uint64_t) until << LLM_WAITING_UNTIL_SHIFT | since,
        memory_order_relaxed);
}


void
llm_waiting_done(_Atomic uint64_t *words, uint32_t worker)
{
    atomic_store_explicit(&words[worker], 0, memory_order_relaxed);
}


bool
llm_waiting_before(const _Atomic uint64_t *words, uint32_t n, uint32_t worker,
    uint32_t since, uint32_t now)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t word = atomic_load_explicit(&words[i], memory_order_relaxed);

        if (i != worker && llm_waiting_counts(word, now)
            && llm_waiting_earlier(word, since))
        {
            return true;
        }
    }

    return false;
}
