
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_describe.h"
#include "ngx_http_llm_observe.h"
#include "ngx_http_llm_slot.h"


/* What the circuits of observed servers would have done, for the status. */


static json_t *ngx_http_llm_observed_server(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_observed_t *observed, ngx_http_llm_observed_peer_t *peer,
    ngx_uint_t changes);
static void ngx_http_llm_observed_circuit(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_observed_t *observed, ngx_http_llm_record_t *record,
    json_t *o);
static void ngx_http_llm_observed_calls(uint64_t *calls, json_t *o);


ngx_int_t
ngx_http_llm_describe_observed(ngx_http_llm_page_t *page,
    ngx_http_llm_format_t *format, ngx_pool_t *pool, ngx_uint_t changes)
{
    ngx_uint_t                     i, n, count;
    ngx_http_llm_observed_t       *observed;
    ngx_http_llm_observed_peer_t  *peer;

    if (format->list(page, "observed") != NGX_OK) {
        return NGX_ERROR;
    }

    count = 0;
    observed = page->mcf->observed.elts;

    for (i = 0; i < page->mcf->observed.nelts; i++) {

        peer = observed[i].peers.elts;

        for (n = 0; n < observed[i].peers.nelts; n++) {

            ngx_reset_pool(pool);

            if (format->entry(page, count++,
                              ngx_http_llm_observed_server(page->mcf,
                                                           &observed[i],
                                                           &peer[n], changes))
                != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


static json_t *
ngx_http_llm_observed_server(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_observed_t *observed, ngx_http_llm_observed_peer_t *peer,
    ngx_uint_t changes)
{
    json_t                 *o;
    uint64_t                calls[LLM_COUNTERS];
    ngx_http_llm_record_t  *record;

    record = peer->record;

    llm_counters_total(record->counters, mcf->sh->nslots, calls);

    o = json_object();

    ngx_http_llm_set(o, "upstream", ngx_http_llm_tree_string(&observed->name));
    ngx_http_llm_set(o, "server", ngx_http_llm_tree_string(&peer->name));

    ngx_http_llm_observed_circuit(mcf, observed, record, o);
    ngx_http_llm_observed_calls(calls, o);
    ngx_http_llm_describe_last(record, calls, o);

    ngx_http_llm_describe_history(record, calls, changes, o);

    return o;
}


static void
ngx_http_llm_observed_circuit(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_observed_t *observed, ngx_http_llm_record_t *record,
    json_t *o)
{
    llm_circuit_view_t  view;

    llm_circuit_view(&record->circuit, observed->circuit,
                     ngx_http_llm_now(mcf), &view);

    ngx_http_llm_set(o, "state",
                     json_string(llm_circuit_state_name(view.state)));
    ngx_http_llm_set(o, "reason",
                     view.reason == LLM_REASON_NONE
                     ? json_null()
                     : json_string(llm_reason_name(view.reason)));
    ngx_http_llm_set(o, "failure_count", json_integer(view.failures));
    ngx_http_llm_set(o, "success_count", json_integer(view.successes));
    ngx_http_llm_set(o, "time_until_retry",
                     ngx_http_llm_tree_seconds(view.retry));
}


static void
ngx_http_llm_observed_calls(uint64_t *calls, json_t *o)
{
    ngx_uint_t  i;

    static struct {
        const char  *name;
        unsigned     counter;
    } fields[] = {
        { "total_calls", LLM_CALLS },
        { "successful_calls", LLM_CALLS_SUCCESSFUL },
        { "failed_calls", LLM_CALLS_FAILED },
        { "throttled_calls", LLM_CALLS_THROTTLED },
        { "neutral_calls", LLM_CALLS_NEUTRAL },
        { "would_reject", LLM_CALLS_REJECTED },
        { "would_reject_good", LLM_CALLS_REJECTED_GOOD }
    };

    ngx_http_llm_set(o, "in_flight",
                     json_integer(llm_counters_in_flight(calls)));

    for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        ngx_http_llm_set(o, fields[i].name,
                         json_integer(calls[fields[i].counter]));
    }
}
