/*
 * The next provider to ask, by strategy.
 */

#include "llm_select.h"

#include <string.h>


/* virtual time, and a word of turns: rounds, and what is below them */
#define LLM_ROUND_BITS 44
#define LLM_ROUND (UINT64_C(1) << LLM_ROUND_BITS)
#define LLM_ROUND_PART (LLM_ROUND - 1)


/* how the slots of a candidate lie in a round */
typedef struct {
    uint64_t first;
    uint64_t step;
    uint32_t n;
} llm_slots_t;


/* a turn that could be taken */
typedef struct {
    int of;        /* whose, -1: nobody's */
    uint64_t time; /* what the shared word becomes */
    uint64_t seen; /* what it was */
} llm_turn_t;


static const char *llm_strategy_names[LLM_STRATEGIES] = {
    "priority",
    "round_robin",
    "weighted",
    "least_latency",
    "cost",
    "least_conn",
};


void
llm_select_prepare(llm_candidate_t *candidates, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        llm_candidate_t *c = &candidates[i];

        if (c->weight == 0) {
            c->weight = 1;
        }

        if (c->weight > LLM_WEIGHT_MAX) {
            c->weight = LLM_WEIGHT_MAX;
        }

        c->step = LLM_ROUND / c->weight;

        /* the middle of the candidate's n-th part of it */
        c->first = (2 * (uint64_t) i + 1) * c->step / (2 * n);
    }
}


/* Whether it is the turn of the backups. */
static bool
llm_select_backup(const llm_select_t *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (s->marks[i] == LLM_SELECT_LEFT && !s->candidates[i].backup) {
            return false;
        }
    }

    return true;
}


/* Whether this request failed before. */
static bool
llm_select_failover(const llm_select_t *s)
{
    return memchr(s->marks, LLM_SELECT_TRIED, s->n) != NULL;
}


static inline bool
llm_select_left(const llm_select_t *s, unsigned i, bool backup)
{
    return s->marks[i] == LLM_SELECT_LEFT && s->candidates[i].backup == backup;
}


static int
llm_select_priority(const llm_select_t *s, bool backup)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (llm_select_left(s, i, backup)) {
            return (int) i;
        }
    }

    return -1;
}


/* ---- turns ---- */


static inline llm_slots_t
llm_slots(const llm_candidate_t *c, bool weighted)
{
    if (!weighted) {
        return (llm_slots_t) {
            .first = c->first * c->weight,
            .step = LLM_ROUND,
            .n = 1,
        };
    }

    return (llm_slots_t) {
        .first = c->first,
        .step = c->step,
        .n = c->weight,
    };
}


static inline unsigned
llm_turns_account(const llm_select_t *s)
{
    return (s->strategy == LLM_STRATEGY_WEIGHTED ? 2 : 0)
           + (llm_select_failover(s) ? 1 : 0);
}


/* Signed, so that the wrap is a moment like any other. */
static inline int64_t
llm_turn_ahead(uint64_t a, uint64_t b)
{
    return (int64_t) (a - b);
}


/* The first slot that is neither before now nor the one that was taken. */
static inline uint64_t
llm_turn_next(uint64_t now, uint64_t taken, llm_slots_t slots)
{
    uint64_t part = now & LLM_ROUND_PART;
    uint64_t round = now - part;
    uint64_t slot = 0;

    if (part > slots.first) {
        slot = ((part - slots.first) * slots.n + LLM_ROUND_PART)
               >> LLM_ROUND_BITS;
    }

    if (slot < slots.n
        && llm_turn_ahead(round + slots.first + slot * slots.step, taken) <= 0)
    {
        slot++;
    }

    if (slot == slots.n) {
        round += LLM_ROUND;
        slot = 0;
    }

    return round + slots.first + slot * slots.step;
}


static void
llm_vtime_advance(_Atomic uint64_t *vtime, uint64_t to)
{
    uint64_t now = atomic_load(vtime);

    while (llm_turn_ahead(to, now) > 0
           && !atomic_compare_exchange_weak(vtime, &now, to))
    {
        /* void */
    }
}


/*
 * The earliest turn of all that are left.  False: virtual time went on
 * meanwhile, look again.
 */
static bool
llm_turn_earliest(const llm_select_t *s, bool backup, unsigned account,
    const _Atomic uint64_t *vtime, llm_turn_t *earliest)
{
    bool weighted = s->strategy == LLM_STRATEGY_WEIGHTED;
    uint64_t now = atomic_load(vtime);

    earliest->of = -1;

    for (unsigned i = 0; i < s->n; i++) {
        const llm_candidate_t *c = &s->candidates[i];
        uint64_t taken, time;
        llm_slots_t slots;
        bool foreign;

        if (!llm_select_left(s, i, backup)) {
            continue;
        }

        slots = llm_slots(c, weighted);
        taken = atomic_load(&c->turns->taken[account]);
        foreign = llm_turn_ahead(taken, now) > 0;

        if (foreign && atomic_load(vtime) != now) {
            return false;
        }

        /* a word that is not of this virtual time says nothing */
        time = llm_turn_next(now, foreign ? now - 1 : taken, slots);

        if (earliest->of == -1 || llm_turn_ahead(time, earliest->time) < 0) {
            *earliest = (llm_turn_t) {
                .of = (int) i,
                .time = time,
                .seen = taken,
            };
        }
    }

    return true;
}


