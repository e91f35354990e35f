/*
 * The circuit's own: half-open permits, and the pause that a provider asked
 * for.  For llm_circuit*.c only.
 */

#ifndef LLM_CIRCUIT_PERMIT_H
#define LLM_CIRCUIT_PERMIT_H

#include "llm_circuit_word.h"


typedef enum {
    LLM_PERMIT_GOT = 0,
    LLM_PERMIT_BUSY,
    LLM_PERMIT_MOVED /* the circuit has; start over */
} llm_permit_result_t;


/* Whether a permit is free; *wait: if not, ms until the first lease ends. */
bool llm_permit_any_free(const llm_circuit_t *c, uint16_t epoch,
    const llm_circuit_conf_t *conf, uint32_t now, uint32_t *wait);

/* Takes the first permit that is free; GOT: *token holds it. */
llm_permit_result_t llm_permit_take_any(llm_circuit_t *c, uint16_t epoch,
    const llm_circuit_conf_t *conf, uint32_t now, llm_token_t *token);

/* Gives a permit back, if it is still the token's own. */
void llm_permit_release(llm_circuit_t *c, const llm_token_t *token);

/* How many permits of this epoch are taken, their leases not over. */
uint32_t llm_permit_live(const llm_circuit_t *c, uint16_t epoch,
    const llm_circuit_conf_t *conf, uint32_t now);

/* The provider asks for a pause of hint ms; 0: it did not say how long. */
void llm_throttle_set(llm_circuit_t *c, uint32_t hint, uint32_t now);

/* So that its deadline can not come around again when the clock wraps. */
void llm_throttle_expire(llm_circuit_t *c, uint32_t now);


static inline uint32_t
llm_throttle_word_left(uint64_t throttle, uint32_t now)
{
    return throttle != 0 ? llm_left((uint32_t) throttle, now,
               LLM_CIRCUIT_HINT_MAX + LLM_CIRCUIT_SKEW)
                         : 0;
}


/* ms until the pause is over; 0: there is none */
static inline uint32_t
llm_throttle_left(const llm_circuit_t *c, uint32_t now)
{
    return llm_throttle_word_left(atomic_load(&c->throttle), now);
}

#endif /* LLM_CIRCUIT_PERMIT_H */
