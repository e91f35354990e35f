/*
 * Limits over all processes: the window of requests, the buckets of tokens,
 * the slots of what is in flight.
 */

#include "llm_limit.h"
#include "llm_window_word.h"


#define LLM_TOKEN_NUMBER_SHIFT 32

/* the present bucket counts, and so many before it, the last one in part */
#define LLM_TOKEN_WINDOW (LLM_LIMIT_WINDOW / LLM_TOKEN_BUCKET)

/* buckets that lie between the present one and the last that counts */
#define LLM_TOKEN_SPARE (LLM_TOKEN_BUCKETS - LLM_TOKEN_WINDOW - 1)

#define LLM_LIMIT_TRIES 64


/* A reading of all buckets. */
typedef struct {
    uint64_t word[LLM_TOKEN_BUCKETS];
    uint64_t sum;
    uint32_t present; /* number of the bucket of our clock */
    uint32_t latest;  /* the same, of the clock that is ahead of all */
} llm_tokens_t;


static inline uint32_t
llm_token_number(uint64_t word)
{
    return (uint32_t) (word >> LLM_TOKEN_NUMBER_SHIFT);
}


/* Whether b comes after a; numbers wrap. */
static inline bool
llm_token_after(uint32_t a, uint32_t b)
{
    return (int32_t) (b - a) > 0;
}


/* What a request of so many tokens is taken for; tpm is not 0. */
static inline uint32_t
llm_tokens_asked(const llm_limit_conf_t *conf, uint64_t tokens, uint32_t *limit)
{
    *limit = (uint32_t) llm_limit_min(conf->tpm, LLM_TPM_MAX);

    return tokens != 0 ? (uint32_t) llm_limit_min(tokens, *limit) : 1;
}


/* Buckets that are ahead of our clock count, too. */
static void
llm_tokens_read(const llm_limits_t *l, uint64_t now, llm_tokens_t *t)
{
    t->sum = 0;
    t->present = (uint32_t) (now / LLM_TOKEN_BUCKET);
    t->latest = t->present;

    for (unsigned i = 0; i < LLM_TOKEN_BUCKETS; i++) {
        uint64_t word = atomic_load(&l->bucket[i]);
        uint32_t number = llm_token_number(word);

        t->word[i] = word;

        if ((uint32_t) word == 0
            || llm_token_after(number, t->present - LLM_TOKEN_WINDOW))
        {
            continue;
        }

        t->sum += (uint32_t) word;

        if (llm_token_after(t->latest, number)) {
            t->latest = number;
        }
    }
}


/* ms until there is room for so many tokens; 0: there is */
static uint32_t
llm_tokens_wait(const llm_tokens_t *t, uint64_t limit, uint32_t tokens,
    uint64_t now)
{
    uint32_t number = t->present - LLM_TOKEN_WINDOW;
    uint64_t sum = t->sum;
    uint32_t buckets;

    if (sum + tokens <= limit) {
        return 0;
    }

    for (unsigned i = 0; i < LLM_TOKEN_BUCKETS; i++, number++) {
        uint64_t word = t->word[number % LLM_TOKEN_BUCKETS];

        if (llm_token_number(word) != number) {
            continue;
        }

        sum -= (uint32_t) word;

        if (sum + tokens <= limit) {
            break;
        }
    }

    /* a clock that lags by more than the spare buckets waits for all */
    buckets = (sum + tokens <= limit ? number : t->latest) - t->present
              + LLM_TOKEN_WINDOW + 1;

    return llm_limit_wait(
        (int64_t) buckets * LLM_TOKEN_BUCKET - now % LLM_TOKEN_BUCKET);
}


/* Puts a figure in the place of another one, while the bucket is there. */
static void
llm_tokens_settle(llm_limits_t *l, uint32_t number, uint32_t tokens,
    uint64_t actual)
{
    _Atomic uint64_t *bucket = &l->bucket[number % LLM_TOKEN_BUCKETS];
    uint64_t word = atomic_load(bucket);
    uint64_t sum;

    do {
        if (llm_token_number(word) != number) {
            return;
        }

        sum = (uint32_t) word - llm_limit_min((uint32_t) word, tokens);
        sum = llm_limit_min(sum + llm_limit_min(actual, UINT32_MAX),
            UINT32_MAX);

    } while (!atomic_compare_exchange_weak(bucket, &word,
        (uint64_t) number << LLM_TOKEN_NUMBER_SHIFT | sum));
}


