
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_CONNECT_H_INCLUDED_
#define _NGX_HTTP_LLM_CONNECT_H_INCLUDED_


#include "ngx_http_llm.h"


ngx_int_t ngx_http_llm_get_address(ngx_peer_connection_t *pc,
    ngx_http_llm_ctx_t *ctx);
ngx_uint_t ngx_http_llm_has_other_address(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_fault_e fault);

#if (NGX_HTTP_SSL)
ngx_int_t ngx_http_llm_set_session(ngx_peer_connection_t *pc, void *data);
void ngx_http_llm_save_session(ngx_peer_connection_t *pc, void *data);
void ngx_http_llm_free_sessions(ngx_http_llm_main_conf_t *mcf);
#endif


#endif /* _NGX_HTTP_LLM_CONNECT_H_INCLUDED_ */
