
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_PROBE_H_INCLUDED_
#define _NGX_HTTP_LLM_PROBE_H_INCLUDED_


#include "ngx_http_llm_curl.h"
#include "ngx_http_llm_provider.h"


/* statuses that are expected, from the first to the last */

typedef struct {
    ngx_uint_t                    first;
    ngx_uint_t                    last;
} ngx_http_llm_probe_expect_t;


struct ngx_http_llm_probe_s {
    ngx_http_llm_provider_t      *provider;

    ngx_str_t                     uri;            /* as written */
    ngx_str_t                     method;
    ngx_str_t                     expect;
    ngx_str_t                     file;
    uint32_t                      interval;       /* ms */
    uint32_t                      timeout;        /* ms */
    uint32_t                      passive;

    ngx_array_t                   expects;        /* .._probe_expect_t */
    ngx_str_t                     url;
    ngx_str_t                     body;           /* data NULL: none */
    ngx_array_t                   headers;        /* ngx_keyval_t */
    uint64_t                      mark;           /* of all this */

#if (NGX_HTTP_SSL)
    SSL_CTX                      *trust;
    ngx_str_t                     tls_name;
    unsigned                      unverified:1;
    unsigned                      nameless:1;     /* without SNI */
#endif

    /* in the worker that sends */

    ngx_http_llm_curl_t          *call;           /* NULL: none is under way */
    llm_token_t                   token;
    ngx_sockaddr_t                sockaddr;
    ngx_uint_t                    addresses;      /* tried for this probe */
    uint32_t                      hurried;        /* epoch + 1; 0: none */
};


/* probe: the directive */

char *ngx_http_llm_probe(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_probe_check(ngx_conf_t *cf,
    ngx_http_llm_provider_t *provider);
char *ngx_http_llm_probes_init(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf);

/* prober: in one worker of all */

void ngx_http_llm_prober_start(ngx_cycle_t *cycle,
    ngx_http_llm_main_conf_t *mcf);
void ngx_http_llm_prober_exit(ngx_http_llm_main_conf_t *mcf);

/* result: what came of a probe, and who is told; says whether it was good */

ngx_uint_t ngx_http_llm_probe_result(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_probe_t *probe, ngx_http_llm_curl_result_t *result);


#endif /* _NGX_HTTP_LLM_PROBE_H_INCLUDED_ */
