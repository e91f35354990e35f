
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_slot.h"


/*
 * What the circuits learn: the verdict on each call, once, and what follows
 * from it for counters, history and log.
 */


static void ngx_http_llm_measured(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider);
static unsigned ngx_http_llm_break(ngx_http_llm_fault_e fault);
static void ngx_http_llm_transition_at(ngx_uint_t level, ngx_log_t *log,
    ngx_http_llm_provider_t *provider, llm_transition_t *tr,
    ngx_uint_t status);


static const ngx_uint_t  ngx_http_llm_class_counters[LLM_CLASSES] = {
    LLM_CALLS_SUCCESSFUL,                  /* success */
    LLM_CALLS_FAILED,                      /* failure */
    LLM_CALLS_THROTTLED,                   /* throttle */
    LLM_CALLS_FAILED,                      /* credential */
    LLM_CALLS_NEUTRAL,                     /* capability */
    LLM_CALLS_NEUTRAL                      /* neutral */
};


static const char  *ngx_http_llm_faults[] = {
    "",
    "status",
    "connection failed",
    "timed out while connecting",
    "TLS handshake failed",
    "closed before the answer",
    "timed out before the answer",
    "invalid answer",
    "broken off",
    "stalled",
    "no first token in time",
    "deadline of the request is over",
    "error event",
    "unreadable event",
    "empty answer",
    "too slow",
    "too large"
};


/*
 * The verdict on an admitted call.  Does nothing where there is no call, or
 * where its verdict was given before.
 */

void
ngx_http_llm_report(ngx_http_llm_ctx_t *ctx, ngx_http_llm_choice_t *choice,
    llm_class_t class, uint32_t hint, ngx_http_llm_fault_e fault,
    ngx_uint_t status)
{
    bool                       late;
    llm_counters_t            *counters;
    llm_transition_t           tr;
    ngx_http_llm_provider_t   *provider;
    ngx_http_llm_main_conf_t  *mcf;

    provider = choice->provider;

    if (provider == NULL || choice->token.kind == LLM_TOKEN_NONE) {
        return;
    }

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    if (!llm_circuit_report(&provider->record->circuit, &provider->circuit,
                            &choice->token, class, hint,
                            ngx_http_llm_now(mcf), (uint32_t) ngx_random() << 1,
                            &late, &tr))
    {
        return;
    }

    ngx_http_llm_wake();

    counters = ngx_http_llm_counters(provider->record);

    ngx_http_llm_count_class(counters, class);

    if (late) {
        llm_count(counters, LLM_CALLS_LATE);
    }

    if (class == LLM_CLASS_SUCCESS) {
        llm_counters_stamp(counters, LLM_LAST_SUCCESS,
                           ngx_http_llm_wall_clock());
        ngx_http_llm_measured(ctx, provider);

    } else if (class == LLM_CLASS_FAILURE || class == LLM_CLASS_CREDENTIAL) {
        llm_latency_failure(&provider->record->latency, ngx_http_llm_now(mcf));
        ngx_http_llm_note_failure(provider->record, fault, status);
    }

    ngx_http_llm_moved(ctx->request, provider, &tr, status);
}


/* An answer is good: how long did it take to its first token, or header? */

static void
ngx_http_llm_measured(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider)
{
    uint64_t                   us;
    ngx_http_llm_main_conf_t  *mcf;

    if (!ctx->completion) {
        return;
    }

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    us = (ctx->token ? ctx->token : ngx_http_llm_stopwatch()) - ctx->sent;

    llm_latency_success(&provider->record->latency, us, ngx_http_llm_now(mcf));

    if (ctx->token) {
        llm_histogram_add(&provider->record->times->first_token, us);
    }

    ctx->good = 1;
}


/* A good answer has come to its end. */

void
ngx_http_llm_ended(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->good) {
        llm_histogram_add(&ctx->now.provider->record->times->duration,
                          ngx_http_llm_stopwatch() - ctx->sent);
    }
}


/* An answer broke off behind its commit: one failure, no token. */

