/*
 * Limits over all processes: the window of requests, the buckets of tokens,
 * the slots of what is in flight.
 */

#include "llm_limit.h"

#include <string.h>


#define LLM_WINDOW_CLOSED (UINT64_C(1) << 63) /* in the head */
#define LLM_WINDOW_SEALED (UINT64_C(1) << 63) /* in an entry */
#define LLM_WINDOW_LAP 0x7fffff
#define LLM_WINDOW_LAP_SHIFT 40
#define LLM_WINDOW_TIME ((UINT64_C(1) << LLM_WINDOW_LAP_SHIFT) - 1)

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


static inline uint64_t
llm_limit_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}


/* A wait that is known, however long. */
static inline uint32_t
llm_limit_wait(uint64_t ms)
{
    return (uint32_t) llm_limit_min(ms, LLM_LIMIT_WAIT_UNKNOWN - 1);
}


static inline uint32_t
llm_window_word_lap(uint64_t word)
{
    return word >> LLM_WINDOW_LAP_SHIFT & LLM_WINDOW_LAP;
}


static inline uint32_t
llm_window_lap(const llm_window_t *w, uint64_t ticket)
{
    return ((ticket >> w->bits) + 1) & LLM_WINDOW_LAP;
}


static inline uint64_t
llm_window_cell(const llm_window_t *w, uint64_t ticket)
{
    return ticket & (((uint64_t) 1 << w->bits) - 1);
}


/* Negative: still to come. */
static inline int64_t
llm_window_age(uint64_t word, uint64_t now)
{
    return (int64_t) ((now - word) << (64 - LLM_WINDOW_LAP_SHIFT))
           >> (64 - LLM_WINDOW_LAP_SHIFT);
}


/* ms until an entry leaves the window */
static inline uint32_t
llm_window_left(uint64_t word, uint64_t now)
{
    int64_t age = llm_window_age(word, now);

    return age < LLM_LIMIT_WINDOW ? llm_limit_wait(LLM_LIMIT_WINDOW - age) : 0;
}


/* The word of a ticket that was taken; false: the ring has gone over it. */
static bool
llm_window_read(const llm_window_t *w, uint64_t ticket, uint64_t *word)
{
    *word = atomic_load(&w->entry[llm_window_cell(w, ticket)]);

    return llm_window_word_lap(*word) == llm_window_lap(w, ticket);
}


/* How many tickets are taken; the head may lag behind by one. */
static uint64_t
llm_window_taken(const llm_window_t *w)
{
    uint64_t head = atomic_load(&w->head) & ~LLM_WINDOW_CLOSED;
    uint64_t word;

    return llm_window_read(w, head, &word) ? head + 1 : head;
}


static uint32_t
llm_window_peek(const llm_window_t *w, uint64_t limit, uint64_t now)
{
    uint64_t taken, word;

    limit = llm_limit_min(limit, llm_window_capacity(w));

    do {
        taken = llm_window_taken(w);

        if (taken < limit) {
            return 0;
        }
    } while (!llm_window_read(w, taken - limit, &word));

    return llm_window_left(word, now);
}


/* How many of the entries have not left the window; they are in order. */
static uint64_t
llm_window_count(const llm_window_t *w, uint64_t now)
{
    uint64_t taken = llm_window_taken(w);
    uint64_t low = 0, high = llm_limit_min(taken, llm_window_capacity(w));
    uint64_t word;

    while (low < high) {
        uint64_t n = high - (high - low) / 2;

        if (llm_window_read(w, taken - n, &word)
            && llm_window_left(word, now) != 0) {
            low = n;

        } else {
            high = n - 1;
        }
    }

    return low;
}


/*
 * Takes the next ticket, if the one that is limit tickets before it has left
 * the window; false: the window is closed.  *wait: 0 if it was taken.
 *
 * While the word of a ticket is as it was a lap before, no word behind it
 * can change.  So all that was read still holds when the exchange succeeds.
 */
