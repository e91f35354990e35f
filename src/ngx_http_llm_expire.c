
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_answer.h"
#include "ngx_http_llm_attempt.h"
#include "ngx_http_llm_ctx.h"


/*
 * A deadline is over: what it was for ends.
 */


static void ngx_http_llm_expire_progress(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_expire_attempt(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_fault_e fault);
static void ngx_http_llm_expire_end(ngx_http_request_t *r);


void
ngx_http_llm_expire(ngx_event_t *ev)
{
    ngx_connection_t         *c, *pc;
    ngx_http_request_t       *r;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_deadline_t   next;

    ctx = ev->data;
    r = ctx->request;
    c = r->connection;
    pc = r->upstream->peer.connection;

    ev->timedout = 0;

    if (pc == NULL || ctx->now.provider == NULL) {
        return;
    }

    if (ctx->committed) {
        ngx_http_llm_expire_progress(r, ctx);
    }

    if (ctx->pausing && pc->write->timer_set) {
        ngx_del_timer(pc->write);
    }

    next = ngx_http_llm_deadline_next(ctx);

    if (next.left == NGX_HTTP_LLM_NEVER) {
        return;
    }

    if (next.left) {
        ngx_add_timer(ev, next.left);
        return;
    }

    ngx_http_set_log_request(c->log, r);

    switch (next.then) {

    case NGX_HTTP_LLM_DEADLINE_COMMIT:
        ngx_http_llm_hold_over(r, ctx);
        break;

    case NGX_HTTP_LLM_DEADLINE_RESUME:
        ngx_http_llm_pause_over(r, ctx);
        break;

    case NGX_HTTP_LLM_DEADLINE_END:
        ngx_http_llm_expire_end(r);
        break;

    default:
        ngx_http_llm_expire_attempt(r, ctx, next.fault);
    }

    ngx_http_run_posted_requests(c);
}


/* What our filter has not seen of an answer. */

static void
ngx_http_llm_expire_progress(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (u->pipe && u->pipe->read_length != ctx->read_length) {

        /* nginx's buffers fill, and our filter is not asked yet */

        ctx->read_length = u->pipe->read_length;
        ctx->last_read = ngx_current_msec;
    }

    if (u->peer.connection->read->ready || r->connection->buffered) {

        /* it is the caller who is slow */

        ctx->last_read = ngx_current_msec;
    }
}


/* Ends the attempt, or the answer, as a timeout of nginx's own would. */

static void
ngx_http_llm_expire_attempt(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_fault_e fault)
{
    ngx_event_t       *ev;
    ngx_connection_t  *pc;

    pc = r->upstream->peer.connection;

    ctx->fault = fault;

    if (ctx->pausing) {

        /* nobody is asked any more */

        r->upstream->peer.tries = 0;
    }

    ev = (!ctx->committed
          && r->upstream->state->connect_time == (ngx_msec_t) -1)
         ? pc->write : pc->read;

    ev->timedout = 1;

    ev->handler(ev);
}


/* Ends an answer that is complete but for the end of its connection. */

static void
ngx_http_llm_expire_end(ngx_http_request_t *r)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

    u->keepalive = 0;

    if (u->buffering) {
        u->pipe->upstream_done = 1;

    } else {
        u->length = 0;
    }

    u->peer.connection->read->handler(u->peer.connection->read);
}
