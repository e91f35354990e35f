
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_provider.h"


/*
 * Governed request headers: those that some provider sets, and those of the
 * caller that no provider may see.  Each becomes a proxy_set_header of the
 * stock proxy module.  Where no provider has a say its value is empty, which
 * removes the header; else it is a variable that is asked anew for each
 * attempt.
 *
 * nginx's scripts and its proxy module write what they make into the log, if
 * its level is "debug".  So the variable gives them as many stars as the value
 * is long, and the value takes their place once the request is made.
 */


static ngx_int_t ngx_http_llm_governed_add(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf, ngx_str_t *name,
    ngx_http_llm_callers_e callers);
static ngx_int_t ngx_http_llm_governed_variables(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf);
static ngx_int_t ngx_http_llm_governed_name(ngx_conf_t *cf,
    ngx_http_llm_governed_t *governed, ngx_uint_t i);
static ngx_int_t ngx_http_llm_governed_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_governed_callers(ngx_http_request_t *r,
    ngx_http_llm_governed_t *governed, ngx_http_variable_value_t *v);
static ngx_int_t ngx_http_llm_governed_veil(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_variable_value_t *v, ngx_uint_t i);
static ngx_uint_t ngx_http_llm_governed_write(ngx_http_llm_main_conf_t *mcf,
    ngx_str_t *veiled, u_char *line, u_char *last);


/*
 * The first two are always written: the endpoint's host, and none, so that
 * the connection is kept.  Answers must be readable, so none is compressed.
 */

static ngx_str_t  ngx_http_llm_host_header = ngx_string("Host");

static ngx_str_t  ngx_http_llm_removed_headers[] = {
    ngx_string("Connection"),
    ngx_string("Accept-Encoding"),
    ngx_null_string
};


/* Makes the list, and each provider's values in its order. */

ngx_int_t
ngx_http_llm_governed_init(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf)
{
    ngx_str_t                 *name;
    ngx_uint_t                 i, n;
    ngx_http_llm_header_t     *header;
    ngx_http_llm_provider_t  **providerp;

    if (ngx_http_llm_governed_add(cf, mcf, &ngx_http_llm_host_header,
                                  NGX_HTTP_LLM_CALLERS_NEVER)
        == NGX_ERROR)
    {
        return NGX_ERROR;
    }

    for (name = ngx_http_llm_removed_headers; name->len; name++) {
        if (ngx_http_llm_governed_add(cf, mcf, name,
                                      NGX_HTTP_LLM_CALLERS_NEVER)
            == NGX_ERROR)
        {
            return NGX_ERROR;
        }
    }

    for (name = ngx_http_llm_secret_headers; name->len; name++) {
        if (ngx_http_llm_governed_add(cf, mcf, name,
                                      NGX_HTTP_LLM_CALLERS_KEY)
            == NGX_ERROR)
        {
            return NGX_ERROR;
        }
    }

    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {

        header = providerp[i]->headers.elts;

        for (n = 0; n < providerp[i]->headers.nelts; n++) {
            if (ngx_http_llm_governed_add(cf, mcf, &header[n].name,
                                          NGX_HTTP_LLM_CALLERS_ALWAYS)
                == NGX_ERROR)
            {
                return NGX_ERROR;
            }
        }
    }

    return ngx_http_llm_governed_variables(cf, mcf);
}


/* The index of a name, added if need be. */

static ngx_int_t
ngx_http_llm_governed_add(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf,
    ngx_str_t *name, ngx_http_llm_callers_e callers)
{
    ngx_uint_t                i;
    ngx_http_llm_governed_t  *governed;

    governed = mcf->governed.elts;

    for (i = 0; i < mcf->governed.nelts; i++) {
        if (governed[i].name.len == name->len
            && ngx_strncasecmp(governed[i].name.data, name->data, name->len)
               == 0)
        {
            return i;
        }
    }

    governed = ngx_array_push(&mcf->governed);
    if (governed == NULL) {
        return NGX_ERROR;
    }

    governed->name = *name;
    governed->callers = callers;
    ngx_str_set(&governed->variable, "");

    return i;
}


