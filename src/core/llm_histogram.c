#include "llm_histogram.h"


const uint32_t llm_histogram_durations[] = { 10000, 20000, 40000, 80000, 160000,
    320000, 640000, 1280000, 2560000, 5120000, 10240000, 20480000, 40960000,
    81920000, 0 };

const uint32_t llm_histogram_first_tokens[] = { 1000, 5000, 10000, 20000, 40000,
    60000, 80000, 100000, 250000, 500000, 750000, 1000000, 2500000, 5000000,
    7500000, 10000000, 0 };


/*
 * Upper edges of the buckets, us: those of the conventions, and as many
 * between them as it takes for steps below 10 %.
 */
static const uint32_t llm_histogram_edges[LLM_HISTOGRAM_BUCKETS - 1] = { 10, 11,
    12, 13, 14, 16, 17, 19, 21, 23, 25, 27, 30, 32, 35, 39, 42, 46, 51, 56, 61,
    67, 73, 80, 87, 96, 105, 115, 125, 137, 150, 164, 180, 197, 215, 236, 258,
    282, 309, 338, 370, 405, 444, 486, 531, 582, 637, 697, 763, 835, 914, 1000,
    1094, 1196, 1308, 1430, 1564, 1710, 1870, 2045, 2236, 2445, 2674, 2924,
    3198, 3497, 3824, 4181, 4572, 5000, 5453, 5946, 6484, 7071, 7711, 8409,
    9170, 10000, 10905, 11892, 12968, 14142, 15422, 16818, 18340, 20000, 21810,
    23784, 25937, 28284, 30844, 33636, 36680, 40000, 43379, 47043, 51017, 55326,
    60000, 64474, 69282, 74448, 80000, 86177, 92832, 100000, 108148, 116961,
    126491, 136798, 147945, 160000, 174938, 191270, 209128, 228653, 250000,
    271442, 294723, 320000, 349876, 382541, 418256, 457305, 500000, 542884,
    589445, 640000, 692820, 750000, 805927, 866025, 930605, 1000000, 1085767,
    1178890, 1280000, 1391718, 1513187, 1645257, 1788854, 1944985, 2114743,
    2299316, 2500000, 2560000, 2783436, 3026373, 3290514, 3577709, 3889970,
    4229485, 4598633, 5000000, 5120000, 5526221, 5964671, 6437908, 6948691,
    7500000, 8059274, 8660254, 9306049, 10000000, 10240000, 11166799, 12177481,
    13279637, 14481547, 15792239, 17221559, 18780243, 20480000, 22333598,
    24354962, 26559274, 28963094, 31584478, 34443117, 37560486, 40960000,
    44667197, 48709923, 53118548, 57926188, 63168955, 68886234, 75120971,
    81920000, 89680346, 98175836, 107476110, 117657407, 128803186, 141004813,
    154362310, 168985173, 184993272, 202517830, 221702503, 242704556, 265696150,
    290865755, 318419698, 348583846, 381605469, 417755255, 457329540, 500652727,
    548079954, 600000000 };


/* The bucket of a value: the first whose edge is not below it. */
static unsigned
llm_histogram_bucket(uint64_t us)
{
    unsigned low = 0, high = LLM_HISTOGRAM_BUCKETS - 1;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (llm_histogram_edges[middle] < us) {
            low = middle + 1;

        } else {
            high = middle;
        }
    }

    return low;
}


void
llm_histogram_add(llm_histogram_t *h, uint64_t us)
{
    atomic_fetch_add_explicit(&h->count[llm_histogram_bucket(us)], 1,
        memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum, us, memory_order_relaxed);
}


void
llm_histogram_view(const llm_histogram_t *h, llm_histogram_view_t *view)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < LLM_HISTOGRAM_BUCKETS; i++) {
        n += atomic_load_explicit(&h->count[i], memory_order_relaxed);
        view->upto[i] = n;
    }

    view->sum = atomic_load_explicit(&h->sum, memory_order_relaxed);
}


uint64_t
llm_histogram_total(const llm_histogram_view_t *view)
{
    return view->upto[LLM_HISTOGRAM_BUCKETS - 1];
}


uint64_t
llm_histogram_below(const llm_histogram_view_t *view, uint32_t edge)
{
    return view->upto[llm_histogram_bucket(edge)];
}


/* The middle of a bucket. */
static uint64_t
llm_histogram_value(unsigned bucket)
{
    uint64_t low = bucket == 0 ? 0 : llm_histogram_edges[bucket - 1];

    if (bucket == LLM_HISTOGRAM_BUCKETS - 1) {
        return low;
    }

    return (low + llm_histogram_edges[bucket]) / 2;
}


uint64_t
llm_histogram_quantile(const llm_histogram_view_t *view, unsigned thousandths)
{
    uint64_t total = llm_histogram_total(view), rank;
    unsigned low = 0, high = LLM_HISTOGRAM_BUCKETS - 1;

    if (total == 0) {
        return 0;
    }

    rank = (total * thousandths + 999) / 1000;

    if (rank == 0) {
        rank = 1;
    }

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (view->upto[middle] < rank) {
            low = middle + 1;

        } else {
            high = middle;
        }
    }

    return llm_histogram_value(low);
}


void
llm_histogram_copy(llm_histogram_t *to, const llm_histogram_t *from)
{
    atomic_store(&to->sum, atomic_load(&from->sum));

    for (unsigned i = 0; i < LLM_HISTOGRAM_BUCKETS; i++) {
        atomic_store(&to->count[i], atomic_load(&from->count[i]));
    }
}
