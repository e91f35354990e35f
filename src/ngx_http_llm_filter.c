
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_answer.h"
#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_provider.h"


/*
 * On the way to the caller: who answered, errors as JSON, and the moments at
 * which a provider was heard.
 */


static ngx_int_t ngx_http_llm_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_error_filter(ngx_http_request_t *r,
    ngx_http_llm_ctx_t **ctxp);
static ngx_int_t ngx_http_llm_answer_headers(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_drop_header(ngx_http_request_t *r, ngx_str_t *name);
static ngx_int_t ngx_http_llm_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_llm_answer_body(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t **inp);


static ngx_str_t  ngx_http_llm_provider_header =
                                              ngx_string("x-llm-provider");
static ngx_str_t  ngx_http_llm_attempts_header =
                                              ngx_string("x-llm-attempts");


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


ngx_int_t
ngx_http_llm_filter_init(ngx_conf_t *cf)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_llm_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_llm_body_filter;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_header_filter(ngx_http_request_t *r)
{
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (!llcf->gate && !llcf->models && !llcf->api) {
        ctx = r->internal ? ngx_http_llm_get_ctx(r) : NULL;

        if (ctx && ngx_http_llm_retry_headers(r, ctx) != NGX_OK) {
            return NGX_ERROR;
        }

        return ngx_http_next_header_filter(r);
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    /*
     * err_status tells that nginx speaks itself, unless the answer comes from
     * an upstream that is not finished: then it is an error_page's.
     */

    if (r->err_status >= NGX_HTTP_BAD_REQUEST
        && (r->upstream == NULL || r->upstream->cleanup == NULL)
        && ngx_http_llm_error_filter(r, &ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ctx && ctx->watch && r->upstream && r->upstream->buffering) {

        /* at its end nginx may still keep it from the filters, in files */

        ctx->watch = 0;
    }

    if (ctx && ctx->watch) {

        /* an event may be taken out, or added where the stream breaks */

        ngx_http_clear_content_length(r);
        ngx_http_clear_accept_ranges(r);
    }

    if (ctx && (ngx_http_llm_answer_headers(r, ctx) != NGX_OK
                || ngx_http_llm_retry_headers(r, ctx) != NGX_OK))
    {
        return NGX_ERROR;
    }

    return ngx_http_next_header_filter(r);
}


static ngx_int_t
ngx_http_llm_error_filter(ngx_http_request_t *r, ngx_http_llm_ctx_t **ctxp)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = *ctxp;

    if (ctx == NULL) {

        /* nginx did not come as far as to the gate */

        ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_ctx_t));
        if (ctx == NULL) {
            return NGX_ERROR;
        }

        ctx->request = r;
        ctx->filter_only = 1;

        ngx_http_set_ctx(r, ctx, ngx_http_llm_module);
    }

    ctx->error = ngx_http_llm_error_body(r, r->err_status);
    if (ctx->error == NULL) {
        return NGX_ERROR;
    }

    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    ngx_str_null(&r->headers_out.charset);

    ngx_http_clear_content_length(r);

    r->headers_out.content_length_n = ctx->error->last - ctx->error->pos;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_answer_headers(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    u_char     *p;
    ngx_str_t   value;

    if (ctx->filter_only) {
        return NGX_OK;
    }

    if (r->cached && !ctx->committed) {
        ctx->outcome = NGX_HTTP_LLM_OUTCOME_CACHED;
    }

    ngx_http_llm_drop_header(r, &ngx_http_llm_provider_header);
    ngx_http_llm_drop_header(r, &ngx_http_llm_attempts_header);

    if (ctx->committed
        && ngx_http_llm_push_header(r, "X-LLM-Provider",
                                    &ctx->now.provider->name)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    p = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value.data = p;
    value.len = ngx_sprintf(p, "%ui", ctx->attempts) - p;

    return ngx_http_llm_push_header(r, "X-LLM-Attempts", &value);
}


/* A provider that is such a gateway itself says these, too. */

static void
ngx_http_llm_drop_header(ngx_http_request_t *r, ngx_str_t *name)
{
    ngx_table_elt_t  *h;

    for ( ;; ) {

        h = ngx_http_llm_find_header(&r->headers_out.headers, name);
        if (h == NULL) {
            return;
        }

        h->hash = 0;
    }
}


static ngx_int_t
ngx_http_llm_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t          out;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx == NULL || in == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    if (ctx->error == NULL) {

        if (ngx_http_llm_answer_body(r, ctx, &in) != NGX_OK) {
            return NGX_ERROR;
        }

        return in ? ngx_http_next_body_filter(r, in) : NGX_OK;
    }

    /* nginx's page is thrown away, whole */

    for ( /* void */ ; in; in = in->next) {
        in->buf->pos = in->buf->last;
    }

    if (ctx->error_sent) {
        return NGX_OK;
    }

    ctx->error_sent = 1;

    out.buf = ctx->error;
    out.next = NULL;

    return ngx_http_next_body_filter(r, &out);
}


/* A provider is heard. */

static ngx_int_t
ngx_http_llm_answer_body(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t **inp)
{
    ngx_chain_t  *in;

    if (!ctx->committed) {
        return NGX_OK;
    }

    if (ctx->watch) {

        if (ngx_http_llm_watch(r, ctx, *inp) != NGX_OK
            || ngx_http_llm_extra_chain(r, ctx, inp) != NGX_OK)
        {
            return NGX_ERROR;
        }

    } else {
        ctx->last_read = ngx_current_msec;
    }

    if (!ctx->no_last) {
        return NGX_OK;
    }

    /* the end of a broken stream is not the end of an answer */

    for (in = *inp; in; in = in->next) {
        if (in->buf->last_buf) {
            in->buf->last_buf = 0;
            in->buf->flush = 1;

            r->keepalive = 0;
        }
    }

    return NGX_OK;
}
