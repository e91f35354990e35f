
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_DASHBOARD_H_INCLUDED_
#define _NGX_HTTP_LLM_DASHBOARD_H_INCLUDED_


#include "ngx_http_llm_conf.h"


/* a file of src/dashboard, which the module has in it */

typedef struct {
    ngx_str_t        name;
    ngx_str_t        type;
    size_t           type_len;                    /* without parameters */
    const u_char    *data;
    const u_char    *end;
} ngx_http_llm_asset_t;


/*
 * What a location that may show the page answers with: NGX_OK and an asset,
 * NGX_DECLINED for data, or NGX_HTTP_NOT_FOUND.
 */

ngx_int_t ngx_http_llm_dashboard(ngx_http_request_t *r,
    ngx_http_llm_format_e format, ngx_http_llm_asset_t **asset);

/* what a browser has to keep to */

ngx_int_t ngx_http_llm_dashboard_headers(ngx_http_request_t *r);


#endif /* _NGX_HTTP_LLM_DASHBOARD_H_INCLUDED_ */
