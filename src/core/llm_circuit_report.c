/*
 * What a verdict does to the circuit: report and break.
 */

#include "llm_circuit_permit.h"


/* a verdict on its way into the word */
typedef struct {
    const llm_circuit_conf_t *conf;
    llm_class_t class;
    uint16_t epoch; /* of the token */
    bool probe;
    bool again; /* a break: the request was counted before */
    uint32_t hint;
    uint32_t now;
    uint32_t random;
} llm_report_t;


static uint32_t
llm_open_duration(const llm_report_t *r, uint32_t level)
{
    uint32_t open = r->class == LLM_CLASS_CREDENTIAL
                        ? llm_open_max(r->conf)
                        : llm_open_time(r->conf, level);

    return llm_max(llm_jitter(open, r->random),
        llm_min(r->hint, LLM_CIRCUIT_HINT_MAX));
}


/* Closed or half-open: opens; false: another process was faster. */
static bool
llm_circuit_open(llm_circuit_t *c, uint64_t *word, const llm_report_t *r,
    llm_reason_t reason, llm_transition_t *tr)
{
    llm_word_t w = llm_word_unpack(*word);
    uint32_t duration;

    if (w.state == LLM_CIRCUIT_HALF_OPEN
        || llm_word_calm(w, r->conf, r->now) != 0) {
        w.level = (uint8_t) llm_min(w.level + 1u, LLM_CIRCUIT_LEVELS);

    } else {
        w.level = 0;
    }

    duration = llm_open_duration(r, w.level);

    w.state = LLM_CIRCUIT_OPEN;
    w.count = 0;
    w.time = r->now + duration;

    return llm_circuit_move(c, word, w, reason, duration, r->now, tr);
}


/* The success that was still missing. */
static bool
llm_circuit_close(llm_circuit_t *c, uint64_t *word, const llm_report_t *r,
    llm_transition_t *tr)
{
    llm_word_t w = llm_word_unpack(*word);
    uint32_t calm = r->now + llm_open_time(r->conf, w.level);

    w.state = LLM_CIRCUIT_CLOSED;
    w.count = 0;
    w.time = calm != 0 ? calm : 1; /* 0 would be none */

    return llm_circuit_move(c, word, w, LLM_REASON_RECOVERED, 0, r->now, tr);
}


/* The same epoch goes on with another count, level or time. */
static bool
llm_circuit_note(llm_circuit_t *c, uint64_t *word, llm_word_t next)
{
    uint64_t packed = llm_word_pack(next);

    return packed == *word
           || atomic_compare_exchange_strong(&c->word, word, packed);
}


static inline llm_rate_at_t
llm_report_at(const llm_report_t *r)
{
    return (llm_rate_at_t) { r->conf->window, r->now, r->epoch };
}


/*
 * A verdict on a closed circuit goes into its window.  The epoch is looked
 * at after the bucket, so a later epoch's bucket is not taken for an old one.
 */
static void
llm_circuit_count(llm_circuit_t *c, llm_word_t w, const llm_report_t *r)
{
    llm_rate_at_t at = llm_report_at(r);
    llm_rate_count_t count = { !r->again, r->class == LLM_CLASS_FAILURE };
    uint64_t bucket;

    if (w.state != LLM_CIRCUIT_CLOSED || w.admin == LLM_ADMIN_DISABLED
        || (r->class != LLM_CLASS_SUCCESS && r->class != LLM_CLASS_FAILURE))
    {
        return;
    }

    bucket = llm_rate_look(&c->rate, &at);

    do {
        if (llm_circuit_moved(c, r->epoch)) {
            return;
        }
    } while (!llm_rate_add(&c->rate, &at, &bucket, count));
}


static bool
llm_circuit_rate_reached(const llm_circuit_t *c, const llm_report_t *r)
{
    llm_rate_at_t at = llm_report_at(r);

    return r->conf->failure_rate != 0
           && llm_rate_reached(llm_rate_read(&c->rate, &at),
               r->conf->failure_rate, r->conf->min_requests);
}


/* Why a closed circuit opens with this verdict; NONE: it does not. */
static llm_reason_t
llm_circuit_trips(const llm_circuit_t *c, const llm_report_t *r,
    uint32_t failures)
{
    if (r->class == LLM_CLASS_CREDENTIAL) {
        return LLM_REASON_CREDENTIAL;
    }

    if (r->class != LLM_CLASS_FAILURE) {
        return LLM_REASON_NONE;
    }

    if (failures >= r->conf->failure_threshold) {
        return LLM_REASON_FAILURE_THRESHOLD;
    }

    return llm_circuit_rate_reached(c, r) ? LLM_REASON_FAILURE_RATE
                                          : LLM_REASON_NONE;
}


static bool
llm_circuit_judge_closed(llm_circuit_t *c, uint64_t *word,
    const llm_report_t *r, llm_transition_t *tr)
{
    llm_word_t w = llm_word_unpack(*word);
    uint32_t failures = llm_min(w.count + 1u, UINT8_MAX);
    llm_reason_t reason = llm_circuit_trips(c, r, failures);

    if (reason != LLM_REASON_NONE) {
        return llm_circuit_open(c, word, r, reason, tr);
    }

    if (llm_word_calm(w, r->conf, r->now) == 0) {
        /* else it would be ahead again when the clock has wrapped */
        w.level = 0;
        w.time = 0;
    }

    w.count = r->class == LLM_CLASS_FAILURE ? (uint8_t) failures : 0;

    return llm_circuit_note(c, word, w);
}


