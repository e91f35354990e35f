
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_TRANSFER_H_INCLUDED_
#define _NGX_HTTP_LLM_TRANSFER_H_INCLUDED_


#include "ngx_http_llm_curl.h"

#include "llm_reply.h"

#include <curl/curl.h>


/* A call as libcurl knows it; for curl.c and transfer.c only. */


struct ngx_http_llm_curl_s {
    ngx_queue_t                   queue;
    CURL                         *easy;
    struct curl_slist            *headers;
    struct curl_slist            *connect_to;
#if (NGX_HTTP_SSL)
    SSL_CTX                      *trust;
    char                         *name;           /* to be verified; or NULL */
#endif
    size_t                        max_answer;
    size_t                        header_size;
    size_t                        body_size;
    size_t                        kept;
    llm_reply_hint_t              hint;
    unsigned                      oversize:1;
    unsigned                      garbled:1;      /* no status line */
    unsigned                      shortage:1;     /* no socket could be had */
    ngx_http_llm_curl_done_pt     done;
    void                         *data;
    char                          error[CURL_ERROR_SIZE];
    u_char                        body[NGX_HTTP_LLM_CURL_BODY];
};


ngx_int_t ngx_http_llm_transfer_setup(ngx_http_llm_curl_t *t,
    ngx_http_llm_curl_call_t *call);
void ngx_http_llm_transfer_result(ngx_http_llm_curl_t *t, CURLcode code,
    ngx_http_llm_curl_result_t *result);
void ngx_http_llm_transfer_free(ngx_http_llm_curl_t *t);

curl_socket_t ngx_http_llm_curl_open(void *data, curlsocktype purpose,
    struct curl_sockaddr *address);
int ngx_http_llm_curl_close(void *data, curl_socket_t s);


#endif /* _NGX_HTTP_LLM_TRANSFER_H_INCLUDED_ */
