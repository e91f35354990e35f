
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_alert.h"
#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_dns.h"
#include "ngx_http_llm_member.h"
#include "ngx_http_llm_observe.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_state.h"
#include "ngx_http_llm_target.h"


/*
 * The zone holds a record for each provider and each route (record.c), and
 * a slot for each worker.  Thresholds are not here: they are each
 * configuration's own.
 *
 * The zone is initialized by the master while the workers of the previous
 * configuration go on using it, and the reload may still fail afterwards:
 * records are added, nothing that exists is touched.
 */


#define NGX_HTTP_LLM_LAYOUT     0x6c6c6d0c
#define NGX_HTTP_LLM_MAX_SLOTS  64


static ngx_int_t ngx_http_llm_zone_init(ngx_shm_zone_t *shm_zone, void *data);
static ngx_int_t ngx_http_llm_zone_create(ngx_shm_zone_t *shm_zone,
    ngx_slab_pool_t *shpool);
static ngx_http_llm_shctx_t *ngx_http_llm_zone_previous(
    ngx_shm_zone_t *shm_zone);
static ngx_int_t ngx_http_llm_zone_import(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_shctx_t *from);
static ngx_uint_t ngx_http_llm_zone_configured(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_kind_e kind, ngx_str_t *name);
static ngx_int_t ngx_http_llm_zone_import_record(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *record,
    ngx_http_llm_record_t *old, ngx_uint_t nslots);
static ngx_int_t ngx_http_llm_zone_import_provider(
    ngx_http_llm_main_conf_t *mcf, ngx_slab_pool_t *shpool,
    ngx_http_llm_record_t *record, ngx_http_llm_record_t *old);
static ngx_int_t ngx_http_llm_zone_providers(ngx_shm_zone_t *shm_zone,
    ngx_slab_pool_t *shpool);
static ngx_int_t ngx_http_llm_zone_routes(ngx_shm_zone_t *shm_zone,
    ngx_slab_pool_t *shpool);
static ngx_int_t ngx_http_llm_zone_no_memory(ngx_shm_zone_t *shm_zone);


/* llm_zone NAME:SIZE [state=FILE] */

char *
ngx_http_llm_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *mcf = conf;

    u_char     *p;
    ssize_t     size;
    ngx_str_t  *value, name, s;

    if (mcf->shm_zone) {
        return "is duplicate";
    }

    value = cf->args->elts;

    p = (u_char *) ngx_strchr(value[1].data, ':');

    if (p == NULL || p == value[1].data) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid zone \"%V\" in \"llm_zone\": expected "
                           "NAME:SIZE, for example \"llm:1m\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    name.data = value[1].data;
    name.len = p - name.data;

    s.data = p + 1;
    s.len = value[1].data + value[1].len - s.data;

    size = ngx_parse_size(&s);

    if (size == NGX_ERROR || size < (ssize_t) (16 * ngx_pagesize)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid zone size \"%V\" in \"llm_zone\": "
                           "expected a size of at least %uzk",
                           &s, 16 * ngx_pagesize / 1024);
        return NGX_CONF_ERROR;
    }

    if (cf->args->nelts == 3) {

        if (ngx_strncmp(value[2].data, "state=", 6) != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" in \"llm_zone\": "
                               "expected \"state=FILE\"", &value[2]);
            return NGX_CONF_ERROR;
        }

        s.data = value[2].data + 6;
        s.len = value[2].len - 6;

        if (ngx_http_llm_state(cf, mcf, &s) != NGX_CONF_OK) {
            return NGX_CONF_ERROR;
        }
    }

    mcf->shm_zone = ngx_shared_memory_add(cf, &name, size,
                                          &ngx_http_llm_module);
    if (mcf->shm_zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if (mcf->shm_zone->data) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\" in \"llm_zone\" is already in use",
                           &name);
        return NGX_CONF_ERROR;
    }

    mcf->ccf = (ngx_core_conf_t *) ngx_get_conf(cf->cycle->conf_ctx,
                                                ngx_core_module);

    mcf->shm_zone->init = ngx_http_llm_zone_init;
    mcf->shm_zone->data = mcf;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_llm_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_http_llm_main_conf_t *mcf = shm_zone->data;

    ngx_uint_t                 fresh;
    ngx_slab_pool_t           *shpool;
    ngx_http_llm_shctx_t      *previous;
    ngx_http_llm_main_conf_t  *omcf = data;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    fresh = (omcf == NULL && !shm_zone->shm.exists);

    if (fresh && ngx_http_llm_zone_create(shm_zone, shpool) != NGX_OK) {
        return NGX_ERROR;
    }

    mcf->sh = shpool->data;

    previous = fresh ? ngx_http_llm_zone_previous(shm_zone) : NULL;

    if (previous && ngx_http_llm_zone_import(mcf, shpool, previous) != NGX_OK) {
        return ngx_http_llm_zone_no_memory(shm_zone);
    }

    mcf->generation = ++mcf->sh->generation;

    if (omcf) {
        ngx_http_llm_records_reclaim(mcf->sh, shpool, omcf->generation);
    }

    if (ngx_http_llm_zone_providers(shm_zone, shpool) != NGX_OK
        || ngx_http_llm_zone_routes(shm_zone, shpool) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_llm_observe_records(mcf, shpool) != NGX_OK
        || ngx_http_llm_alert_zone(mcf, shpool, previous) != NGX_OK)
    {
        return ngx_http_llm_zone_no_memory(shm_zone);
    }

    ngx_http_llm_targets_lookup(mcf, shm_zone->shm.log);

    return ngx_http_llm_state_prepare(mcf, shm_zone->shm.log);
}


