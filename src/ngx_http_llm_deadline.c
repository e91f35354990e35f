
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_answer.h"
#include "ngx_http_llm_attempt.h"
#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_route.h"


/*
 * All deadlines of a request, one timer for them.  The timer is only ever
 * brought forward: when it fires, ngx_http_llm_expire() finds out which
 * deadline is the next by now, and sleeps on where that is still ahead.
 */


/* a stream that has said its finish_reason has that long to say [DONE] */

#define NGX_HTTP_LLM_LINGER  1000

static void ngx_http_llm_deadline_attempt(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_deadline_t *next);
static void ngx_http_llm_deadline_sooner(ngx_http_llm_deadline_t *next,
    ngx_msec_t since, ngx_msec_t time, ngx_http_llm_deadline_e then,
    ngx_http_llm_fault_e fault);


/* Something happened that may have brought a deadline nearer. */

void
ngx_http_llm_deadline_update(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_deadline_t  next;

    next = ngx_http_llm_deadline_next(ctx);

    if (next.left == NGX_HTTP_LLM_NEVER) {
        return;
    }

    if (ctx->timer.timer_set) {

        if ((ngx_msec_int_t) (ctx->timer.timer.key - ngx_current_msec)
            <= (ngx_msec_int_t) next.left)
        {
            return;
        }

        ngx_del_timer(&ctx->timer);
    }

    ngx_add_timer(&ctx->timer, next.left);
}


void
ngx_http_llm_deadline_stop(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }
}


/* Which deadline is the next, and what follows when it is over. */

ngx_http_llm_deadline_t
ngx_http_llm_deadline_next(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_deadline_t   next;
    ngx_http_llm_timeouts_t  *timeout;

    next.left = NGX_HTTP_LLM_NEVER;
    next.then = NGX_HTTP_LLM_DEADLINE_FAIL;
    next.fault = NGX_HTTP_LLM_FAULT_NONE;

    if (ctx->route->deadline) {
        ngx_http_llm_deadline_sooner(&next, ctx->start, ctx->route->deadline,
                                     NGX_HTTP_LLM_DEADLINE_FAIL,
                                     NGX_HTTP_LLM_FAULT_DEADLINE);
    }

    if (ctx->pausing) {
        ngx_http_llm_deadline_sooner(&next, ctx->pause_start, ctx->pause,
                                     NGX_HTTP_LLM_DEADLINE_RESUME,
                                     NGX_HTTP_LLM_FAULT_NONE);
        return next;
    }

    if (!ctx->committed) {
        ngx_http_llm_deadline_attempt(ctx, &next);
        return next;
    }

    timeout = &ctx->now.provider->timeout;

    if (ctx->dead) {
        ngx_http_llm_deadline_sooner(&next, ctx->last_read, 0,
                                     NGX_HTTP_LLM_DEADLINE_END,
                                     NGX_HTTP_LLM_FAULT_NONE);

    } else if (ctx->finished) {
        ngx_http_llm_deadline_sooner(&next, ctx->last_read,
                                     NGX_HTTP_LLM_LINGER,
                                     NGX_HTTP_LLM_DEADLINE_END,
                                     NGX_HTTP_LLM_FAULT_NONE);
    } else {
        ngx_http_llm_deadline_sooner(&next, ctx->last_read, timeout->idle,
                                     NGX_HTTP_LLM_DEADLINE_FAIL,
                                     NGX_HTTP_LLM_FAULT_IDLE_TIMEOUT);
    }

    return next;
}


/* Before the commit. */

static void
ngx_http_llm_deadline_attempt(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_deadline_t *next)
{
    ngx_uint_t                held;
    ngx_msec_t                connected;
    ngx_http_upstream_t      *u;
    ngx_http_llm_commit_t    *commit;
    ngx_http_llm_timeouts_t  *timeout;

    u = ctx->request->upstream;
    timeout = &ctx->now.provider->timeout;
    held = ctx->hold && ctx->hold->what != NGX_HTTP_LLM_HOLD_NOTHING;

    if (ctx->stream && timeout->first_token && !ctx->content) {
        ngx_http_llm_deadline_sooner(next, u->start_time,
                                     timeout->first_token,
                                     NGX_HTTP_LLM_DEADLINE_FAIL,
                                     NGX_HTTP_LLM_FAULT_FIRST_TOKEN_TIMEOUT);
    }

    if (held) {
        ngx_http_llm_deadline_sooner(next, ctx->last_read, timeout->idle,
                                     NGX_HTTP_LLM_DEADLINE_FAIL,
                                     NGX_HTTP_LLM_FAULT_IDLE_TIMEOUT);

        commit = &ctx->route->commit;

        if (ctx->content && commit->time) {
            ngx_http_llm_deadline_sooner(next, ctx->first_token, commit->time,
                                         NGX_HTTP_LLM_DEADLINE_COMMIT,
                                         NGX_HTTP_LLM_FAULT_NONE);
        }

        return;
    }

    connected = u->state->connect_time;

    if (connected == (ngx_msec_t) -1) {
        ngx_http_llm_deadline_sooner(next, u->start_time, timeout->connect,
                                     NGX_HTTP_LLM_DEADLINE_FAIL,
                                     NGX_HTTP_LLM_FAULT_CONNECT_TIMEOUT);
        connected = 0;
    }

    ngx_http_llm_deadline_sooner(next, u->start_time + connected,
                                 ctx->stream ? timeout->header
                                             : timeout->answer,
                                 NGX_HTTP_LLM_DEADLINE_FAIL,
                                 NGX_HTTP_LLM_FAULT_HEADER_TIMEOUT);
}


static void
ngx_http_llm_deadline_sooner(ngx_http_llm_deadline_t *next, ngx_msec_t since,
    ngx_msec_t time, ngx_http_llm_deadline_e then, ngx_http_llm_fault_e fault)
{
    ngx_msec_int_t  left;

    left = (ngx_msec_int_t) (since + time - ngx_current_msec);

    if (left < 0) {
        left = 0;
    }

    if ((ngx_msec_t) left < next->left) {
        next->left = left;
        next->then = then;
        next->fault = fault;
    }
}
