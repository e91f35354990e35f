
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_CHOICE_H_INCLUDED_
#define _NGX_HTTP_LLM_CHOICE_H_INCLUDED_


#include "ngx_http_llm_ctx.h"


ngx_int_t ngx_http_llm_candidates(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_choose(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_choose_again(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_ask(ngx_http_llm_ctx_t *ctx, ngx_uint_t i);
ngx_int_t ngx_http_llm_peek(ngx_http_llm_ctx_t *ctx);
llm_admission_t ngx_http_llm_peek_circuit(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider, uint32_t *wait);
llm_limit_t ngx_http_llm_peek_limits(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider, uint32_t *wait);
void ngx_http_llm_settle(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_choice_t *choice, uint64_t tokens);


#endif /* _NGX_HTTP_LLM_CHOICE_H_INCLUDED_ */
