/*
 * The circuit.  See llm_circuit.h for the word and the contract.
 *
 *             failures, or a credential answer
 *   +--------+ ------------------------------> +------+
 *   | CLOSED |                                 | OPEN | <------+
 *   +--------+ <-- successes -- +-----------+  +------+        |
 *                               | HALF_OPEN | <-- due --+      |
 *                               +-----------+ -- probe fails --+
 *
 * Every change of a word is a compare-and-swap from a value that was looked
 * at; who loses looks again.  All loads are sequentially consistent: taking
 * a permit leans on the order of the permit's and the circuit's word.
 */

#include "llm_circuit.h"


#define LLM_WORD_STATE ((uint64_t) 3)
#define LLM_WORD_ADMIN ((uint64_t) 3 << 2)
#define LLM_EPOCH_SHIFT 16
#define LLM_TIME_SHIFT 32

/* in a word of a permit */
#define LLM_PERMIT_NONCE 0x7fff
#define LLM_PERMIT_NONCE_SHIFT 16
#define LLM_PERMIT_TAKEN ((uint64_t) 1 << 31)

/* in the word "throttle" */
#define LLM_THROTTLE_SET ((uint64_t) 1 << 32)


/* the word, taken apart */
typedef struct {
    uint8_t state;
    uint8_t admin;
    uint8_t level;
    uint8_t count;
    uint16_t epoch;
    uint32_t time;
} llm_word_t;


/* a verdict on its way into the word */
typedef struct {
    const llm_circuit_conf_t *conf;
    llm_class_t class;
    uint16_t epoch; /* of the token */
    bool probe;
    uint32_t hint;
    uint32_t now;
    uint32_t random;
} llm_report_t;


/* an acquire() on its way */
typedef struct {
    const llm_circuit_conf_t *conf;
    uint32_t now;
    llm_token_t *token;
    uint32_t *wait;
    llm_transition_t *tr;
} llm_ask_t;


typedef enum {
    LLM_PERMIT_GOT = 0,
    LLM_PERMIT_BUSY,
    LLM_PERMIT_MOVED /* the circuit has; start over */
} llm_permit_result_t;


static inline uint16_t
llm_word_epoch(uint64_t word)
{
    return (uint16_t) (word >> LLM_EPOCH_SHIFT);
}


static inline llm_word_t
llm_word_unpack(uint64_t word)
{
    return (llm_word_t) {
        .state = (uint8_t) (word & 3),
        .admin = (uint8_t) (word >> 2 & 3),
        .level = (uint8_t) (word >> 4 & 15),
        .count = (uint8_t) (word >> 8 & 255),
        .epoch = llm_word_epoch(word),
        .time = (uint32_t) (word >> LLM_TIME_SHIFT)
    };
}


static inline uint64_t
llm_word_pack(llm_word_t w)
{
    return (uint64_t) w.state | (uint64_t) w.admin << 2
           | (uint64_t) w.level << 4 | (uint64_t) w.count << 8
           | (uint64_t) w.epoch << LLM_EPOCH_SHIFT
           | (uint64_t) w.time << LLM_TIME_SHIFT;
}


static inline uint32_t
llm_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}


static inline uint32_t
llm_max(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}


/* ms from now to a deadline; 0: elapsed.  longest is below 2^31. */
static inline uint32_t
llm_left(uint32_t deadline, uint32_t now, uint32_t longest)
{
    uint32_t left = deadline - now;

    return left <= longest ? left : 0;
}


static inline uint32_t
llm_open_max(const llm_circuit_conf_t *conf)
{
    return llm_min(conf->open_max, LLM_CIRCUIT_LONGEST);
}


/* the longest a deadline in the word can be ahead of a clock that lags */
static uint32_t
llm_longest(const llm_circuit_conf_t *conf)
{
    uint32_t open_max = llm_open_max(conf);

    return llm_max(open_max + open_max / 10, LLM_CIRCUIT_HINT_MAX) + 1
           + LLM_CIRCUIT_SKEW;
}


static uint32_t
llm_word_left(llm_word_t w, const llm_circuit_conf_t *conf, uint32_t now)
{
    return llm_left(w.time, now, llm_longest(conf));
}