static ngx_int_t
ngx_http_llm_governed_variables(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf)
{
    ngx_int_t                  g;
    ngx_uint_t                 i, n, client_key;
    ngx_http_llm_header_t     *header;
    ngx_http_llm_governed_t   *governed;
    ngx_http_llm_provider_t   *provider, **providerp;

    governed = mcf->governed.elts;
    providerp = mcf->providers.elts;
    client_key = 0;

    for (i = 0; i < mcf->providers.nelts; i++) {

        provider = providerp[i];
        client_key |= provider->client_key;

        provider->governed = ngx_pcalloc(cf->pool, mcf->governed.nelts
                                         * sizeof(ngx_http_complex_value_t *));
        if (provider->governed == NULL) {
            return NGX_ERROR;
        }

        provider->governed[0] = ngx_pcalloc(cf->pool,
                                            sizeof(ngx_http_complex_value_t));
        if (provider->governed[0] == NULL) {
            return NGX_ERROR;
        }

        provider->governed[0]->value = provider->host;

        header = provider->headers.elts;

        for (n = 0; n < provider->headers.nelts; n++) {
            g = ngx_http_llm_governed_add(cf, mcf, &header[n].name,
                                          NGX_HTTP_LLM_CALLERS_ALWAYS);

            provider->governed[g] = header[n].value;

            /* any mark will do, the variable is named below */
            governed[g].variable.len = 1;
        }
    }

    for (i = 0; i < mcf->governed.nelts; i++) {

        if (i != 0 && governed[i].variable.len == 0
            && !(governed[i].callers == NGX_HTTP_LLM_CALLERS_KEY && client_key))
        {
            continue;
        }

        if (ngx_http_llm_governed_name(cf, &governed[i], i) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* A variable for it, which stands in proxy_set_header. */

static ngx_int_t
ngx_http_llm_governed_name(ngx_conf_t *cf, ngx_http_llm_governed_t *governed,
    ngx_uint_t i)
{
    ngx_str_t             name;
    ngx_http_variable_t  *var;

    name.data = ngx_pnalloc(cf->pool, sizeof("$llm_header_") + NGX_INT_T_LEN);
    if (name.data == NULL) {
        return NGX_ERROR;
    }

    name.len = ngx_sprintf(name.data, "$llm_header_%ui", i) - name.data;

    governed->variable = name;

    name.len--;
    name.data++;

    var = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE
                                           |NGX_HTTP_VAR_NOHASH);
    if (var == NULL) {
        return NGX_ERROR;
    }

    var->get_handler = ngx_http_llm_governed_variable;
    var->data = i;

    return NGX_OK;
}


/* What the provider of this attempt is sent in the header. */

static ngx_int_t
ngx_http_llm_governed_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    size_t                     i;
    ngx_str_t                  value;
    ngx_http_llm_ctx_t        *ctx;
    ngx_http_llm_governed_t   *governed;
    ngx_http_llm_provider_t   *provider;
    ngx_http_complex_value_t  *cv;
    ngx_http_llm_main_conf_t  *mcf;

    v->not_found = 1;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);
    governed = mcf->governed.elts;
    governed = &governed[data];

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL || ctx->now.provider == NULL) {
        return NGX_OK;
    }

    provider = ctx->now.provider;
    cv = provider->governed[data];

    if (cv == NULL) {

        if (governed->callers == NGX_HTTP_LLM_CALLERS_NEVER
            || (governed->callers == NGX_HTTP_LLM_CALLERS_KEY
                && !provider->client_key))
        {
            return NGX_OK;
        }

        if (ngx_http_llm_governed_callers(r, governed, v) != NGX_OK) {
            return NGX_OK;
        }

        return ngx_http_llm_governed_veil(r, ctx, v, data);
    }

    if (cv->lengths == NULL) {
        value = cv->value;

    } else {

        if (ngx_http_complex_value(r, cv, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        /* a caller's variable must not write a header of its own */

        for (i = 0; i < value.len; i++) {
            if (value.data[i] < 0x20 && value.data[i] != '\t') {
                ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                              "llm: header \"%V\" for provider \"%V\" is not "
                              "sent: its value holds a control character",
                              &governed->name, &provider->name);
                return NGX_OK;
            }
        }
    }

    v->data = value.data;
    v->len = value.len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return ngx_http_llm_governed_veil(r, ctx, v, data);
}