static ngx_int_t
ngx_http_llm_zone_no_memory(ngx_shm_zone_t *shm_zone)
{
    ngx_http_llm_main_conf_t *mcf = shm_zone->data;

    ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                  "\"llm_zone\" \"%V\" of %uzk has no room for %ui providers, "
                  "%ui routes and %ui observed servers: expected a larger "
                  "size, some 16k each",
                  &shm_zone->shm.name, shm_zone->shm.size / 1024,
                  mcf->providers.nelts, mcf->routes.nelts,
                  ngx_http_llm_observe_count(mcf));

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_llm_zone_create(ngx_shm_zone_t *shm_zone, ngx_slab_pool_t *shpool)
{
    size_t                     len;
    ngx_int_t                  nslots;
    ngx_http_llm_shctx_t      *sh;
    ngx_http_llm_main_conf_t  *mcf;

    /* two generations of workers live side by side during a reload */

    mcf = shm_zone->data;

    nslots = 2 * ngx_max(mcf->ccf->worker_processes, 1) + 2;
    nslots = ngx_min(ngx_max(nslots, 8), NGX_HTTP_LLM_MAX_SLOTS);

    len = sizeof(ngx_http_llm_shctx_t) + nslots * sizeof(sh->slots[0]);

    sh = ngx_slab_calloc(shpool, len);
    if (sh == NULL) {
        return NGX_ERROR;
    }

    sh->layout = NGX_HTTP_LLM_LAYOUT;
    sh->epoch = ngx_current_msec;
    sh->nslots = nslots;

    shpool->data = sh;

    shpool->log_nomem = 0;

    len = sizeof(" in llm_zone \"\"") + shm_zone->shm.name.len;

    shpool->log_ctx = ngx_slab_alloc(shpool, len);
    if (shpool->log_ctx == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(shpool->log_ctx, " in llm_zone \"%V\"%Z",
                &shm_zone->shm.name);

    return NGX_OK;
}


/*
 * The zone of the running configuration, where this one could not be used
 * as it is: its size is another, or the module was loaded anew.
 */

static ngx_http_llm_shctx_t *
ngx_http_llm_zone_previous(ngx_shm_zone_t *shm_zone)
{
    ngx_uint_t             i;
    ngx_list_part_t       *part;
    ngx_shm_zone_t        *zone;
    ngx_slab_pool_t       *shpool;
    ngx_http_llm_shctx_t  *sh;

    part = (ngx_list_part_t *) &ngx_cycle->shared_memory.part;
    zone = part->elts;

    for (i = 0; /* void */; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return NULL;
            }

            part = part->next;
            zone = part->elts;
            i = 0;
        }

        if (zone[i].shm.addr == NULL
            || zone[i].shm.addr == shm_zone->shm.addr
            || zone[i].shm.name.len != shm_zone->shm.name.len
            || ngx_strncmp(zone[i].shm.name.data, shm_zone->shm.name.data,
                           shm_zone->shm.name.len)
               != 0)
        {
            continue;
        }

        shpool = (ngx_slab_pool_t *) zone[i].shm.addr;
        sh = shpool->data;

        return (sh && sh->layout == NGX_HTTP_LLM_LAYOUT) ? sh : NULL;
    }
}


/*
 * Takes over what the providers and routes of this configuration have in
 * another zone.  Workers that still finish requests there are not heard
 * any more, so what they have in flight is settled here.
 */

