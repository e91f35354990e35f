
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_member.h"
#include "ngx_http_llm_resolve.h"
#include "ngx_http_llm_tree.h"


/*
 * What the circuits and counters say, as trees, whatever format they are
 * shown in.  Reading changes nothing, and takes no lock that a request could
 * wait for.
 */


/* changes of state on a page, of all providers together */

#define NGX_HTTP_LLM_DESCRIBE_CHANGES  2048

#define NGX_HTTP_LLM_DESCRIBE_POOL     16384


/* a counter, and where it stands */

typedef struct {
    const char  *object;                          /* NULL: not in one */
    const char  *name;
    unsigned     counter;
} ngx_http_llm_field_t;


static ngx_int_t ngx_http_llm_describe_all(ngx_http_llm_page_t *page,
    ngx_http_llm_format_t *format, ngx_pool_t *pool, ngx_uint_t changes);
static json_t *ngx_http_llm_describe_head(ngx_http_llm_main_conf_t *mcf);
static json_t *ngx_http_llm_describe_zone(ngx_http_llm_main_conf_t *mcf);
static json_t *ngx_http_llm_describe_file(ngx_http_llm_main_conf_t *mcf);
static void ngx_http_llm_describe_circuit(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider, json_t *o);
static void ngx_http_llm_describe_calls(uint64_t *calls, json_t *o);
static void ngx_http_llm_describe_breaks(uint64_t *usage, json_t *o);
static void ngx_http_llm_describe_usage(uint64_t *usage, json_t *o);
static void ngx_http_llm_describe_fields(ngx_http_llm_field_t *fields,
    ngx_uint_t n, uint64_t *total, json_t *o);
static json_t *ngx_http_llm_describe_limits(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider);
static json_t *ngx_http_llm_describe_limit(uint64_t limit, uint64_t used);
static json_t *ngx_http_llm_describe_times(llm_histogram_t *h);
static json_t *ngx_http_llm_describe_route(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_route_t *route);
static uint64_t ngx_http_llm_describe_rejections(uint64_t *requests, json_t *o);
static json_t *ngx_http_llm_describe_failovers(ngx_http_llm_record_t *route);


static ngx_http_llm_field_t  ngx_http_llm_describe_call_fields[] = {
    { NULL, "total_calls", LLM_CALLS },
    { NULL, "successful_calls", LLM_CALLS_SUCCESSFUL },
    { NULL, "failed_calls", LLM_CALLS_FAILED },
    { NULL, "rejected_calls", LLM_CALLS_REJECTED },
    { NULL, "throttled_calls", LLM_CALLS_THROTTLED },
    { NULL, "neutral_calls", LLM_CALLS_NEUTRAL },
    { NULL, "late_calls", LLM_CALLS_LATE },
    { NULL, "unreadable_frames", LLM_UNREADABLE_FRAMES }
};


static ngx_http_llm_field_t  ngx_http_llm_describe_break_fields[] = {
    { "stream_failures", "broken_off", LLM_STREAM_BROKEN },
    { "stream_failures", "stalled", LLM_STREAM_STALLED },
    { "stream_failures", "error_event", LLM_STREAM_ERROR_EVENT }
};


static ngx_http_llm_field_t  ngx_http_llm_describe_usage_fields[] = {
    { "tokens", "input", LLM_TOKENS_IN },
    { "tokens", "cached", LLM_TOKENS_CACHED },
    { "tokens", "cache_write", LLM_TOKENS_CACHE_WRITE },
    { "tokens", "output", LLM_TOKENS_OUT },
    { "tokens", "reasoning", LLM_TOKENS_REASONING },
    { "usage", "told", LLM_USAGE_TOLD },
    { "usage", "missing", LLM_USAGE_MISSING },
    { "usage", "bad", LLM_USAGE_BAD }
};


/* Each piece's memory is free again when the next one is made. */

