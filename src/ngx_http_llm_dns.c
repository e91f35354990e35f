
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_dns.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_target.h"

#include <ifaddrs.h>
#include <resolv.h>


/*
 * Whom to ask for the addresses of a host, and by which names: "resolver" at
 * http level, or what /etc/resolv.conf says, as the system's own resolver
 * would read it.  Hosts of /etc/hosts are looked up there and nowhere else.
 */


#define NGX_HTTP_LLM_HOSTS         "/etc/hosts"
#define NGX_HTTP_LLM_RESOLV_CONF   "/etc/resolv.conf"

/* as resolv.conf(5) has it */

#define NGX_HTTP_LLM_NAMESERVERS   3
#define NGX_HTTP_LLM_NDOTS_MAX     15
#define NGX_HTTP_LLM_DNS_TIMEOUT   5
#define NGX_HTTP_LLM_DNS_TIMEOUT_MAX  30

/* us; a lookup that takes longer has met a name server that is dead */

#define NGX_HTTP_LLM_LOOKUP_SLOW   900000


typedef ngx_int_t (*ngx_http_llm_line_pt)(ngx_conf_t *cf, void *data,
    ngx_str_t *words, ngx_uint_t n);


typedef struct {
    ngx_http_llm_dns_t        *dns;
    ngx_array_t                servers;           /* ngx_str_t */
    ngx_uint_t                 no_ipv6;
} ngx_http_llm_resolv_conf_t;


static char *ngx_http_llm_dns_resolver(ngx_conf_t *cf,
    ngx_http_llm_dns_t *dns, ngx_http_core_loc_conf_t *clcf);
static char *ngx_http_llm_dns_system(ngx_conf_t *cf,
    ngx_http_llm_dns_t *dns);
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
static ngx_uint_t ngx_http_llm_is_localhost(ngx_str_t *host);
static char *ngx_http_llm_dns_names(ngx_conf_t *cf, ngx_http_llm_dns_t *dns,
    ngx_http_llm_target_t *target);
static ngx_int_t ngx_http_llm_dns_name(ngx_conf_t *cf,
    ngx_http_llm_target_t *target, ngx_str_t *domain);
static ngx_int_t ngx_http_llm_lookup(ngx_http_llm_target_t *target,
    ngx_log_t *log);


char *
ngx_http_llm_dns_init(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf)
{
    char                       *rv;
    ngx_uint_t                  i, follow;
    ngx_http_llm_dns_t         *dns;
    ngx_http_llm_target_t     **targetp;
    ngx_http_core_loc_conf_t   *clcf;

    if (ngx_http_llm_read_lines(cf, NGX_HTTP_LLM_HOSTS,
                                ngx_http_llm_hosts_line, mcf)
        == NGX_ERROR)
    {
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
        || ngx_array_init(&dns->servers, cf->pool, NGX_HTTP_LLM_NAMESERVERS,
                          sizeof(ngx_resolver_t *))
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


static char *
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


/*
 * The first addresses, by the system: so providers are in service from the
 * first request on.  It blocks, so what is known already is not looked up,
 * and nothing is any more once a name server was found dead.
 */

void
ngx_http_llm_targets_lookup(ngx_http_llm_main_conf_t *mcf, ngx_log_t *log)
{
    uint64_t                  start;
    ngx_uint_t                i, dead, asked;
    ngx_http_llm_target_t    *target, **targetp;
#if defined(__GLIBC__) && (NGX_LINUX)
    int                       retrans, retry;

    (void) res_init();

    retrans = _res.retrans;
    retry = _res.retry;

    _res.retrans = 1;
    _res.retry = 1;
#endif

    targetp = mcf->targets.elts;
    dead = 0;

    for (i = 0; i < mcf->targets.nelts; i++) {

        target = targetp[i];

        if (target->naddrs) {
            continue;
        }

        asked = !dead || !target->follows;
        start = ngx_http_llm_stopwatch();

        if (asked && ngx_http_llm_lookup(target, log) == NGX_OK) {
            continue;
        }

        if (ngx_http_llm_stopwatch() - start > NGX_HTTP_LLM_LOOKUP_SLOW) {
            dead = 1;
        }

        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "host not %s in \"%V\" \"%V\" in %V:%ui: "
                      "%V is out of service until %s",
                      asked ? "found" : "looked up, as no name server answers,",
                      &target->directive, &target->host, &target->file,
                      target->line, &target->owner,
                      target->follows ? "it is found" : "the next reload");
    }

#if defined(__GLIBC__) && (NGX_LINUX)
    _res.retrans = retrans;
    _res.retry = retry;
#endif
}


static ngx_int_t
ngx_http_llm_lookup(ngx_http_llm_target_t *target, ngx_log_t *log)
{
    ngx_int_t            rc;
    ngx_url_t            u;
    ngx_uint_t           i;
    ngx_pool_t          *pool;
    ngx_http_llm_set_t   set;

    pool = ngx_create_pool(NGX_DEFAULT_POOL_SIZE, log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.host = target->host;
    u.port = target->port;

    rc = ngx_inet_resolve_host(pool, &u);

    if (rc == NGX_OK) {

        set.n = 0;

        for (i = 0; i < u.naddrs; i++) {
            ngx_http_llm_set_add(&set, u.addrs[i].sockaddr,
                                 u.addrs[i].socklen, 0);
        }

        rc = ngx_http_llm_target_set(target, &set);
    }

    ngx_destroy_pool(pool);

    return rc;
}
