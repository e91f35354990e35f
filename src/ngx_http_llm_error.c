
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_provider.h"


/*
 * Errors in a gate's location as JSON, in the caller's dialect.  An error is
 * returned to nginx as a status, so that an error_page of the user's may take
 * over; where none does, the filter puts the text made here in the place of
 * nginx's page.
 */


typedef struct {
    ngx_uint_t                    status;
    const char                   *openai;         /* type */
    const char                   *code;
    const char                   *anthropic;      /* type */
    const char                   *message;
} ngx_http_llm_error_t;


static ngx_http_llm_error_t *ngx_http_llm_find_error(ngx_uint_t status);
static ngx_uint_t ngx_http_llm_is_anthropic(ngx_http_request_t *r);


static ngx_str_t  ngx_http_llm_version_header =
                                           ngx_string("anthropic-version");


static ngx_http_llm_error_t  ngx_http_llm_errors[] = {

    { 400, "invalid_request_error", "invalid_request_error",
      "invalid_request_error", "The request is malformed." },
    { 401, "authentication_error", "unauthorized",
      "authentication_error", "The gateway needs credentials." },
    { 403, "permission_error", "forbidden",
      "permission_error", "The gateway denies access." },
    { 404, "invalid_request_error", "not_found",
      "not_found_error", "There is nothing here." },
    { 405, "invalid_request_error", "method_not_allowed",
      "invalid_request_error", "This method is not allowed here." },
    { 408, "invalid_request_error", "request_timeout",
      "invalid_request_error", "The request did not arrive in time." },
    { 413, "invalid_request_error", "request_too_large",
      "request_too_large", "The request body is larger than this gateway "
      "accepts." },
    { 414, "invalid_request_error", "uri_too_long",
      "invalid_request_error", "The request URI is too long." },
    { 429, "rate_limit_error", "rate_limit_exceeded",
      "rate_limit_error", "Too many requests." },
    { 500, "server_error", "internal_error",
      "api_error", "The gateway could not handle the request." },
    { 502, "server_error", "bad_gateway",
      "api_error", "No provider gave a valid answer." },
    { 503, "server_error", "service_unavailable",
      "overloaded_error", "The gateway is not available." },
    { 504, "server_error", "gateway_timeout",
      "timeout_error", "No provider answered in time." },
    { 0, NULL, NULL, NULL, NULL }
};


/* As ngx_slprintf() without a format, which is slow. */

u_char *
ngx_http_llm_put(u_char *p, u_char *last, const char *text)
{
    size_t  len;

    len = ngx_strlen(text);

    return ngx_cpymem(p, text, ngx_min(len, (size_t) (last - p)));
}


/*
 * The body of an error that is about to be sent in nginx's own words; what
 * the gate or the attempts have to say of it, or else what its status means.
 */

ngx_buf_t *
ngx_http_llm_error_body(ngx_http_request_t *r, ngx_uint_t status)
{
    u_char                *p, *last;
    size_t                 len;
    ngx_buf_t             *b;
    ngx_str_t              message;
    ngx_uint_t             anthropic;
    const char            *code, *param;
    ngx_http_llm_ctx_t    *ctx;
    ngx_http_llm_error_t  *error;

    error = ngx_http_llm_find_error(status);

    code = error->code;
    message.data = (u_char *) error->message;
    message.len = ngx_strlen(error->message);

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx && ctx->code) {
        code = ctx->code;
        message = ctx->message;
    }

    param = ngx_strcmp(code, "model_not_found") == 0 ? "\"model\"" : "null";

    len = message.len
          + ngx_strlen(error->openai) + ngx_strlen(error->anthropic)
          + ngx_strlen(code) + 128;

    b = ngx_create_temp_buf(r->pool, len);
    if (b == NULL) {
        return NULL;
    }

    p = b->last;
    last = b->end;
    anthropic = ngx_http_llm_is_anthropic(r);

    if (anthropic) {
        p = ngx_http_llm_put(p, last, "{\"type\":\"error\",\"error\":"
                                      "{\"type\":\"");
        p = ngx_http_llm_put(p, last, error->anthropic);
        p = ngx_http_llm_put(p, last, "\",\"message\":\"");

    } else {
        p = ngx_http_llm_put(p, last, "{\"error\":{\"message\":\"");
    }

    p = ngx_cpymem(p, message.data, message.len);

    if (anthropic) {
        p = ngx_http_llm_put(p, last, "\"}}\n");

    } else {
        p = ngx_http_llm_put(p, last, "\",\"type\":\"");
        p = ngx_http_llm_put(p, last, error->openai);
        p = ngx_http_llm_put(p, last, "\",\"param\":");
        p = ngx_http_llm_put(p, last, param);
        p = ngx_http_llm_put(p, last, ",\"code\":\"");
        p = ngx_http_llm_put(p, last, code);
        p = ngx_http_llm_put(p, last, "\"}}\n");
    }

    b->last = p;
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    return b;
}


