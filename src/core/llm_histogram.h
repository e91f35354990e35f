/*
 * How long things took: a histogram that all processes share, fine enough
 * for percentiles within 5 %, and with the edges of the buckets that
 * OpenTelemetry's conventions for generative AI advise for
 * gen_ai.client.operation.duration and gen_ai.server.time_to_first_token,
 * so that those can be told exactly.
 *
 * Lock-free; a process that is killed at any instruction leaves at most a
 * value that is counted and missing in the sum.  No pointer argument may be
 * NULL.
 */

#ifndef LLM_HISTOGRAM_H
#define LLM_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>


#define LLM_HISTOGRAM_BUCKETS 212 /* the last one has no upper edge */


/* In shared memory.  All zeroes is empty. */
typedef struct {
    _Atomic uint64_t sum; /* us */
    _Atomic uint32_t count[LLM_HISTOGRAM_BUCKETS];
} llm_histogram_t;


/* A reading. */
typedef struct {
    uint64_t sum;                         /* of all values, us */
    uint64_t upto[LLM_HISTOGRAM_BUCKETS]; /* values up to each upper edge */
} llm_histogram_view_t;


/* Counts a value, us. */
void llm_histogram_add(llm_histogram_t *h, uint64_t us);

/* Reads it, so that all that is told of it is of the same moment. */
void llm_histogram_view(const llm_histogram_t *h, llm_histogram_view_t *view);

uint64_t llm_histogram_total(const llm_histogram_view_t *view);

/*
 * How many values are at most an edge, us, which must be one of the
 * conventions' (llm_histogram_durations, llm_histogram_first_tokens).
 */
uint64_t llm_histogram_below(const llm_histogram_view_t *view, uint32_t edge);

/*
 * The value, us, that so many thousandths of all are at most: 500 is the
 * median.  Within 5 % from 0.1 ms to ten minutes; 0 if there is none.
 */
uint64_t llm_histogram_quantile(const llm_histogram_view_t *view,
    unsigned thousandths);

/* Copies into one that nobody else knows yet. */
void llm_histogram_copy(llm_histogram_t *to, const llm_histogram_t *from);


/* The conventions' edges, us; a 0 ends them. */
extern const uint32_t llm_histogram_durations[];
extern const uint32_t llm_histogram_first_tokens[];

#endif /* LLM_HISTOGRAM_H */
