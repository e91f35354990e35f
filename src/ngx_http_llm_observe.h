
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_OBSERVE_H_INCLUDED_
#define _NGX_HTTP_LLM_OBSERVE_H_INCLUDED_


#include "ngx_http_llm.h"

#include "llm_circuit.h"


/* an address of an upstream's servers: it has a circuit that never acts */

typedef struct {
    ngx_str_t                        name;        /* as $upstream_addr has it */
    ngx_str_t                        key;         /* of the record */
    ngx_http_llm_record_t           *record;
} ngx_http_llm_observed_peer_t;


/* an upstream that is observed */

typedef struct {
    ngx_http_upstream_srv_conf_t    *uscf;
    ngx_http_upstream_init_peer_pt   init;        /* what observing is around */
    ngx_str_t                        name;
    llm_circuit_conf_t              *circuit;
    ngx_array_t                      peers;       /* .._observed_peer_t */
} ngx_http_llm_observed_t;


char *ngx_http_llm_observe(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* once the upstreams have been made */

char *ngx_http_llm_observe_init(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf);

/* the records of all peers, while the zone is made */

ngx_int_t ngx_http_llm_observe_records(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool);
ngx_uint_t ngx_http_llm_observe_knows(ngx_http_llm_main_conf_t *mcf,
    ngx_str_t *key);
ngx_uint_t ngx_http_llm_observe_count(ngx_http_llm_main_conf_t *mcf);

/* of the upstream's peers; NULL: it is none that the configuration named */

ngx_http_llm_observed_peer_t *ngx_http_llm_observe_find(
    ngx_http_llm_observed_t *observed, ngx_str_t *name);

/* an attempt */

ngx_int_t ngx_http_llm_observe_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);


#endif /* _NGX_HTTP_LLM_OBSERVE_H_INCLUDED_ */
