
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_resolve.h"

#include <jansson.h>


/*
 * What the circuits and counters say, as one tree, whatever format it is
 * shown in.  Reading changes nothing, and takes no lock that a request could
 * wait for.
 */


static json_t *ngx_http_llm_status_zone(ngx_http_llm_main_conf_t *mcf);
static void ngx_http_llm_status_circuit(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider, json_t *o);
static void ngx_http_llm_status_calls(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record, json_t *o);
static void ngx_http_llm_status_last(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record, json_t *o);
static void ngx_http_llm_status_usage(ngx_http_llm_record_t *record,
    json_t *o);
static json_t *ngx_http_llm_status_limits(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider);
static json_t *ngx_http_llm_status_limit(uint64_t limit, uint64_t used);
static json_t *ngx_http_llm_status_times(llm_histogram_t *h);
static json_t *ngx_http_llm_status_moves(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record);
static json_t *ngx_http_llm_status_changes(ngx_http_llm_record_t *record);
static json_t *ngx_http_llm_status_route(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_route_t *route);
static json_t *ngx_http_llm_status_counter(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record, unsigned what);
static json_t *ngx_http_llm_status_string(ngx_str_t *s);
static json_t *ngx_http_llm_status_seconds(uint64_t ms);
static json_t *ngx_http_llm_status_fine(uint64_t us);
static json_t *ngx_http_llm_status_share(uint64_t part, uint64_t whole);
static json_t *ngx_http_llm_status_money(ngx_http_llm_record_t *record,
    unsigned what);


json_t *
ngx_http_llm_status_tree(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_format_e format)
{
    json_t                    *o, *list;
    ngx_uint_t                 i;
    ngx_http_llm_route_t     **routep;
    ngx_http_llm_provider_t  **providerp;

    o = json_object();

    json_object_set_new(o, "module", json_string(NGX_HTTP_LLM_VERSION));
    json_object_set_new(o, "nginx", json_string(NGINX_VERSION));
    json_object_set_new(o, "time",
                        ngx_http_llm_status_time(ngx_http_llm_wall_clock()));
    json_object_set_new(o, "zone", ngx_http_llm_status_zone(mcf));

    list = json_array();
    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {
        json_array_append_new(list, ngx_http_llm_status_provider(mcf,
                                                     providerp[i], format));
    }

    json_object_set_new(o, "providers", list);

    list = json_array();
    routep = mcf->routes.elts;

    for (i = 0; i < mcf->routes.nelts; i++) {
        json_array_append_new(list, ngx_http_llm_status_route(mcf, routep[i]));
    }

    json_object_set_new(o, "routes", list);

    return o;
}


static json_t *
ngx_http_llm_status_zone(ngx_http_llm_main_conf_t *mcf)
{
    json_t           *o;
    ngx_shm_t        *shm;
    ngx_slab_pool_t  *shpool;

    shm = &mcf->shm_zone->shm;
    shpool = (ngx_slab_pool_t *) shm->addr;

    o = json_object();

    json_object_set_new(o, "name", ngx_http_llm_status_string(&shm->name));
    json_object_set_new(o, "size", json_integer(shm->size));
    json_object_set_new(o, "used", json_integer(shm->size - shpool->pfree
                                                            * ngx_pagesize));
    return o;
}


json_t *
ngx_http_llm_status_provider(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider, ngx_http_llm_format_e format)
{
    json_t                *o, *latency;
    ngx_http_llm_times_t  *times;

    o = json_object();

    json_object_set_new(o, "name", ngx_http_llm_status_string(&provider->name));

    ngx_http_llm_status_circuit(mcf, provider, o);
    ngx_http_llm_status_calls(mcf, provider->record, o);
    ngx_http_llm_status_last(mcf, provider->record, o);
    ngx_http_llm_status_usage(provider->record, o);

    times = provider->record->times;

    latency = ngx_http_llm_status_times(&times->duration);

    json_object_set_new(latency, "ewma",
                        ngx_http_llm_status_fine(llm_latency_average(
                                             &provider->record->latency)));
    json_object_set_new(o, "latency", latency);
    json_object_set_new(o, "first_token",
                        ngx_http_llm_status_times(&times->first_token));

    if (provider->limit.rpm || provider->limit.tpm
        || provider->limit.concurrency)
    {
        json_object_set_new(o, "limits",
                            ngx_http_llm_status_limits(mcf, provider));
    }

    json_object_set_new(o, "transitions",
                        json_integer(provider->record->history.next));
    json_object_set_new(o, "moves",
                        ngx_http_llm_status_moves(mcf, provider->record));

    /* a graph has no use for them, and they are many */

    if (format == NGX_HTTP_LLM_FORMAT_JSON) {
        json_object_set_new(o, "state_changes",
                            ngx_http_llm_status_changes(provider->record));
    }

    return o;
}


