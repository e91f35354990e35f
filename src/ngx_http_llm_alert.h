
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_ALERT_H_INCLUDED_
#define _NGX_HTTP_LLM_ALERT_H_INCLUDED_


#include "ngx_http_llm_curl.h"
#include "ngx_http_llm_tree.h"
#include "ngx_http_llm_zone.h"


/*
 * llm_alert: receivers are told when circuits open and close.
 *
 * What is to be told stands in the histories of the circuits, so it costs a
 * request nothing, and nothing is lost with a worker.  One worker reads them
 * and queues events; each receiver has a place in this queue and is told at
 * its own pace.  How far a record was told to all
 * of them stands in the record.
 */


/* what is told */

#define NGX_HTTP_LLM_ALERT_OPEN        0x01
#define NGX_HTTP_LLM_ALERT_CLOSE       0x02
#define NGX_HTTP_LLM_ALERT_ALL_OPEN    0x04
#define NGX_HTTP_LLM_ALERT_CREDENTIAL  0x08
#define NGX_HTTP_LLM_ALERT_ALL         0x0f


/* events that wait for the slowest receiver */

#define NGX_HTTP_LLM_ALERT_QUEUE       256


/* events in one message, at most */

#define NGX_HTTP_LLM_ALERT_EVENTS      20


/* s; what happened longer ago is no news, in a worker that begins */

#define NGX_HTTP_LLM_ALERT_OLD         600


typedef struct {
    ngx_uint_t                  what;
    uint64_t                    time;             /* wall clock, ms */
    ngx_http_llm_provider_t    *provider;         /* or: */
    ngx_http_llm_route_t       *route;
    llm_reason_t                reason;
    ngx_uint_t                  status;
    uint64_t                    lasted;           /* ms; of what is over */
    uint64_t                    told;             /* then, in its record */
    unsigned                    over:1;
    unsigned                    probe:1;          /* found it */
} ngx_http_llm_event_t;


/* what is said of a receiver, in shared memory */

typedef struct ngx_http_llm_posts_s  ngx_http_llm_posts_t;

struct ngx_http_llm_posts_s {
    ngx_atomic_t                delivered;        /* events */
    ngx_atomic_t                dropped;
    ngx_atomic_t                failures;         /* posts */
    ngx_http_llm_known_t        known;            /* its addresses */
    ngx_http_llm_posts_t       *next;
    ngx_str_t                   name;
};


typedef struct ngx_http_llm_receiver_s  ngx_http_llm_receiver_t;

typedef json_t *(*ngx_http_llm_alert_message_pt)(
    ngx_http_llm_main_conf_t *mcf, ngx_http_llm_receiver_t *receiver,
    ngx_http_llm_event_t **events, ngx_uint_t n);


/* the form of a message, and how many events one can hold */

typedef struct {
    ngx_str_t                      name;
    ngx_http_llm_alert_message_pt  message;
    ngx_uint_t                     events;
    ngx_uint_t                     keeps_key;     /* it is in the message */
} ngx_http_llm_alert_format_t;


typedef struct ngx_http_llm_feed_s  ngx_http_llm_feed_t;

struct ngx_http_llm_receiver_s {
    ngx_http_llm_main_conf_t     *mcf;
    ngx_http_llm_feed_t          *feed;
    ngx_http_llm_target_t        *target;
    ngx_str_t                     name;           /* the host, no secret */
    ngx_str_t                     url;            /* may be one */
    ngx_str_t                     key;
    ngx_uint_t                    on;
    ngx_msec_t                    interval;
    ngx_http_llm_alert_format_t  *format;
    ngx_http_llm_posts_t         *posts;
#if (NGX_HTTP_SSL)
    SSL_CTX                      *trust;
#endif
    ngx_str_t                     certificate;

    /* in the worker that tells */

    uint64_t                      at;             /* the next event */
    uint64_t                      end;            /* of what is being told */
    uint64_t                      fresh;          /* the queue's end then */
    ngx_uint_t                    tries;
    ngx_msec_t                    due;            /* not before */
    ngx_sockaddr_t                sockaddr;
    ngx_http_llm_curl_t          *transfer;
    unsigned                      waits:1;        /* for due */
};


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
    unsigned char                *refused_seen;   /* at the last turn */
    unsigned char                *down;           /* by route, as queued */
    unsigned char                *down_seen;      /* at the last turn */
    unsigned                      mine:1;
    ngx_http_llm_event_t          events[NGX_HTTP_LLM_ALERT_QUEUE];
};


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
#define ngx_http_llm_feed_event(feed, i)                                      \
    (&(feed)->events[(i) % NGX_HTTP_LLM_ALERT_QUEUE])

/* tell: a receiver gets its events */

void ngx_http_llm_tell(ngx_http_llm_receiver_t *receiver);
ngx_uint_t ngx_http_llm_tell_drop(ngx_http_llm_receiver_t *receiver);
void ngx_http_llm_tell_stop(ngx_http_llm_receiver_t *receiver);

/* message: events as somebody reads them */

json_t *ngx_http_llm_message_json(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_receiver_t *receiver, ngx_http_llm_event_t **events,
    ngx_uint_t n);
json_t *ngx_http_llm_message_slack(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_receiver_t *receiver, ngx_http_llm_event_t **events,
    ngx_uint_t n);
json_t *ngx_http_llm_message_pagerduty(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_receiver_t *receiver, ngx_http_llm_event_t **events,
    ngx_uint_t n);


#endif /* _NGX_HTTP_LLM_ALERT_H_INCLUDED_ */
