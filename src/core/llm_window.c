/*
 * The window of rpm: a new one, one that takes the place of another, and how
 * many requests are in it.
 */

#include "llm_window_word.h"

#include <string.h>


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


bool
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


void
llm_window_replace(llm_window_t *to, llm_window_t *from)
{
    (void) llm_window_fill(to, from, llm_window_close(from));
    (void) atomic_compare_exchange_strong(&to->from, &from, NULL);
}
