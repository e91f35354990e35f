#include "llm_rate.h"


#define LLM_RATE_COUNT 0x3fff /* the largest there is room for */
#define LLM_RATE_REQUESTS_SHIFT 14
#define LLM_RATE_BEGIN_SHIFT 28
#define LLM_RATE_BEGIN 0xffffff
#define LLM_RATE_EPOCH_SHIFT 52
#define LLM_RATE_UNIT_SHIFT 8 /* ms to units */


static inline uint32_t
llm_rate_word_failures(uint64_t word)
{
    return word & LLM_RATE_COUNT;
}


static inline uint32_t
llm_rate_word_requests(uint64_t word)
{
    return word >> LLM_RATE_REQUESTS_SHIFT & LLM_RATE_COUNT;
}


/* An empty bucket of this epoch that begins then. */
static inline uint64_t
llm_rate_word(uint16_t epoch, uint32_t begin)
{
    return (uint64_t) epoch << LLM_RATE_EPOCH_SHIFT
           | (uint64_t) (begin >> LLM_RATE_UNIT_SHIFT) << LLM_RATE_BEGIN_SHIFT;
}


/* ms that a bucket spans */
static inline uint32_t
llm_rate_span(uint32_t window)
{
    if (window < LLM_RATE_SHORTEST) {
        window = LLM_RATE_SHORTEST;
    }

    if (window > LLM_RATE_LONGEST) {
        window = LLM_RATE_LONGEST;
    }

    return window / LLM_RATE_BUCKETS;
}


static inline uint32_t
llm_rate_index(const llm_rate_at_t *at)
{
    return at->now / llm_rate_span(at->window) % LLM_RATE_BUCKETS;
}


static inline uint32_t
llm_rate_begin(const llm_rate_at_t *at)
{
    return at->now - at->now % llm_rate_span(at->window);
}


/* Whether a bucket counts where one that begins then is looked for. */
static inline bool
llm_rate_counts(uint64_t word, const llm_rate_at_t *at, uint32_t begin)
{
    uint64_t want = llm_rate_word(at->epoch, begin);
    uint32_t later = (uint32_t) ((word - want) >> LLM_RATE_BEGIN_SHIFT)
                     & LLM_RATE_BEGIN;

    return word >> LLM_RATE_EPOCH_SHIFT == want >> LLM_RATE_EPOCH_SHIFT
           && later <= (at->now - begin + LLM_RATE_SKEW) >> LLM_RATE_UNIT_SHIFT;
}


uint64_t
llm_rate_look(const llm_rate_t *rate, const llm_rate_at_t *at)
{
    return atomic_load(&rate->bucket[llm_rate_index(at)]);
}


bool
llm_rate_add(llm_rate_t *rate, const llm_rate_at_t *at, uint64_t *seen,
    llm_rate_count_t count)
{
    uint32_t begin = llm_rate_begin(at);
    uint64_t next = llm_rate_word(at->epoch, begin);
    uint64_t requests = count.requests, failures = count.failures;

    if (llm_rate_counts(*seen, at, begin)) {
        uint32_t had_requests = llm_rate_word_requests(*seen);
        uint32_t had_failures = llm_rate_word_failures(*seen);
        uint32_t full = had_requests == LLM_RATE_COUNT
                        || had_failures == LLM_RATE_COUNT;

        requests += had_requests >> full;
        failures += had_failures >> full;
        next = *seen >> LLM_RATE_BEGIN_SHIFT << LLM_RATE_BEGIN_SHIFT;
    }

    next |= requests << LLM_RATE_REQUESTS_SHIFT | failures;

    return atomic_compare_exchange_strong(&rate->bucket[llm_rate_index(at)],
        seen, next);
}


llm_rate_count_t
llm_rate_read(const llm_rate_t *rate, const llm_rate_at_t *at)
{
    uint32_t span = llm_rate_span(at->window);
    uint32_t begin = llm_rate_begin(at), i = llm_rate_index(at);
    llm_rate_count_t count = { 0, 0 };

    /* from the bucket of now back to the one that it will take next */

    for (uint32_t n = 0; n < LLM_RATE_BUCKETS; n++) {
        uint64_t word = atomic_load(&rate->bucket[i]);

        if (llm_rate_counts(word, at, begin)) {
            count.requests += llm_rate_word_requests(word);
            count.failures += llm_rate_word_failures(word);
        }

        begin -= span;
        i = (i != 0 ? i : LLM_RATE_BUCKETS) - 1;
    }

    if (count.requests < count.failures) {
        count.requests = count.failures;
    }

    return count;
}


bool
llm_rate_reached(llm_rate_count_t count, uint32_t percent,
    uint32_t min_requests)
{
    return count.requests != 0 && count.requests >= min_requests
           && (uint64_t) count.failures * 100
                  >= (uint64_t) count.requests * percent;
}


void
llm_rate_copy(llm_rate_t *to, const llm_rate_t *from)
{
    for (unsigned i = 0; i < LLM_RATE_BUCKETS; i++) {
        atomic_store(&to->bucket[i], atomic_load(&from->bucket[i]));
    }
}
