/*
 * A circuit over a restart.
 */

#include "llm_circuit_save.h"

#include "llm_circuit_permit.h"


/* the longest a deadline in the word can be ahead, whatever the thresholds */
#define LLM_SAVED_LONGEST \
    (LLM_CIRCUIT_LONGEST + LLM_CIRCUIT_LONGEST / 10 + 1 + LLM_CIRCUIT_SKEW)

/* reasons to come are kept as they are */
#define LLM_SAVED_REASON_MAX 63

/* an operator's word ends within a hundred years */
#define LLM_SAVED_TTL_MAX UINT64_C(3155760000000)


static uint64_t
llm_saved_minus(uint64_t ms, uint64_t elapsed)
{
    return ms > elapsed ? ms - elapsed : 0;
}


/* A clock may lag behind the one of the transition; it may have wrapped. */
static uint64_t
llm_saved_age(uint32_t age)
{
    if (age >= UINT32_MAX - LLM_CIRCUIT_SKEW) {
        return 0;
    }

    return llm_min(age, INT32_MAX);
}


void
llm_circuit_save(const llm_circuit_t *c, uint64_t now,
    uint64_t v[LLM_SAVED_NUMBERS])
{
    uint64_t word, cause;
    uint32_t age;
    llm_word_t w;

    /* the operator's word and its end belong to one word, or it is looked at
     * once more */

    do {
        word = atomic_load(&c->word);
        v[LLM_SAVED_ADMIN] = llm_circuit_admin_now(c, now, &v[LLM_SAVED_TTL]);
        v[LLM_SAVED_THROTTLE] = llm_throttle_left(c, (uint32_t) now);
        cause = atomic_load(&c->cause);
    } while (atomic_load(&c->word) != word);

    w = llm_word_unpack(word);

    v[LLM_SAVED_STATE] = w.state;
    v[LLM_SAVED_LEVEL] = w.level;
    v[LLM_SAVED_COUNT] = w.count;
    v[LLM_SAVED_LEFT] = 0;

    if (w.state == LLM_CIRCUIT_OPEN
        || (w.state == LLM_CIRCUIT_CLOSED && w.time != 0))
    {
        v[LLM_SAVED_LEFT] = llm_left(w.time, (uint32_t) now, LLM_SAVED_LONGEST);
    }

    v[LLM_SAVED_REASON] = LLM_REASON_NONE;
    v[LLM_SAVED_AGE] = 0;
    v[LLM_SAVED_STARTED] = 1;

    if (llm_word_epoch(cause) == w.epoch) {
        age = (uint32_t) now - (uint32_t) (cause >> LLM_TIME_SHIFT);

        v[LLM_SAVED_REASON] = cause & LLM_CAUSE_REASON;
        v[LLM_SAVED_AGE] = llm_saved_age(age);
        v[LLM_SAVED_STARTED] = (cause & LLM_CAUSE_STARTED) != 0;
    }
}


bool
llm_circuit_saved(const uint64_t v[LLM_SAVED_NUMBERS])
{
    return v[LLM_SAVED_STATE] <= LLM_CIRCUIT_HALF_OPEN
           && v[LLM_SAVED_ADMIN] <= LLM_ADMIN_OBSERVE
           && v[LLM_SAVED_LEVEL] <= LLM_CIRCUIT_LEVELS
           && v[LLM_SAVED_COUNT] <= 255
           && v[LLM_SAVED_LEFT] <= LLM_SAVED_LONGEST
           && v[LLM_SAVED_REASON] <= LLM_SAVED_REASON_MAX
           && v[LLM_SAVED_AGE] <= INT32_MAX && v[LLM_SAVED_STARTED] <= 1
           && v[LLM_SAVED_TTL] <= LLM_SAVED_TTL_MAX
           && (v[LLM_SAVED_TTL] == 0 || v[LLM_SAVED_ADMIN] != LLM_ADMIN_AUTO)
           && v[LLM_SAVED_THROTTLE] <= LLM_CIRCUIT_HINT_MAX + LLM_CIRCUIT_SKEW;
}


/* The word "cause" of a transition that was so long ago. */
static uint64_t
llm_saved_cause(const uint64_t v[LLM_SAVED_NUMBERS], uint64_t elapsed,
    uint16_t epoch, uint64_t now)
{
    uint64_t age = v[LLM_SAVED_AGE], started = v[LLM_SAVED_STARTED];

    /* the clock has 32 bits: what is long ago must not come around again */

    if (elapsed > INT32_MAX - age) {
        age = INT32_MAX;
        started = 1;

    } else {
        age += elapsed;
    }

    return v[LLM_SAVED_REASON] | (started ? LLM_CAUSE_STARTED : 0)
           | (uint64_t) epoch << LLM_EPOCH_SHIFT
           | (now - age) << LLM_TIME_SHIFT;
}


void
llm_circuit_restore(llm_circuit_t *c, const uint64_t v[LLM_SAVED_NUMBERS],
    uint64_t elapsed, uint64_t now)
{
    uint64_t left = llm_saved_minus(v[LLM_SAVED_LEFT], elapsed);
    uint64_t throttle = llm_saved_minus(v[LLM_SAVED_THROTTLE], elapsed);
    uint64_t ttl = llm_saved_minus(v[LLM_SAVED_TTL], elapsed);
    llm_word_t w = {
        .state = (uint8_t) v[LLM_SAVED_STATE],
        .admin = (uint8_t) v[LLM_SAVED_ADMIN],
        .level = (uint8_t) v[LLM_SAVED_LEVEL],
        .count = (uint8_t) v[LLM_SAVED_COUNT],
        .epoch = 1,
    };

    if (w.state != LLM_CIRCUIT_CLOSED) {
        w.time = (uint32_t) (now + left);

    } else if (left != 0) {

        /* 0 says that there is no calm to wait for; nor is it longer now */

        w.time = (uint32_t) (now + left);
        w.time -= (w.time == 0);
    }

    for (unsigned i = 0; i < LLM_CIRCUIT_PERMITS; i++) {
        atomic_store(&c->permit[i], 0);
    }

    atomic_store(&c->throttle,
        throttle != 0 ? UINT64_C(1) << 32 | (uint32_t) (now + throttle) : 0);

    atomic_store(&c->until,
        v[LLM_SAVED_TTL] != 0
            ? (now + ttl) << LLM_UNTIL_SHIFT | v[LLM_SAVED_ADMIN]
            : 0);

    atomic_store(&c->cause, llm_saved_cause(v, elapsed, w.epoch, now));
    atomic_store(&c->word, llm_word_pack(w));
}