static ngx_int_t
ngx_http_llm_zone_import(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_shctx_t *from)
{
    ngx_http_llm_record_t  *record, *old;

    mcf->sh->epoch = from->epoch;
    mcf->sh->generation = from->generation;

    mcf->sh->state.owner = from->state.owner + 1;
    mcf->sh->state.written = from->state.written;
    mcf->sh->state.current = from->state.current;
    mcf->sh->state.failures = from->state.failures;
    mcf->sh->state.error = from->state.error;

    for (old = from->records; old; old = old->next) {

        if (!ngx_http_llm_zone_configured(mcf, old->kind, &old->name)) {
            continue;
        }

        record = ngx_http_llm_record_get(mcf, shpool, old->kind, &old->name);
        if (record == NULL
            || ngx_http_llm_zone_import_record(mcf, shpool, record, old,
                                               from->nslots)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    ngx_log_error(NGX_LOG_NOTICE, mcf->shm_zone->shm.log, 0,
                  "llm zone \"%V\" is laid out anew, "
                  "circuits and counters are taken over",
                  &mcf->shm_zone->shm.name);

    return NGX_OK;
}


static ngx_uint_t
ngx_http_llm_zone_configured(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_kind_e kind, ngx_str_t *name)
{
    switch (kind) {

    case NGX_HTTP_LLM_PROVIDER:
        return ngx_http_llm_find_provider(mcf, name) != NULL;

    case NGX_HTTP_LLM_ROUTE:
        return ngx_http_llm_find_route(mcf, name) != NULL;

    default: /* NGX_HTTP_LLM_OBSERVED */
        return ngx_http_llm_observe_knows(mcf, name);
    }
}


/*
 * Word by word: the old workers go on, so what they have told comes before
 * what there was to tell.
 */

static ngx_int_t
ngx_http_llm_zone_import_record(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *record,
    ngx_http_llm_record_t *old, ngx_uint_t nslots)
{
    ngx_uint_t  i;

    record->told = old->told;

    ngx_memory_barrier();

    llm_circuit_copy(&record->circuit, &old->circuit);
    llm_history_copy(&record->history, &old->history);
    record->last_failure = old->last_failure;
    record->latency = old->latency;
    record->known = old->known;

    if (record->kind == NGX_HTTP_LLM_PROVIDER
        && ngx_http_llm_zone_import_provider(mcf, shpool, record, old)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < nslots; i++) {
        llm_counters_add(&record->counters[0], &old->counters[i]);
    }

    if (record->recent) {
        llm_recent_copy(record->recent, old->recent);
    }

    for (i = 0; record->usage && i < NGX_HTTP_LLM_STRIPES; i++) {
        llm_counters_add(&record->usage[i], &old->usage[i]);
    }

    if (record->kind == NGX_HTTP_LLM_ROUTE) {
        llm_counters_settle_route(&record->counters[0]);

        return ngx_http_llm_members_copy(mcf, shpool, record, old);
    }

    llm_counters_settle(&record->counters[0]);

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_zone_import_provider(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *record,
    ngx_http_llm_record_t *old)
{
    if (ngx_http_llm_record_limits(mcf, shpool, record) != NGX_OK) {
        return NGX_ERROR;
    }

    llm_histogram_copy(&record->times->duration, &old->times->duration);
    llm_histogram_copy(&record->times->first_token, &old->times->first_token);

    if (record->limits && old->limits) {
        llm_limits_copy(record->limits, old->limits);
    }

    if (ngx_http_llm_record_probe(mcf, shpool, record) != NGX_OK) {
        return NGX_ERROR;
    }

    if (record->probe && old->probe) {
        llm_probe_copy(record->probe, old->probe);
    }

    return NGX_OK;
}


/* The records of this configuration, found or made. */

static ngx_int_t
ngx_http_llm_zone_providers(ngx_shm_zone_t *shm_zone, ngx_slab_pool_t *shpool)
{
    ngx_http_llm_main_conf_t *mcf = shm_zone->data;

    ngx_uint_t                 i;
    ngx_http_llm_provider_t  **providerp;

    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {
        providerp[i]->record = ngx_http_llm_record_get(mcf, shpool,
                                                        NGX_HTTP_LLM_PROVIDER,
                                                        &providerp[i]->name);
        if (providerp[i]->record == NULL
            || ngx_http_llm_record_probe(mcf, shpool, providerp[i]->record)
               != NGX_OK)
        {
            return ngx_http_llm_zone_no_memory(shm_zone);
        }

        if (ngx_http_llm_record_limits(mcf, shpool, providerp[i]->record)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        providerp[i]->target->known = &providerp[i]->record->known;

        (void) ngx_http_llm_target_recall(providerp[i]->target);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_zone_routes(ngx_shm_zone_t *shm_zone, ngx_slab_pool_t *shpool)
{
    ngx_http_llm_main_conf_t *mcf = shm_zone->data;

    ngx_uint_t              i;
    ngx_http_llm_route_t  **routep;

    routep = mcf->routes.elts;

    for (i = 0; i < mcf->routes.nelts; i++) {
        routep[i]->record = ngx_http_llm_record_get(mcf, shpool,
                                                     NGX_HTTP_LLM_ROUTE,
                                                     &routep[i]->uscf->host);
        if (routep[i]->record == NULL
            || ngx_http_llm_members_init(shpool, routep[i]) != NGX_OK)
        {
            return ngx_http_llm_zone_no_memory(shm_zone);
        }
    }

    return NGX_OK;
}
