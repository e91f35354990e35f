
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_member.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"


/*
 * What a route knows of each of its providers: turns, and how often which
 * other one was asked next.
 *
 * Of N providers there are N * (N - 1) pairs, too many to keep room for,
 * and few of them ever occur.  Those that probably will are there from the
 * beginning; the others are added when they do, under the mutex of the
 * zone's pool.  The lists are read without it: what is taken out of them
 * still leads on, until the next load frees it.
 */


#define NGX_HTTP_LLM_MEMBER_PAIRS  64


static ngx_http_llm_member_t *ngx_http_llm_member_get(
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *route, ngx_str_t *name);
static ngx_http_llm_member_t **ngx_http_llm_member_named(
    ngx_http_llm_record_t *route, ngx_str_t *name);
static ngx_int_t ngx_http_llm_member_pairs(ngx_slab_pool_t *shpool,
    ngx_http_llm_route_t *route);
static ngx_http_llm_failover_t *ngx_http_llm_member_pair(
    ngx_slab_pool_t *shpool, ngx_http_llm_member_t *from,
    ngx_http_llm_member_t *to);
static ngx_http_llm_failover_t **ngx_http_llm_member_find(
    ngx_http_llm_member_t *from, ngx_http_llm_member_t *to);
static void ngx_http_llm_member_free(ngx_slab_pool_t *shpool,
    ngx_http_llm_member_t *member);


/* Once for each configuration, by the master. */

ngx_int_t
ngx_http_llm_members_init(ngx_slab_pool_t *shpool,
    ngx_http_llm_route_t *route)
{
    ngx_uint_t              i;
    llm_candidate_t        *candidate;
    ngx_http_llm_use_t     *use;
    ngx_http_llm_record_t  *record;

    use = route->uses.elts;

    for (i = 0; i < route->uses.nelts; i++) {

        record = use[i].provider->record;

        use[i].member = ngx_http_llm_member_get(shpool, route->record,
                                                &record->name);
        if (use[i].member == NULL) {
            return NGX_ERROR;
        }

        candidate = &route->candidates[i];

        candidate->turns = &use[i].member->turns;
        candidate->latency = &record->latency;
        candidate->in_flight = record->limits ? record->limits->in_flight
                                              : NULL;
    }

    return ngx_http_llm_member_pairs(shpool, route);
}


static ngx_http_llm_member_t *
ngx_http_llm_member_get(ngx_slab_pool_t *shpool, ngx_http_llm_record_t *route,
    ngx_str_t *name)
{
    ngx_http_llm_member_t  *member, **memberp;

    memberp = ngx_http_llm_member_named(route, name);

    if (*memberp) {
        /* cppcheck-suppress identicalInnerCondition ; it is no condition */
        return *memberp;
    }

    member = ngx_slab_calloc(shpool, sizeof(ngx_http_llm_member_t));
    if (member == NULL) {
        return NULL;
    }

    member->name = ngx_slab_calloc(shpool, name->len + 1);
    if (member->name == NULL) {
        ngx_slab_free(shpool, member);
        return NULL;
    }

    ngx_memcpy(member->name, name->data, name->len);

    ngx_memory_barrier();

    *memberp = member;

    return member;
}


/* Where it is, or is to be. */

static ngx_http_llm_member_t **
ngx_http_llm_member_named(ngx_http_llm_record_t *route, ngx_str_t *name)
{
    ngx_http_llm_member_t  **memberp;

    memberp = &route->members;

    while (*memberp
           && (ngx_strlen((*memberp)->name) != name->len
               || ngx_strncmp((*memberp)->name, name->data, name->len) != 0))
    {
        memberp = &(*memberp)->next;
    }

    return memberp;
}


/* The count of a pair by its names; NULL: not in the route, or no room. */

ngx_http_llm_failover_t *
ngx_http_llm_member_failover(ngx_slab_pool_t *shpool,
    ngx_http_llm_record_t *route, ngx_str_t *from, ngx_str_t *to)
{
    ngx_http_llm_member_t  *member, *next;

    member = *ngx_http_llm_member_named(route, from);
    next = *ngx_http_llm_member_named(route, to);

    if (member == NULL || next == NULL) {
        return NULL;
    }

    return ngx_http_llm_member_pair(shpool, member, next);
}


/* Next to each other, then one apart, ... */