static void
ngx_http_llm_status_circuit(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider, json_t *o)
{
    uint64_t             left;
    llm_admin_t          admin;
    llm_circuit_view_t   view;

    llm_circuit_view(&provider->record->circuit, &provider->circuit,
                     ngx_http_llm_now(mcf), &view);

    admin = llm_circuit_admin_now(&provider->record->circuit,
                                  ngx_http_llm_time(mcf), &left);

    json_object_set_new(o, "state",
                        json_string(llm_circuit_state_name(view.state)));
    json_object_set_new(o, "admin", json_string(llm_admin_name(admin)));
    json_object_set_new(o, "admin_ttl",
                        left ? ngx_http_llm_status_seconds(left)
                             : json_null());
    json_object_set_new(o, "reason",
                        view.reason == LLM_REASON_NONE
                        ? json_null()
                        : json_string(llm_reason_name(view.reason)));
    ngx_http_llm_target_describe(provider->target, o);
    json_object_set_new(o, "failure_count", json_integer(view.failures));
    json_object_set_new(o, "success_count", json_integer(view.successes));
    json_object_set_new(o, "open_level", json_integer(view.level));
    json_object_set_new(o, "time_until_retry",
                        ngx_http_llm_status_seconds(view.retry));
    json_object_set_new(o, "throttled_for",
                        ngx_http_llm_status_seconds(view.throttled));
    json_object_set_new(o, "half_open_calls", json_integer(view.probes));
}


static void
ngx_http_llm_status_calls(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record, json_t *o)
{
    uint64_t     calls, rejected, successful, settled;
    ngx_uint_t   i, n;

    static struct {
        const char  *name;
        unsigned     counter;
    } fields[] = {
        { "total_calls", LLM_CALLS },
        { "successful_calls", LLM_CALLS_SUCCESSFUL },
        { "failed_calls", LLM_CALLS_FAILED },
        { "rejected_calls", LLM_CALLS_REJECTED },
        { "throttled_calls", LLM_CALLS_THROTTLED },
        { "neutral_calls", LLM_CALLS_NEUTRAL },
        { "late_calls", LLM_CALLS_LATE },
        { "stream_errors", LLM_STREAM_ERRORS },
        { "unreadable_frames", LLM_UNREADABLE_FRAMES }
    };

    n = mcf->sh->nslots;

    json_object_set_new(o, "in_flight",
                json_integer(llm_counters_in_flight(record->counters, n)));

    for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        json_object_set_new(o, fields[i].name,
                            json_integer(llm_counters_sum(record->counters, n,
                                                       fields[i].counter)));
    }

    calls = llm_counters_sum(record->counters, n, LLM_CALLS);
    rejected = llm_counters_sum(record->counters, n, LLM_CALLS_REJECTED);
    successful = llm_counters_sum(record->counters, n, LLM_CALLS_SUCCESSFUL);

    settled = successful
              + llm_counters_sum(record->counters, n, LLM_CALLS_FAILED);

    json_object_set_new(o, "success_rate",
                        settled ? ngx_http_llm_status_share(successful,
                                                            settled)
                                : json_real(1.0));
    json_object_set_new(o, "rejection_rate",
                        ngx_http_llm_status_share(rejected, calls + rejected));
}


static void
ngx_http_llm_status_last(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record, json_t *o)
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

    json_object_set_new(o, "last_success",
                        ngx_http_llm_status_time(
                            llm_counters_latest(record->counters,
                                                mcf->sh->nslots,
                                                LLM_LAST_SUCCESS)));
    json_object_set_new(o, "last_failure",
                        ngx_http_llm_status_time(failure >> 20));
    json_object_set_new(o, "last_error", error);
}


static void
ngx_http_llm_status_usage(ngx_http_llm_record_t *record, json_t *o)
{
    json_t      *object;
    ngx_uint_t   i;

    static struct {
        const char  *object;
        const char  *name;
        unsigned     counter;
    } fields[] = {
        { "tokens", "input", LLM_TOKENS_IN },
        { "tokens", "cached", LLM_TOKENS_CACHED },
        { "tokens", "cache_write", LLM_TOKENS_CACHE_WRITE },
        { "tokens", "output", LLM_TOKENS_OUT },
        { "tokens", "reasoning", LLM_TOKENS_REASONING },
        { "usage", "told", LLM_USAGE_TOLD },
        { "usage", "missing", LLM_USAGE_MISSING },
        { "usage", "bad", LLM_USAGE_BAD }
    };

    json_object_set_new(o, "tokens", json_object());
    json_object_set_new(o, "usage", json_object());

    for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        object = json_object_get(o, fields[i].object);

        json_object_set_new(object, fields[i].name,
                            json_integer(llm_counters_sum(record->usage,
                                                          NGX_HTTP_LLM_STRIPES,
                                                          fields[i].counter)));
    }

    json_object_set_new(o, "cost",
                        ngx_http_llm_status_money(record, LLM_COST));
}


