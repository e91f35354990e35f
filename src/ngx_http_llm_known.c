
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_target.h"


/*
 * The last good addresses of a provider, in its record: what a worker has
 * learnt is there for the next one, and for a reload in an hour when no name
 * server answers.
 */


static void ngx_http_llm_known_lock(ngx_http_llm_target_t *target);
static void ngx_http_llm_known_unlock(ngx_http_llm_target_t *target);
static uint32_t ngx_http_llm_known_crc(ngx_http_llm_known_t *known);
static void ngx_http_llm_known_pack(ngx_http_llm_target_t *target,
    ngx_http_llm_known_t *known);


/* Takes what is known of this host; NGX_DECLINED: nothing is. */

ngx_int_t
ngx_http_llm_target_recall(ngx_http_llm_target_t *target)
{
    u_char                *p;
    ngx_uint_t             i;
    ngx_sockaddr_t         sa;
    ngx_http_llm_set_t     set;
    ngx_http_llm_known_t   known;

    if (!target->follows) {
        return NGX_DECLINED;
    }

    ngx_http_llm_known_lock(target);
    known = *target->known;
    ngx_http_llm_known_unlock(target);

    /* whoever wrote it may have been killed in the middle of it */

    if (known.naddrs == 0 || known.naddrs > NGX_HTTP_LLM_ADDRESSES
        || known.crc != ngx_http_llm_known_crc(&known)
        || known.host != ngx_crc32_short(target->host.data, target->host.len))
    {
        return NGX_DECLINED;
    }

    set.n = 0;

    for (i = 0; i < known.naddrs; i++) {

        p = known.addrs[i];

        ngx_memzero(&sa, sizeof(ngx_sockaddr_t));

        if (*p++ == 4) {
            sa.sockaddr.sa_family = AF_INET;
            ngx_memcpy(&sa.sockaddr_in.sin_addr, p, 4);
            ngx_http_llm_set_add(&set, &sa.sockaddr,
                                 sizeof(struct sockaddr_in), target->port);
            continue;
        }

#if (NGX_HAVE_INET6)
        sa.sockaddr.sa_family = AF_INET6;
        ngx_memcpy(&sa.sockaddr_in6.sin6_addr, p, 16);
        ngx_http_llm_set_add(&set, &sa.sockaddr, sizeof(struct sockaddr_in6),
                             target->port);
#endif
    }

    target->resolved = (time_t) known.resolved;
    target->ttl = (time_t) known.ttl;

    return ngx_http_llm_target_set(target, &set) == NGX_ERROR ? NGX_ERROR
                                                              : NGX_OK;
}


/* What the name servers said last is good. */

ngx_uint_t
ngx_http_llm_target_keep(ngx_http_llm_target_t *target)
{
    ngx_uint_t             news;
    ngx_http_llm_known_t   now, *known;

    known = target->known;
    news = 0;

    ngx_http_llm_known_pack(target, &now);

    ngx_http_llm_known_lock(target);

    if (known->host != now.host || known->naddrs != now.naddrs
        || ngx_memcmp(known->addrs, now.addrs, sizeof(now.addrs)) != 0)
    {
        news |= NGX_HTTP_LLM_NEWS_ADDRESSES;
    }

    if (known->unresolved) {
        news |= NGX_HTTP_LLM_NEWS_RESOLVED;
    }

    *known = now;

    ngx_http_llm_known_unlock(target);

    return news;
}


/* They said nothing that could be used. */

ngx_uint_t
ngx_http_llm_target_unresolved(ngx_http_llm_target_t *target)
{
    ngx_uint_t  news;

    ngx_http_llm_known_lock(target);

    news = !target->known->unresolved;

    target->known->unresolved = 1;

    ngx_http_llm_known_unlock(target);

    return news;
}


static void
ngx_http_llm_known_pack(ngx_http_llm_target_t *target,
    ngx_http_llm_known_t *known)
{
    u_char                  *p;
    ngx_uint_t               i;
    ngx_http_llm_address_t  *address;

    ngx_memzero(known, sizeof(ngx_http_llm_known_t));

    known->host = ngx_crc32_short(target->host.data, target->host.len);
    known->naddrs = (uint32_t) target->naddrs;
    known->resolved = target->resolved;
    known->ttl = (uint32_t) target->ttl;

    for (i = 0; i < target->naddrs; i++) {

        address = &target->addrs[i];
        p = known->addrs[i];

        if (address->sockaddr.sockaddr.sa_family == AF_INET) {
            *p++ = 4;
            ngx_memcpy(p, &address->sockaddr.sockaddr_in.sin_addr, 4);
            continue;
        }

#if (NGX_HAVE_INET6)
        *p++ = 6;
        ngx_memcpy(p, &address->sockaddr.sockaddr_in6.sin6_addr, 16);
#endif
    }

    known->crc = ngx_http_llm_known_crc(known);
}


static uint32_t
ngx_http_llm_known_crc(ngx_http_llm_known_t *known)
{
    u_char  *p;

    p = (u_char *) &known->host;

    return ngx_crc32_long(p, (u_char *) (known + 1) - p);
}


/* nginx releases this lock for a worker that was killed */

static void
ngx_http_llm_known_lock(ngx_http_llm_target_t *target)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) target->mcf->shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);
}


static void
ngx_http_llm_known_unlock(ngx_http_llm_target_t *target)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) target->mcf->shm_zone->shm.addr;

    ngx_shmtx_unlock(&shpool->mutex);
}
