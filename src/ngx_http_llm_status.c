
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_dashboard.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_pages.h"
#include "ngx_http_llm_recent.h"


/* llm_status: what is known, in the format that the location shows. */


static ngx_http_llm_format_e ngx_http_llm_status_format(u_char *name);
static ngx_int_t ngx_http_llm_status_asset(ngx_http_request_t *r,
    ngx_http_llm_asset_t *asset);
static ngx_int_t ngx_http_llm_status_send(ngx_http_request_t *r,
    ngx_http_llm_text_t *text, ngx_str_t *type, size_t type_len);


/* llm_status [ZONE] [format=json|prometheus|html] */

char *
ngx_http_llm_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    char                      *rv;
    ngx_str_t                 *value;
    ngx_uint_t                 i;
    ngx_http_llm_format_e      format;
    ngx_http_llm_main_conf_t  *mcf;

    if (llcf->status) {
        return "is duplicate";
    }

    rv = ngx_http_llm_pages_answer(cf, llcf, ngx_http_llm_status_handler);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    format = NGX_HTTP_LLM_FORMAT_ACCEPT;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);
    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "format=", 7) == 0) {

            if (format != NGX_HTTP_LLM_FORMAT_ACCEPT) {
                return "has \"format=\" twice";
            }

            format = ngx_http_llm_status_format(value[i].data + 7);

            if (format == NGX_HTTP_LLM_FORMAT_NONE) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid parameter \"%V\" in "
                                   "\"llm_status\": expected \"format=json\", "
                                   "\"format=prometheus\" or "
                                   "\"format=html\"", &value[i]);
                return NGX_CONF_ERROR;
            }

            continue;
        }

        if (!ngx_http_llm_pages_zone(mcf, &value[i])) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown zone \"%V\" in \"llm_status\": "
                               "expected \"format=FORMAT\", or the name given "
                               "by an \"llm_zone\" above", &value[i]);
            return NGX_CONF_ERROR;
        }
    }

    llcf->status = format;
    mcf->status = 1;

    return NGX_CONF_OK;
}


static ngx_http_llm_format_e
ngx_http_llm_status_format(u_char *name)
{
    if (ngx_strcmp(name, "json") == 0) {
        return NGX_HTTP_LLM_FORMAT_JSON;
    }

    if (ngx_strcmp(name, "prometheus") == 0) {
        return NGX_HTTP_LLM_FORMAT_PROMETHEUS;
    }

    if (ngx_strcmp(name, "html") == 0) {
        return NGX_HTTP_LLM_FORMAT_HTML;
    }

    return NGX_HTTP_LLM_FORMAT_NONE;
}


ngx_int_t
ngx_http_llm_status_handler(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    ngx_uint_t                i;
    ngx_http_llm_page_t       page;
    ngx_http_llm_asset_t     *asset;
    ngx_http_llm_format_t    *format;
    ngx_http_llm_loc_conf_t  *llcf;

    /* by ngx_http_llm_format_e; type_len: without its parameters */

    static struct {
        ngx_str_t               type;
        size_t                  type_len;
        ngx_http_llm_format_t  *format;
        ngx_uint_t              changes;
    } formats[] = {
        { ngx_null_string, 0, NULL, 0 },
        { ngx_string("application/json"), sizeof("application/json") - 1,
          &ngx_http_llm_json_format, LLM_HISTORY },
        { ngx_string("text/plain; version=0.0.4; charset=utf-8"),
          sizeof("text/plain") - 1, &ngx_http_llm_prometheus_format, 0 }
    };

    rc = ngx_http_llm_pages_get(r);

    if (rc != NGX_OK) {
        return rc;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    i = llcf->status;

    if (i == NGX_HTTP_LLM_FORMAT_HTML || i == NGX_HTTP_LLM_FORMAT_ACCEPT) {

        rc = ngx_http_llm_dashboard(r, i, &asset);

        if (rc == NGX_HTTP_NOT_FOUND) {
            return rc;
        }

        if (ngx_http_llm_dashboard_headers(r) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        if (rc == NGX_OK) {
            return ngx_http_llm_status_asset(r, asset);
        }

        i = NGX_HTTP_LLM_FORMAT_JSON;
    }

    format = formats[i].format;

    if (i == NGX_HTTP_LLM_FORMAT_JSON
        && r->args.len == sizeof("recent") - 1
        && ngx_strncmp(r->args.data, "recent", sizeof("recent") - 1) == 0)
    {
        format = &ngx_http_llm_recent_format;
    }

    ngx_memzero(&page, sizeof(ngx_http_llm_page_t));

    page.mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);
    page.text.pool = r->pool;

    if (ngx_http_llm_describe(&page, format, formats[i].changes) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_status_send(r, &page.text, &formats[i].type,
                                    formats[i].type_len);
}


static ngx_int_t
ngx_http_llm_status_asset(ngx_http_request_t *r, ngx_http_llm_asset_t *asset)
{
    ngx_http_llm_text_t  text;

    ngx_memzero(&text, sizeof(ngx_http_llm_text_t));

    text.pool = r->pool;

    if (ngx_http_llm_text(&text, (const char *) asset->data,
                          asset->end - asset->data)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_status_send(r, &text, &asset->type, asset->type_len);
}


static ngx_int_t
ngx_http_llm_status_send(ngx_http_request_t *r, ngx_http_llm_text_t *text,
    ngx_str_t *type, size_t type_len)
{
    off_t         size;
    ngx_int_t     rc;
    ngx_str_t     value;
    ngx_chain_t  *cl;

    size = 0;

    for (cl = text->out; cl; cl = cl->next) {
        size += ngx_buf_size(cl->buf);
    }

    text->last->buf->last_buf = (r == r->main) ? 1 : 0;
    text->last->buf->last_in_chain = 1;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = size;

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
