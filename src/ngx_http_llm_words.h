
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_WORDS_H_INCLUDED_
#define _NGX_HTTP_LLM_WORDS_H_INCLUDED_


#include "ngx_http_llm.h"


/* KEY=VALUE of a directive; a value is an uint32_t, but for a text */

typedef enum {
    NGX_HTTP_LLM_WORD_NUMBER = 0,
    NGX_HTTP_LLM_WORD_TIME,                       /* ms */
    NGX_HTTP_LLM_WORD_PERCENT,
    NGX_HTTP_LLM_WORD_FRACTION,                   /* thousandths */
    NGX_HTTP_LLM_WORD_FLAG,                       /* on, off */
    NGX_HTTP_LLM_WORD_TEXT                        /* an ngx_str_t */
} ngx_http_llm_word_e;


typedef struct {
    ngx_str_t                     name;
    ngx_http_llm_word_e           type;
    size_t                        offset;
    uint32_t                      value;          /* where nothing is said */
    uint32_t                      min;
    uint32_t                      max;
    unsigned                      off:1;          /* may be: 0 */
} ngx_http_llm_word_t;


void ngx_http_llm_words_init(ngx_http_llm_word_t *words, void *conf);
char *ngx_http_llm_words(ngx_conf_t *cf, ngx_http_llm_word_t *words,
    ngx_uint_t n, void *conf);


/* an argument with variables */

char *ngx_http_llm_word_compile(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_complex_value_t **cv);


#endif /* _NGX_HTTP_LLM_WORDS_H_INCLUDED_ */