void
ngx_http_llm_report_break(ngx_http_llm_ctx_t *ctx, ngx_http_llm_fault_e fault)
{
    bool                       late;
    llm_counters_t            *counters;
    llm_transition_t           tr;
    ngx_http_llm_provider_t   *provider;
    ngx_http_llm_main_conf_t  *mcf;

    provider = ctx->now.provider;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    late = 0;
    tr.reason = LLM_REASON_NONE;

    if (provider->circuit.stream_errors) {
        llm_circuit_break(&provider->record->circuit, &provider->circuit,
                          &ctx->now.token, ngx_http_llm_now(mcf),
                          (uint32_t) ngx_random() << 1, &late, &tr);
    }

    counters = ngx_http_llm_counters(provider->record);

    llm_count(ngx_http_llm_usage_counters(provider->record),
              ngx_http_llm_break(fault));

    if (late) {
        llm_count(counters, LLM_CALLS_LATE);
    }

    ngx_http_llm_note_failure(provider->record, fault, 0);

    ngx_http_llm_moved(ctx->request, provider, &tr, 0);
}


/* Why that was, as a counter. */

static unsigned
ngx_http_llm_break(ngx_http_llm_fault_e fault)
{
    switch (fault) {

    case NGX_HTTP_LLM_FAULT_ERROR_EVENT:
        return LLM_STREAM_ERROR_EVENT;

    case NGX_HTTP_LLM_FAULT_IDLE_TIMEOUT:
        return LLM_STREAM_STALLED;

    default:
        return LLM_STREAM_BROKEN;
    }
}


/* Only the process that moved the circuit gets here with a reason. */

void
ngx_http_llm_moved(ngx_http_request_t *r, ngx_http_llm_provider_t *provider,
    llm_transition_t *tr, ngx_uint_t status)
{
    ngx_http_llm_transition_at(ngx_http_llm_log_circuits(r),
                               r->connection->log, provider, tr, status);
}


/* The same where it is not a request that moved it. */

void
ngx_http_llm_transition(ngx_log_t *log, ngx_http_llm_provider_t *provider,
    llm_transition_t *tr, ngx_uint_t status)
{
    ngx_http_llm_transition_at(ngx_http_llm_log_circuits(NULL), log, provider,
                               tr, status);
}


/* What a reload has switched off is closed before anybody asks for it. */

void
ngx_http_llm_switch_off(ngx_cycle_t *cycle, ngx_http_llm_main_conf_t *mcf)
{
    ngx_uint_t                 i;
    llm_transition_t           tr;
    ngx_http_llm_provider_t  **providerp;

    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {
        (void) llm_circuit_switch_off(&providerp[i]->record->circuit,
                                      &providerp[i]->circuit,
                                      ngx_http_llm_now(mcf), &tr);

        ngx_http_llm_transition(cycle->log, providerp[i], &tr, 0);
    }
}


static void
ngx_http_llm_transition_at(ngx_uint_t level, ngx_log_t *log,
    ngx_http_llm_provider_t *provider, llm_transition_t *tr,
    ngx_uint_t status)
{
    if (tr->reason == LLM_REASON_NONE) {
        return;
    }

    ngx_http_llm_note_transition(provider->record, tr, status);

    if (tr->to != LLM_CIRCUIT_OPEN) {
        ngx_log_error(level, log, 0,
                      "llm: circuit of provider \"%V\" %s -> %s: %s",
                      &provider->name, llm_circuit_state_name(tr->from),
                      llm_circuit_state_name(tr->to),
                      llm_reason_name(tr->reason));
        return;
    }

    ngx_log_error(level, log, 0,
                  "llm: circuit of provider \"%V\" %s -> %s: %s, "
                  "for %uD.%03uDs",
                  &provider->name, llm_circuit_state_name(tr->from),
                  llm_circuit_state_name(tr->to), llm_reason_name(tr->reason),
                  tr->duration / 1000, tr->duration % 1000);
}


void
ngx_http_llm_note_transition(ngx_http_llm_record_t *record,
    llm_transition_t *tr, ngx_uint_t status)
{
    llm_history_entry_t  entry;

    if (tr->from != tr->to) {
        llm_count(ngx_http_llm_counters(record), llm_move(tr->from, tr->to));
    }

    entry.time = ngx_http_llm_wall_clock();
    entry.from = tr->from;
    entry.to = tr->to;
    entry.reason = tr->reason;
    entry.status = status;

    llm_history_add(&record->history, &entry);
}


void
ngx_http_llm_note_failure(ngx_http_llm_record_t *record,
    ngx_http_llm_fault_e fault, ngx_uint_t status)
{
    record->last_failure = ngx_http_llm_wall_clock() << 20
                           | (uint64_t) status << 8
                           | (uint64_t) fault;
}


void
ngx_http_llm_count_class(llm_counters_t *counters, llm_class_t class)
{
    llm_count(counters, ngx_http_llm_class_counters[class]);
}


const char *
ngx_http_llm_fault(ngx_http_llm_fault_e fault)
{
    return ngx_http_llm_faults[fault];
}
