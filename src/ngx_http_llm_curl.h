
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_CURL_H_INCLUDED_
#define _NGX_HTTP_LLM_CURL_H_INCLUDED_


#include "ngx_http_llm.h"


/*
 * Calls of a worker's own, by libcurl inside of nginx's event loop.  Nothing
 * here blocks: addresses are given, names are never looked up.
 */


#define NGX_HTTP_LLM_CURL_CALLS  64               /* at once, of a worker */
#define NGX_HTTP_LLM_CURL_BODY   4096             /* the most that is kept */


typedef struct ngx_http_llm_curl_s  ngx_http_llm_curl_t;


/* what came of a call; it is gone when the handler returns */

typedef struct {
    ngx_http_llm_fault_e          fault;          /* NONE: an answer came */
    const char                   *error;          /* for the log; or NULL */
    ngx_uint_t                    status;         /* 0: there was none */
    ngx_str_t                     body;           /* its beginning */
    uint32_t                      hint;           /* ms; 0: no pause asked */
    uint64_t                      connected;      /* us since the start */
    uint64_t                      first_byte;     /* us; 0: none came */
    uint64_t                      total;          /* us */
    unsigned                      shortage:1;     /* of our own: see error */
} ngx_http_llm_curl_result_t;


/* is called once, unless the call is cancelled or the worker leaves */

typedef void (*ngx_http_llm_curl_done_pt)(void *data,
    ngx_http_llm_curl_result_t *result);

/* what is to be called; all of it is copied but what the handler gets */

typedef struct {
    ngx_str_t                     owner;          /* for the log */
    ngx_str_t                     method;
    ngx_str_t                     url;            /* may be a secret */
    struct sockaddr              *sockaddr;       /* of its host */
    socklen_t                     socklen;
    ngx_array_t                  *headers;        /* ngx_keyval_t; or NULL */
    ngx_str_t                     body;           /* data NULL: none */

#if (NGX_HTTP_SSL)
    SSL_CTX                      *trust;          /* CAs, own certificate */
    ngx_str_t                     name;           /* verified instead of host */
    unsigned                      unverified:1;
#endif

    ngx_msec_t                    connect_timeout;
    ngx_msec_t                    timeout;        /* all together */
    size_t                        max_answer;     /* bytes of its body */

    ngx_http_llm_curl_done_pt     done;
    void                         *data;
} ngx_http_llm_curl_call_t;


/* In a worker, before its first call; leaves nothing behind on exit. */

ngx_int_t ngx_http_llm_curl_init(ngx_cycle_t *cycle);
void ngx_http_llm_curl_exit(void);

/* NULL: too many at once, or no memory; it was logged. */

ngx_http_llm_curl_t *ngx_http_llm_curl_start(ngx_http_llm_curl_call_t *call);

/* How many more there can be. */

ngx_uint_t ngx_http_llm_curl_room(void);

void ngx_http_llm_curl_cancel(ngx_http_llm_curl_t *t);

#if (NGX_HTTP_SSL)

/* While a configuration is read: trusts the CAs of a file; NULL: logged. */

SSL_CTX *ngx_http_llm_curl_trust(ngx_conf_t *cf, ngx_str_t *file);

#endif


#endif /* _NGX_HTTP_LLM_CURL_H_INCLUDED_ */