static ngx_int_t
ngx_http_llm_member_pairs(ngx_slab_pool_t *shpool,
    ngx_http_llm_route_t *route)
{
    ngx_uint_t           i, n, apart, left;
    ngx_http_llm_use_t  *use;

    use = route->uses.elts;
    n = route->uses.nelts;
    left = NGX_HTTP_LLM_MEMBER_PAIRS;

    for (apart = 1; apart < n; apart++) {
        for (i = 0; i < n; i++) {

            if (left-- == 0) {
                return NGX_OK;
            }

            if (ngx_http_llm_member_pair(shpool, use[i].member,
                                         use[(i + apart) % n].member)
                == NULL)
            {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


/* The count of this pair, of several processes the same; NULL: no room. */

static ngx_http_llm_failover_t *
ngx_http_llm_member_pair(ngx_slab_pool_t *shpool,
    ngx_http_llm_member_t *from, ngx_http_llm_member_t *to)
{
    ngx_http_llm_failover_t  *failover, **failoverp;

    failover = *ngx_http_llm_member_find(from, to);

    if (failover) {
        return failover;
    }

    ngx_shmtx_lock(&shpool->mutex);

    failoverp = ngx_http_llm_member_find(from, to);
    failover = *failoverp;

    if (failover == NULL) {
        failover = ngx_slab_calloc_locked(shpool,
                                          sizeof(ngx_http_llm_failover_t));
        if (failover) {
            failover->to = to;

            ngx_memory_barrier();

            *failoverp = failover;
        }
    }

    ngx_shmtx_unlock(&shpool->mutex);

    return failover;
}


static ngx_http_llm_failover_t **
ngx_http_llm_member_find(ngx_http_llm_member_t *from,
    ngx_http_llm_member_t *to)
{
    ngx_http_llm_failover_t  **failoverp;

    failoverp = &from->failovers;

    while (*failoverp && (*failoverp)->to != to) {
        failoverp = &(*failoverp)->next;
    }

    return failoverp;
}


/* From another zone, into a record that nobody else knows yet. */

ngx_int_t
ngx_http_llm_members_copy(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *to,
    ngx_http_llm_record_t *from)
{
    ngx_str_t                 name;
    ngx_http_llm_member_t    *old, *member, *next;
    ngx_http_llm_failover_t  *counted, *failover;

    for (old = from->members; old; old = old->next) {

        name.data = old->name;
        name.len = ngx_strlen(old->name);

        if (ngx_http_llm_find_provider(mcf, &name) == NULL) {
            continue;
        }

        member = ngx_http_llm_member_get(shpool, to, &name);
        if (member == NULL) {
            return NGX_ERROR;
        }

        for (counted = old->failovers; counted; counted = counted->next) {

            name.data = counted->to->name;
            name.len = ngx_strlen(counted->to->name);

            if (ngx_http_llm_find_provider(mcf, &name) == NULL) {
                continue;
            }

            next = ngx_http_llm_member_get(shpool, to, &name);
            if (next == NULL) {
                return NGX_ERROR;
            }

            failover = ngx_http_llm_member_pair(shpool, member, next);
            if (failover == NULL) {
                return NGX_ERROR;
            }

            failover->count = counted->count;
        }
    }

    return NGX_OK;
}


/* The mutex is held, and nobody knows this provider any more. */

void
ngx_http_llm_members_retire(ngx_http_llm_shctx_t *sh, ngx_str_t *name)
{
    ngx_http_llm_member_t     *gone, *member, **memberp;
    ngx_http_llm_record_t     *route;
    ngx_http_llm_failover_t   *failover, **failoverp;

    for (route = sh->records; route; route = route->next) {

        memberp = ngx_http_llm_member_named(route, name);
        gone = *memberp;

        if (gone == NULL) {
            continue;
        }

        *memberp = gone->next;

        gone->retired = sh->members;
        sh->members = gone;

        for (member = route->members; member; member = member->next) {

            failoverp = ngx_http_llm_member_find(member, gone);
            failover = *failoverp;

            if (failover) {
                *failoverp = failover->next;

                failover->retired = sh->failovers;
                sh->failovers = failover;
            }
        }
    }
}


/* The mutex is held; whoever looked at them has long done something else. */

void
ngx_http_llm_members_forget(ngx_http_llm_shctx_t *sh, ngx_slab_pool_t *shpool)
{
    ngx_http_llm_member_t    *member;
    ngx_http_llm_failover_t  *failover;

    while (sh->members) {
        member = sh->members;
        sh->members = member->retired;

        ngx_http_llm_member_free(shpool, member);
    }

    while (sh->failovers) {
        failover = sh->failovers;
        sh->failovers = failover->retired;

        ngx_slab_free_locked(shpool, failover);
    }
}


/* The mutex is held, and nobody knows the route any more. */

void
ngx_http_llm_members_free(ngx_slab_pool_t *shpool,
    ngx_http_llm_record_t *route)
{
    ngx_http_llm_member_t  *member;

    while (route->members) {
        member = route->members;
        route->members = member->next;

        ngx_http_llm_member_free(shpool, member);
    }
}


static void
ngx_http_llm_member_free(ngx_slab_pool_t *shpool,
    ngx_http_llm_member_t *member)
{
    ngx_http_llm_failover_t  *failover;

    while (member->failovers) {
        failover = member->failovers;
        member->failovers = failover->next;

        ngx_slab_free_locked(shpool, failover);
    }

    ngx_slab_free_locked(shpool, member->name);
    ngx_slab_free_locked(shpool, member);
}


/* One provider of the route did not do, another one is asked. */

void
ngx_http_llm_failed_over(ngx_http_request_t *r, ngx_http_llm_route_t *route,
    ngx_uint_t from, ngx_uint_t to)
{
    ngx_shm_zone_t            *shm_zone;
    ngx_http_llm_use_t        *use;
    ngx_http_llm_failover_t   *failover;
    ngx_http_llm_main_conf_t  *mcf;

    static ngx_uint_t          full;

    llm_count(ngx_http_llm_counters(route->record), LLM_FAILOVERS);

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    shm_zone = mcf->shm_zone;
    use = route->uses.elts;

    failover = full ? *ngx_http_llm_member_find(use[from].member,
                                                use[to].member)
                    : ngx_http_llm_member_pair((ngx_slab_pool_t *)
                                               shm_zone->shm.addr,
                                               use[from].member,
                                               use[to].member);
    if (failover) {
        (void) atomic_fetch_add(&failover->count, 1);
        return;
    }

    if (full) {
        return;
    }

    /* said once by each process, which then leaves the mutex alone */

    full = 1;

    ngx_log_error(NGX_LOG_CRIT, r->connection->log, 0,
                  "llm zone \"%V\" is full, some failovers are counted "
                  "without their providers: expected a larger size",
                  &shm_zone->shm.name);
}
