
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_circuit.h"
#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_observe.h"
#include "ngx_http_llm_route.h"


/*
 * llm_observe: which upstreams have circuits that never act, and their
 * servers.  What the circuits are told is in ngx_http_llm_observe_peer.c.
 */


static char *ngx_http_llm_observe_upstream(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf, ngx_http_upstream_srv_conf_t *uscf,
    llm_circuit_conf_t *circuit);
static ngx_int_t ngx_http_llm_observe_name(ngx_conf_t *cf,
    ngx_http_llm_observed_t *observed);
static ngx_int_t ngx_http_llm_observe_servers(ngx_conf_t *cf,
    ngx_http_llm_observed_t *observed);
static ngx_int_t ngx_http_llm_observe_implicit(ngx_conf_t *cf,
    ngx_http_llm_observed_t *observed);
static ngx_int_t ngx_http_llm_observe_add(ngx_conf_t *cf,
    ngx_http_llm_observed_t *observed, ngx_str_t *name);


/* llm_observe on [KEY=VALUE...], llm_observe off */

char *
ngx_http_llm_observe(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_route_t *route = conf;

    ngx_str_t           *value;
    llm_circuit_conf_t  *circuit;

    if (route->observe_set) {
        return "is duplicate";
    }

    route->observe_set = 1;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0 && cf->args->nelts == 2) {
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "on") != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" in \"llm_observe\": "
                           "expected \"on\", which may be followed by the "
                           "words of \"circuit\", or \"off\" alone",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    circuit = ngx_pcalloc(cf->pool, sizeof(llm_circuit_conf_t));
    if (circuit == NULL) {
        return NGX_CONF_ERROR;
    }

    route->observe = circuit;

    ngx_http_llm_circuit_init(circuit);

    return cf->args->nelts > 2 ? ngx_http_llm_circuit_read(cf, 2, circuit)
                               : NGX_CONF_OK;
}


