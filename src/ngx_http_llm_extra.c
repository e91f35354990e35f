
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_answer.h"
#include "ngx_http_llm_ctx.h"


/*
 * llm_usage inject: the provider of a stream was asked for its usage, but the
 * caller had not asked.  So the extra event that tells it, behind a finish, is
 * taken out of the stream again.  From there on an event is passed on when it
 * is whole; all before goes as it comes.
 */


/* mere usage is smaller than that */

#define NGX_HTTP_LLM_EXTRA_MAX  16384


static ngx_int_t ngx_http_llm_extra_keep(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, u_char *p, size_t len);


/*
 * An event behind the finish ends at p + n; it began there at p, or before,
 * then its begin is held.  True: it was the extra one, and what follows it in
 * the buffer stands at p now.
 */

ngx_uint_t
ngx_http_llm_extra_event(ngx_http_llm_ctx_t *ctx, ngx_buf_t *b, u_char *p,
    size_t n, unsigned events)
{
    if (events != LLM_SSE_USAGE) {

        if (ctx->held) {
            ctx->released = ctx->held;
            ctx->held = NULL;
        }

        return 0;
    }

    ngx_memmove(p, p + n, b->last - (p + n));
    b->last -= n;

    ctx->held = NULL;
    ctx->taken = 1;

    return 1;
}


/* An event behind the finish is not at its end yet: it is held. */

ngx_int_t
ngx_http_llm_extra_hold(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_buf_t *b, u_char *p)
{
    size_t  len;

    len = b->last - p;

    if ((ctx->held ? ctx->held->last - ctx->held->pos : 0) + len
        > NGX_HTTP_LLM_EXTRA_MAX)
    {
        /* something else, and so will be the rest */

        ctx->released = ctx->held;
        ctx->held = NULL;
        ctx->injected = 0;

        return NGX_OK;
    }

    if (ngx_http_llm_extra_keep(r, ctx, p, len) != NGX_OK) {
        return NGX_ERROR;
    }

    b->last = p;
    ctx->taken = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_extra_keep(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    u_char *p, size_t len)
{
    size_t      held;
    ngx_buf_t  *b;

    b = ctx->held;
    held = b ? b->last - b->pos : 0;

    if (b == NULL || (size_t) (b->end - b->last) < len) {

        b = ngx_create_temp_buf(r->pool, 2 * (held + len));
        if (b == NULL) {
            return NGX_ERROR;
        }

        if (held) {
            b->last = ngx_cpymem(b->last, ctx->held->pos, held);
        }

        b->flush = 1;

        ctx->held = b;
    }

    b->last = ngx_cpymem(b->last, p, len);

    return NGX_OK;
}


/*
 * What goes to the caller of these buffers: with what was held before them,
 * and without those that have become empty, which nginx does not send.  The
 * chain itself is nginx's and stays as it is.
 */

ngx_int_t
ngx_http_llm_extra_chain(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t **in)
{
    unsigned      events;
    ngx_chain_t  *cl, *ln, **last;

    for (cl = *in; cl && ctx->held; cl = cl->next) {

        if (cl->buf->last_buf || cl->buf->last_in_chain) {

            /* the last event may lack the line that ends it */

            (void) llm_sse_end(&ctx->hold->sse, &events);

            if (!(events & (LLM_SSE_USAGE|LLM_SSE_BROKEN))) {
                ctx->released = ctx->held;
            }

            ctx->held = NULL;
        }
    }

    if (!ctx->released && !ctx->taken) {
        return NGX_OK;
    }

    cl = *in;
    last = in;

    if (ctx->released) {

        ln = ngx_alloc_chain_link(r->pool);
        if (ln == NULL) {
            return NGX_ERROR;
        }

        ln->buf = ctx->released;

        *last = ln;
        last = &ln->next;
    }

    for ( /* void */ ; cl; cl = cl->next) {

        if (ngx_buf_in_memory(cl->buf) && ngx_buf_size(cl->buf) == 0
            && !cl->buf->last_buf && !cl->buf->last_in_chain)
        {
            continue;
        }

        ln = ngx_alloc_chain_link(r->pool);
        if (ln == NULL) {
            return NGX_ERROR;
        }

        ln->buf = cl->buf;

        *last = ln;
        last = &ln->next;
    }

    *last = NULL;

    ctx->released = NULL;
    ctx->taken = 0;

    return NGX_OK;
}
