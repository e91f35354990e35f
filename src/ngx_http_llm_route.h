
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_ROUTE_H_INCLUDED_
#define _NGX_HTTP_LLM_ROUTE_H_INCLUDED_


#include "ngx_http_llm.h"

#include "llm_circuit.h"
#include "llm_retry.h"
#include "llm_select.h"


typedef struct {
    ngx_str_t                     name;           /* of the provider */
    ngx_http_llm_provider_t      *provider;
    ngx_http_llm_member_t        *member;         /* in shared memory */
    ngx_str_t                     file;
    ngx_uint_t                    line;
    uint32_t                      weight;
    unsigned                      backup:1;
} ngx_http_llm_use_t;


/* llm_commit: when an answer becomes the caller's */

typedef enum {
    NGX_HTTP_LLM_COMMIT_FIRST_TOKEN = 0,
    NGX_HTTP_LLM_COMMIT_HEADER,
    NGX_HTTP_LLM_COMMIT_WINDOW,
    NGX_HTTP_LLM_COMMIT_COMPLETE
} ngx_http_llm_commit_e;


typedef struct {
    ngx_http_llm_commit_e         when;
    ngx_msec_t                    time;           /* of a window; 0: none */
    size_t                        size;           /* of a window; 0: none */
} ngx_http_llm_commit_t;


/* llm_retry */

typedef struct {
    uint32_t                      same;           /* tries of one provider */
    uint32_t                      rounds;         /* over the route */
    uint32_t                      budget;         /* percent */
    llm_retry_conf_t              pause;
} ngx_http_llm_retry_t;


/* llm_wait */

typedef struct {
    uint32_t                      time;           /* ms; 0: off */
    uint32_t                      queue;          /* the most that wait */
} ngx_http_llm_wait_t;


struct ngx_http_llm_route_s {
    ngx_http_upstream_srv_conf_t *uscf;
    ngx_array_t                   uses;           /* ngx_http_llm_use_t */
    ngx_http_llm_record_t        *record;
    ngx_http_llm_commit_t         commit;
    ngx_http_llm_retry_t          retry;
    ngx_msec_t                    deadline;       /* 0: off */
    llm_strategy_t                strategy;
    ngx_http_complex_value_t     *strategy_value; /* where it has variables */
    uint64_t                      budget;         /* price_output; 0: off */
    ngx_http_complex_value_t     *budget_value;
    llm_candidate_t              *candidates;     /* by the uses */
    ngx_http_llm_wait_t           wait;
    ngx_uint_t                    nwaiting;       /* in this worker */
    llm_circuit_conf_t           *observe;        /* NULL: off */
    unsigned                      observe_set:1;
    unsigned                      inject:1;       /* llm_usage */
    unsigned                      usage_set:1;
    unsigned                      strategy_set:1;
    unsigned                      budget_set:1;
    unsigned                      wait_set:1;
    unsigned                      commit_set:1;
    unsigned                      deadline_set:1;
    unsigned                      retry_set:1;
};


char *ngx_http_llm_use(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_strategy(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_budget(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_wait_time(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_commit_when(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_deadline(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_retry(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void *ngx_http_llm_create_route(ngx_conf_t *cf);
char *ngx_http_llm_route_candidates(ngx_conf_t *cf,
    ngx_http_llm_route_t *route);
ngx_http_llm_route_t *ngx_http_llm_eval_route(ngx_http_request_t *r,
    ngx_http_llm_loc_conf_t *llcf);
ngx_http_llm_route_t *ngx_http_llm_find_route(ngx_http_llm_main_conf_t *mcf,
    ngx_str_t *name);


#endif /* _NGX_HTTP_LLM_ROUTE_H_INCLUDED_ */
