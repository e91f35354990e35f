
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm.h"


/*
 * Who is asked, and what the circuits learn from it.  Every token that a
 * circuit gives is kept in the request's context, and comes back through
 * ngx_http_llm_report(), whichever way the request ends.
 */


static void ngx_http_llm_refused(ngx_http_llm_ctx_t *ctx, ngx_uint_t use,
    llm_admission_t admission, uint32_t wait);
static void ngx_http_llm_moved(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider, llm_transition_t *tr,
    ngx_uint_t status);
static void ngx_http_llm_failed(ngx_http_llm_provider_t *provider,
    ngx_http_llm_fault_e fault, ngx_uint_t status);


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
    "empty answer"
};


/* Marks the providers that serve what is asked for. */

ngx_int_t
ngx_http_llm_candidates(ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t             rc;
    ngx_uint_t            i;
    ngx_http_llm_use_t   *use;
    ngx_http_llm_fare_t  *fare;

    rc = NGX_DECLINED;
    use = ctx->route->uses.elts;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        fare = &ctx->fares[i];

        fare->serves = ctx->model.len == 0
                       || ngx_http_llm_provider_serves(use[i].provider,
                                                       &ctx->model,
                                                       &fare->upstream_model)
                          == NGX_OK;

        if (!fare->serves) {
            continue;
        }

        if (rc != NGX_OK || (use[ctx->first].backup && !use[i].backup)) {
            ctx->first = i;
        }

        rc = NGX_OK;
    }

    return rc;
}


/*
 * Asks the providers of the route for admission, in the strategy's order;
 * NGX_OK: ctx->next is admitted, NGX_DECLINED: nobody else admits.
 */

ngx_int_t
ngx_http_llm_choose(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t            i, backup;
    ngx_http_llm_use_t   *use;
    ngx_http_llm_fare_t  *fare;

    use = ctx->route->uses.elts;

    for (backup = 0; backup < 2; backup++) {

        for (i = 0; i < ctx->route->uses.nelts; i++) {

            fare = &ctx->fares[i];

            if (use[i].backup != backup || !fare->serves || fare->tried) {
                continue;
            }

            if (ngx_http_llm_ask(ctx, i) == NGX_OK) {
                return NGX_OK;
            }
        }
    }

    return NGX_DECLINED;
}


/* Asks one provider of the route. */

ngx_int_t
ngx_http_llm_ask(ngx_http_llm_ctx_t *ctx, ngx_uint_t i)
{
    uint32_t                   wait;
    llm_token_t                token;
    llm_admission_t            admission;
    llm_transition_t           tr;
    ngx_http_llm_use_t        *use;
    ngx_http_llm_provider_t   *provider;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    use = ctx->route->uses.elts;
    provider = use[i].provider;

    if (provider->naddrs == 0) {
        ctx->fares[i].unresolved = 1;

        ngx_http_llm_refused(ctx, i, LLM_REFUSED_FORCED,
                             LLM_CIRCUIT_WAIT_UNKNOWN);
        return NGX_DECLINED;
    }

    admission = llm_circuit_acquire(&provider->record->circuit,
                                    &provider->circuit, ngx_http_llm_now(mcf),
                                    &token, &wait, &tr);

    ngx_http_llm_moved(ctx, provider, &tr, 0);

    if (admission != LLM_ADMITTED) {
        ngx_http_llm_refused(ctx, i, admission, wait);
        return NGX_DECLINED;
    }

    llm_count(ngx_http_llm_counters(provider->record), LLM_CALLS);

    ctx->fares[i].tried = 1;

    ctx->next.provider = provider;
    ctx->next.use = i;
    ctx->next.token = token;

    return NGX_OK;
}


/*
 * Whether some provider of the route would take a request, whatever its
 * model is.  Nothing is written unless all refuse.
 */

