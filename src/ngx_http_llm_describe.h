
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_DESCRIBE_H_INCLUDED_
#define _NGX_HTTP_LLM_DESCRIBE_H_INCLUDED_


#include "ngx_http_llm_text.h"
#include "ngx_http_llm_tree.h"


/* a page, and how a format shows what is in it, piece by piece */

typedef struct {
    ngx_http_llm_main_conf_t     *mcf;
    ngx_http_llm_text_t           text;
    void                         *data;           /* the format's own */
} ngx_http_llm_page_t;


typedef struct {
    ngx_int_t                   (*head)(ngx_http_llm_page_t *page,
                                     json_t *tree);
    ngx_int_t                   (*list)(ngx_http_llm_page_t *page,
                                     const char *name);
    ngx_int_t                   (*entry)(ngx_http_llm_page_t *page,
                                     ngx_uint_t i, json_t *tree);
    ngx_int_t                   (*end)(ngx_http_llm_page_t *page);
} ngx_http_llm_format_t;


/* a counter, and where it stands */

typedef struct {
    const char  *object;                          /* NULL: not in one */
    const char  *name;
    unsigned     counter;
} ngx_http_llm_field_t;


extern ngx_http_llm_format_t  ngx_http_llm_json_format;
extern ngx_http_llm_format_t  ngx_http_llm_prometheus_format;


/* describe: everything that is known */

ngx_int_t ngx_http_llm_describe(ngx_http_llm_page_t *page,
    ngx_http_llm_format_t *format, ngx_uint_t changes);
ngx_uint_t ngx_http_llm_describe_most(ngx_http_llm_main_conf_t *mcf,
    ngx_uint_t changes);
json_t *ngx_http_llm_describe_provider(ngx_http_llm_main_conf_t *mcf,
    void *entry, ngx_uint_t changes);
json_t *ngx_http_llm_describe_route(ngx_http_llm_main_conf_t *mcf,
    void *entry, ngx_uint_t changes);
void ngx_http_llm_describe_usage(uint64_t *usage, json_t *o);
void ngx_http_llm_describe_fields(ngx_http_llm_field_t *fields, ngx_uint_t n,
    uint64_t *total, json_t *o);

void ngx_http_llm_describe_last(ngx_http_llm_record_t *record,
    uint64_t *calls, json_t *o);
void ngx_http_llm_describe_history(ngx_http_llm_record_t *record,
    uint64_t *calls, ngx_uint_t changes, json_t *o);

/* observed: the same of servers that are observed */

ngx_int_t ngx_http_llm_describe_observed(ngx_http_llm_page_t *page,
    ngx_http_llm_format_t *format, ngx_pool_t *pool, ngx_uint_t changes);

/* probe_result: what is known of a provider's probes */

void ngx_http_llm_probe_describe(ngx_http_llm_provider_t *provider,
    json_t *o);

/* target: the addresses of a host, as this worker knows them */

void ngx_http_llm_target_describe(ngx_http_llm_target_t *target,
    json_t *o);


#endif /* _NGX_HTTP_LLM_DESCRIBE_H_INCLUDED_ */
