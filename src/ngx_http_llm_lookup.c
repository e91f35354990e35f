
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_dns.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_target.h"

#include <resolv.h>


/* The first addresses of all hosts, before anybody asks for them. */


/* us; a lookup that takes longer has met a name server that is dead */

#define NGX_HTTP_LLM_LOOKUP_SLOW   900000


static ngx_int_t ngx_http_llm_lookup(ngx_http_llm_target_t *target,
    ngx_log_t *log);


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
