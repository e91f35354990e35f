
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_receiver.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_target.h"


/*
 * A receiver gets its events: one post at a time, no sooner after the one
 * before than its interval says.  A post that fails is tried again, later and
 * later, until what it tells is old.
 */


#define NGX_HTTP_LLM_TELL_CONNECT  5000           /* ms */
#define NGX_HTTP_LLM_TELL_TIMEOUT  10000
#define NGX_HTTP_LLM_TELL_ANSWER   65536
#define NGX_HTTP_LLM_TELL_PAUSE    1000           /* the first one */
#define NGX_HTTP_LLM_TELL_LONGEST  60000


static ngx_uint_t ngx_http_llm_tell_collect(ngx_http_llm_receiver_t *receiver,
    ngx_http_llm_event_t **events, ngx_uint_t max);
static ngx_int_t ngx_http_llm_tell_post(ngx_http_llm_receiver_t *receiver,
    json_t *message);
static ngx_int_t ngx_http_llm_tell_headers(ngx_http_llm_receiver_t *receiver,
    ngx_array_t *headers, ngx_pool_t *pool);
static void ngx_http_llm_tell_done(void *data,
    ngx_http_llm_curl_result_t *result);
static void ngx_http_llm_tell_good(ngx_http_llm_receiver_t *receiver);
static void ngx_http_llm_tell_failed(ngx_http_llm_receiver_t *receiver,
    ngx_uint_t status, uint32_t hint, const char *error);
static void ngx_http_llm_tell_give_up(ngx_http_llm_receiver_t *receiver,
    const char *why);
static ngx_uint_t ngx_http_llm_tell_old(ngx_http_llm_receiver_t *receiver);
static void ngx_http_llm_tell_wait(ngx_http_llm_receiver_t *receiver,
    ngx_msec_t ms);


/* Called again and again: sends what there is, once it may. */

void
ngx_http_llm_tell(ngx_http_llm_receiver_t *receiver)
{
    json_t                *message;
    ngx_int_t              rc;
    ngx_uint_t             n;
    ngx_http_llm_event_t  *events[NGX_HTTP_LLM_ALERT_EVENTS];

    if (receiver->transfer || ngx_http_llm_curl_room() == 0
        || (receiver->waits
            && (ngx_msec_int_t) (receiver->due - ngx_current_msec) > 0))
    {
        return;
    }

    receiver->waits = 0;

    n = ngx_http_llm_tell_collect(receiver, events, receiver->format->events);

    if (n == 0) {
        receiver->at = receiver->end;
        receiver->tries = 0;
        return;
    }

    message = receiver->format->message(receiver->mcf, receiver, events, n);

    rc = message ? ngx_http_llm_tell_post(receiver, message) : NGX_ERROR;

    json_decref(message);

    if (rc != NGX_OK) {
        ngx_http_llm_tell_failed(receiver, 0, 0,
                                 rc == NGX_DECLINED ? "host not found"
                                                    : "can not be sent");
    }
}


/* The next events that it wants; its end is behind the last of them. */

static ngx_uint_t
ngx_http_llm_tell_collect(ngx_http_llm_receiver_t *receiver,
    ngx_http_llm_event_t **events, ngx_uint_t max)
{
    uint64_t               i;
    ngx_uint_t             n;
    ngx_http_llm_event_t  *event;

    n = 0;

    for (i = receiver->at; i < receiver->queue->tail && n < max; i++) {

        event = ngx_http_llm_alert_event(receiver->queue, i);

        if (event->what & receiver->on) {
            events[n++] = event;
        }
    }

    receiver->end = i;
    receiver->fresh = receiver->queue->tail;

    return n;
}


static ngx_int_t
ngx_http_llm_tell_post(ngx_http_llm_receiver_t *receiver, json_t *message)
{
    char                      *body;
    ngx_pool_t                *pool;
    ngx_array_t                headers;
    ngx_http_llm_address_t    *address;
    ngx_http_llm_curl_call_t   call;

    address = ngx_http_llm_target_address(receiver->target);
    if (address == NULL) {
        return NGX_DECLINED;
    }

    body = json_dumps(message, JSON_COMPACT);
    if (body == NULL) {
        return NGX_ERROR;
    }

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        free(body);
        return NGX_ERROR;
    }

    ngx_memzero(&call, sizeof(ngx_http_llm_curl_call_t));

    ngx_str_set(&call.method, "POST");

    call.owner = receiver->target->owner;
    call.url = receiver->url;
    call.sockaddr = &address->sockaddr.sockaddr;
    call.socklen = address->socklen;
    call.headers = &headers;
    call.body.data = (u_char *) body;
    call.body.len = ngx_strlen(body);
