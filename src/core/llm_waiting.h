/*
 * Since when processes have somebody who waits for a provider, so that of
 * all who wait, whoever came first is asked first.
 *
 * In shared memory there is a word for each worker, in an array of theirs;
 * 0: nobody waits there.
 *
 *     bits    field
 *     0-31    since when the first one waits
 *     32-63   until when that counts
 *
 * A worker says it again as often as it asks for those who wait.  So one
 * that is killed, or hangs, is waited for only until its word is over.
 *
 * Times are milliseconds on a monotonic clock that all processes share; they
 * may wrap.
 */

#ifndef LLM_WAITING_H
#define LLM_WAITING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>


#define LLM_WAITING_LONGEST 2000 /* ms; no word counts for longer */


/* The first one of this worker; until > since, or nobody heeds it. */
void llm_waiting_say(_Atomic uint64_t *words, uint32_t worker, uint32_t since,
    uint32_t until, uint32_t now);

/* Nobody waits in this worker any more, or somebody else does. */
void llm_waiting_done(_Atomic uint64_t *words, uint32_t worker);

/* Whether somebody waits in another of n workers, and came before since. */
bool llm_waiting_before(const _Atomic uint64_t *words, uint32_t n,
    uint32_t worker, uint32_t since, uint32_t now);

#endif /* LLM_WAITING_H */
