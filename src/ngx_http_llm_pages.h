
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_PAGES_H_INCLUDED_
#define _NGX_HTTP_LLM_PAGES_H_INCLUDED_


#include "ngx_http_llm.h"


/* models: what a route has, told from the configuration */

char *ngx_http_llm_models(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_models_handler(ngx_http_request_t *r);


/* status: the page, in the format that is wanted */

char *ngx_http_llm_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_status_handler(ngx_http_request_t *r);


/* api: an operator asks and orders */

char *ngx_http_llm_api(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_api_handler(ngx_http_request_t *r);


#endif /* _NGX_HTTP_LLM_PAGES_H_INCLUDED_ */