/* ms of calm that are left to a closed circuit */
static uint32_t
llm_word_calm(llm_word_t w, const llm_circuit_conf_t *conf, uint32_t now)
{
    return w.time != 0 ? llm_word_left(w, conf, now) : 0;
}


static inline bool
llm_word_always(llm_word_t w, const llm_circuit_conf_t *conf)
{
    return conf->off || w.admin == LLM_ADMIN_DISABLED;
}


static inline bool
llm_circuit_moved(const llm_circuit_t *c, uint16_t epoch)
{
    return llm_word_epoch(atomic_load(&c->word)) != epoch;
}


/* open time of a level, without jitter */
static uint32_t
llm_open_time(const llm_circuit_conf_t *conf, uint32_t level)
{
    uint64_t open = (uint64_t) conf->open << level;
    uint32_t open_max = llm_open_max(conf);

    return open < open_max ? (uint32_t) open : open_max;
}


static uint32_t
llm_open_duration(const llm_report_t *r, uint32_t level)
{
    uint32_t open = r->class == LLM_CLASS_CREDENTIAL
                    ? llm_open_max(r->conf)
                    : llm_open_time(r->conf, level);

    /* + 0 .. 10 % */
    open += (uint32_t) (((uint64_t) open * r->random >> 32) / 10);

    return llm_max(open, llm_min(r->hint, LLM_CIRCUIT_HINT_MAX));
}


/*
 * Writes the reason beside the word.  A slower winner of an older epoch
 * must not cover a newer reason; a newer one is less than half a turn ahead.
 */
static void
llm_circuit_record(llm_circuit_t *c, uint16_t epoch, llm_reason_t reason)
{
    uint64_t cause = atomic_load(&c->cause);
    uint64_t next = (uint64_t) reason | (uint64_t) epoch << LLM_EPOCH_SHIFT;

    do {
        if ((uint16_t) (epoch - llm_word_epoch(cause)) >= 0x8000) {
            return;
        }
    } while (!atomic_compare_exchange_weak(&c->cause, &cause, next));
}


/*
 * One transition: next takes the place of *word in a new epoch.  False:
 * another process was faster, *word is what it left.
 */
static bool
llm_circuit_move(llm_circuit_t *c, uint64_t *word, llm_word_t next,
    llm_reason_t reason, uint32_t duration, llm_transition_t *tr)
{
    llm_word_t from = llm_word_unpack(*word);

    next.epoch = (uint16_t) (from.epoch + 1);

    if (!atomic_compare_exchange_strong(&c->word, word, llm_word_pack(next))) {
        return false;
    }

    *word = llm_word_pack(next);
    llm_circuit_record(c, next.epoch, reason);

    *tr = (llm_transition_t) {
        .from = (llm_circuit_state_t) from.state,
        .to = (llm_circuit_state_t) next.state,
        .reason = reason,
        .epoch = next.epoch,
        .duration = duration
    };

    return true;
}


static inline uint32_t
llm_throttle_word_left(uint64_t throttle, uint32_t now)
{
    return throttle != 0 ? llm_left((uint32_t) throttle, now,
                                    LLM_CIRCUIT_HINT_MAX + LLM_CIRCUIT_SKEW)
                         : 0;
}


static uint32_t
llm_throttle_left(const llm_circuit_t *c, uint32_t now)
{
    return llm_throttle_word_left(atomic_load(&c->throttle), now);
}


/* So that its deadline can not come around again when the clock wraps. */
static void
llm_throttle_expire(llm_circuit_t *c, uint32_t now)
{
    uint64_t throttle = atomic_load(&c->throttle);

    if (throttle != 0 && llm_throttle_word_left(throttle, now) == 0) {
        (void) atomic_compare_exchange_strong(&c->throttle, &throttle, 0);
    }
}


static void
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


static inline uint32_t
llm_permit_calls(const llm_circuit_conf_t *conf)
{
    return llm_min(conf->half_open_max_calls, LLM_CIRCUIT_PERMITS);
}


