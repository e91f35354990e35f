
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_dns.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_resolve.h"
#include "ngx_http_llm_target.h"


/*
 * Each worker asks for the addresses of its targets when their time to live
 * is over, through nginx's own resolver, which does not block.  One step at
 * a time, each from the target's timer:
 *
 *     a name does not exist     the next name of the search list
 *     a server does not answer  the next server, for the same name
 *     nobody answers            what was known is kept; again after a pause
 */


/* s; a longer time to live is cut to that */

#define NGX_HTTP_LLM_TTL_MAX    3600

/* s; the longest pause before a name is asked for again */

#define NGX_HTTP_LLM_DNS_RETRY  30

/* ms; workers are not to ask all at once */

#define NGX_HTTP_LLM_STAGGER    500


static void ngx_http_llm_resolve_timer(ngx_event_t *ev);
static ngx_int_t ngx_http_llm_resolve_ask(ngx_http_llm_target_t *target);
static void ngx_http_llm_resolve_handler(ngx_resolver_ctx_t *ctx);
static void ngx_http_llm_resolve_release(ngx_resolver_t *r);
static ngx_int_t ngx_http_llm_resolve_set(ngx_http_llm_target_t *target,
    ngx_resolver_ctx_t *ctx);
static void ngx_http_llm_resolve_good(ngx_http_llm_target_t *target,
    ngx_uint_t changed);
static void ngx_http_llm_resolve_failed(ngx_http_llm_target_t *target,
    ngx_int_t error);
static void ngx_http_llm_resolve_log(ngx_http_llm_target_t *target,
    ngx_uint_t level);


/* In a worker that begins. */

void
ngx_http_llm_resolve_start(ngx_cycle_t *cycle, ngx_http_llm_main_conf_t *mcf)
{
    ngx_uint_t               i;
    ngx_http_llm_target_t   *target, **targetp;

    targetp = mcf->targets.elts;

    for (i = 0; i < mcf->targets.nelts; i++) {

        target = targetp[i];

        if (!target->follows) {
            continue;
        }

        /* the master may have read its configuration long ago */

        (void) ngx_http_llm_target_recall(target);

        target->timer.handler = ngx_http_llm_resolve_timer;
        target->timer.data = target;
        target->timer.log = cycle->log;
        target->timer.cancelable = 1;

        ngx_add_timer(&target->timer,
                      target->naddrs ? ngx_random() % NGX_HTTP_LLM_STAGGER
                                     : 1);
    }
}


static void
ngx_http_llm_resolve_timer(ngx_event_t *ev)
{
    ngx_http_llm_target_t *target = ev->data;

    if (ngx_exiting || ngx_quit || ngx_terminate) {
        return;
    }

    if (ngx_http_llm_resolve_ask(target) != NGX_OK) {
        ngx_http_llm_resolve_failed(target, NGX_RESOLVE_SERVFAIL);
    }
}


static ngx_int_t
ngx_http_llm_resolve_ask(ngx_http_llm_target_t *target)
{
    ngx_str_t            *name;
    ngx_resolver_t      **server;
    ngx_http_llm_dns_t   *dns;
    ngx_resolver_ctx_t   *ctx;

    dns = target->mcf->dns;
    server = dns->servers.elts;
    name = target->names.elts;

    ctx = ngx_resolve_start(server[target->server], NULL);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        return NGX_ERROR;
    }

    /* it is written to */

    ngx_memcpy(target->question, name[target->name].data,
               name[target->name].len);

    ctx->name.data = target->question;
    ctx->name.len = name[target->name].len;
    ctx->handler = ngx_http_llm_resolve_handler;
    ctx->data = target;
    ctx->timeout = dns->timeout;
    ctx->cancelable = 1;

    /* the handler may be called at once, and the context be gone then */

    return ngx_resolve_name(ctx);
}


static void
ngx_http_llm_resolve_handler(ngx_resolver_ctx_t *ctx)
{
    ngx_int_t               rc, state;
    ngx_http_llm_target_t  *target;

    target = ctx->data;
    state = ctx->state;
    rc = NGX_DECLINED;

    if (state == NGX_OK) {
        rc = ngx_http_llm_resolve_set(target, ctx);

        target->ttl = ctx->valid - ngx_time();
    }

    ngx_http_llm_resolve_release(ctx->resolver);

    ngx_resolve_name_done(ctx);

    if (state == NGX_OK) {
        ngx_http_llm_resolve_good(target, rc == NGX_OK);
        return;
    }

    if (state == NGX_RESOLVE_NXDOMAIN
        && target->name + 1 < target->names.nelts)
    {
        target->name++;
        ngx_add_timer(&target->timer, 1);
        return;
    }

    if (state != NGX_RESOLVE_NXDOMAIN
        && target->server + 1 < target->mcf->dns->servers.nelts)
    {
        target->server++;
        ngx_add_timer(&target->timer, 1);
        return;
    }

    ngx_http_llm_resolve_failed(target, state);
}


