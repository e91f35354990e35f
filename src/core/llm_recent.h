/*
 * The last hour, a sample for each minute: four counts and a mean, in shared
 * memory.  Nothing is counted here: somebody looks at counters that only
 * grow, once a minute, and what they grew by is the sample.
 *
 * Any number of processes may try; who is the first in a minute takes its
 * sample.  One that is killed meanwhile leaves this minute without a sample,
 * and what happened in it is part of the next one.  A reader never takes half
 * a sample for a whole one.
 *
 * Minutes are numbered from 0 on a clock that all processes share.  No
 * pointer argument may be NULL.
 */

#ifndef LLM_RECENT_H
#define LLM_RECENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>


#define LLM_RECENT 60           /* samples */
#define LLM_RECENT_MINUTE 60000 /* ms */
#define LLM_RECENT_COUNTS 4
#define LLM_RECENT_MAX ((1u << 20) - 1) /* of a count; more is cut to it */


/* What has been counted since the start. */
typedef struct {
    uint64_t count[LLM_RECENT_COUNTS];
    uint64_t n;   /* values, ... */
    uint64_t sum; /* ... and what they add up to, us */
} llm_recent_totals_t;


/* In shared memory.  All zeroes is empty. */
typedef struct {
    _Atomic uint32_t minute; /* whose beginning was last seen, + 1; 0: none */
    _Atomic uint32_t begun;
    _Atomic uint64_t before[LLM_RECENT_COUNTS + 2]; /* totals, then */
    _Atomic uint64_t sample[LLM_RECENT][2];
} llm_recent_t;


typedef struct {
    bool taken; /* false: there is no sample of this minute */
    uint32_t count[LLM_RECENT_COUNTS];
    uint32_t mean; /* ms; 0: no value */
} llm_recent_sample_t;


/*
 * Whether this process is to take a sample at the beginning of this minute.
 * Who is told so must call llm_recent_take().
 */
bool llm_recent_due(llm_recent_t *r, uint32_t minute);

/*
 * What the totals grew by is the sample of the minute that is over.  The
 * first time there is none: it is only from there that something can grow.
 */
void llm_recent_take(llm_recent_t *r, uint32_t minute,
    const llm_recent_totals_t *totals);

/*
 * The samples of the LLM_RECENT minutes before this one, the oldest first.
 */
void llm_recent_read(const llm_recent_t *r, uint32_t minute,
    llm_recent_sample_t *samples);

/* What the totals grew by since the last sample. */
void llm_recent_since(const llm_recent_t *r, const llm_recent_totals_t *totals,
    llm_recent_sample_t *sample);

/* Copies into one that nobody else knows yet. */
void llm_recent_copy(llm_recent_t *to, const llm_recent_t *from);

#endif /* LLM_RECENT_H */
