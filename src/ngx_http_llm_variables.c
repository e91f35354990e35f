
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_variables.h"


static ngx_int_t ngx_http_llm_variable_provider(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_model(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_upstream_model(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_attempts(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_fallback(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_reject(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_stream(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_waited(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_first_token(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_outcome(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_complexity(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_request_key(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_tokens(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_variable_cost(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_number(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uint64_t n);
static ngx_int_t ngx_http_llm_seconds(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_msec_t ms);
static ngx_int_t ngx_http_llm_value(ngx_http_variable_value_t *v,
    u_char *data, size_t len);


static ngx_http_variable_t  ngx_http_llm_vars[] = {

    { ngx_string("llm_provider"), NULL, ngx_http_llm_variable_provider, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_model"), NULL, ngx_http_llm_variable_model, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_upstream_model"), NULL,
      ngx_http_llm_variable_upstream_model, 0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_attempts"), NULL, ngx_http_llm_variable_attempts, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_fallback"), NULL, ngx_http_llm_variable_fallback, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_reject"), NULL, ngx_http_llm_variable_reject, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_stream"), NULL, ngx_http_llm_variable_stream, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_waited"), NULL, ngx_http_llm_variable_waited, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_first_token"), NULL,
      ngx_http_llm_variable_first_token, 0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_outcome"), NULL, ngx_http_llm_variable_outcome, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_complexity"), NULL, ngx_http_llm_variable_complexity,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_request_key"), NULL, ngx_http_llm_variable_request_key,
      1, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_shared_request_key"), NULL,
      ngx_http_llm_variable_request_key, 0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_input_tokens"), NULL, ngx_http_llm_variable_tokens,
      offsetof(llm_usage_totals_t, input), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_cached_tokens"), NULL, ngx_http_llm_variable_tokens,
      offsetof(llm_usage_totals_t, cached), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_output_tokens"), NULL, ngx_http_llm_variable_tokens,
      offsetof(llm_usage_totals_t, output), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_reasoning_tokens"), NULL, ngx_http_llm_variable_tokens,
      offsetof(llm_usage_totals_t, reasoning), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_cost"), NULL, ngx_http_llm_variable_cost, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_str_t  ngx_http_llm_body_variables[] = {
    ngx_string("llm_complexity"),
    ngx_string("llm_request_key"),
    ngx_string("llm_shared_request_key"),
    ngx_null_string
};


static const char  *ngx_http_llm_outcomes[] = {
    "", "ok", "failover", "rejected", "truncated", "error", "aborted",
    "cached"
};


ngx_int_t
ngx_http_llm_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_llm_vars; v->name.len; v++) {

        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


/* Whether the configuration has a variable that reads the body. */

ngx_uint_t
ngx_http_llm_variables_read_body(ngx_conf_t *cf)
{
    ngx_str_t                  *name;
    ngx_uint_t                  i;
    ngx_http_variable_t        *v;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    v = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {
        for (name = ngx_http_llm_body_variables; name->len; name++) {
            if (v[i].name.len == name->len
                && ngx_memcmp(v[i].name.data, name->data, name->len) == 0)
            {
                return 1;
            }
        }
    }

    return 0;
}


/* The provider tried last. */

static ngx_int_t
ngx_http_llm_variable_provider(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL || ctx->now.provider == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_llm_value(v, ctx->now.provider->name.data,
                              ctx->now.provider->name.len);
}


/* The model the caller asks for. */

static ngx_int_t
ngx_http_llm_variable_model(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL || ctx->model.len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_llm_value(v, ctx->model.data, ctx->model.len);
}


/* The name that the provider tried last has for it. */

static ngx_int_t
ngx_http_llm_variable_upstream_model(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t           *name;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL || ctx->model.len == 0 || ctx->now.provider == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    name = &ctx->fares[ctx->now.use].upstream_model;

    if (name->len == 0) {
        name = &ctx->model;
    }

    return ngx_http_llm_value(v, name->data, name->len);
}


static ngx_int_t
ngx_http_llm_variable_attempts(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_llm_number(r, v, ctx->attempts);
}


static ngx_int_t
ngx_http_llm_variable_fallback(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_llm_value(v, (u_char *) (ctx->committed && ctx->fallback
                                             ? "1" : "0"), 1);
}


/* Why the request was refused, or failed: the error's code. */

static ngx_int_t
ngx_http_llm_variable_reject(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL || ctx->code == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_llm_value(v, (u_char *) ctx->code, ngx_strlen(ctx->code));
}


static ngx_int_t
ngx_http_llm_variable_stream(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_llm_value(v, (u_char *) (ctx->stream ? "1" : "0"), 1);
}


/* Seconds that the request waited until somebody admitted it. */

static ngx_int_t
ngx_http_llm_variable_waited(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL || ctx->filter_only) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_llm_seconds(r, v, ngx_http_llm_waited(ctx));
}


/* Seconds from the request to the first content token of the answer. */

static ngx_int_t
ngx_http_llm_variable_first_token(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL || !ctx->committed || !ctx->content) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_llm_seconds(r, v, ctx->first_token - ctx->start);
}


const char *
ngx_http_llm_outcome(ngx_http_llm_outcome_e outcome)
{
    return ngx_http_llm_outcomes[outcome];
}


static ngx_int_t
ngx_http_llm_variable_outcome(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    const char              *name;
    ngx_http_llm_ctx_t      *ctx;
    ngx_http_llm_outcome_e   outcome;

    ctx = ngx_http_llm_get_ctx(r);
    outcome = ctx ? ngx_http_llm_get_outcome(ctx)
                  : NGX_HTTP_LLM_OUTCOME_NONE;

    if (outcome == NGX_HTTP_LLM_OUTCOME_NONE) {
        v->not_found = 1;
        return NGX_OK;
    }

    name = ngx_http_llm_outcome(outcome);

    return ngx_http_llm_value(v, (u_char *) name, ngx_strlen(name));
}


static ngx_int_t
ngx_http_llm_variable_complexity(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    const char          *complexity;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL || !ctx->body_ready) {
        v->not_found = 1;
        return NGX_OK;
    }

    complexity = ngx_http_llm_complexity(r, ctx);

    return ngx_http_llm_value(v, (u_char *) complexity,
                              ngx_strlen(complexity));
}


/* data: whether it is the caller's own */

static ngx_int_t
ngx_http_llm_variable_request_key(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t  key;

    if (ngx_http_llm_request_key(r, data, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_llm_value(v, key.data, key.len);
}


/* What the answer took, as far as its provider told. */

static ngx_int_t
ngx_http_llm_variable_tokens(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL || !ctx->usage_told) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_llm_number(r, v, *(uint64_t *) ((u_char *) &ctx->totals
                                                    + data));
}


static ngx_int_t
ngx_http_llm_variable_cost(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char              *p;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL || !ctx->usage_told) {
        v->not_found = 1;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, LLM_PRICE_TEXT);
    if (p == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_llm_value(v, p, llm_price_format(ctx->cost, (char *) p));
}


static ngx_int_t
ngx_http_llm_number(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uint64_t n)
{
    u_char  *p;

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_llm_value(v, p, ngx_sprintf(p, "%uL", n) - p);
}


static ngx_int_t
ngx_http_llm_seconds(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    ngx_msec_t ms)
{
    u_char  *p;

    p = ngx_pnalloc(r->pool, NGX_TIME_T_LEN + 4);
    if (p == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_llm_value(v, p, ngx_sprintf(p, "%T.%03M",
                                                (time_t) ms / 1000, ms % 1000)
                                    - p);
}


static ngx_int_t
ngx_http_llm_value(ngx_http_variable_value_t *v, u_char *data, size_t len)
{
    v->data = data;
    v->len = len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
