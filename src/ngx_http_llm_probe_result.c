
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_describe.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_probe.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_slot.h"

#include "llm_reply.h"


/*
 * What came of a probe: the circuit learns of it, it is kept in the zone, and
 * the log tells what is news.
 */


#define NGX_HTTP_LLM_PROBE_TEXT   256

/* for another worker to send the next probe, where this one is killed */
#define NGX_HTTP_LLM_PROBE_GRACE  5000            /* ms */


static void ngx_http_llm_probe_judge(ngx_http_llm_probe_t *probe,
    ngx_http_llm_curl_result_t *result, llm_reply_verdict_t *verdict);
static ngx_uint_t ngx_http_llm_probe_expected(ngx_http_llm_probe_t *probe,
    ngx_uint_t status);
static void ngx_http_llm_probe_tell(ngx_http_llm_probe_t *probe,
    ngx_http_llm_curl_result_t *result, llm_probe_last_t *last,
    llm_probe_last_t *before);
static json_t *ngx_http_llm_probe_share(llm_probe_share_t share);


ngx_uint_t
ngx_http_llm_probe_result(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_probe_t *probe, ngx_http_llm_curl_result_t *result)
{
    bool                      late;
    llm_transition_t          tr;
    llm_probe_last_t          last, before;
    llm_reply_verdict_t       verdict;
    ngx_http_llm_provider_t  *provider;

    provider = probe->provider;

    ngx_http_llm_probe_judge(probe, result, &verdict);

    last.result = verdict.result;
    last.status = result->status;
    last.fault = result->fault;
    last.latency = (uint32_t) (result->total / 1000);
    last.time = ngx_time();

    (void) llm_probe_last(provider->record->probe, &before);

    llm_probe_add(provider->record->probe, &last);

    ngx_http_llm_probe_tell(probe, result, &last, &before);

    (void) llm_circuit_probe_report(&provider->record->circuit,
                                    &provider->circuit, &probe->token,
                                    verdict.class, probe->passive,
                                    result->hint ? result->hint
                                                 : verdict.retry,
                                    probe->interval + probe->timeout
                                    + NGX_HTTP_LLM_PROBE_GRACE,
                                    ngx_http_llm_now(mcf),
                                    (uint32_t) ngx_random() << 1, &late, &tr);

    ngx_http_llm_transition(ngx_cycle->log, provider, &tr, result->status);

    ngx_http_llm_wake();

    return last.result == LLM_PROBE_SUCCESS;
}


static void
ngx_http_llm_probe_judge(ngx_http_llm_probe_t *probe,
    ngx_http_llm_curl_result_t *result, llm_reply_verdict_t *verdict)
{
    ngx_uint_t                status;
    llm_reply_t               reply;
    ngx_http_llm_provider_t  *provider;

    provider = probe->provider;
    status = result->status;

    if (result->fault != NGX_HTTP_LLM_FAULT_NONE) {
        verdict->result = LLM_PROBE_FAILURE;
        verdict->class = LLM_CLASS_FAILURE;
        verdict->retry = 0;
        return;
    }

    reply.status = status;
    reply.expected = ngx_http_llm_probe_expected(probe, status);
    reply.class = (provider->classes && status <= 599)
                   ? provider->classes[status] : -1;
    reply.own_key = provider->own_key;
    reply.strict = probe->passive;
    reply.body = result->body.data;
    reply.len = result->body.len;

    *verdict = llm_reply_judge(&reply);

    if (verdict->result != LLM_PROBE_SUCCESS) {
        result->fault = NGX_HTTP_LLM_FAULT_STATUS;
    }
}


static ngx_uint_t
ngx_http_llm_probe_expected(ngx_http_llm_probe_t *probe, ngx_uint_t status)
{
    ngx_uint_t                    i;
    ngx_http_llm_probe_expect_t  *expect;

    expect = probe->expects.elts;

    for (i = 0; i < probe->expects.nelts; i++) {
        if (status >= expect[i].first && status <= expect[i].last) {
            return 1;
        }
    }

    return 0;
}


/* News, and what is said again. */

