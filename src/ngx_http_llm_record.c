
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_member.h"
#include "ngx_http_llm_provider.h"


/*
 * The records in the zone, found by name.  A record is never moved, and is
 * taken away only when no living process can know it.  Only the master makes
 * and frees them.
 */


static ngx_http_llm_record_t *ngx_http_llm_record_create(
    ngx_slab_pool_t *shpool, ngx_uint_t nslots, ngx_http_llm_kind_e kind,
    ngx_str_t *name);
static void ngx_http_llm_record_free(ngx_slab_pool_t *shpool,
    ngx_http_llm_record_t *record);
static ngx_int_t ngx_http_llm_record_no_room(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider, size_t size);


/* Finds the record of this name, or makes it; it belongs to mcf from now. */

ngx_http_llm_record_t *
ngx_http_llm_record_get(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_kind_e kind, ngx_str_t *name)
{
    ngx_http_llm_record_t  *record;

    for (record = mcf->sh->records; record; record = record->next) {

        if (record->kind == kind
            && record->name.len == name->len
            && ngx_strncmp(record->name.data, name->data, name->len) == 0)
        {
            record->generation = mcf->sh->generation;
            return record;
        }
    }

    record = ngx_http_llm_record_create(shpool, mcf->sh->nslots, kind, name);
    if (record == NULL) {
        return NULL;
    }

    record->generation = mcf->sh->generation;
    record->born = mcf->sh->generation;
    record->next = mcf->sh->records;

    ngx_memory_barrier();

    mcf->sh->records = record;

    return record;
}


static ngx_http_llm_record_t *
ngx_http_llm_record_create(ngx_slab_pool_t *shpool, ngx_uint_t nslots,
    ngx_http_llm_kind_e kind, ngx_str_t *name)
{
    ngx_http_llm_record_t  *record;

    /* slab chunks of these sizes are aligned to cache lines */

    record = ngx_slab_calloc(shpool, sizeof(ngx_http_llm_record_t));
    if (record == NULL) {
        return NULL;
    }

    record->kind = kind;
    record->name.len = name->len;

    record->name.data = ngx_slab_alloc(shpool, name->len);
    record->counters = ngx_slab_calloc(shpool,
                                       nslots * sizeof(llm_counters_t));

    if (kind != NGX_HTTP_LLM_OBSERVED) {
        record->usage = ngx_slab_calloc(shpool, NGX_HTTP_LLM_STRIPES
                                                * sizeof(llm_counters_t));
        record->recent = ngx_slab_calloc(shpool, sizeof(llm_recent_t));
    }

    if (kind == NGX_HTTP_LLM_PROVIDER) {
        record->times = ngx_slab_calloc(shpool, sizeof(ngx_http_llm_times_t));
        record->waiting = ngx_slab_calloc(shpool, nslots * sizeof(uint64_t));
    }

    if (record->name.data == NULL || record->counters == NULL
        || (kind != NGX_HTTP_LLM_OBSERVED
            && (record->usage == NULL || record->recent == NULL))
        || (kind == NGX_HTTP_LLM_PROVIDER
            && (record->times == NULL || record->waiting == NULL)))
    {
        ngx_shmtx_lock(&shpool->mutex);
        ngx_http_llm_record_free(shpool, record);
        ngx_shmtx_unlock(&shpool->mutex);

        return NULL;
    }

    ngx_memcpy(record->name.data, name->data, name->len);

    return record;
}


static void
ngx_http_llm_record_free(ngx_slab_pool_t *shpool,
    ngx_http_llm_record_t *record)
{
    llm_window_t  *window;

    if (record->name.data) {
        ngx_slab_free_locked(shpool, record->name.data);
    }

    if (record->counters) {
        ngx_slab_free_locked(shpool, record->counters);
    }

    if (record->usage) {
        ngx_slab_free_locked(shpool, record->usage);
    }

    if (record->recent) {
        ngx_slab_free_locked(shpool, record->recent);
    }

    if (record->times) {
        ngx_slab_free_locked(shpool, record->times);
    }

    if (record->waiting) {
        ngx_slab_free_locked(shpool, (void *) record->waiting);
    }

    if (record->probe) {
        ngx_slab_free_locked(shpool, record->probe);
    }

    if (record->limits) {
        window = record->limits->window;

        if (window) {
            ngx_slab_free_locked(shpool, window);
        }

        if (record->limits->in_flight) {
            ngx_slab_free_locked(shpool, (void *) record->limits->in_flight);
        }

        ngx_slab_free_locked(shpool, record->limits);
    }

    if (record->retired) {
        ngx_slab_free_locked(shpool, record->retired);
    }

    ngx_http_llm_members_free(shpool, record);

    ngx_slab_free_locked(shpool, record);
}


