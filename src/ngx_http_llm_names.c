
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_words.h"


/*
 * What the names in a configuration stand for, once all of it is read, and
 * whether what stands in a gate's location goes together.
 */


/* what an attempt must be allowed to end with for another one to follow */

#define NGX_HTTP_LLM_NEXT_UPSTREAM                                            \
    (NGX_HTTP_UPSTREAM_FT_ERROR|NGX_HTTP_UPSTREAM_FT_TIMEOUT                  \
     |NGX_HTTP_UPSTREAM_FT_INVALID_HEADER                                     \
     |NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT)


static char *ngx_http_llm_check_upstreams(ngx_conf_t *cf);
static const char *ngx_http_llm_route_said(ngx_http_llm_route_t *route);
static void ngx_http_llm_check_strategy(ngx_conf_t *cf,
    ngx_http_llm_route_t *route);
static char *ngx_http_llm_resolve_pass(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf, ngx_http_llm_pass_t *pass);
static char *ngx_http_llm_resolve_prefix(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf, ngx_http_llm_loc_conf_t *llcf);
static ngx_uint_t ngx_http_llm_has_base(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_route_t *route);
#if (NGX_HTTP_SSL)
static ngx_uint_t ngx_http_llm_has_tls(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_route_t *route);
#endif


/* DIRECTIVE ROUTE: notes where it stands, and what the route's name is. */

char *
ngx_http_llm_add_pass(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *llcf)
{
    ngx_str_t                 *value;
    ngx_http_llm_pass_t       *pass;
    ngx_http_llm_main_conf_t  *mcf;

    value = cf->args->elts;

    if (value[1].len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "empty route in \"%V\": expected the name of an "
                           "\"upstream\" with \"llm_use\"", &value[0]);
        return NGX_CONF_ERROR;
    }

    if (ngx_strstr(value[1].data, "://")) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid route \"%V\" in \"%V\": expected the name "
                           "of an \"upstream\" with \"llm_use\", and no URL",
                           &value[1], &value[0]);
        return NGX_CONF_ERROR;
    }

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    pass = ngx_array_push(&mcf->passes);
    if (pass == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(pass, sizeof(ngx_http_llm_pass_t));

    pass->directive = value[0];
    pass->file = cf->conf_file->file.name;
    pass->line = cf->conf_file->line;
    pass->conf = llcf;

    llcf->id = mcf->passes.nelts;

    if (ngx_http_script_variables_count(&value[1]) == 0) {
        pass->route = value[1];
        return NGX_CONF_OK;
    }

    return ngx_http_llm_word_compile(cf, &value[1], &llcf->route_value);
}


/* What the directives of an upstream{} can not see while they are read. */

static char *
ngx_http_llm_check_upstreams(ngx_conf_t *cf)
{
    ngx_uint_t                       i;
    const char                      *said;
    ngx_http_llm_route_t            *route;
    ngx_http_upstream_srv_conf_t   **uscfp, *uscf;
    ngx_http_upstream_main_conf_t   *umcf;

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {

        uscf = uscfp[i];

        if (uscf->srv_conf == NULL) {
            continue;
        }

        route = ngx_http_conf_upstream_srv_conf(uscf, ngx_http_llm_module);

        said = ngx_http_llm_route_said(route);

        if (route->uscf == NULL && said) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"%s\" in upstream \"%V\" in %s:%ui: "
                          "expected \"llm_use\" with it",
                          said, &uscf->host, uscf->file_name, uscf->line);
            return NGX_CONF_ERROR;
        }

        /* another method has flags of its own; "keepalive" leaves them */

        if (route->uscf && uscf->flags != NGX_HTTP_UPSTREAM_CREATE) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "another load balancing method in upstream \"%V\" "
                          "in %s:%ui: expected \"llm_strategy\" in a route",
                          &uscf->host, uscf->file_name, uscf->line);
            return NGX_CONF_ERROR;
        }

        if (route->uscf) {
            ngx_http_llm_check_strategy(cf, route);
        }

#if (NGX_HTTP_UPSTREAM_ZONE)

        /* nginx would copy its own load balancing there, which is not made */

        if (route->uscf && uscf->shm_zone) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"zone\" in upstream \"%V\" in %s:%ui: "
                          "expected none, the state of providers is kept in "
                          "\"llm_zone\"",
                          &uscf->host, uscf->file_name, uscf->line);
            return NGX_CONF_ERROR;
        }

