
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_ERROR_H_INCLUDED_
#define _NGX_HTTP_LLM_ERROR_H_INCLUDED_


#include "ngx_http_llm.h"


/* refuse: why there is no answer, and when to come back */

ngx_int_t ngx_http_llm_refuse(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
const char *ngx_http_llm_rejection(unsigned why);
ngx_int_t ngx_http_llm_no_model(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_invalid(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const char *fmt, ...);
void ngx_http_llm_all_failed(ngx_http_llm_ctx_t *ctx, ngx_int_t rc);
ngx_int_t ngx_http_llm_retry_headers(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/* error: that, and nginx's own errors, as JSON */

ngx_buf_t *ngx_http_llm_error_body(ngx_http_request_t *r, ngx_uint_t status);
ngx_buf_t *ngx_http_llm_error_event(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, const char *what, ngx_uint_t open);
ngx_uint_t ngx_http_llm_speaks_anthropic(ngx_http_request_t *r);
u_char *ngx_http_llm_put(u_char *p, u_char *last, const char *text);

/* filter: headers and error bodies on the way to the caller */

ngx_int_t ngx_http_llm_filter_init(ngx_conf_t *cf);


#endif /* _NGX_HTTP_LLM_ERROR_H_INCLUDED_ */