static bool
llm_circuit_judge_half_open(llm_circuit_t *c, uint64_t *word,
    const llm_report_t *r, llm_transition_t *tr)
{
    llm_word_t w = llm_word_unpack(*word);
    uint32_t successes = llm_min(w.count + 1u, UINT8_MAX);

    if (r->class == LLM_CLASS_CREDENTIAL) {
        return llm_circuit_open(c, word, r, LLM_REASON_CREDENTIAL, tr);
    }

    if (r->class == LLM_CLASS_FAILURE) {
        return llm_circuit_open(c, word, r, LLM_REASON_PROBE_FAILED, tr);
    }

    if (!r->probe) {
        return true;
    }

    if (successes >= r->conf->success_threshold) {
        return llm_circuit_close(c, word, r, tr);
    }

    w.count = (uint8_t) successes;

    return llm_circuit_note(c, word, w);
}


/* A late failure's hint: the deadline may go out, never in. */
static bool
llm_circuit_push(llm_circuit_t *c, uint64_t *word, const llm_report_t *r)
{
    llm_word_t w = llm_word_unpack(*word);
    uint32_t hint = llm_min(r->hint, LLM_CIRCUIT_HINT_MAX);

    if (w.state != LLM_CIRCUIT_OPEN || r->class == LLM_CLASS_SUCCESS
        || llm_word_left(w, r->conf, r->now) >= hint)
    {
        return true;
    }

    w.time = r->now + hint;

    return llm_circuit_note(c, word, w);
}


/* One look at the word; false: another process was faster, look again. */
static bool
llm_circuit_judge_once(llm_circuit_t *c, uint64_t *word, const llm_report_t *r,
    bool *late, llm_transition_t *tr)
{
    llm_word_t w = llm_word_unpack(*word);

    *late = w.epoch != r->epoch;

    if (w.admin == LLM_ADMIN_DISABLED) {
        return true;
    }

    switch (r->class) {

    case LLM_CLASS_SUCCESS:
    case LLM_CLASS_FAILURE:
    case LLM_CLASS_CREDENTIAL:
        break;

    case LLM_CLASS_THROTTLE:
    case LLM_CLASS_CAPABILITY:
    case LLM_CLASS_NEUTRAL:
        return true;
    }

    if (*late) {
        return llm_circuit_push(c, word, r);
    }

    switch (w.state) {

    case LLM_CIRCUIT_CLOSED:
        return llm_circuit_judge_closed(c, word, r, tr);

    case LLM_CIRCUIT_HALF_OPEN:
        return llm_circuit_judge_half_open(c, word, r, tr);
    }

    /* open: a call that was let through by "observe" only */
    return true;
}


static void
llm_circuit_judge(llm_circuit_t *c, const llm_report_t *r, bool *late,
    llm_transition_t *tr)
{
    uint64_t word = atomic_load(&c->word);

    if (r->conf->failure_rate != 0) {
        llm_circuit_count(c, llm_word_unpack(word), r);
    }

    while (!llm_circuit_judge_once(c, &word, r, late, tr)) {
        /* void */
    }
}


bool
llm_circuit_report(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    llm_token_t *token, llm_class_t class, uint32_t hint, uint32_t now,
    uint32_t random, bool *late, llm_transition_t *tr)
{
    llm_report_t report;
    bool probe = token->kind == LLM_TOKEN_PROBE;
    bool given = token->kind != LLM_TOKEN_NONE;

    tr->reason = LLM_REASON_NONE;
    *late = false;
    token->kind = LLM_TOKEN_NONE;

    if (!given) {
        return false;
    }

    if (class == LLM_CLASS_SUCCESS && !probe && conf->failure_rate == 0
        && (atomic_load(&c->word) & ~LLM_WORD_ADMIN)
               == (uint64_t) token->epoch << LLM_EPOCH_SHIFT)
    {
        /* healthy: closed, no failure, no level, no calm to end */
        return true;
    }

    report = (llm_report_t) {
        .conf = conf,
        .class = class,
        .epoch = token->epoch,
        .probe = probe,
        .hint = hint,
        .now = now,
        .random = random,
    };

    if (!conf->off) {
        if (class == LLM_CLASS_THROTTLE) {
            llm_throttle_set(c, hint, now);
        }

        llm_circuit_judge(c, &report, late, tr);
    }

    if (probe) {
        llm_permit_release(c, token);
    }

    return true;
}


void
llm_circuit_break(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    const llm_token_t *token, uint32_t now, uint32_t random, bool *late,
    llm_transition_t *tr)
{
    llm_report_t report = {
        .conf = conf,
        .class = LLM_CLASS_FAILURE,
        .epoch = token->epoch,
        .again = true,
        .now = now,
        .random = random,
    };

    tr->reason = LLM_REASON_NONE;
    *late = false;

    if (!conf->off) {
        llm_circuit_judge(c, &report, late, tr);
    }
}


void
llm_circuit_throttle(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint32_t ms, uint32_t now)
{
    if (!conf->off) {
        llm_throttle_set(c, ms, now);
    }
}