/* of the limits that there are */

static json_t *
ngx_http_llm_status_limits(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider)
{
    json_t                *o;
    llm_limit_usage_t      usage;
    ngx_http_llm_limit_t  *limit;

    limit = &provider->limit;

    llm_limits_usage(provider->record->limits, ngx_http_llm_time(mcf), &usage);

    o = json_object();

    if (limit->rpm) {
        json_object_set_new(o, "rpm",
                            ngx_http_llm_status_limit(limit->rpm,
                                                      usage.requests));
    }

    if (limit->tpm) {
        json_object_set_new(o, "tpm",
                            ngx_http_llm_status_limit(limit->tpm,
                                                      usage.tokens));
    }

    if (limit->concurrency) {
        json_object_set_new(o, "concurrency",
                            ngx_http_llm_status_limit(limit->concurrency,
                                                      usage.in_flight));
    }

    return o;
}


static json_t *
ngx_http_llm_status_limit(uint64_t limit, uint64_t used)
{
    json_t  *o;

    o = json_object();

    json_object_set_new(o, "limit", json_integer(limit));
    json_object_set_new(o, "used", json_integer(used));

    return o;
}


/* of good answers, and their first tokens */

static json_t *
ngx_http_llm_status_times(llm_histogram_t *h)
{
    json_t      *o;
    ngx_uint_t   i;

    static struct {
        const char  *name;
        unsigned     thousandths;
    } fields[] = {
        { "p50", 500 },
        { "p95", 950 },
        { "p99", 990 }
    };

    o = json_object();

    for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        json_object_set_new(o, fields[i].name,
                            ngx_http_llm_status_fine(
                                llm_histogram_quantile(h,
                                                   fields[i].thousandths)));
    }

    return o;
}


/* { FROM: { TO: HOW OFTEN, ... }, ... } */

static json_t *
ngx_http_llm_status_moves(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record)
{
    json_t      *o, *moves;
    ngx_uint_t   from, to;

    moves = json_object();

    for (from = LLM_CIRCUIT_CLOSED; from <= LLM_CIRCUIT_HALF_OPEN; from++) {

        o = json_object();

        for (to = LLM_CIRCUIT_CLOSED; to <= LLM_CIRCUIT_HALF_OPEN; to++) {

            if (to != from) {
                json_object_set_new(o, llm_circuit_state_name(to),
                                    ngx_http_llm_status_counter(mcf, record,
                                                     llm_move(from, to)));
            }
        }

        json_object_set_new(moves, llm_circuit_state_name(from), o);
    }

    return moves;
}


static json_t *
ngx_http_llm_status_changes(ngx_http_llm_record_t *record)
{
    json_t               *list, *o;
    unsigned              i, n;
    llm_history_entry_t   entries[LLM_HISTORY];

    list = json_array();

    n = llm_history_read(&record->history, entries, LLM_HISTORY);

    for (i = 0; i < n; i++) {
        o = json_object();

        json_object_set_new(o, "time",
                            ngx_http_llm_status_time(entries[i].time));
        json_object_set_new(o, "from",
                      json_string(llm_circuit_state_name(entries[i].from)));
        json_object_set_new(o, "to",
                      json_string(llm_circuit_state_name(entries[i].to)));
        json_object_set_new(o, "reason",
                      json_string(llm_reason_name(entries[i].reason)));

        if (entries[i].status) {
            json_object_set_new(o, "status", json_integer(entries[i].status));
        }

        json_array_append_new(list, o);
    }

    return list;
}


