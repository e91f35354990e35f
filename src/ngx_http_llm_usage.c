
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_answer.h"
#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"


/*
 * What an answer took, and what that costs.  An event stream is read by the
 * hold and the watch anyway; any other answer is read here, where nginx takes
 * it over from the provider, whether it is buffered or not.  Nothing is held,
 * copied or changed.
 */


static ngx_int_t ngx_http_llm_usage_filter_init(void *data);
static ngx_int_t ngx_http_llm_usage_pipe_filter(ngx_event_pipe_t *p,
    ngx_buf_t *buf);
static ngx_int_t ngx_http_llm_usage_filter(void *data, ssize_t bytes);
static void ngx_http_llm_usage_read(ngx_http_llm_ctx_t *ctx, ngx_chain_t *in);
static void ngx_http_llm_usage_count(llm_counters_t *counters,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_usage_compare(ngx_http_llm_ctx_t *ctx);


struct ngx_http_llm_usage_s {
    ngx_int_t                       (*filter_init)(void *data);
    ngx_int_t                       (*filter)(void *data, ssize_t bytes);
    ngx_event_pipe_input_filter_pt    pipe_filter;

    unsigned                          events:1;   /* the hold has the usage */

    llm_usage_scan_t                  scan;       /* only if not */
};


/* The answer is the caller's; readable: its body is not encoded. */

ngx_int_t
ngx_http_llm_usage_start(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_uint_t readable)
{
    size_t                 size;
    ngx_http_upstream_t   *u;
    ngx_http_llm_usage_t  *usage;

    u = r->upstream;

    if (!ctx->completion || u->headers_in.status_n < 200
        || u->headers_in.status_n > 299)
    {
        return NGX_OK;
    }

    size = ctx->watch ? offsetof(ngx_http_llm_usage_t, scan)
                      : sizeof(ngx_http_llm_usage_t);

    usage = ngx_palloc(r->pool, size);
    if (usage == NULL) {
        return NGX_ERROR;
    }

    usage->events = ctx->watch;

    if (!usage->events) {
        llm_usage_init(&usage->scan);
    }

    ctx->usage = usage;

    if (readable) {
        usage->filter_init = u->input_filter_init;
        u->input_filter_init = ngx_http_llm_usage_filter_init;
    }

    return NGX_OK;
}


/* The header is sent: who will take the body over is known. */

static ngx_int_t
ngx_http_llm_usage_filter_init(void *data)
{
    ngx_http_request_t *r = data;

    ngx_int_t              rc;
    ngx_http_llm_ctx_t    *ctx;
    ngx_http_upstream_t   *u;
    ngx_http_llm_usage_t  *usage;

    u = r->upstream;
    ctx = ngx_http_llm_upstream_ctx(r);
    usage = ctx->usage;

    rc = usage->filter_init(data);

    if (rc != NGX_OK || ctx->watch) {
        return rc;
    }

    usage->filter = u->input_filter;
    usage->pipe_filter = u->pipe->input_filter;

    u->input_filter = ngx_http_llm_usage_filter;
    u->pipe->input_filter = ngx_http_llm_usage_pipe_filter;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_usage_pipe_filter(ngx_event_pipe_t *p, ngx_buf_t *buf)
{
    ngx_int_t            rc;
    ngx_chain_t        **last;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_upstream_ctx(p->input_ctx);

    last = p->in ? p->last_in : &p->in;

    rc = ctx->usage->pipe_filter(p, buf);

    ngx_http_llm_usage_read(ctx, *last);

    return rc;
}


static ngx_int_t
ngx_http_llm_usage_filter(void *data, ssize_t bytes)
{
    ngx_http_request_t *r = data;

    ngx_int_t            rc;
    ngx_chain_t        **last;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_upstream_ctx(r);

    for (last = &r->upstream->out_bufs; *last; last = &(*last)->next) {
        /* void */
    }

    rc = ctx->usage->filter(data, bytes);

    ngx_http_llm_usage_read(ctx, *last);

    return rc;
}


static void
ngx_http_llm_usage_read(ngx_http_llm_ctx_t *ctx, ngx_chain_t *in)
{
    size_t     n, len;
    u_char    *p;
    unsigned   events;

    for ( /* void */ ; in; in = in->next) {

        p = in->buf->pos;
        len = in->buf->last - p;

        if (!ctx->usage->events) {
            (void) llm_usage_scan(&ctx->usage->scan, p, len);
            continue;
        }

        /* a stream that is stored: nobody watches it */

        n = ngx_min(len, ctx->watched);

        ctx->watched -= n;
        p += n;
        len -= n;

        while (len) {
            n = llm_sse_scan(&ctx->hold->sse, p, len, &events);

            if (n == 0) {
                break;
            }

            p += n;
            len -= n;
        }
    }
}


/*
 * The call is over, whichever way: what was told so far is what it took.
 * Returns that for the limits; counts once.
 */

uint64_t
ngx_http_llm_usage_end(ngx_http_llm_ctx_t *ctx)
{
    llm_usage_t           *told;
    ngx_http_llm_usage_t  *usage;

    usage = ctx->usage;

    if (usage == NULL) {
        return LLM_TOKENS_UNKNOWN;
    }

    if (!ctx->usage_over) {
        ctx->usage_over = 1;

        told = usage->events ? &ctx->hold->sse.usage : &usage->scan.usage;

        ctx->usage_bad = told->bad;
        ctx->usage_told = llm_usage_totals(told, &ctx->totals);
        ctx->cost = llm_price_cost(&ctx->now.provider->price, &ctx->totals);

        ngx_http_llm_usage_count(
            ngx_http_llm_usage_counters(ctx->now.provider->record), ctx);
        ngx_http_llm_usage_count(
            ngx_http_llm_usage_counters(ctx->route->record), ctx);

        if (ctx->fallback && ctx->usage_told) {
            ngx_http_llm_usage_compare(ctx);
        }
    }

    return ctx->usage_told ? ctx->totals.input + ctx->totals.output
                           : LLM_TOKENS_UNKNOWN;
}


static void
ngx_http_llm_usage_count(llm_counters_t *counters, ngx_http_llm_ctx_t *ctx)
{
    llm_usage_totals_t  *t;

    t = &ctx->totals;

    llm_count(counters, ctx->usage_told ? LLM_USAGE_TOLD : LLM_USAGE_MISSING);

    llm_count_n(counters, LLM_USAGE_BAD, ctx->usage_bad);
    llm_count_n(counters, LLM_TOKENS_IN, t->input);
    llm_count_n(counters, LLM_TOKENS_CACHED, t->cached);
    llm_count_n(counters, LLM_TOKENS_CACHE_WRITE, t->cache_write);
    llm_count_n(counters, LLM_TOKENS_OUT, t->output);
    llm_count_n(counters, LLM_TOKENS_REASONING, t->reasoning);
    llm_count_n(counters, LLM_COST, ctx->cost);
}


/* What the first choice would have cost for the same. */

static void
ngx_http_llm_usage_compare(ngx_http_llm_ctx_t *ctx)
{
    uint64_t             first;
    llm_counters_t      *counters;
    ngx_http_llm_use_t  *use;

    use = ctx->route->uses.elts;
    counters = ngx_http_llm_usage_counters(ctx->route->record);

    first = llm_price_cost(&use[ctx->first].provider->price, &ctx->totals);

    if (first > ctx->cost) {
        llm_count_n(counters, LLM_COST_SAVED, first - ctx->cost);

    } else {
        llm_count_n(counters, LLM_COST_ADDED, ctx->cost - first);
    }
}


/* llm_usage inject | pass */

char *
ngx_http_llm_usage_mode(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_route_t *route = conf;

    ngx_str_t  *value;

    if (route->usage_set) {
        return "is duplicate";
    }

    route->usage_set = 1;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "inject") == 0) {
        route->inject = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "pass") == 0) {
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"llm_usage\": expected "
                       "\"inject\" or \"pass\"", &value[1]);

    return NGX_CONF_ERROR;
}
