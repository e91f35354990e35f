
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_answer.h"
#include "ngx_http_llm_attempt.h"
#include "ngx_http_llm_choice.h"
#include "ngx_http_llm_connect.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_member.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"


/*
 * An attempt, seen from nginx's upstream machinery:
 *
 *     content handler      hooks are set, before nginx makes a request
 *     get                  the admitted provider: its address, its request
 *     process_header       the answer's header: the verdict, commit or next
 *     free                 the attempt is over
 *     finalize_request     the request is over
 *
 * What free() is told is not what happened: the verdict is given where it is
 * known, and free() only speaks for attempts that died without one.
 */


static void ngx_http_llm_hook(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_create_nothing(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_get_peer(ngx_peer_connection_t *pc, void *data);
static ngx_int_t ngx_http_llm_get_provider(ngx_peer_connection_t *pc,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_begin(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_use_schema(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider);
static void ngx_http_llm_answered(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_uint_t n);
static ngx_int_t ngx_http_llm_start_over(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static ngx_http_llm_fault_e ngx_http_llm_what_failed(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_finalize_request(ngx_http_request_t *r,
    ngx_int_t rc);


/*
 * llm_pass: the proxy module's handler, and the upstream started by us.
 * nginx would make a request before it asks for a peer, and it leaves
 * r->aio alone, so that stops it where the hooks can be set.
 */

ngx_int_t
ngx_http_llm_content_handler(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_upstream_t  *u;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    r->aio = 1;

    rc = ctx->content_handler(r);

    r->aio = 0;

    if (rc != NGX_DONE) {
        return rc;
    }

    u = r->upstream;

    ngx_http_llm_hook(r, ctx);

    u->create_request = ngx_http_llm_create_nothing;

    ngx_http_upstream_init(r);

    return NGX_DONE;
}


static void
ngx_http_llm_hook(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    ctx->create_request = u->create_request;
    ctx->reinit_request = u->reinit_request;
    ctx->process_header = u->process_header;
    ctx->finalize_request = u->finalize_request;
    ctx->input_filter_init = u->input_filter_init;

    u->process_header = ngx_http_llm_process_header;
    u->finalize_request = ngx_http_llm_finalize_request;
    u->input_filter_init = ngx_http_llm_watch_framing;

    ctx->upstream = u;

    ctx->timer.handler = ngx_http_llm_expire;
    ctx->timer.log = r->connection->log;
    ctx->timer.data = ctx;

    ctx->http_version = r->http_version;
    ctx->hooked = 1;
}


/* The request is made in get_peer(), for the provider of each attempt. */

static ngx_int_t
ngx_http_llm_create_nothing(ngx_http_request_t *r)
{
    r->upstream->request_bufs = NULL;

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_upstream_t  *u;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);
    u = r->upstream;

    if (ctx == NULL) {
        ctx = ngx_http_llm_clone_ctx(r);
    }

    if (ctx == NULL || ctx->route->uscf != us
        || u->output.tag != (ngx_buf_tag_t) &ngx_http_proxy_module)
    {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "llm: upstream \"%V\" is a route of providers: "
                      "expected \"llm_pass %V\", or \"llm_gate %V\" and "
                      "\"proxy_pass https://%V\" in this location",
                      &us->host, &us->host, &us->host, &us->host);
        return NGX_ERROR;
    }

    if (!ctx->hooked) {
        ngx_http_llm_hook(r, ctx);
    }

    u->peer.data = ctx;
    u->peer.get = ngx_http_llm_get_peer;
    u->peer.free = ngx_http_llm_free_peer;
    u->peer.tries = 1;
#if (NGX_HTTP_SSL)
    u->peer.set_session = ngx_http_llm_set_session;
    u->peer.save_session = ngx_http_llm_save_session;
#endif

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_ctx_t *ctx = data;

    ngx_int_t            rc;
    ngx_uint_t           again;
    ngx_http_request_t  *r;

    r = ctx->request;
    again = ctx->attempts;

    pc->cached = 0;
    pc->connection = NULL;

    ngx_http_llm_answered(r, ctx, 2);

    /* nginx adds one for a connection that it found closed */

    pc->tries = 1;

    if (ctx->again) {
        ctx->again = 0;

    } else {

        rc = ngx_http_llm_get_provider(pc, ctx);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    ngx_http_llm_begin(ctx);

    if ((again && ngx_http_llm_start_over(r, ctx) != NGX_OK)
        || ngx_http_llm_get_address(pc, ctx) != NGX_OK
        || ngx_http_llm_use_schema(r, ctx->now.provider) != NGX_OK
        || ngx_http_llm_request_create(r, ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_llm_deadline_update(ctx);

    return NGX_OK;
}


/* Whoever was admitted is asked now; or else what get_peer() is to return. */

static ngx_int_t
ngx_http_llm_get_provider(ngx_peer_connection_t *pc, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_request_t  *r;

    r = ctx->request;

    if (ctx->pause && !ctx->resumed) {
        return ngx_http_llm_pause(pc, ctx);
    }

    if (ctx->resumed) {
        ngx_http_llm_pause_done(r, ctx);
        ngx_http_llm_retry_choose(ctx);
    }

    if (ctx->next.provider == NULL && ctx->attempts == 0
        && ngx_http_llm_choose(ctx) != NGX_OK)
    {
        return ngx_http_llm_nobody(r, ctx);
    }

    if (ctx->next.provider == NULL) {
        return NGX_BUSY;
    }

    if (ctx->attempts && ctx->next.use != ctx->now.use) {
        ngx_http_llm_failed_over(r, ctx->route, ctx->now.use, ctx->next.use);
    }

    ctx->now = ctx->next;
    ctx->next.provider = NULL;
    ctx->next.token.kind = LLM_TOKEN_NONE;

    ctx->attempts++;
    ctx->addresses = 0;
    ctx->fallback = (ctx->now.use != ctx->first);

    return NGX_OK;
}


/* Nothing is known yet of what comes of this attempt. */

static void
ngx_http_llm_begin(ngx_http_llm_ctx_t *ctx)
{
    ctx->fault = NGX_HTTP_LLM_FAULT_NONE;
    ctx->content = 0;
    ctx->token = 0;
    ctx->sent = ngx_http_llm_stopwatch();
    ctx->watch = 0;

    if (ctx->hold) {
        ctx->hold->what = NGX_HTTP_LLM_HOLD_NOTHING;
        ctx->hold->bytes = 0;
    }
}


static ngx_int_t
ngx_http_llm_use_schema(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    u->schema = provider->schema;

#if (NGX_HTTP_SSL)

    if (provider->ssl
        && (u->conf->ssl == NULL || u->conf->ssl->ctx == NULL))
    {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "llm: endpoint of provider \"%V\" is https: expected "
                      "\"proxy_pass https://ROUTE\"", &provider->name);
        return NGX_ERROR;
    }

    u->ssl = provider->ssl;
    u->ssl_name = provider->tls_name;

#endif

    return NGX_OK;
}


/*
 * What a provider answered stands in $upstream_status, not the 502 that nginx
 * makes of each answer that is not taken.  The attempt is the n-th from last.
 */

static void
ngx_http_llm_answered(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_uint_t n)
{
    ngx_array_t                *states;
    ngx_http_upstream_state_t  *state;

    states = r->upstream_states;

    if (ctx->answered && states && states->nelts >= n) {
        state = states->elts;
        state[states->nelts - n].status = ctx->answered;
    }

    ctx->answered = 0;
}


/*
 * Nothing of the attempt before is left over.  It is what nginx does itself
 * where a request was sent, but nginx does it also where none was, and it
 * rewinds file buffers to the begin of the file, where a body with another
 * model has two of them.
 */

static ngx_int_t
ngx_http_llm_start_over(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (ctx->reinit_request(r) != NGX_OK) {
        return NGX_ERROR;
    }

    ctx->process_header = u->process_header;
    u->process_header = ngx_http_llm_process_header;

    r->http_version = ctx->http_version;

    u->buffering = u->conf->buffering;
    u->request_sent = 0;
    u->keepalive = 0;
    u->upgrade = 0;
    u->error = 0;
#if (nginx_version >= 1029005)
    u->response_received = 0;
#endif

    ngx_memzero(&u->headers_in, sizeof(ngx_http_upstream_headers_in_t));
    u->headers_in.content_length_n = -1;
    u->headers_in.last_modified_time = -1;

    if (ngx_list_init(&u->headers_in.headers, r->pool, 8,
                      sizeof(ngx_table_elt_t))
        != NGX_OK
        || ngx_list_init(&u->headers_in.trailers, r->pool, 2,
                         sizeof(ngx_table_elt_t))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (r->request_body && r->request_body->temp_file
        && r != r->main && u->output.buf)
    {
        u->output.free = ngx_alloc_chain_link(r->pool);
        if (u->output.free == NULL) {
            return NGX_ERROR;
        }

        u->output.free->buf = u->output.buf;
        u->output.free->next = NULL;

        u->output.buf->pos = u->output.buf->start;
        u->output.buf->last = u->output.buf->start;
    }

    u->output.buf = NULL;
    u->output.in = NULL;
    u->output.busy = NULL;

    u->buffer.pos = u->buffer.start;

#if (NGX_HTTP_CACHE)

    if (r->cache) {
        u->buffer.pos += r->cache->header_start;
    }

#endif

    u->buffer.last = u->buffer.pos;

    return NGX_OK;
}


static void
ngx_http_llm_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    ngx_http_llm_ctx_t *ctx = data;

    llm_class_t            class;
    ngx_http_request_t    *r;
    ngx_http_upstream_t   *u;
    ngx_http_llm_fault_e   fault;

    r = ctx->request;
    u = r->upstream;

    ngx_http_llm_deadline_stop(ctx);

    if (!(state & NGX_PEER_FAILED)) {
        pc->tries = 0;
        return;
    }

    if (ctx->now.token.kind != LLM_TOKEN_NONE) {

        fault = ngx_http_llm_what_failed(r, ctx);

        if (fault == NGX_HTTP_LLM_FAULT_CLOSED
            && pc->cached && u->state->bytes_received == 0)
        {
            /* an idle connection that was closed: nobody's failure */

            ctx->again = 1;
            pc->tries = 1;

            return;
        }

        if (r->connection->error) {

            /* the caller is gone, and so is the interest in an answer */

            ngx_http_llm_report(ctx, &ctx->now, LLM_CLASS_NEUTRAL, 0,
                                NGX_HTTP_LLM_FAULT_NONE, 0);
            pc->tries = 0;
            return;
        }

        if (ngx_http_llm_has_other_address(r, ctx, fault)) {
            ctx->again = 1;
            pc->tries = 1;

            return;
        }

        /* whoever was asked before has spent the time of the request */

        class = (fault == NGX_HTTP_LLM_FAULT_DEADLINE && ctx->attempts > 1)
                ? LLM_CLASS_NEUTRAL : LLM_CLASS_FAILURE;

        ngx_http_llm_attempt_failed(r, ctx, class, 0, fault, 0);
    }

    pc->tries = (ctx->next.provider || ctx->pause) ? 1 : 0;
}


static ngx_http_llm_fault_e
ngx_http_llm_what_failed(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_fault_e  fault;

    if (ctx->fault != NGX_HTTP_LLM_FAULT_NONE) {
        return ctx->fault;
    }

    fault = ngx_http_llm_transport_fault(r);

    if (ctx->hold && ctx->hold->what != NGX_HTTP_LLM_HOLD_NOTHING
        && fault != NGX_HTTP_LLM_FAULT_HEADER_TIMEOUT)
    {
        return NGX_HTTP_LLM_FAULT_BROKEN;
    }

    return fault;
}


ngx_http_llm_fault_e
ngx_http_llm_transport_fault(ngx_http_request_t *r)
{
    ngx_uint_t            connected;
    ngx_connection_t     *c;
    ngx_http_upstream_t  *u;

    u = r->upstream;
    c = u->peer.connection;

    connected = u->state->connect_time != (ngx_msec_t) -1;

    if (c && (c->read->timedout || c->write->timedout)) {
        return connected ? NGX_HTTP_LLM_FAULT_HEADER_TIMEOUT
                         : NGX_HTTP_LLM_FAULT_CONNECT_TIMEOUT;
    }

    if (!connected) {
#if (NGX_HTTP_SSL)
        if (c && c->ssl) {
            return NGX_HTTP_LLM_FAULT_TLS;
        }
#endif
        return NGX_HTTP_LLM_FAULT_CONNECT;
    }

    if (u->buffer.start && u->buffer.last == u->buffer.end) {
        return NGX_HTTP_LLM_FAULT_HEADER;
    }

    /* connect() that failed later is seen on the first write */

    return (u->request_sent || u->peer.cached) ? NGX_HTTP_LLM_FAULT_CLOSED
                                               : NGX_HTTP_LLM_FAULT_CONNECT;
}


/*
 * The request is over; rc is how.  Called once, before the last free(), and
 * again by nginx's cleanup where another handler took over.
 */

static void
ngx_http_llm_finalize_request(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_uint_t            gone;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_upstream_t  *u;

    ctx = ngx_http_llm_upstream_ctx(r);
    u = r->upstream;

    ngx_http_llm_deadline_stop(ctx);
    ngx_http_llm_pause_done(r, ctx);
    ngx_http_llm_answered(r, ctx, 1);

    ngx_http_llm_report(ctx, &ctx->next, LLM_CLASS_NEUTRAL, 0,
                        NGX_HTTP_LLM_FAULT_NONE, 0);
    ngx_http_llm_report(ctx, &ctx->now, LLM_CLASS_NEUTRAL, 0,
                        NGX_HTTP_LLM_FAULT_NONE, 0);

    ngx_http_llm_settle(ctx, &ctx->next, 0);
    ngx_http_llm_settle(ctx, &ctx->now,
                        ctx->committed || u->request_sent
                        ? ngx_http_llm_usage_end(ctx) : 0);

    gone = rc == NGX_HTTP_CLIENT_CLOSED_REQUEST
           || r->connection->error || r->connection->timedout
           || (u->pipe && u->pipe->downstream_error && !r->header_only);

    if (gone) {
        ctx->outcome = NGX_HTTP_LLM_OUTCOME_ABORTED;

    } else if (!ctx->committed) {
        ctx->outcome = r->cached ? NGX_HTTP_LLM_OUTCOME_CACHED
                                 : NGX_HTTP_LLM_OUTCOME_ERROR;

        if (rc == NGX_HTTP_BAD_GATEWAY || rc == NGX_HTTP_GATEWAY_TIME_OUT
            || rc == NGX_HTTP_TOO_MANY_REQUESTS)
        {
            ngx_http_llm_all_failed(ctx, rc);
        }

    } else if (ngx_http_llm_watch_end(r, ctx, rc) != NGX_OK) {
        ctx->outcome = NGX_HTTP_LLM_OUTCOME_TRUNCATED;

    } else {
        ctx->outcome = ctx->fallback ? NGX_HTTP_LLM_OUTCOME_FAILOVER
                                     : NGX_HTTP_LLM_OUTCOME_OK;
        ngx_http_llm_ended(ctx);
    }

    ctx->finalize_request(r, rc);
}