#endif
    }

    return NGX_CONF_OK;
}


/* A directive that only a route may have, or NULL. */

static const char *
ngx_http_llm_route_said(ngx_http_llm_route_t *route)
{
    return route->strategy_set ? "llm_strategy"
         : route->budget_set ? "llm_budget"
         : route->commit_set ? "llm_commit"
         : route->retry_set ? "llm_retry"
         : route->usage_set ? "llm_usage"
         : route->deadline_set ? "llm_deadline"
         : route->wait_set ? "llm_wait"
         : NULL;
}


/* Warns of what the route's strategy does not look at. */

static void
ngx_http_llm_check_strategy(ngx_conf_t *cf, ngx_http_llm_route_t *route)
{
    ngx_uint_t                     i;
    ngx_http_llm_use_t            *use;
    ngx_http_upstream_srv_conf_t  *uscf;

    if (route->strategy_value) {
        return;
    }

    use = route->uses.elts;
    uscf = route->uscf;

    for (i = 0; i < route->uses.nelts; i++) {
        if (use[i].weight != 1
            && route->strategy != LLM_STRATEGY_WEIGHTED
            && route->strategy != LLM_STRATEGY_LEAST_CONN)
        {
            ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                          "\"weight=\" of \"%V\" in upstream \"%V\" in %s:%ui "
                          "has no effect: expected \"llm_strategy weighted\" "
                          "or \"least_conn\" with it",
                          &use[i].name, &uscf->host, uscf->file_name,
                          uscf->line);
            break;
        }
    }

    if ((route->budget || route->budget_value)
        && route->strategy != LLM_STRATEGY_COST)
    {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "\"llm_budget\" in upstream \"%V\" in %s:%ui has no "
                      "effect: expected \"llm_strategy cost\" with it",
                      &uscf->host, uscf->file_name, uscf->line);
    }
}


/* Names of providers and routes, wherever they were written. */

char *
ngx_http_llm_resolve_names(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf)
{
    char                   *rv;
    ngx_uint_t              i, n;
    ngx_http_llm_use_t     *use;
    ngx_http_llm_pass_t    *pass;
    ngx_http_llm_route_t  **routep;

    if (ngx_http_llm_check_upstreams(cf) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    routep = mcf->routes.elts;

    for (i = 0; i < mcf->routes.nelts; i++) {

        use = routep[i]->uses.elts;

        for (n = 0; n < routep[i]->uses.nelts; n++) {

            use[n].provider = ngx_http_llm_find_provider(mcf, &use[n].name);

            if (use[n].provider == NULL) {
                ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                              "unknown provider \"%V\" in \"llm_use\" in "
                              "%V:%ui: expected the name of an "
                              "\"llm_provider\"",
                              &use[n].name, &use[n].file, use[n].line);
                return NGX_CONF_ERROR;
            }
        }

        if (ngx_http_llm_route_candidates(cf, routep[i]) != NGX_CONF_OK) {
            return NGX_CONF_ERROR;
        }
    }

    pass = mcf->passes.elts;

    for (i = 0; i < mcf->passes.nelts; i++) {

        rv = ngx_http_llm_resolve_pass(cf, mcf, &pass[i]);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_resolve_pass(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_pass_t *pass)
{
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = pass->conf;

    if (llcf->route_value == NULL) {

        llcf->route = ngx_http_llm_find_route(mcf, &pass->route);

        if (llcf->route == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown route \"%V\" in \"%V\" in %V:%ui: "
                          "expected the name of an \"upstream\" with "
                          "\"llm_use\"", &pass->route, &pass->directive,
                          &pass->file, pass->line);
            return NGX_CONF_ERROR;
        }
    }

#if (NGX_HTTP_SSL)

    llcf->sessions = ngx_pcalloc(cf->pool, mcf->providers.nelts
                                           * sizeof(ngx_ssl_session_t *));
    if (llcf->sessions == NULL) {
        return NGX_CONF_ERROR;
    }

#endif

    return NGX_CONF_OK;
}


/*
 * A location with a gate, when all of its directives are known; other: it has
 * another one that answers requests.
 */

char *
ngx_http_llm_check_gate(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *conf,
    ngx_uint_t other)
{
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_llm_main_conf_t  *mcf;
    ngx_http_upstream_conf_t  *upstream;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    /* the first member of the proxy module's conf, merged by now */

    upstream = ngx_http_conf_get_module_loc_conf(cf, ngx_http_proxy_module);
    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    if (ngx_http_llm_resolve_prefix(cf, mcf, conf) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    if (conf->pass
        && (other
            || (clcf->handler && clcf->handler != conf->handler)
            || (conf->route && upstream->upstream != conf->route->uscf)))
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"llm_pass\" for location \"%V\" is together with "
                      "another directive that answers requests: expected "
                      "that in a location of its own", &clcf->name);
        return NGX_CONF_ERROR;
    }

#if (NGX_HTTP_SSL)

    /* since 1.23.1 there is always something, but perhaps without settings */

    if ((upstream->ssl == NULL || upstream->ssl->ctx == NULL)
        && ngx_http_llm_has_tls(mcf, conf->route))
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"llm_gate\" in location \"%V\" needs "
                      "\"proxy_pass https://ROUTE\": "
                      "some endpoints are https", &clcf->name);
        return NGX_CONF_ERROR;
    }

