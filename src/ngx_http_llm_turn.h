
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_TURN_H_INCLUDED_
#define _NGX_HTTP_LLM_TURN_H_INCLUDED_


#include "ngx_http_llm.h"


/* a call may have ended, and nobody here would know, ms */

#define NGX_HTTP_LLM_WAIT_POLL  20


/* NGX_OK: ctx->next is admitted; else *wait: ms until somebody may admit */

ngx_int_t ngx_http_llm_wait_ask(ngx_http_llm_ctx_t *ctx, ngx_msec_t *wait);

/* the same, of whoever admits, out of turn or not; no wait is told */

ngx_int_t ngx_http_llm_wait_choose(ngx_http_llm_ctx_t *ctx);

/* NGX_OK: some provider would admit; else *wait: ms until one may */

ngx_int_t ngx_http_llm_wait_ready(ngx_http_llm_ctx_t *ctx, ngx_msec_t *wait);

/* tells the other workers since when the request waits; wait: until when */

void ngx_http_llm_wait_say(ngx_http_llm_ctx_t *ctx, ngx_msec_t wait);
void ngx_http_llm_wait_unsay(ngx_http_llm_ctx_t *ctx);


#endif /* _NGX_HTTP_LLM_TURN_H_INCLUDED_ */
