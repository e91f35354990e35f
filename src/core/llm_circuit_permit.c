/*
 * Half-open permits and the provider's pause, each a word of its own beside
 * the circuit's.
 *
 * A permit belongs to an epoch and ends with it: nobody has to collect the
 * permits of an episode that is over, or of a process that was killed.
 */

#include "llm_circuit_permit.h"


#define LLM_PERMIT_NONCE 0x7fff
#define LLM_PERMIT_NONCE_SHIFT 16
#define LLM_PERMIT_TAKEN ((uint64_t) 1 << 31)

/* in the word "throttle" */
#define LLM_THROTTLE_SET ((uint64_t) 1 << 32)


static inline uint32_t
llm_permit_calls(const llm_circuit_conf_t *conf)
{
    return llm_min(conf->half_open_max_calls, LLM_CIRCUIT_PERMITS);
}


/* ms until the permit's lease ends; 0: free for a call of this epoch */
static uint32_t
llm_permit_left(uint64_t permit, uint16_t epoch, const llm_circuit_conf_t *conf,
    uint32_t now)
{
    uint32_t longest = llm_min(conf->half_open_timeout, LLM_CIRCUIT_LONGEST);

    if ((permit & LLM_PERMIT_TAKEN) == 0 || (uint16_t) permit != epoch) {
        return 0;
    }

    /* another process may have given it a longer lease than ours is */
    longest = llm_max(longest, LLM_CIRCUIT_HINT_MAX) + LLM_CIRCUIT_SKEW;

    return llm_left((uint32_t) (permit >> LLM_TIME_SHIFT), now, longest);
}


bool
llm_permit_any_free(const llm_circuit_t *c, uint16_t epoch,
    const llm_circuit_conf_t *conf, uint32_t now, uint32_t *wait)
{
    *wait = LLM_CIRCUIT_WAIT_UNKNOWN;

    for (uint32_t i = 0; i < llm_permit_calls(conf); i++) {
        uint32_t left = llm_permit_left(atomic_load(&c->permit[i]), epoch, conf,
            now);

        if (left == 0) {
            *wait = 0;
            return true;
        }

        *wait = llm_min(*wait, left);
    }

    return false;
}


/*
 * Takes the permit i, if it is free.
 *
 * The order of the three steps is what makes it safe.  The circuit's word
 * is read again after the permit's: so the permit can not belong to an
 * episode newer than the epoch we know, and what differs is void.  And it
 * is read once more after the permit was taken: had the circuit moved on
 * meanwhile, the call would probe in an episode that is over.
 */
static llm_permit_result_t
llm_permit_take(llm_circuit_t *c, uint32_t i, uint16_t epoch,
    const llm_circuit_conf_t *conf, uint32_t now, llm_token_t *token)
{
    uint32_t lease = now
                     + llm_min(conf->half_open_timeout, LLM_CIRCUIT_LONGEST);
    uint64_t permit = atomic_load(&c->permit[i]);
    uint64_t nonce, next;

    do {
        if (llm_circuit_moved(c, epoch)) {
            return LLM_PERMIT_MOVED;
        }

        if (llm_permit_left(permit, epoch, conf, now) != 0) {
            return LLM_PERMIT_BUSY;
        }

        nonce = ((permit >> LLM_PERMIT_NONCE_SHIFT) + 1) & LLM_PERMIT_NONCE;
        next = epoch | nonce << LLM_PERMIT_NONCE_SHIFT | LLM_PERMIT_TAKEN
               | (uint64_t) lease << LLM_TIME_SHIFT;

    } while (!atomic_compare_exchange_strong(&c->permit[i], &permit, next));

    *token = (llm_token_t) {
        .kind = LLM_TOKEN_PROBE,
        .permit = (uint8_t) i,
        .epoch = epoch,
        .nonce = (uint16_t) nonce,
        .time = now,
    };

    if (llm_circuit_moved(c, epoch)) {
        llm_permit_release(c, token);
        return LLM_PERMIT_MOVED;
    }

    return LLM_PERMIT_GOT;
}


llm_permit_result_t
llm_permit_take_any(llm_circuit_t *c, uint16_t epoch,
    const llm_circuit_conf_t *conf, uint32_t now, llm_token_t *token)
{
    for (uint32_t i = 0; i < llm_permit_calls(conf); i++) {
        llm_permit_result_t result = llm_permit_take(c, i, epoch, conf, now,
            token);

        if (result != LLM_PERMIT_BUSY) {
            return result;
        }
    }

    return LLM_PERMIT_BUSY;
}


void
llm_permit_release(llm_circuit_t *c, const llm_token_t *token)
{
    _Atomic uint64_t *slot = &c->permit[token->permit % LLM_CIRCUIT_PERMITS];
    uint64_t own = token->epoch
                   | (uint64_t) token->nonce << LLM_PERMIT_NONCE_SHIFT;
    uint64_t permit = atomic_load(slot);

    if ((uint32_t) permit == (own | LLM_PERMIT_TAKEN)) {
        (void) atomic_compare_exchange_strong(slot, &permit, own);
    }
}


uint32_t
llm_permit_live(const llm_circuit_t *c, uint16_t epoch,
    const llm_circuit_conf_t *conf, uint32_t now)
{
    uint32_t live = 0;

    for (uint32_t i = 0; i < LLM_CIRCUIT_PERMITS; i++) {
        live += llm_permit_left(atomic_load(&c->permit[i]), epoch, conf, now)
                != 0;
    }

    return live;
}


void
llm_throttle_expire(llm_circuit_t *c, uint32_t now)
{
    uint64_t throttle = atomic_load(&c->throttle);

    if (throttle != 0 && llm_throttle_word_left(throttle, now) == 0) {
        (void) atomic_compare_exchange_strong(&c->throttle, &throttle, 0);
    }
}


void
llm_throttle_set(llm_circuit_t *c, uint32_t hint, uint32_t now)
{
    uint32_t pause = hint != 0 ? hint : LLM_CIRCUIT_THROTTLE;
    uint64_t old = atomic_load(&c->throttle);
    uint64_t next;

    pause = llm_min(pause, LLM_CIRCUIT_HINT_MAX);
    next = LLM_THROTTLE_SET | (uint32_t) (now + pause);

    do {
        if (llm_throttle_word_left(old, now) >= pause) {
            return;
        }
    } while (!atomic_compare_exchange_weak(&c->throttle, &old, next));
}
