
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_text.h"


/* A text of any length, in buffers that become larger. */


#define NGX_HTTP_LLM_TEXT_MIN  2048
#define NGX_HTTP_LLM_TEXT_MAX  65536


ngx_int_t
ngx_http_llm_text(ngx_http_llm_text_t *text, const char *p, size_t len)
{
    u_char  *dst;

    dst = ngx_http_llm_text_room(text, len);
    if (dst == NULL) {
        return NGX_ERROR;
    }

    text->last->buf->last = ngx_cpymem(dst, p, len);

    return NGX_OK;
}


/* The end of the text, which the caller moves when something stands there. */

u_char *
ngx_http_llm_text_room(ngx_http_llm_text_t *text, size_t len)
{
    size_t        size;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    size = NGX_HTTP_LLM_TEXT_MIN;

    if (text->last) {

        b = text->last->buf;

        if ((size_t) (b->end - b->last) >= len) {
            return b->last;
        }

        size = ngx_min(2 * (b->end - b->start), NGX_HTTP_LLM_TEXT_MAX);
    }

    cl = ngx_alloc_chain_link(text->pool);
    if (cl == NULL) {
        return NULL;
    }

    cl->buf = ngx_create_temp_buf(text->pool,
                                  ngx_max(len, size));
    if (cl->buf == NULL) {
        return NULL;
    }

    cl->next = NULL;

    if (text->last) {
        text->last->next = cl;

    } else {
        text->out = cl;
    }

    text->last = cl;

    return cl->buf->last;
}


/* Puts the other one behind it, which is empty then. */

void
ngx_http_llm_text_append(ngx_http_llm_text_t *text, ngx_http_llm_text_t *more)
{
    if (more->out == NULL) {
        return;
    }

    if (text->last) {
        text->last->next = more->out;

    } else {
        text->out = more->out;
    }

    text->last = more->last;

    more->out = NULL;
    more->last = NULL;
}
