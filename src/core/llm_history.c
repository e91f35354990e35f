#include "llm_history.h"


/* bits 0-43: time, 44-45: from, 46-47: to, 48-53: reason, 54-63: status */

#define LLM_HISTORY_TIME ((UINT64_C(1) << 44) - 1)


void
llm_history_add(llm_history_t *h, const llm_history_entry_t *e)
{
    uint64_t i, word;

    word = (e->time & LLM_HISTORY_TIME) | (uint64_t) e->from << 44
           | (uint64_t) e->to << 46 | (uint64_t) (e->reason & 63) << 48
           | (uint64_t) (e->status & 1023) << 54;

    i = atomic_fetch_add_explicit(&h->next, 1, memory_order_relaxed);

    atomic_store_explicit(&h->entry[i % LLM_HISTORY], word,
        memory_order_release);
}


/* false: taken, not written yet */
static bool
llm_history_entry(const llm_history_t *h, uint64_t i, llm_history_entry_t *e)
{
    uint64_t word;

    word = atomic_load_explicit(&h->entry[i % LLM_HISTORY],
        memory_order_acquire);

    if (word == 0) {
        return false;
    }

    e->time = word & LLM_HISTORY_TIME;
    e->from = (llm_circuit_state_t) (word >> 44 & 3);
    e->to = (llm_circuit_state_t) (word >> 46 & 3);
    e->reason = (llm_reason_t) (word >> 48 & 63);
    e->status = (unsigned) (word >> 54);

    return true;
}


unsigned
llm_history_read(const llm_history_t *h, llm_history_entry_t *e, unsigned n)
{
    unsigned count;
    uint64_t i, next;

    next = atomic_load_explicit(&h->next, memory_order_acquire);

    if (n > LLM_HISTORY) {
        n = LLM_HISTORY;
    }

    count = 0;

    for (i = next > n ? next - n : 0; i < next; i++) {

        if (llm_history_entry(h, i, &e[count])) {
            count++;
        }
    }

    return count;
}


bool
llm_history_at(const llm_history_t *h, uint64_t i, llm_history_entry_t *e)
{
    uint64_t next;

    next = atomic_load_explicit(&h->next, memory_order_acquire);

    if (i >= next || next - i > LLM_HISTORY) {
        return false;
    }

    return llm_history_entry(h, i, e);
}


void
llm_history_copy(llm_history_t *to, const llm_history_t *from)
{
    atomic_store(&to->next, atomic_load(&from->next));

    for (unsigned i = 0; i < LLM_HISTORY; i++) {
        atomic_store(&to->entry[i], atomic_load(&from->entry[i]));
    }
}
