/*
 * The circuit: when a provider is asked and when it is left alone.
 *
 * State, operator's word, backoff level, count, epoch and deadline live in
 * one 64-bit word and change in one compare-and-swap, so that no process
 * ever sees a state without its deadline.  Everything here is lock-free:
 * a process that is killed at any instruction leaves nothing locked.
 *
 *     bits    field
 *     0-1     state   closed, open, half-open
 *     2-3     admin   auto, open, disabled, observe
 *     4-7     level   reopenings in a row, stops at 15
 *     8-15    count   closed: failures in a row;
 *                     half-open: successes of this episode
 *     16-31   epoch   +1 at every transition, reset and operator's word
 *     32-63   t       open: open until; closed: calm until (0: none);
 *                     half-open: since
 *
 * Times are milliseconds on a monotonic clock that all processes share, in
 * 32 bits that wrap.  A deadline t is ahead of now if
 * 0 < (int32_t) (t - now) <= the longest deadline there can be; everything
 * else counts as elapsed.  Processes cache their clock, so one may lag
 * behind another by up to LLM_CIRCUIT_SKEW without taking the other's
 * longest deadline for an elapsed one.
 *
 * Thresholds are the caller's own and may differ between processes: every
 * test is ">=", so a reload may change them at any moment.
 *
 * No pointer argument may be NULL.
 */

#ifndef LLM_CIRCUIT_H
#define LLM_CIRCUIT_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "llm_rate.h"
#include "llm_verdict.h"


#define LLM_CIRCUIT_PERMITS 16       /* largest half_open_max_calls */
#define LLM_CIRCUIT_LEVELS 15        /* largest level */
#define LLM_CIRCUIT_HINT_MAX 300000  /* ms; longest Retry-After obeyed */
#define LLM_CIRCUIT_THROTTLE 5000    /* ms; a throttle without a hint */
#define LLM_CIRCUIT_LONGEST 86400000 /* ms; largest open_max */
#define LLM_CIRCUIT_SKEW LLM_RATE_SKEW
#define LLM_CIRCUIT_WAIT_UNKNOWN UINT32_MAX


typedef enum {
    LLM_CIRCUIT_CLOSED = 0,
    LLM_CIRCUIT_OPEN,
    LLM_CIRCUIT_HALF_OPEN
} llm_circuit_state_t;


typedef enum {
    LLM_ADMIN_AUTO = 0,
    LLM_ADMIN_OPEN,     /* refuse everything */
    LLM_ADMIN_DISABLED, /* always admit */
    LLM_ADMIN_OBSERVE   /* count and move, but never refuse */
} llm_admin_t;


typedef enum {
    LLM_REASON_NONE = 0,
    LLM_REASON_FAILURE_THRESHOLD,
    LLM_REASON_FAILURE_RATE,
    LLM_REASON_CREDENTIAL,
    LLM_REASON_PROBE_FAILED, /* a failure while half-open */
    LLM_REASON_OPEN_ELAPSED, /* open -> half-open */
    LLM_REASON_RECOVERED,    /* half-open -> closed */
    LLM_REASON_OPERATOR,
    LLM_REASON_RESET,
    LLM_REASON_TTL,    /* an operator's word was over */
    LLM_REASON_PROBED, /* an active probe succeeded: open -> half-open */
    LLM_REASON_OFF     /* "circuit off" closes what was not closed */
} llm_reason_t;


typedef enum {
    LLM_ADMITTED = 0,
    LLM_REFUSED_OPEN,      /* open and not yet due */
    LLM_REFUSED_HALF_OPEN, /* every permit is taken */
    LLM_REFUSED_THROTTLED, /* the provider asked for a pause */
    LLM_REFUSED_FORCED,    /* an operator's word */
    LLM_REFUSED_SLOW_START /* shed; see llm_circuit_shed() */
} llm_admission_t;


/*
 * Thresholds; milliseconds; the caller has checked that none is 0, but those
 * that may be.
 */
typedef struct {
    bool off;                     /* "circuit off": closed, admits */
    uint32_t failure_threshold;   /* 1..255 */
    uint32_t success_threshold;   /* 1..255 */
    uint32_t open;                /* open time at level 0 */
    uint32_t open_max;            /* >= open, <= LLM_CIRCUIT_LONGEST */
    uint32_t half_open_max_calls; /* 1..LLM_CIRCUIT_PERMITS */
    uint32_t half_open_timeout;   /* a permit's lease */
    uint32_t failure_rate;        /* 1..100 percent; 0: no such rule */
    uint32_t window;              /* LLM_RATE_SHORTEST..LLM_RATE_LONGEST */
    uint32_t min_requests;        /* 1..LLM_RATE_REQUESTS */
    uint32_t slow_start;          /* <= LLM_CIRCUIT_LONGEST; 0: none */

    /* what the caller makes a failure of; nothing here reads them */
    uint32_t slow_call;     /* a good answer that took longer; 0: none */
    uint32_t stream_errors; /* a break; 0: not */
} llm_circuit_conf_t;