/*
 * Who takes from the same bucket meanwhile makes the exchange fail.  Who
 * takes from another one is seen afterwards: of two that both take first
 * and look then, one at least sees the other.  A process that was stopped
 * for so long that buckets were used anew looks again from the beginning.
 */
static bool
llm_tokens_take(llm_limits_t *l, const llm_limit_conf_t *conf, uint64_t tokens,
    uint64_t now, llm_grant_t *grant, uint32_t *wait)
{
    uint32_t limit, n = llm_tokens_asked(conf, tokens, &limit);
    _Atomic uint64_t *bucket;
    uint64_t old, next;
    uint32_t number;
    llm_tokens_t t;

    for (unsigned i = 0; i < LLM_LIMIT_TRIES; i++) {

        do {
            llm_tokens_read(l, now, &t);
            *wait = llm_tokens_wait(&t, limit, n, now);

            if (*wait != 0) {
                return false;
            }

            number = t.latest;
            bucket = &l->bucket[number % LLM_TOKEN_BUCKETS];
            old = t.word[number % LLM_TOKEN_BUCKETS];
            next = (uint64_t) number << LLM_TOKEN_NUMBER_SHIFT;
            next = n + (llm_token_number(old) == number ? old : next);

        } while (!atomic_compare_exchange_strong(bucket, &old, next));

        llm_tokens_read(l, now, &t);

        if (t.sum <= limit && t.latest - number <= LLM_TOKEN_SPARE) {
            grant->tokens = n;
            grant->bucket = number;
            return true;
        }

        llm_tokens_settle(l, number, n, 0);
    }

    *wait = 1;

    return false;
}


/* Of all that are kept the last to add sees the others. */
static bool
llm_in_flight_take(llm_limits_t *l, uint32_t limit, uint32_t slot)
{
    for (unsigned i = 0; i < LLM_LIMIT_TRIES; i++) {

        if (llm_in_flight_sum(l->in_flight, l->workers) >= limit) {
            return false;
        }

        llm_in_flight_add(l->in_flight, slot);

        if (llm_in_flight_sum(l->in_flight, l->workers) <= limit) {
            return true;
        }

        llm_in_flight_sub(l->in_flight, slot);
    }

    return false;
}


/* The window to look at: one that is not moved yet is not complete. */
static const llm_window_t *
llm_limits_window(const llm_limits_t *l)
{
    llm_window_t *w = atomic_load(&l->window);
    llm_window_t *from = w != NULL ? atomic_load(&w->from) : NULL;

    return from != NULL ? from : w;
}


static bool
llm_limits_take_request(llm_limits_t *l, uint32_t rpm, uint64_t now,
    uint32_t *wait)
{
    llm_window_t *w;

    do {
        w = atomic_load(&l->window);

        if (w == NULL) {
            return true;
        }

        llm_window_move(w);

    } while (!llm_window_take(w, rpm, now, wait));

    return *wait == 0;
}


static llm_limit_t
llm_limits_take(llm_limits_t *l, const llm_limit_conf_t *conf, uint32_t slot,
    uint64_t now, uint64_t tokens, llm_grant_t *grant, uint32_t *wait)
{
    if (conf->concurrency != 0 && l->workers != 0) {
        if (!llm_in_flight_take(l, conf->concurrency, slot)) {
            *wait = LLM_LIMIT_WAIT_UNKNOWN;
            return LLM_LIMIT_CONCURRENCY;
        }

        grant->slot = slot;
        grant->in_flight = true;
    }

    if (conf->tpm != 0 && !llm_tokens_take(l, conf, tokens, now, grant, wait)) {
        return LLM_LIMIT_TPM;
    }

    /* the last one: it can not be given back */
    if (conf->rpm != 0 && !llm_limits_take_request(l, conf->rpm, now, wait)) {
        return LLM_LIMIT_RPM;
    }

    return LLM_LIMIT_NONE;
}


