
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_choice.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_target.h"


/*
 * Why a request gets no answer, as its caller is told, and when to come back:
 * who refuses, and how each of those who were asked has failed.
 */


#define NGX_HTTP_LLM_RETRY_LONG  60000   /* ms; above, clients better give up */
#define NGX_HTTP_LLM_SOON        1000    /* ms; nobody knows when exactly */


static ngx_int_t ngx_http_llm_escape(ngx_http_request_t *r, ngx_str_t *text);
static ngx_int_t ngx_http_llm_reject(ngx_http_llm_ctx_t *ctx, unsigned why,
    ngx_int_t status);
static u_char *ngx_http_llm_describe_fares(ngx_http_llm_ctx_t *ctx, u_char *p,
    u_char *last);
static u_char *ngx_http_llm_describe_fare(ngx_http_llm_use_t *use,
    ngx_http_llm_fare_t *fare, u_char *p, u_char *last);
static uint32_t ngx_http_llm_again(llm_limit_t limit, uint32_t wait);
static uint32_t ngx_http_llm_soonest(ngx_http_llm_ctx_t *ctx);


/* by llm_admission_t */

static const char  *ngx_http_llm_refusals[] = {
    "admitted", "circuit open", "circuit half-open, probes under way",
    "throttled", "taken out of service"
};


/* by llm_limit_t */

static const char  *ngx_http_llm_limits[] = {
    "", "limit of requests a minute reached",
    "limit of tokens a minute reached", "limit of concurrent requests reached"
};


/* codes of refusals, by LLM_REJECTED_* */

static const char  *ngx_http_llm_rejections[] = {
    "all_circuits_open", "rate_limit_exceeded", "model_not_found",
    "invalid_request_error"
};


/* Every provider refuses for now: NGX_HTTP_* with the moment to come back. */

ngx_int_t
ngx_http_llm_refuse(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    u_char               *p, *last;
    uint32_t              wait;
    ngx_int_t             status;
    unsigned              why;
    ngx_uint_t            i;
    ngx_http_llm_fare_t  *fare;

    status = NGX_HTTP_TOO_MANY_REQUESTS;
    why = LLM_REJECTED_LIMITS;
    wait = LLM_CIRCUIT_WAIT_UNKNOWN;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        fare = &ctx->fares[i];

        if (!fare->serves) {
            continue;
        }

        wait = ngx_min(wait, ngx_http_llm_again(fare->limit, fare->wait));

        if (fare->admission != LLM_REFUSED_THROTTLED
            && fare->limit == LLM_LIMIT_NONE)
        {
            status = NGX_HTTP_SERVICE_UNAVAILABLE;
            why = LLM_REJECTED_CIRCUITS;
        }
    }

    p = ngx_pnalloc(r->pool, NGX_MAX_ERROR_STR);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    last = p + NGX_MAX_ERROR_STR;

    ctx->message.data = p;

    p = ngx_http_llm_put(p, last, "Every provider refuses for now: ");
    p = ngx_http_llm_describe_fares(ctx, p, last);

    ctx->message.len = p - ctx->message.data;

    ctx->retry_status = status;
    ctx->retry_wait = wait;

    return ngx_http_llm_reject(ctx, why, status);
}


