
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_dns.h"
#include "ngx_http_llm_target.h"

#include <ifaddrs.h>


/*
 * What the system's own resolver would read: the name servers and options of
 * /etc/resolv.conf, and the hosts of /etc/hosts.
 */


#define NGX_HTTP_LLM_HOSTS            "/etc/hosts"
#define NGX_HTTP_LLM_RESOLV_CONF      "/etc/resolv.conf"

/* as resolv.conf(5) has it */

#define NGX_HTTP_LLM_NAMESERVERS      3
#define NGX_HTTP_LLM_NDOTS_MAX        15
#define NGX_HTTP_LLM_DNS_TIMEOUT      5
#define NGX_HTTP_LLM_DNS_TIMEOUT_MAX  30


typedef ngx_int_t (*ngx_http_llm_line_pt)(ngx_conf_t *cf, void *data,
    ngx_str_t *words, ngx_uint_t n);


typedef struct {
    ngx_http_llm_dns_t        *dns;
    ngx_array_t                servers;           /* ngx_str_t */
    ngx_uint_t                 no_ipv6;
} ngx_http_llm_resolv_conf_t;


static ngx_int_t ngx_http_llm_dns_server(ngx_conf_t *cf,
    ngx_http_llm_dns_t *dns, ngx_str_t *address, ngx_uint_t no_ipv6);
static ngx_uint_t ngx_http_llm_has_ipv6(void);
static ngx_int_t ngx_http_llm_read_lines(ngx_conf_t *cf, const char *path,
    ngx_http_llm_line_pt handler, void *data);
static ngx_uint_t ngx_http_llm_split(u_char *p, u_char *last,
    ngx_str_t *words, ngx_uint_t max);
static ngx_int_t ngx_http_llm_resolv_conf_line(ngx_conf_t *cf, void *data,
    ngx_str_t *words, ngx_uint_t n);
static ngx_int_t ngx_http_llm_resolv_conf_option(
    ngx_http_llm_resolv_conf_t *conf, ngx_str_t *option);
static ngx_int_t ngx_http_llm_hosts_line(ngx_conf_t *cf, void *data,
    ngx_str_t *words, ngx_uint_t n);


