
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_file.h"
#include "ngx_http_llm_provider.h"


/*
 * api_key: where a provider's key comes from, and how it is sent.
 */


static char *ngx_http_llm_key_parameters(ngx_conf_t *cf,
    ngx_http_llm_provider_t *provider, ngx_str_t *name, ngx_str_t *scheme);
static char *ngx_http_llm_secret_env(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *key);
static char *ngx_http_llm_secret_file(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *key);


/* api_key VALUE [header=NAME] [scheme=WORD], api_key client */

char *
ngx_http_llm_api_key(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_provider_t *provider = conf;

    char        *rv;
    ngx_str_t   *value, name, scheme, key, full;
    ngx_uint_t   literal;

    if (provider->key_set) {
        return "is duplicate";
    }

    provider->key_set = 1;

    value = cf->args->elts;

    if (value[1].len == sizeof("client") - 1
        && ngx_strncmp(value[1].data, "client", value[1].len) == 0)
    {
        if (cf->args->nelts > 2) {
            return "has parameters: \"api_key client\" takes none";
        }

        provider->client_key = 1;
        return NGX_CONF_OK;
    }

    rv = ngx_http_llm_key_parameters(cf, provider, &name, &scheme);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    rv = ngx_http_llm_secret(cf, &value[1], &key, &literal);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    full.len = scheme.len + 1 + key.len;
    full.data = ngx_pnalloc(cf->pool, full.len);
    if (full.data == NULL) {
        return NGX_CONF_ERROR;
    }

    if (scheme.len) {
        ngx_sprintf(full.data, "%V %V", &scheme, &key);

    } else {
        full = key;
    }

    /* with variables it may be the caller's, who must not open a circuit */

    if (literal || ngx_http_script_variables_count(&full) == 0) {
        provider->own_key = 1;
    }

    return ngx_http_llm_add_header(cf, provider, &name, &full, literal);
}


/* Which header the key is sent in, and behind which word. */

static char *
ngx_http_llm_key_parameters(ngx_conf_t *cf, ngx_http_llm_provider_t *provider,
    ngx_str_t *name, ngx_str_t *scheme)
{
    ngx_str_t   *value;
    ngx_uint_t   i;

    value = cf->args->elts;

    ngx_str_null(name);
    ngx_str_null(scheme);

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "header=", 7) == 0) {
            name->data = value[i].data + 7;
            name->len = value[i].len - 7;
            continue;
        }

        if (ngx_strncmp(value[i].data, "scheme=", 7) == 0) {
            scheme->data = value[i].data + 7;
            scheme->len = value[i].len - 7;
            continue;
        }

        /* it is not shown: it may be the key, behind a word as "Bearer" */

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter in \"api_key\" of "
                           "\"llm_provider\" \"%V\": expected "
                           "\"header=NAME\" or \"scheme=WORD\" behind the key",
                           &provider->name);
        return NGX_CONF_ERROR;
    }

    if (name->data == NULL) {
        ngx_str_set(name, "Authorization");

        if (scheme->data == NULL) {
            ngx_str_set(scheme, "Bearer");
        }
    }

    return NGX_CONF_OK;
}


/*
 * What env:, file: or a string stand for, in the directive at hand.  An error
 * never shows the value: it may be the key itself.
 */

char *
ngx_http_llm_secret(ngx_conf_t *cf, ngx_str_t *value, ngx_str_t *key,
    ngx_uint_t *literal)
{
    char        *rv;
    size_t       i;
    ngx_str_t    name, *directive;

    *literal = 1;

    directive = cf->args->elts;

    if (ngx_strncmp(value->data, "env:", 4) == 0) {
        name.data = value->data + 4;
        name.len = value->len - 4;

        rv = ngx_http_llm_secret_env(cf, &name, key);

    } else if (ngx_strncmp(value->data, "file:", 5) == 0) {
        name.data = value->data + 5;
        name.len = value->len - 5;

        rv = ngx_http_llm_secret_file(cf, &name, key);

    } else {
        *literal = 0;
        *key = *value;

        rv = NGX_CONF_OK;

        if (key->len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "empty value in \"%V\": expected \"env:NAME\", "
                               "\"file:PATH\" or a string", directive);
            return NGX_CONF_ERROR;
        }
    }

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    for (i = 0; i < key->len; i++) {
        if (key->data[i] < 0x20 || key->data[i] == 0x7f) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "a value of \"%V\" holds a control character: "
                               "expected one line of text", directive);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_secret_env(ngx_conf_t *cf, ngx_str_t *name, ngx_str_t *key)
{
    char  **e;

    for (e = environ; e && *e; e++) {

        if (name->len
            && ngx_strncmp(*e, name->data, name->len) == 0
            && (*e)[name->len] == '=')
        {
            key->data = (u_char *) *e + name->len + 1;
            key->len = ngx_strlen(key->data);

            key->data = ngx_pstrdup(cf->pool, key);
            if (key->data == NULL) {
                return NGX_CONF_ERROR;
            }

            if (key->len) {
                return NGX_CONF_OK;
            }
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "environment variable \"%V\" of \"%V\" is not set "
                       "or empty: expected it in the environment nginx was "
                       "started with", name, cf->args->elts);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_llm_secret_file(ngx_conf_t *cf, ngx_str_t *name, ngx_str_t *key)
{
    u_char   buf[4097];
    ssize_t  n;

    if (name->len == 0 || ngx_conf_full_name(cf->cycle, name, 1) != NGX_OK) {
        return "has no path behind \"file:\"";
    }

    n = ngx_http_llm_file_named(cf, name, buf, sizeof(buf));

    if (n == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    while (n && (buf[n - 1] == LF || buf[n - 1] == CR || buf[n - 1] == ' ')) {
        n--;
    }

    if (n == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "file \"%V\" of \"%V\" is empty", name,
                           cf->args->elts);
        return NGX_CONF_ERROR;
    }

    key->len = n;
    key->data = ngx_pnalloc(cf->pool, n);
    if (key->data == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memcpy(key->data, buf, n);
    ngx_explicit_memzero(buf, n);

    return NGX_CONF_OK;
}
