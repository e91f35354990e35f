#include "llm_recent.h"


/*
 * A sample is two words, which say for which minute they are:
 *
 *     bits 0-59: three counts, 60-63: the hour
 *     bits 0-19: the fourth, 20-43: the mean, 44-63: the minute, + 1
 *
 * A word is replaced by one of another hour, so that 16 hours have to go by
 * until two words that do not belong together look as if they did.
 */

#define LLM_RECENT_BITS 20
#define LLM_RECENT_MEAN ((1u << 24) - 1)
#define LLM_RECENT_AT 44


static void llm_recent_growth(const uint64_t *before,
    const llm_recent_totals_t *totals, llm_recent_sample_t *sample);
static uint64_t llm_recent_grown(uint64_t before, uint64_t now);
static uint64_t llm_recent_hour(uint32_t minute);
static uint64_t llm_recent_mark(uint32_t minute);


bool
llm_recent_due(llm_recent_t *r, uint32_t minute)
{
    uint32_t seen;

    seen = atomic_load_explicit(&r->minute, memory_order_relaxed);

    return seen < minute + 1
           && atomic_compare_exchange_strong_explicit(&r->minute, &seen,
               minute + 1, memory_order_acq_rel, memory_order_relaxed);
}


void
llm_recent_take(llm_recent_t *r, uint32_t minute,
    const llm_recent_totals_t *totals)
{
    unsigned i;
    uint64_t before[LLM_RECENT_COUNTS + 2];
    _Atomic uint64_t *word;
    llm_recent_sample_t sample;

    for (i = 0; i < LLM_RECENT_COUNTS; i++) {
        before[i] = atomic_exchange_explicit(&r->before[i], totals->count[i],
            memory_order_relaxed);
    }

    before[i] = atomic_exchange_explicit(&r->before[i], totals->n,
        memory_order_relaxed);
    before[i + 1] = atomic_exchange_explicit(&r->before[i + 1], totals->sum,
        memory_order_relaxed);

    if (atomic_exchange_explicit(&r->begun, 1, memory_order_release) == 0
        || minute == 0)
    {
        return;
    }

    llm_recent_growth(before, totals, &sample);

    minute--;

    word = r->sample[minute % LLM_RECENT];

    atomic_store_explicit(&word[0],
        (uint64_t) sample.count[0]
            | (uint64_t) sample.count[1] << LLM_RECENT_BITS
            | (uint64_t) sample.count[2] << 2 * LLM_RECENT_BITS
            | llm_recent_hour(minute),
        memory_order_release);

    atomic_store_explicit(&word[1],
        (uint64_t) sample.count[3] | (uint64_t) sample.mean << LLM_RECENT_BITS
            | llm_recent_mark(minute),
        memory_order_release);
}


void
llm_recent_since(const llm_recent_t *r, const llm_recent_totals_t *totals,
    llm_recent_sample_t *sample)
{
    unsigned i;
    uint64_t before[LLM_RECENT_COUNTS + 2];

    if (atomic_load_explicit(&r->begun, memory_order_acquire) == 0) {
        *sample = (llm_recent_sample_t) { 0 };
        return;
    }

    for (i = 0; i < LLM_RECENT_COUNTS + 2; i++) {
        before[i] = atomic_load_explicit(&r->before[i], memory_order_relaxed);
    }

    llm_recent_growth(before, totals, sample);
}


static void
llm_recent_growth(const uint64_t *before, const llm_recent_totals_t *totals,
    llm_recent_sample_t *sample)
{
    unsigned i;
    uint64_t n, mean;

    sample->taken = true;

    for (i = 0; i < LLM_RECENT_COUNTS; i++) {
        n = llm_recent_grown(before[i], totals->count[i]);
        sample->count[i] = n < LLM_RECENT_MAX ? (uint32_t) n : LLM_RECENT_MAX;
    }

    n = llm_recent_grown(before[i], totals->n);
    mean = n ? llm_recent_grown(before[i + 1], totals->sum) / n : 0;
    mean = mean / 1000 + (mean % 1000 != 0);

    sample->mean = mean < LLM_RECENT_MEAN ? (uint32_t) mean : LLM_RECENT_MEAN;
}


/* A counter that was left behind by a slower process did not grow. */

static uint64_t
llm_recent_grown(uint64_t before, uint64_t now)
{
    return now > before ? now - before : 0;
}


static uint64_t
llm_recent_hour(uint32_t minute)
{
    return (uint64_t) (minute / LLM_RECENT) << 3 * LLM_RECENT_BITS;
}


static uint64_t
llm_recent_mark(uint32_t minute)
{
    return (uint64_t) (minute + 1) << LLM_RECENT_AT;
}


void
llm_recent_read(const llm_recent_t *r, uint32_t minute,
    llm_recent_sample_t *samples)
{
    unsigned i;
    uint32_t at;
    uint64_t first, second;
    const _Atomic uint64_t *sample;

    for (i = 0; i < LLM_RECENT; i++) {

        samples[i] = (llm_recent_sample_t) { 0 };

        if (minute + i < LLM_RECENT) {
            continue; /* before the first minute */
        }

        at = minute + i - LLM_RECENT;
        sample = r->sample[at % LLM_RECENT];

        second = atomic_load_explicit(&sample[1], memory_order_acquire);
        first = atomic_load_explicit(&sample[0], memory_order_acquire);

        if (second >> LLM_RECENT_AT != llm_recent_mark(at) >> LLM_RECENT_AT
            || first >> 3 * LLM_RECENT_BITS
                   != llm_recent_hour(at) >> 3 * LLM_RECENT_BITS)
        {
            continue;
        }

        samples[i].taken = true;
        samples[i].count[0] = (uint32_t) first & LLM_RECENT_MAX;
        samples[i].count[1] = (uint32_t) (first >> LLM_RECENT_BITS)
                              & LLM_RECENT_MAX;
        samples[i].count[2] = (uint32_t) (first >> 2 * LLM_RECENT_BITS)
                              & LLM_RECENT_MAX;
        samples[i].count[3] = (uint32_t) second & LLM_RECENT_MAX;
        samples[i].mean = (uint32_t) (second >> LLM_RECENT_BITS)
                          & LLM_RECENT_MEAN;
    }
}


void
llm_recent_copy(llm_recent_t *to, const llm_recent_t *from)
{
    unsigned i;

    atomic_store(&to->minute, atomic_load(&from->minute));
    atomic_store(&to->begun, atomic_load(&from->begun));

    for (i = 0; i < LLM_RECENT_COUNTS + 2; i++) {
        atomic_store(&to->before[i], atomic_load(&from->before[i]));
    }

    for (i = 0; i < LLM_RECENT; i++) {
        atomic_store(&to->sample[i][0], atomic_load(&from->sample[i][0]));
        atomic_store(&to->sample[i][1], atomic_load(&from->sample[i][1]));
    }
}
