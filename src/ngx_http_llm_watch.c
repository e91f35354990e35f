
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_answer.h"
#include "ngx_http_llm_attempt.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_log.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_slot.h"


/*
 * Behind the commit: an event stream is read along on its way to the caller,
 * unchanged.  It tells when it is finished; one that breaks before is told to
 * the caller in the stream, and never looks complete.
 */


static ngx_int_t ngx_http_llm_watch_filter(void *data, ssize_t bytes);
static ngx_int_t ngx_http_llm_watch_pipe_filter(ngx_event_pipe_t *p,
    ngx_buf_t *buf);
static void ngx_http_llm_watch_break(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_fault_e fault, ngx_uint_t open);


/*
 * From nginx, behind the commit.  An answer whose framing is wrong ends with
 * NGX_ERROR, as one does for which there is no disk or memory: only the
 * filters that take the framing off know the difference.
 */

ngx_int_t
ngx_http_llm_watch_framing(void *data)
{
    ngx_http_request_t *r = data;

    ngx_http_llm_ctx_t   *ctx;
    ngx_http_upstream_t  *u;

    ctx = ngx_http_llm_upstream_ctx(r);
    u = r->upstream;

    if (ctx->input_filter_init(data) != NGX_OK) {
        return NGX_ERROR;
    }

    ctx->input_filter = u->input_filter;
    ctx->pipe_filter = u->pipe->input_filter;

    u->input_filter = ngx_http_llm_watch_filter;
    u->pipe->input_filter = ngx_http_llm_watch_pipe_filter;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_watch_filter(void *data, ssize_t bytes)
{
    ngx_http_request_t *r = data;

    ngx_int_t            rc;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_upstream_ctx(r);

    rc = ctx->input_filter(data, bytes);

    ctx->misframed = (rc == NGX_ERROR);

    return rc;
}


static ngx_int_t
ngx_http_llm_watch_pipe_filter(ngx_event_pipe_t *p, ngx_buf_t *buf)
{
    ngx_int_t            rc;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_upstream_ctx(p->input_ctx);

    rc = ctx->pipe_filter(p, buf);

    ctx->misframed = (rc == NGX_ERROR);

    return rc;
}


/* Bytes of the answer, those of the hold included. */

ngx_int_t
ngx_http_llm_watch(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *in)
{
    size_t       n, len;
    u_char      *p;
    unsigned     events;
    ngx_uint_t   behind;

    for ( /* void */ ; in; in = in->next) {

        if (!ngx_buf_in_memory(in->buf)) {
            continue;
        }

        if (ctx->dead) {
            in->buf->pos = in->buf->last;
            continue;
        }

        p = in->buf->pos;
        len = in->buf->last - p;

        n = ngx_min(len, ctx->watched);

        ctx->watched -= n;
        p += n;
        len -= n;

        while (len) {
            behind = ctx->injected && ctx->hold->finishes;

            n = llm_sse_scan(&ctx->hold->sse, p, len, &events);

            if (n == 0) {

                if (behind
                    && ngx_http_llm_extra_hold(r, ctx, in->buf, p) != NGX_OK)
                {
                    return NGX_ERROR;
                }

                break;
            }

            ngx_http_llm_watch_event(ctx, events);

            len -= n;

            if (behind
                && ngx_http_llm_extra_event(ctx, in->buf, p, n, events))
            {
                continue;
            }

            p += n;

            if (ctx->dead) {

                /* the provider's own word on it is the last one */

                in->buf->last = p;
                in->buf->flush = 1;
                break;
            }
        }
    }

    if (ctx->hold->sse.pending) {

        /* an event is on its way */

        ctx->last_read = ngx_current_msec;
    }

    return NGX_OK;
}


/* Whether nothing is missing but the end: of each answer, or of them all. */

ngx_uint_t
ngx_http_llm_watch_whole(ngx_http_llm_ctx_t *ctx, unsigned events)
{
    return (events & LLM_SSE_DONE)
           || (ctx->hold->finishes && ctx->hold->finishes >= ctx->answers);
}


void
ngx_http_llm_watch_event(ngx_http_llm_ctx_t *ctx, unsigned events)
{
    if (events & LLM_SSE_FINISH) {
        ctx->hold->finishes++;
    }

    if (events & LLM_SSE_CONTENT) {

        if (!ctx->content) {
            ctx->content = 1;
            ctx->first_token = ngx_current_msec;
            ctx->token = ngx_http_llm_stopwatch();

            ngx_http_llm_deadline_update(ctx);
        }
    }

    /* keep-alives are no sign of life: only these are */

    if (events & (LLM_SSE_CONTENT|LLM_SSE_CLOSING|LLM_SSE_FINISH|LLM_SSE_DONE))
    {
        ctx->last_read = ngx_current_msec;
    }

    if ((events & LLM_SSE_BROKEN) && ctx->content) {
        llm_count(ngx_http_llm_counters(ctx->now.provider->record),
                  LLM_UNREADABLE_FRAMES);
    }

    if (!ctx->committed) {
        return;
    }

    if ((events & LLM_SSE_ERROR) && !ctx->broken) {

        /* the caller sees it, too: nothing to add */

        ctx->broken = 1;
        ctx->dead = 1;
        ctx->no_last = 1;

        ngx_http_llm_report_break(ctx, NGX_HTTP_LLM_FAULT_ERROR_EVENT);
        ngx_http_llm_deadline_update(ctx);
    }

    if (ngx_http_llm_watch_whole(ctx, events) && !ctx->broken
        && !ctx->finished)
    {
        ctx->finished = 1;

        ngx_http_llm_deadline_update(ctx);
    }
}


/*
 * The answer is over for nginx, as rc says: is it for the caller?  Called
 * where it was committed and the caller is still there.  NGX_DECLINED: it is
 * incomplete, and the caller was told.
 */

ngx_int_t
ngx_http_llm_watch_end(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_int_t rc)
{
    unsigned              events;
    ngx_uint_t            open;
    ngx_http_llm_fault_e  fault;

    if (ctx->broken) {
        return NGX_DECLINED;
    }

    if (rc == NGX_ERROR && !ctx->misframed) {

        /* a full disk, for example: no break, and nothing more can be said */

        ctx->no_last = 1;

        return NGX_DECLINED;
    }

    open = 0;

    if (ctx->watch) {

        /* the last event may lack the line that ends it */

        open = llm_sse_end(&ctx->hold->sse, &events);

        ctx->hold->finishes += (events & LLM_SSE_FINISH) != 0;

        if (ngx_http_llm_watch_whole(ctx, events)) {
            ctx->finished = 1;
        }
    }

    if (ctx->watch && ctx->finished) {

        if (rc != NGX_OK && !r->header_only) {

            /* only the end of the connection is missing */

            (void) ngx_http_send_special(r, NGX_HTTP_LAST);
        }

        return NGX_OK;
    }

    if (rc != NGX_HTTP_BAD_GATEWAY && rc != NGX_HTTP_GATEWAY_TIME_OUT
        && rc != NGX_ERROR
        && !(rc == NGX_OK && ctx->watch && !r->header_only))
    {
        return NGX_OK;
    }

    fault = ctx->fault ? ctx->fault : NGX_HTTP_LLM_FAULT_BROKEN;

    if (fault != NGX_HTTP_LLM_FAULT_DEADLINE) {

        /* else it may be the caller who is slow */

        ngx_http_llm_report_break(ctx, fault);
    }

    ngx_log_error(ngx_http_llm_log_attempts(r), r->connection->log, 0,
                  "llm: provider \"%V\": %s in the answer",
                  &ctx->now.provider->name, ngx_http_llm_fault(fault));

    if (ctx->watch && !r->header_only) {
        ctx->no_last = 1;
        ngx_http_llm_watch_break(r, ctx, fault, open);
    }

    return NGX_DECLINED;
}


/* One error event in the caller's dialect; the connection is closed next. */

static void
ngx_http_llm_watch_break(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_fault_e fault, ngx_uint_t open)
{
    ngx_buf_t    *b;
    ngx_chain_t   out;

    b = ngx_http_llm_error_event(r, ctx, ngx_http_llm_fault(fault), open);
    if (b == NULL) {
        return;
    }

    /* it is ours: not to be read along */

    ctx->watch = 0;

    b->flush = 1;

    out.buf = b;
    out.next = NULL;

    (void) ngx_http_output_filter(r, &out);
}
