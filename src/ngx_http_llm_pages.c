
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_pages.h"


/*
 * What the pages have in common: a location of their own, the zone that they
 * may name, how they are asked for, and JSON that is made at once.
 */


#define NGX_HTTP_LLM_PAGES_FORM  (JSON_INDENT(2)|JSON_REAL_PRECISION(6))


char *
ngx_http_llm_pages_answer(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *llcf,
    ngx_http_handler_pt handler)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (llcf->gate || clcf->handler) {
        return "is together with another directive that answers requests: "
               "expected that in a location of its own";
    }

    clcf->handler = handler;

    return NGX_CONF_OK;
}


ngx_uint_t
ngx_http_llm_pages_zone(ngx_http_llm_main_conf_t *mcf, ngx_str_t *name)
{
    return mcf->shm_zone
           && mcf->shm_zone->shm.name.len == name->len
           && ngx_strncmp(mcf->shm_zone->shm.name.data, name->data, name->len)
              == 0;
}


ngx_int_t
ngx_http_llm_pages_get(ngx_http_request_t *r)
{
    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    return ngx_http_discard_request_body(r);
}


ngx_int_t
ngx_http_llm_pages_send(ngx_http_request_t *r, ngx_uint_t status,
    json_t *json)
{
    char                      *text;
    size_t                     len;
    ngx_str_t                  type;
    ngx_http_complex_value_t   cv;

    text = json_dumps(json, NGX_HTTP_LLM_PAGES_FORM);

    json_decref(json);

    if (text == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    len = ngx_strlen(text);

    ngx_memzero(&cv, sizeof(ngx_http_complex_value_t));

    cv.value.data = ngx_pnalloc(r->pool, len + 1);

    if (cv.value.data) {
        cv.value.len = len + 1;
        *ngx_cpymem(cv.value.data, text, len) = '\n';
    }

    free(text);

    if (cv.value.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_str_set(&type, "application/json");

    return ngx_http_send_response(r, status, &type, &cv);
}
