
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_answer.h"
#include "ngx_http_llm_attempt.h"
#include "ngx_http_llm_choice.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_log.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_target.h"

#include "llm_error.h"


/*
 * What a provider answered: the verdict on it, and what follows.
 */


static ngx_int_t ngx_http_llm_verdict(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_held(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_answer_class(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, llm_class_t class, uint32_t pause);
static ngx_int_t ngx_http_llm_commit(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, llm_class_t class);
static ngx_uint_t ngx_http_llm_is_encoded(ngx_http_request_t *r);
static ngx_uint_t ngx_http_llm_slow(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_http_llm_hold_e ngx_http_llm_wants_body(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_all_throttled(ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_goes_on(ngx_http_request_t *r,
    ngx_uint_t mask);
static void ngx_http_llm_choose_next(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_fault_e fault);


static ngx_str_t  ngx_http_llm_encoding = ngx_string("content-encoding");


ngx_int_t
ngx_http_llm_process_header(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_upstream_t  *u;

    ctx = ngx_http_llm_get_ctx(r);
    u = r->upstream;

    if (ctx->hold && ctx->hold->what != NGX_HTTP_LLM_HOLD_NOTHING) {
        return ngx_http_llm_held(r, ctx);
    }

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

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_llm_target_good(ctx->now.provider->target, u->peer.sockaddr);

    return ngx_http_llm_verdict(r, ctx);
}


/*
 * The header is complete: whose answer is it?  Where its body has a say in
 * that, the answer is held until it was heard.
 */

static ngx_int_t
ngx_http_llm_verdict(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t                status;
    llm_class_t               class;
    ngx_http_llm_hold_e       hold;
    ngx_http_llm_provider_t  *provider;

    status = r->upstream->headers_in.status_n;
    provider = ctx->now.provider;

    if (status < 200 || status > 599) {

        /* no HTTP/1.x, or no final answer; the caller's own is not HTTP/0.9 */

        r->http_version = ctx->http_version;
        ctx->fault = NGX_HTTP_LLM_FAULT_HEADER;

        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    hold = ngx_http_llm_wants_body(r, ctx);

    if (provider->classes && provider->classes[status] >= 0) {
        class = (llm_class_t) provider->classes[status];

        if (hold == NGX_HTTP_LLM_HOLD_ERROR || class != LLM_CLASS_SUCCESS) {
            hold = NGX_HTTP_LLM_HOLD_NOTHING;
        }

    } else {
        class = llm_verdict_status((unsigned) status, ngx_http_llm_call(ctx));
    }

    if ((hold != NGX_HTTP_LLM_HOLD_NOTHING || ctx->watch)
        && ngx_http_llm_hold_init(r, ctx, hold) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (hold != NGX_HTTP_LLM_HOLD_NOTHING) {
        return ngx_http_llm_held(r, ctx);
    }

    return ngx_http_llm_answer_class(r, ctx, class, 0);
}


/* More of what is held has come: is it enough? */

static ngx_int_t
ngx_http_llm_held(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t             rc;
    llm_error_t           error;
    ngx_http_llm_hold_t  *hold;
    ngx_http_llm_hold_e   what;

    hold = ctx->hold;
    what = hold->what;

    rc = ngx_http_llm_hold_more(r, ctx);

    if (rc == NGX_AGAIN || rc == NGX_ERROR) {
        return rc;
    }

    hold->what = NGX_HTTP_LLM_HOLD_NOTHING;

    if (rc == NGX_DECLINED) {

        /* a good header, but a bad body, and nobody has seen it yet */

        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    if (what != NGX_HTTP_LLM_HOLD_ERROR) {
        return ngx_http_llm_commit(r, ctx, LLM_CLASS_SUCCESS);
    }

    /* the body of an error may make another thing of its status */

    error = llm_error_class((unsigned) r->upstream->headers_in.status_n,
                            hold->body, hold->body_len,
                            ngx_http_llm_call(ctx));

    return ngx_http_llm_answer_class(r, ctx, error.class,
                                     error.has_retry ? error.retry : 0);
}


static ngx_http_llm_hold_e
ngx_http_llm_wants_body(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t            status, framed;
    ngx_table_elt_t      *type;
    ngx_http_upstream_t  *u;

    u = r->upstream;
    status = u->headers_in.status_n;

    if (!ctx->completion || r->method != NGX_HTTP_POST) {
        return NGX_HTTP_LLM_HOLD_NOTHING;
    }

    if (ngx_http_llm_is_encoded(r)) {

        /* not asked for, and not readable */

        return NGX_HTTP_LLM_HOLD_NOTHING;
    }

    /* nginx takes the end of a connection for a failure of the header */

    framed = u->headers_in.chunked || u->headers_in.content_length_n >= 0;

    if (status >= 400 && status < 500) {
        return framed ? NGX_HTTP_LLM_HOLD_ERROR : NGX_HTTP_LLM_HOLD_NOTHING;
    }

    if (status != 200) {
        return NGX_HTTP_LLM_HOLD_NOTHING;
    }

    type = u->headers_in.content_type;

    if (type && type->value.len >= sizeof("text/event-stream") - 1
        && ngx_strncasecmp(type->value.data, (u_char *) "text/event-stream",
                           sizeof("text/event-stream") - 1)
           == 0)
    {
        ctx->watch = 1;

        /* events go out as they come in, and are not kept in a cache */

        if (!u->store) {
            u->buffering = 0;
        }

        return ctx->route->commit.when == NGX_HTTP_LLM_COMMIT_HEADER
               ? NGX_HTTP_LLM_HOLD_NOTHING : NGX_HTTP_LLM_HOLD_STREAM;
    }

    return ctx->route->commit.when == NGX_HTTP_LLM_COMMIT_COMPLETE && framed
           ? NGX_HTTP_LLM_HOLD_WHOLE : NGX_HTTP_LLM_HOLD_NOTHING;
}


static ngx_uint_t
ngx_http_llm_is_encoded(ngx_http_request_t *r)
{
    return ngx_http_llm_find_header(&r->upstream->headers_in.headers,
                                    &ngx_http_llm_encoding)
           != NULL;
}


/*
 * Whose answer it is, is known: what does process_header() return?  The pause
 * that the body asks for counts where the header names none.
 */

static ngx_int_t
ngx_http_llm_answer_class(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    llm_class_t class, uint32_t pause)
{
    uint32_t              hint;
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (class == LLM_CLASS_SUCCESS && !ctx->completion
        && (r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD)))
    {
        /* a list of models says nothing of the models */

        class = LLM_CLASS_NEUTRAL;
    }

    if (!llm_verdict_next(class)) {
        return ngx_http_llm_commit(r, ctx, class);
    }

    hint = ngx_http_llm_hint(r);

    ngx_http_llm_attempt_failed(r, ctx, class, hint ? hint : pause,
                                NGX_HTTP_LLM_FAULT_STATUS,
                                u->headers_in.status_n);

    if (ctx->next.provider == NULL && ctx->pause == 0) {

        if (class == LLM_CLASS_CAPABILITY) {

            /* nobody can: the caller learns why from the one who said so */

            return ngx_http_llm_commit(r, ctx, class);
        }

        if (ngx_http_llm_all_throttled(ctx)) {

            if (!ngx_http_llm_goes_on(r, NGX_HTTP_UPSTREAM_FT_HTTP_429)) {
                return ngx_http_llm_commit(r, ctx, class);
            }

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
    if (class == LLM_CLASS_SUCCESS && ngx_http_llm_slow(r, ctx)) {
        ngx_http_llm_report(ctx, &ctx->now, LLM_CLASS_FAILURE, 0,
                            NGX_HTTP_LLM_FAULT_SLOW, 0);

    } else {
        ngx_http_llm_report(ctx, &ctx->now, class, 0, NGX_HTTP_LLM_FAULT_NONE,
                            r->upstream->headers_in.status_n);
    }

    if (class == LLM_CLASS_SUCCESS) {
        ngx_http_llm_exhausted(r, ctx);
    }

    if (ngx_http_llm_usage_start(r, ctx, !ngx_http_llm_is_encoded(r))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ctx->committed = 1;
    ctx->last_read = ngx_current_msec;

    if (ctx->watch) {
        ctx->watched = ctx->hold->bytes;
        ctx->finished = ngx_http_llm_watch_whole(ctx, ctx->hold->events);
    }

    ngx_http_llm_deadline_update(ctx);

    return NGX_OK;
}


/* Good, but too late: slow_call. */

static ngx_uint_t
ngx_http_llm_slow(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_msec_t  slow, end;

    slow = ctx->now.provider->circuit.slow_call;

    if (slow == 0 || !ctx->completion) {
        return 0;
    }

    end = ctx->content ? ctx->first_token : ngx_current_msec;

    return end - r->upstream->start_time > slow;
}


/* Whether all that were to be asked want a pause, or are at their limit. */

static ngx_uint_t
ngx_http_llm_all_throttled(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t            i;
    ngx_http_llm_fare_t  *fare;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        fare = &ctx->fares[i];

        if (!fare->tried && !fare->refused) {
            continue;
        }

        if (fare->tried ? fare->class != LLM_CLASS_THROTTLE
                        : fare->admission != LLM_REFUSED_THROTTLED
                          && fare->limit == LLM_LIMIT_NONE)
        {
            return 0;
        }
    }

    return 1;
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

    ctx->answered = status;

    /* a limit of the caller's own key is nobody else's */

    ngx_http_llm_report(ctx, &ctx->now,
                        class == LLM_CLASS_THROTTLE
                        && ctx->now.provider->client_key
                        ? LLM_CLASS_NEUTRAL : class,
                        hint, fault, status);

    /* what it has generated so far will be on its bill */

    ngx_http_llm_settle(ctx, &ctx->now, ctx->content ? LLM_TOKENS_UNKNOWN : 0);

    if (ngx_http_llm_retry_same(r, ctx, hint) != NGX_OK) {

        ngx_http_llm_choose_next(r, ctx, fault);

        if (ctx->next.provider == NULL) {
            ngx_http_llm_retry_round(r, ctx);
        }
    }

    p = status ? ngx_sprintf(what, "status %ui", status)
               : ngx_sprintf(what, "%s", ngx_http_llm_fault(fault));

    ms = ngx_current_msec - r->upstream->start_time;

    if (ctx->next.provider) {
        ngx_log_error(ngx_http_llm_log_attempts(r), r->connection->log, 0,
                      "llm: provider \"%V\": %*s (%s) after %Mms, "
                      "next is \"%V\"",
                      &ctx->now.provider->name, (size_t) (p - what), what,
                      llm_class_name(class), ms, &ctx->next.provider->name);
        return;
    }

    ngx_log_error(ngx_http_llm_log_attempts(r), r->connection->log, 0,
                  "llm: provider \"%V\": %*s (%s) after %Mms, %s",
                  &ctx->now.provider->name, (size_t) (p - what), what,
                  llm_class_name(class), ms,
                  ctx->pause ? "next after a pause" : "no other left");
}


/* The next provider is admitted before nginx is told that there is one. */

static void
ngx_http_llm_choose_next(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_fault_e fault)
{
    ngx_uint_t  tries;

    tries = r->upstream->conf->next_upstream_tries;

    if ((tries && ctx->attempts >= tries)
        || !ngx_http_llm_goes_on_from(r, ctx, fault))
    {
        return;
    }

    (void) ngx_http_llm_choose(ctx);
}


/* Whether something may follow an attempt that ended so. */

ngx_uint_t
ngx_http_llm_goes_on_from(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_fault_e fault)
{
    ngx_uint_t  mask;

    switch (fault) {

    case NGX_HTTP_LLM_FAULT_STATUS:
    case NGX_HTTP_LLM_FAULT_HEADER:
    case NGX_HTTP_LLM_FAULT_BROKEN:
    case NGX_HTTP_LLM_FAULT_ERROR_EVENT:
    case NGX_HTTP_LLM_FAULT_UNREADABLE:
    case NGX_HTTP_LLM_FAULT_EMPTY:
        mask = NGX_HTTP_UPSTREAM_FT_INVALID_HEADER;
        break;

    case NGX_HTTP_LLM_FAULT_CONNECT_TIMEOUT:
    case NGX_HTTP_LLM_FAULT_HEADER_TIMEOUT:
    case NGX_HTTP_LLM_FAULT_FIRST_TOKEN_TIMEOUT:
    case NGX_HTTP_LLM_FAULT_IDLE_TIMEOUT:
    case NGX_HTTP_LLM_FAULT_DEADLINE:
        mask = NGX_HTTP_UPSTREAM_FT_TIMEOUT;
        break;

    default:
        mask = NGX_HTTP_UPSTREAM_FT_ERROR;
    }

    if (ctx->route->deadline
        && ngx_current_msec - ctx->start >= ctx->route->deadline)
    {
        return 0;
    }

    return ngx_http_llm_goes_on(r, mask);
}


/* What nginx asks itself, where an attempt has ended so. */

static ngx_uint_t
ngx_http_llm_goes_on(ngx_http_request_t *r, ngx_uint_t mask)
{
    ngx_msec_t            timeout;
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (u->request_sent
        && (r->method & (NGX_HTTP_POST|NGX_HTTP_LOCK|NGX_HTTP_PATCH)))
    {
        mask |= NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT;
    }

    timeout = u->conf->next_upstream_timeout;

    return (u->conf->next_upstream & mask) == mask
           && !(timeout && ngx_current_msec - u->peer.start_time >= timeout);
}
