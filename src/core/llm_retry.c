/*
 * Retries: pauses and the budget.
 */

#include "llm_retry.h"


#define LLM_BUDGET_TICK 10 /* a bucket is 2^10 ms */
#define LLM_BUDGET_TICKS (UINT32_MAX >> LLM_BUDGET_TICK)

#define LLM_BUDGET_COUNT (UINT64_C(0x1fffff))
#define LLM_BUDGET_RETRY UINT64_C(1)
#define LLM_BUDGET_REQUEST (UINT64_C(1) << 21)
#define LLM_BUDGET_REQUESTS_SHIFT 21
#define LLM_BUDGET_TICK_SHIFT 42


/* factor ^ n; may be infinite */
static double
llm_retry_growth(uint32_t factor, uint32_t n)
{
    double square = (double) factor / 1000;
    double growth = 1;

    for (/* void */; n != 0; n >>= 1) {
        if (n & 1) {
            growth *= square;
        }

        square *= square;
    }

    return growth;
}


static uint32_t
llm_retry_backoff(const llm_retry_conf_t *conf, uint32_t round)
{
    double pause;

    if (conf->base == 0) {
        return 0;
    }

    pause = conf->base * llm_retry_growth(conf->factor, round);

    return pause < conf->max ? (uint32_t) pause : conf->max;
}


static uint64_t
llm_retry_spread(uint32_t pause, uint32_t jitter, uint32_t random)
{
    uint64_t span = (uint64_t) pause * (jitter < 1000 ? jitter : 1000) / 1000;

    return pause - span / 2 + (span * random >> 32);
}


bool
llm_retry_pause(const llm_retry_conf_t *conf, uint32_t round, uint32_t hint,
    uint32_t left, uint32_t random, uint32_t *pause)
{
    uint64_t ms = llm_retry_spread(llm_retry_backoff(conf, round), conf->jitter,
        random);

    if (ms < hint) {
        ms = hint;
    }

    if (ms > UINT32_MAX) {
        ms = UINT32_MAX;
    }

    if (left != LLM_RETRY_NO_DEADLINE && ms >= left) {
        return false;
    }

    *pause = (uint32_t) ms;
    return true;
}


static inline uint32_t
llm_budget_tick(uint32_t now)
{
    return now >> LLM_BUDGET_TICK;
}


static inline uint32_t
llm_budget_word_tick(uint64_t word)
{
    return (uint32_t) (word >> LLM_BUDGET_TICK_SHIFT);
}


static inline uint64_t
llm_budget_word_requests(uint64_t word)
{
    return word >> LLM_BUDGET_REQUESTS_SHIFT & LLM_BUDGET_COUNT;
}


static inline uint64_t
llm_budget_word_retries(uint64_t word)
{
    return word & LLM_BUDGET_COUNT;
}


/* The word, or an empty one in its place if it is of another time. */
static inline uint64_t
llm_budget_word_at(uint64_t word, uint32_t tick)
{
    return llm_budget_word_tick(word) == tick
               ? word
               : (uint64_t) tick << LLM_BUDGET_TICK_SHIFT;
}


static inline _Atomic uint64_t *
llm_budget_bucket(llm_budget_t *b, uint32_t tick)
{
    return &b->bucket[tick % LLM_BUDGET_BUCKETS];
}


void
llm_budget_request(llm_budget_t *b, uint32_t now)
{
    uint32_t tick = llm_budget_tick(now);
    _Atomic uint64_t *bucket = llm_budget_bucket(b, tick);
    uint64_t word = atomic_load(bucket);
    uint64_t next;

    do {
        next = llm_budget_word_at(word, tick);

        if (llm_budget_word_requests(next) == LLM_BUDGET_COUNT) {
            return;
        }

        next += LLM_BUDGET_REQUEST;

    } while (!atomic_compare_exchange_weak(bucket, &word, next));
}


void
llm_budget_read(const llm_budget_t *b, uint32_t now, uint64_t *requests,
    uint64_t *retries)
{
    uint32_t tick = llm_budget_tick(now);

    *requests = 0;
    *retries = 0;

    for (unsigned i = 0; i < LLM_BUDGET_BUCKETS; i++) {
        uint64_t word = atomic_load(&b->bucket[i]);
        uint32_t age = (tick + LLM_BUDGET_AHEAD - llm_budget_word_tick(word))
                       & LLM_BUDGET_TICKS;

        if (age < LLM_BUDGET_AHEAD + LLM_BUDGET_WINDOW) {
            *requests += llm_budget_word_requests(word);
            *retries += llm_budget_word_retries(word);
        }
    }
}


/* Whether there may be this many more retries than there are. */
static bool
llm_budget_allows(const llm_budget_t *b, uint32_t percent, uint32_t now,
    uint32_t more)
{
    uint64_t requests, retries, limit;

    llm_budget_read(b, now, &requests, &retries);

    limit = requests * percent / 100;

    if (limit < LLM_BUDGET_FLOOR) {
        limit = LLM_BUDGET_FLOOR;
    }

    return retries + more <= limit;
}


/* Takes back a retry that was counted; its bucket may be gone by now. */
static void
llm_budget_give(_Atomic uint64_t *bucket, uint32_t tick)
{
    uint64_t word = atomic_load(bucket);
    uint64_t next;

    do {
        if (llm_budget_word_tick(word) != tick
            || llm_budget_word_retries(word) == 0) {
            return;
        }

        next = word - LLM_BUDGET_RETRY;

    } while (!atomic_compare_exchange_weak(bucket, &word, next));
}


bool
llm_budget_take(llm_budget_t *b, uint32_t percent, uint32_t now)
{
    uint32_t tick = llm_budget_tick(now);
    _Atomic uint64_t *bucket = llm_budget_bucket(b, tick);
    uint64_t word = atomic_load(bucket);
    uint64_t next;

    /*
     * Who takes from the same bucket meanwhile makes the exchange fail.  Who
     * takes from another one is seen afterwards: of two that both count
     * first and look then, one at least sees the other.
     */

    do {
        next = llm_budget_word_at(word, tick);

        if (!llm_budget_allows(b, percent, now, 1)
            || llm_budget_word_retries(next) == LLM_BUDGET_COUNT)
        {
            return false;
        }

        next += LLM_BUDGET_RETRY;

    } while (!atomic_compare_exchange_strong(bucket, &word, next));

    if (llm_budget_allows(b, percent, now, 0)) {
        return true;
    }

    llm_budget_give(bucket, tick);

    return false;
}