/* A connection of the resolver's that is idle would keep a worker for 5s. */

static void
ngx_http_llm_resolve_release(ngx_resolver_t *r)
{
    ngx_uint_t                  i;
    ngx_resolver_connection_t  *rec;

    rec = r->connections.elts;

    for (i = 0; i < r->connections.nelts; i++) {
        if (rec[i].tcp) {
            rec[i].tcp->write->cancelable = 1;
        }
    }
}


static ngx_int_t
ngx_http_llm_resolve_set(ngx_http_llm_target_t *target,
    ngx_resolver_ctx_t *ctx)
{
    ngx_uint_t          i;
    ngx_http_llm_set_t  set;

    set.n = 0;

    for (i = 0; i < ctx->naddrs; i++) {
        ngx_http_llm_set_add(&set, ctx->addrs[i].sockaddr,
                             ctx->addrs[i].socklen, target->port);
    }

    return ngx_http_llm_target_set(target, &set);
}


static void
ngx_http_llm_resolve_good(ngx_http_llm_target_t *target, ngx_uint_t changed)
{
    time_t      ttl;
    ngx_uint_t  news, level;

    target->name = 0;
    target->server = 0;
    target->failures = 0;
    target->error = 0;
    target->resolved = ngx_time();

    /* the resolver answers out of its cache until the second is over */

    ttl = ngx_max(target->ttl, 0);
    ttl = ngx_min(ttl, NGX_HTTP_LLM_TTL_MAX) + 1;

    ngx_add_timer(&target->timer, (ngx_msec_t) ttl * 1000
                                  + ngx_random() % NGX_HTTP_LLM_STAGGER);

    news = ngx_http_llm_target_keep(target);

    level = (news & NGX_HTTP_LLM_NEWS_ADDRESSES) ? NGX_LOG_NOTICE
                                                 : NGX_LOG_INFO;
    if (changed) {
        ngx_http_llm_resolve_log(target, level);
        ngx_http_llm_wake();
    }

    if (news & NGX_HTTP_LLM_NEWS_RESOLVED) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "llm: %V: host \"%V\" is resolved again",
                      &target->owner, &target->host);
    }
}


static void
ngx_http_llm_resolve_failed(ngx_http_llm_target_t *target, ngx_int_t error)
{
    ngx_msec_t  pause;
    ngx_uint_t  level;

    target->name = 0;
    target->server = 0;
    target->error = error;

    pause = 1000 << ngx_min(target->failures, 5);
    pause = ngx_min(pause, NGX_HTTP_LLM_DNS_RETRY * 1000);

    ngx_add_timer(&target->timer, pause + ngx_random() % NGX_HTTP_LLM_STAGGER);

    /* once for all workers, and not for every try */

    level = ngx_http_llm_target_unresolved(target) ? NGX_LOG_WARN
                                                   : NGX_LOG_INFO;

    if (target->failures++) {
        level = NGX_LOG_INFO;
    }

    if (target->naddrs) {
        ngx_log_error(level, ngx_cycle->log, 0,
                      "llm: %V: host \"%V\" could not be resolved (%i: %s), "
                      "its last %ui addresses are used on",
                      &target->owner, &target->host, error,
                      ngx_resolver_strerror(error), target->naddrs);
        return;
    }

    ngx_log_error(level, ngx_cycle->log, 0,
                  "llm: %V: host \"%V\" could not be resolved (%i: %s), "
                  "it is out of service until then",
                  &target->owner, &target->host, error,
                  ngx_resolver_strerror(error));
}


static void
ngx_http_llm_resolve_log(ngx_http_llm_target_t *target, ngx_uint_t level)
{
    u_char      *p, *last;
    ngx_uint_t   i;
    u_char       text[NGX_HTTP_LLM_ADDRESSES * (NGX_SOCKADDR_STRLEN + 2)];

    p = text;
    last = text + sizeof(text);

    for (i = 0; i < target->naddrs; i++) {
        p = ngx_slprintf(p, last, i ? ", %V" : "%V", &target->addrs[i].name);
    }

    ngx_log_error(level, ngx_cycle->log, 0,
                  "llm: %V: host \"%V\" has %ui address%s now: %*s",
                  &target->owner, &target->host, target->naddrs,
                  target->naddrs == 1 ? "" : "es", (size_t) (p - text), text);
}
