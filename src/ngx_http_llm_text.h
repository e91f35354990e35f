
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_TEXT_H_INCLUDED_
#define _NGX_HTTP_LLM_TEXT_H_INCLUDED_


#include "ngx_http_llm.h"


/* room that a number takes, as text */

#define NGX_HTTP_LLM_NUMBER_LEN  40


/* a text that grows, to be sent */

typedef struct {
    ngx_pool_t                   *pool;
    ngx_chain_t                  *out;
    ngx_chain_t                  *last;
} ngx_http_llm_text_t;


ngx_int_t ngx_http_llm_text(ngx_http_llm_text_t *text, const char *p,
    size_t len);
u_char *ngx_http_llm_text_room(ngx_http_llm_text_t *text, size_t len);
void ngx_http_llm_text_append(ngx_http_llm_text_t *text,
    ngx_http_llm_text_t *more);


#endif /* _NGX_HTTP_LLM_TEXT_H_INCLUDED_ */
