
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_CONF_H_INCLUDED_
#define _NGX_HTTP_LLM_CONF_H_INCLUDED_


#include "ngx_http_llm_log.h"
#include "ngx_http_llm_zone.h"


typedef struct ngx_http_llm_complexity_s  ngx_http_llm_complexity_t;
typedef struct ngx_http_llm_dns_s  ngx_http_llm_dns_t;


/* when the caller's own header goes to a provider that sets none */

typedef enum {
    NGX_HTTP_LLM_CALLERS_NEVER = 0,
    NGX_HTTP_LLM_CALLERS_KEY,                     /* with api_key client */
    NGX_HTTP_LLM_CALLERS_ALWAYS
} ngx_http_llm_callers_e;


typedef struct {
    ngx_str_t                     name;
    ngx_str_t                     variable;       /* of proxy_set_header */
    ngx_http_llm_callers_e        callers;
} ngx_http_llm_governed_t;


/* an llm_pass or llm_gate, until the whole configuration is read */

typedef struct {
    ngx_str_t                     directive;
    ngx_str_t                     route;          /* empty: variables */
    ngx_str_t                     file;
    ngx_uint_t                    line;
    ngx_http_llm_loc_conf_t      *conf;
} ngx_http_llm_pass_t;


struct ngx_http_llm_main_conf_s {
    ngx_core_conf_t              *ccf;
    ngx_shm_zone_t               *shm_zone;
    ngx_http_llm_shctx_t         *sh;
    ngx_str_t                     state;          /* file; empty: none */
    ngx_array_t                   providers;      /* .._provider_t * */
    ngx_array_t                   routes;         /* .._route_t * */
    ngx_array_t                   observed;       /* .._observed_t */
    ngx_array_t                   governed;       /* .._governed_t */
    ngx_array_t                   passes;         /* .._pass_t */
    ngx_array_t                   targets;        /* .._target_t * */
    ngx_array_t                   receivers;      /* .._receiver_t * */
    struct ngx_http_llm_feed_s   *feed;           /* in a worker */
    ngx_http_llm_dns_t           *dns;            /* NULL: is not needed */
    ngx_http_llm_complexity_t    *complexity;
    ngx_uint_t                    generation;
    unsigned                      tls:1;          /* some endpoint is https */
    unsigned                      status:1;       /* some llm_status */
    unsigned                      probes:1;       /* some provider has one */
    unsigned                      calls:1;        /* of the gateway's own */
    unsigned                      keep_body:1;    /* some variable reads it */
};


/* what llm_status writes */

typedef enum {
    NGX_HTTP_LLM_FORMAT_NONE = 0,                 /* there is no llm_status */
    NGX_HTTP_LLM_FORMAT_JSON,
    NGX_HTTP_LLM_FORMAT_PROMETHEUS,
    NGX_HTTP_LLM_FORMAT_HTML,
    NGX_HTTP_LLM_FORMAT_ACCEPT                    /* what the caller likes */
} ngx_http_llm_format_e;


struct ngx_http_llm_loc_conf_s {
    ngx_http_llm_route_t         *route;
    ngx_http_complex_value_t     *route_value;    /* llm_pass $variable */
    ngx_str_t                     prefix;         /* replaced by the base */
    ngx_uint_t                    id;             /* of the location */
#if (NGX_HTTP_SSL)
    ngx_ssl_session_t           **sessions;       /* by provider */
#endif
    ngx_http_handler_pt           handler;        /* that llm_pass stands on */
    ngx_http_core_loc_conf_t     *location;       /* around an "if", too */
    unsigned                      gate:1;
    unsigned                      pass:1;
    unsigned                      prefix_set:1;
    unsigned                      models:1;
    unsigned                      api:1;
    unsigned                      api_remote:1;   /* not this machine only */
    ngx_http_llm_format_e         status;         /* of llm_status */
    ngx_http_llm_log_t            log;
};


/* names: what they stand for */

char *ngx_http_llm_add_pass(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *llcf);
char *ngx_http_llm_resolve_names(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf);
char *ngx_http_llm_check_gate(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *conf,
    ngx_uint_t other);


/* governed: request headers that providers set, or that none may see */

ngx_int_t ngx_http_llm_governed_init(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf);
ngx_int_t ngx_http_llm_governed_unveil(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);


#endif /* _NGX_HTTP_LLM_CONF_H_INCLUDED_ */