#endif

    if ((upstream->next_upstream & NGX_HTTP_LLM_NEXT_UPSTREAM)
        != NGX_HTTP_LLM_NEXT_UPSTREAM)
    {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "\"proxy_next_upstream\" for location \"%V\" lacks one "
                      "of \"error timeout invalid_header non_idempotent\": "
                      "requests will not fail over to other providers",
                      &clcf->name);
    }

#if (NGX_HTTP_CACHE)

    if (upstream->cache && !upstream->buffering) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "\"proxy_cache\" for location \"%V\" stores nothing: "
                      "expected \"proxy_buffering on\" with it",
                      &clcf->name);
    }

#endif

    return NGX_CONF_OK;
}


/*
 * The part of a request's URI that the path of an endpoint replaces, once it
 * is known in which location an "if" is.
 */

static char *
ngx_http_llm_resolve_prefix(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_loc_conf_t *llcf)
{
    ngx_uint_t                 by_prefix;
    ngx_http_llm_pass_t       *pass;
    ngx_http_core_loc_conf_t  *clcf;

    if (llcf->prefix_set) {
        return NGX_CONF_OK;
    }

    clcf = llcf->location;

    by_prefix = !clcf->named;
#if (NGX_PCRE)
    by_prefix = by_prefix && clcf->regex == NULL;
#endif

    if (by_prefix) {
        llcf->prefix = clcf->name;
        return NGX_CONF_OK;
    }

    if (!ngx_http_llm_has_base(mcf, llcf->route)) {
        return NGX_CONF_OK;
    }

    pass = mcf->passes.elts;
    pass += llcf->id - 1;

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"%V\" in %V:%ui is in a location that is given by a "
                  "regular expression or by name: expected "
                  "\"prefix=/URI\", the part of the request's URI that "
                  "the path of an \"endpoint\" replaces",
                  &pass->directive, &pass->file, pass->line);

    return NGX_CONF_ERROR;
}


/* Whether an endpoint of the route, or of any where NULL, has a path. */

static ngx_uint_t
ngx_http_llm_has_base(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_route_t *route)
{
    ngx_uint_t                 i;
    ngx_http_llm_use_t        *use;
    ngx_http_llm_provider_t  **providerp;

    if (route) {
        use = route->uses.elts;

        for (i = 0; i < route->uses.nelts; i++) {
            if (use[i].provider->base.len) {
                return 1;
            }
        }

        return 0;
    }

    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {
        if (providerp[i]->base.len) {
            return 1;
        }
    }

    return 0;
}


#if (NGX_HTTP_SSL)

/* Whether an endpoint of the route, or of any where NULL, is https. */

static ngx_uint_t
ngx_http_llm_has_tls(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_route_t *route)
{
    ngx_uint_t           i;
    ngx_http_llm_use_t  *use;

    if (route == NULL) {
        return mcf->tls;
    }

    use = route->uses.elts;

    for (i = 0; i < route->uses.nelts; i++) {
        if (use[i].provider->ssl) {
            return 1;
        }
    }

    return 0;
}

#endif
