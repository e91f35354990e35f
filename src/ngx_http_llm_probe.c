
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_file.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_probe.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_tree.h"
#include "ngx_http_llm_words.h"

#include <jansson.h>


/*
 * probe: what the gateway asks a provider on its own account, made ready
 * while the configuration is read.
 */


#define NGX_HTTP_LLM_PROBE_BODY_MAX  65536


static char *ngx_http_llm_probe_expects(ngx_conf_t *cf,
    ngx_http_llm_probe_t *probe);
static ngx_uint_t ngx_http_llm_probe_is_plain(ngx_str_t *s,
    ngx_uint_t letters);
static char *ngx_http_llm_probe_body(ngx_conf_t *cf,
    ngx_http_llm_probe_t *probe);
static char *ngx_http_llm_probe_url(ngx_conf_t *cf,
    ngx_http_llm_provider_t *provider, ngx_str_t *host);
static char *ngx_http_llm_probe_add(ngx_http_llm_probe_t *probe,
    const char *name, ngx_str_t *value);
static void ngx_http_llm_probe_mark(ngx_http_llm_probe_t *probe);
static uint64_t ngx_http_llm_probe_hash(uint64_t hash, ngx_str_t *s);
#if (NGX_HTTP_SSL)
static char *ngx_http_llm_probe_tls(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf, ngx_http_llm_probe_t *probe,
    SSL_CTX **system);
static ngx_http_upstream_conf_t *ngx_http_llm_probe_location(
    ngx_http_llm_main_conf_t *mcf, ngx_http_llm_provider_t *provider);
static ngx_uint_t ngx_http_llm_probe_uses(ngx_http_llm_route_t *route,
    ngx_http_llm_provider_t *provider);
#endif


static ngx_http_llm_word_t  ngx_http_llm_probe_words[] = {
    { ngx_string("uri"), NGX_HTTP_LLM_WORD_TEXT,
      offsetof(ngx_http_llm_probe_t, uri), 0, 1, 1024, 0 },
    { ngx_string("method"), NGX_HTTP_LLM_WORD_TEXT,
      offsetof(ngx_http_llm_probe_t, method), 0, 1, 32, 0 },
    { ngx_string("interval"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(ngx_http_llm_probe_t, interval), 30000, 100, 86400000, 0 },
    { ngx_string("timeout"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(ngx_http_llm_probe_t, timeout), 10000, 1, 120000, 0 },
    { ngx_string("expect"), NGX_HTTP_LLM_WORD_TEXT,
      offsetof(ngx_http_llm_probe_t, expect), 0, 1, 256, 0 },
    { ngx_string("body"), NGX_HTTP_LLM_WORD_TEXT,
      offsetof(ngx_http_llm_probe_t, file), 0, 1, 1024, 0 },
    { ngx_string("passive"), NGX_HTTP_LLM_WORD_FLAG,
      offsetof(ngx_http_llm_probe_t, passive), 0, 0, 1, 1 },
    { ngx_null_string, 0, 0, 0, 0, 0, 0 }
};


/* probe [KEY=VALUE...], probe off */

char *
ngx_http_llm_probe(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_provider_t *provider = conf;

    char                  *rv;
    ngx_str_t             *value;
    ngx_http_llm_probe_t  *probe;

    if (provider->probe_set) {
        return "is duplicate";
    }

    provider->probe_set = 1;

    value = cf->args->elts;

    if (cf->args->nelts > 1 && ngx_strcmp(value[1].data, "off") == 0) {
        return cf->args->nelts == 2 ? NGX_CONF_OK : "has \"off\" and more: "
                                                    "expected \"off\" alone";
    }

    probe = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_probe_t));
    if (probe == NULL) {
        return NGX_CONF_ERROR;
    }

    provider->probe = probe;
    probe->provider = provider;

    ngx_http_llm_words_init(ngx_http_llm_probe_words, probe);

    rv = ngx_http_llm_words(cf, ngx_http_llm_probe_words, 1, probe);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (probe->uri.len == 0) {
        ngx_str_set(&probe->uri, "/models");
    }

    if (probe->uri.data[0] != '/'
        || !ngx_http_llm_probe_is_plain(&probe->uri, 0))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" of \"uri\" in \"probe\": "
                           "expected what follows the path of \"endpoint\", "
                           "for example \"/models\"", &probe->uri);
        return NGX_CONF_ERROR;
    }

    if (probe->method.len == 0) {

        if (probe->file.len) {
            ngx_str_set(&probe->method, "POST");

        } else {
            ngx_str_set(&probe->method, "GET");
        }
    }

    if (!ngx_http_llm_probe_is_plain(&probe->method, 1)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" of \"method\" in \"probe\": "
                           "expected a method of HTTP, for example \"GET\"",
                           &probe->method);
        return NGX_CONF_ERROR;
    }

    rv = ngx_http_llm_probe_expects(cf, probe);

    if (rv != NGX_CONF_OK || probe->file.len == 0) {
        return rv;
    }

    return ngx_http_llm_probe_body(cf, probe);
}


