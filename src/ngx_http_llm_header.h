
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_HEADER_H_INCLUDED_
#define _NGX_HTTP_LLM_HEADER_H_INCLUDED_


#include "ngx_http_llm.h"


extern ngx_str_t  ngx_http_llm_secret_headers[];

ngx_uint_t ngx_http_llm_is_secret_header(ngx_str_t *name);
ngx_uint_t ngx_http_llm_is_key_header(ngx_str_t *name);
ngx_table_elt_t *ngx_http_llm_find_header(ngx_list_t *headers,
    ngx_str_t *name);
ngx_int_t ngx_http_llm_push_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value);


#endif /* _NGX_HTTP_LLM_HEADER_H_INCLUDED_ */
