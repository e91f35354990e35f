
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_slot.h"

#include "llm_probe.h"
#include "llm_waiting.h"


/*
 * This process among all: where it counts, what is its task alone, and what
 * time it is for all.
 */


static void ngx_http_llm_slot_settle(ngx_http_llm_main_conf_t *mcf,
    ngx_uint_t n);


/* of this process; slot 0 is shared by those who found no other */

static ngx_uint_t  ngx_http_llm_slot;


/*
 * A worker takes a slot for its counters.  Slots of the dead are settled on
 * the way: the master starts a successor for whoever was killed.
 */

ngx_int_t
ngx_http_llm_slot_join(ngx_cycle_t *cycle, ngx_http_llm_main_conf_t *mcf)
{
    ngx_uint_t             i;
    ngx_atomic_t          *pid;
    ngx_atomic_uint_t      old;
    ngx_http_llm_shctx_t  *sh;

    sh = mcf->sh;

    ngx_http_llm_slot = 0;

    for (i = 1; i < sh->nslots; i++) {

        pid = &sh->slots[i].pid;
        old = *pid;

        if (old
            && (kill((ngx_pid_t) old, 0) == 0 || ngx_errno != ESRCH)
            && (ngx_pid_t) old != ngx_pid)
        {
            continue;
        }

        if (!ngx_atomic_cmp_set(pid, old, (ngx_atomic_uint_t) ngx_pid)) {
            continue;
        }

        if (old) {
            ngx_http_llm_slot_settle(mcf, i);
        }

        if (ngx_http_llm_slot) {
            *pid = 0;
            continue;
        }

        sh->slots[i].generation = mcf->generation;
        ngx_http_llm_slot = i;
    }

    if (ngx_http_llm_slot == 0) {

        /* who shares slot 0 is not known: as if it was never left */

        if (sh->slots[0].pid == 0) {
            sh->slots[0].generation = mcf->generation;

            ngx_memory_barrier();

            sh->slots[0].pid = ngx_parent;
        }

        ngx_log_error(NGX_LOG_NOTICE, cycle->log, 0,
                      "llm zone \"%V\" has slots for %ui workers only",
                      &mcf->shm_zone->shm.name, sh->nslots - 1);
    }

    return NGX_OK;
}


void
ngx_http_llm_slot_leave(ngx_http_llm_main_conf_t *mcf)
{
    if (ngx_http_llm_slot == 0) {
        return;
    }

    ngx_http_llm_slot_settle(mcf, ngx_http_llm_slot);

    mcf->sh->slots[ngx_http_llm_slot].pid = 0;

    ngx_http_llm_slot = 0;
}


static void
ngx_http_llm_slot_settle(ngx_http_llm_main_conf_t *mcf, ngx_uint_t n)
{
    ngx_slab_pool_t        *shpool;
    ngx_http_llm_record_t  *record;

    shpool = (ngx_slab_pool_t *) mcf->shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    for (record = mcf->sh->records; record; record = record->next) {
        if (record->kind == NGX_HTTP_LLM_ROUTE) {
            llm_counters_settle_route(&record->counters[n]);
            continue;
        }

        llm_counters_settle(&record->counters[n]);

        if (record->waiting) {
            llm_waiting_done(record->waiting, (uint32_t) n);
        }

        if (record->limits) {
            record->limits->in_flight[n] = 0;
        }
    }

    ngx_shmtx_unlock(&shpool->mutex);
}


/*
 * Whether it is this process that has the lease, for so long, unless it asks
 * again.  Who is dead does not keep it; nor does, for longer than its time,
 * who hangs, or is a stranger that has the number of one who is dead.
 */

ngx_uint_t
ngx_http_llm_lease(ngx_http_llm_main_conf_t *mcf, _Atomic uint64_t *lease,
    uint32_t ms)
{
    uint32_t  owner;

    owner = llm_lease_owner(lease);

    if (owner && (ngx_pid_t) owner != ngx_pid
        && kill((ngx_pid_t) owner, 0) == -1 && ngx_errno == ESRCH)
    {
        (void) llm_lease_leave(lease, owner);
    }

    return llm_lease_take(lease, (uint32_t) ngx_pid, ngx_http_llm_now(mcf),
                          ms);
}


void
ngx_http_llm_lease_leave(_Atomic uint64_t *lease)
{
    (void) llm_lease_leave(lease, (uint32_t) ngx_pid);
}


/* The circuits' clock: milliseconds, monotonic, the same in all workers. */

uint32_t
ngx_http_llm_now(ngx_http_llm_main_conf_t *mcf)
{
    return (uint32_t) (ngx_current_msec - mcf->sh->epoch);
}


/* The same without the wrap, for limits. */

uint64_t
ngx_http_llm_time(ngx_http_llm_main_conf_t *mcf)
{
    return ngx_current_msec - mcf->sh->epoch;
}


/* Tokens and money: several workers may share a stripe. */

llm_counters_t *
ngx_http_llm_usage_counters(ngx_http_llm_record_t *record)
{
    return &record->usage[ngx_http_llm_slot % NGX_HTTP_LLM_STRIPES];
}


uint32_t
ngx_http_llm_my_slot(void)
{
    return (uint32_t) ngx_http_llm_slot;
}


/* Where this process counts. */

llm_counters_t *
ngx_http_llm_counters(ngx_http_llm_record_t *record)
{
    return &record->counters[ngx_http_llm_slot];
}


/* For people, never for decisions: milliseconds since 1970. */

uint64_t
ngx_http_llm_wall_clock(void)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    return (uint64_t) tp->sec * 1000 + tp->msec;
}


/* For how long things take: us, since some moment. */

uint64_t
ngx_http_llm_stopwatch(void)
{
    struct timespec  ts;

    /* nginx's own clock stands still while events are handled */

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}
