
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_describe.h"
#include "ngx_http_llm_target.h"


/*
 * The addresses of a target: which one is the next, and which are passed
 * over because connecting to them failed.  Each worker has its own.
 */


/* an address that failed is passed over for so long, doubled each time */

#define NGX_HTTP_LLM_PASS_OVER      10000
#define NGX_HTTP_LLM_PASS_OVER_MAX  320000


static void ngx_http_llm_target_cleanup(void *data);
static ngx_http_llm_address_t *ngx_http_llm_target_find(
    ngx_http_llm_target_t *target, struct sockaddr *sockaddr);
static ngx_uint_t ngx_http_llm_address_waits(ngx_http_llm_address_t *address);
static void ngx_http_llm_address_pass_over(ngx_http_llm_address_t *address);
static ngx_int_t ngx_http_llm_address_cmp(struct sockaddr *one,
    struct sockaddr *two);


ngx_http_llm_target_t *
ngx_http_llm_target_create(ngx_conf_t *cf, ngx_url_t *u,
    const char *directive, const char *kind, ngx_str_t *name)
{
    size_t                      len;
    ngx_uint_t                  i;
    ngx_pool_cleanup_t         *cln;
    ngx_http_llm_set_t         *set;
    ngx_http_llm_target_t      *target, **targetp;
    ngx_http_llm_main_conf_t   *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    target = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_target_t));
    set = ngx_pcalloc(cf->temp_pool, sizeof(ngx_http_llm_set_t));
    cln = ngx_pool_cleanup_add(cf->pool, 0);
    targetp = ngx_array_push(&mcf->targets);

    if (target == NULL || set == NULL || cln == NULL || targetp == NULL) {
        return NULL;
    }

    *targetp = target;

    cln->handler = ngx_http_llm_target_cleanup;
    cln->data = target;

    target->ident = -1;
    target->mcf = mcf;
    target->known = &target->own;
    target->port = u->port;
    target->directive.data = (u_char *) directive;
    target->directive.len = ngx_strlen(directive);
    target->file = cf->conf_file->file.name;
    target->line = cf->conf_file->line;
    target->host.len = u->host.len;

    len = ngx_strlen(kind) + sizeof(" \"\"") - 1 + name->len;

    target->host.data = ngx_pnalloc(cf->pool, u->host.len + 1);
    target->owner.data = ngx_pnalloc(cf->pool, len);

    if (target->host.data == NULL || target->owner.data == NULL) {
        return NULL;
    }

    target->owner.len = ngx_sprintf(target->owner.data, "%s \"%V\"", kind,
                                    name)
                        - target->owner.data;

    ngx_strlow(target->host.data, u->host.data, u->host.len);
    target->host.data[u->host.len] = '\0';

    for (i = 0; i < u->naddrs; i++) {
        ngx_http_llm_set_add(set, u->addrs[i].sockaddr, u->addrs[i].socklen,
                             0);
    }

    target->follows = (u->naddrs == 0);

    if (ngx_http_llm_target_set(target, set) == NGX_ERROR) {
        return NULL;
    }

    return target;
}


static void
ngx_http_llm_target_cleanup(void *data)
{
    ngx_http_llm_target_t *target = data;

    if (target->timer.timer_set) {
        ngx_del_timer(&target->timer);
    }

    if (target->addrs) {
        ngx_free(target->addrs);
    }
}


ngx_http_llm_address_t *
ngx_http_llm_target_address(ngx_http_llm_target_t *target)
{
    ngx_uint_t               i;
    ngx_http_llm_address_t  *address;

    if (target->naddrs == 0) {
        return NULL;
    }

    for (i = 0; i < target->naddrs; i++) {

        address = &target->addrs[target->turn++ % target->naddrs];

        if (ngx_http_llm_address_waits(address)) {
            continue;
        }

        if (address->fails) {

            /* one request finds out, the others pass it over meanwhile */

            address->fails++;
            ngx_http_llm_address_pass_over(address);
        }

        return address;
    }

    /* where all of them wait, that says nothing about any of them */

    return &target->addrs[target->turn++ % target->naddrs];
}


