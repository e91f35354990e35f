/*
 * The last requests of a minute, in memory that processes share: how long
 * they count, and how many of them a window has room for.  What is done with
 * it is in llm_limit.h.
 */

#ifndef LLM_WINDOW_H
#define LLM_WINDOW_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>


#define LLM_LIMIT_WINDOW 60000 /* ms */
#define LLM_LIMIT_WAIT_UNKNOWN UINT32_MAX


/*
 * The window of rpm, in shared memory: a log of the last requests, one word
 * for each, in a ring.  A request has the ticket that was the head, and the
 * word of its ticket.  A ticket is taken by the compare-and-swap of its
 * word; the head follows, moved by whoever comes next if need be.
 *
 *     bits    field
 *     0-39    when; never before the ticket in front of it
 *     40-62   lap: how often the ring was full, +1; 0: not used yet
 *     63      sealed: stays as it is
 *
 * A window that is replaced is closed: bit 63 of the head.
 */
typedef struct llm_window_s llm_window_t;

struct llm_window_s {
    alignas(64) _Atomic uint64_t head;
    _Atomic(llm_window_t *) from; /* what is to be moved here first */
    uint32_t bits;                /* the capacity is 2^bits */
    alignas(64) _Atomic uint64_t entry[];
};


/* Bytes of a window for so many requests a minute; 0 for 0. */
size_t llm_window_size(uint32_t rpm);

/* Makes a window, empty, in llm_window_size(rpm) bytes; rpm is not 0. */
void llm_window_init(llm_window_t *w, uint32_t rpm);

/* The largest rpm that it has room for. */
static inline uint64_t
llm_window_capacity(const llm_window_t *w)
{
    return (uint64_t) 1 << w->bits;
}

#endif /* LLM_WINDOW_H */
