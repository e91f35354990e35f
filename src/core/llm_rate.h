/*
 * The share of failures in a window of time that ends now, over all
 * processes.  In shared memory; all zeroes is ready for use.  Lock-free: a
 * process that is killed at any instruction leaves nothing locked.
 *
 * The window is a ring of ten buckets, each a tenth of it.  A bucket is one
 * word, so it is cleared and added to in one compare-and-swap:
 *
 *     bits    field
 *     0-13    failures
 *     14-27   requests
 *     28-51   when it begins, in units of 256 ms, 24 bits that wrap
 *     52-63   epoch, its lower 12 bits
 *
 * What another epoch counted does not count, so a window starts afresh with
 * its epoch.  A bucket that is full is halved: its share stays.
 *
 * A bucket tells its time, not its number.  So processes may see windows of
 * different lengths in the same ring, while a reload is under way: what is
 * counted did happen in the reader's own window (or 256 ms before), but some
 * is missing, where one took a bucket that another still counted.  So it is
 * at the wrap of the clock, too.  A clock may lag behind another by up to
 * LLM_RATE_SKEW: what others have counted ahead of it is seen, and not
 * cleared.
 *
 * No pointer argument may be NULL.
 */

#ifndef LLM_RATE_H
#define LLM_RATE_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>


#define LLM_RATE_BUCKETS 10
#define LLM_RATE_SHORTEST 1000    /* ms; a shorter window counts as this */
#define LLM_RATE_LONGEST 86400000 /* ms; and a longer one as this */
#define LLM_RATE_SKEW 10000       /* ms; how far clocks may differ */
#define LLM_RATE_REQUESTS 8192    /* what a full bucket is sure to tell */


typedef struct {
    alignas(64) _Atomic uint64_t bucket[LLM_RATE_BUCKETS];
} llm_rate_t;


/* Whose window, and where it ends. */
typedef struct {
    uint32_t window; /* ms */
    uint32_t now;    /* ms */
    uint16_t epoch;
} llm_rate_at_t;


typedef struct {
    uint32_t requests;
    uint32_t failures;
} llm_rate_count_t;


/* The bucket of now as it is, for llm_rate_add(). */
uint64_t llm_rate_look(const llm_rate_t *rate, const llm_rate_at_t *at);

/*
 * Adds 0 or 1 requests and 0 or 1 failures to the bucket of now, if it is
 * still as *seen; false: another process was faster, *seen is what it left.
 *
 * Who looked while its epoch was the present one never clears what a later
 * epoch counted.
 */
bool llm_rate_add(llm_rate_t *rate, const llm_rate_at_t *at, uint64_t *seen,
    llm_rate_count_t count);

/*
 * What was counted in the window; reads only.  A failure of a request that
 * has left the window is a request of its own: there are never more
 * failures than requests.
 */
llm_rate_count_t llm_rate_read(const llm_rate_t *rate, const llm_rate_at_t *at);

/*
 * Whether so many of so many are too many: at least min_requests (up to
 * LLM_RATE_REQUESTS), and at least percent of them failed.
 */
bool llm_rate_reached(llm_rate_count_t count, uint32_t percent,
    uint32_t min_requests);

/* Copies the buckets into a ring that nobody else knows yet. */
void llm_rate_copy(llm_rate_t *to, const llm_rate_t *from);

#endif /* LLM_RATE_H */