static void
ngx_http_llm_probe_tell(ngx_http_llm_probe_t *probe,
    ngx_http_llm_curl_result_t *result, llm_probe_last_t *last,
    llm_probe_last_t *before)
{
    u_char      *p, *end, text[NGX_HTTP_LLM_PROBE_TEXT];
    ngx_uint_t   level;

    p = text;
    end = text + sizeof(text);

    if (last->result == LLM_PROBE_SUCCESS) {
        p = ngx_slprintf(p, end, "status %ui in %uD.%03uDs", result->status,
                         last->latency / 1000, last->latency % 1000);

    } else if (result->fault != NGX_HTTP_LLM_FAULT_STATUS) {
        p = ngx_slprintf(p, end, "%s: %s", ngx_http_llm_fault(result->fault),
                         result->error ? result->error : "");

    } else if (last->result == LLM_PROBE_CREDENTIAL) {
        p = ngx_slprintf(p, end, "status %ui, the provider refuses its key",
                         result->status);

    } else if (last->result == LLM_PROBE_THROTTLE) {
        p = ngx_slprintf(p, end, "status %ui, the provider asks for a pause",
                         result->status);

    } else {
        p = ngx_slprintf(p, end, "status %ui, expected %V", result->status,
                         &probe->expect);
    }

    level = ngx_http_llm_log_probes();

    if (last->result == before->result && last->status == before->status
        && (last->result != LLM_PROBE_FAILURE || last->fault == before->fault))
    {
        level = NGX_LOG_INFO;

    } else if (last->result == LLM_PROBE_CREDENTIAL) {
        level = NGX_LOG_ERR;

    } else if (last->result == LLM_PROBE_SUCCESS
               && before->result <= LLM_PROBE_SUCCESS)
    {
        level = NGX_LOG_INFO;
    }

    ngx_log_error(level, ngx_cycle->log, 0,
                  "llm: probe of provider \"%V\": %s: %*s",
                  &probe->provider->name, llm_probe_result_name(last->result),
                  (size_t) (p - text), text);
}


/* What a page says of a provider's probes. */

void
ngx_http_llm_probe_describe(ngx_http_llm_provider_t *provider, json_t *o)
{
    json_t              *probe, *list;
    ngx_uint_t           i;
    llm_probe_t         *record;
    llm_probe_last_t     last;

    if (provider->probe == NULL) {
        ngx_http_llm_set(o, "probe", json_null());
        return;
    }

    record = provider->record->probe;
    probe = json_object();

    if (llm_probe_last(record, &last)) {

        ngx_http_llm_set(probe, "result",
                         json_string(llm_probe_result_name(last.result)));
        ngx_http_llm_set(probe, "status",
                         last.status ? json_integer(last.status)
                                     : json_null());
        ngx_http_llm_set(probe, "error",
                         last.fault > NGX_HTTP_LLM_FAULT_STATUS
                         ? json_string(ngx_http_llm_fault(last.fault))
                         : json_null());
        ngx_http_llm_set(probe, "latency",
                         ngx_http_llm_tree_seconds(last.latency));
        ngx_http_llm_set(probe, "time",
                         ngx_http_llm_tree_time(last.time * 1000));

    } else {
        ngx_http_llm_set(probe, "result", json_null());
        ngx_http_llm_set(probe, "status", json_null());
        ngx_http_llm_set(probe, "error", json_null());
        ngx_http_llm_set(probe, "latency", json_null());
        ngx_http_llm_set(probe, "time", json_null());
    }

    list = json_object();

    ngx_http_llm_set(list, "hour",
                     ngx_http_llm_probe_share(llm_probe_hour(record,
                                                             ngx_time())));
    ngx_http_llm_set(list, "day",
                     ngx_http_llm_probe_share(llm_probe_day(record,
                                                            ngx_time())));
    ngx_http_llm_set(probe, "success_rate", list);

    list = json_object();

    for (i = LLM_PROBE_SUCCESS; i < LLM_PROBE_RESULTS; i++) {
        ngx_http_llm_set(list, llm_probe_result_name(i),
                         json_integer(llm_probe_count(record, i)));
    }

    ngx_http_llm_set(probe, "total", list);
    ngx_http_llm_set(o, "probe", probe);
}


static json_t *
ngx_http_llm_probe_share(llm_probe_share_t share)
{
    return share.all ? ngx_http_llm_tree_share(share.good, share.all)
                     : json_null();
}