#if (NGX_HTTP_SSL)
    call.trust = receiver->trust;
#endif
    call.connect_timeout = NGX_HTTP_LLM_TELL_CONNECT;
    call.timeout = NGX_HTTP_LLM_TELL_TIMEOUT;
    call.max_answer = NGX_HTTP_LLM_TELL_ANSWER;
    call.done = ngx_http_llm_tell_done;
    call.data = receiver;

    ngx_memcpy(&receiver->sockaddr, &address->sockaddr, address->socklen);

    if (ngx_http_llm_tell_headers(receiver, &headers, pool) == NGX_OK) {
        receiver->transfer = ngx_http_llm_curl_start(&call);
    }

    ngx_destroy_pool(pool);
    free(body);

    return receiver->transfer ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_llm_tell_headers(ngx_http_llm_receiver_t *receiver,
    ngx_array_t *headers, ngx_pool_t *pool)
{
    ngx_keyval_t  *h;

    if (ngx_array_init(headers, pool, 3, sizeof(ngx_keyval_t)) != NGX_OK) {
        return NGX_ERROR;
    }

    h = ngx_array_push_n(headers, 2);
    if (h == NULL) {
        return NGX_ERROR;
    }

    ngx_str_set(&h[0].key, "Content-Type");
    ngx_str_set(&h[0].value, "application/json");
    ngx_str_set(&h[1].key, "User-Agent");
    ngx_str_set(&h[1].value, "nginx-llm/" NGX_HTTP_LLM_VERSION);

    if (receiver->key.len == 0 || receiver->format->keeps_key) {
        return NGX_OK;
    }

    h = ngx_array_push(headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->value.data = ngx_pnalloc(pool, sizeof("Bearer ") - 1
                                      + receiver->key.len);
    if (h->value.data == NULL) {
        return NGX_ERROR;
    }

    ngx_str_set(&h->key, "Authorization");

    h->value.len = ngx_sprintf(h->value.data, "Bearer %V", &receiver->key)
                   - h->value.data;

    return NGX_OK;
}


static void
ngx_http_llm_tell_done(void *data, ngx_http_llm_curl_result_t *result)
{
    ngx_http_llm_receiver_t *receiver = data;

    receiver->transfer = NULL;

    /* who says so has it, whatever follows */

    if (result->status >= 200 && result->status < 300) {
        ngx_http_llm_target_good(receiver->target,
                                 &receiver->sockaddr.sockaddr);
        ngx_http_llm_tell_good(receiver);

    } else {

        if (result->status == 0 && result->connected == 0
            && !result->shortage)
        {
            (void) ngx_http_llm_target_failed(receiver->target,
                                              &receiver->sockaddr.sockaddr,
                                              ngx_cycle->log);
        }

        ngx_http_llm_tell_failed(receiver, result->status, result->hint,
                                 result->error ? result->error
                                     : ngx_http_llm_fault(result->fault));
    }

    /* or it would be told again if the worker ended now */

    ngx_http_llm_tell_taken(receiver->mcf, receiver->queue);
}


static void
ngx_http_llm_tell_good(ngx_http_llm_receiver_t *receiver)
{
    ngx_http_llm_event_t  *event;

    if (receiver->tries) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "llm: alert is delivered to \"%V\" again",
                      &receiver->name);
    }

    receiver->tries = 0;

    for ( /* void */ ; receiver->at < receiver->end; receiver->at++) {

        event = ngx_http_llm_alert_event(receiver->queue, receiver->at);

        if (event->what & receiver->on) {
            (void) ngx_atomic_fetch_add(&receiver->posts->delivered, 1);
        }
    }

    /* what was there already is not to wait */

    if (receiver->at >= receiver->fresh) {
        ngx_http_llm_tell_wait(receiver, receiver->interval);
    }
}


