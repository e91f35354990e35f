
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_answer.h"
#include "ngx_http_llm_attempt.h"
#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_words.h"


/*
 * A route is an upstream{} whose servers are providers.  The order of the
 * llm_use directives is the order of preference.
 */


static char *ngx_http_llm_route_begin(ngx_conf_t *cf,
    ngx_http_llm_route_t *route);
static char *ngx_http_llm_use_parameters(ngx_conf_t *cf,
    ngx_http_llm_use_t *use);
static char *ngx_http_llm_route_time(ngx_conf_t *cf, uint32_t *time);
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


static ngx_http_llm_word_t  ngx_http_llm_wait_words[] = {
    { ngx_string("queue"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_wait_t, queue), 1000, 1, 1000000, 0 },
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
    ngx_http_llm_words_init(ngx_http_llm_wait_words, &route->wait);

    return route;
}


/* llm_use PROVIDER [weight=N] [backup] */

char *
ngx_http_llm_use(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_route_t *route = conf;

    char                *rv;
    ngx_str_t           *value;
    ngx_uint_t           i;
    ngx_http_llm_use_t  *use;

    if (route->uscf == NULL) {

        rv = ngx_http_llm_route_begin(cf, route);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    value = cf->args->elts;
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

    use->weight = 1;

    return ngx_http_llm_use_parameters(cf, use);
}


/* With its first llm_use an upstream{} becomes a route. */

static char *
ngx_http_llm_route_begin(ngx_conf_t *cf, ngx_http_llm_route_t *route)
{
    ngx_http_llm_route_t         **routep;
    ngx_http_llm_main_conf_t      *mcf;
    ngx_http_upstream_server_t    *server;
    ngx_http_upstream_srv_conf_t  *uscf;

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

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_use_parameters(ngx_conf_t *cf, ngx_http_llm_use_t *use)
{
    ngx_int_t    weight;
    ngx_str_t   *value;
    ngx_uint_t   i;

    value = cf->args->elts;

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "backup") == 0) {
            use->backup = 1;
            continue;
        }

        if (ngx_strncmp(value[i].data, "weight=", 7) == 0) {

            weight = ngx_atoi(value[i].data + 7, value[i].len - 7);

            if (weight >= 1 && weight <= LLM_WEIGHT_MAX) {
                use->weight = (uint32_t) weight;
                continue;
            }
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" in \"llm_use\": "
                           "expected \"weight=N\" of 1 to %d, or \"backup\"",
                           &value[i], LLM_WEIGHT_MAX);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* llm_strategy NAME, with variables */

char *
ngx_http_llm_strategy(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_route_t *route = conf;

    int         strategy;
    u_char     *p, expected[256];
    ngx_str_t  *value;

    if (route->strategy_set) {
        return "is duplicate";
    }

    route->strategy_set = 1;

    value = cf->args->elts;

    if (ngx_http_script_variables_count(&value[1])) {
        return ngx_http_llm_word_compile(cf, &value[1],
                                         &route->strategy_value);
    }

    strategy = llm_strategy_by_name(value[1].data, value[1].len);

    if (strategy < 0) {

        p = expected;

        for (strategy = 0; strategy < LLM_STRATEGIES; strategy++) {
            p = ngx_slprintf(p, expected + sizeof(expected), "%s%s",
                             strategy == 0 ? "" : ", ",
                             llm_strategy_name(strategy));
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"llm_strategy\": "
                           "expected %*s", &value[1],
                           (size_t) (p - expected), expected);
        return NGX_CONF_ERROR;
    }

    route->strategy = strategy;

    return NGX_CONF_OK;
}


/* llm_budget PRICE | off, with variables */

char *
ngx_http_llm_budget(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_route_t *route = conf;

    ngx_str_t   *value;
    const char  *expected;

    if (route->budget_set) {
        return "is duplicate";
    }

    route->budget_set = 1;

    value = cf->args->elts;

    if (ngx_http_script_variables_count(&value[1])) {
        return ngx_http_llm_word_compile(cf, &value[1], &route->budget_value);
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        return NGX_CONF_OK;
    }

    expected = llm_price_parse(value[1].data, value[1].len, &route->budget);

    if (expected) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"llm_budget\": "
                           "expected %s", &value[1], expected);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* Its providers are known: what the strategies want to know of them. */

char *
ngx_http_llm_route_candidates(ngx_conf_t *cf, ngx_http_llm_route_t *route)
{
    ngx_uint_t                i;
    llm_candidate_t          *candidate;
    ngx_http_llm_use_t       *use;
    ngx_http_llm_provider_t  *provider;

    if (route->uses.nelts > LLM_SELECT_MAX) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "upstream \"%V\" in %s:%ui has %ui \"llm_use\": "
                      "expected at most %d", &route->uscf->host,
                      route->uscf->file_name, route->uscf->line,
                      route->uses.nelts, LLM_SELECT_MAX);
        return NGX_CONF_ERROR;
    }

    route->candidates = ngx_pcalloc(cf->pool, route->uses.nelts
                                              * sizeof(llm_candidate_t));
    if (route->candidates == NULL) {
        return NGX_CONF_ERROR;
    }

    use = route->uses.elts;

    for (i = 0; i < route->uses.nelts; i++) {

        provider = use[i].provider;
        candidate = &route->candidates[i];

        candidate->backup = use[i].backup;
        candidate->weight = use[i].weight;
        candidate->price_input = provider->price.input;
        candidate->price_output = provider->price.output;

        if ((route->strategy_value
             || route->strategy == LLM_STRATEGY_LEAST_CONN)
            && provider->limits.concurrency == 0)
        {
            /* counted, never refused */

            provider->limits.concurrency = UINT32_MAX;
            provider->limited = 1;
        }
    }

    llm_select_prepare(route->candidates, route->uses.nelts);

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

    uint32_t   time;
    char      *rv;

    if (route->deadline_set) {
        return "is duplicate";
    }

    route->deadline_set = 1;

    rv = ngx_http_llm_route_time(cf, &time);
    route->deadline = time;

    return rv;
}


