
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_choice.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"


/*
 * A request's context: it lives as long as the request's memory, whatever
 * nginx does with the request.
 */


static void ngx_http_llm_cleanup(void *data);
static void ngx_http_llm_count_outcome(ngx_http_llm_ctx_t *ctx);


/* route: NULL where it is known later */

ngx_http_llm_ctx_t *
ngx_http_llm_create_ctx(ngx_http_request_t *r, ngx_http_llm_loc_conf_t *llcf,
    ngx_http_llm_route_t *route)
{
    ngx_pool_cleanup_t  *cln;
    ngx_http_llm_ctx_t  *ctx, *previous;

    previous = ngx_http_llm_get_ctx(r);

    if (previous) {

        /* another gate let the request in, but it went elsewhere: to here */

        ngx_http_llm_report(previous, &previous->next, LLM_CLASS_NEUTRAL, 0,
                            NGX_HTTP_LLM_FAULT_NONE, 0);
        ngx_http_llm_settle(previous, &previous->next, 0);
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_llm_ctx_t));
    if (cln == NULL) {
        return NULL;
    }

    ctx = cln->data;

    ngx_memzero(ctx, sizeof(ngx_http_llm_ctx_t));

    ctx->request = r;
    ctx->previous = previous;
    ctx->start = ngx_current_msec;
    ctx->llcf = llcf;

    if (route && ngx_http_llm_set_route(ctx, route) != NGX_OK) {
        return NULL;
    }

    /* to GET them lists what was stored, which says nothing of the models */

    ctx->completion = r->method == NGX_HTTP_POST
                      && llm_verdict_completion(r->uri.data, r->uri.len);

    cln->handler = ngx_http_llm_cleanup;

    ngx_http_set_ctx(r, ctx, ngx_http_llm_module);

    return ctx;
}


/* The request is the route's from now, and counts. */

ngx_int_t
ngx_http_llm_set_route(ngx_http_llm_ctx_t *ctx, ngx_http_llm_route_t *route)
{
    ngx_http_llm_main_conf_t  *mcf;

    ctx->fares = ngx_pcalloc(ctx->request->pool,
                             route->uses.nelts * sizeof(ngx_http_llm_fare_t));
    if (ctx->fares == NULL) {
        return NGX_ERROR;
    }

    ctx->route = route;

    llm_count(ngx_http_llm_counters(route->record), LLM_REQUESTS);

    if (route->retry_set) {
        mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);
        llm_budget_request(&route->record->budget, ngx_http_llm_now(mcf));
    }

    return NGX_OK;
}


/* Whatever became of the request: nothing that was admitted stays out. */

static void
ngx_http_llm_cleanup(void *data)
{
    ngx_http_llm_ctx_t *ctx = data;

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    ngx_http_llm_report(ctx, &ctx->next, LLM_CLASS_NEUTRAL, 0,
                        NGX_HTTP_LLM_FAULT_NONE, 0);
    ngx_http_llm_report(ctx, &ctx->now, LLM_CLASS_NEUTRAL, 0,
                        NGX_HTTP_LLM_FAULT_NONE, 0);

    ngx_http_llm_settle(ctx, &ctx->next, 0);
    ngx_http_llm_settle(ctx, &ctx->now, LLM_TOKENS_UNKNOWN);

    ngx_http_llm_wait_done(ctx);
    ngx_http_llm_count_outcome(ctx);
}


/* Once for each request that was counted, when it is over. */

static void
ngx_http_llm_count_outcome(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_outcome_e  outcome;

    if (ctx->route == NULL) {
        return;
    }

    outcome = ngx_http_llm_get_outcome(ctx);

    if (outcome == NGX_HTTP_LLM_OUTCOME_NONE) {
        outcome = NGX_HTTP_LLM_OUTCOME_ERROR;
    }

    llm_count(ngx_http_llm_counters(ctx->route->record),
              LLM_OUTCOME_OK + outcome - NGX_HTTP_LLM_OUTCOME_OK);
}


/* NONE: it is not over */

ngx_http_llm_outcome_e
ngx_http_llm_get_outcome(ngx_http_llm_ctx_t *ctx)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    if (ctx->outcome != NGX_HTTP_LLM_OUTCOME_NONE || ctx->route == NULL) {
        return ctx->outcome;
    }

    /* it ended while its body was read, for example */

    r = ctx->request;
    c = r->connection;

    if (c->error || c->timedout) {
        return NGX_HTTP_LLM_OUTCOME_ABORTED;
    }

    return r->upstream == NULL && r->err_status
           ? NGX_HTTP_LLM_OUTCOME_ERROR : NGX_HTTP_LLM_OUTCOME_NONE;
}


/*
 * The context of a request.  An internal redirect clears what nginx keeps
 * for modules, but not the cleanups of the pool.
 */

ngx_http_llm_ctx_t *
ngx_http_llm_get_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t  *cln;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx || !(r->internal || r->filter_finalize)) {
        return ctx;
    }

    for (cln = r->pool->cleanup; cln; cln = cln->next) {

        if (cln->handler == ngx_http_llm_cleanup) {
            ctx = cln->data;

            if (ctx->request == r) {
                return ctx;
            }
        }
    }

    return NULL;
}


/*
 * The context of the upstream that has our hooks: a filter may have given the
 * request to another gate in the middle of an answer.
 */

ngx_http_llm_ctx_t *
ngx_http_llm_upstream_ctx(ngx_http_request_t *r)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    while (ctx && ctx->upstream != r->upstream) {
        ctx = ctx->previous;
    }

    return ctx;
}


/* What the verdicts want to know of the call under way. */

llm_call_t
ngx_http_llm_call(ngx_http_llm_ctx_t *ctx)
{
    llm_call_t  call;

    call.completion = ctx->completion;
    call.own_key = ctx->now.provider->own_key;

    return call;
}