/*
 * The event that tells a caller that a stream is broken, in the dialect of
 * the request.  open: the stream broke inside of an event, which is ended.
 */

ngx_buf_t *
ngx_http_llm_error_event(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const char *what, ngx_uint_t open)
{
    ngx_buf_t   *b;
    const char  *fmt;

    if (ngx_http_llm_is_anthropic(r)) {
        fmt = "%sevent: error\ndata: {\"type\":\"error\",\"error\":"
              "{\"type\":\"api_error\",\"message\":\"The stream of provider "
              "%V is incomplete: %s.\"}}\n\n";

    } else if (r->uri.len >= sizeof("/responses") - 1
               && ngx_strncmp(r->uri.data + r->uri.len
                              - (sizeof("/responses") - 1), "/responses",
                              sizeof("/responses") - 1)
                  == 0)
    {
        fmt = "%sevent: error\ndata: {\"type\":\"error\","
              "\"code\":\"stream_broken\",\"message\":\"The stream of "
              "provider %V is incomplete: %s.\",\"param\":null}\n\n";

    } else {
        fmt = "%sdata: {\"error\":{\"message\":\"The stream of provider %V is "
              "incomplete: %s.\",\"type\":\"server_error\",\"param\":null,"
              "\"code\":\"stream_broken\"}}\n\n";
    }

    b = ngx_create_temp_buf(r->pool, 320 + ctx->now.provider->name.len);
    if (b == NULL) {
        return NULL;
    }

    b->last = ngx_slprintf(b->last, b->end, fmt, open ? "\n\n" : "",
                           &ctx->now.provider->name, what);

    return b;
}


static ngx_http_llm_error_t *
ngx_http_llm_find_error(ngx_uint_t status)
{
    ngx_http_llm_error_t  *error, *other;

    other = NULL;

    for (error = ngx_http_llm_errors; error->status; error++) {

        if (error->status == status) {
            return error;
        }

        /* 400 and 500 speak for what is not listed */

        if (error->status <= status && error->status % 100 == 0) {
            other = error;
        }
    }

    return other ? other : ngx_http_llm_errors;
}


/* .../messages, and what is below it; a list of models is asked for alike */

static ngx_uint_t
ngx_http_llm_is_anthropic(ngx_http_request_t *r)
{
    u_char                   *p, *last;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (llcf->models) {
        return ngx_http_llm_speaks_anthropic(r);
    }

    last = r->uri.data + r->uri.len;

    p = ngx_strlcasestrn(r->uri.data, last, (u_char *) "/messages",
                         sizeof("/messages") - 2);

    if (p == NULL) {
        return 0;
    }

    p += sizeof("/messages") - 1;

    return p == last || *p == '/';
}


/* Whether the caller is a client of Anthropic's: they all send a version. */

ngx_uint_t
ngx_http_llm_speaks_anthropic(ngx_http_request_t *r)
{
    return ngx_http_llm_find_header(&r->headers_in.headers,
                                    &ngx_http_llm_version_header)
           != NULL;
}
