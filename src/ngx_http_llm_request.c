
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_attempt.h"
#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_provider.h"


/*
 * The request as the provider of this attempt wants it.  The stock proxy
 * module writes it: here it is shown this provider's URI and body in the
 * place of the caller's, and the headers ask for the provider's through
 * their variables.
 */


static ngx_int_t ngx_http_llm_request_uri(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_str_t *uri);
static ngx_int_t ngx_http_llm_request_args(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider, ngx_str_t *args);
static ngx_uint_t ngx_http_llm_may_pass(ngx_http_llm_provider_t *provider,
    u_char *p, size_t len);
static ngx_uint_t ngx_http_llm_is_secret_arg(u_char *name, size_t len);
static size_t ngx_http_llm_arg_name(u_char *p, size_t len, u_char *name);


/* the longest name of an argument that is looked at */

#define NGX_HTTP_LLM_ARG  64


/* arguments in which callers send keys */

static ngx_str_t  ngx_http_llm_secret_args[] = {
    ngx_string("key"),
    ngx_string("api_key"),
    ngx_string("api-key"),
    ngx_string("access_token"),
    ngx_null_string
};


ngx_int_t
ngx_http_llm_request_create(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    off_t                 length, saved;
    ngx_int_t             rc;
    ngx_str_t             uri, unparsed_uri;
    ngx_uint_t            valid_unparsed_uri;
    ngx_chain_t          *body;
    ngx_http_upstream_t  *u;

    if (ngx_http_llm_request_uri(r, ctx, &uri) != NGX_OK
        || ngx_http_llm_body_chain(r, ctx, &body, &length) != NGX_OK)
    {
        return NGX_ERROR;
    }

    u = r->upstream;

    /*
     * The body first: what is in request_bufs is taken for the body, and on
     * a second attempt that is the whole request of the first, its key
     * included.
     */

    u->request_bufs = body;

    unparsed_uri = r->unparsed_uri;
    valid_unparsed_uri = r->valid_unparsed_uri;

    r->unparsed_uri = uri;
    r->valid_unparsed_uri = 1;

    saved = r->headers_in.content_length_n;

    /* a subrequest has the header of its parent, but may have no body */

    r->headers_in.content_length_n = body ? length : ngx_min(saved, 0);

    ctx->veiled = NULL;

    rc = ctx->create_request(r);

    if (rc == NGX_OK) {
        rc = ngx_http_llm_governed_unveil(r, ctx);
    }

    r->headers_in.content_length_n = saved;

    r->unparsed_uri = unparsed_uri;
    r->valid_unparsed_uri = valid_unparsed_uri;

    if (rc == NGX_OK && (u->uri.len != uri.len
                         || ngx_memcmp(u->uri.data, uri.data, uri.len) != 0))
    {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "llm: \"proxy_pass\" has a URI of its own: expected "
                      "\"proxy_pass https://ROUTE\", the path is the "
                      "endpoint's");
        return NGX_ERROR;
    }

    return rc;
}


/* BASE/REST?ARGS, where REST is what follows the location's prefix */

