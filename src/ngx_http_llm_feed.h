
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_FEED_H_INCLUDED_
#define _NGX_HTTP_LLM_FEED_H_INCLUDED_


#include "ngx_http_llm_receiver.h"


/* events that wait for the slowest receiver */

#define NGX_HTTP_LLM_ALERT_QUEUE  256


/* s; what happened longer ago is no news, in a worker that begins */

#define NGX_HTTP_LLM_ALERT_OLD    600


/* in the worker that tells */

struct ngx_http_llm_feed_s {
    ngx_http_llm_main_conf_t     *mcf;
    ngx_event_t                   timer;
    ngx_connection_t              dummy;          /* for the timer's log */
    uint64_t                      head;           /* of the queue */
    uint64_t                      tail;
    uint64_t                     *queued;         /* by provider: changes */
    uint64_t                     *seen;           /* before the last turn */
    unsigned char                *refused;        /* its key, as queued */
    unsigned char                *refused_seen;   /* by probes, last turn */
    unsigned char                *down;           /* by route, as queued */
    unsigned char                *down_seen;      /* at the last turn */
    unsigned                      mine:1;
    ngx_http_llm_event_t          events[NGX_HTTP_LLM_ALERT_QUEUE];
};


#define ngx_http_llm_feed_event(feed, i)                                      \
    (&(feed)->events[(i) % NGX_HTTP_LLM_ALERT_QUEUE])


void ngx_http_llm_feed_told(ngx_http_llm_feed_t *feed);


#endif /* _NGX_HTTP_LLM_FEED_H_INCLUDED_ */
