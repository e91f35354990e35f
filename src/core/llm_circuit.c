/*
 * Who may go in: peek, shed and acquire.
 *
 *             failures, or a credential answer
 *   +--------+ ------------------------------> +------+
 *   | CLOSED |                                 | OPEN | <------+
 *   +--------+ <-- successes -- +-----------+  +------+        |
 *                               | HALF_OPEN | <-- due --+      |
 *                               +-----------+ -- probe fails --+
 *
 * The step from open to half-open is taken here, all others where verdicts
 * are given (llm_circuit_report.c) or an operator speaks
 * (llm_circuit_state.c).
 */

#include "llm_circuit_permit.h"


/* an acquire() on its way */
typedef struct {
    const llm_circuit_conf_t *conf;
    uint32_t now;
    llm_token_t *token;
    uint32_t *wait;
    llm_transition_t *tr;
} llm_ask_t;


static inline void
llm_token_normal(llm_token_t *token, uint16_t epoch, uint32_t now)
{
    *token = (llm_token_t) {
        .kind = LLM_TOKEN_NORMAL,
        .epoch = epoch,
        .time = now,
    };
}


/* Open and due: one call takes the step to half-open. */
static void
llm_circuit_half_open(llm_circuit_t *c, uint64_t *word, uint32_t now,
    llm_transition_t *tr)
{
    llm_word_t next = llm_word_unpack(*word);

    next.state = LLM_CIRCUIT_HALF_OPEN;
    next.count = 0;
    next.time = now;

    (void) llm_circuit_move(c, word, next, LLM_REASON_OPEN_ELAPSED, 0, now, tr);
}


/* The answer at one reading of the word; it stands while the word does. */
static inline llm_admission_t
llm_circuit_ask(const llm_circuit_t *c, const llm_circuit_conf_t *conf,
    llm_word_t w, uint32_t now, uint32_t *wait)
{
    uint32_t throttled;

    *wait = 0;

    if (llm_word_always(w, conf)) {
        return LLM_ADMITTED;
    }

    if (w.admin == LLM_ADMIN_OPEN) {
        *wait = LLM_CIRCUIT_WAIT_UNKNOWN;
        return LLM_REFUSED_FORCED;
    }

    throttled = llm_throttle_left(c, now);

    if (w.state == LLM_CIRCUIT_OPEN) {
        uint32_t left = llm_word_left(w, conf, now);

        if (left != 0) {
            *wait = llm_max(left, throttled);
            return LLM_REFUSED_OPEN;
        }
    }

    if (throttled != 0) {
        *wait = throttled;
        return LLM_REFUSED_THROTTLED;
    }

    if (w.state == LLM_CIRCUIT_HALF_OPEN
        && !llm_permit_any_free(c, w.epoch, conf, now, wait))
    {
        return LLM_REFUSED_HALF_OPEN;
    }

    return LLM_ADMITTED;
}


/*
 * The word was read and admits: goes in.  False: another process was
 * faster, or this one has only just gone to half-open; ask again.
 */
static bool
llm_circuit_enter(llm_circuit_t *c, uint64_t *word, const llm_ask_t *a)
{
    llm_word_t w = llm_word_unpack(*word);

    if (llm_word_always(w, a->conf)) {
        llm_token_normal(a->token, w.epoch, a->now);
        return true;
    }

    if (w.state == LLM_CIRCUIT_CLOSED) {
        llm_throttle_expire(c, a->now);
        llm_token_normal(a->token, w.epoch, a->now);
        return true;
    }

    if (w.state == LLM_CIRCUIT_OPEN) {
        llm_circuit_half_open(c, word, a->now, a->tr);
        return false;
    }

    if (llm_permit_take_any(c, w.epoch, a->conf, a->now, a->token)
        == LLM_PERMIT_GOT)
    {
        return true;
    }

    *word = atomic_load(&c->word);

    return false;
}


/* Everything but a healthy circuit. */
static llm_admission_t
llm_circuit_acquire_slow(llm_circuit_t *c, uint64_t word, const llm_ask_t *a)
{
    llm_admission_t admission;
    llm_word_t w;

    do {
        w = llm_word_unpack(word);
        admission = llm_circuit_ask(c, a->conf, w, a->now, a->wait);

        if (admission == LLM_ADMITTED && w.state == LLM_CIRCUIT_OPEN
            && a->tr->reason != LLM_REASON_NONE && !llm_word_always(w, a->conf))
        {
            /* reopened behind our back, and *tr can tell of one step only */
            admission = LLM_REFUSED_OPEN;
            *a->wait = 1;
        }

        if (admission != LLM_ADMITTED) {
            break;
        }
    } while (!llm_circuit_enter(c, &word, a));

    if (admission != LLM_ADMITTED && w.admin == LLM_ADMIN_OBSERVE) {
        llm_token_normal(a->token, w.epoch, a->now);
        admission = LLM_ADMITTED;
        *a->wait = 0;
    }

    return admission;
}


llm_admission_t
llm_circuit_acquire(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint32_t now, llm_token_t *token, uint32_t *wait, llm_transition_t *tr)
{
    uint64_t word = atomic_load(&c->word);
    llm_admission_t admission;
    llm_ask_t ask;

    tr->reason = LLM_REASON_NONE;

    if ((word & (LLM_WORD_STATE | LLM_WORD_ADMIN)) == 0
        && atomic_load(&c->throttle) == 0)
    {
        /* healthy: closed, the operator is silent, and the provider, too */
        *wait = 0;
        llm_token_normal(token, llm_word_epoch(word), now);
        return LLM_ADMITTED;
    }

    if (llm_circuit_switch_off(c, conf, now, tr)) {
        word = atomic_load(&c->word);
    }

    ask = (llm_ask_t) { conf, now, token, wait, tr };
    admission = llm_circuit_acquire_slow(c, word, &ask);

    if (admission != LLM_ADMITTED) {
        token->kind = LLM_TOKEN_NONE;
    }

    return admission;
}


llm_admission_t
llm_circuit_peek(const llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint32_t now, uint32_t *wait)
{
    llm_word_t w = llm_word_unpack(atomic_load(&c->word));

    if (w.admin == LLM_ADMIN_OBSERVE) {
        *wait = 0;
        return LLM_ADMITTED;
    }

    return llm_circuit_ask(c, conf, w, now, wait);
}


bool
llm_circuit_shed(llm_circuit_t *c, const llm_circuit_conf_t *conf, uint32_t now,
    uint32_t random)
{
    uint64_t word, cause;
    uint32_t since, age;

    if (conf->slow_start == 0 || conf->off) {
        return false;
    }

    word = atomic_load(&c->word);
    cause = atomic_load(&c->cause);

    if ((word & (LLM_WORD_STATE | LLM_WORD_ADMIN)) != 0
        || (cause & (LLM_CAUSE_REASON | LLM_CAUSE_STARTED))
               != LLM_REASON_RECOVERED
        || llm_word_epoch(cause) != llm_word_epoch(word))
    {
        return false;
    }

    since = (uint32_t) (cause >> LLM_TIME_SHIFT);
    age = llm_left(since, now, LLM_CIRCUIT_SKEW) != 0 ? 0 : now - since;

    if (age >= conf->slow_start) {
        (void) atomic_compare_exchange_strong(&c->cause, &cause,
            cause | LLM_CAUSE_STARTED);
        return false;
    }

    /* random / 2^32 >= (1 + 9 * age / slow_start) / 10 */
    return (uint64_t) random * conf->slow_start * 10
           >= (conf->slow_start + (uint64_t) 9 * age) << 32;
}
