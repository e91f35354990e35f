#include "llm_probe.h"


/*
 * last     bits 0-31: time, 32-41: status, 42-46: what, 47-63: latency
 *          what: a result; of a failure it is LLM_PROBE_RESULTS + fault
 *
 * bucket   bits 0-31: which five minutes, or which hour, since 1970;
 *          32-47: good ones, 48-63: all
 *
 * lease    bits 0-31: owner, 32-63: until when
 */

#define LLM_PROBE_TIME ((UINT64_C(1) << 32) - 1)
#define LLM_PROBE_GOOD (UINT64_C(1) << 32)
#define LLM_PROBE_ALL (UINT64_C(1) << 48)
#define LLM_PROBE_MOST 65535

#define LLM_PROBE_MINUTES 300 /* s */
#define LLM_PROBE_HOURS 3600


/* Cleared where it is another time's, and added to, in one step. */
static void
llm_probe_bucket(_Atomic uint64_t *buckets, uint32_t n, uint32_t index,
    bool good)
{
    _Atomic uint64_t *bucket = &buckets[index % n];
    uint64_t old = atomic_load(bucket);
    uint64_t next;

    do {
        next = (uint32_t) old == index ? old : index;

        if (next >> 48 == LLM_PROBE_MOST) {
            return;
        }

        next += LLM_PROBE_ALL + (good ? LLM_PROBE_GOOD : 0);

    } while (!atomic_compare_exchange_weak(bucket, &old, next));
}


static uint64_t
llm_probe_pack(const llm_probe_last_t *last)
{
    uint64_t what = last->result;
    uint64_t latency = last->latency;

    if (last->result == LLM_PROBE_FAILURE) {
        what = LLM_PROBE_RESULTS
               + (last->fault < LLM_PROBE_FAULTS ? last->fault
                                                 : LLM_PROBE_FAULTS - 1);
    }

    if (latency > LLM_PROBE_LATENCY) {
        latency = LLM_PROBE_LATENCY;
    }

    return (last->time & LLM_PROBE_TIME)
           | (uint64_t) (last->status & 1023) << 32 | what << 42
           | latency << 47;
}


void
llm_probe_add(llm_probe_t *p, const llm_probe_last_t *last)
{
    bool good = last->result == LLM_PROBE_SUCCESS;
    uint64_t time = last->time & LLM_PROBE_TIME;

    atomic_store(&p->last, llm_probe_pack(last));

    atomic_fetch_add(&p->count[last->result % LLM_PROBE_RESULTS], 1);

    llm_probe_bucket(p->hour, LLM_PROBE_HOUR,
        (uint32_t) (time / LLM_PROBE_MINUTES), good);
    llm_probe_bucket(p->day, LLM_PROBE_DAY, (uint32_t) (time / LLM_PROBE_HOURS),
        good);
}


bool
llm_probe_last(const llm_probe_t *p, llm_probe_last_t *last)
{
    uint64_t word = atomic_load(&p->last);
    unsigned what = (unsigned) (word >> 42 & 31);

    *last = (llm_probe_last_t) {
        .result = (llm_probe_result_t) what,
        .status = (unsigned) (word >> 32 & 1023),
        .latency = (uint32_t) (word >> 47),
        .time = word & LLM_PROBE_TIME,
    };

    if (what >= LLM_PROBE_RESULTS) {
        last->result = LLM_PROBE_FAILURE;
        last->fault = what - LLM_PROBE_RESULTS;
    }

    return last->result != LLM_PROBE_NONE;
}


uint64_t
llm_probe_count(const llm_probe_t *p, llm_probe_result_t result)
{
    return atomic_load(&p->count[result % LLM_PROBE_RESULTS]);
}


static llm_probe_share_t
llm_probe_share(const _Atomic uint64_t *buckets, uint32_t n, uint32_t index)
{
    llm_probe_share_t share = { 0, 0 };

    for (uint32_t i = 0; i < n; i++) {
        uint64_t bucket = atomic_load(&buckets[i]);

        if (index - (uint32_t) bucket < n) {
            share.good += (uint32_t) (bucket >> 32) & LLM_PROBE_MOST;
            share.all += (uint32_t) (bucket >> 48);
        }
    }

    return share;
}


llm_probe_share_t
llm_probe_hour(const llm_probe_t *p, uint64_t now)
{
    return llm_probe_share(p->hour, LLM_PROBE_HOUR,
        (uint32_t) (now / LLM_PROBE_MINUTES));
}


llm_probe_share_t
llm_probe_day(const llm_probe_t *p, uint64_t now)
{
    return llm_probe_share(p->day, LLM_PROBE_DAY,
        (uint32_t) (now / LLM_PROBE_HOURS));
}


uint64_t
llm_probe_next(uint64_t now, uint32_t interval, uint32_t random)
{
    return now + interval - random % (interval / 10 + 1);
}


