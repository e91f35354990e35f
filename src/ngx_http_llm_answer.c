
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm.h"


/*
 * What a provider answered: the verdict on it, and what follows.
 */


static ngx_int_t ngx_http_llm_verdict(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_commit(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, llm_class_t class);
static ngx_uint_t ngx_http_llm_all_throttled(ngx_http_llm_ctx_t *ctx);
static uint32_t ngx_http_llm_hint(ngx_http_request_t *r);
static void ngx_http_llm_choose_next(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_fault_e fault);


static ngx_str_t  ngx_http_llm_retry_after_ms = ngx_string("retry-after-ms");
static ngx_str_t  ngx_http_llm_x_ms = ngx_string("x-ms-retry-after-ms");
static ngx_str_t  ngx_http_llm_retry_after = ngx_string("retry-after");


ngx_int_t
ngx_http_llm_process_header(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_upstream_t  *u;

    ctx = ngx_http_llm_get_ctx(r);
    u = r->upstream;

    /* the proxy module changes its handler as the header goes on */

    u->process_header = ctx->process_header;

    rc = u->process_header(r);

    ctx->process_header = u->process_header;
    u->process_header = ngx_http_llm_process_header;

    if (ctx->now.provider == NULL || ctx->committed) {

        /* an answer out of the cache */

        return rc;
    }

    if (rc == NGX_HTTP_UPSTREAM_INVALID_HEADER) {
        ctx->fault = NGX_HTTP_LLM_FAULT_HEADER;
    }

    return rc == NGX_OK ? ngx_http_llm_verdict(r, ctx) : rc;
}


/* The header is complete: whose answer is it, and who is asked next? */

static ngx_int_t
ngx_http_llm_verdict(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t                status;
    llm_call_t                call;
    llm_class_t               class;
    ngx_http_upstream_t      *u;
    ngx_http_llm_provider_t  *provider;

    u = r->upstream;
    status = u->headers_in.status_n;
    provider = ctx->now.provider;

    if (status < 200 || status > 599) {

        /* no HTTP/1.x, or no final answer; the caller's own is not HTTP/0.9 */

        r->http_version = ctx->http_version;
        ctx->fault = NGX_HTTP_LLM_FAULT_HEADER;
        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    call.completion = ctx->completion;
    call.own_key = provider->own_key;

    class = (provider->classes && provider->classes[status] >= 0)
            ? (llm_class_t) provider->classes[status]
            : llm_verdict_status((unsigned) status, call);

    if (class == LLM_CLASS_SUCCESS && !ctx->completion
        && (r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD)))
    {
        /* a list of models says nothing of the models */

        class = LLM_CLASS_NEUTRAL;
    }

    if (!llm_verdict_next(class)) {
        return ngx_http_llm_commit(r, ctx, class);
    }

    ngx_http_llm_attempt_failed(r, ctx, class, ngx_http_llm_hint(r),
                                NGX_HTTP_LLM_FAULT_STATUS, status);

    if (ctx->next.provider == NULL) {

        if (class == LLM_CLASS_CAPABILITY) {

            /* nobody can: the caller learns why from the one who said so */

            return ngx_http_llm_commit(r, ctx, class);
        }

        if (ngx_http_llm_all_throttled(ctx)
            && (u->conf->next_upstream & NGX_HTTP_UPSTREAM_FT_HTTP_429))
        {
            /* makes nginx end with 429 in the place of 502 */

            u->headers_in.status_n = NGX_HTTP_TOO_MANY_REQUESTS;
            u->peer.tries = 2;

            return NGX_OK;
        }
    }

    return NGX_HTTP_UPSTREAM_INVALID_HEADER;
}


/* From here on the answer is the caller's. */

static ngx_int_t
ngx_http_llm_commit(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    llm_class_t class)
{
    ngx_http_llm_report(ctx, &ctx->now, class, 0, NGX_HTTP_LLM_FAULT_NONE,
                        r->upstream->headers_in.status_n);

    ctx->committed = 1;

    ngx_http_llm_deadline_commit(ctx);

    return NGX_OK;
}


/* Whether every provider that serves the request wants a pause. */

static ngx_uint_t
ngx_http_llm_all_throttled(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t            i;
    ngx_http_llm_fare_t  *fare;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        fare = &ctx->fares[i];

        if (!fare->serves) {
            continue;
        }

        if (fare->tried ? fare->class != LLM_CLASS_THROTTLE
                        : fare->admission != LLM_REFUSED_THROTTLED)
        {
            return 0;
        }
    }

    return 1;
}


