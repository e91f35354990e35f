
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_PROVIDER_H_INCLUDED_
#define _NGX_HTTP_LLM_PROVIDER_H_INCLUDED_


#include "ngx_http_llm.h"

#include "llm_circuit.h"
#include "llm_limit.h"
#include "llm_price.h"


/* the context of directives inside of llm_provider {} */
#define NGX_HTTP_LLM_PROVIDER_CONF  0x00020000


/* the system's certificates */
#define NGX_HTTP_LLM_CA_FILE  "/etc/ssl/certs/ca-certificates.crt"


typedef struct ngx_http_llm_probe_s  ngx_http_llm_probe_t;


typedef struct {
    ngx_str_t                     name;
    ngx_str_t                     upstream_name;  /* empty: the same */
} ngx_http_llm_model_t;


typedef struct {
    uint32_t                      connect;        /* ms */
    uint32_t                      header;
    uint32_t                      answer;
    uint32_t                      first_token;    /* 0: off */
    uint32_t                      idle;
} ngx_http_llm_timeouts_t;


typedef struct {
    uint32_t                      rpm;            /* 0: off */
    uint32_t                      tpm;
    uint32_t                      concurrency;
} ngx_http_llm_limit_t;


/* a request header that a provider sets, or that none may see */

typedef struct {
    ngx_str_t                     name;
    ngx_http_complex_value_t     *value;          /* NULL: removed */
} ngx_http_llm_header_t;


struct ngx_http_llm_provider_s {
    ngx_str_t                     name;
    ngx_uint_t                    index;

    ngx_str_t                     endpoint;
    ngx_str_t                     schema;
    ngx_str_t                     host;           /* for Host */
    ngx_str_t                     tls_name;       /* for SNI and verification */
    ngx_str_t                     base;           /* path, no final slash */
    ngx_str_t                     args;           /* of the base path */
    ngx_http_llm_target_t        *target;         /* see target.h */

    ngx_array_t                   headers;        /* ngx_http_llm_header_t */
    ngx_http_complex_value_t    **governed;       /* by mcf->headers' index */

    ngx_array_t                   models;         /* ngx_http_llm_model_t */
    ngx_http_llm_model_t         *any;            /* model *; or NULL */

    llm_circuit_conf_t            circuit;
    ngx_http_llm_timeouts_t       timeout;
    ngx_http_llm_limit_t          limit;
    llm_limit_conf_t              limits;
    llm_price_t                   price;
    signed char                  *classes;        /* by status; -1: default */

    ngx_http_llm_probe_t         *probe;          /* NULL: there is none */

    ngx_http_llm_record_t        *record;

    unsigned                      ssl:1;
    unsigned                      own_key:1;
    unsigned                      client_key:1;
    unsigned                      key_set:1;
    unsigned                      circuit_set:1;
    unsigned                      timeout_set:1;
    unsigned                      limit_set:1;
    unsigned                      price_set:1;
    unsigned                      probe_set:1;
    unsigned                      limited:1;      /* or counted */
};


/* provider: llm_provider {} */

char *ngx_http_llm_provider(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_endpoint(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_api_key(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_header(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_model(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_circuit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_timeout(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_price(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_classify(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_add_header(ngx_conf_t *cf,
    ngx_http_llm_provider_t *provider, ngx_str_t *name, ngx_str_t *value,
    ngx_uint_t literal);
ngx_http_llm_provider_t *ngx_http_llm_find_provider(
    ngx_http_llm_main_conf_t *mcf, ngx_str_t *name);
ngx_int_t ngx_http_llm_provider_serves(ngx_http_llm_provider_t *provider,
    ngx_str_t *model, ngx_str_t *upstream_name);


/* key: secrets, from where they are */

char *ngx_http_llm_secret(ngx_conf_t *cf, ngx_str_t *value, ngx_str_t *key,
    ngx_uint_t *literal);


#endif /* _NGX_HTTP_LLM_PROVIDER_H_INCLUDED_ */
