
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_dns.h"
#include "ngx_http_llm_target.h"


/*
 * Whom to ask for the addresses of a host, and by which names: "resolver" at
 * http level, or the system's name servers.
 */


static char *ngx_http_llm_dns_resolver(ngx_conf_t *cf,
    ngx_http_llm_dns_t *dns, ngx_http_core_loc_conf_t *clcf);
static ngx_uint_t ngx_http_llm_is_localhost(ngx_str_t *host);
static char *ngx_http_llm_dns_names(ngx_conf_t *cf, ngx_http_llm_dns_t *dns,
    ngx_http_llm_target_t *target);
static ngx_int_t ngx_http_llm_dns_name(ngx_conf_t *cf,
    ngx_http_llm_target_t *target, ngx_str_t *domain);


char *
ngx_http_llm_dns_init(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf)
{
    char                       *rv;
    ngx_uint_t                  i, follow;
    ngx_http_llm_dns_t         *dns;
    ngx_http_llm_target_t     **targetp;
    ngx_http_core_loc_conf_t   *clcf;

    if (ngx_http_llm_dns_hosts(cf, mcf) == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    targetp = mcf->targets.elts;
    follow = 0;

    for (i = 0; i < mcf->targets.nelts; i++) {

        if (ngx_http_llm_is_localhost(&targetp[i]->host)) {
            targetp[i]->follows = 0;
        }

        follow |= targetp[i]->follows;
    }

    if (!follow) {
        return NGX_CONF_OK;
    }

    dns = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_dns_t));
    if (dns == NULL
        || ngx_array_init(&dns->servers, cf->pool, 3, sizeof(ngx_resolver_t *))
           != NGX_OK
        || ngx_array_init(&dns->search, cf->pool, 6, sizeof(ngx_str_t))
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    mcf->dns = dns;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    /* where there is none, nginx has made one without servers */

    rv = clcf->resolver && clcf->resolver->connections.nelts
         ? ngx_http_llm_dns_resolver(cf, dns, clcf)
         : ngx_http_llm_dns_system(cf, dns);

    for (i = 0; rv == NGX_CONF_OK && i < mcf->targets.nelts; i++) {
        if (targetp[i]->follows) {
            rv = ngx_http_llm_dns_names(cf, dns, targetp[i]);
        }
    }

    return rv;
}


/* nginx's own: it asks its servers in turn, and knows no search list */

static char *
ngx_http_llm_dns_resolver(ngx_conf_t *cf, ngx_http_llm_dns_t *dns,
    ngx_http_core_loc_conf_t *clcf)
{
    ngx_resolver_t  **server;

    server = ngx_array_push(&dns->servers);
    if (server == NULL) {
        return NGX_CONF_ERROR;
    }

    *server = clcf->resolver;

    dns->timeout = clcf->resolver_timeout == NGX_CONF_UNSET_MSEC
                   ? 30000 : clcf->resolver_timeout;

    return NGX_CONF_OK;
}


/* It is this machine, whatever a name server may say. */

static ngx_uint_t
ngx_http_llm_is_localhost(ngx_str_t *host)
{
    size_t  len;

    len = sizeof("localhost") - 1;

    return host->len >= len
           && ngx_strncmp(host->data + host->len - len, "localhost", len) == 0
           && (host->len == len || host->data[host->len - len - 1] == '.');
}


/* The names that a host may have, in the order in which they are tried. */

static char *
ngx_http_llm_dns_names(ngx_conf_t *cf, ngx_http_llm_dns_t *dns,
    ngx_http_llm_target_t *target)
{
    size_t       len;
    ngx_str_t   *search, *host, *name;
    ngx_uint_t   i, dots, first, absolute;

    host = &target->host;
    search = dns->search.elts;
    dots = 0;

    for (i = 0; i < host->len; i++) {
        dots += (host->data[i] == '.');
    }

    absolute = host->len && host->data[host->len - 1] == '.';

    if (ngx_array_init(&target->names, cf->pool, dns->search.nelts + 1,
                       sizeof(ngx_str_t))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    first = absolute || dots >= dns->ndots;

    if (first && ngx_http_llm_dns_name(cf, target, NULL) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    for (i = 0; !absolute && i < dns->search.nelts; i++) {
        if (ngx_http_llm_dns_name(cf, target, &search[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    if (!first && ngx_http_llm_dns_name(cf, target, NULL) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    name = target->names.elts;
    len = 0;

    for (i = 0; i < target->names.nelts; i++) {
        len = ngx_max(len, name[i].len);
    }

    target->question = ngx_pnalloc(cf->pool, len);
    if (target->question == NULL) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_llm_dns_name(ngx_conf_t *cf, ngx_http_llm_target_t *target,
    ngx_str_t *domain)
{
    u_char     *p;
    size_t      len;
    ngx_str_t  *name;

    len = target->host.len + (domain ? 1 + domain->len : 0);

    name = ngx_array_push(&target->names);
    if (name == NULL) {
        return NGX_ERROR;
    }

    name->len = len;
    name->data = ngx_pnalloc(cf->pool, len);
    if (name->data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(name->data, target->host.data, target->host.len);

    if (domain) {
        *p++ = '.';
        ngx_strlow(p, domain->data, domain->len);
    }

    return NGX_OK;
}