static ngx_int_t
ngx_http_llm_governed_callers(ngx_http_request_t *r,
    ngx_http_llm_governed_t *governed, ngx_http_variable_value_t *v)
{
    ngx_table_elt_t  *h;

    h = ngx_http_llm_find_header(&r->headers_in.headers, &governed->name);
    if (h == NULL) {
        return NGX_DECLINED;
    }

    v->data = h->value.data;
    v->len = h->value.len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


/* all but the host, which is no secret */

static ngx_int_t
ngx_http_llm_governed_veil(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_variable_value_t *v, ngx_uint_t i)
{
    u_char                    *stars;
    ngx_http_llm_main_conf_t  *mcf;

    if (i == 0 || v->len == 0) {
        return NGX_OK;
    }

    if (ctx->veiled == NULL) {
        mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

        ctx->veiled = ngx_pcalloc(r->pool,
                                  mcf->governed.nelts * sizeof(ngx_str_t));
        if (ctx->veiled == NULL) {
            return NGX_ERROR;
        }
    }

    stars = ngx_pnalloc(r->pool, v->len);
    if (stars == NULL) {
        return NGX_ERROR;
    }

    ngx_memset(stars, '*', v->len);

    ctx->veiled[i].len = v->len;
    ctx->veiled[i].data = v->data;

    v->data = stars;

    return NGX_OK;
}


/* The request is made, and is to be sent: the values take their place. */

ngx_int_t
ngx_http_llm_governed_unveil(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    u_char                    *p, *lf;
    ngx_buf_t                 *b;
    ngx_uint_t                 i, left;
    ngx_http_llm_governed_t   *governed;
    ngx_http_llm_main_conf_t  *mcf;

    if (ctx->veiled == NULL) {
        return NGX_OK;
    }

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);
    b = r->upstream->request_bufs->buf;
    left = 0;

    for (i = 0; i < mcf->governed.nelts; i++) {
        left += (ctx->veiled[i].len != 0);
    }

    for (p = b->pos; left && p < b->last; p = lf + 1) {

        lf = memchr(p, LF, b->last - p);

        if (lf == NULL || lf == p + 1) {
            break;
        }

        left -= ngx_http_llm_governed_write(mcf, ctx->veiled, p, lf - 1);
    }

    if (left == 0) {
        return NGX_OK;
    }

    governed = mcf->governed.elts;

    for (i = 0; i < mcf->governed.nelts; i++) {

        if (ctx->veiled[i].len) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "llm: header \"%V\" for provider \"%V\" has no "
                          "place in the request",
                          &governed[i].name, &ctx->now.provider->name);
        }
    }

    return NGX_ERROR;
}


static ngx_uint_t
ngx_http_llm_governed_write(ngx_http_llm_main_conf_t *mcf, ngx_str_t *veiled,
    u_char *line, u_char *last)
{
    ngx_str_t                *name;
    ngx_uint_t                i;
    ngx_http_llm_governed_t  *governed;

    governed = mcf->governed.elts;

    for (i = 0; i < mcf->governed.nelts; i++) {

        name = &governed[i].name;

        if (veiled[i].len
            && (size_t) (last - line) == name->len + 2 + veiled[i].len
            && line[name->len] == ':'
            && ngx_strncmp(line, name->data, name->len) == 0)
        {
            ngx_memcpy(last - veiled[i].len, veiled[i].data, veiled[i].len);
            veiled[i].len = 0;

            return 1;
        }
    }

    return 0;
}