ngx_uint_t
ngx_http_llm_target_failed(ngx_http_llm_target_t *target,
    struct sockaddr *sockaddr, ngx_log_t *log)
{
    ngx_uint_t               i;
    ngx_http_llm_address_t  *address;

    address = ngx_http_llm_target_find(target, sockaddr);

    if (address && address->fails == 0 && target->naddrs > 1) {
        address->fails = 1;
        ngx_http_llm_address_pass_over(address);

        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "llm: %V: connecting to %V failed, this one of its "
                      "%ui addresses is passed over for a while",
                      &target->owner, &address->name, target->naddrs);
    }

    for (i = 0; i < target->naddrs; i++) {
        if (&target->addrs[i] != address
            && !ngx_http_llm_address_waits(&target->addrs[i]))
        {
            return 1;
        }
    }

    return 0;
}


void
ngx_http_llm_target_good(ngx_http_llm_target_t *target,
    struct sockaddr *sockaddr)
{
    ngx_http_llm_address_t  *address;

    address = ngx_http_llm_target_find(target, sockaddr);

    if (address) {
        address->fails = 0;
    }
}


static ngx_http_llm_address_t *
ngx_http_llm_target_find(ngx_http_llm_target_t *target,
    struct sockaddr *sockaddr)
{
    ngx_uint_t               i;
    ngx_http_llm_address_t  *address;

    for (i = 0; i < target->naddrs; i++) {

        address = &target->addrs[i];

        if (ngx_http_llm_address_cmp(&address->sockaddr.sockaddr, sockaddr)
            == 0)
        {
            return address;
        }
    }

    return NULL;
}


static ngx_uint_t
ngx_http_llm_address_waits(ngx_http_llm_address_t *address)
{
    return address->fails
           && (ngx_msec_int_t) (address->until - ngx_current_msec) > 0;
}


static void
ngx_http_llm_address_pass_over(ngx_http_llm_address_t *address)
{
    ngx_msec_t  time;
    ngx_uint_t  i;

    time = NGX_HTTP_LLM_PASS_OVER;

    for (i = 1; i < address->fails && time < NGX_HTTP_LLM_PASS_OVER_MAX; i++) {
        time *= 2;
    }

    address->until = ngx_current_msec + time;
}


/*
 * The set is kept in order, so that a name server that turns its answers
 * round is not seen as a change, and of too many the same ones stay.
 */

void
ngx_http_llm_set_add(ngx_http_llm_set_t *set, struct sockaddr *sockaddr,
    socklen_t socklen, in_port_t port)
{
    ngx_int_t                rc;
    ngx_uint_t               i;
    ngx_sockaddr_t           sa;
    ngx_http_llm_address_t  *address;

    if (socklen > (socklen_t) sizeof(ngx_sockaddr_t)) {
        return;
    }

    ngx_memzero(&sa, sizeof(ngx_sockaddr_t));
    ngx_memcpy(&sa, sockaddr, socklen);

    if (port) {
        ngx_inet_set_port(&sa.sockaddr, port);
    }

    for (i = 0; i < set->n; i++) {

        rc = ngx_http_llm_address_cmp(&sa.sockaddr,
                                      &set->addrs[i].sockaddr.sockaddr);
        if (rc == 0) {
            return;
        }

        if (rc < 0) {
            break;
        }
    }

    if (i == NGX_HTTP_LLM_ADDRESSES) {
        return;
    }

    if (set->n < NGX_HTTP_LLM_ADDRESSES) {
        set->n++;
    }

    address = &set->addrs[i];

    ngx_memmove(address + 1, address,
                (set->n - i - 1) * sizeof(ngx_http_llm_address_t));
    ngx_memzero(address, sizeof(ngx_http_llm_address_t));

    address->sockaddr = sa;
    address->socklen = socklen;
}


