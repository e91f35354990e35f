
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_gate.h"


/* llm_pass and llm_gate: a location leads to a route. */


#if (NGX_HTTP_SSL)
#define NGX_HTTP_LLM_SCHEMA  "https://"
#else
#define NGX_HTTP_LLM_SCHEMA  "http://"
#endif


static char *ngx_http_llm_proxy_pass(ngx_conf_t *cf, ngx_str_t *route);


/*
 * llm_pass ROUTE [prefix=URI] and llm_gate ROUTE [prefix=URI].  What the
 * route's name stands for is looked up when the whole configuration is
 * read: ngx_http_llm_defaults_module.
 */

char *
ngx_http_llm_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    char                      *rv;
    ngx_str_t                 *value;
    ngx_http_core_loc_conf_t  *clcf;

    if (llcf->gate || llcf->models || llcf->api || llcf->status) {
        return "is duplicate, or together with another of \"llm_pass\", "
               "\"llm_gate\", \"llm_models\", \"llm_status\" and \"llm_api\"";
    }

    rv = ngx_http_llm_add_pass(cf, llcf);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    value = cf->args->elts;

    if (cf->args->nelts == 3) {
        if (ngx_strncmp(value[2].data, "prefix=/", 8) != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" in \"%V\": "
                               "expected \"prefix=/URI\"",
                               &value[2], &value[0]);
            return NGX_CONF_ERROR;
        }

        llcf->prefix.len = value[2].len - 7;
        llcf->prefix.data = value[2].data + 7;
        llcf->prefix_set = 1;
    }

    llcf->gate = 1;

    if (ngx_strcmp(value[0].data, "llm_gate") == 0) {
        return NGX_CONF_OK;
    }

    llcf->pass = 1;

    rv = ngx_http_llm_proxy_pass(cf, &value[1]);

    if (rv && rv != NGX_CONF_ERROR && ngx_strcmp(rv, "is duplicate") == 0) {
        return "is together with \"proxy_pass\": expected \"llm_pass\" alone, "
               "or \"llm_gate\" with \"proxy_pass\"";
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    llcf->handler = clcf->handler;

    return rv;
}


/*
 * Says "proxy_pass https://ROUTE" in this location.  It is https whatever
 * the endpoints are: an attempt may go without the TLS that the location
 * has, but can not have TLS that the location lacks.
 */

static char *
ngx_http_llm_proxy_pass(ngx_conf_t *cf, ngx_str_t *route)
{
    char           *rv;
    void           *conf;
    ngx_str_t      *value, url;
    ngx_array_t    *saved, args;
    ngx_command_t  *cmd;

    url.len = sizeof(NGX_HTTP_LLM_SCHEMA) - 1 + route->len;

    url.data = ngx_pnalloc(cf->pool, url.len + 1);
    if (url.data == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_sprintf(url.data, NGX_HTTP_LLM_SCHEMA "%V%Z", route);

    if (ngx_array_init(&args, cf->temp_pool, 2, sizeof(ngx_str_t)) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    value = ngx_array_push_n(&args, 2);

    ngx_str_set(&value[0], "proxy_pass");
    value[1] = url;

    for (cmd = ngx_http_proxy_module.commands; cmd->name.len; cmd++) {

        if (cmd->name.len != value[0].len
            || ngx_strncmp(cmd->name.data, value[0].data, value[0].len) != 0)
        {
            continue;
        }

        conf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_proxy_module);

        saved = cf->args;
        cf->args = &args;

        rv = cmd->set(cf, cmd, conf);

        cf->args = saved;

        return rv;
    }

    return "needs ngx_http_proxy_module";
}