void
llm_probe_copy(llm_probe_t *to, const llm_probe_t *from)
{
    atomic_store(&to->last, atomic_load(&from->last));
    atomic_store(&to->next, atomic_load(&from->next));
    atomic_store(&to->mark, atomic_load(&from->mark));

    for (unsigned i = 0; i < LLM_PROBE_RESULTS; i++) {
        atomic_store(&to->count[i], atomic_load(&from->count[i]));
    }

    for (unsigned i = 0; i < LLM_PROBE_HOUR; i++) {
        atomic_store(&to->hour[i], atomic_load(&from->hour[i]));
    }

    for (unsigned i = 0; i < LLM_PROBE_DAY; i++) {
        atomic_store(&to->day[i], atomic_load(&from->day[i]));
    }
}


static uint64_t *
llm_probe_save_buckets(const _Atomic uint64_t *buckets, uint32_t n, uint64_t *v)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t bucket = atomic_load(&buckets[i]);

        *v++ = bucket & LLM_PROBE_TIME;
        *v++ = bucket >> 32;
    }

    return v;
}


void
llm_probe_save(const llm_probe_t *p, uint64_t *v)
{
    llm_probe_last_t last;

    (void) llm_probe_last(p, &last);

    *v++ = last.result;
    *v++ = last.status;
    *v++ = last.fault;
    *v++ = last.latency;
    *v++ = last.time;

    for (unsigned i = 0; i < LLM_PROBE_RESULTS; i++) {
        *v++ = atomic_load(&p->count[i]);
    }

    v = llm_probe_save_buckets(p->hour, LLM_PROBE_HOUR, v);
    (void) llm_probe_save_buckets(p->day, LLM_PROBE_DAY, v);
}


bool
llm_probe_saved(const uint64_t *v, unsigned faults)
{
    if (v[0] >= LLM_PROBE_RESULTS || v[1] > 1023 || v[2] >= faults
        || v[3] > LLM_PROBE_LATENCY || v[4] > LLM_PROBE_TIME)
    {
        return false;
    }

    v += 5 + LLM_PROBE_RESULTS;

    for (unsigned i = 0; i < LLM_PROBE_HOUR + LLM_PROBE_DAY; i++, v += 2) {
        if (v[0] > LLM_PROBE_TIME || v[1] > LLM_PROBE_TIME
            || (v[1] & LLM_PROBE_MOST) > v[1] >> 16)
        {
            return false;
        }
    }

    return true;
}


static const uint64_t *
llm_probe_restore_buckets(_Atomic uint64_t *buckets, uint32_t n,
    const uint64_t *v)
{
    for (uint32_t i = 0; i < n; i++, v += 2) {
        atomic_store(&buckets[i], v[0] | v[1] << 32);
    }

    return v;
}


void
llm_probe_restore(llm_probe_t *p, const uint64_t *v)
{
    llm_probe_last_t last = {
        .result = (llm_probe_result_t) v[0],
        .status = (unsigned) v[1],
        .fault = (unsigned) v[2],
        .latency = (uint32_t) v[3],
        .time = v[4],
    };

    atomic_store(&p->last, llm_probe_pack(&last));

    v += 5;

    for (unsigned i = 0; i < LLM_PROBE_RESULTS; i++) {
        atomic_store(&p->count[i], *v++);
    }

    v = llm_probe_restore_buckets(p->hour, LLM_PROBE_HOUR, v);
    (void) llm_probe_restore_buckets(p->day, LLM_PROBE_DAY, v);
}


const char *
llm_probe_result_name(llm_probe_result_t result)
{
    static const char *const names[] = { "none", "success", "failure",
        "credential", "throttle" };

    return result < LLM_PROBE_RESULTS ? names[result] : "unknown";
}


bool
llm_lease_take(_Atomic uint64_t *lease, uint32_t owner, uint32_t now,
    uint32_t ms)
{
    uint64_t old = atomic_load(lease);
    uint64_t next = owner | (uint64_t) (now + ms) << 32;

    do {
        uint32_t left = (uint32_t) (old >> 32) - now;

        if ((uint32_t) old != 0 && (uint32_t) old != owner
            && left - 1 < (uint32_t) INT32_MAX)
        {
            return false;
        }
    } while (!atomic_compare_exchange_weak(lease, &old, next));

    return true;
}


uint32_t
llm_lease_owner(const _Atomic uint64_t *lease)
{
    return (uint32_t) atomic_load(lease);
}


bool
llm_lease_leave(_Atomic uint64_t *lease, uint32_t owner)
{
    uint64_t old = atomic_load(lease);

    while ((uint32_t) old == owner && owner != 0) {
        if (atomic_compare_exchange_weak(lease, &old, 0)) {
            return true;
        }
    }

    return false;
}
