/*
 * A circuit as numbers that outlive its clock: a duration where there was a
 * moment.  What holds for a number holds for it in every version; new ones
 * go to the end, and 0 is what an older version says of them.
 *
 * Permits are not among them: who held one is gone.
 *
 * now: ms on the circuit's clock, without the wrap.
 */

#ifndef LLM_CIRCUIT_SAVE_H
#define LLM_CIRCUIT_SAVE_H

#include <stdbool.h>
#include <stdint.h>

#include "llm_circuit.h"


enum {
    LLM_SAVED_STATE = 0,
    LLM_SAVED_ADMIN,
    LLM_SAVED_LEVEL,
    LLM_SAVED_COUNT,
    LLM_SAVED_LEFT, /* ms; open: until it is due; closed: of its calm */
    LLM_SAVED_REASON,
    LLM_SAVED_AGE,      /* ms since the last transition */
    LLM_SAVED_STARTED,  /* 1: its slow start is over */
    LLM_SAVED_TTL,      /* ms until the operator's word is over; 0: never */
    LLM_SAVED_THROTTLE, /* ms */
    LLM_SAVED_NUMBERS
};


void llm_circuit_save(const llm_circuit_t *c, uint64_t now,
    uint64_t v[LLM_SAVED_NUMBERS]);

/* Whether save() can have written that. */
bool llm_circuit_saved(const uint64_t v[LLM_SAVED_NUMBERS]);

/*
 * Makes a circuit that nobody else knows yet what it was so many ms ago, and
 * has become since.  An operator's word that is over by now is left to
 * llm_circuit_admin_expire().
 */
void llm_circuit_restore(llm_circuit_t *c, const uint64_t v[LLM_SAVED_NUMBERS],
    uint64_t elapsed, uint64_t now);

#endif /* LLM_CIRCUIT_SAVE_H */