ngx_int_t
ngx_http_llm_describe(ngx_http_llm_page_t *page,
    ngx_http_llm_format_t *format, ngx_uint_t changes)
{
    ngx_int_t    rc;
    ngx_pool_t  *pool;

    pool = ngx_create_pool(NGX_HTTP_LLM_DESCRIBE_POOL, page->text.pool->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    ngx_http_llm_tree_begin(pool);

    rc = ngx_http_llm_describe_all(page, format, pool, changes);

    ngx_http_llm_tree_end();

    ngx_destroy_pool(pool);

    return rc;
}


static ngx_int_t
ngx_http_llm_describe_all(ngx_http_llm_page_t *page,
    ngx_http_llm_format_t *format, ngx_pool_t *pool, ngx_uint_t changes)
{
    ngx_uint_t                 i;
    ngx_http_llm_route_t     **routep;
    ngx_http_llm_provider_t  **providerp;

    if (format->head(page, ngx_http_llm_describe_head(page->mcf)) != NGX_OK
        || format->list(page, "providers") != NGX_OK)
    {
        return NGX_ERROR;
    }

    changes = ngx_min(changes, NGX_HTTP_LLM_DESCRIBE_CHANGES
                               / ngx_max(page->mcf->providers.nelts
                                         + page->mcf->observed.nelts, 1));

    providerp = page->mcf->providers.elts;

    for (i = 0; i < page->mcf->providers.nelts; i++) {

        ngx_reset_pool(pool);

        if (format->entry(page, i,
                          ngx_http_llm_describe_provider(page->mcf,
                                                         providerp[i], changes))
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (format->list(page, "routes") != NGX_OK) {
        return NGX_ERROR;
    }

    routep = page->mcf->routes.elts;

    for (i = 0; i < page->mcf->routes.nelts; i++) {

        ngx_reset_pool(pool);

        if (format->entry(page, i,
                          ngx_http_llm_describe_route(page->mcf, routep[i]))
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ngx_http_llm_describe_observed(page, format, pool, changes) != NGX_OK) {
        return NGX_ERROR;
    }

    return format->end(page);
}


static json_t *
ngx_http_llm_describe_head(ngx_http_llm_main_conf_t *mcf)
{
    json_t  *o;

    o = json_object();

    ngx_http_llm_set(o, "module", json_string(NGX_HTTP_LLM_VERSION));
    ngx_http_llm_set(o, "nginx", json_string(NGINX_VERSION));
    ngx_http_llm_set(o, "time",
                     ngx_http_llm_tree_time(ngx_http_llm_wall_clock()));
    ngx_http_llm_set(o, "zone", ngx_http_llm_describe_zone(mcf));

    return o;
}


static json_t *
ngx_http_llm_describe_zone(ngx_http_llm_main_conf_t *mcf)
{
    json_t           *o;
    ngx_shm_t        *shm;
    ngx_slab_pool_t  *shpool;

    shm = &mcf->shm_zone->shm;
    shpool = (ngx_slab_pool_t *) shm->addr;

    o = json_object();

    ngx_http_llm_set(o, "name", ngx_http_llm_tree_string(&shm->name));
    ngx_http_llm_set(o, "size", json_integer(shm->size));
    ngx_http_llm_set(o, "used", json_integer(shm->size - shpool->pfree
                     * ngx_pagesize));
    ngx_http_llm_set(o, "state", ngx_http_llm_describe_file(mcf));

    return o;
}


static json_t *
ngx_http_llm_describe_file(ngx_http_llm_main_conf_t *mcf)
{
    json_t     *o;
    ngx_err_t   err;

    if (mcf->state.len == 0) {
        return json_null();
    }

    err = mcf->sh->state.error;

    o = json_object();

    ngx_http_llm_set(o, "written",
                     ngx_http_llm_tree_time(mcf->sh->state.written));
    ngx_http_llm_set(o, "error",
                     err ? json_string(strerror(err)) : json_null());

    return o;
}


json_t *
ngx_http_llm_describe_provider(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider, ngx_uint_t changes)
{
    json_t                 *o, *latency;
    uint64_t                calls[LLM_COUNTERS], usage[LLM_COUNTERS];
    ngx_http_llm_record_t  *record;

    record = provider->record;

    llm_counters_total(record->counters, mcf->sh->nslots, calls);
    llm_counters_total(record->usage, NGX_HTTP_LLM_STRIPES, usage);

    o = json_object();

    ngx_http_llm_set(o, "name", ngx_http_llm_tree_string(&provider->name));

    ngx_http_llm_describe_circuit(mcf, provider, o);
    ngx_http_llm_describe_calls(calls, o);
    ngx_http_llm_describe_breaks(usage, o);
    ngx_http_llm_describe_last(record, calls, o);
    ngx_http_llm_describe_usage(usage, o);

    latency = ngx_http_llm_describe_times(&record->times->duration);

    ngx_http_llm_set(latency, "ewma",
                     ngx_http_llm_tree_fine(
                         llm_latency_average(&record->latency)));

    ngx_http_llm_set(o, "latency", latency);
    ngx_http_llm_set(o, "first_token",
                     ngx_http_llm_describe_times(&record->times->first_token));

    if (provider->limit.rpm || provider->limit.tpm
        || provider->limit.concurrency)
    {
        ngx_http_llm_set(o, "limits",
                         ngx_http_llm_describe_limits(mcf, provider));
    }

    ngx_http_llm_set(o, "transitions", json_integer(record->history.next));
    ngx_http_llm_set(o, "moves", ngx_http_llm_describe_moves(calls));

    if (changes) {
        ngx_http_llm_set(o, "state_changes",
                         ngx_http_llm_describe_changes(record, changes));
    }

    return o;
}


static void
ngx_http_llm_describe_circuit(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider, json_t *o)
{
    uint64_t             left;
    llm_admin_t          admin;
    llm_circuit_view_t   view;

    llm_circuit_view(&provider->record->circuit, &provider->circuit,
                     ngx_http_llm_now(mcf), &view);

    admin = llm_circuit_admin_now(&provider->record->circuit,
                                  ngx_http_llm_time(mcf), &left);

    ngx_http_llm_set(o, "state",
                     json_string(llm_circuit_state_name(view.state)));
    ngx_http_llm_set(o, "admin", json_string(llm_admin_name(admin)));
    ngx_http_llm_set(o, "admin_ttl",
                     left ? ngx_http_llm_tree_seconds(left)
                          : json_null());
    ngx_http_llm_set(o, "reason",
                     view.reason == LLM_REASON_NONE
                     ? json_null()
                     : json_string(llm_reason_name(view.reason)));
    ngx_http_llm_target_describe(provider->target, o);
    ngx_http_llm_set(o, "failure_count", json_integer(view.failures));
    ngx_http_llm_set(o, "success_count", json_integer(view.successes));
    ngx_http_llm_set(o, "open_level", json_integer(view.level));
    ngx_http_llm_set(o, "time_until_retry",
                     ngx_http_llm_tree_seconds(view.retry));
    ngx_http_llm_set(o, "throttled_for",
                     ngx_http_llm_tree_seconds(view.throttled));
    ngx_http_llm_set(o, "half_open_calls", json_integer(view.probes));
}


static void
ngx_http_llm_describe_calls(uint64_t *calls, json_t *o)
{
    uint64_t  rejected, successful, settled;

    ngx_http_llm_set(o, "in_flight",
                     json_integer(llm_counters_in_flight(calls)));

    ngx_http_llm_describe_fields(ngx_http_llm_describe_call_fields,
                                 sizeof(ngx_http_llm_describe_call_fields)
                                 / sizeof(ngx_http_llm_field_t),
                                 calls, o);

    rejected = calls[LLM_CALLS_REJECTED];
    successful = calls[LLM_CALLS_SUCCESSFUL];
    settled = successful + calls[LLM_CALLS_FAILED];

    ngx_http_llm_set(o, "success_rate",
                     settled ? ngx_http_llm_tree_share(successful, settled)
                             : json_real(1.0));
    ngx_http_llm_set(o, "rejection_rate",
                     ngx_http_llm_tree_share(rejected,
                                             calls[LLM_CALLS] + rejected));
}


void
ngx_http_llm_describe_last(ngx_http_llm_record_t *record, uint64_t *calls,
    json_t *o)
{
    json_t      *error;
    uint64_t     failure;
    ngx_uint_t   status, fault;

    failure = record->last_failure;

    status = failure >> 8 & 0xfff;
    fault = failure & 0xff;

    error = json_null();

    if (failure) {
        error = status ? json_sprintf("status %d", (int) status)
                       : json_string(ngx_http_llm_fault(fault));
    }

    ngx_http_llm_set(o, "last_success",
                     ngx_http_llm_tree_time(calls[LLM_LAST_SUCCESS]));
    ngx_http_llm_set(o, "last_failure", ngx_http_llm_tree_time(failure >> 20));
    ngx_http_llm_set(o, "last_error", error);
}


/* answers that broke behind their commit: how many, and why */

static void
ngx_http_llm_describe_breaks(uint64_t *usage, json_t *o)
{
    uint64_t              all;
    ngx_uint_t            i, n;
    ngx_http_llm_field_t  *field;

    field = ngx_http_llm_describe_break_fields;
    n = sizeof(ngx_http_llm_describe_break_fields)
        / sizeof(ngx_http_llm_field_t);

    all = 0;

    for (i = 0; i < n; i++) {
        all += usage[field[i].counter];
    }

    ngx_http_llm_set(o, "stream_errors", json_integer(all));

    ngx_http_llm_describe_fields(field, n, usage, o);
}


static void
ngx_http_llm_describe_usage(uint64_t *usage, json_t *o)
{
    ngx_http_llm_describe_fields(ngx_http_llm_describe_usage_fields,
                                 sizeof(ngx_http_llm_describe_usage_fields)
                                 / sizeof(ngx_http_llm_field_t),
                                 usage, o);

    ngx_http_llm_set(o, "cost", ngx_http_llm_tree_money(usage[LLM_COST]));
}


static void
ngx_http_llm_describe_fields(ngx_http_llm_field_t *fields, ngx_uint_t n,
    uint64_t *total, json_t *o)
{
    json_t      *object;
    ngx_uint_t   i;

    object = o;

    for (i = 0; i < n; i++) {

        if (fields[i].object
            && (i == 0 || fields[i].object != fields[i - 1].object))
        {
            object = json_object();
            ngx_http_llm_set(o, fields[i].object, object);
        }

        ngx_http_llm_set(object, fields[i].name,
                         json_integer(total[fields[i].counter]));
    }
}


/* of the limits that there are */

static json_t *
ngx_http_llm_describe_limits(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider)
{
    json_t                *o;
    llm_limit_usage_t      usage;
    ngx_http_llm_limit_t  *limit;

    limit = &provider->limit;

    llm_limits_usage(provider->record->limits, ngx_http_llm_time(mcf), &usage);

    o = json_object();

    if (limit->rpm) {
        ngx_http_llm_set(o, "rpm",
                         ngx_http_llm_describe_limit(limit->rpm,
                                                   usage.requests));
    }

    if (limit->tpm) {
        ngx_http_llm_set(o, "tpm",
                         ngx_http_llm_describe_limit(limit->tpm,
                                                   usage.tokens));
    }

    if (limit->concurrency) {
        ngx_http_llm_set(o, "concurrency",
                         ngx_http_llm_describe_limit(limit->concurrency,
                                                   usage.in_flight));
    }

    return o;
}


static json_t *
ngx_http_llm_describe_limit(uint64_t limit, uint64_t used)
{
    json_t  *o;

    o = json_object();

    ngx_http_llm_set(o, "limit", json_integer(limit));
    ngx_http_llm_set(o, "used", json_integer(used));

    return o;
}


/* of good answers, and their first tokens */

static json_t *
ngx_http_llm_describe_times(llm_histogram_t *h)
{
    json_t                *o;
    ngx_uint_t             i;
    llm_histogram_view_t   view;

    static struct {
        const char  *name;
        unsigned     thousandths;
    } fields[] = {
        { "p50", 500 },
        { "p95", 950 },
        { "p99", 990 }
    };

    llm_histogram_view(h, &view);

    o = json_object();

    for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        ngx_http_llm_set(o, fields[i].name,
                         ngx_http_llm_tree_fine(
                             llm_histogram_quantile(&view,
                                                    fields[i].thousandths)));
    }

    return o;
}


/* { FROM: { TO: HOW OFTEN, ... }, ... } */

json_t *
ngx_http_llm_describe_moves(uint64_t *calls)
{
    json_t      *o, *moves;
    ngx_uint_t   from, to;

    moves = json_object();

    for (from = LLM_CIRCUIT_CLOSED; from <= LLM_CIRCUIT_HALF_OPEN; from++) {

        o = json_object();

        for (to = LLM_CIRCUIT_CLOSED; to <= LLM_CIRCUIT_HALF_OPEN; to++) {

            if (to != from) {
                ngx_http_llm_set(o, llm_circuit_state_name(to),
                                 json_integer(calls[llm_move(from, to)]));
            }
        }

        ngx_http_llm_set(moves, llm_circuit_state_name(from), o);
    }

    return moves;
}


json_t *
ngx_http_llm_describe_changes(ngx_http_llm_record_t *record, ngx_uint_t n)
{
    json_t               *list, *o;
    unsigned              i;
    llm_history_entry_t   entries[LLM_HISTORY];

    list = json_array();

    n = llm_history_read(&record->history, entries, n);

    for (i = 0; i < n; i++) {
        o = json_object();

        ngx_http_llm_set(o, "time", ngx_http_llm_tree_time(entries[i].time));
        ngx_http_llm_set(o, "from",
                         json_string(llm_circuit_state_name(entries[i].from)));
        ngx_http_llm_set(o, "to",
                         json_string(llm_circuit_state_name(entries[i].to)));
        ngx_http_llm_set(o, "reason",
                         json_string(llm_reason_name(entries[i].reason)));

        if (entries[i].status) {
            ngx_http_llm_set(o, "status", json_integer(entries[i].status));
        }

        json_array_append_new(list, o);
    }

    return list;
}


static json_t *
ngx_http_llm_describe_route(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_route_t *route)
{
    json_t                 *o, *list, *outcomes, *rejections;
    uint64_t                requests[LLM_COUNTERS], usage[LLM_COUNTERS];
    uint64_t                rejected;
    ngx_uint_t              i;
    ngx_http_llm_use_t     *use;
    ngx_http_llm_record_t  *record;

    record = route->record;

    llm_counters_total(record->counters, mcf->sh->nslots, requests);
    llm_counters_total(record->usage, NGX_HTTP_LLM_STRIPES, usage);

    list = json_array();
    use = route->uses.elts;

    for (i = 0; i < route->uses.nelts; i++) {
        json_array_append_new(list, ngx_http_llm_tree_string(&use[i].name));
    }

    outcomes = json_object();

    for (i = LLM_OUTCOME_OK; i <= LLM_OUTCOME_CACHED; i++) {
        ngx_http_llm_set(outcomes,
                         ngx_http_llm_outcome(i - LLM_OUTCOME_OK
                                              + NGX_HTTP_LLM_OUTCOME_OK),
                         json_integer(requests[i]));
    }

    rejections = json_object();
    rejected = ngx_http_llm_describe_rejections(requests, rejections);

    o = json_object();

    ngx_http_llm_set(o, "name", ngx_http_llm_tree_string(&route->uscf->host));
    ngx_http_llm_set(o, "providers", list);
    ngx_http_llm_set(o, "requests", json_integer(requests[LLM_REQUESTS]));
    ngx_http_llm_set(o, "waited", json_integer(requests[LLM_REQUESTS_WAITED]));
    ngx_http_llm_set(o, "failovers", json_integer(requests[LLM_FAILOVERS]));
    ngx_http_llm_set(o, "failovers_from",
                     ngx_http_llm_describe_failovers(record));
    ngx_http_llm_set(o, "rejected", json_integer(rejected));
    ngx_http_llm_set(o, "rejections", rejections);
    ngx_http_llm_set(o, "outcomes", outcomes);

    ngx_http_llm_describe_usage(usage, o);

    ngx_http_llm_set(o, "saved",
                     ngx_http_llm_tree_money(usage[LLM_COST_SAVED]));
    ngx_http_llm_set(o, "added",
                     ngx_http_llm_tree_money(usage[LLM_COST_ADDED]));

    return o;
}


static uint64_t
ngx_http_llm_describe_rejections(uint64_t *requests, json_t *o)
{
    uint64_t    all;
    ngx_uint_t  i;

    all = 0;

    for (i = LLM_REJECTED_CIRCUITS; i <= LLM_REJECTED_REQUEST; i++) {
        all += requests[i];

        ngx_http_llm_set(o, ngx_http_llm_rejection(i),
                         json_integer(requests[i]));
    }

    return all;
}


/* { FROM: { TO: HOW OFTEN, ... }, ... } */

static json_t *
ngx_http_llm_describe_failovers(ngx_http_llm_record_t *route)
{
    json_t                   *from, *o;
    ngx_http_llm_member_t    *member;
    ngx_http_llm_failover_t  *failover;

    from = json_object();

    for (member = route->members; member; member = member->next) {

        if (member->failovers == NULL) {
            continue;
        }

        o = json_object();

        for (failover = member->failovers; failover; failover = failover->next)
        {
            ngx_http_llm_set(o, (char *) failover->to->name,
                             json_integer(failover->count));
        }

        ngx_http_llm_set(from, (char *) member->name, o);
    }

    return from;
}