/* llm_wait TIME [queue=N] | off */

char *
ngx_http_llm_wait_time(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_route_t *route = conf;

    char  *rv;

    if (route->wait_set) {
        return "is duplicate";
    }

    route->wait_set = 1;

    rv = ngx_http_llm_route_time(cf, &route->wait.time);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    return ngx_http_llm_words(cf, ngx_http_llm_wait_words, 2, &route->wait);
}


/* the first argument: a time, 0 for "off" */

static char *
ngx_http_llm_route_time(ngx_conf_t *cf, uint32_t *time)
{
    ngx_int_t   n;
    ngx_str_t  *value;

    value = cf->args->elts;

    *time = 0;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        return NGX_CONF_OK;
    }

    n = ngx_parse_time(&value[1], 0);

    if (n <= 0 || n > LLM_CIRCUIT_LONGEST) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\": "
                           "expected a time of 1ms to 1d, such as 2m, or "
                           "\"off\"", &value[1], &value[0]);
        return NGX_CONF_ERROR;
    }

    *time = (uint32_t) n;

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


/* The route of a location, by the variables of its name. */

ngx_http_llm_route_t *
ngx_http_llm_eval_route(ngx_http_request_t *r, ngx_http_llm_loc_conf_t *llcf)
{
    ngx_str_t                  name;
    ngx_http_llm_route_t      *route;
    ngx_http_llm_main_conf_t  *mcf;

    if (llcf->route) {
        return llcf->route;
    }

    if (ngx_http_complex_value(r, llcf->route_value, &name) != NGX_OK) {
        return NULL;
    }

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    route = ngx_http_llm_find_route(mcf, &name);

    if (route == NULL) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "llm: unknown route \"%V\": expected the name of an "
                      "\"upstream\" with \"llm_use\"", &name);
    }

    return route;
}
