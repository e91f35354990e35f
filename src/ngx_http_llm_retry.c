
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_attempt.h"
#include "ngx_http_llm_choice.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_zone.h"


/*
 * Once more, after a pause: the same provider, or the whole route.
 *
 * A pause is spent inside of nginx's upstream, on a socket that is connected
 * to nobody: nginx believes to be connecting, so it notices when the caller
 * leaves, and a timer of ours ends it.
 */


static ngx_int_t ngx_http_llm_retry_allowed(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, uint32_t hint);
static uint32_t ngx_http_llm_retry_wait(ngx_http_llm_ctx_t *ctx,
    ngx_uint_t i);


/*
 * The attempt has failed: may the same provider be asked again?  Not where
 * it was silent, and not where it has begun to answer.
 */

ngx_int_t
ngx_http_llm_retry_same(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    uint32_t hint)
{
    ngx_http_llm_fare_t   *fare;
    ngx_http_llm_retry_t  *retry;

    retry = &ctx->route->retry;
    fare = &ctx->fares[ctx->now.use];

    if (fare->again >= retry->same) {
        return NGX_DECLINED;
    }

    switch (fare->class) {

    case LLM_CLASS_FAILURE:

        if (fare->fault != NGX_HTTP_LLM_FAULT_CONNECT
            && fare->fault != NGX_HTTP_LLM_FAULT_TLS
            && fare->fault != NGX_HTTP_LLM_FAULT_CLOSED
            && fare->fault != NGX_HTTP_LLM_FAULT_STATUS)
        {
            return NGX_DECLINED;
        }

        break;

    case LLM_CLASS_THROTTLE:

        if (hint == 0 || hint > retry->pause.max) {
            return NGX_DECLINED;
        }

        break;

    default:
        return NGX_DECLINED;
    }

    if (ngx_http_llm_retry_allowed(r, ctx, hint) != NGX_OK) {
        return NGX_DECLINED;
    }

    fare->again++;

    ctx->same = ctx->now.use;

    return NGX_OK;
}


/* Nobody is left in this round: is there another one? */

void
ngx_http_llm_retry_round(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    uint32_t              wait, soonest;
    ngx_uint_t            i;
    ngx_http_llm_fare_t  *fare;

    if (ctx->round + 1 >= ctx->route->retry.rounds) {
        return;
    }

    soonest = LLM_CIRCUIT_WAIT_UNKNOWN;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        fare = &ctx->fares[i];

        if (fare->serves) {
            wait = ngx_http_llm_retry_wait(ctx, i);
            soonest = ngx_min(soonest, wait);
        }
    }

    /* a pause longer than any of llm_retry is not what callers wait for */

    if (soonest > ctx->route->retry.pause.max
        || ngx_http_llm_retry_allowed(r, ctx, soonest) != NGX_OK)
    {
        return;
    }

    ctx->round++;
    ctx->same = NGX_HTTP_LLM_NO_USE;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        fare = &ctx->fares[i];

        if (ngx_http_llm_retry_wait(ctx, i) != LLM_CIRCUIT_WAIT_UNKNOWN) {
            fare->tried = 0;
            fare->again = 0;
        }
    }

    ngx_http_llm_choose_again(ctx);
}


/* Behind the pause: the provider that it was for, or whoever admits. */

void
ngx_http_llm_retry_choose(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->same != NGX_HTTP_LLM_NO_USE
        && ngx_http_llm_ask(ctx, ctx->same) == NGX_OK)
    {
        return;
    }

    (void) ngx_http_llm_choose(ctx);
}


/* How long a provider is better left alone before it is asked once more. */

static uint32_t
ngx_http_llm_retry_wait(ngx_http_llm_ctx_t *ctx, ngx_uint_t i)
{
    uint32_t                   wait;
    ngx_http_llm_use_t        *use;
    ngx_http_llm_fare_t       *fare;
    ngx_http_llm_main_conf_t  *mcf;

    fare = &ctx->fares[i];

    if (!fare->tried) {
        return fare->refused ? fare->wait : LLM_CIRCUIT_WAIT_UNKNOWN;
    }

    switch (fare->class) {

    case LLM_CLASS_THROTTLE:
        return fare->wait;

    case LLM_CLASS_FAILURE:

        /* a silent provider is not asked again */

        switch (fare->fault) {

        case NGX_HTTP_LLM_FAULT_CONNECT_TIMEOUT:
        case NGX_HTTP_LLM_FAULT_HEADER_TIMEOUT:
        case NGX_HTTP_LLM_FAULT_FIRST_TOKEN_TIMEOUT:
        case NGX_HTTP_LLM_FAULT_IDLE_TIMEOUT:
            return LLM_CIRCUIT_WAIT_UNKNOWN;

        default:

            /* it may have opened its circuit */

            mcf = ngx_http_get_module_main_conf(ctx->request,
                                                ngx_http_llm_module);
            use = ctx->route->uses.elts;

            (void) llm_circuit_peek(&use[i].provider->record->circuit,
                                    &use[i].provider->circuit,
                                    ngx_http_llm_now(mcf), &wait);
            return wait;
        }

    default:
        return LLM_CIRCUIT_WAIT_UNKNOWN;
    }
}


