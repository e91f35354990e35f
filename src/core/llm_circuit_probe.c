/*
 * Active probes: calls of the gateway's own, that ask whether a provider is
 * well before a caller has to.
 */

#include "llm_circuit_permit.h"


bool
llm_circuit_probe(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint32_t now, llm_token_t *token, uint32_t *wait, llm_transition_t *tr)
{
    llm_word_t w = llm_word_unpack(atomic_load(&c->word));
    uint32_t throttled = llm_throttle_left(c, now);

    tr->reason = LLM_REASON_NONE;
    token->kind = LLM_TOKEN_NONE;
    *wait = 0;

    if (w.admin == LLM_ADMIN_OPEN) {
        *wait = LLM_CIRCUIT_WAIT_UNKNOWN;
        return false;
    }

    if (throttled != 0 && !llm_word_always(w, conf)) {
        *wait = throttled;
        return false;
    }

    if (w.state == LLM_CIRCUIT_OPEN && !llm_word_always(w, conf)
        && llm_word_left(w, conf, now) != 0)
    {
        *token = (llm_token_t) {
            .kind = LLM_TOKEN_WATCH,
            .epoch = w.epoch,
            .time = now,
        };

        return true;
    }

    return llm_circuit_acquire(c, conf, now, token, wait, tr) == LLM_ADMITTED;
}


/* The provider is well: nobody waits for the open time to be over. */
static bool
llm_circuit_probe_good(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint64_t *word, uint32_t now, llm_transition_t *tr)
{
    llm_word_t next = llm_word_unpack(*word);

    next.state = LLM_CIRCUIT_HALF_OPEN;
    next.count = conf->success_threshold > 1;
    next.time = now;

    return llm_circuit_move(c, word, next, LLM_REASON_PROBED, 0, now, tr);
}


/* It is not: the deadline may go out, never in. */
static bool
llm_circuit_probe_bad(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint64_t *word, uint32_t hold, uint32_t now)
{
    llm_word_t w = llm_word_unpack(*word);
    uint32_t longest = llm_max(llm_open_max(conf), LLM_CIRCUIT_HINT_MAX);

    hold = llm_min(hold, longest);

    if (llm_word_left(w, conf, now) >= hold) {
        return true;
    }

    w.time = now + hold;

    return atomic_compare_exchange_strong(&c->word, word, llm_word_pack(w));
}


static void
llm_circuit_probe_watched(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint16_t epoch, bool good, uint32_t hold, uint32_t now, bool *late,
    llm_transition_t *tr)
{
    uint64_t word = atomic_load(&c->word);
    bool done;

    do {
        *late = llm_word_epoch(word) != epoch;

        if (*late) {
            return;
        }

        done = good ? llm_circuit_probe_good(c, conf, &word, now, tr)
                    : llm_circuit_probe_bad(c, conf, &word, hold, now);

    } while (!done);
}


bool
llm_circuit_probe_report(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    llm_token_t *token, llm_class_t class, bool passive, uint32_t hint,
    uint32_t hold, uint32_t now, uint32_t random, bool *late,
    llm_transition_t *tr)
{
    llm_token_t t = *token;

    if (t.kind == LLM_TOKEN_PROBE
        || (t.kind == LLM_TOKEN_NORMAL && passive
            && class != LLM_CLASS_SUCCESS))
    {
        return llm_circuit_report(c, conf, token, class, hint, now, random,
            late, tr);
    }

    tr->reason = LLM_REASON_NONE;
    *late = false;
    token->kind = LLM_TOKEN_NONE;

    if (t.kind == LLM_TOKEN_NONE) {
        return false;
    }

    if (class == LLM_CLASS_THROTTLE) {
        llm_circuit_throttle(c, conf, hint, now);

    } else if (t.kind == LLM_TOKEN_WATCH
               && (class == LLM_CLASS_SUCCESS || class == LLM_CLASS_FAILURE))
    {
        llm_circuit_probe_watched(c, conf, t.epoch, class == LLM_CLASS_SUCCESS,
            llm_max(hold, hint), now, late, tr);
    }

    return true;
}
