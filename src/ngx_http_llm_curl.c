
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_transfer.h"


/*
 * libcurl asks for two things: to be told when something happens on a socket,
 * and when a time is over.
 *
 * libcurl closes some sockets without a word, those that are still connecting
 * among them, and tells afterwards that it has lost interest, when the number
 * may be another's.  So nginx watches a descriptor of its own for the same
 * socket, which lives until libcurl says that it closes its one, at the
 * latest until the end of the call.
 *
 * A name is never looked up, so libcurl starts no thread.  libcurl is entered
 * from event handlers only, and what OpenSSL has left in its queue of errors
 * is cleared behind each entry: nginx would blame the next connection for it.
 */


#define NGX_HTTP_LLM_CURL_IDLE  4                 /* kept by libcurl: none is */


typedef struct {
    curl_socket_t                 fd;             /* libcurl's */
    ngx_connection_t             *connection;     /* ours; NULL: unused */
    ngx_http_llm_curl_t          *call;
} ngx_http_llm_curl_socket_t;


typedef struct {
    CURLM                        *multi;          /* NULL: not in this worker */
    ngx_event_t                   timer;
    ngx_connection_t              dumb;           /* for the timer's log */
    ngx_queue_t                   calls;
    ngx_uint_t                    ncalls;
    ngx_http_llm_curl_socket_t    sockets[NGX_HTTP_LLM_CURL_CALLS];
} ngx_http_llm_curl_engine_t;


static ngx_int_t ngx_http_llm_curl_multi(CURLM *multi);
static void ngx_http_llm_curl_free(ngx_http_llm_curl_t *t);
static ngx_http_llm_curl_socket_t *ngx_http_llm_curl_find(curl_socket_t s);
static ngx_int_t ngx_http_llm_curl_watch(ngx_http_llm_curl_t *t,
    curl_socket_t s);
static void ngx_http_llm_curl_forget(ngx_http_llm_curl_socket_t *sock);
static int ngx_http_llm_curl_socket(CURL *easy, curl_socket_t s, int what,
    void *data, void *assigned);
static ngx_int_t ngx_http_llm_curl_want(ngx_event_t *ev, ngx_int_t event,
    ngx_uint_t wanted);
static int ngx_http_llm_curl_timer(CURLM *multi, long ms, void *data);
static void ngx_http_llm_curl_socket_handler(ngx_event_t *ev);
static void ngx_http_llm_curl_timer_handler(ngx_event_t *ev);
static void ngx_http_llm_curl_run(curl_socket_t s, int what);
static void ngx_http_llm_curl_abort(void);
static void ngx_http_llm_curl_done(ngx_http_llm_curl_t *t, CURLcode code);
static void ngx_http_llm_curl_entered(void);


static ngx_http_llm_curl_engine_t  ngx_http_llm_curl_engine;


ngx_int_t
ngx_http_llm_curl_init(ngx_cycle_t *cycle)
{
    CURLM                       *multi;
    ngx_http_llm_curl_engine_t  *engine;

    engine = &ngx_http_llm_curl_engine;

    if (engine->multi) {
        return NGX_OK;
    }

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "llm: libcurl can not be initialized");
        return NGX_ERROR;
    }

    multi = curl_multi_init();

    if (multi == NULL || ngx_http_llm_curl_multi(multi) != NGX_OK) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "llm: libcurl %s can not be used",
                      curl_version_info(CURLVERSION_NOW)->version);

        curl_multi_cleanup(multi);
        curl_global_cleanup();

        return NGX_ERROR;
    }

    ngx_memzero(engine, sizeof(ngx_http_llm_curl_engine_t));

    ngx_queue_init(&engine->calls);

    engine->multi = multi;
    engine->dumb.fd = (ngx_socket_t) -1;
    engine->timer.handler = ngx_http_llm_curl_timer_handler;
    engine->timer.log = cycle->log;
    engine->timer.data = &engine->dumb;
    engine->timer.cancelable = 1;

    ngx_http_llm_curl_entered();

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_curl_multi(CURLM *multi)
{
    if (curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION,
                          ngx_http_llm_curl_socket)
        || curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION,
                             ngx_http_llm_curl_timer)
        || curl_multi_setopt(multi, CURLMOPT_PIPELINING,
                             (long) CURLPIPE_NOTHING)
        || curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS,
                             (long) NGX_HTTP_LLM_CURL_IDLE))
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
ngx_http_llm_curl_exit(void)
{
    ngx_queue_t                 *q;
    ngx_http_llm_curl_engine_t  *engine;

    engine = &ngx_http_llm_curl_engine;

    if (engine->multi == NULL) {
        return;
    }

    while (!ngx_queue_empty(&engine->calls)) {
        q = ngx_queue_head(&engine->calls);
        ngx_http_llm_curl_cancel(ngx_queue_data(q, ngx_http_llm_curl_t,
                                                queue));
    }

    (void) curl_multi_cleanup(engine->multi);
    curl_global_cleanup();

    engine->multi = NULL;

    ngx_http_llm_curl_timer(NULL, -1, NULL);
    ngx_http_llm_curl_entered();
}


