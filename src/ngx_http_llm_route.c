
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


static ngx_http_llm_word_t  ngx_http_llm_retry_words[] = {
    { ngx_string("same"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_retry_t, same), 0, 0, 10, 0 },
    { ngx_string("rounds"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_retry_t, rounds), 1, 1, 10, 0 },
    { ngx_string("base"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(ngx_http_llm_retry_t, pause.base), 500, 1, 600000, 0 },
    { ngx_string("max"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(ngx_http_llm_retry_t, pause.max), 8000, 1, 600000, 0 },
    { ngx_string("factor"), NGX_HTTP_LLM_WORD_FRACTION,
      offsetof(ngx_http_llm_retry_t, pause.factor), 2000, 1000, 10000, 0 },
    { ngx_string("jitter"), NGX_HTTP_LLM_WORD_FRACTION,
      offsetof(ngx_http_llm_retry_t, pause.jitter), 500, 0, 1000, 0 },
    { ngx_string("budget"), NGX_HTTP_LLM_WORD_PERCENT,
      offsetof(ngx_http_llm_retry_t, budget), 20, 0, 100, 0 },
    { ngx_null_string, 0, 0, 0, 0, 0, 0 }
};


void *
ngx_http_llm_create_route(ngx_conf_t *cf)
{
    ngx_http_llm_route_t  *route;

    route = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_route_t));
    if (route == NULL) {
        return NULL;
    }

    ngx_http_llm_words_init(ngx_http_llm_retry_words, &route->retry);

    return route;
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


/* llm_commit header | first_token | window=TIME|SIZE | complete */

char *
ngx_http_llm_commit_when(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_route_t *route = conf;

    ssize_t                 size;
    ngx_int_t               time;
    ngx_str_t              *value, s;
    ngx_http_llm_commit_t  *commit;

    if (route->commit_set) {
        return "is duplicate";
    }

    route->commit_set = 1;

    value = cf->args->elts;
    commit = &route->commit;

    if (ngx_strcmp(value[1].data, "header") == 0) {
        commit->when = NGX_HTTP_LLM_COMMIT_HEADER;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "first_token") == 0) {
        commit->when = NGX_HTTP_LLM_COMMIT_FIRST_TOKEN;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "complete") == 0) {
        commit->when = NGX_HTTP_LLM_COMMIT_COMPLETE;
        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value[1].data, "window=", 7) == 0) {

        s.data = value[1].data + 7;
        s.len = value[1].len - 7;

        commit->when = NGX_HTTP_LLM_COMMIT_WINDOW;

        /* a size ends in "k" or is a multiple of it, a time says its unit */

        if (s.len && (s.data[s.len - 1] | 0x20) == 'k') {

            size = ngx_parse_size(&s);

            if (size > 0 && size <= NGX_HTTP_LLM_HOLD_MAX) {
                commit->size = size;
                return NGX_CONF_OK;
            }

        } else if (s.len && s.data[s.len - 1] > '9') {

            time = ngx_parse_time(&s, 0);

            if (time > 0 && time <= 600000) {
                commit->time = time;
                return NGX_CONF_OK;
            }
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"llm_commit\": expected "
                       "\"header\", \"first_token\", \"window=TIME\" of at "
                       "most 10m, \"window=SIZE\" of at most %dk, or "
                       "\"complete\"", &value[1],
                       NGX_HTTP_LLM_HOLD_MAX / 1024);

    return NGX_CONF_ERROR;
}


/*
 * llm_retry [same=N] [rounds=N] [base=TIME] [max=TIME] [factor=N] [jitter=N]
 *           [budget=N%]
 */

char *
ngx_http_llm_retry(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_route_t *route = conf;

    char  *rv;

    if (route->retry_set) {
        return "is duplicate";
    }

    route->retry_set = 1;

    rv = ngx_http_llm_words(cf, ngx_http_llm_retry_words, 1, &route->retry);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (route->retry.pause.max < route->retry.pause.base) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"max\" is less than \"base\" in \"llm_retry\"");
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* llm_deadline TIME | off */

char *
ngx_http_llm_deadline(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_route_t *route = conf;

    ngx_int_t   time;
    ngx_str_t  *value;

    if (route->deadline_set) {
        return "is duplicate";
    }

    route->deadline_set = 1;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        return NGX_CONF_OK;
    }

    time = ngx_parse_time(&value[1], 0);

    if (time <= 0 || time > LLM_CIRCUIT_LONGEST) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"llm_deadline\": "
                           "expected a time of 1ms to 1d, such as 2m, or "
                           "\"off\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    route->deadline = time;

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
