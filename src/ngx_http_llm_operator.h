
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_OPERATOR_H_INCLUDED_
#define _NGX_HTTP_LLM_OPERATOR_H_INCLUDED_


#include "ngx_http_llm_tree.h"


#define NGX_HTTP_LLM_API_QUOTED  64               /* of what somebody wrote */


json_t *ngx_http_llm_order(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider, ngx_str_t *body, ngx_str_t *error);
ngx_str_t ngx_http_llm_printable(ngx_http_request_t *r, ngx_str_t *text);


#endif /* _NGX_HTTP_LLM_OPERATOR_H_INCLUDED_ */