/* Sets ctx->pause where deadline, budget and nginx allow a retry. */

static ngx_int_t
ngx_http_llm_retry_allowed(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    uint32_t hint)
{
    uint32_t                   left, pause;
    ngx_uint_t                 mask;
    ngx_msec_t                 spent;
    ngx_http_upstream_t       *u;
    ngx_http_llm_main_conf_t  *mcf;

    u = r->upstream;

    /* a pause ends as a timeout, for nginx */

    mask = NGX_HTTP_UPSTREAM_FT_TIMEOUT|NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT;

    if ((u->conf->next_upstream & mask) != mask
        || (u->conf->next_upstream_tries
            && ctx->attempts >= u->conf->next_upstream_tries)
        || u->conf->next_upstream_timeout)
    {
        return NGX_DECLINED;
    }

    left = LLM_RETRY_NO_DEADLINE;

    if (ctx->route->deadline) {
        spent = ngx_current_msec - ctx->start;

        left = spent < ctx->route->deadline
               ? (uint32_t) (ctx->route->deadline - spent) : 0;
    }

    if (!llm_retry_pause(&ctx->route->retry.pause, (uint32_t) ctx->pauses,
                         hint, left, (uint32_t) ngx_random(), &pause))
    {
        return NGX_DECLINED;
    }

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    if (!llm_budget_take(&ctx->route->record->budget,
                         ctx->route->retry.budget, ngx_http_llm_now(mcf)))
    {
        return NGX_DECLINED;
    }

    ctx->pauses++;
    ctx->pause = pause ? pause : 1;

    return NGX_OK;
}


/* From get(): nothing is connected to for ctx->pause milliseconds. */

ngx_int_t
ngx_http_llm_pause(ngx_peer_connection_t *pc, ngx_http_llm_ctx_t *ctx)
{
    ngx_socket_t       s;
    ngx_connection_t  *c;

    s = ngx_socket(AF_UNIX, SOCK_STREAM, 0);

    if (s == (ngx_socket_t) -1) {
        ngx_log_error(NGX_LOG_ERR, pc->log, ngx_socket_errno,
                      ngx_socket_n " failed");
        return NGX_ERROR;
    }

    c = ngx_get_connection(s, pc->log);

    if (c == NULL) {
        if (ngx_close_socket(s) == -1) {
            ngx_log_error(NGX_LOG_ALERT, pc->log, ngx_socket_errno,
                          ngx_close_socket_n " failed");
        }

        return NGX_ERROR;
    }

    c->type = SOCK_STREAM;
    c->recv = ngx_recv;
    c->send = ngx_send;
    c->recv_chain = ngx_recv_chain;
    c->send_chain = ngx_send_chain;
    c->log = pc->log;
    c->log_error = pc->log_error;
    c->read->log = pc->log;
    c->write->log = pc->log;
    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    c->start_time = ngx_current_msec;

    pc->connection = c;
    pc->sockaddr = NULL;
    pc->name = &ctx->now.provider->name;

    ctx->request->upstream->request_sent = 0;

    if (!ctx->pausing) {
        ctx->pausing = 1;
        ctx->pause_start = ngx_current_msec;
    }

    /* at once: nginx sets a timer for the connect, which must not end it */

    ngx_http_llm_deadline_stop(ctx);

    ngx_add_timer(&ctx->timer, 1);

    return NGX_AGAIN;
}


/*
 * From the timer: nginx is led to its next attempt.  What it would log of
 * the timeout is no error, so the log is told to be silent until get() is
 * called, or the request is over.
 */

void
ngx_http_llm_pause_over(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_log_t    *log;
    ngx_event_t  *wev;

    log = r->connection->log;

    ctx->pausing = 0;
    ctx->resumed = 1;
    ctx->log_level = log->log_level;

    log->log_level = ngx_min(log->log_level, NGX_LOG_CRIT);

    r->upstream->peer.tries = 1;

    wev = r->upstream->peer.connection->write;

    wev->timedout = 1;
    wev->handler(wev);
}


/* The pause is behind us, and leaves no trace in $upstream_addr and others. */

void
ngx_http_llm_pause_done(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_array_t                *states;
    ngx_http_upstream_state_t  *state;

    if (!ctx->resumed) {
        return;
    }

    ctx->resumed = 0;
    ctx->pause = 0;

    r->connection->log->log_level = ctx->log_level;

    states = r->upstream_states;
    state = states->elts;

    if (states->nelts > 1
        && r->upstream->state == &state[states->nelts - 1])
    {
        state[states->nelts - 2] = state[states->nelts - 1];
        states->nelts--;
        r->upstream->state--;
    }
}
