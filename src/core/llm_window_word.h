/*
 * The window of rpm: its words taken apart, and how a request enters it.
 * For llm_limit.c and llm_window.c only; the contract is in llm_window.h.
 *
 * What a request needs is inline.
 */

#ifndef LLM_WINDOW_WORD_H
#define LLM_WINDOW_WORD_H

#include "llm_window.h"

#include <stdbool.h>


#define LLM_WINDOW_CLOSED (UINT64_C(1) << 63) /* in the head */
#define LLM_WINDOW_SEALED (UINT64_C(1) << 63) /* in an entry */
#define LLM_WINDOW_LAP 0x7fffff
#define LLM_WINDOW_LAP_SHIFT 40
#define LLM_WINDOW_TIME ((UINT64_C(1) << LLM_WINDOW_LAP_SHIFT) - 1)


/* How many of the entries have not left the window; they are in order. */
uint64_t llm_window_count(const llm_window_t *w, uint64_t now);

/*
 * Writes the last entries into an empty window.  Several may do it at once:
 * they write the same, and nothing that was written since is lost, as no
 * word and no head becomes 0 again.  False: from has gone on meanwhile.
 */
bool llm_window_fill(llm_window_t *to, const llm_window_t *from,
    uint64_t taken);

/* Closes the one window, and moves what it knows into the other. */
void llm_window_replace(llm_window_t *to, llm_window_t *from);


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
static inline bool
llm_window_read(const llm_window_t *w, uint64_t ticket, uint64_t *word)
{
    *word = atomic_load(&w->entry[llm_window_cell(w, ticket)]);

    return llm_window_word_lap(*word) == llm_window_lap(w, ticket);
}


/* How many tickets are taken; the head may lag behind by one. */
static inline uint64_t
llm_window_taken(const llm_window_t *w)
{
    uint64_t head = atomic_load(&w->head) & ~LLM_WINDOW_CLOSED;
    uint64_t word;

    return llm_window_read(w, head, &word) ? head + 1 : head;
}


static inline uint32_t
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


/*
 * Takes the next ticket, if the one that is limit tickets before it has left
 * the window; false: the window is closed.  *wait: 0 if it was taken.
 *
 * While the word of a ticket is as it was a lap before, no word behind it
 * can change.  So all that was read still holds when the exchange succeeds.
 */
static inline bool
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


/* Begins, or finishes, what llm_limits_use() has asked for. */
static inline void
llm_window_move(llm_window_t *to)
{
    llm_window_t *from = atomic_load(&to->from);

    if (from != NULL) {
        llm_window_replace(to, from);
    }
}

#endif /* LLM_WINDOW_WORD_H */
