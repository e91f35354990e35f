
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_TREE_H_INCLUDED_
#define _NGX_HTTP_LLM_TREE_H_INCLUDED_


#include "ngx_http_llm.h"

#include <jansson.h>


/* names of members are the code's own: nothing to check */

#define ngx_http_llm_set(o, name, value)                                      \
    (void) json_object_setn_new_nocheck(o, name, ngx_strlen(name), value)


/* between these two, jansson takes all memory from the pool */

void ngx_http_llm_tree_begin(ngx_pool_t *pool);
ngx_int_t ngx_http_llm_tree_end(void);

json_t *ngx_http_llm_tree_string(ngx_str_t *s);
json_t *ngx_http_llm_tree_time(uint64_t ms);
json_t *ngx_http_llm_tree_seconds(uint64_t ms);
json_t *ngx_http_llm_tree_fine(uint64_t us);
json_t *ngx_http_llm_tree_share(uint64_t part, uint64_t whole);
json_t *ngx_http_llm_tree_money(uint64_t pico);

u_char *ngx_http_llm_tree_real(u_char *p, double value);
u_char *ngx_http_llm_tree_millionths(u_char *p, uint64_t n);


#endif /* _NGX_HTTP_LLM_TREE_H_INCLUDED_ */
