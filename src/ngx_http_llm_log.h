
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_LOG_H_INCLUDED_
#define _NGX_HTTP_LLM_LOG_H_INCLUDED_


#include "ngx_http_llm.h"


/* llm_log: NGX_LOG_..., 0 where nothing is said */

typedef struct {
    ngx_uint_t                    circuits;
    ngx_uint_t                    attempts;
    ngx_uint_t                    operator;
    ngx_uint_t                    probes;
    ngx_uint_t                    set;
} ngx_http_llm_log_t;


char *ngx_http_llm_log(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void ngx_http_llm_merge_log(ngx_http_llm_log_t *prev,
    ngx_http_llm_log_t *conf);

/* r: NULL where it is nobody's request */

ngx_uint_t ngx_http_llm_log_circuits(ngx_http_request_t *r);
ngx_uint_t ngx_http_llm_log_attempts(ngx_http_request_t *r);
ngx_uint_t ngx_http_llm_log_operator(ngx_http_request_t *r);
ngx_uint_t ngx_http_llm_log_probes(void);


#endif /* _NGX_HTTP_LLM_LOG_H_INCLUDED_ */
