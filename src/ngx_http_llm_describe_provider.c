
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_describe.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_slot.h"


/* What is known of a provider. */


static void ngx_http_llm_describe_circuit(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider, json_t *o);
static void ngx_http_llm_describe_calls(uint64_t *calls, json_t *o);
static void ngx_http_llm_describe_breaks(uint64_t *usage, json_t *o);
static json_t *ngx_http_llm_describe_limits(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider);
static json_t *ngx_http_llm_describe_limit(uint64_t limit, uint64_t used);
static json_t *ngx_http_llm_describe_times(llm_histogram_t *h);


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


json_t *
ngx_http_llm_describe_provider(ngx_http_llm_main_conf_t *mcf, void *entry,
    ngx_uint_t changes)
{
    ngx_http_llm_provider_t *provider = entry;

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

    ngx_http_llm_probe_describe(provider, o);

    ngx_http_llm_describe_history(record, calls, changes, o);

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
