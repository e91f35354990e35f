
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_OPERATOR_H_INCLUDED_
#define _NGX_HTTP_LLM_OPERATOR_H_INCLUDED_


#include "ngx_http_llm_tree.h"

#include "llm_circuit.h"


#define NGX_HTTP_LLM_API_QUOTED  64               /* of what somebody wrote */


json_t *ngx_http_llm_order(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider, ngx_str_t *body, ngx_str_t *error);
ngx_str_t ngx_http_llm_printable(ngx_http_request_t *r, ngx_str_t *text);
llm_admission_t ngx_http_llm_peek_circuit(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider, uint32_t *wait);


#endif /* _NGX_HTTP_LLM_OPERATOR_H_INCLUDED_ */