char *
ngx_http_llm_dns_system(ngx_conf_t *cf, ngx_http_llm_dns_t *dns)
{
    ngx_str_t                   *server, local;
    ngx_uint_t                   i;
    ngx_http_llm_resolv_conf_t   conf;

    ngx_memzero(&conf, sizeof(ngx_http_llm_resolv_conf_t));

    conf.dns = dns;
    conf.no_ipv6 = !ngx_http_llm_has_ipv6();

    dns->ndots = 1;
    dns->timeout = NGX_HTTP_LLM_DNS_TIMEOUT * 1000;

    if (ngx_array_init(&conf.servers, cf->temp_pool, 3, sizeof(ngx_str_t))
        != NGX_OK
        || ngx_http_llm_read_lines(cf, NGX_HTTP_LLM_RESOLV_CONF,
                                   ngx_http_llm_resolv_conf_line, &conf)
           == NGX_ERROR)
    {
        return NGX_CONF_ERROR;
    }

    server = conf.servers.elts;

    for (i = 0; i < conf.servers.nelts; i++) {
        if (ngx_http_llm_dns_server(cf, dns, &server[i], conf.no_ipv6)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    if (dns->servers.nelts == 0) {
        ngx_str_set(&local, "127.0.0.1");

        if (ngx_http_llm_dns_server(cf, dns, &local, conf.no_ipv6) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


/* A resolver of its own for each, as the second is not to be asked in turn. */

static ngx_int_t
ngx_http_llm_dns_server(ngx_conf_t *cf, ngx_http_llm_dns_t *dns,
    ngx_str_t *address, ngx_uint_t no_ipv6)
{
    ngx_str_t         args[2];
    ngx_uint_t        n;
    ngx_sockaddr_t    sa;
    ngx_resolver_t  **server;

    ngx_memzero(&sa, sizeof(ngx_sockaddr_t));

    if (ngx_inet_addr(address->data, address->len) != INADDR_NONE) {
        args[0] = *address;

#if (NGX_HAVE_INET6)
    } else if (ngx_inet6_addr(address->data, address->len,
                              sa.sockaddr_in6.sin6_addr.s6_addr)
               == NGX_OK)
    {
        args[0].data = ngx_pnalloc(cf->pool, address->len + 2);
        if (args[0].data == NULL) {
            return NGX_ERROR;
        }

        args[0].len = ngx_sprintf(args[0].data, "[%V]", address)
                      - args[0].data;
#endif

    } else {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "nameserver \"%V\" in " NGX_HTTP_LLM_RESOLV_CONF
                           " is not asked: expected an address without a "
                           "zone", address);
        return NGX_OK;
    }

    n = 1;

#if (NGX_HAVE_INET6)
    if (no_ipv6) {
        ngx_str_set(&args[n], "ipv6=off");
        n++;
    }
#endif

    server = ngx_array_push(&dns->servers);
    if (server == NULL) {
        return NGX_ERROR;
    }

    *server = ngx_resolver_create(cf, args, n);

    return *server ? NGX_OK : NGX_ERROR;
}


/* As AI_ADDRCONFIG has it: without such an address none is asked for. */

static ngx_uint_t
ngx_http_llm_has_ipv6(void)
{
    ngx_uint_t       found;
    struct ifaddrs  *list, *ifa;

    found = 0;

    if (getifaddrs(&list) == -1) {
        return 1;
    }

    for (ifa = list; ifa; ifa = ifa->ifa_next) {
        if (ifa->ifa_addr && ifa->ifa_addr->sa_family == AF_INET6
            && !IN6_IS_ADDR_LOOPBACK(
                   &((struct sockaddr_in6 *) ifa->ifa_addr)->sin6_addr))
        {
            found = 1;
            break;
        }
    }

    freeifaddrs(list);

    return found;
}


/* The words of each line; a file that is not there has no lines. */

static ngx_int_t
ngx_http_llm_read_lines(ngx_conf_t *cf, const char *path,
    ngx_http_llm_line_pt handler, void *data)
{
    FILE        *file;
    char        *line;
    size_t       size;
    ssize_t      len;
    ngx_int_t    rc;
    ngx_str_t    words[64];
    ngx_uint_t   n;

    file = fopen(path, "re");

    if (file == NULL) {
        return NGX_DECLINED;
    }

    rc = NGX_OK;
    line = NULL;
    size = 0;

    while (rc == NGX_OK && (len = getline(&line, &size, file)) != -1) {

        n = ngx_http_llm_split((u_char *) line, (u_char *) line + len, words,
                               sizeof(words) / sizeof(words[0]));
        if (n > 1) {
            rc = handler(cf, data, words, n);
        }
    }

    free(line);
    (void) fclose(file);

    return rc;
}


static ngx_uint_t
ngx_http_llm_split(u_char *p, u_char *last, ngx_str_t *words, ngx_uint_t max)
{
    ngx_uint_t  n;

    for (n = 0; n < max; n++) {

        while (p < last && (*p == ' ' || *p == '\t')) {
            p++;
        }

        words[n].data = p;

        while (p < last && *p > ' ' && *p != '#' && *p != ';') {
            p++;
        }

        words[n].len = p - words[n].data;

        if (words[n].len == 0) {
            break;
        }
    }

    return n;
}


static ngx_int_t
ngx_http_llm_resolv_conf_line(ngx_conf_t *cf, void *data, ngx_str_t *words,
    ngx_uint_t n)
{
    ngx_http_llm_resolv_conf_t *conf = data;

    ngx_str_t   *s;
    ngx_uint_t   i;

    if (ngx_strncmp(words[0].data, "nameserver", words[0].len) == 0
        && words[0].len == sizeof("nameserver") - 1)
    {
        if (conf->servers.nelts == NGX_HTTP_LLM_NAMESERVERS) {
            return NGX_OK;
        }

        s = ngx_array_push(&conf->servers);
        if (s == NULL) {
            return NGX_ERROR;
        }

        s->len = words[1].len;
        s->data = ngx_pstrdup(cf->pool, &words[1]);

        return s->data ? NGX_OK : NGX_ERROR;
    }

    if (words[0].len == sizeof("search") - 1
        && (ngx_strncmp(words[0].data, "search", words[0].len) == 0
            || ngx_strncmp(words[0].data, "domain", words[0].len) == 0))
    {
        conf->dns->search.nelts = 0;

        for (i = 1; i < n; i++) {

            s = ngx_array_push(&conf->dns->search);
            if (s == NULL) {
                return NGX_ERROR;
            }

            s->len = words[i].len;
            s->data = ngx_pstrdup(cf->pool, &words[i]);

            if (s->data == NULL) {
                return NGX_ERROR;
            }
        }

        return NGX_OK;
    }

    if (words[0].len == sizeof("options") - 1
        && ngx_strncmp(words[0].data, "options", words[0].len) == 0)
    {
        for (i = 1; i < n; i++) {
            if (ngx_http_llm_resolv_conf_option(conf, &words[i]) != NGX_OK) {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_resolv_conf_option(ngx_http_llm_resolv_conf_t *conf,
    ngx_str_t *option)
{
    ngx_int_t  n;

    if (option->len > 6 && ngx_strncmp(option->data, "ndots:", 6) == 0) {
        n = ngx_atoi(option->data + 6, option->len - 6);

        if (n >= 0) {
            conf->dns->ndots = ngx_min(n, NGX_HTTP_LLM_NDOTS_MAX);
        }

    } else if (option->len > 8
               && ngx_strncmp(option->data, "timeout:", 8) == 0)
    {
        n = ngx_atoi(option->data + 8, option->len - 8);

        if (n > 0) {
            n = ngx_min(n, NGX_HTTP_LLM_DNS_TIMEOUT_MAX);
            conf->dns->timeout = n * 1000;
        }

    } else if (option->len == 7
               && ngx_strncmp(option->data, "no-aaaa", 7) == 0)
    {
        conf->no_ipv6 = 1;
    }

    return NGX_OK;
}


/* Hosts that stand in there are looked up there and nowhere else. */

ngx_int_t
ngx_http_llm_dns_hosts(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf)
{
    return ngx_http_llm_read_lines(cf, NGX_HTTP_LLM_HOSTS,
                                   ngx_http_llm_hosts_line, mcf);
}


/* address name ... */

static ngx_int_t
ngx_http_llm_hosts_line(ngx_conf_t *cf, void *data, ngx_str_t *words,
    ngx_uint_t n)
{
    ngx_http_llm_main_conf_t *mcf = data;

    ngx_uint_t               i, t;
    ngx_http_llm_target_t  **targetp;

    targetp = mcf->targets.elts;

    for (t = 0; t < mcf->targets.nelts; t++) {

        for (i = 1; i < n; i++) {

            if (targetp[t]->host.len == words[i].len
                && ngx_strncasecmp(targetp[t]->host.data, words[i].data,
                                   words[i].len)
                   == 0)
            {
                targetp[t]->follows = 0;
            }
        }
    }

    return NGX_OK;
}
