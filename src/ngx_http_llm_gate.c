
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_attempt.h"
#include "ngx_http_llm_choice.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_route.h"


/*
 * The gate: before the content phase, behind all of nginx's access checks.
 * It reads the body once, finds what the caller asks for, and asks the
 * circuits for admission.  Where none admits, the answer is given here and
 * nobody is connected to.
 */


static ngx_int_t ngx_http_llm_read_body(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_decide(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_admit(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_wants_json(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_content_type_is(ngx_http_request_t *r,
    const char *type, size_t len);


ngx_int_t
ngx_http_llm_gate_handler(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (!llcf->gate) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx) {

        /* the body was waited for, or a provider */

        if (ctx->decided) {
            return ngx_http_llm_admit(r, ctx);
        }

        return ctx->body_ready ? ngx_http_llm_decide(r, ctx) : NGX_DONE;
    }

    ctx = ngx_http_llm_create_ctx(r, llcf, llcf->route);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ctx->route) {

        /* whatever the model is, nobody would take the request */

        if (ctx->route->wait.time == 0 && !ngx_http_llm_may_be_cached(r)
            && ngx_http_llm_peek(ctx) != NGX_OK)
        {
            return ngx_http_llm_refuse(r, ctx);
        }
    }

    rc = ngx_http_llm_read_body(r, ctx);

    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_llm_decide(r, ctx);
}


/* NGX_OK: the body is there; NGX_DONE: it will be; else a status */

static ngx_int_t
ngx_http_llm_read_body(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t  rc;

    /* over HTTP/2 a body may come that no header tells of */

    if (r != r->main || r->request_body
        || (r->headers_in.content_length_n <= 0 && !r->headers_in.chunked
            && r->http_version < NGX_HTTP_VERSION_20))
    {
        ctx->body_ready = 1;
        return NGX_OK;
    }

    rc = ngx_http_read_client_request_body(r, ngx_http_llm_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    if (ctx->body_ready) {

        /* it was all there: no need for the reference that reading takes */

        r->main->count--;
        return NGX_OK;
    }

    ctx->waiting = 1;

    ngx_http_finalize_request(r, NGX_DONE);

    return NGX_DONE;
}


static void
ngx_http_llm_body_handler(ngx_http_request_t *r)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    ctx->body_ready = 1;

    /* the time that a caller takes for its body is not a provider's */

    ctx->start = ngx_current_msec;

    if (ctx->waiting) {
        r->write_event_handler = ngx_http_core_run_phases;
        ngx_http_core_run_phases(r);
    }
}


/* What the caller asks for is known: who takes it? */

static ngx_int_t
ngx_http_llm_decide(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t                  rc;
    ngx_http_llm_route_t      *route;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    if (mcf->keep_body) {

        /* it may be read once more, when the access log is written */

        r->preserve_body = 1;
    }

    if (ngx_http_llm_wants_json(r, ctx)) {

        rc = ngx_http_llm_body_scan(r, ctx);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (ctx->route == NULL) {

        /* its variables may want to know what is asked for */

        route = ngx_http_llm_eval_route(r, ctx->llcf);

        if (route == NULL || ngx_http_llm_set_route(ctx, route) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (ngx_http_llm_candidates(ctx) != NGX_OK) {
        return ngx_http_llm_no_model(r, ctx);
    }

    ctx->decided = 1;

    return ngx_http_llm_admit(r, ctx);
}


/* Somebody takes it now, or when it has waited, or nobody does. */

static ngx_int_t
ngx_http_llm_admit(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t  rc;

    /* an answer out of the cache needs nobody */

    if (ctx->next.provider == NULL && !ngx_http_llm_may_be_cached(r)) {

        rc = ctx->route->wait.time ? ngx_http_llm_wait(r, ctx)
                                   : ngx_http_llm_choose(ctx);

        if (rc == NGX_DECLINED) {
            return ngx_http_llm_refuse(r, ctx);
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    ctx->content_handler = r->content_handler;

    if (ctx->llcf->pass) {
        r->content_handler = ngx_http_llm_content_handler;
    }

    return NGX_DECLINED;
}


/*
 * Completion calls are JSON, whatever their Content-Type says; of others
 * only those that say so.
 */

static ngx_uint_t
ngx_http_llm_wants_json(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    if (ctx->completion) {
        return 1;
    }

    return r->method == NGX_HTTP_POST
           && r->request_body && r->request_body->bufs
           && ngx_http_llm_content_type_is(r, "application/json",
                                           sizeof("application/json") - 1);
}


static ngx_uint_t
ngx_http_llm_content_type_is(ngx_http_request_t *r, const char *type,
    size_t len)
{
    ngx_str_t  *value;

    if (r->headers_in.content_type == NULL) {
        return 0;
    }

    value = &r->headers_in.content_type->value;

    return value->len >= len
           && ngx_strncasecmp(value->data, (u_char *) type, len) == 0
           && (value->len == len
               || value->data[len] == ';' || value->data[len] == ' ');
}
