
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_GATE_H_INCLUDED_
#define _NGX_HTTP_LLM_GATE_H_INCLUDED_


#include "ngx_http_llm_conf.h"

#include "llm_json_reader.h"


/* pass: llm_pass, llm_gate */

char *ngx_http_llm_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* gate: before anything is sent */

ngx_int_t ngx_http_llm_gate_handler(ngx_http_request_t *r);


/* body: the caller's, and as a provider wants it */

typedef llm_json_rc_t (*ngx_http_llm_scan_pt)(void *scanner, u_char *p,
    size_t len);
ngx_int_t ngx_http_llm_body_scan(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_body_read(ngx_http_request_t *r,
    ngx_http_llm_scan_pt scan, void *scanner);
ngx_int_t ngx_http_llm_body_chain(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t **out, off_t *length);


/* complexity: how demanding a prompt is */

ngx_http_llm_complexity_t *ngx_http_llm_create_complexity(ngx_conf_t *cf);
char *ngx_http_llm_complexity_rules(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_complexity_terms(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
ngx_int_t ngx_http_llm_complexity_init(ngx_conf_t *cf,
    ngx_http_llm_complexity_t *complexity);
const char *ngx_http_llm_complexity(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);


/* wake: tells those who wait */

void ngx_http_llm_wake_by(ngx_event_t *ev);
void ngx_http_llm_wake(void);


/* wait: until somebody admits */

void ngx_http_llm_wait_init(ngx_cycle_t *cycle);
ngx_int_t ngx_http_llm_wait(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_wait_done(ngx_http_llm_ctx_t *ctx);
ngx_msec_t ngx_http_llm_waited(ngx_http_llm_ctx_t *ctx);


/* cache: answers that nginx has kept */

ngx_int_t ngx_http_llm_request_key(ngx_http_request_t *r, ngx_uint_t private,
    ngx_str_t *key);
ngx_uint_t ngx_http_llm_may_be_cached(ngx_http_request_t *r);
ngx_int_t ngx_http_llm_nobody(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);


#endif /* _NGX_HTTP_LLM_GATE_H_INCLUDED_ */