/*
 * Room for what a provider's limits count, and for each request of a minute
 * where they want to know that.  It grows with the limit; what was there is
 * moved.
 */

ngx_int_t
ngx_http_llm_record_limits(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *record)
{
    size_t                    size;
    llm_limits_t             *limits;
    llm_window_t             *window, *old;
    ngx_http_llm_provider_t  *provider;

    provider = ngx_http_llm_find_provider(mcf, &record->name);

    if (record->retired) {

        /* whoever looked at it has long done something else */

        ngx_slab_free(shpool, record->retired);
        record->retired = NULL;
    }

    if (provider->limited && record->limits == NULL) {

        limits = ngx_slab_calloc(shpool, sizeof(llm_limits_t));
        if (limits == NULL) {
            return ngx_http_llm_record_no_room(mcf, provider,
                                               sizeof(llm_limits_t));
        }

        limits->workers = (uint32_t) mcf->sh->nslots;
        limits->in_flight = ngx_slab_calloc(shpool, mcf->sh->nslots
                                                    * sizeof(uint32_t));
        if (limits->in_flight == NULL) {
            ngx_slab_free(shpool, limits);
            return ngx_http_llm_record_no_room(mcf, provider,
                                               sizeof(llm_limits_t));
        }

        record->limits = limits;
    }

    limits = record->limits;
    old = limits ? limits->window : NULL;

    if (provider->limit.rpm == 0
        || (old && llm_window_capacity(old) >= provider->limit.rpm))
    {
        return NGX_OK;
    }

    size = llm_window_size(provider->limit.rpm);

    window = ngx_slab_alloc(shpool, size);
    if (window == NULL) {
        return ngx_http_llm_record_no_room(mcf, provider, size);
    }

    llm_window_init(window, provider->limit.rpm);

    llm_limits_use(limits, window);

    record->retired = old;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_record_no_room(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider, size_t size)
{
    ngx_log_error(NGX_LOG_EMERG, mcf->shm_zone->shm.log, 0,
                  "\"llm_zone\" \"%V\" of %uzk has no room for \"limit\" "
                  "of \"llm_provider\" \"%V\", which takes %uzk: expected "
                  "a larger size",
                  &mcf->shm_zone->shm.name, mcf->shm_zone->shm.size / 1024,
                  &provider->name, (size + 1023) / 1024);

    return NGX_ERROR;
}


/* What is known of a provider's probes. */

ngx_int_t
ngx_http_llm_record_probe(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *record)
{
    ngx_http_llm_provider_t  *provider;

    provider = ngx_http_llm_find_provider(mcf, &record->name);

    if (provider->probe && record->probe == NULL) {

        record->probe = ngx_slab_calloc(shpool, sizeof(llm_probe_t));
        if (record->probe == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/*
 * Frees the records that only configurations can know which are older than
 * every living worker's and than the running one, or younger than that: those
 * have failed.
 */

void
ngx_http_llm_records_reclaim(ngx_http_llm_shctx_t *sh, ngx_slab_pool_t *shpool,
    ngx_uint_t running)
{
    ngx_pid_t                pid;
    ngx_uint_t               i, active;
    ngx_http_llm_record_t   *record, **recordp;

    active = running;

    for (i = 0; i < sh->nslots; i++) {

        pid = (ngx_pid_t) sh->slots[i].pid;

        if (pid && sh->slots[i].generation < active
            && (kill(pid, 0) == 0 || ngx_errno != ESRCH))
        {
            active = sh->slots[i].generation;
        }
    }

    /* workers that come or go walk over the records */

    ngx_shmtx_lock(&shpool->mutex);

    ngx_http_llm_members_forget(sh, shpool);

    recordp = &sh->records;

    while (*recordp) {
        record = *recordp;

        if (record->generation >= active && record->born <= running) {
            recordp = &record->next;
            continue;
        }

        *recordp = record->next;

        if (record->kind == NGX_HTTP_LLM_PROVIDER) {
            ngx_http_llm_members_retire(sh, &record->name);
        }

        ngx_http_llm_record_free(shpool, record);
    }

    ngx_shmtx_unlock(&shpool->mutex);
}
