
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_MEMBER_H_INCLUDED_
#define _NGX_HTTP_LLM_MEMBER_H_INCLUDED_


#include "ngx_http_llm_zone.h"


struct ngx_http_llm_failover_s {
    _Atomic uint64_t              count;
    ngx_http_llm_member_t        *to;
    ngx_http_llm_failover_t      *next;
    ngx_http_llm_failover_t      *retired;
};


/*
 * A provider in a route, in shared memory: found by name, and there as long
 * as the records of both.
 */

struct ngx_http_llm_member_s {
    llm_turns_t                   turns;
    u_char                       *name;           /* with a zero */
    ngx_http_llm_failover_t      *failovers;      /* from this one */
    ngx_http_llm_member_t        *next;
    ngx_http_llm_member_t        *retired;
};


ngx_int_t ngx_http_llm_members_init(ngx_slab_pool_t *shpool,
    ngx_http_llm_route_t *route);
ngx_int_t ngx_http_llm_members_copy(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *to,
    ngx_http_llm_record_t *from);
ngx_http_llm_failover_t *ngx_http_llm_member_failover(
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *route, ngx_str_t *from,
    ngx_str_t *to);
void ngx_http_llm_members_retire(ngx_http_llm_shctx_t *sh, ngx_str_t *name);
void ngx_http_llm_members_forget(ngx_http_llm_shctx_t *sh,
    ngx_slab_pool_t *shpool);
void ngx_http_llm_members_free(ngx_slab_pool_t *shpool,
    ngx_http_llm_record_t *route);
void ngx_http_llm_failed_over(ngx_http_request_t *r,
    ngx_http_llm_route_t *route, ngx_uint_t from, ngx_uint_t to);


#endif /* _NGX_HTTP_LLM_MEMBER_H_INCLUDED_ */