char *
ngx_http_llm_observe_init(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf)
{
    char                            *rv;
    ngx_uint_t                       i;
    ngx_http_llm_route_t            *all, *route;
    llm_circuit_conf_t              *circuit;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    all = ngx_http_conf_get_module_srv_conf(cf, ngx_http_llm_module);

    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {

        circuit = all->observe;

        if (uscfp[i]->srv_conf) {
            route = ngx_http_conf_upstream_srv_conf(uscfp[i],
                                                    ngx_http_llm_module);
            if (route->uscf) {

                if (route->observe_set) {
                    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                                  "\"llm_observe\" in upstream \"%V\" in "
                                  "%s:%ui: expected none, \"llm_use\" is for "
                                  "providers, which have circuits",
                                  &uscfp[i]->host, uscfp[i]->file_name,
                                  uscfp[i]->line);
                    return NGX_CONF_ERROR;
                }

                continue;
            }

            if (route->observe_set) {
                circuit = route->observe;
            }
        }

        if (circuit == NULL) {
            continue;
        }

        rv = ngx_http_llm_observe_upstream(cf, mcf, uscfp[i], circuit);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_observe_upstream(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf,
    ngx_http_upstream_srv_conf_t *uscf, llm_circuit_conf_t *circuit)
{
    ngx_int_t                 rc;
    ngx_http_llm_observed_t  *observed;

    if (mcf->shm_zone == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"llm_observe\" needs an \"llm_zone\" at http level: "
                      "expected, for example, \"llm_zone llm:1m;\"");
        return NGX_CONF_ERROR;
    }

    observed = ngx_array_push(&mcf->observed);

    if (observed == NULL
        || ngx_array_init(&observed->peers, cf->pool, 4,
                          sizeof(ngx_http_llm_observed_peer_t))
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    observed->uscf = uscf;
    observed->circuit = circuit;
    observed->init = uscf->peer.init;

    uscf->peer.init = ngx_http_llm_observe_peer;

    if (ngx_http_llm_observe_name(cf, observed) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    rc = uscf->servers ? ngx_http_llm_observe_servers(cf, observed)
                       : ngx_http_llm_observe_implicit(cf, observed);

    return rc == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
}


/* the upstream's, or HOST:PORT where a *_pass names a server itself */

static ngx_int_t
ngx_http_llm_observe_name(ngx_conf_t *cf, ngx_http_llm_observed_t *observed)
{
    u_char                        *p;
    ngx_http_upstream_srv_conf_t  *uscf;

    uscf = observed->uscf;

    if (uscf->port == 0) {
        observed->name = uscf->host;
        return NGX_OK;
    }

    p = ngx_pnalloc(cf->pool, uscf->host.len + sizeof(":65535") - 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    observed->name.data = p;
    observed->name.len = ngx_sprintf(p, "%V:%d", &uscf->host,
                                     (int) uscf->port)
                         - p;
    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_observe_servers(ngx_conf_t *cf, ngx_http_llm_observed_t *observed)
{
    ngx_uint_t                   i, n;
    ngx_http_upstream_server_t  *server;

    server = observed->uscf->servers->elts;

    for (i = 0; i < observed->uscf->servers->nelts; i++) {
        for (n = 0; n < server[i].naddrs; n++) {
            if (ngx_http_llm_observe_add(cf, observed,
                                         &server[i].addrs[n].name)
                != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


/* nginx itself has looked up the addresses, for its round robin */

static ngx_int_t
ngx_http_llm_observe_implicit(ngx_conf_t *cf,
    ngx_http_llm_observed_t *observed)
{
    ngx_http_upstream_rr_peer_t   *peer;
    ngx_http_upstream_rr_peers_t  *peers;

    peers = observed->uscf->peer.data;

    for (peer = peers->peer; peer; peer = peer->next) {
        if (ngx_http_llm_observe_add(cf, observed, &peer->name) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* Servers that have the same address are one. */

static ngx_int_t
ngx_http_llm_observe_add(ngx_conf_t *cf, ngx_http_llm_observed_t *observed,
    ngx_str_t *name)
{
    ngx_http_llm_observed_peer_t  *peer;

    if (ngx_http_llm_observe_find(observed, name)) {
        return NGX_OK;
    }

    peer = ngx_array_push(&observed->peers);
    if (peer == NULL) {
        return NGX_ERROR;
    }

    peer->name = *name;
    peer->record = NULL;

    /* no name of an upstream has a space */

    peer->key.len = observed->name.len + 1 + name->len;

    peer->key.data = ngx_pnalloc(cf->pool, peer->key.len);
    if (peer->key.data == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(peer->key.data, "%V %V", &observed->name, name);

    return NGX_OK;
}


ngx_http_llm_observed_peer_t *
ngx_http_llm_observe_find(ngx_http_llm_observed_t *observed, ngx_str_t *name)
{
    ngx_uint_t                     i;
    ngx_http_llm_observed_peer_t  *peer;

    peer = observed->peers.elts;

    for (i = 0; i < observed->peers.nelts; i++) {
        if (peer[i].name.len == name->len
            && ngx_memcmp(peer[i].name.data, name->data, name->len) == 0)
        {
            return &peer[i];
        }
    }

    return NULL;
}


ngx_int_t
ngx_http_llm_observe_records(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool)
{
    ngx_uint_t                     i, n;
    ngx_http_llm_observed_t       *observed;
    ngx_http_llm_observed_peer_t  *peer;

    observed = mcf->observed.elts;

    for (i = 0; i < mcf->observed.nelts; i++) {

        peer = observed[i].peers.elts;

        for (n = 0; n < observed[i].peers.nelts; n++) {

            peer[n].record = ngx_http_llm_record_get(mcf, shpool,
                                                     NGX_HTTP_LLM_OBSERVED,
                                                     &peer[n].key);
            if (peer[n].record == NULL) {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


ngx_uint_t
ngx_http_llm_observe_knows(ngx_http_llm_main_conf_t *mcf, ngx_str_t *key)
{
    ngx_uint_t                     i, n;
    ngx_http_llm_observed_t       *observed;
    ngx_http_llm_observed_peer_t  *peer;

    observed = mcf->observed.elts;

    for (i = 0; i < mcf->observed.nelts; i++) {

        peer = observed[i].peers.elts;

        for (n = 0; n < observed[i].peers.nelts; n++) {
            if (peer[n].key.len == key->len
                && ngx_memcmp(peer[n].key.data, key->data, key->len) == 0)
            {
                return 1;
            }
        }
    }

    return 0;
}


ngx_uint_t
ngx_http_llm_observe_count(ngx_http_llm_main_conf_t *mcf)
{
    ngx_uint_t                i, n;
    ngx_http_llm_observed_t  *observed;

    n = 0;
    observed = mcf->observed.elts;

    for (i = 0; i < mcf->observed.nelts; i++) {
        n += observed[i].peers.nelts;
    }

    return n;
}
