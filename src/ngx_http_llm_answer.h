
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_ANSWER_H_INCLUDED_
#define _NGX_HTTP_LLM_ANSWER_H_INCLUDED_


#include "ngx_http_llm.h"

#include "llm_sse.h"


/* the most that is held of an answer before its commit */

#define NGX_HTTP_LLM_HOLD_MAX  262144


typedef enum {
    NGX_HTTP_LLM_HOLD_NOTHING = 0,
    NGX_HTTP_LLM_HOLD_STREAM,                     /* until its first token */
    NGX_HTTP_LLM_HOLD_ERROR,                      /* until it says enough */
    NGX_HTTP_LLM_HOLD_WHOLE                       /* until it is complete */
} ngx_http_llm_hold_e;


struct ngx_http_llm_hold_s {
    ngx_http_llm_hold_e           what;
    size_t                        scanned;        /* of u->buffer */
    size_t                        bytes;          /* of the body in there */
    ngx_http_chunked_t            chunked;
    u_char                       *body;           /* of an error */
    size_t                        body_len;
    ngx_recv_pt                   recv;
    unsigned                      events;         /* LLM_SSE_*, all so far */
    ngx_uint_t                    finishes;       /* answers that ended */
    ngx_uint_t                    decided;        /* by an event */
    ngx_uint_t                    over;           /* hold no longer */
    llm_sse_t                     sse;            /* last: not cleared */
};


/* answer: the verdict on what a provider said */

ngx_int_t ngx_http_llm_process_header(ngx_http_request_t *r);
ngx_uint_t ngx_http_llm_goes_on_from(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_fault_e fault);


/* hold: before the commit */

ngx_int_t ngx_http_llm_hold_init(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_hold_e what);
ngx_int_t ngx_http_llm_hold_more(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_hold_over(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);


/* watch: behind the commit */

ngx_int_t ngx_http_llm_watch_framing(void *data);
ngx_int_t ngx_http_llm_watch(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *in);
ngx_uint_t ngx_http_llm_watch_whole(ngx_http_llm_ctx_t *ctx,
    unsigned events);
void ngx_http_llm_watch_event(ngx_http_llm_ctx_t *ctx, unsigned events);
ngx_int_t ngx_http_llm_watch_end(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_int_t rc);


/* extra: an event of the usage that nobody but us asked for */

ngx_uint_t ngx_http_llm_extra_event(ngx_http_llm_ctx_t *ctx, ngx_buf_t *b,
    u_char *p, size_t n, unsigned events);
ngx_int_t ngx_http_llm_extra_hold(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_buf_t *b, u_char *p);
ngx_int_t ngx_http_llm_extra_chain(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t **in);


/* usage: what an answer took, and what it costs */

char *ngx_http_llm_usage_mode(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_usage_start(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_uint_t readable);
uint64_t ngx_http_llm_usage_end(ngx_http_llm_ctx_t *ctx);


#endif /* _NGX_HTTP_LLM_ANSWER_H_INCLUDED_ */