static int
llm_select_turn(const llm_select_t *s, bool backup)
{
    unsigned account = llm_turns_account(s);
    _Atomic uint64_t *vtime = &s->vtime->now[2 * account + backup];
    _Atomic uint64_t *word;
    llm_turn_t t;

    for (;;) {
        if (!llm_turn_earliest(s, backup, account, vtime, &t)) {
            continue;
        }

        if (t.of == -1) {
            return -1;
        }

        /*
         * Virtual time goes first: it passes nobody, since no turn is earlier
         * than this one, and so no turn that was taken is ahead of it.
         */

        llm_vtime_advance(vtime, t.time);

        word = &s->candidates[t.of].turns->taken[account];

        if (atomic_compare_exchange_strong(word, &t.seen, t.time)) {
            return t.of;
        }
    }
}


/* ---- the other strategies ---- */


static uint64_t
llm_select_in_flight(const llm_select_t *s, const llm_candidate_t *c)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < s->slots; i++) {
        sum += atomic_load_explicit(&c->in_flight[i], memory_order_relaxed);
    }

    return sum;
}


/* Whether the newest of several, with this part of their weight, wins. */
static bool
llm_select_lot(uint64_t *random, uint64_t weight, uint64_t weights)
{
    *random = *random * UINT64_C(6364136223846793005)
              + UINT64_C(1442695040888963407);

    return (*random >> 32) * weights >> 32 < weight;
}


static int
llm_select_least_conn(const llm_select_t *s, bool backup, uint64_t random)
{
    uint64_t least = 0, weight = 0, weights = 0;
    int best = -1;

    for (unsigned i = 0; i < s->n; i++) {
        const llm_candidate_t *c = &s->candidates[i];
        uint64_t in_flight, mine, its;

        if (!llm_select_left(s, i, backup)) {
            continue;
        }

        in_flight = llm_select_in_flight(s, c);

        /* slots * 2^32 * LLM_WEIGHT_MAX, as long as slots < 4096 */
        mine = in_flight * weight;
        its = least * c->weight;

        if (best == -1 || mine < its) {
            weights = 0;

        } else if (mine > its) {
            continue;
        }

        weights += c->weight;

        if (llm_select_lot(&random, c->weight, weights)) {
            best = (int) i;
            least = in_flight;
            weight = c->weight;
        }
    }

    return best;
}


static int
llm_select_least_latency(const llm_select_t *s, bool backup, uint32_t now)
{
    bool explore = !llm_select_failover(s);

    for (;;) {
        uint32_t least = 0, longest = LLM_LATENCY_NOT_DUE;
        int best = -1, due = -1;

        for (unsigned i = 0; i < s->n; i++) {
            const llm_latency_t *l = s->candidates[i].latency;
            uint32_t average, overdue;

            if (!llm_select_left(s, i, backup)) {
                continue;
            }

            average = llm_latency_average(l);

            /* none becomes the longest of all */
            if (best == -1 || average - 1 < least) {
                best = (int) i;
                least = average - 1;
            }

            overdue = explore ? llm_latency_due(l, now) : LLM_LATENCY_NOT_DUE;

            if (overdue > longest) {
                due = (int) i;
                longest = overdue;
            }
        }

        if (due == -1 || llm_latency_explore(s->candidates[due].latency, now)) {
            return due == -1 ? best : due;
        }
    }
}


static inline uint64_t
llm_select_product(uint64_t a, uint64_t b)
{
    uint64_t product;

    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}


/* What the request will probably cost, times a million. */
static uint64_t
llm_select_price(const llm_select_t *s, const llm_candidate_t *c)
{
    uint64_t input = llm_select_product(s->input_tokens, c->price_input);
    uint64_t output = llm_select_product(s->output_tokens, c->price_output);
    uint64_t sum;

    return __builtin_add_overflow(input, output, &sum) ? UINT64_MAX : sum;
}


static int
llm_select_cost(const llm_select_t *s, bool backup)
{
    uint64_t cheapest = 0;
    bool within = false;
    int best = -1;

    for (unsigned i = 0; i < s->n; i++) {
        const llm_candidate_t *c = &s->candidates[i];
        uint64_t price;
        bool fits;

        if (!llm_select_left(s, i, backup)) {
            continue;
        }

        price = llm_select_price(s, c);
        fits = s->budget == 0 || c->price_output <= s->budget;

        if (best == -1 || fits > within || (fits == within && price < cheapest))
        {
            best = (int) i;
            cheapest = price;
            within = fits;
        }
    }

    return best;
}


static int
llm_select_best(const llm_select_t *s, uint32_t now, uint32_t random)
{
    bool backup = llm_select_backup(s);

    switch (s->strategy) {

    case LLM_STRATEGY_ROUND_ROBIN:
    case LLM_STRATEGY_WEIGHTED:
        return llm_select_turn(s, backup);

    case LLM_STRATEGY_LEAST_LATENCY:
        return llm_select_least_latency(s, backup, now);

    case LLM_STRATEGY_COST:
        return llm_select_cost(s, backup);

    case LLM_STRATEGY_LEAST_CONN:
        return llm_select_least_conn(s, backup, random);

    case LLM_STRATEGY_PRIORITY:
    default:
        return llm_select_priority(s, backup);
    }
}


int
llm_select_next(const llm_select_t *s, uint32_t now, uint32_t random)
{
    int i = llm_select_best(s, now, random);

    if (i != -1) {
        s->marks[i] = LLM_SELECT_TRIED;
    }

    return i;
}


const char *
llm_strategy_name(llm_strategy_t strategy)
{
    return llm_strategy_names[strategy];
}


int
llm_strategy_by_name(const uint8_t *name, size_t len)
{
    for (int i = 0; i < LLM_STRATEGIES; i++) {
        if (strlen(llm_strategy_names[i]) == len
            && memcmp(llm_strategy_names[i], name, len) == 0)
        {
            return i;
        }
    }

    return -1;
}
