/*
 * How fast a provider answers: a moving average that all processes share.
 * What it is for is in llm_select.h, least_latency.
 *
 * A sample is the time to the first token, or to the header, of a call that
 * succeeded:
 *
 *     average = 0.7 * average + 0.3 * sample
 *
 * The first sample is the average, and so is one that comes when the average
 * is old.  A failure is no sample, it doubles the average: failing fast is
 * not fast.  Where there was no success yet, a failure leaves no trace.
 *
 * An average is old when LLM_LATENCY_OLD went by without a sample or a
 * failure.  A provider whose average is old, or who has none, is due: it is
 * asked once, to know.  Until there is news that happens once every
 * LLM_LATENCY_OLD, or every LLM_LATENCY_EXPLORE where there is no average;
 * over all processes, by their clocks.
 *
 * Times are milliseconds on a monotonic clock that all processes share, in
 * 32 bits that wrap.  What lies ahead of now by up to LLM_LATENCY_SKEW comes
 * from a process whose clock is fresher, and counts as now.
 *
 * Lock-free: a process that is killed at any instruction leaves nothing
 * locked.  No pointer argument may be NULL.
 */

#ifndef LLM_LATENCY_H
#define LLM_LATENCY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>


#define LLM_LATENCY_MAX 300000000 /* us; longer ones are cut to it */
#define LLM_LATENCY_EXPLORE 1000  /* ms */
#define LLM_LATENCY_OLD 60000     /* ms */
#define LLM_LATENCY_SKEW 10000    /* ms; how far clocks may differ */

#define LLM_LATENCY_NOT_DUE 0
#define LLM_LATENCY_UNKNOWN UINT32_MAX


/* In shared memory.  All zeroes is a provider that was never asked. */
typedef struct {
    /* bits 0-31: us, 0: none; 32-63: when there was a sample or a failure */
    _Atomic uint64_t average;

    /* bits 0-31: when it was last asked because it was due; 32: it was */
    _Atomic uint64_t explored;
} llm_latency_t;


/* A call succeeded; us until its first token or its header. */
void llm_latency_success(llm_latency_t *l, uint64_t us, uint32_t now);

/* A call failed. */
void llm_latency_failure(llm_latency_t *l, uint32_t now);

/* The average, us; 0: there was no success yet. */
uint32_t llm_latency_average(const llm_latency_t *l);

/*
 * Whether the provider is due.  LLM_LATENCY_NOT_DUE, LLM_LATENCY_UNKNOWN (it
 * has no average), or for how many ms there is no news.  Reads only.
 */
uint32_t llm_latency_due(const llm_latency_t *l, uint32_t now);

/*
 * Takes it upon the caller to ask a provider that is due.  False: it is not,
 * or another process was faster.
 */
bool llm_latency_explore(llm_latency_t *l, uint32_t now);

#endif /* LLM_LATENCY_H */