/* ms until the permit's lease ends; 0: free for a call of this epoch */
static uint32_t
llm_permit_left(uint64_t permit, uint16_t epoch,
    const llm_circuit_conf_t *conf, uint32_t now)
{
    uint32_t longest = llm_min(conf->half_open_timeout, LLM_CIRCUIT_LONGEST);

    if ((permit & LLM_PERMIT_TAKEN) == 0 || (uint16_t) permit != epoch) {
        return 0;
    }

    /* another process may have given it a longer lease than ours is */
    longest = llm_max(longest, LLM_CIRCUIT_HINT_MAX) + LLM_CIRCUIT_SKEW;

    return llm_left((uint32_t) (permit >> LLM_TIME_SHIFT), now, longest);
}


/* Whether a permit is free; *wait: if not, ms until the first lease ends. */
static bool
llm_permit_any_free(const llm_circuit_t *c, uint16_t epoch,
    const llm_circuit_conf_t *conf, uint32_t now, uint32_t *wait)
{
    *wait = LLM_CIRCUIT_WAIT_UNKNOWN;

    for (uint32_t i = 0; i < llm_permit_calls(conf); i++) {
        uint32_t left = llm_permit_left(atomic_load(&c->permit[i]), epoch,
                                        conf, now);

        if (left == 0) {
            *wait = 0;
            return true;
        }

        *wait = llm_min(*wait, left);
    }

    return false;
}


/* Gives a permit back, if it is still the token's own. */
static void
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
    uint32_t lease = now + llm_min(conf->half_open_timeout,
                                   LLM_CIRCUIT_LONGEST);
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
        .time = now
    };

    if (llm_circuit_moved(c, epoch)) {
        llm_permit_release(c, token);
        return LLM_PERMIT_MOVED;
    }

    return LLM_PERMIT_GOT;
}