/* expect=STATUS,FIRST-LAST,... */

static char *
ngx_http_llm_probe_expects(ngx_conf_t *cf, ngx_http_llm_probe_t *probe)
{
    u_char                       *p, *end, *dash, *last;
    ngx_int_t                     from, to;
    ngx_http_llm_probe_expect_t  *expect;

    if (probe->expect.len == 0) {
        ngx_str_set(&probe->expect, "200-299");
    }

    if (ngx_array_init(&probe->expects, cf->pool, 1,
                       sizeof(ngx_http_llm_probe_expect_t))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    last = probe->expect.data + probe->expect.len;

    for (p = probe->expect.data; p <= last; p = end + 1) {

        end = ngx_strlchr(p, last, ',');
        end = end ? end : last;

        dash = ngx_strlchr(p, end, '-');
        dash = dash ? dash : end;

        from = ngx_atoi(p, dash - p);
        to = dash < end ? ngx_atoi(dash + 1, end - (dash + 1)) : from;

        if (from < 200 || to < from || to > 599) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%V\" of \"expect\" in "
                               "\"probe\": expected statuses from 200 to 599 "
                               "and ranges of them, for example "
                               "\"200-299,401\"", &probe->expect);
            return NGX_CONF_ERROR;
        }

        expect = ngx_array_push(&probe->expects);
        if (expect == NULL) {
            return NGX_CONF_ERROR;
        }

        expect->first = from;
        expect->last = to;
    }

    return NGX_CONF_OK;
}


static ngx_uint_t
ngx_http_llm_probe_is_plain(ngx_str_t *s, ngx_uint_t letters)
{
    u_char      c;
    ngx_uint_t  i;

    for (i = 0; i < s->len; i++) {
        c = s->data[i];

        if (letters ? c < 'A' || c > 'Z' : c <= 0x20 || c >= 0x7f || c == '#') {
            return 0;
        }
    }

    return 1;
}


/* body=FILE: JSON, read once */