static ngx_int_t
ngx_http_llm_request_uri(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_str_t *uri)
{
    u_char                   *p;
    ngx_str_t                 rest, args, *prefix;
    uintptr_t                 escape;
    ngx_http_llm_provider_t  *provider;

    provider = ctx->now.provider;
    prefix = &ctx->llcf->prefix;

    /* the normalized URI: a raw one might climb out of the base path */

    rest = r->uri;

    if (rest.len >= prefix->len
        && ngx_strncmp(rest.data, prefix->data, prefix->len) == 0)
    {
        rest.data += prefix->len;
        rest.len -= prefix->len;
    }

    while (rest.len && rest.data[0] == '/') {
        rest.data++;
        rest.len--;
    }

    if (ngx_http_llm_request_args(r, provider, &args) != NGX_OK) {
        return NGX_ERROR;
    }

    escape = 2 * ngx_escape_uri(NULL, rest.data, rest.len, NGX_ESCAPE_URI);

    p = ngx_pnalloc(r->pool, provider->base.len + 1 + rest.len + escape + 1
                             + provider->args.len + 1 + args.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    uri->data = p;

    p = ngx_cpymem(p, provider->base.data, provider->base.len);

    if (rest.len || provider->base.len == 0) {
        *p++ = '/';
    }

    if (escape) {
        p = (u_char *) ngx_escape_uri(p, rest.data, rest.len, NGX_ESCAPE_URI);

    } else {
        p = ngx_cpymem(p, rest.data, rest.len);
    }

    if (provider->args.len || args.len) {
        *p++ = '?';
    }

    p = ngx_cpymem(p, provider->args.data, provider->args.len);

    if (provider->args.len && args.len) {
        *p++ = '&';
    }

    p = ngx_cpymem(p, args.data, args.len);

    uri->len = p - uri->data;

    return NGX_OK;
}


/* The caller's arguments that the provider is to have. */

static ngx_int_t
ngx_http_llm_request_args(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider, ngx_str_t *args)
{
    u_char  *p, *q, *last, *dst;

    *args = r->args;

    if (args->len == 0) {
        return NGX_OK;
    }

    dst = ngx_pnalloc(r->pool, args->len);
    if (dst == NULL) {
        return NGX_ERROR;
    }

    p = args->data;
    last = p + args->len;

    args->data = dst;

    while (p < last) {

        q = ngx_strlchr(p, last, '&');
        if (q == NULL) {
            q = last;
        }

        if (ngx_http_llm_may_pass(provider, p, q - p)) {

            if (dst != args->data) {
                *dst++ = '&';
            }

            dst = ngx_cpymem(dst, p, q - p);
        }

        p = q + 1;
    }

    args->len = dst - args->data;

    return NGX_OK;
}


/* No keys, unless they are to pass, and nothing that the endpoint says. */

static ngx_uint_t
ngx_http_llm_may_pass(ngx_http_llm_provider_t *provider, u_char *p, size_t len)
{
    u_char  name[NGX_HTTP_LLM_ARG], own[NGX_HTTP_LLM_ARG], *q, *last;
    size_t  n;

    n = ngx_http_llm_arg_name(p, len, name);

    if (!provider->client_key && ngx_http_llm_is_secret_arg(name, n)) {
        return 0;
    }

    last = provider->args.data + provider->args.len;

    for (p = provider->args.data; n && p < last; p = q + 1) {

        q = ngx_strlchr(p, last, '&');
        if (q == NULL) {
            q = last;
        }

        if (ngx_http_llm_arg_name(p, q - p, own) == n
            && ngx_memcmp(own, name, n) == 0)
        {
            return 0;
        }
    }

    return 1;
}


static ngx_uint_t
ngx_http_llm_is_secret_arg(u_char *name, size_t len)
{
    ngx_str_t  *arg;

    for (arg = ngx_http_llm_secret_args; arg->len; arg++) {
        if (arg->len == len && ngx_strncasecmp(arg->data, name, len) == 0) {
            return 1;
        }
    }

    return 0;
}


ngx_uint_t
ngx_http_llm_has_secret_arg(ngx_str_t *args)
{
    u_char  name[NGX_HTTP_LLM_ARG], *p, *q, *last;
    size_t  n;

    last = args->data + args->len;

    for (p = args->data; p < last; p = q + 1) {

        q = ngx_strlchr(p, last, '&');
        if (q == NULL) {
            q = last;
        }

        n = ngx_http_llm_arg_name(p, q - p, name);

        if (ngx_http_llm_is_secret_arg(name, n)) {
            return 1;
        }
    }

    return 0;
}


/* Decoded; 0: it has none, or one that is longer than any that matters. */

static size_t
ngx_http_llm_arg_name(u_char *p, size_t len, u_char *name)
{
    u_char  *q, *dst, *src;

    q = ngx_strlchr(p, p + len, '=');

    if (q) {
        len = q - p;
    }

    if (len > NGX_HTTP_LLM_ARG) {
        return 0;
    }

    dst = name;
    src = p;

    ngx_unescape_uri(&dst, &src, len, 0);

    return dst - name;
}