/* In shared memory.  All zeroes is a closed circuit, ready for use. */
typedef struct {
    alignas(64) _Atomic uint64_t word;
    _Atomic uint64_t throttle; /* bit 32: set; bits 0-31: until */
    _Atomic uint64_t cause;    /* bits 0-7: reason of the last transition;
                                  bit 8: its slow start is over;
                                  bits 16-31: the epoch it began;
                                  bits 32-63: when */
    _Atomic uint64_t until;    /* bits 0-1: an operator's word;
                                  bits 2-63: when it is over; 0: never */

    /* bits 0-15: epoch, 16-30: nonce, 31: taken, 32-63: lease ends */
    alignas(64) _Atomic uint64_t permit[LLM_CIRCUIT_PERMITS];

    llm_rate_t rate; /* of closed; written with "failure_rate" only */
} llm_circuit_t;


typedef enum {
    LLM_TOKEN_NONE = 0, /* never given, or reported already */
    LLM_TOKEN_NORMAL,
    LLM_TOKEN_PROBE, /* holds a half-open permit */
    LLM_TOKEN_WATCH  /* an active probe of an open circuit */
} llm_token_kind_t;


/* One admitted call.  Process-local; all zeroes is no token. */
typedef struct {
    uint8_t kind;
    uint8_t permit;
    uint16_t epoch;
    uint16_t nonce;
    uint32_t time; /* when it was given */
} llm_token_t;


/* What a call did to the circuit; reason NONE: it did not move. */
typedef struct {
    llm_circuit_state_t from;
    llm_circuit_state_t to;
    llm_reason_t reason;
    uint16_t epoch;    /* of the new state */
    uint32_t duration; /* ms; to == OPEN: for how long */
} llm_transition_t;


/* What a status page shows; one consistent reading of the word. */
typedef struct {
    llm_circuit_state_t state;
    llm_admin_t admin;
    llm_reason_t reason; /* of the last transition; NONE: not told yet */
    uint32_t level;
    uint32_t failures;  /* in a row; closed only */
    uint32_t successes; /* of this episode; half-open only */
    uint32_t epoch;
    uint32_t retry;     /* ms until an open circuit is due; else 0 */
    uint32_t throttled; /* ms */
    uint32_t probes;    /* live half-open permits */

    /* in the window; closed only, and with "failure_rate" */
    llm_rate_count_t rate;
} llm_circuit_view_t;


/*
 * Would acquire() admit now?  Reads only, so a storm of it costs nobody a
 * permit.  *wait: ms until it may admit again, 0 when it would admit,
 * LLM_CIRCUIT_WAIT_UNKNOWN when only an operator can tell.  An open circuit
 * that is due would admit; where several reasons refuse, open goes before
 * throttled (*wait is the later of the two), throttled before half-open.
 */
llm_admission_t llm_circuit_peek(const llm_circuit_t *c,
    const llm_circuit_conf_t *conf, uint32_t now, uint32_t *wait);

/*
 * Asks for admission; the last step before a provider is used.  Admitted:
 * *token must be given back with exactly one report().  *tr tells whether
 * this call moved the circuit (open -> half-open); only the process whose
 * compare-and-swap won sees it, so it is the one to log.  A refused call
 * may have moved the circuit, too: another process was faster to the permit.
 *
 * With the operator's word "disabled" every call is admitted, with "off" all
 * but those that the word "open" refuses; with "observe" every call, too,
 * while the circuit moves as it would without.
 */
llm_admission_t llm_circuit_acquire(llm_circuit_t *c,
    const llm_circuit_conf_t *conf, uint32_t now, llm_token_t *token,
    uint32_t *wait, llm_transition_t *tr);

/*
 * Whether a call is to be shed, so that a circuit that has just recovered
 * takes its share linearly from a tenth to all of it within "slow_start".
 * To be asked before acquire(): true is LLM_REFUSED_SLOW_START, with a wait
 * of 0.  acquire() and peek() do not know of it, so who has nobody else just
 * does not ask.
 *
 * random: any 32 random bits.  Reads only, but for once, when it is over:
 * else it would begin again when the clock has wrapped.  Any other move of
 * the circuit ends it as well, an operator's word included.
 */
bool llm_circuit_shed(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint32_t now, uint32_t random);

