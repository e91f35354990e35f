
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_PAGES_H_INCLUDED_
#define _NGX_HTTP_LLM_PAGES_H_INCLUDED_


#include "ngx_http_llm_tree.h"


/* models: what a route has, told from the configuration */

char *ngx_http_llm_models(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_models_handler(ngx_http_request_t *r);


/* status: the page, in the format that is wanted */

char *ngx_http_llm_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_status_handler(ngx_http_request_t *r);


/* api: an operator asks and orders */

char *ngx_http_llm_api(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_api_handler(ngx_http_request_t *r);


/* pages: what they have in common */

/* a location is the page's own; it may name the zone */

char *ngx_http_llm_pages_answer(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *llcf,
    ngx_http_handler_pt handler);
ngx_uint_t ngx_http_llm_pages_zone(ngx_http_llm_main_conf_t *mcf,
    ngx_str_t *name);

/* NGX_OK: by GET or HEAD, and what comes with it is of no interest */

ngx_int_t ngx_http_llm_pages_get(ngx_http_request_t *r);

/* takes json for its own */

ngx_int_t ngx_http_llm_pages_send(ngx_http_request_t *r, ngx_uint_t status,
    json_t *json);


#endif /* _NGX_HTTP_LLM_PAGES_H_INCLUDED_ */