static void
ngx_http_llm_tell_failed(ngx_http_llm_receiver_t *receiver, ngx_uint_t status,
    uint32_t hint, const char *error)
{
    u_char      *p, text[sizeof("it answers 65535") + NGX_INT_T_LEN];
    ngx_msec_t   pause;
    ngx_uint_t   level;

    (void) ngx_atomic_fetch_add(&receiver->posts->failures, 1);

    if (status) {
        p = ngx_snprintf(text, sizeof(text) - 1, "it answers %ui", status);
        *p = '\0';
        error = (char *) text;
    }

    if (status >= 300 && status < 500
        && status != NGX_HTTP_REQUEST_TIME_OUT
        && status != NGX_HTTP_TOO_MANY_REQUESTS)
    {
        ngx_http_llm_tell_give_up(receiver, error);
        ngx_http_llm_tell_wait(receiver, receiver->interval);
        return;
    }

    pause = NGX_HTTP_LLM_TELL_LONGEST;

    if (receiver->tries < 6) {
        pause = ngx_min(pause, (ngx_msec_t) NGX_HTTP_LLM_TELL_PAUSE
                               << receiver->tries);
    }

    pause = ngx_max(pause, ngx_min(hint, NGX_HTTP_LLM_ALERT_OLD * 1000));

    if (ngx_http_llm_tell_old(receiver)) {
        ngx_http_llm_tell_give_up(receiver, error);

    } else {
        level = receiver->tries ? NGX_LOG_INFO : NGX_LOG_WARN;

        ngx_log_error(level, ngx_cycle->log, 0,
                      "llm: alert to \"%V\" failed: %s; "
                      "it is tried again in %Ms",
                      &receiver->name, error, (pause + 999) / 1000);

        receiver->tries++;
    }

    ngx_http_llm_tell_wait(receiver, pause + ngx_random() % 500);
}


/* Whether what is being told is no news any more. */

static ngx_uint_t
ngx_http_llm_tell_old(ngx_http_llm_receiver_t *receiver)
{
    uint64_t  old;

    if (receiver->at == receiver->queue->tail) {
        return 0;
    }

    old = ngx_http_llm_wall_clock() - NGX_HTTP_LLM_ALERT_OLD * 1000;

    return ngx_http_llm_alert_event(receiver->queue, receiver->at)->time < old;
}


static void
ngx_http_llm_tell_give_up(ngx_http_llm_receiver_t *receiver, const char *why)
{
    ngx_uint_t  n;

    n = 0;

    while (receiver->at < receiver->end) {
        n += ngx_http_llm_tell_drop(receiver);
    }

    receiver->tries = 0;

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "llm: alert to \"%V\" failed: %s; %ui event%s not told",
                  &receiver->name, why, n, n == 1 ? " is" : "s are");
}


/* Passes over an event that it will never get. */

ngx_uint_t
ngx_http_llm_tell_drop(ngx_http_llm_receiver_t *receiver)
{
    ngx_http_llm_event_t  *event;

    event = ngx_http_llm_alert_event(receiver->queue, receiver->at);

    receiver->at++;

    if (!(event->what & receiver->on)) {
        return 0;
    }

    (void) ngx_atomic_fetch_add(&receiver->posts->dropped, 1);

    return 1;
}


/* Takes off what all receivers have, and says so in the records. */

void
ngx_http_llm_tell_taken(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_alert_queue_t *queue)
{
    ngx_uint_t                 i;
    ngx_http_llm_event_t      *event;
    ngx_http_llm_record_t     *record;
    ngx_http_llm_receiver_t  **receiver;

    receiver = mcf->receivers.elts;

    for ( /* void */ ; queue->head < queue->tail; queue->head++) {

        for (i = 0; i < mcf->receivers.nelts; i++) {
            if (receiver[i]->at == queue->head) {
                return;
            }
        }

        event = ngx_http_llm_alert_event(queue, queue->head);

        record = event->provider ? event->provider->record
                                 : event->route->record;

        record->told = event->told;
    }
}


static void
ngx_http_llm_tell_wait(ngx_http_llm_receiver_t *receiver, ngx_msec_t ms)
{
    receiver->waits = 1;
    receiver->due = ngx_current_msec + ms;
}


/* The worker tells no more; what is under way is told again by the next. */

void
ngx_http_llm_tell_stop(ngx_http_llm_receiver_t *receiver)
{
    if (receiver->transfer) {
        ngx_http_llm_curl_cancel(receiver->transfer);
        receiver->transfer = NULL;
    }

    receiver->tries = 0;
    receiver->waits = 0;
}
