
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_alert.h"
#include "ngx_http_llm_answer.h"
#include "ngx_http_llm_connect.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_observe.h"
#include "ngx_http_llm_pages.h"
#include "ngx_http_llm_probe.h"
#include "ngx_http_llm_recent.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_resolve.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_state.h"
#include "ngx_http_llm_variables.h"


static void *ngx_http_llm_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_llm_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_llm_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_llm_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_llm_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_llm_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_llm_init_process(ngx_cycle_t *cycle);
static void ngx_http_llm_exit_process(ngx_cycle_t *cycle);
static void ngx_http_llm_exit_master(ngx_cycle_t *cycle);


static ngx_command_t  ngx_http_llm_commands[] = {

    { ngx_string("llm_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE12,
      ngx_http_llm_zone,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_provider"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_llm_provider,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("endpoint"),
      NGX_HTTP_LLM_PROVIDER_CONF|NGX_CONF_TAKE1,
      ngx_http_llm_endpoint,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("api_key"),
      NGX_HTTP_LLM_PROVIDER_CONF|NGX_CONF_TAKE123,
      ngx_http_llm_api_key,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("header"),
      NGX_HTTP_LLM_PROVIDER_CONF|NGX_CONF_TAKE2,
      ngx_http_llm_header,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("model"),
      NGX_HTTP_LLM_PROVIDER_CONF|NGX_CONF_TAKE12,
      ngx_http_llm_model,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("circuit"),
      NGX_HTTP_LLM_PROVIDER_CONF|NGX_CONF_1MORE,
      ngx_http_llm_circuit,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("timeout"),
      NGX_HTTP_LLM_PROVIDER_CONF|NGX_CONF_1MORE,
      ngx_http_llm_timeout,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("classify"),
      NGX_HTTP_LLM_PROVIDER_CONF|NGX_CONF_2MORE,
      ngx_http_llm_classify,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_complexity_rules"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_llm_complexity_rules,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_complexity_terms"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_llm_complexity_terms,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("price"),
      NGX_HTTP_LLM_PROVIDER_CONF|NGX_CONF_1MORE,
      ngx_http_llm_price,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("limit"),
      NGX_HTTP_LLM_PROVIDER_CONF|NGX_CONF_1MORE,
      ngx_http_llm_limit,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_alert"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_llm_alert,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("probe"),
      NGX_HTTP_LLM_PROVIDER_CONF|NGX_CONF_ANY,
      ngx_http_llm_probe,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_use"),
      NGX_HTTP_UPS_CONF|NGX_CONF_TAKE123,
      ngx_http_llm_use,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_strategy"),
      NGX_HTTP_UPS_CONF|NGX_CONF_TAKE1,
      ngx_http_llm_strategy,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_budget"),
      NGX_HTTP_UPS_CONF|NGX_CONF_TAKE1,
      ngx_http_llm_budget,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_commit"),
      NGX_HTTP_UPS_CONF|NGX_CONF_TAKE1,
      ngx_http_llm_commit_when,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_retry"),
      NGX_HTTP_UPS_CONF|NGX_CONF_1MORE,
      ngx_http_llm_retry,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_usage"),
      NGX_HTTP_UPS_CONF|NGX_CONF_TAKE1,
      ngx_http_llm_usage_mode,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_deadline"),
      NGX_HTTP_UPS_CONF|NGX_CONF_TAKE1,
      ngx_http_llm_deadline,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_wait"),
      NGX_HTTP_UPS_CONF|NGX_CONF_TAKE12,
      ngx_http_llm_wait_time,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_observe"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_UPS_CONF|NGX_CONF_1MORE,
      ngx_http_llm_observe,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_pass"),
      NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_CONF_TAKE12,
      ngx_http_llm_pass,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_gate"),
      NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_CONF_TAKE12,
      ngx_http_llm_pass,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_models"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_llm_models,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE12,
      ngx_http_llm_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_log"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1234,
      ngx_http_llm_log,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_api"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE12,
      ngx_http_llm_api,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_llm_module_ctx = {
    ngx_http_llm_add_variables,            /* preconfiguration */
    ngx_http_llm_init,                     /* postconfiguration */

    ngx_http_llm_create_main_conf,         /* create main configuration */
    ngx_http_llm_init_main_conf,           /* init main configuration */

    ngx_http_llm_create_route,             /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_llm_create_loc_conf,          /* create location configuration */
    ngx_http_llm_merge_loc_conf            /* merge location configuration */
};


ngx_module_t  ngx_http_llm_module = {
    NGX_MODULE_V1,
    &ngx_http_llm_module_ctx,              /* module context */
    ngx_http_llm_commands,                 /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_llm_init_module,              /* init module */
    ngx_http_llm_init_process,             /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_llm_exit_process,             /* exit process */
    ngx_http_llm_exit_master,              /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_http_llm_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_main_conf_t));
    if (mcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&mcf->providers, cf->pool, 4,
                       sizeof(ngx_http_llm_provider_t *))
        != NGX_OK
        || ngx_array_init(&mcf->routes, cf->pool, 4,
                          sizeof(ngx_http_llm_route_t *))
           != NGX_OK
        || ngx_array_init(&mcf->observed, cf->pool, 4,
                          sizeof(ngx_http_llm_observed_t))
           != NGX_OK
        || ngx_array_init(&mcf->governed, cf->pool, 16,
                          sizeof(ngx_http_llm_governed_t))
           != NGX_OK
        || ngx_array_init(&mcf->passes, cf->pool, 4,
                          sizeof(ngx_http_llm_pass_t))
           != NGX_OK
        || ngx_array_init(&mcf->receivers, cf->pool, 2,
                          sizeof(ngx_http_llm_receiver_t *))
           != NGX_OK
        || ngx_array_init(&mcf->targets, cf->pool, 4,
                          sizeof(ngx_http_llm_target_t *))
           != NGX_OK)
    {
        return NULL;
    }

    mcf->complexity = ngx_http_llm_create_complexity(cf);
    if (mcf->complexity == NULL) {
        return NULL;
    }

    return mcf;
}


