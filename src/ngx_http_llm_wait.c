
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm.h"


/*
 * llm_wait: where every provider refuses for now, a request waits for the
 * first that admits.  Who waits for the same, a model of a route, stands in
 * one line, first come, first served; and of several lines whoever came
 * first is asked first.  Each worker has lines of its own.
 *
 * Nothing is done for those who wait until something happens that may let
 * somebody in.  Then the first of each line is asked, and no other before it
 * has gone: that costs the same however long the lines are.
 *
 *     a call of this worker has ended           ngx_http_llm_wake()
 *     a moment has come that a refusal named    the timer
 *     a call of another worker may have ended   the timer, every POLL ms
 */


/* how often the calls of other workers are thought of, ms */

#define NGX_HTTP_LLM_WAIT_POLL  20


struct ngx_http_llm_line_s {
    ngx_queue_t                   queue;          /* of lines */
    ngx_queue_t                   waiters;        /* .._ctx_t */
    ngx_http_llm_route_t         *route;
    ngx_uint_t                    refused;        /* in this walk */
    size_t                        len;
    u_char                        model[1];
};


static ngx_http_llm_line_t *ngx_http_llm_line_find(ngx_http_llm_ctx_t *ctx);
static ngx_http_llm_line_t *ngx_http_llm_line_create(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_http_llm_ctx_t *ngx_http_llm_line_first(ngx_http_llm_line_t *line);
static ngx_int_t ngx_http_llm_wait_ready(ngx_http_llm_ctx_t *ctx,
    ngx_msec_t *wait);
static void ngx_http_llm_wait_handler(ngx_event_t *ev);
static ngx_http_llm_ctx_t *ngx_http_llm_wait_next(void);
static ngx_int_t ngx_http_llm_wait_admit(ngx_http_llm_ctx_t *ctx,
    ngx_msec_t *wait);
static void ngx_http_llm_wait_resume(ngx_http_llm_ctx_t *ctx);


/* of this worker */

static ngx_queue_t  ngx_http_llm_lines;
static ngx_event_t  ngx_http_llm_wake_event;
static ngx_uint_t   ngx_http_llm_arrivals;


void
ngx_http_llm_wait_init(ngx_cycle_t *cycle)
{
    ngx_queue_init(&ngx_http_llm_lines);

    ngx_memzero(&ngx_http_llm_wake_event, sizeof(ngx_event_t));

    ngx_http_llm_wake_event.handler = ngx_http_llm_wait_handler;
    ngx_http_llm_wake_event.log = cycle->log;
}


/* Whether somebody waits for the same already. */

ngx_uint_t
ngx_http_llm_wait_behind(ngx_http_llm_ctx_t *ctx)
{
    return ctx->route->nwaiting && ngx_http_llm_line_find(ctx) != NULL;
}


/*
 * Everybody refuses.  NGX_AGAIN: the request waits, and its phases go on
 * when that is over; NGX_DECLINED: it does not.
 */

ngx_int_t
ngx_http_llm_wait(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_msec_t             left, spent, wait;
    ngx_http_llm_line_t   *line;
    ngx_http_llm_route_t  *route;

    route = ctx->route;

    if (route->wait.time == 0) {
        return NGX_DECLINED;
    }

    left = route->wait.time;

    if (route->deadline) {
        spent = ngx_min(ngx_current_msec - ctx->start, route->deadline);
        left = ngx_min(left, (route->deadline - spent));
    }

    if (ngx_http_llm_wait_ready(ctx, &wait) != NGX_OK && wait > left) {

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
        line = ngx_http_llm_line_create(r, ctx);
        if (line == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    ngx_queue_insert_tail(&line->waiters, &ctx->queue);
    route->nwaiting++;

    ctx->line = line;
    ctx->arrival = ngx_http_llm_arrivals++;
    ctx->wait_start = ngx_current_msec;
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

    ctx->line = NULL;
    ctx->waited = ngx_current_msec - ctx->wait_start;

    ngx_queue_remove(&ctx->queue);
    ctx->route->nwaiting--;

    if (!ngx_queue_empty(&line->waiters)) {
        return;
    }

    ngx_queue_remove(&line->queue);
    ngx_free(line);

    if (ngx_queue_empty(&ngx_http_llm_lines)
        && ngx_http_llm_wake_event.timer_set)
    {
        ngx_del_timer(&ngx_http_llm_wake_event);
    }
}


/*
 * A call has ended: whoever waits is asked when what runs now, whatever it
 * is, has come to its end.
 */

void
ngx_http_llm_wake(void)
{
    if (!ngx_queue_empty(&ngx_http_llm_lines)) {
        ngx_post_event(&ngx_http_llm_wake_event, &ngx_posted_events);
    }
}


static ngx_http_llm_line_t *
ngx_http_llm_line_find(ngx_http_llm_ctx_t *ctx)
{
    ngx_queue_t          *q;
    ngx_http_llm_line_t  *line;

    for (q = ngx_queue_head(&ngx_http_llm_lines);
         q != ngx_queue_sentinel(&ngx_http_llm_lines);
         q = ngx_queue_next(q))
    {
        line = ngx_queue_data(q, ngx_http_llm_line_t, queue);

        if (line->route == ctx->route && line->len == ctx->model.len
            && ngx_memcmp(line->model, ctx->model.data, line->len) == 0)
        {
            return line;
        }
    }

    return NULL;
}


static ngx_http_llm_line_t *
ngx_http_llm_line_create(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_line_t  *line;

    line = ngx_alloc(sizeof(ngx_http_llm_line_t) + ctx->model.len,
                     r->connection->log);
    if (line == NULL) {
        return NULL;
    }

    ngx_queue_init(&line->waiters);

    line->route = ctx->route;
    line->len = ctx->model.len;

    ngx_memcpy(line->model, ctx->model.data, line->len);

    ngx_queue_insert_tail(&ngx_http_llm_lines, &line->queue);

    return line;
}


static ngx_http_llm_ctx_t *
ngx_http_llm_line_first(ngx_http_llm_line_t *line)
{
    ngx_queue_t  *q;

    q = ngx_queue_head(&line->waiters);

    return ngx_queue_data(q, ngx_http_llm_ctx_t, queue);
}


/* NGX_OK: some provider would admit; else *wait: ms until one may. */

static ngx_int_t
ngx_http_llm_wait_ready(ngx_http_llm_ctx_t *ctx, ngx_msec_t *wait)
{
    uint32_t                   now, until;
    ngx_uint_t                 i;
    llm_limit_t                limit;
    llm_admission_t            admission;
    ngx_http_llm_use_t        *use;
    ngx_http_llm_provider_t   *provider;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);
    now = ngx_http_llm_now(mcf);
    use = ctx->route->uses.elts;

    *wait = NGX_HTTP_LLM_NEVER;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        provider = use[i].provider;

        if (!ctx->fares[i].serves || provider->naddrs == 0) {
            continue;
        }

        limit = LLM_LIMIT_NONE;

        admission = llm_circuit_peek(&provider->record->circuit,
                                     &provider->circuit, now, &until);

        if (admission == LLM_ADMITTED) {
            limit = ngx_http_llm_peek_limits(ctx, provider, &until);

            if (limit == LLM_LIMIT_NONE) {
                return NGX_OK;
            }
        }

        if (admission == LLM_REFUSED_HALF_OPEN
            || limit == LLM_LIMIT_CONCURRENCY)
        {
            /* a call has to end, perhaps another worker's */

            until = NGX_HTTP_LLM_WAIT_POLL;
        }

        if (until != LLM_CIRCUIT_WAIT_UNKNOWN) {
            *wait = ngx_min(*wait, (ngx_msec_t) until);
        }
    }

    return NGX_AGAIN;
}


static void
ngx_http_llm_wait_handler(ngx_event_t *ev)
{
    ngx_msec_t            wait, soonest;
    ngx_queue_t          *q;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_llm_line_t  *line;

    ev->timedout = 0;

    soonest = NGX_HTTP_LLM_NEVER;

    while ((ctx = ngx_http_llm_wait_next()) != NULL) {

        if (ngx_http_llm_wait_admit(ctx, &wait) == NGX_OK) {
            ngx_http_llm_wait_resume(ctx);
            continue;
        }

        ctx->line->refused = 1;
        soonest = ngx_min(soonest, wait);
    }

    for (q = ngx_queue_head(&ngx_http_llm_lines);
         q != ngx_queue_sentinel(&ngx_http_llm_lines);
         q = ngx_queue_next(q))
    {
        line = ngx_queue_data(q, ngx_http_llm_line_t, queue);
        line->refused = 0;
    }

    if (ev->timer_set) {
        ngx_del_timer(ev);
    }

    if (soonest != NGX_HTTP_LLM_NEVER) {
        ngx_add_timer(ev, ngx_max(soonest, 1));
    }
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


/* NGX_OK: the request goes on; else *wait: ms until it is to be asked. */

static ngx_int_t
ngx_http_llm_wait_admit(ngx_http_llm_ctx_t *ctx, ngx_msec_t *wait)
{
    ngx_msec_int_t  left;

    left = (ngx_msec_int_t) (ctx->wait_until - ngx_current_msec);

    if (left <= 0) {
        ctx->wait_over = 1;
        return NGX_OK;
    }

    if (ngx_http_llm_wait_ready(ctx, wait) == NGX_OK) {

        ngx_http_llm_choose_again(ctx);

        if (ngx_http_llm_choose(ctx) == NGX_OK) {
            return NGX_OK;
        }

        /* others were faster */

        *wait = NGX_HTTP_LLM_WAIT_POLL;
    }

    *wait = ngx_min(*wait, (ngx_msec_t) left);

    return NGX_AGAIN;
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