/* How long the provider asks to be left alone, ms; 0: it does not say. */

static uint32_t
ngx_http_llm_hint(ngx_http_request_t *r)
{
    uint32_t          ms;
    ngx_str_t        *name;
    ngx_list_t       *headers;
    ngx_table_elt_t  *h;

    headers = &r->upstream->headers_in.headers;

    for (name = &ngx_http_llm_retry_after_ms; name; ) {

        h = ngx_http_llm_find_header(headers, name);

        if (h && llm_hint_retry_after_ms(h->value.data, h->value.len, &ms)) {
            return ms;
        }

        name = (name == &ngx_http_llm_retry_after_ms) ? &ngx_http_llm_x_ms
                                                      : NULL;
    }

    name = &ngx_http_llm_retry_after;

    h = ngx_http_llm_find_header(headers, name);

    if (h && llm_hint_retry_after(h->value.data, h->value.len, ngx_time(),
                                  &ms))
    {
        return ms;
    }

    return 0;
}


/*
 * This provider gave no answer that the caller is to have: its circuit, the
 * request and the log learn of it, and the next one is looked for.
 */

void
ngx_http_llm_attempt_failed(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    llm_class_t class, uint32_t hint, ngx_http_llm_fault_e fault,
    ngx_uint_t status)
{
    u_char                what[32], *p;
    ngx_msec_t            ms;
    ngx_http_llm_fare_t  *fare;

    fare = &ctx->fares[ctx->now.use];

    fare->class = class;
    fare->fault = fault;
    fare->status = status;
    fare->wait = hint ? hint : LLM_CIRCUIT_THROTTLE;

    /* a limit of the caller's own key is nobody else's */

    ngx_http_llm_report(ctx, &ctx->now,
                        class == LLM_CLASS_THROTTLE
                        && ctx->now.provider->client_key
                        ? LLM_CLASS_NEUTRAL : class,
                        hint, fault, status);

    ngx_http_llm_choose_next(r, ctx, fault);

    p = status ? ngx_sprintf(what, "status %ui", status)
               : ngx_sprintf(what, "%s", ngx_http_llm_fault(fault));

    ms = ngx_current_msec - r->upstream->start_time;

    if (ctx->next.provider) {
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "llm: provider \"%V\": %*s (%s) after %Mms, "
                      "next is \"%V\"",
                      &ctx->now.provider->name, (size_t) (p - what), what,
                      llm_class_name(class), ms, &ctx->next.provider->name);
        return;
    }

    ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                  "llm: provider \"%V\": %*s (%s) after %Mms, no other left",
                  &ctx->now.provider->name, (size_t) (p - what), what,
                  llm_class_name(class), ms);
}


/* The next provider is admitted before nginx is told that there is one. */

static void
ngx_http_llm_choose_next(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_fault_e fault)
{
    ngx_uint_t                 mask;
    ngx_msec_t                 timeout;
    ngx_http_upstream_t       *u;
    ngx_http_upstream_conf_t  *conf;

    u = r->upstream;
    conf = u->conf;

    /* what nginx will ask itself, before it asks for another peer */

    switch (fault) {

    case NGX_HTTP_LLM_FAULT_STATUS:
    case NGX_HTTP_LLM_FAULT_HEADER:
        mask = NGX_HTTP_UPSTREAM_FT_INVALID_HEADER;
        break;

    case NGX_HTTP_LLM_FAULT_CONNECT_TIMEOUT:
    case NGX_HTTP_LLM_FAULT_HEADER_TIMEOUT:
        mask = NGX_HTTP_UPSTREAM_FT_TIMEOUT;
        break;

    default:
        mask = NGX_HTTP_UPSTREAM_FT_ERROR;
    }

    if (u->request_sent
        && (r->method & (NGX_HTTP_POST|NGX_HTTP_LOCK|NGX_HTTP_PATCH)))
    {
        mask |= NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT;
    }

    timeout = conf->next_upstream_timeout;

    if ((conf->next_upstream & mask) != mask
        || (conf->next_upstream_tries
            && ctx->attempts >= conf->next_upstream_tries)
        || (timeout && ngx_current_msec - u->peer.start_time >= timeout))
    {
        return;
    }

    (void) ngx_http_llm_choose(ctx);
}
