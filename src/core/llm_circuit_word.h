/*
 * The circuit's own: its word taken apart, its times, and the one way it
 * moves.  For llm_circuit*.c only; the contract is in llm_circuit.h.
 *
 * What a call to a healthy or an open circuit needs is inline.
 *
 * Every change of a word is a compare-and-swap from a value that was looked
 * at; who loses looks again.  All loads are sequentially consistent: taking
 * a permit leans on the order of the permit's and the circuit's word.
 */

#ifndef LLM_CIRCUIT_WORD_H
#define LLM_CIRCUIT_WORD_H

#include "llm_circuit.h"


#define LLM_WORD_STATE ((uint64_t) 3)
#define LLM_WORD_ADMIN ((uint64_t) 3 << 2)
#define LLM_EPOCH_SHIFT 16
#define LLM_TIME_SHIFT 32

/* in the word "until" */
#define LLM_UNTIL_SHIFT 2

/* in the word "cause" */
#define LLM_CAUSE_REASON ((uint64_t) 255)
#define LLM_CAUSE_STARTED ((uint64_t) 1 << 8)


/* the word, taken apart */
typedef struct {
    uint8_t state;
    uint8_t admin;
    uint8_t level;
    uint8_t count;
    uint16_t epoch;
    uint32_t time;
} llm_word_t;


/*
 * One transition: next takes the place of *word in a new epoch.  False:
 * another process was faster, *word is what it left.
 */
bool llm_circuit_move(llm_circuit_t *c, uint64_t *word, llm_word_t next,
    llm_reason_t reason, uint32_t duration, uint32_t now, llm_transition_t *tr);


static inline uint16_t
llm_word_epoch(uint64_t word)
{
    return (uint16_t) (word >> LLM_EPOCH_SHIFT);
}


static inline llm_word_t
llm_word_unpack(uint64_t word)
{
    return (llm_word_t) {
        .state = (uint8_t) (word & 3),
        .admin = (uint8_t) (word >> 2 & 3),
        .level = (uint8_t) (word >> 4 & 15),
        .count = (uint8_t) (word >> 8 & 255),
        .epoch = llm_word_epoch(word),
        .time = (uint32_t) (word >> LLM_TIME_SHIFT),
    };
}


static inline uint64_t
llm_word_pack(llm_word_t w)
{
    return (uint64_t) w.state | (uint64_t) w.admin << 2
           | (uint64_t) w.level << 4 | (uint64_t) w.count << 8
           | (uint64_t) w.epoch << LLM_EPOCH_SHIFT
           | (uint64_t) w.time << LLM_TIME_SHIFT;
}


static inline uint32_t
llm_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}


static inline uint32_t
llm_max(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}


/* ms from now to a deadline; 0: elapsed.  longest is below 2^31. */
static inline uint32_t
llm_left(uint32_t deadline, uint32_t now, uint32_t longest)
{
    uint32_t left = deadline - now;

    return left <= longest ? left : 0;
}


static inline uint32_t
llm_open_max(const llm_circuit_conf_t *conf)
{
    return llm_min(conf->open_max, LLM_CIRCUIT_LONGEST);
}


/* open time of a level, without jitter */
static inline uint32_t
llm_open_time(const llm_circuit_conf_t *conf, uint32_t level)
{
    uint64_t open = (uint64_t) conf->open << level;
    uint32_t open_max = llm_open_max(conf);

    return open < open_max ? (uint32_t) open : open_max;
}


/* + 0 .. 10 % */
static inline uint32_t
llm_jitter(uint32_t open, uint32_t random)
{
    return open + (uint32_t) (((uint64_t) open * random >> 32) / 10);
}


/* the longest a deadline in the word can be ahead of a clock that lags */
static inline uint32_t
llm_longest(const llm_circuit_conf_t *conf)
{
    uint32_t open_max = llm_open_max(conf);

    return llm_max(open_max + open_max / 10, LLM_CIRCUIT_HINT_MAX) + 1
           + LLM_CIRCUIT_SKEW;
}


static inline uint32_t
llm_word_left(llm_word_t w, const llm_circuit_conf_t *conf, uint32_t now)
{
    return llm_left(w.time, now, llm_longest(conf));
}


/* ms of calm that are left to a closed circuit */
static inline uint32_t
llm_word_calm(llm_word_t w, const llm_circuit_conf_t *conf, uint32_t now)
{
    return w.time != 0 ? llm_word_left(w, conf, now) : 0;
}


static inline bool
llm_word_always(llm_word_t w, const llm_circuit_conf_t *conf)
{
    return w.admin == LLM_ADMIN_DISABLED
           || (conf->off && w.admin != LLM_ADMIN_OPEN);
}


static inline bool
llm_circuit_moved(const llm_circuit_t *c, uint16_t epoch)
{
    return llm_word_epoch(atomic_load(&c->word)) != epoch;
}

#endif /* LLM_CIRCUIT_WORD_H */
