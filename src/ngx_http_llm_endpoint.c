
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_attempt.h"
#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_target.h"


/*
 * endpoint: where a provider is, taken apart into what requests need.
 */


/* room behind the path of a unix socket for the pool's key, see connect.c */
#define NGX_HTTP_LLM_UNIX_PATH_MAX  95


static char *ngx_http_llm_endpoint_check(ngx_conf_t *cf,
    ngx_http_llm_provider_t *provider, ngx_str_t *value);
static char *ngx_http_llm_endpoint_parse(ngx_conf_t *cf,
    ngx_http_llm_provider_t *provider, ngx_str_t *value, ngx_uint_t port);
static char *ngx_http_llm_endpoint_host(ngx_conf_t *cf,
    ngx_http_llm_provider_t *provider, ngx_url_t *u);
static void ngx_http_llm_endpoint_base(ngx_conf_t *cf,
    ngx_http_llm_provider_t *provider, ngx_str_t *uri);


/* endpoint URL */

char *
ngx_http_llm_endpoint(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_provider_t *provider = conf;

    ngx_str_t                 *value, rest;
    ngx_uint_t                 port;
    ngx_http_llm_main_conf_t  *mcf;

    if (provider->endpoint.len) {
        return "is duplicate";
    }

    value = cf->args->elts;
    rest = value[1];

    if (ngx_strncasecmp(rest.data, (u_char *) "https://", 8) == 0) {

#if !(NGX_HTTP_SSL)
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"endpoint\" of \"llm_provider\" \"%V\" is "
                           "https: expected an nginx that was built "
                           "--with-http_ssl_module", &provider->name);
        return NGX_CONF_ERROR;
#endif

        ngx_str_set(&provider->schema, "https://");
        provider->ssl = 1;
        port = 443;

        mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);
        mcf->tls = 1;

    } else if (ngx_strncasecmp(rest.data, (u_char *) "http://", 7) == 0) {
        ngx_str_set(&provider->schema, "http://");
        port = 80;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid URL \"%V\" in \"endpoint\": expected "
                           "\"https://HOST[:PORT][/PATH]\" or "
                           "\"http://HOST[:PORT][/PATH]\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    rest.data += provider->schema.len;
    rest.len -= provider->schema.len;

    provider->endpoint = value[1];

    if (ngx_http_llm_endpoint_check(cf, provider, &rest) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    return ngx_http_llm_endpoint_parse(cf, provider, &rest, port);
}


/*
 * What nginx's own parser would take for a part of the host, or leave in the
 * path.  A URL with credentials in it is not shown.
 */

static char *
ngx_http_llm_endpoint_check(ngx_conf_t *cf, ngx_http_llm_provider_t *provider,
    ngx_str_t *value)
{
    u_char  *p, *last, *host_end;

    last = value->data + value->len;
    host_end = value->data;

    while (host_end < last
           && *host_end != '/' && *host_end != '?' && *host_end != '#')
    {
        host_end++;
    }

    if (ngx_strlchr(value->data, host_end, '@')
        || ngx_strlchr(value->data, last, '#'))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "credentials or a fragment in \"endpoint\" of "
                           "\"llm_provider\" \"%V\": expected "
                           "\"https://HOST[:PORT][/PATH]\", and the key in "
                           "\"api_key\"", &provider->name);
        return NGX_CONF_ERROR;
    }

    for (p = value->data; p < last; p++) {
        if (*p <= 0x20 || *p == 0x7f || *p == '$') {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "a blank, a control character or a variable in "
                               "\"endpoint\" \"%V\": expected "
                               "\"https://HOST[:PORT][/PATH]\"",
                               &provider->endpoint);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_endpoint_parse(ngx_conf_t *cf, ngx_http_llm_provider_t *provider,
    ngx_str_t *value, ngx_uint_t port)
{
    ngx_url_t  u;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = *value;
    u.default_port = (in_port_t) port;
    u.uri_part = 1;
    u.no_resolve = 1;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in \"endpoint\" \"%V\"",
                           u.err ? u.err : "out of memory",
                           &provider->endpoint);
        return NGX_CONF_ERROR;
    }

    if (u.family == AF_UNIX
        && ngx_strlen(((struct sockaddr_un *) u.addrs[0].sockaddr)->sun_path)
           > NGX_HTTP_LLM_UNIX_PATH_MAX)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "path of the unix socket in \"endpoint\" \"%V\" is "
                           "too long: expected at most %d bytes",
                           &provider->endpoint, NGX_HTTP_LLM_UNIX_PATH_MAX);
        return NGX_CONF_ERROR;
    }

    provider->target = ngx_http_llm_target_create(cf, &u, "endpoint",
                                                  "provider", &provider->name);
    if (provider->target == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_llm_endpoint_host(cf, provider, &u) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    ngx_http_llm_endpoint_base(cf, provider, &u.uri);

    return NGX_CONF_OK;
}


/* The name without brackets for TLS, with a port of its own for Host. */

static char *
ngx_http_llm_endpoint_host(ngx_conf_t *cf, ngx_http_llm_provider_t *provider,
    ngx_url_t *u)
{
    u_char  *p;

    if (u->family == AF_UNIX) {
        ngx_str_set(&provider->tls_name, "localhost");
        provider->host = provider->tls_name;

        return NGX_CONF_OK;
    }

    provider->tls_name = u->host;

    p = ngx_pnalloc(cf->pool, u->host.len + sizeof("[]:65535") - 1);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    provider->host.data = p;

    p = ngx_cpymem(p, u->host.data, u->host.len);

    if (!u->no_port && u->port != u->default_port) {
        p = ngx_sprintf(p, ":%d", (int) u->port);
    }

    provider->host.len = p - provider->host.data;

    return NGX_CONF_OK;
}


/* The base path without a final slash, and its query. */

static void
ngx_http_llm_endpoint_base(ngx_conf_t *cf, ngx_http_llm_provider_t *provider,
    ngx_str_t *uri)
{
    u_char  *p, *last;

    provider->base = *uri;

    last = uri->data + uri->len;

    p = ngx_strlchr(uri->data, last, '?');

    if (p) {
        provider->base.len = p - uri->data;

        provider->args.data = p + 1;
        provider->args.len = last - (p + 1);

        if (ngx_http_llm_has_secret_arg(&provider->args)) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "\"endpoint\" of \"llm_provider\" \"%V\" has "
                               "a key in its query, which is in logs: expected "
                               "\"api_key\" with \"header=NAME\"",
                               &provider->name);
        }
    }

    while (provider->base.len
           && provider->base.data[provider->base.len - 1] == '/')
    {
        provider->base.len--;
    }
}