static bool
llm_window_take(llm_window_t *w, uint64_t limit, uint64_t now, uint32_t *wait)
{
    limit = llm_limit_min(limit, llm_window_capacity(w));

    for (;;) {
        uint64_t head = atomic_load(&w->head);
        uint32_t lap = llm_window_lap(w, head);
        _Atomic uint64_t *cell = &w->entry[llm_window_cell(w, head)];
        uint64_t oldest = 0, latest = 0, time = now;
        uint64_t old, word;

        if (head & LLM_WINDOW_CLOSED) {
            return false;
        }

        old = atomic_load(cell);

        if (llm_window_word_lap(old) == lap) {
            (void) atomic_compare_exchange_strong(&w->head, &head, head + 1);
            continue;
        }

        if (llm_window_word_lap(old) != ((lap - 1) & LLM_WINDOW_LAP)
            || (old & LLM_WINDOW_SEALED))
        {
            continue;
        }

        if ((head >= limit && !llm_window_read(w, head - limit, &oldest))
            || (head != 0 && !llm_window_read(w, head - 1, &latest)))
        {
            continue;
        }

        *wait = head >= limit ? llm_window_left(oldest, now) : 0;

        if (*wait != 0) {
            return true;
        }

        if (head != 0 && llm_window_age(latest, now) < 0) {
            time = latest;
        }

        word = (uint64_t) lap << LLM_WINDOW_LAP_SHIFT
               | (time & LLM_WINDOW_TIME);

        if (atomic_compare_exchange_strong(cell, &old, word)) {
            (void) atomic_compare_exchange_strong(&w->head, &head, head + 1);
            *wait = 0;
            return true;
        }
    }
}


/*
 * Nothing is taken from this window any more; how many tickets were.  One
 * may have been under way when the head was closed: its word is sealed, if
 * it was not written before.
 */
static uint64_t
llm_window_close(llm_window_t *w)
{
    uint64_t head = atomic_fetch_or(&w->head, LLM_WINDOW_CLOSED)
                    & ~LLM_WINDOW_CLOSED;
    _Atomic uint64_t *cell = &w->entry[llm_window_cell(w, head)];
    uint64_t word = atomic_load(cell);

    while (llm_window_word_lap(word) != llm_window_lap(w, head)
           && !(word & LLM_WINDOW_SEALED))
    {
        (void) atomic_compare_exchange_strong(cell, &word,
            word | LLM_WINDOW_SEALED);
    }

    return llm_window_taken(w);
}


/*
 * Writes the last entries into an empty window.  Several may do it at once:
 * they write the same, and nothing that was written since is lost, as no
 * word and no head becomes 0 again.  False: from has gone on meanwhile.
 */
static bool
llm_window_fill(llm_window_t *to, const llm_window_t *from, uint64_t taken)
{
    uint64_t room = llm_limit_min(llm_window_capacity(to),
        llm_window_capacity(from));
    uint64_t n = llm_limit_min(taken, room);
    uint64_t word, empty;

    for (uint64_t i = 0; i < n; i++) {
        if (!llm_window_read(from, taken - n + i, &word)) {
            return false;
        }

        word = (uint64_t) 1 << LLM_WINDOW_LAP_SHIFT | (word & LLM_WINDOW_TIME);
        empty = 0;
        (void) atomic_compare_exchange_strong(&to->entry[i], &empty, word);
    }

    empty = 0;
    (void) atomic_compare_exchange_strong(&to->head, &empty, n);

    return true;
}


/* Begins, or finishes, what llm_limits_use() has asked for. */
static void
llm_window_move(llm_window_t *to)
{
    llm_window_t *from = atomic_load(&to->from);

    if (from != NULL) {
        (void) llm_window_fill(to, from, llm_window_close(from));
        (void) atomic_compare_exchange_strong(&to->from, &from, NULL);
    }
}


static uint32_t
llm_window_bits(uint32_t rpm)
{
    uint32_t bits = 0;

    while ((uint64_t) 1 << bits < rpm) {
        bits++;
    }

    return bits;
}


size_t
llm_window_size(uint32_t rpm)
{
    return rpm != 0 ? sizeof(llm_window_t)
                          + (sizeof(uint64_t) << llm_window_bits(rpm))
                    : 0;
}


void
llm_window_init(llm_window_t *w, uint32_t rpm)
{
    memset(w, 0, llm_window_size(rpm));
    w->bits = llm_window_bits(rpm);
}


uint64_t
llm_window_capacity(const llm_window_t *w)
{
    return (uint64_t) 1 << w->bits;
}


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


const char *
llm_limit_name(llm_limit_t limit)
{
    static const char *const names[] = { "none", "rpm", "tpm", "concurrency" };

    return names[limit];
}
