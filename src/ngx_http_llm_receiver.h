
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_RECEIVER_H_INCLUDED_
#define _NGX_HTTP_LLM_RECEIVER_H_INCLUDED_


#include "ngx_http_llm_alert.h"
#include "ngx_http_llm_curl.h"


/* what is told */

#define NGX_HTTP_LLM_ALERT_OPEN        0x01
#define NGX_HTTP_LLM_ALERT_CLOSE       0x02
#define NGX_HTTP_LLM_ALERT_ALL_OPEN    0x04
#define NGX_HTTP_LLM_ALERT_CREDENTIAL  0x08
#define NGX_HTTP_LLM_ALERT_ALL         0x0f


/* events that wait for the slowest receiver */

#define NGX_HTTP_LLM_ALERT_QUEUE   256


/* events in one message, at most */

#define NGX_HTTP_LLM_ALERT_EVENTS  20


/* s; what happened longer ago is no news, in a worker that begins */

#define NGX_HTTP_LLM_ALERT_OLD     600


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


/* what the receivers are told, in the worker that tells */

typedef struct {
    uint64_t                    head;
    uint64_t                    tail;
    ngx_http_llm_event_t        events[NGX_HTTP_LLM_ALERT_QUEUE];
} ngx_http_llm_alert_queue_t;


#define ngx_http_llm_alert_event(queue, i)                                    \
    (&(queue)->events[(i) % NGX_HTTP_LLM_ALERT_QUEUE])


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


struct ngx_http_llm_receiver_s {
    ngx_http_llm_main_conf_t     *mcf;
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

    ngx_http_llm_alert_queue_t   *queue;
    uint64_t                      at;             /* the next event */
    uint64_t                      end;            /* of what is being told */
    uint64_t                      fresh;          /* the queue's end then */
    ngx_uint_t                    tries;
    ngx_msec_t                    due;            /* not before */
    ngx_sockaddr_t                sockaddr;
    ngx_http_llm_curl_t          *transfer;
    unsigned                      waits:1;        /* for due */
};


/* tell: a receiver gets its events */

void ngx_http_llm_tell(ngx_http_llm_receiver_t *receiver);
ngx_uint_t ngx_http_llm_tell_drop(ngx_http_llm_receiver_t *receiver);
void ngx_http_llm_tell_taken(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_alert_queue_t *queue);
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


#endif /* _NGX_HTTP_LLM_RECEIVER_H_INCLUDED_ */