static inline void
llm_token_normal(llm_token_t *token, uint16_t epoch, uint32_t now)
{
    *token = (llm_token_t) {
        .kind = LLM_TOKEN_NORMAL,
        .epoch = epoch,
        .time = now
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

    (void) llm_circuit_move(c, word, next, LLM_REASON_OPEN_ELAPSED, 0, tr);
}


static llm_permit_result_t
llm_permit_take_any(llm_circuit_t *c, uint16_t epoch, const llm_ask_t *a)
{
    for (uint32_t i = 0; i < llm_permit_calls(a->conf); i++) {
        llm_permit_result_t result = llm_permit_take(c, i, epoch, a->conf,
                                                     a->now, a->token);

        if (result != LLM_PERMIT_BUSY) {
            return result;
        }
    }

    return LLM_PERMIT_BUSY;
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

    if (llm_permit_take_any(c, w.epoch, a) == LLM_PERMIT_GOT) {
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
            && a->tr->reason != LLM_REASON_NONE
            && !llm_word_always(w, a->conf))
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
    llm_admission_t admission = llm_circuit_ask(c, conf, w, now, wait);

    if (w.admin == LLM_ADMIN_OBSERVE) {
        *wait = 0;
        return LLM_ADMITTED;
    }

    return admission;
}


/* Closed or half-open: opens; false: another process was faster. */
static bool
llm_circuit_open(llm_circuit_t *c, uint64_t *word, const llm_report_t *r,
    llm_transition_t *tr)
{
    llm_word_t w = llm_word_unpack(*word);
    llm_reason_t reason = LLM_REASON_FAILURE_THRESHOLD;
    uint32_t duration;

    if (w.state == LLM_CIRCUIT_HALF_OPEN) {
        reason = LLM_REASON_PROBE_FAILED;
        w.level = (uint8_t) llm_min(w.level + 1u, LLM_CIRCUIT_LEVELS);

    } else if (llm_word_calm(w, r->conf, r->now) != 0) {
        w.level = (uint8_t) llm_min(w.level + 1u, LLM_CIRCUIT_LEVELS);

    } else {
        w.level = 0;
    }

    if (r->class == LLM_CLASS_CREDENTIAL) {
        reason = LLM_REASON_CREDENTIAL;
    }

    duration = llm_open_duration(r, w.level);

    w.state = LLM_CIRCUIT_OPEN;
    w.count = 0;
    w.time = r->now + duration;

    return llm_circuit_move(c, word, w, reason, duration, tr);
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

    return llm_circuit_move(c, word, w, LLM_REASON_RECOVERED, 0, tr);
}


/* The same epoch goes on with another count, level or time. */
static bool
llm_circuit_note(llm_circuit_t *c, uint64_t *word, llm_word_t next)
{
    uint64_t packed = llm_word_pack(next);

    return packed == *word
           || atomic_compare_exchange_strong(&c->word, word, packed);
}


static bool
llm_circuit_judge_closed(llm_circuit_t *c, uint64_t *word,
    const llm_report_t *r, llm_transition_t *tr)
{
    llm_word_t w = llm_word_unpack(*word);
    uint32_t failures = llm_min(w.count + 1u, UINT8_MAX);

    if (r->class == LLM_CLASS_CREDENTIAL
        || (r->class == LLM_CLASS_FAILURE
            && failures >= r->conf->failure_threshold))
    {
        return llm_circuit_open(c, word, r, tr);
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

    if (r->class != LLM_CLASS_SUCCESS) {
        return llm_circuit_open(c, word, r, tr);
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
llm_circuit_judge_once(llm_circuit_t *c, uint64_t *word,
    const llm_report_t *r, bool *late, llm_transition_t *tr)
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

    if (class == LLM_CLASS_SUCCESS && !probe
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
        .random = random
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
        .now = now,
        .random = random
    };

    tr->reason = LLM_REASON_NONE;
    *late = false;

    if (!conf->off) {
        llm_circuit_judge(c, &report, late, tr);
    }
}


bool
llm_circuit_admin(llm_circuit_t *c, llm_admin_t admin, uint32_t now,
    llm_transition_t *tr)
{
    uint64_t word = atomic_load(&c->word);
    uint32_t left;
    llm_word_t w;

    tr->reason = LLM_REASON_NONE;

    do {
        w = llm_word_unpack(word);

        if (w.admin == admin) {
            return false;
        }

        left = w.state == LLM_CIRCUIT_OPEN ? llm_left(w.time, now, INT32_MAX)
                                           : 0;
        w.admin = (uint8_t) (admin & 3);

    } while (!llm_circuit_move(c, &word, w, LLM_REASON_OPERATOR, left, tr));

    return true;
}


void
llm_circuit_reset(llm_circuit_t *c, uint32_t now, llm_transition_t *tr)
{
    uint64_t word = atomic_load(&c->word);
    llm_word_t w;

    (void) now;

    tr->reason = LLM_REASON_NONE;
    atomic_store(&c->throttle, 0);

    do {
        w = llm_word_unpack(word);

        w.state = LLM_CIRCUIT_CLOSED;
        w.level = 0;
        w.count = 0;
        w.time = 0;

    } while (!llm_circuit_move(c, &word, w, LLM_REASON_RESET, 0, tr));
}


static uint32_t
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
        .throttled = llm_throttle_left(c, now)
    };

    if (llm_word_epoch(cause) == w.epoch) {
        view->reason = (llm_reason_t) (cause & 255);
    }

    switch (w.state) {

    case LLM_CIRCUIT_CLOSED:
        view->failures = w.count;
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

    for (unsigned i = 0; i < LLM_CIRCUIT_PERMITS; i++) {
        atomic_store(&to->permit[i], atomic_load(&from->permit[i]));
    }

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
    static const char *const names[] = {
        "auto", "open", "disabled", "observe"
    };

    return llm_name(names, 4, admin);
}


const char *
llm_reason_name(llm_reason_t reason)
{
    static const char *const names[] = {
        "none", "failure_threshold", "credential", "probe_failed",
        "open_elapsed", "recovered", "operator", "reset"
    };

    return llm_name(names, 8, reason);
}


const char *
llm_admission_name(llm_admission_t admission)
{
    static const char *const names[] = {
        "admitted", "open", "half_open", "throttled", "forced"
    };

    return llm_name(names, 5, admission);
}