ngx_http_llm_curl_t *
ngx_http_llm_curl_start(ngx_http_llm_curl_call_t *call)
{
    CURLMcode                    rc;
    ngx_http_llm_curl_t         *t;
    ngx_http_llm_curl_engine_t  *engine;

    engine = &ngx_http_llm_curl_engine;

    if (engine->multi == NULL || ngx_http_llm_curl_room() == 0) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "llm: %V: a call is not made: %ui are under way",
                      &call->owner, engine->ncalls);
        return NULL;
    }

    t = ngx_calloc(sizeof(ngx_http_llm_curl_t), ngx_cycle->log);
    if (t == NULL) {
        return NULL;
    }

    ngx_queue_insert_tail(&engine->calls, &t->queue);
    engine->ncalls++;

    if (ngx_http_llm_transfer_setup(t, call) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "llm: %V: a call can not be made", &call->owner);
        ngx_http_llm_curl_free(t);
        return NULL;
    }

    rc = curl_multi_add_handle(engine->multi, t->easy);

    ngx_http_llm_curl_entered();

    if (rc != CURLM_OK) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "llm: %V: a call can not be made: %s",
                      &call->owner, curl_multi_strerror(rc));
        ngx_http_llm_curl_free(t);
        return NULL;
    }

    return t;
}


ngx_uint_t
ngx_http_llm_curl_room(void)
{
    return NGX_HTTP_LLM_CURL_CALLS - ngx_http_llm_curl_engine.ncalls;
}


void
ngx_http_llm_curl_cancel(ngx_http_llm_curl_t *t)
{
    (void) curl_multi_remove_handle(ngx_http_llm_curl_engine.multi, t->easy);

    ngx_http_llm_curl_free(t);
    ngx_http_llm_curl_entered();
}


static void
ngx_http_llm_curl_free(ngx_http_llm_curl_t *t)
{
    ngx_uint_t                   i;
    ngx_http_llm_curl_socket_t  *sock;

    ngx_queue_remove(&t->queue);
    ngx_http_llm_curl_engine.ncalls--;

    ngx_http_llm_transfer_free(t);

    sock = ngx_http_llm_curl_engine.sockets;

    for (i = 0; i < NGX_HTTP_LLM_CURL_CALLS; i++) {
        if (sock[i].connection && sock[i].call == t) {
            ngx_http_llm_curl_forget(&sock[i]);
        }
    }
}


static ngx_http_llm_curl_socket_t *
ngx_http_llm_curl_find(curl_socket_t s)
{
    ngx_uint_t                   i;
    ngx_http_llm_curl_socket_t  *sock;

    sock = ngx_http_llm_curl_engine.sockets;

    for (i = 0; i < NGX_HTTP_LLM_CURL_CALLS; i++) {
        if (sock[i].connection && sock[i].fd == s) {
            return &sock[i];
        }
    }

    return NULL;
}


curl_socket_t
ngx_http_llm_curl_open(void *data, curlsocktype purpose,
    struct curl_sockaddr *address)
{
    ngx_http_llm_curl_t *t = data;

