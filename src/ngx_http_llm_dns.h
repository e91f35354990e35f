
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_DNS_H_INCLUDED_
#define _NGX_HTTP_LLM_DNS_H_INCLUDED_


#include "ngx_http_llm_conf.h"


/* whom to ask: "resolver" at http level, or the system's name servers */

struct ngx_http_llm_dns_s {
    ngx_array_t                servers;           /* ngx_resolver_t *; each */
                                                  /* asked if those before */
                                                  /* fail */
    ngx_array_t                search;            /* ngx_str_t */
    ngx_uint_t                 ndots;
    ngx_msec_t                 timeout;
};


/* dns: whom to ask, and for which names */

char *ngx_http_llm_dns_init(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf);


/* dns_system: what the system's files say of it */

char *ngx_http_llm_dns_system(ngx_conf_t *cf, ngx_http_llm_dns_t *dns);
ngx_int_t ngx_http_llm_dns_hosts(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf);


/* lookup: once, by the system, while the configuration is read */

void ngx_http_llm_targets_lookup(ngx_http_llm_main_conf_t *mcf,
    ngx_log_t *log);


#endif /* _NGX_HTTP_LLM_DNS_H_INCLUDED_ */
