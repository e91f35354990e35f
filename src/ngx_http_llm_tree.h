
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_TREE_H_INCLUDED_
#define _NGX_HTTP_LLM_TREE_H_INCLUDED_


#include "ngx_http_llm.h"

#include <jansson.h>


/* room that a number takes, as text */

#define NGX_HTTP_LLM_NUMBER_LEN  40


/* a text that grows, to be sent */

typedef struct {
    ngx_pool_t                   *pool;
    ngx_chain_t                  *out;
    ngx_chain_t                  *last;
} ngx_http_llm_text_t;


/* names of members are the code's own: nothing to check */

#define ngx_http_llm_set(o, name, value)                                      \
    (void) json_object_setn_new_nocheck(o, name, ngx_strlen(name), value)


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
json_t *ngx_http_llm_describe_moves(uint64_t *calls);
json_t *ngx_http_llm_describe_changes(ngx_http_llm_record_t *record,
    ngx_uint_t n);

/* observed: the same of servers that are observed */

ngx_int_t ngx_http_llm_describe_observed(ngx_http_llm_page_t *page,
    ngx_http_llm_format_t *format, ngx_pool_t *pool, ngx_uint_t changes);

/* probe_result: what is known of a provider's probes */

void ngx_http_llm_probe_describe(ngx_http_llm_provider_t *provider,
    json_t *o);

/* text: that grows */

ngx_int_t ngx_http_llm_text(ngx_http_llm_text_t *text, const char *p,
    size_t len);
u_char *ngx_http_llm_text_room(ngx_http_llm_text_t *text, size_t len);
void ngx_http_llm_text_append(ngx_http_llm_text_t *text,
    ngx_http_llm_text_t *more);

/* between these two, jansson takes all memory from the pool */

void ngx_http_llm_tree_begin(ngx_pool_t *pool);
void ngx_http_llm_tree_end(void);

json_t *ngx_http_llm_tree_string(ngx_str_t *s);
json_t *ngx_http_llm_tree_time(uint64_t ms);
json_t *ngx_http_llm_tree_seconds(uint64_t ms);
json_t *ngx_http_llm_tree_fine(uint64_t us);
json_t *ngx_http_llm_tree_share(uint64_t part, uint64_t whole);
json_t *ngx_http_llm_tree_money(uint64_t pico);

u_char *ngx_http_llm_tree_real(u_char *p, double value);
u_char *ngx_http_llm_tree_millionths(u_char *p, uint64_t n);


#endif /* _NGX_HTTP_LLM_TREE_H_INCLUDED_ */
