
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_ALERT_H_INCLUDED_
#define _NGX_HTTP_LLM_ALERT_H_INCLUDED_


#include "ngx_http_llm_tree.h"
#include "ngx_http_llm_zone.h"


/*
 * llm_alert: receivers are told when circuits open and close.
 *
 * What is to be told stands in the histories of the circuits, so it costs a
 * request nothing, and nothing is lost with a worker.  One worker reads them
 * and queues events; each receiver has a place in this queue and is told at
 * its own pace.  How far a record was told to all of them stands in the
 * record.
 */


typedef struct ngx_http_llm_receiver_s  ngx_http_llm_receiver_t;


/* alert: the directive, and what stands in the zone */

char *ngx_http_llm_alert(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
json_t *ngx_http_llm_alert_describe(ngx_http_llm_main_conf_t *mcf,
    void *entry, ngx_uint_t changes);
ngx_int_t ngx_http_llm_alert_zone(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_shctx_t *from);


/* feed: from histories to events */

ngx_int_t ngx_http_llm_feed_start(ngx_cycle_t *cycle,
    ngx_http_llm_main_conf_t *mcf);
void ngx_http_llm_feed_stop(ngx_http_llm_main_conf_t *mcf);


#endif /* _NGX_HTTP_LLM_ALERT_H_INCLUDED_ */
