
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm.h"

#include <jansson.h>


/* llm_status: what is known, in the format that the location shows. */


/* amounts of money have no more digits than that, and are exact */

#define NGX_HTTP_LLM_STATUS_FORM  (JSON_INDENT(2)|JSON_REAL_PRECISION(15))

#define NGX_HTTP_LLM_STATUS_BUF   16384


static ngx_int_t ngx_http_llm_status_json(ngx_http_llm_main_conf_t *mcf,
    json_t *tree, ngx_http_llm_text_t *text);
static int ngx_http_llm_status_dump(const char *p, size_t len, void *data);
static ngx_int_t ngx_http_llm_status_send(ngx_http_request_t *r,
    ngx_http_llm_text_t *text, ngx_str_t *type, size_t type_len);


ngx_int_t
ngx_http_llm_status_handler(ngx_http_request_t *r)
{
    json_t                    *tree;
    ngx_int_t                  rc;
    ngx_uint_t                 i;
    ngx_http_llm_text_t        text;
    ngx_http_llm_loc_conf_t   *llcf;
    ngx_http_llm_main_conf_t  *mcf;

    /* by ngx_http_llm_format_e; type_len: without its parameters */

    static struct {
        ngx_str_t    type;
        size_t       type_len;
        ngx_int_t  (*write)(ngx_http_llm_main_conf_t *mcf, json_t *tree,
                            ngx_http_llm_text_t *text);
    } formats[] = {
        { ngx_null_string, 0, NULL },
        { ngx_string("application/json"), sizeof("application/json") - 1,
          ngx_http_llm_status_json },
        { ngx_string("text/plain; version=0.0.4; charset=utf-8"),
          sizeof("text/plain") - 1, ngx_http_llm_prometheus }
    };

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);
    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    i = llcf->status;

    ngx_memzero(&text, sizeof(ngx_http_llm_text_t));

    text.pool = r->pool;

    tree = ngx_http_llm_status_tree(mcf, i);

    rc = tree ? formats[i].write(mcf, tree, &text) : NGX_ERROR;

    json_decref(tree);

    if (rc != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_status_send(r, &text, &formats[i].type,
                                    formats[i].type_len);
}


static ngx_int_t
ngx_http_llm_status_json(ngx_http_llm_main_conf_t *mcf, json_t *tree,
    ngx_http_llm_text_t *text)
{
    if (json_dump_callback(tree, ngx_http_llm_status_dump, text,
                           NGX_HTTP_LLM_STATUS_FORM)
        != 0)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_text(text, "\n", 1);
}


static int
ngx_http_llm_status_dump(const char *p, size_t len, void *data)
{
    return ngx_http_llm_text(data, p, len) == NGX_OK ? 0 : -1;
}


/* Adds to a text, however long it becomes. */

ngx_int_t
ngx_http_llm_text(ngx_http_llm_text_t *text, const char *p, size_t len)
{
    size_t        n;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    text->size += len;

    while (len) {

        b = text->last ? text->last->buf : NULL;

        if (b == NULL || b->last == b->end) {

            cl = ngx_alloc_chain_link(text->pool);
            if (cl == NULL) {
                return NGX_ERROR;
            }

            b = ngx_create_temp_buf(text->pool, NGX_HTTP_LLM_STATUS_BUF);
            if (b == NULL) {
                return NGX_ERROR;
            }

            cl->buf = b;
            cl->next = NULL;

            if (text->last) {
                text->last->next = cl;

            } else {
                text->out = cl;
            }

            text->last = cl;
        }

        n = ngx_min(len, (size_t) (b->end - b->last));

        b->last = ngx_cpymem(b->last, p, n);

        p += n;
        len -= n;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_status_send(ngx_http_request_t *r, ngx_http_llm_text_t *text,
    ngx_str_t *type, size_t type_len)
{
    ngx_int_t  rc;
    ngx_str_t  value;

    text->last->buf->last_buf = (r == r->main) ? 1 : 0;
    text->last->buf->last_in_chain = 1;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = text->size;

    r->headers_out.content_type = *type;
    r->headers_out.content_type_len = type_len;

    ngx_str_set(&value, "no-store");

    if (ngx_http_llm_push_header(r, "Cache-Control", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    return ngx_http_output_filter(r, text->out);
}