ngx_int_t
ngx_http_llm_peek(ngx_http_llm_ctx_t *ctx)
{
    uint32_t                   now, wait;
    ngx_uint_t                 i;
    llm_admission_t            admission;
    ngx_http_llm_use_t        *use;
    ngx_http_llm_fare_t       *fare;
    ngx_http_llm_provider_t   *provider;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);
    now = ngx_http_llm_now(mcf);
    use = ctx->route->uses.elts;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        provider = use[i].provider;
        fare = &ctx->fares[i];

        admission = llm_circuit_peek(&provider->record->circuit,
                                     &provider->circuit, now, &wait);

        fare->unresolved = (provider->naddrs == 0);

        if (fare->unresolved) {
            admission = LLM_REFUSED_FORCED;
            wait = LLM_CIRCUIT_WAIT_UNKNOWN;
        }

        if (admission == LLM_ADMITTED) {
            return NGX_OK;
        }

        fare->admission = admission;
        fare->wait = wait;
    }

    for (i = 0; i < ctx->route->uses.nelts; i++) {
        ctx->fares[i].serves = 1;
        ngx_http_llm_refused(ctx, i, ctx->fares[i].admission,
                             ctx->fares[i].wait);
    }

    return NGX_DECLINED;
}


/* A provider refuses; that counts once per request. */

static void
ngx_http_llm_refused(ngx_http_llm_ctx_t *ctx, ngx_uint_t i,
    llm_admission_t admission, uint32_t wait)
{
    ngx_http_llm_use_t   *use;
    ngx_http_llm_fare_t  *fare;

    fare = &ctx->fares[i];

    fare->admission = admission;
    fare->wait = wait;

    if (fare->refused) {
        return;
    }

    fare->refused = 1;

    use = ctx->route->uses.elts;

    llm_count(ngx_http_llm_counters(use[i].provider->record),
              LLM_CALLS_REJECTED);
}


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

    if (provider == NULL) {
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

    counters = ngx_http_llm_counters(provider->record);

    llm_count(counters, ngx_http_llm_class_counters[class]);

    if (late) {
        llm_count(counters, LLM_CALLS_LATE);
    }

    if (class == LLM_CLASS_SUCCESS) {
        llm_counters_stamp(counters, LLM_LAST_SUCCESS,
                           ngx_http_llm_wall_clock());

    } else if (class == LLM_CLASS_FAILURE || class == LLM_CLASS_CREDENTIAL) {
        ngx_http_llm_failed(provider, fault, status);
    }

    ngx_http_llm_moved(ctx, provider, &tr, status);
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

    llm_circuit_break(&provider->record->circuit, &provider->circuit,
                      &ctx->now.token, ngx_http_llm_now(mcf),
                      (uint32_t) ngx_random() << 1, &late, &tr);

    counters = ngx_http_llm_counters(provider->record);

    llm_count(counters, LLM_STREAM_ERRORS);

    if (late) {
        llm_count(counters, LLM_CALLS_LATE);
    }

    ngx_http_llm_failed(provider, fault, 0);

    ngx_http_llm_moved(ctx, provider, &tr, 0);
}


/* Only the process that moved the circuit gets here with a reason. */

static void
ngx_http_llm_moved(ngx_http_llm_ctx_t *ctx, ngx_http_llm_provider_t *provider,
    llm_transition_t *tr, ngx_uint_t status)
{
    ngx_log_t            *log;
    llm_history_entry_t   entry;

    if (tr->reason == LLM_REASON_NONE) {
        return;
    }

    entry.time = ngx_http_llm_wall_clock();
    entry.from = tr->from;
    entry.to = tr->to;
    entry.reason = tr->reason;
    entry.status = status;

    llm_history_add(&provider->record->history, &entry);

    log = ctx->request->connection->log;

    if (tr->to != LLM_CIRCUIT_OPEN) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "llm: circuit of provider \"%V\" %s -> %s: %s",
                      &provider->name, llm_circuit_state_name(tr->from),
                      llm_circuit_state_name(tr->to),
                      llm_reason_name(tr->reason));
        return;
    }

    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "llm: circuit of provider \"%V\" %s -> %s: %s, "
                  "for %uD.%03uDs",
                  &provider->name, llm_circuit_state_name(tr->from),
                  llm_circuit_state_name(tr->to), llm_reason_name(tr->reason),
                  tr->duration / 1000, tr->duration % 1000);
}


static void
ngx_http_llm_failed(ngx_http_llm_provider_t *provider,
    ngx_http_llm_fault_e fault, ngx_uint_t status)
{
    provider->record->last_failure = ngx_http_llm_wall_clock() << 20
                                     | (uint64_t) status << 8
                                     | (uint64_t) fault;
}


const char *
ngx_http_llm_fault(ngx_http_llm_fault_e fault)
{
    return ngx_http_llm_faults[fault];
}
