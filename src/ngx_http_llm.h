
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_H_INCLUDED_
#define _NGX_HTTP_LLM_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


#define NGX_HTTP_LLM_VERSION  "0.1.0"


typedef struct ngx_http_llm_main_conf_s  ngx_http_llm_main_conf_t;
typedef struct ngx_http_llm_loc_conf_s  ngx_http_llm_loc_conf_t;
typedef struct ngx_http_llm_provider_s  ngx_http_llm_provider_t;
typedef struct ngx_http_llm_route_s  ngx_http_llm_route_t;
typedef struct ngx_http_llm_target_s  ngx_http_llm_target_t;
typedef struct ngx_http_llm_record_s  ngx_http_llm_record_t;
typedef struct ngx_http_llm_member_s  ngx_http_llm_member_t;
typedef struct ngx_http_llm_ctx_s  ngx_http_llm_ctx_t;


/* what went wrong with an attempt; how it is said: ngx_http_llm_fault() */

typedef enum {
    NGX_HTTP_LLM_FAULT_NONE = 0,
    NGX_HTTP_LLM_FAULT_STATUS,
    NGX_HTTP_LLM_FAULT_CONNECT,
    NGX_HTTP_LLM_FAULT_CONNECT_TIMEOUT,
    NGX_HTTP_LLM_FAULT_TLS,
    NGX_HTTP_LLM_FAULT_CLOSED,
    NGX_HTTP_LLM_FAULT_HEADER_TIMEOUT,
    NGX_HTTP_LLM_FAULT_HEADER,
    NGX_HTTP_LLM_FAULT_BROKEN,
    NGX_HTTP_LLM_FAULT_IDLE_TIMEOUT,
    NGX_HTTP_LLM_FAULT_FIRST_TOKEN_TIMEOUT,
    NGX_HTTP_LLM_FAULT_DEADLINE,
    NGX_HTTP_LLM_FAULT_ERROR_EVENT,
    NGX_HTTP_LLM_FAULT_UNREADABLE,
    NGX_HTTP_LLM_FAULT_EMPTY,
    NGX_HTTP_LLM_FAULT_SLOW,
    NGX_HTTP_LLM_FAULT_TOO_LARGE,
    NGX_HTTP_LLM_FAULTS
} ngx_http_llm_fault_e;


/* how a request ended, $llm_outcome */

typedef enum {
    NGX_HTTP_LLM_OUTCOME_NONE = 0,
    NGX_HTTP_LLM_OUTCOME_OK,
    NGX_HTTP_LLM_OUTCOME_FAILOVER,
    NGX_HTTP_LLM_OUTCOME_REJECTED,
    NGX_HTTP_LLM_OUTCOME_TRUNCATED,
    NGX_HTTP_LLM_OUTCOME_ERROR,
    NGX_HTTP_LLM_OUTCOME_ABORTED,
    NGX_HTTP_LLM_OUTCOME_CACHED
} ngx_http_llm_outcome_e;


/* no moment; a time without end */

#define NGX_HTTP_LLM_NEVER  ((ngx_msec_t) -1)


extern ngx_module_t  ngx_http_llm_module;
extern ngx_module_t  ngx_http_llm_defaults_module;
extern ngx_module_t  ngx_http_proxy_module;


#endif /* _NGX_HTTP_LLM_H_INCLUDED_ */