    curl_socket_t                s;
    ngx_http_llm_curl_socket_t  *sock;

    s = socket(address->family, address->socktype | SOCK_CLOEXEC,
               address->protocol);

    if (s == CURL_SOCKET_BAD) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, ngx_socket_errno,
                      ngx_socket_n " failed");

        /* what the kernel can not at all, is no shortage */

        t->shortage = (ngx_socket_errno != EAFNOSUPPORT);

        return CURL_SOCKET_BAD;
    }

    sock = ngx_http_llm_curl_find(s);

    if (sock) {

        /* it was closed without a word */

        ngx_http_llm_curl_forget(sock);
    }

    if (ngx_http_llm_curl_watch(t, s) == NGX_OK) {
        return s;
    }

    t->shortage = 1;

    if (ngx_close_socket(s) == -1) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, ngx_socket_errno,
                      ngx_close_socket_n " failed");
    }

    return CURL_SOCKET_BAD;
}


static ngx_int_t
ngx_http_llm_curl_watch(ngx_http_llm_curl_t *t, curl_socket_t s)
{
    ngx_uint_t                   i;
    ngx_socket_t                 own;
    ngx_connection_t            *c;
    ngx_http_llm_curl_socket_t  *sock;

    sock = ngx_http_llm_curl_engine.sockets;

    for (i = 0; sock[i].connection; i++) {
        if (i == NGX_HTTP_LLM_CURL_CALLS - 1) {
            return NGX_ERROR;
        }
    }

    own = fcntl(s, F_DUPFD_CLOEXEC, 0);

    if (own == (ngx_socket_t) -1) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, ngx_socket_errno,
                      "fcntl(F_DUPFD_CLOEXEC) failed");
        return NGX_ERROR;
    }

    c = ngx_get_connection(own, ngx_cycle->log);

    if (c == NULL) {
        if (ngx_close_socket(own) == -1) {
            ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, ngx_socket_errno,
                          ngx_close_socket_n " failed");
        }

        return NGX_ERROR;
    }

    sock[i].fd = s;
    sock[i].connection = c;
    sock[i].call = t;

    c->data = &sock[i];
    c->log = ngx_cycle->log;
    c->log_error = NGX_ERROR_ERR;
    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);

    c->read->log = c->log;
    c->read->handler = ngx_http_llm_curl_socket_handler;
    c->write->log = c->log;
    c->write->handler = ngx_http_llm_curl_socket_handler;

    return NGX_OK;
}


static void
ngx_http_llm_curl_forget(ngx_http_llm_curl_socket_t *sock)
{
    ngx_close_connection(sock->connection);

    sock->connection = NULL;
}


int
ngx_http_llm_curl_close(void *data, curl_socket_t s)
{
    ngx_http_llm_curl_socket_t  *sock;

    sock = ngx_http_llm_curl_find(s);

    if (sock) {
        ngx_http_llm_curl_forget(sock);
    }

    return ngx_close_socket(s);
}


/*
 * What libcurl waits for on a socket.  It tells of sockets that are closed
 * already as well; anything but 0 would be the end of all calls.
 */

static int
ngx_http_llm_curl_socket(CURL *easy, curl_socket_t s, int what, void *data,
    void *assigned)
{
    ngx_connection_t            *c;
    ngx_http_llm_curl_socket_t  *sock;

    sock = ngx_http_llm_curl_find(s);

    if (sock == NULL) {
        return 0;
    }

    c = sock->connection;

    if (what == CURL_POLL_REMOVE) {
        what = 0;
    }

    if (ngx_http_llm_curl_want(c->read, NGX_READ_EVENT, what & CURL_POLL_IN)
        != NGX_OK
        || ngx_http_llm_curl_want(c->write, NGX_WRITE_EVENT,
                                  what & CURL_POLL_OUT)
           != NGX_OK)
    {
        /* the call's time will be over */

        ngx_log_error(NGX_LOG_ALERT, c->log, 0,
                      "llm: no events for a call's socket");
    }

    return 0;
}