ngx_int_t
ngx_http_llm_no_model(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    u_char  *p;

    p = ngx_pnalloc(r->pool, sizeof("No provider serves the model \"\".") - 1
                             + ctx->model.len);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->message.data = p;
    ctx->message.len = ngx_sprintf(p, "No provider serves the model \"%V\".",
                                   &ctx->model)
                       - p;

    if (ngx_http_llm_escape(r, &ctx->message) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_reject(ctx, LLM_REJECTED_MODEL, NGX_HTTP_NOT_FOUND);
}


/* The caller's mistake: nobody is asked, no circuit moves. */

ngx_int_t
ngx_http_llm_invalid(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    p = ngx_pnalloc(r->pool, NGX_MAX_ERROR_STR);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->message.data = p;

    va_start(args, fmt);
    p = ngx_vslprintf(p, p + NGX_MAX_ERROR_STR, fmt, args);
    va_end(args);

    ctx->message.len = p - ctx->message.data;

    if (ngx_http_llm_escape(r, &ctx->message) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_reject(ctx, LLM_REJECTED_REQUEST, NGX_HTTP_BAD_REQUEST);
}


/* What quotes the caller is escaped; the gateway's own words need not be. */

static ngx_int_t
ngx_http_llm_escape(ngx_http_request_t *r, ngx_str_t *text)
{
    u_char     *p;
    uintptr_t   escape;

    escape = ngx_escape_json(NULL, text->data, text->len);

    if (escape == 0) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, text->len + escape);
    if (p == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_escape_json(p, text->data, text->len);

    text->data = p;
    text->len += escape;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_reject(ngx_http_llm_ctx_t *ctx, unsigned why, ngx_int_t status)
{
    ctx->code = ngx_http_llm_rejection(why);
    ctx->outcome = NGX_HTTP_LLM_OUTCOME_REJECTED;

    if (ctx->route) {
        llm_count(ngx_http_llm_counters(ctx->route->record), why);
    }

    return status;
}


const char *
ngx_http_llm_rejection(unsigned why)
{
    return ngx_http_llm_rejections[why - LLM_REJECTED_CIRCUITS];
}


/* All attempts failed; rc: what nginx makes of the last one. */

void
ngx_http_llm_all_failed(ngx_http_llm_ctx_t *ctx, ngx_int_t rc)
{
    u_char              *p, *last;
    ngx_http_request_t  *r;

    r = ctx->request;

    if (rc == NGX_HTTP_TOO_MANY_REQUESTS) {
        ctx->code = "rate_limit_exceeded";
        ctx->retry_status = rc;
        ctx->retry_wait = ngx_http_llm_soonest(ctx);

    } else {
        ctx->code = "all_providers_failed";
    }

    p = ngx_pnalloc(r->pool, NGX_MAX_ERROR_STR);
    if (p == NULL) {
        return;
    }

    last = p + NGX_MAX_ERROR_STR;

    ctx->message.data = p;

    p = ngx_slprintf(p, last, "Every provider failed: ");
    p = ngx_http_llm_describe_fares(ctx, p, last);

    ctx->message.len = p - ctx->message.data;
}


/* "openai (status 503), deepseek (circuit open, 12 s left)." */

static u_char *
ngx_http_llm_describe_fares(ngx_http_llm_ctx_t *ctx, u_char *p, u_char *last)
{
    ngx_uint_t            i, n;
    ngx_http_llm_use_t   *use;
    ngx_http_llm_fare_t  *fare;

    n = 0;
    use = ctx->route->uses.elts;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        fare = &ctx->fares[i];

        if (fare->tried || fare->refused) {
            p = ngx_http_llm_put(p, last, n++ ? ", " : "");
            p = ngx_http_llm_describe_fare(&use[i], fare, p, last);
        }
    }

    return ngx_http_llm_put(p, last, ".");
}


static u_char *
ngx_http_llm_describe_fare(ngx_http_llm_use_t *use, ngx_http_llm_fare_t *fare,
    u_char *p, u_char *last)
{
    p = ngx_slprintf(p, last, "%V (", &use->provider->name);

    if (fare->tried && fare->status) {
        p = ngx_slprintf(p, last, "status %ui", fare->status);

    } else if (fare->tried) {
        p = ngx_http_llm_put(p, last, ngx_http_llm_fault(fare->fault));

    } else if (fare->unresolved) {
        p = ngx_http_llm_put(p, last, "address not known");

    } else {
        p = ngx_http_llm_put(p, last,
                             fare->limit
                             ? ngx_http_llm_limits[fare->limit]
                             : ngx_http_llm_refusals[fare->admission]);

        if (fare->wait && fare->wait != LLM_CIRCUIT_WAIT_UNKNOWN
            && fare->limit != LLM_LIMIT_CONCURRENCY)
        {
            p = ngx_slprintf(p, last, ", %uD s left",
                             (fare->wait + 999) / 1000);
        }
    }

    return ngx_http_llm_put(p, last, ")");
}


/* When calls under way end is not known, but some do all the time. */

static uint32_t
ngx_http_llm_again(llm_limit_t limit, uint32_t wait)
{
    return limit == LLM_LIMIT_CONCURRENCY ? NGX_HTTP_LLM_SOON : wait;
}


/* When the first of the providers admits again, ms from now. */

static uint32_t
ngx_http_llm_soonest(ngx_http_llm_ctx_t *ctx)
{
    uint32_t                  wait, limit, soonest;
    ngx_uint_t                i;
    llm_limit_t               which;
    ngx_http_llm_use_t       *use;
    ngx_http_llm_fare_t      *fare;
    ngx_http_llm_provider_t  *provider;

    use = ctx->route->uses.elts;
    soonest = LLM_CIRCUIT_WAIT_UNKNOWN;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        provider = use[i].provider;
        fare = &ctx->fares[i];

        if (!fare->serves
            || !ngx_http_llm_target_resolved(provider->target))
        {
            continue;
        }

        (void) ngx_http_llm_peek_circuit(ctx, provider, &wait);
        which = ngx_http_llm_peek_limits(ctx, provider, &limit);
        limit = ngx_http_llm_again(which, limit);

        wait = ngx_max(wait, limit);

        /* a limit of the caller's own key is known to this request only */

        if (fare->tried && fare->class == LLM_CLASS_THROTTLE) {
            wait = ngx_max(wait, fare->wait);
        }

        soonest = ngx_min(soonest, wait);
    }

    return soonest;
}


/*
 * When to come back; also on the user's own page for the error, but not on
 * the answer of another location that takes over.
 */

ngx_int_t
ngx_http_llm_retry_headers(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    u_char     *p;
    uint32_t    wait;
    ngx_str_t   value;

    if (ctx->retry_status == 0 || ctx->retry_status != r->headers_out.status) {
        return NGX_OK;
    }

    wait = ctx->retry_wait;

    if (wait != LLM_CIRCUIT_WAIT_UNKNOWN) {

        p = ngx_pnalloc(r->pool, 2 * NGX_INT32_LEN);
        if (p == NULL) {
            return NGX_ERROR;
        }

        value.data = p;
        value.len = ngx_sprintf(p, "%uD", ngx_max((wait + 999) / 1000, 1)) - p;

        if (ngx_http_llm_push_header(r, "Retry-After", &value) != NGX_OK) {
            return NGX_ERROR;
        }

        p += NGX_INT32_LEN;

        value.data = p;
        value.len = ngx_sprintf(p, "%uD", wait) - p;

        if (ngx_http_llm_push_header(r, "retry-after-ms", &value) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (wait > NGX_HTTP_LLM_RETRY_LONG) {
        ngx_str_set(&value, "false");

        return ngx_http_llm_push_header(r, "x-should-retry", &value);
    }

    return NGX_OK;
}
