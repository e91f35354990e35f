
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_turn.h"


/*
 * llm_wait: where every provider refuses for now, a request waits for the
 * first that admits.  Who waits for the same, the same providers of a route,
 * stands in one line, first come, first served; and of several lines whoever
 * came first is asked first.  Each worker has lines of its own, and tells the
 * others in the zone since when its first ones wait, so that it is the same
 * among workers.
 *
 * Nothing is done for those who wait until something happens that may let
 * somebody in.  Then the first of each line is asked, and no other before it
 * has gone: that costs the same however long the lines are.
 *
 *     a call of this worker has ended           ngx_http_llm_wake()
 *     somebody comes who waits for nobody yet   ngx_http_llm_wait()
 *     a moment has come that a refusal named    the timer
 *     a call of another worker may have ended   the timer, every POLL ms
 *     a circuit was moved by hand               the timer, every LONGEST ms
 */


#define NGX_HTTP_LLM_WAIT_LONGEST  1000      /* ms */


struct ngx_http_llm_line_s {
    ngx_queue_t                   queue;          /* of lines */
    ngx_queue_t                   waiters;        /* .._ctx_t, never empty */
    ngx_uint_t                    refused;        /* in this walk */
};


static ngx_int_t ngx_http_llm_wait_in_line(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_http_llm_line_t *ngx_http_llm_line_find(ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_line_is_for(ngx_http_llm_line_t *line,
    ngx_http_llm_ctx_t *ctx);
static ngx_http_llm_line_t *ngx_http_llm_line_create(ngx_http_request_t *r);
static ngx_http_llm_ctx_t *ngx_http_llm_line_first(ngx_http_llm_line_t *line);
static void ngx_http_llm_wait_handler(ngx_event_t *ev);
static void ngx_http_llm_wait_walk(void);
static ngx_http_llm_ctx_t *ngx_http_llm_wait_next(void);
static void ngx_http_llm_wait_resume(ngx_http_llm_ctx_t *ctx);


/* of this worker */

static ngx_queue_t       ngx_http_llm_lines;
static ngx_event_t       ngx_http_llm_wait_event;
static ngx_connection_t  ngx_http_llm_wait_connection;
static ngx_uint_t        ngx_http_llm_arrivals;


void
ngx_http_llm_wait_init(ngx_cycle_t *cycle)
{
    ngx_queue_init(&ngx_http_llm_lines);

    ngx_memzero(&ngx_http_llm_wait_event, sizeof(ngx_event_t));

    /* for the debug log of timers */

    ngx_http_llm_wait_connection.fd = (ngx_socket_t) -1;

    ngx_http_llm_wait_event.data = &ngx_http_llm_wait_connection;
    ngx_http_llm_wait_event.handler = ngx_http_llm_wait_handler;
    ngx_http_llm_wait_event.log = cycle->log;
}


/*
 * NGX_OK: ctx->next is admitted; NGX_DECLINED: nobody admits, and the request
 * does not wait, or no longer; NGX_AGAIN: it waits, and its phases go on when
 * that is over; else a status.
 */

ngx_int_t
ngx_http_llm_wait(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t              rc;
    ngx_msec_t             wait;
    ngx_http_llm_line_t   *line;
    ngx_http_llm_route_t  *route;

    if (ctx->wait_over) {
        return ngx_http_llm_wait_choose(ctx);
    }

    route = ctx->route;
    ctx->wait_start = ngx_current_msec;

    line = ngx_http_llm_line_find(ctx);

    if (line == NULL || route->nwaiting >= route->wait.queue) {

        /* whoever came before is asked before */

        ngx_http_llm_wait_walk();

        line = ngx_http_llm_line_find(ctx);
    }

    if (line == NULL && ngx_http_llm_wait_ask(ctx, &wait) == NGX_OK) {
        return NGX_OK;
    }

    rc = ngx_http_llm_wait_in_line(r, ctx);

    return (rc == NGX_DECLINED) ? ngx_http_llm_wait_choose(ctx) : rc;
}


static ngx_int_t
ngx_http_llm_wait_in_line(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_msec_t             left, spent, wait;
    ngx_http_llm_line_t   *line;
    ngx_http_llm_route_t  *route;

    route = ctx->route;
    left = route->wait.time;

    if (route->deadline) {
        spent = ngx_min(ngx_current_msec - ctx->start, route->deadline);
        left = ngx_min(left, (route->deadline - spent));
    }

    if (ngx_http_llm_wait_ready(ctx, &wait) != NGX_OK
        && wait > ngx_max(left, NGX_HTTP_LLM_WAIT_POLL))
    {
        /* nobody will admit in time */

        return NGX_DECLINED;
    }

    if (route->nwaiting >= route->wait.queue) {
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "llm: %ui requests wait for route \"%V\", no more may",
                      route->nwaiting, &route->uscf->host);
        return NGX_DECLINED;
    }

    if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    line = ngx_http_llm_line_find(ctx);

    if (line == NULL) {
        line = ngx_http_llm_line_create(r);
        if (line == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    ngx_queue_insert_tail(&line->waiters, &ctx->queue);
    route->nwaiting++;

    ctx->line = line;
    ctx->arrival = ngx_http_llm_arrivals++;
    ctx->wait_until = ngx_current_msec + left;

    /* if nothing else becomes of it */

    ctx->outcome = NGX_HTTP_LLM_OUTCOME_ABORTED;

    llm_count(ngx_http_llm_counters(route->record), LLM_REQUESTS_WAITED);

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    ngx_http_llm_wake();

    return NGX_AGAIN;
}


/* A request waits no more: it goes on, or its caller has left. */

void
ngx_http_llm_wait_done(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_line_t  *line;

    line = ctx->line;

    if (line == NULL) {
        return;
    }

    if (ngx_http_llm_line_first(line) == ctx) {
        ngx_http_llm_wait_unsay(ctx);
    }

    ctx->waited = ngx_http_llm_waited(ctx);
    ctx->line = NULL;

    ngx_queue_remove(&ctx->queue);
    ctx->route->nwaiting--;

    if (ngx_queue_empty(&line->waiters)) {
        ngx_queue_remove(&line->queue);
        ngx_free(line);
    }

    if (!ngx_queue_empty(&ngx_http_llm_lines)) {
        ngx_http_llm_wake();
        return;
    }

    ngx_http_llm_wake_by(NULL);

    if (ngx_http_llm_wait_event.timer_set) {
        ngx_del_timer(&ngx_http_llm_wait_event);
    }
}


/* ms so far, or in all */

ngx_msec_t
ngx_http_llm_waited(ngx_http_llm_ctx_t *ctx)
{
    return ctx->line ? ngx_current_msec - ctx->wait_start : ctx->waited;
}


static ngx_http_llm_line_t *
ngx_http_llm_line_find(ngx_http_llm_ctx_t *ctx)
{
    ngx_queue_t          *q;
    ngx_http_llm_line_t  *line;

    if (ctx->route->nwaiting == 0) {
        return NULL;
    }

    for (q = ngx_queue_head(&ngx_http_llm_lines);
         q != ngx_queue_sentinel(&ngx_http_llm_lines);
         q = ngx_queue_next(q))
    {
        line = ngx_queue_data(q, ngx_http_llm_line_t, queue);

        if (ngx_http_llm_line_is_for(line, ctx)) {
            return line;
        }
    }

    return NULL;
}


/* Not by the model: callers may make up as many names as they like. */

static ngx_uint_t
ngx_http_llm_line_is_for(ngx_http_llm_line_t *line, ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t           i;
    ngx_http_llm_ctx_t  *first;

    first = ngx_http_llm_line_first(line);

    if (first->route != ctx->route) {
        return 0;
    }

    for (i = 0; i < ctx->route->uses.nelts; i++) {
        if (first->fares[i].serves != ctx->fares[i].serves) {
            return 0;
        }
    }

    return 1;
}


static ngx_http_llm_line_t *
ngx_http_llm_line_create(ngx_http_request_t *r)
{
    ngx_http_llm_line_t  *line;

    line = ngx_calloc(sizeof(ngx_http_llm_line_t), r->connection->log);
    if (line == NULL) {
        return NULL;
    }

    ngx_queue_init(&line->waiters);
    ngx_queue_insert_tail(&ngx_http_llm_lines, &line->queue);

    ngx_http_llm_wake_by(&ngx_http_llm_wait_event);

    return line;
}


static ngx_http_llm_ctx_t *
ngx_http_llm_line_first(ngx_http_llm_line_t *line)
{
    ngx_queue_t  *q;

    q = ngx_queue_head(&line->waiters);

    return ngx_queue_data(q, ngx_http_llm_ctx_t, queue);
}


static void
ngx_http_llm_wait_handler(ngx_event_t *ev)
{
    ev->timedout = 0;

    ngx_http_llm_wait_walk();
}


/* The first of all lines are asked, in the order in which they came. */

static void
ngx_http_llm_wait_walk(void)
{
    ngx_int_t             rc;
    ngx_msec_t            left, wait, soonest;
    ngx_queue_t          *q;
    ngx_event_t          *ev;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_llm_line_t  *line;

    if (ngx_queue_empty(&ngx_http_llm_lines)) {
        return;
    }

    soonest = NGX_HTTP_LLM_WAIT_LONGEST;

    while ((ctx = ngx_http_llm_wait_next()) != NULL) {

        left = ctx->wait_until - ngx_current_msec;
        ctx->wait_over = (ngx_msec_int_t) left <= 0;

        rc = ctx->wait_over ? NGX_OK : ngx_http_llm_wait_ask(ctx, &wait);

        if (rc == NGX_OK) {
            ngx_http_llm_wait_resume(ctx);
            continue;
        }

        ctx->line->refused = 1;

        wait = ngx_min(wait, left);
        soonest = ngx_min(soonest, wait);
    }

    ev = &ngx_http_llm_wait_event;

    if (ev->posted) {
        ngx_delete_posted_event(ev);
    }

    if (ngx_queue_empty(&ngx_http_llm_lines)) {
        return;
    }

    for (q = ngx_queue_head(&ngx_http_llm_lines);
         q != ngx_queue_sentinel(&ngx_http_llm_lines);
         q = ngx_queue_next(q))
    {
        line = ngx_queue_data(q, ngx_http_llm_line_t, queue);
        line->refused = 0;

        ngx_http_llm_wait_say(ngx_http_llm_line_first(line), soonest);
    }

    if (ev->timer_set) {
        ngx_del_timer(ev);
    }

    ngx_add_timer(ev, ngx_max(soonest, 1));
}


/* Of all who are the first in their lines, the one that came first. */

static ngx_http_llm_ctx_t *
ngx_http_llm_wait_next(void)
{
    ngx_queue_t          *q;
    ngx_http_llm_ctx_t   *ctx, *first;
    ngx_http_llm_line_t  *line;

    first = NULL;

    for (q = ngx_queue_head(&ngx_http_llm_lines);
         q != ngx_queue_sentinel(&ngx_http_llm_lines);
         q = ngx_queue_next(q))
    {
        line = ngx_queue_data(q, ngx_http_llm_line_t, queue);

        if (line->refused) {
            continue;
        }

        ctx = ngx_http_llm_line_first(line);

        if (first == NULL || (ngx_int_t) (ctx->arrival - first->arrival) < 0) {
            first = ctx;
        }
    }

    return first;
}


/*
 * The phases go on at the gate, but not from here: what a request does there
 * may end another one that waits.
 */

static void
ngx_http_llm_wait_resume(ngx_http_llm_ctx_t *ctx)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = ctx->request;
    c = r->connection;

    ngx_http_llm_wait_done(ctx);

    ctx->outcome = NGX_HTTP_LLM_OUTCOME_NONE;

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;

    if (c->data != r && ngx_http_post_request(r, NULL) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    ngx_post_event(c->write, &ngx_posted_events);
}
