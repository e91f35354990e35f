
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_VARIABLES_H_INCLUDED_
#define _NGX_HTTP_LLM_VARIABLES_H_INCLUDED_


#include "ngx_http_llm.h"


ngx_int_t ngx_http_llm_add_variables(ngx_conf_t *cf);
ngx_uint_t ngx_http_llm_variables_read_body(ngx_conf_t *cf);
const char *ngx_http_llm_outcome(ngx_http_llm_outcome_e outcome);


#endif /* _NGX_HTTP_LLM_VARIABLES_H_INCLUDED_ */