/* Runs behind the upstream module's, which makes the upstreams. */

static char *
ngx_http_llm_init_main_conf(ngx_conf_t *cf, void *conf)
{
    return ngx_http_llm_observe_init(cf, conf);
}


static void *
ngx_http_llm_create_loc_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_loc_conf_t));
}


static char *
ngx_http_llm_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_llm_loc_conf_t *prev = parent;
    ngx_http_llm_loc_conf_t *conf = child;

    ngx_uint_t                 other;
    ngx_http_core_loc_conf_t  *clcf;

    other = 0;

    ngx_http_llm_merge_log(&prev->log, &conf->log);

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    conf->location = clcf->noname ? prev->location : clcf;

    /* "if" and "limit_except" stay inside of their location's gate */

    if (clcf->noname && !conf->gate && !conf->status && !conf->models) {
        *conf = *prev;

        /* in "limit_except" it is the proxy module that sets the handler */

        other = clcf->handler && !clcf->lmt_excpt;

        if (conf->api && clcf->lmt_excpt) {
            clcf->handler = ngx_http_llm_api_handler;
        }
    }

    if (!conf->gate) {
        return NGX_CONF_OK;
    }

    return ngx_http_llm_check_gate(cf, conf, other);
}


static ngx_int_t
ngx_http_llm_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;
    ngx_http_llm_main_conf_t   *mcf;

    /*
     * Not the access phase: its last handler is not asked when "satisfy any"
     * was satisfied before, and is asked when access is about to be denied.
     */

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PRECONTENT_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_llm_gate_handler;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    mcf->keep_body = ngx_http_llm_variables_read_body(cf);

    if (ngx_http_llm_complexity_init(cf, mcf->complexity) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_probes_init(cf, mcf) != NGX_CONF_OK
        || ngx_http_llm_state_init(cf, mcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_filter_init(cf);
}


/* A configuration is in force from here; the first one of this nginx reads. */

static ngx_int_t
ngx_http_llm_init_module(ngx_cycle_t *cycle)
{
    ngx_http_llm_main_conf_t  *mcf;

    if (ngx_test_config || !ngx_is_init_cycle(cycle->old_cycle)) {
        return NGX_OK;
    }

    mcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (mcf && mcf->shm_zone) {
        ngx_http_llm_state_load(cycle, mcf);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_init_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_main_conf_t  *mcf;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    mcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (mcf == NULL || mcf->shm_zone == NULL) {
        return NGX_OK;
    }

    ngx_http_llm_wait_init(cycle);
    ngx_http_llm_resolve_start(cycle, mcf);
    ngx_http_llm_state_start(cycle, mcf);
    ngx_http_llm_prober_start(cycle, mcf);

    if ((mcf->calls && ngx_http_llm_curl_init(cycle) != NGX_OK)
        || ngx_http_llm_feed_start(cycle, mcf) != NGX_OK)
    {
        return NGX_ERROR;
    }
    ngx_http_llm_recent_start(cycle, mcf);

    if (ngx_http_llm_slot_join(cycle, mcf) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_llm_switch_off(cycle, mcf);

    return NGX_OK;
}


static void
ngx_http_llm_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (mcf == NULL || mcf->shm_zone == NULL) {
        return;
    }

    ngx_http_llm_feed_stop(mcf);
    ngx_http_llm_prober_exit(mcf);
    ngx_http_llm_curl_exit();

    ngx_http_llm_slot_leave(mcf);

#if (NGX_HTTP_SSL)
    ngx_http_llm_free_sessions(mcf);
#endif
}


static void
ngx_http_llm_exit_master(ngx_cycle_t *cycle)
{
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (mcf && mcf->shm_zone) {
        ngx_http_llm_state_end(cycle, mcf);
    }
}