llm_limit_t
llm_limits_peek(const llm_limits_t *l, const llm_limit_conf_t *conf,
    uint64_t now, uint64_t tokens, uint32_t *wait)
{
    const llm_window_t *w = conf->rpm != 0 ? llm_limits_window(l) : NULL;
    uint32_t rpm = 0, tpm = 0, limit, n;
    llm_tokens_t t;

    if (conf->concurrency != 0
        && llm_in_flight_sum(l->in_flight, l->workers) >= conf->concurrency)
    {
        *wait = LLM_LIMIT_WAIT_UNKNOWN;
        return LLM_LIMIT_CONCURRENCY;
    }

    if (w != NULL) {
        rpm = llm_window_peek(w, conf->rpm, now);
    }

    if (conf->tpm != 0) {
        llm_tokens_read(l, now, &t);
        n = llm_tokens_asked(conf, tokens, &limit);
        tpm = llm_tokens_wait(&t, limit, n, now);
    }

    *wait = tpm > rpm ? tpm : rpm;

    if (tpm != 0) {
        return LLM_LIMIT_TPM;
    }

    return rpm != 0 ? LLM_LIMIT_RPM : LLM_LIMIT_NONE;
}


llm_limit_t
llm_limits_acquire(llm_limits_t *l, const llm_limit_conf_t *conf, uint32_t slot,
    uint64_t now, uint64_t tokens, llm_grant_t *grant, uint32_t *wait)
{
    llm_limit_t limit = llm_limits_peek(l, conf, now, tokens, wait);

    *grant = (llm_grant_t) { 0 };

    /* who is refused anyway writes nothing, and is in nobody's way */
    if (limit != LLM_LIMIT_NONE) {
        return limit;
    }

    limit = llm_limits_take(l, conf, slot, now, tokens, grant, wait);

    if (limit != LLM_LIMIT_NONE) {
        llm_limits_settle(l, grant, 0);
    }

    return limit;
}


void
llm_limits_settle(llm_limits_t *l, llm_grant_t *grant, uint64_t tokens)
{
    llm_grant_t own = *grant;

    *grant = (llm_grant_t) { 0 };

    if (own.in_flight) {
        llm_in_flight_sub(l->in_flight, own.slot);
    }

    if (own.tokens != 0 && tokens != LLM_TOKENS_UNKNOWN) {
        llm_tokens_settle(l, own.bucket, own.tokens, tokens);
    }
}


void
llm_limits_usage(const llm_limits_t *l, uint64_t now, llm_limit_usage_t *usage)
{
    const llm_window_t *w = llm_limits_window(l);
    llm_tokens_t t;

    llm_tokens_read(l, now, &t);

    usage->requests = w != NULL ? llm_window_count(w, now) : 0;
    usage->tokens = t.sum;
    usage->in_flight = llm_in_flight_sum(l->in_flight, l->workers);
}


void
llm_limits_use(llm_limits_t *l, llm_window_t *window)
{
    llm_window_t *old = atomic_load(&l->window);

    if (old != NULL) {
        llm_window_move(old);
    }

    atomic_store(&window->from, old);
    atomic_store(&l->window, window);
    llm_window_move(window);
}


void
llm_limits_copy(llm_limits_t *to, const llm_limits_t *from)
{
    const llm_window_t *w = llm_limits_window(from);
    llm_window_t *copy = atomic_load(&to->window);

    for (unsigned i = 0; i < LLM_TOKEN_BUCKETS; i++) {
        atomic_store(&to->bucket[i], atomic_load(&from->bucket[i]));
    }

    if (w == NULL || copy == NULL) {
        return;
    }

    do {
        llm_window_init(copy, (uint32_t) llm_window_capacity(copy));
    } while (!llm_window_fill(copy, w, llm_window_taken(w)));
}