static char *
ngx_http_llm_probe_body(ngx_conf_t *cf, ngx_http_llm_probe_t *probe)
{
    size_t        size;
    json_t       *json;
    ssize_t       n;
    json_error_t  error;

    if (ngx_conf_full_name(cf->cycle, &probe->file, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    size = NGX_HTTP_LLM_PROBE_BODY_MAX + 1;

    probe->body.data = ngx_pnalloc(cf->pool, size);
    if (probe->body.data == NULL) {
        return NGX_CONF_ERROR;
    }

    n = ngx_http_llm_file_named(cf, &probe->file, probe->body.data, size);

    if (n == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    probe->body.len = n;

    json = json_loadb((char *) probe->body.data, n, 0, &error);

    if (json == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "file \"%V\" of \"body\" in \"probe\" is no JSON, "
                           "see its line %d: expected a request, for example "
                           "{\"model\": \"...\", \"max_tokens\": 1, "
                           "\"messages\": [...]}", &probe->file, error.line);
        return NGX_CONF_ERROR;
    }

    json_decref(json);

    return NGX_CONF_OK;
}


/*
 * The block of the provider is read.  Its headers go with the probe, but for
 * those that only a request can fill.
 */

char *
ngx_http_llm_probe_check(ngx_conf_t *cf, ngx_http_llm_provider_t *provider)
{
    char                  *rv;
    ngx_str_t              agent, json;
    ngx_uint_t             i, host, type;
    ngx_keyval_t          *h;
    ngx_http_llm_probe_t  *probe;
    ngx_http_llm_header_t *header;

    probe = provider->probe;

    if (probe == NULL) {
        return NGX_CONF_OK;
    }

    if (ngx_array_init(&probe->headers, cf->pool, 4, sizeof(ngx_keyval_t))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    ngx_str_set(&agent, "nginx-llm/" NGX_HTTP_LLM_VERSION);
    ngx_str_set(&json, "application/json");

    header = provider->headers.elts;
    host = type = 0;

    for (i = 0; i < provider->headers.nelts; i++) {

        if (header[i].value->lengths) {

            if (ngx_http_llm_is_secret_header(&header[i].name)
                || (provider->key_set && !provider->client_key
                    && !provider->own_key))
            {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "\"probe\" of \"llm_provider\" \"%V\" can "
                                   "not send header \"%V\": it holds "
                                   "variables, and there is no request to "
                                   "take them from; expected a key without",
                                   &provider->name, &header[i].name);
                return NGX_CONF_ERROR;
            }

            ngx_conf_log_error(NGX_LOG_NOTICE, cf, 0,
                               "\"probe\" of \"llm_provider\" \"%V\" does "
                               "without header \"%V\", which holds variables",
                               &provider->name, &header[i].name);
            continue;
        }

        h = ngx_array_push(&probe->headers);
        if (h == NULL) {
            return NGX_CONF_ERROR;
        }

        h->key = header[i].name;
        h->value = header[i].value->value;

        host |= (h->key.len == 4
                 && ngx_strncasecmp(h->key.data, (u_char *) "host", 4) == 0);
        type |= (h->key.len == 12
                 && ngx_strncasecmp(h->key.data, (u_char *) "content-type", 12)
                    == 0);
    }

    rv = ngx_http_llm_probe_add(probe, "User-Agent", &agent);

    if (rv == NGX_CONF_OK && !host) {
        rv = ngx_http_llm_probe_add(probe, "Host", &provider->host);
    }

    if (rv == NGX_CONF_OK && !type && probe->body.data) {
        rv = ngx_http_llm_probe_add(probe, "Content-Type", &json);
    }

    return rv;
}


static char *
ngx_http_llm_probe_add(ngx_http_llm_probe_t *probe, const char *name,
    ngx_str_t *value)
{
    ngx_uint_t     i;
    ngx_keyval_t  *h;

    h = probe->headers.elts;

    for (i = 0; i < probe->headers.nelts; i++) {
        if (ngx_strlen(name) == h[i].key.len
            && ngx_strncasecmp(h[i].key.data, (u_char *) name, h[i].key.len)
               == 0)
        {
            return NGX_CONF_OK;
        }
    }

    h = ngx_array_push(&probe->headers);
    if (h == NULL) {
        return NGX_CONF_ERROR;
    }

    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value = *value;

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_probe_url(ngx_conf_t *cf, ngx_http_llm_provider_t *provider,
    ngx_str_t *host)
{
    u_char                *p;
    ngx_uint_t             args;
    ngx_http_llm_probe_t  *probe;

    probe = provider->probe;

    p = ngx_pnalloc(cf->pool, provider->schema.len + host->len
                              + provider->base.len + probe->uri.len + 1
                              + provider->args.len);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    probe->url.data = p;

    args = ngx_strlchr(probe->uri.data, probe->uri.data + probe->uri.len, '?')
           != NULL;

    p = ngx_sprintf(p, "%V%V%V%V", &provider->schema, host,
                    &provider->base, &probe->uri);

    if (provider->args.len) {
        p = ngx_sprintf(p, "%c%V", args ? '&' : '?', &provider->args);
    }

    probe->url.len = p - probe->url.data;

    return NGX_CONF_OK;
}


/* Whatever is asked for in another way is asked for anew. */

static void
ngx_http_llm_probe_mark(ngx_http_llm_probe_t *probe)
{
    uint64_t       hash;
    ngx_uint_t     i;
    ngx_keyval_t  *h;

    hash = ngx_http_llm_probe_hash(14695981039346656037ULL, &probe->url);
    hash = ngx_http_llm_probe_hash(hash, &probe->method);
    hash = ngx_http_llm_probe_hash(hash, &probe->expect);
    hash = ngx_http_llm_probe_hash(hash, &probe->body);

    h = probe->headers.elts;

    for (i = 0; i < probe->headers.nelts; i++) {
        hash = ngx_http_llm_probe_hash(hash, &h[i].key);
        hash = ngx_http_llm_probe_hash(hash, &h[i].value);
    }

    probe->mark = hash | 1;
}


/* FNV-1a */

static uint64_t
ngx_http_llm_probe_hash(uint64_t hash, ngx_str_t *s)
{
    size_t  i;

    for (i = 0; i < s->len; i++) {
        hash = (hash ^ s->data[i]) * 1099511628211ULL;
    }

    return (hash ^ 0xff) * 1099511628211ULL;
}


/* The whole configuration is read. */

char *
ngx_http_llm_probes_init(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf)
{
    ngx_str_t                 *host;
    ngx_uint_t                 i;
    ngx_http_llm_probe_t      *probe;
    ngx_http_llm_provider_t  **providerp;
#if (NGX_HTTP_SSL)
    SSL_CTX                   *system;
    ngx_str_t                  address;

    system = NULL;
#endif

    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {

        probe = providerp[i]->probe;

        if (probe == NULL) {
            continue;
        }

        mcf->probes = 1;
        mcf->calls = 1;

        host = &providerp[i]->host;

#if (NGX_HTTP_SSL)

        probe->tls_name = providerp[i]->tls_name;

        if (providerp[i]->ssl
            && ngx_http_llm_probe_tls(cf, mcf, probe, &system) != NGX_CONF_OK)
        {
            return NGX_CONF_ERROR;
        }

        /* what "Host" says is another matter */

        if (probe->nameless) {

            /* libcurl leaves out SNI where the URL has an address */

            ngx_str_set(&address, "127.0.0.1");
            host = &address;

        } else if (probe->tls_name.data != providerp[i]->tls_name.data) {
            host = &probe->tls_name;
        }

#endif

        if (ngx_http_llm_probe_url(cf, providerp[i], host) != NGX_CONF_OK) {
            return NGX_CONF_ERROR;
        }

        ngx_http_llm_probe_mark(probe);
    }

    return NGX_CONF_OK;
}


#if (NGX_HTTP_SSL)

/*
 * Verified as requests are: with the CAs, the depth, the name and the
 * certificate of the first location that leads to the provider.
 */

static char *
ngx_http_llm_probe_tls(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_probe_t *probe, SSL_CTX **system)
{
    ngx_str_t                  file;
    ngx_http_upstream_conf_t  *upstream;

    upstream = ngx_http_llm_probe_location(mcf, probe->provider);

    if (upstream == NULL) {

        if (*system == NULL) {
            ngx_str_set(&file, NGX_HTTP_LLM_CA_FILE);

            *system = ngx_http_llm_curl_trust(cf, &file);
            if (*system == NULL) {
                return NGX_CONF_ERROR;
            }
        }

        probe->trust = *system;

        return NGX_CONF_OK;
    }

    probe->trust = upstream->ssl->ctx;
    probe->unverified = !upstream->ssl_verify;

    if (upstream->ssl_name && upstream->ssl_name->lengths == NULL) {
        probe->tls_name = upstream->ssl_name->value;
    }

    probe->nameless = !upstream->ssl_server_name;

    if (upstream->ssl_certificate && upstream->ssl_certificate->lengths) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"probe\" of \"llm_provider\" \"%V\" does "
                           "without \"proxy_ssl_certificate\", which holds "
                           "variables", &probe->provider->name);
    }

    return NGX_CONF_OK;
}


static ngx_http_upstream_conf_t *
ngx_http_llm_probe_location(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider)
{
    ngx_uint_t                 i;
    ngx_http_llm_pass_t       *pass;
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_upstream_conf_t  *upstream;

    pass = mcf->passes.elts;

    for (i = 0; i < mcf->passes.nelts; i++) {

        clcf = pass[i].conf->location;

        if (clcf == NULL
            || (pass[i].conf->route
                && !ngx_http_llm_probe_uses(pass[i].conf->route, provider)))
        {
            continue;
        }

        /* the first member of the proxy module's conf, merged by now */

        upstream = clcf->loc_conf[ngx_http_proxy_module.ctx_index];

        if (upstream->ssl && upstream->ssl->ctx) {
            return upstream;
        }
    }

    return NULL;
}


static ngx_uint_t
ngx_http_llm_probe_uses(ngx_http_llm_route_t *route,
    ngx_http_llm_provider_t *provider)
{
    ngx_uint_t           i;
    ngx_http_llm_use_t  *use;

    use = route->uses.elts;

    for (i = 0; i < route->uses.nelts; i++) {
        if (use[i].provider == provider) {
            return 1;
        }
    }

    return 0;
}

#endif