/*
 * Gives the verdict on an admitted call and ends its token: a second
 * report of the same token does nothing and returns false.
 *
 * hint: what the provider's Retry-After asked for, ms, 0: nothing.
 * random: any 32 random bits, for the jitter of the open time.
 * *late: the verdict belongs to an older epoch and moved nothing (but for
 * the hint of a failure or a credential answer, which may push an open
 * deadline out, and a throttle, which is true in any epoch).
 *
 * A capability answer is neutral here: it frees the permit, nothing else.
 *
 * With "failure_rate" a success and a failure of a closed circuit are
 * counted in the window; a failure that makes its share too large opens it,
 * a success never does.  Where failure_threshold is reached as well, that is
 * the reason.
 */
bool llm_circuit_report(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    llm_token_t *token, llm_class_t class, uint32_t hint, uint32_t now,
    uint32_t random, bool *late, llm_transition_t *tr);

/*
 * A stream broke after its verdict was given: one failure in the epoch of
 * the token, no permit involved.  token: as it was left by report().  In the
 * window it is a failure of the request that was counted there.
 */
void llm_circuit_break(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    const llm_token_t *token, uint32_t now, uint32_t random, bool *late,
    llm_transition_t *tr);

/*
 * Whether an active probe may be sent: a call of the gateway's own, that
 * nobody waits for.  It may, but for a provider that asked for a pause, or
 * that an operator has taken out of service, and where a half-open circuit
 * has no permit left.  True: *token must be given back with exactly one
 * probe_report(); *tr as with acquire().
 *
 * *wait: refused, ms until it is worth asking again, as with acquire().
 */
bool llm_circuit_probe(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint32_t now, llm_token_t *token, uint32_t *wait, llm_transition_t *tr);

/*
 * What came of an active probe; as report(), and in each state that it found
 * when it was sent:
 *
 *   closed     nothing moves, a throttle is heeded.  passive: what is not a
 *              success counts like a call.
 *   open       a success: half-open before its time, and a first success of
 *              the episode where more than one is needed.  A failure: open
 *              for at least "hold" ms more, so that no call has to try before
 *              the next probe does.  Nothing else moves.
 *   half-open  it has a permit and counts like a call.
 */
bool llm_circuit_probe_report(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    llm_token_t *token, llm_class_t class, bool passive, uint32_t hint,
    uint32_t hold, uint32_t now, uint32_t random, bool *late,
    llm_transition_t *tr);

/*
 * A provider said in a good answer that it will not take more for so long:
 * it is left alone as after a throttle.
 */
void llm_circuit_throttle(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint32_t ms, uint32_t now);

/*
 * Sets the operator's word for ms milliseconds, 0: until it is taken back;
 * afterwards it is auto again, see llm_circuit_admin_expire().  State, level,
 * count and deadline stay; the epoch moves, so verdicts on calls that were
 * admitted before are late and their permits void.  *tr: from and to are the
 * state it is in.  False if it was that already and neither had nor gets an
 * end.  Only one at a time may call this; any number may do everything else
 * meanwhile.
 *
 * now: the same clock without the wrap, here and below, because a word may
 * last longer than the 32 bits can tell.
 */
bool llm_circuit_admin_for(llm_circuit_t *c, llm_admin_t admin, uint64_t ms,
    uint64_t now, llm_transition_t *tr);

/*
 * Takes an operator's word back if its time is over; true for the one process
 * that did.  To be asked before peek() and acquire(): it is one load where
 * the word has no end.
 */
bool llm_circuit_admin_expire(llm_circuit_t *c, uint64_t now,
    llm_transition_t *tr);

/*
 * The operator's word, auto where its time is over, whether it was taken back
 * or not.  *left: ms until then; 0: it has no end.  Reads only.
 */
llm_admin_t llm_circuit_admin_now(const llm_circuit_t *c, uint64_t now,
    uint64_t *left);

/* Closes the circuit, forgets level, count and throttle; keeps admin. */
void llm_circuit_reset(llm_circuit_t *c, uint32_t now, llm_transition_t *tr);

/*
 * A circuit that is off is closed: what it was before a reload switched it
 * off is over, so that nobody is told of an open circuit that lets everybody
 * through.  acquire() does it, too.  True: it moved.
 */
bool llm_circuit_switch_off(llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint32_t now, llm_transition_t *tr);

/*
 * Reads everything a status page shows; changes nothing.  The reason is a
 * word of its own: it is NONE for the moment between a transition and its
 * record, and stays so if the process was killed there.
 */
void llm_circuit_view(const llm_circuit_t *c, const llm_circuit_conf_t *conf,
    uint32_t now, llm_circuit_view_t *view);

/* Copies a circuit into one that nobody else knows yet. */
void llm_circuit_copy(llm_circuit_t *to, const llm_circuit_t *from);

const char *llm_circuit_state_name(llm_circuit_state_t state);
const char *llm_admin_name(llm_admin_t admin);
const char *llm_reason_name(llm_reason_t reason);

#endif /* LLM_CIRCUIT_H */
