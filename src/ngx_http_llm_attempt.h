
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_ATTEMPT_H_INCLUDED_
#define _NGX_HTTP_LLM_ATTEMPT_H_INCLUDED_


#include "ngx_http_llm.h"

#include "llm_verdict.h"


/* what follows when a deadline is over */

typedef enum {
    NGX_HTTP_LLM_DEADLINE_FAIL = 0,               /* with its fault */
    NGX_HTTP_LLM_DEADLINE_COMMIT,                 /* the window is over */
    NGX_HTTP_LLM_DEADLINE_END,                    /* nothing more will come */
    NGX_HTTP_LLM_DEADLINE_RESUME                  /* the pause is over */
} ngx_http_llm_deadline_e;


typedef struct {
    ngx_msec_t                    left;
    ngx_http_llm_deadline_e       then;
    ngx_http_llm_fault_e          fault;
} ngx_http_llm_deadline_t;


/* request: as this provider wants it */

ngx_int_t ngx_http_llm_request_create(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
ngx_uint_t ngx_http_llm_has_secret_arg(ngx_str_t *args);


/* upstream: nginx's hooks around an attempt */

ngx_int_t ngx_http_llm_content_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_llm_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);


/* hint: when a provider wants to be left alone */

uint32_t ngx_http_llm_hint(ngx_http_request_t *r);
void ngx_http_llm_exhausted(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);


/* retry: once more, after a pause */

ngx_int_t ngx_http_llm_retry_same(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, uint32_t hint);
void ngx_http_llm_retry_round(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_retry_choose(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_pause(ngx_peer_connection_t *pc,
    ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_pause_over(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_pause_done(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_attempt_failed(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, llm_class_t class, uint32_t hint,
    ngx_http_llm_fault_e fault, ngx_uint_t status);


/* deadline: a provider's timeouts */

void ngx_http_llm_deadline_update(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_deadline_stop(ngx_http_llm_ctx_t *ctx);
ngx_http_llm_deadline_t ngx_http_llm_deadline_next(ngx_http_llm_ctx_t *ctx);


/* expire: a deadline is over */

void ngx_http_llm_expire(ngx_event_t *ev);


#endif /* _NGX_HTTP_LLM_ATTEMPT_H_INCLUDED_ */