static ngx_int_t
ngx_http_llm_curl_want(ngx_event_t *ev, ngx_int_t event, ngx_uint_t wanted)
{
    if (!wanted && ev->posted) {
        ngx_delete_posted_event(ev);
    }

    if (wanted && !ev->active) {
        return ngx_add_event(ev, event, NGX_LEVEL_EVENT);
    }

    if (!wanted && ev->active) {
        return ngx_del_event(ev, event, 0);
    }

    return NGX_OK;
}


/* libcurl must not be entered from here: at the soonest, it is the next turn */

static int
ngx_http_llm_curl_timer(CURLM *multi, long ms, void *data)
{
    ngx_event_t  *ev;

    ev = &ngx_http_llm_curl_engine.timer;

    if (ev->timer_set) {
        ngx_del_timer(ev);
    }

    if (ev->posted) {
        ngx_delete_posted_event(ev);
    }

    if (ms == 0) {
        ngx_post_event(ev, &ngx_posted_next_events);

    } else if (ms > 0) {
        ngx_add_timer(ev, (ngx_msec_t) ms);
    }

    return 0;
}


static void
ngx_http_llm_curl_socket_handler(ngx_event_t *ev)
{
    ngx_connection_t            *c;
    ngx_http_llm_curl_socket_t  *sock;

    c = ev->data;
    sock = c->data;

    ngx_http_llm_curl_run(sock->fd, ev->write ? CURL_CSELECT_OUT
                                           : CURL_CSELECT_IN);
}


static void
ngx_http_llm_curl_timer_handler(ngx_event_t *ev)
{
    ngx_http_llm_curl_run(CURL_SOCKET_TIMEOUT, 0);
}


static void
ngx_http_llm_curl_run(curl_socket_t s, int what)
{
    int                          n;
    CURLcode                     code;
    CURLMcode                    rc;
    CURLMsg                     *msg;
    ngx_http_llm_curl_t         *t;
    ngx_http_llm_curl_engine_t  *engine;

    engine = &ngx_http_llm_curl_engine;

    rc = curl_multi_socket_action(engine->multi, s, what, &n);

    if (rc != CURLM_OK) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "llm: curl_multi_socket_action() failed: %s",
                      curl_multi_strerror(rc));

        ngx_http_llm_curl_abort();
    }

    /* handlers may start and cancel calls */

    while ((msg = curl_multi_info_read(engine->multi, &n)) != NULL) {

        if (msg->msg != CURLMSG_DONE) {
            continue;
        }

        code = msg->data.result;

        (void) curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &t);

        ngx_http_llm_curl_done(t, code);
    }

    ngx_http_llm_curl_entered();
}


/*
 * Where memory ended libcurl may have lost something of a socket: whatever is
 * under way ends as a shortage, and not when its time is over.
 */

static void
ngx_http_llm_curl_abort(void)
{
    ngx_uint_t                   n;
    ngx_queue_t                 *q;
    ngx_http_llm_curl_t         *t;
    ngx_http_llm_curl_engine_t  *engine;

    engine = &ngx_http_llm_curl_engine;

    /* handlers may start others, which come behind these */

    for (n = engine->ncalls; n && !ngx_queue_empty(&engine->calls); n--) {

        q = ngx_queue_head(&engine->calls);
        t = ngx_queue_data(q, ngx_http_llm_curl_t, queue);

        t->shortage = 1;

        ngx_http_llm_curl_done(t, CURLE_OUT_OF_MEMORY);
    }
}


static void
ngx_http_llm_curl_done(ngx_http_llm_curl_t *t, CURLcode code)
{
    ngx_http_llm_curl_result_t  result;

    ngx_http_llm_transfer_result(t, code, &result);

    (void) curl_multi_remove_handle(ngx_http_llm_curl_engine.multi, t->easy);

    t->done(t->data, &result);

    ngx_http_llm_curl_free(t);
}


static void
ngx_http_llm_curl_entered(void)
{
#if (NGX_HTTP_SSL)
    ERR_clear_error();
#endif
}
