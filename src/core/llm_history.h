/*
 * The last transitions of a circuit, in shared memory.  An entry is one
 * 64-bit word, so a reader never sees half of one.
 */

#ifndef LLM_HISTORY_H
#define LLM_HISTORY_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>

#include "llm_circuit.h"


#define LLM_HISTORY 64


typedef struct {
    alignas(64) _Atomic uint64_t next; /* transitions ever recorded */
    _Atomic uint64_t entry[LLM_HISTORY];
} llm_history_t;


typedef struct {
    uint64_t time; /* wall clock, ms; below 2^44 */
    llm_circuit_state_t from;
    llm_circuit_state_t to;
    llm_reason_t reason;
    unsigned status; /* of the answer that caused it; 0: no answer; < 1024 */
} llm_history_entry_t;


/* Records a transition; any number of processes at once. */
void llm_history_add(llm_history_t *h, const llm_history_entry_t *e);

/*
 * Reads up to n of the last entries, the oldest first; returns how many.
 */
unsigned llm_history_read(const llm_history_t *h, llm_history_entry_t *e,
    unsigned n);

/*
 * Reads the entry of the i-th transition ever, from 0; false if it is not
 * written yet, or no longer there.  One that was taken only now may still
 * hold the transition of 64 before: ask for what was there a moment ago.
 */
bool llm_history_at(const llm_history_t *h, uint64_t i, llm_history_entry_t *e);

/* Copies the entries into a history that nobody else knows yet. */
void llm_history_copy(llm_history_t *to, const llm_history_t *from);

#endif /* LLM_HISTORY_H */