static json_t *
ngx_http_llm_status_route(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_route_t *route)
{
    json_t                 *o, *list, *outcomes, *rejections;
    uint64_t                n, rejected;
    ngx_uint_t              i;
    ngx_http_llm_use_t     *use;
    ngx_http_llm_record_t  *record;

    o = json_object();
    list = json_array();

    use = route->uses.elts;

    for (i = 0; i < route->uses.nelts; i++) {
        json_array_append_new(list, ngx_http_llm_status_string(&use[i].name));
    }

    record = route->record;

    outcomes = json_object();

    for (i = LLM_OUTCOME_OK; i <= LLM_OUTCOME_CACHED; i++) {
        json_object_set_new(outcomes,
                            ngx_http_llm_outcome(i - LLM_OUTCOME_OK
                                                 + NGX_HTTP_LLM_OUTCOME_OK),
                            ngx_http_llm_status_counter(mcf, record, i));
    }

    rejections = json_object();
    rejected = 0;

    for (i = LLM_REJECTED_CIRCUITS; i <= LLM_REJECTED_REQUEST; i++) {
        n = llm_counters_sum(record->counters, mcf->sh->nslots, i);
        rejected += n;

        json_object_set_new(rejections, ngx_http_llm_rejection(i),
                            json_integer(n));
    }

    json_object_set_new(o, "name",
                        ngx_http_llm_status_string(&route->uscf->host));
    json_object_set_new(o, "providers", list);
    json_object_set_new(o, "requests",
                        ngx_http_llm_status_counter(mcf, record,
                                                    LLM_REQUESTS));
    json_object_set_new(o, "waited",
                        ngx_http_llm_status_counter(mcf, record,
                                                    LLM_REQUESTS_WAITED));
    json_object_set_new(o, "failovers",
                        ngx_http_llm_status_counter(mcf, record,
                                                    LLM_FAILOVERS));
    json_object_set_new(o, "rejected", json_integer(rejected));
    json_object_set_new(o, "rejections", rejections);
    json_object_set_new(o, "outcomes", outcomes);

    ngx_http_llm_status_usage(route->record, o);

    json_object_set_new(o, "saved",
                        ngx_http_llm_status_money(route->record,
                                                  LLM_COST_SAVED));
    json_object_set_new(o, "added",
                        ngx_http_llm_status_money(route->record,
                                                  LLM_COST_ADDED));
    return o;
}


static json_t *
ngx_http_llm_status_counter(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record, unsigned what)
{
    return json_integer(llm_counters_sum(record->counters, mcf->sh->nslots,
                                         what));
}


/* ISO 8601 in UTC; null for never */

json_t *
ngx_http_llm_status_time(uint64_t ms)
{
    ngx_tm_t  tm;

    if (ms == 0) {
        return json_null();
    }

    ngx_gmtime((time_t) (ms / 1000), &tm);

    return json_sprintf("%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
                        (int) tm.ngx_tm_year, (int) tm.ngx_tm_mon,
                        (int) tm.ngx_tm_mday, (int) tm.ngx_tm_hour,
                        (int) tm.ngx_tm_min, (int) tm.ngx_tm_sec,
                        (int) (ms % 1000));
}


/*
 * Names come from the configuration and may be in any encoding, but JSON is
 * UTF-8: every byte that is none stands as U+FFFD.
 */

static json_t *
ngx_http_llm_status_string(ngx_str_t *s)
{
    size_t   n, left;
    u_char  *text, *dst, *src, *last;
    json_t  *string;

    string = json_stringn((char *) s->data, s->len);

    if (string) {
        return string;
    }

    text = ngx_alloc(3 * s->len, ngx_cycle->log);
    if (text == NULL) {
        return NULL;
    }

    dst = text;
    last = s->data + s->len;

    for (src = s->data; src < last; src += n) {

        left = ngx_min(4, last - src);

        for (n = 1; n <= left; n++) {

            string = json_stringn((char *) src, n);

            if (string) {
                break;
            }
        }

        if (string) {
            json_decref(string);
            dst = ngx_cpymem(dst, src, n);

        } else {
            dst = ngx_cpymem(dst, "\xef\xbf\xbd", 3);
            n = 1;
        }
    }

    string = json_stringn((char *) text, dst - text);

    ngx_free(text);

    return string;
}


static json_t *
ngx_http_llm_status_seconds(uint64_t ms)
{
    return json_real((double) ms / 1000);
}


static json_t *
ngx_http_llm_status_fine(uint64_t us)
{
    return json_real((double) us / 1000000);
}


/* a millionth is exact enough */

static json_t *
ngx_http_llm_status_share(uint64_t part, uint64_t whole)
{
    double  millionths;

    millionths = whole ? (double) part / whole * 1000000 : 0;

    return json_real((double) (uint64_t) (millionths + 0.5) / 1000000);
}


/* USD; the double that is nearest to the sum, of which all digits are told */

static json_t *
ngx_http_llm_status_money(ngx_http_llm_record_t *record, unsigned what)
{
    char  text[LLM_PRICE_TEXT];

    llm_price_format(llm_counters_sum(record->usage, NGX_HTTP_LLM_STRIPES,
                                      what),
                     text);

    return json_real(strtod(text, NULL));
}