static ngx_int_t
ngx_http_llm_address_cmp(struct sockaddr *one, struct sockaddr *two)
{
    ngx_int_t             rc;
    struct sockaddr_in   *in, *other_in;
#if (NGX_HAVE_INET6)
    struct sockaddr_in6  *in6, *other_in6;
#endif

    if (one->sa_family != two->sa_family) {
        return one->sa_family < two->sa_family ? -1 : 1;
    }

    switch (one->sa_family) {

    case AF_INET:
        in = (struct sockaddr_in *) one;
        other_in = (struct sockaddr_in *) two;

        rc = ngx_memcmp(&in->sin_addr, &other_in->sin_addr,
                        sizeof(struct in_addr));
        break;

#if (NGX_HAVE_INET6)
    case AF_INET6:
        in6 = (struct sockaddr_in6 *) one;
        other_in6 = (struct sockaddr_in6 *) two;

        rc = ngx_memcmp(&in6->sin6_addr, &other_in6->sin6_addr,
                        sizeof(struct in6_addr));
        break;
#endif

    default: /* AF_UNIX, of which there is one */
        rc = 0;
    }

    if (rc == 0) {
        rc = (ngx_int_t) ngx_inet_get_port(one)
             - (ngx_int_t) ngx_inet_get_port(two);
    }

    return rc;
}


ngx_int_t
ngx_http_llm_target_set(ngx_http_llm_target_t *target,
    ngx_http_llm_set_t *set)
{
    ngx_uint_t               i, changed;
    ngx_http_llm_address_t  *address, *addrs, *old;

    if (set->n == 0) {
        return NGX_DECLINED;
    }

    changed = (set->n != target->naddrs);

    for (i = 0; i < set->n; i++) {

        address = &set->addrs[i];

        old = ngx_http_llm_target_find(target, &address->sockaddr.sockaddr);
        if (old) {
            address->fails = old->fails;
            address->until = old->until;

        } else {
            changed = 1;
        }
    }

    if (!changed) {
        return NGX_DECLINED;
    }

    addrs = ngx_alloc(set->n * sizeof(ngx_http_llm_address_t),
                      ngx_cycle->log);
    if (addrs == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(addrs, set->addrs, set->n * sizeof(ngx_http_llm_address_t));

    for (i = 0; i < set->n; i++) {
        address = &addrs[i];

        address->name.data = address->text;
        address->name.len = ngx_sock_ntop(&address->sockaddr.sockaddr,
                                          address->socklen, address->text,
                                          NGX_SOCKADDR_STRLEN, 1);
    }

    if (target->addrs) {
        ngx_free(target->addrs);
    }

    target->addrs = addrs;
    target->naddrs = set->n;
    target->turn = (ngx_uint_t) ngx_random() % set->n;

    return NGX_OK;
}


void
ngx_http_llm_target_describe(ngx_http_llm_target_t *target, json_t *o)
{
    json_t      *dns;
    ngx_uint_t   i, n;

    n = 0;

    for (i = 0; i < target->naddrs; i++) {
        n += ngx_http_llm_address_waits(&target->addrs[i]);
    }

    json_object_set_new(o, "resolved",
                        json_boolean(ngx_http_llm_target_resolved(target)));
    json_object_set_new(o, "addresses", json_integer(target->naddrs));
    json_object_set_new(o, "passed_over", json_integer(n));

    if (!target->follows) {
        json_object_set_new(o, "dns", json_null());
        return;
    }

    dns = json_object();

    json_object_set_new(dns, "last_resolved",
                        ngx_http_llm_tree_time((uint64_t) target->resolved
                                               * 1000));
    json_object_set_new(dns, "ttl",
                        target->resolved ? json_integer(target->ttl)
                                         : json_null());
    json_object_set_new(dns, "failures", json_integer(target->failures));
    json_object_set_new(dns, "error",
                        target->error
                        ? json_string(ngx_resolver_strerror(target->error))
                        : json_null());

    json_object_set_new(o, "dns", dns);
}
