
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm.h"


/*
 * A provider's deadlines, one timer for all of them.  It is only ever brought
 * forward: when it fires it finds out which deadline holds by now, and sleeps
 * on where that is still ahead.
 */


static void ngx_http_llm_deadline_set(ngx_http_llm_ctx_t *ctx, ngx_msec_t ms);
static void ngx_http_llm_deadline_handler(ngx_event_t *ev);
static void ngx_http_llm_deadline_expire(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_fault_e fault);


/* An attempt begins. */

void
ngx_http_llm_deadline_start(ngx_http_llm_ctx_t *ctx)
{
    ngx_msec_t                ms;
    ngx_http_llm_timeouts_t  *timeout;

    timeout = &ctx->now.provider->timeout;

    ms = ctx->stream ? timeout->header : timeout->answer;

    ngx_http_llm_deadline_set(ctx, ngx_min(ms, timeout->connect));
}


/* The answer is the caller's: from now on it must not stall. */

void
ngx_http_llm_deadline_commit(ngx_http_llm_ctx_t *ctx)
{
    ctx->last_read = ngx_current_msec;

    ngx_http_llm_deadline_set(ctx, ctx->now.provider->timeout.idle);
}


void
ngx_http_llm_deadline_stop(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }
}


static void
ngx_http_llm_deadline_set(ngx_http_llm_ctx_t *ctx, ngx_msec_t ms)
{
    if (ctx->timer.handler == NULL) {
        ctx->timer.handler = ngx_http_llm_deadline_handler;
        ctx->timer.log = ctx->request->connection->log;
        ctx->timer.data = ctx;
    }

    if (ctx->timer.timer_set) {

        if ((ngx_msec_int_t) (ctx->timer.timer.key - ngx_current_msec)
            <= (ngx_msec_int_t) ms)
        {
            return;
        }

        ngx_del_timer(&ctx->timer);
    }

    ngx_add_timer(&ctx->timer, ms);
}


static void
ngx_http_llm_deadline_handler(ngx_event_t *ev)
{
    ngx_msec_t                deadline;
    ngx_connection_t         *c;
    ngx_http_request_t       *r;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_upstream_t      *u;
    ngx_http_llm_fault_e      fault;
    ngx_http_llm_timeouts_t  *timeout;

    ctx = ev->data;
    r = ctx->request;
    u = r->upstream;
    c = u->peer.connection;

    ev->timedout = 0;

    if (c == NULL || ctx->now.provider == NULL) {
        return;
    }

    timeout = &ctx->now.provider->timeout;

    if (ctx->committed) {

        if (u->pipe && u->pipe->read_length != ctx->read_length) {

            /* nginx's buffers fill, and our filter is not asked yet */

            ctx->read_length = u->pipe->read_length;
            ctx->last_read = ngx_current_msec;
        }

        if (c->read->ready || r->connection->buffered) {

            /* it is the caller who is slow */

            ctx->last_read = ngx_current_msec;
        }

        deadline = ctx->last_read + timeout->idle;
        fault = NGX_HTTP_LLM_FAULT_IDLE_TIMEOUT;

    } else if (u->state->connect_time == (ngx_msec_t) -1) {
        deadline = u->start_time + timeout->connect;
        fault = NGX_HTTP_LLM_FAULT_CONNECT_TIMEOUT;

    } else {
        deadline = u->start_time + u->state->connect_time
                   + (ctx->stream ? timeout->header : timeout->answer);
        fault = NGX_HTTP_LLM_FAULT_HEADER_TIMEOUT;
    }

    if ((ngx_msec_int_t) (deadline - ngx_current_msec) > 0) {
        ngx_add_timer(ev, deadline - ngx_current_msec);
        return;
    }

    ngx_http_llm_deadline_expire(r, ctx, fault);
}


/* Ends the attempt as a timeout of nginx's own would. */

static void
ngx_http_llm_deadline_expire(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_fault_e fault)
{
    ngx_event_t       *ev;
    ngx_connection_t  *c, *pc;

    c = r->connection;
    pc = r->upstream->peer.connection;

    ctx->fault = fault;

    ev = (fault == NGX_HTTP_LLM_FAULT_CONNECT_TIMEOUT) ? pc->write : pc->read;

    ev->timedout = 1;

    ngx_http_set_log_request(c->log, r);

    ev->handler(ev);

    ngx_http_run_posted_requests(c);
}
