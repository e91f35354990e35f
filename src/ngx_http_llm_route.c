
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm.h"


/*
 * A route is an upstream{} whose servers are providers.  The order of the
 * llm_use directives is the order of preference.
 */


static ngx_int_t ngx_http_llm_init_route(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);


void *
ngx_http_llm_create_route(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_route_t));
}


/* llm_use PROVIDER [backup] */

char *
ngx_http_llm_use(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_route_t *route = conf;

    ngx_str_t                     *value;
    ngx_uint_t                     i;
    ngx_http_llm_use_t            *use;
    ngx_http_llm_route_t         **routep;
    ngx_http_llm_main_conf_t      *mcf;
    ngx_http_upstream_server_t    *server;
    ngx_http_upstream_srv_conf_t  *uscf;

    value = cf->args->elts;

    if (route->uscf == NULL) {

        uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);

        if (uscf->peer.init_upstream || uscf->servers->nelts) {
            return "must come before \"keepalive\", and a route has neither "
                   "\"server\" nor another load balancing method";
        }

        mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

        routep = ngx_array_push(&mcf->routes);
        server = ngx_array_push(uscf->servers);

        if (routep == NULL || server == NULL
            || ngx_array_init(&route->uses, cf->pool, 4,
                              sizeof(ngx_http_llm_use_t))
               != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }

        *routep = route;

        /* nginx refuses an upstream{} without a server */

        ngx_memzero(server, sizeof(ngx_http_upstream_server_t));
        server->name = uscf->host;

        route->uscf = uscf;

        uscf->flags = NGX_HTTP_UPSTREAM_CREATE;
        uscf->peer.init_upstream = ngx_http_llm_init_route;
    }

    use = route->uses.elts;

    for (i = 0; i < route->uses.nelts; i++) {
        if (use[i].name.len == value[1].len
            && ngx_strncmp(use[i].name.data, value[1].data, value[1].len) == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate \"llm_use\" \"%V\"", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    use = ngx_array_push(&route->uses);
    if (use == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(use, sizeof(ngx_http_llm_use_t));

    use->name = value[1];
    use->file = cf->conf_file->file.name;
    use->line = cf->conf_file->line;

    if (cf->args->nelts == 3) {

        if (ngx_strcmp(value[2].data, "backup") != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" in \"llm_use\": "
                               "expected \"backup\"", &value[2]);
            return NGX_CONF_ERROR;
        }

        use->backup = 1;
    }

    return NGX_CONF_OK;
}


/* llm_strategy priority */

char *
ngx_http_llm_strategy(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_route_t *route = conf;

    ngx_str_t  *value;

    if (route->strategy_set) {
        return "is duplicate";
    }

    route->strategy_set = 1;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "priority") != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"llm_strategy\": "
                           "expected \"priority\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_llm_init_route(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    if (us->servers->nelts != 1) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"server\" in upstream \"%V\" in %s:%ui: "
                      "a route has \"llm_use\" only",
                      &us->host, us->file_name, us->line);
        return NGX_ERROR;
    }

    us->peer.init = ngx_http_llm_init_peer;

    return NGX_OK;
}


ngx_http_llm_route_t *
ngx_http_llm_find_route(ngx_http_llm_main_conf_t *mcf, ngx_str_t *name)
{
    ngx_uint_t              i;
    ngx_http_llm_route_t  **routep;

    routep = mcf->routes.elts;

    for (i = 0; i < mcf->routes.nelts; i++) {
        if (routep[i]->uscf->host.len == name->len
            && ngx_strncasecmp(routep[i]->uscf->host.data, name->data,
                               name->len)
               == 0)
        {
            return routep[i];
        }
    }

    return NULL;
}
