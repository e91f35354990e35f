/*
 * How a circuit moves and what people do with it: an operator's word, reset,
 * the view of a status page, and the names of things.
 */

#include "llm_circuit_permit.h"


/*
 * Writes reason and time beside the word.  A slower winner of an older epoch
 * must not cover a newer reason; a newer one is less than half a turn ahead.
 */
static void
llm_circuit_record(llm_circuit_t *c, uint16_t epoch, llm_reason_t reason,
    uint32_t now)
{
    uint64_t cause = atomic_load(&c->cause);
    uint64_t next = (uint64_t) reason | (uint64_t) epoch << LLM_EPOCH_SHIFT
                    | (uint64_t) now << LLM_TIME_SHIFT;

    do {
        if ((uint16_t) (epoch - llm_word_epoch(cause)) >= 0x8000) {
            return;
        }
    } while (!atomic_compare_exchange_weak(&c->cause, &cause, next));
}


bool
llm_circuit_move(llm_circuit_t *c, uint64_t *word, llm_word_t next,
    llm_reason_t reason, uint32_t duration, uint32_t now, llm_transition_t *tr)
{
    llm_word_t from = llm_word_unpack(*word);

    next.epoch = (uint16_t) (from.epoch + 1);

    if (!atomic_compare_exchange_strong(&c->word, word, llm_word_pack(next))) {
        return false;
    }

    *word = llm_word_pack(next);
    llm_circuit_record(c, next.epoch, reason, now);

    *tr = (llm_transition_t) {
        .from = (llm_circuit_state_t) from.state,
        .to = (llm_circuit_state_t) next.state,
        .reason = reason,
        .epoch = next.epoch,
        .duration = duration,
    };

    return true;
}


/* Another word of the operator's: false if another process was faster. */
static bool
llm_circuit_say(llm_circuit_t *c, uint64_t *word, llm_admin_t admin,
    llm_reason_t reason, uint32_t now, llm_transition_t *tr)
{
    llm_word_t w = llm_word_unpack(*word);
    uint32_t left = w.state == LLM_CIRCUIT_OPEN
                        ? llm_left(w.time, now, INT32_MAX)
                        : 0;

    w.admin = (uint8_t) (admin & 3);

    return llm_circuit_move(c, word, w, reason, left, now, tr);
}


/*
 * The end is written before the word, and expire() reads them the other way
 * round: if it saw the old end, then the word is still to change, and does so
 * whatever expire() makes of the old one.  An end belongs to one word, so it
 * means nothing where a process was killed in between.
 */
bool
llm_circuit_admin_for(llm_circuit_t *c, llm_admin_t admin, uint64_t ms,
    uint64_t now, llm_transition_t *tr)
{
    uint64_t end = ms != 0 ? (now + ms) << LLM_UNTIL_SHIFT | (admin & 3) : 0;
    uint64_t old = atomic_exchange(&c->until, end);
    uint64_t word = atomic_load(&c->word);

    tr->reason = LLM_REASON_NONE;

    do {
        if (llm_word_unpack(word).admin == admin && old == 0 && end == 0) {
            return false;
        }
    } while (!llm_circuit_say(c, &word, admin, LLM_REASON_OPERATOR,
        (uint32_t) now, tr));

    return true;
}


/* Whether an end is this word's; the word is admin's 2 bits. */
static inline bool
llm_until_is_of(uint64_t until, uint8_t admin)
{
    return until != 0 && (until & 3) == admin;
}


bool
llm_circuit_admin_expire(llm_circuit_t *c, uint64_t now, llm_transition_t *tr)
{
    uint64_t until = atomic_load(&c->until), word;

    tr->reason = LLM_REASON_NONE;

    if (until == 0) {
        return false;
    }

    word = atomic_load(&c->word);

    do {
        until = atomic_load(&c->until);

        if (!llm_until_is_of(until, llm_word_unpack(word).admin)
            || now < until >> LLM_UNTIL_SHIFT)
        {
            return false;
        }
    } while (!llm_circuit_say(c, &word, LLM_ADMIN_AUTO, LLM_REASON_TTL,
        (uint32_t) now, tr));

    (void) atomic_compare_exchange_strong(&c->until, &until, 0);

    return true;
}


