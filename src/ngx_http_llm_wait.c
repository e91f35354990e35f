
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_choice.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_operator.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_target.h"

#include "llm_waiting.h"


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


#define NGX_HTTP_LLM_WAIT_POLL     20      /* ms */
#define NGX_HTTP_LLM_WAIT_LONGEST  1000

/* by so much a worker may be late before it is overtaken, ms */

#define NGX_HTTP_LLM_WAIT_LATE     100


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
static ngx_int_t ngx_http_llm_wait_ask(ngx_http_llm_ctx_t *ctx,
    ngx_msec_t *wait);
static ngx_int_t ngx_http_llm_wait_ready(ngx_http_llm_ctx_t *ctx,
    ngx_msec_t *wait);
static ngx_msec_t ngx_http_llm_wait_for(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider);
static ngx_uint_t ngx_http_llm_wait_is_behind(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider);
static ngx_int_t ngx_http_llm_wait_choose(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_wait_say(ngx_http_llm_ctx_t *ctx, ngx_msec_t wait);
static void ngx_http_llm_wait_unsay(ngx_http_llm_ctx_t *ctx);
static uint32_t ngx_http_llm_wait_since(ngx_http_llm_ctx_t *ctx);
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


/* NGX_OK: ctx->next is admitted; else *wait: ms until somebody may admit. */

static ngx_int_t
ngx_http_llm_wait_ask(ngx_http_llm_ctx_t *ctx, ngx_msec_t *wait)
{
    ngx_uint_t  i;

    if (ngx_http_llm_wait_ready(ctx, wait) != NGX_OK) {
        return NGX_AGAIN;
    }

    ngx_http_llm_choose_again(ctx);

    if (ngx_http_llm_choose(ctx) != NGX_OK) {

        /* others were faster */

        *wait = NGX_HTTP_LLM_WAIT_POLL;

        return NGX_AGAIN;
    }

    /* whoever admitted may fail */

    for (i = 0; i < ctx->route->uses.nelts; i++) {
        if (ctx->fares[i].behind) {
            ctx->fares[i].behind = 0;
            ctx->select.marks[i] = LLM_SELECT_LEFT;
        }
    }

    return NGX_OK;
}


/* NGX_OK: some provider would admit; else *wait: ms until one may. */

static ngx_int_t
ngx_http_llm_wait_ready(ngx_http_llm_ctx_t *ctx, ngx_msec_t *wait)
{
    ngx_int_t             rc;
    ngx_uint_t            i;
    ngx_msec_t            ms;
    ngx_http_llm_use_t   *use;
    ngx_http_llm_fare_t  *fare;

    rc = NGX_AGAIN;
    use = ctx->route->uses.elts;

    *wait = NGX_HTTP_LLM_NEVER;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        fare = &ctx->fares[i];
        fare->behind = 0;

        if (!fare->serves
            || !ngx_http_llm_target_resolved(use[i].provider->target))
        {
            continue;
        }

        ms = ngx_http_llm_wait_for(ctx, use[i].provider);

        if (ms == 0) {
            fare->behind = ngx_http_llm_wait_is_behind(ctx, use[i].provider);

            if (!fare->behind) {
                rc = NGX_OK;
                continue;
            }

            ms = NGX_HTTP_LLM_WAIT_POLL;
        }

        *wait = ngx_min(*wait, ms);
    }

    return rc;
}


/* ms until the provider may admit, 0: it would */

static ngx_msec_t
ngx_http_llm_wait_for(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider)
{
    uint32_t          until;
    llm_limit_t       limit;
    llm_limits_t     *limits;
    llm_admission_t   admission;

    admission = ngx_http_llm_peek_circuit(ctx, provider, &until);

    if (admission == LLM_REFUSED_HALF_OPEN) {

        /* a call has to end, perhaps another worker's */

        return NGX_HTTP_LLM_WAIT_POLL;
    }

    if (admission != LLM_ADMITTED) {
        return until == LLM_CIRCUIT_WAIT_UNKNOWN ? NGX_HTTP_LLM_NEVER : until;
    }

    limit = ngx_http_llm_peek_limits(ctx, provider, &until);

    if (limit == LLM_LIMIT_NONE) {
        return 0;
    }

    limits = provider->record->limits;

    if (limit == LLM_LIMIT_CONCURRENCY
        || (limit == LLM_LIMIT_TPM
            && llm_in_flight_sum(limits->in_flight, limits->workers)))
    {
        /* the same; it may have needed fewer tokens than it took */

        return NGX_HTTP_LLM_WAIT_POLL;
    }

    return until;
}


/* Whether somebody in another worker came before, and waits for it. */

static ngx_uint_t
ngx_http_llm_wait_is_behind(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider)
{
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    return llm_waiting_before(provider->record->waiting,
                              (uint32_t) mcf->sh->nslots,
                              ngx_http_llm_my_slot(),
                              ngx_http_llm_wait_since(ctx),
                              ngx_http_llm_now(mcf));
}


/* Whoever admits, out of turn or not: or else they say why they refuse. */

static ngx_int_t
ngx_http_llm_wait_choose(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t  i;

    for (i = 0; i < ctx->route->uses.nelts; i++) {
        ctx->fares[i].behind = 0;
    }

    ngx_http_llm_choose_again(ctx);

    return ngx_http_llm_choose(ctx);
}


/* Tells the other workers since when the request waits; wait: until when. */

static void
ngx_http_llm_wait_say(ngx_http_llm_ctx_t *ctx, ngx_msec_t wait)
{
    uint32_t                   now, until;
    ngx_uint_t                 i;
    ngx_http_llm_use_t        *use;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    now = ngx_http_llm_now(mcf);
    until = now + (uint32_t) wait + NGX_HTTP_LLM_WAIT_LATE;
    use = ctx->route->uses.elts;

    for (i = 0; i < ctx->route->uses.nelts; i++) {
        if (ctx->fares[i].serves) {
            llm_waiting_say(use[i].provider->record->waiting,
                            ngx_http_llm_my_slot(),
                            ngx_http_llm_wait_since(ctx), until, now);
        }
    }
}


static void
ngx_http_llm_wait_unsay(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t           i;
    ngx_http_llm_use_t  *use;

    use = ctx->route->uses.elts;

    for (i = 0; i < ctx->route->uses.nelts; i++) {
        if (ctx->fares[i].serves) {
            llm_waiting_done(use[i].provider->record->waiting,
                             ngx_http_llm_my_slot());
        }
    }
}


/* on the circuits' clock */

static uint32_t
ngx_http_llm_wait_since(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    return (uint32_t) (ctx->wait_start - mcf->sh->epoch);
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