llm_admin_t
llm_circuit_admin_now(const llm_circuit_t *c, uint64_t now, uint64_t *left)
{
    llm_word_t w = llm_word_unpack(atomic_load(&c->word));
    uint64_t until = atomic_load(&c->until);
    uint64_t end = until >> LLM_UNTIL_SHIFT;

    *left = 0;

    if (!llm_until_is_of(until, w.admin)) {
        return (llm_admin_t) w.admin;
    }

    if (now >= end) {
        return LLM_ADMIN_AUTO;
    }

    *left = end - now;

    return (llm_admin_t) w.admin;
}


/* Closed, as it was in the beginning: false if another process was faster. */
static bool
llm_circuit_clear(llm_circuit_t *c, uint64_t *word, llm_reason_t reason,
    uint32_t now, llm_transition_t *tr)
{
    llm_word_t w = llm_word_unpack(*word);

    w.state = LLM_CIRCUIT_CLOSED;
    w.level = 0;
    w.count = 0;
    w.time = 0;

    return llm_circuit_move(c, word, w, reason, 0, now, tr);
}


void
llm_circuit_reset(llm_circuit_t *c, uint32_t now, llm_transition_t *tr)
{
    uint64_t word = atomic_load(&c->word);

    tr->reason = LLM_REASON_NONE;
    atomic_store(&c->throttle, 0);

    while (!llm_circuit_clear(c, &word, LLM_REASON_RESET, now, tr)) {
        /* once more */
    }
}


bool
llm_circuit_switch_off(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint32_t now, llm_transition_t *tr)
{
    uint64_t word;

    tr->reason = LLM_REASON_NONE;

    if (!conf->off) {
        return false;
    }

    atomic_store(&c->throttle, 0);
    word = atomic_load(&c->word);

    do {
        if (llm_word_unpack(word).state == LLM_CIRCUIT_CLOSED) {
            return false;
        }
    } while (!llm_circuit_clear(c, &word, LLM_REASON_OFF, now, tr));

    return true;
}


void
llm_circuit_view(const llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint32_t now, llm_circuit_view_t *view)
{
    llm_word_t w = llm_word_unpack(atomic_load(&c->word));
    uint64_t cause = atomic_load(&c->cause);

    *view = (llm_circuit_view_t) {
        .state = (llm_circuit_state_t) w.state,
        .admin = (llm_admin_t) w.admin,
        .level = w.level,
        .epoch = w.epoch,
        .throttled = llm_throttle_left(c, now),
    };

    if (llm_word_epoch(cause) == w.epoch) {
        view->reason = (llm_reason_t) (cause & LLM_CAUSE_REASON);
    }

    switch (w.state) {

    case LLM_CIRCUIT_CLOSED:
        view->failures = w.count;

        if (conf->failure_rate != 0) {
            llm_rate_at_t at = { conf->window, now, w.epoch };

            view->rate = llm_rate_read(&c->rate, &at);
        }

        break;

    case LLM_CIRCUIT_OPEN:
        view->retry = llm_word_left(w, conf, now);
        break;

    case LLM_CIRCUIT_HALF_OPEN:
        view->successes = w.count;
        view->probes = llm_permit_live(c, w.epoch, conf, now);
        break;
    }
}


void
llm_circuit_copy(llm_circuit_t *to, const llm_circuit_t *from)
{
    atomic_store(&to->throttle, atomic_load(&from->throttle));
    atomic_store(&to->cause, atomic_load(&from->cause));
    atomic_store(&to->until, atomic_load(&from->until));

    for (unsigned i = 0; i < LLM_CIRCUIT_PERMITS; i++) {
        atomic_store(&to->permit[i], atomic_load(&from->permit[i]));
    }

    llm_rate_copy(&to->rate, &from->rate);

    atomic_store(&to->word, atomic_load(&from->word));
}


static const char *
llm_name(const char *const *names, unsigned n, unsigned i)
{
    return i < n ? names[i] : "unknown";
}


const char *
llm_circuit_state_name(llm_circuit_state_t state)
{
    static const char *const names[] = { "closed", "open", "half_open" };

    return llm_name(names, 3, state);
}


const char *
llm_admin_name(llm_admin_t admin)
{
    static const char *const names[] = { "auto", "open", "disabled",
        "observe" };

    return llm_name(names, 4, admin);
}


const char *
llm_reason_name(llm_reason_t reason)
{
    static const char *const names[] = { "none", "failure_threshold",
        "failure_rate", "credential", "probe_failed", "open_elapsed",
        "recovered", "operator", "reset", "ttl", "probe_succeeded", "off" };

    return llm_name(names, 12, reason);
}
