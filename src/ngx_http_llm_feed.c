
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_receiver.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"


/*
 * From the histories of circuits, and what probes find, to events for
 * receivers, in one worker.  An outage is told when it begins and when it is
 * over: what a circuit does in between is no news.
 *
 * A refused key is an affair of its own: it begins where a circuit opens for
 * it or a probe finds it, and is over when the circuit is closed and probes,
 * where there are any, find nothing wrong with it.
 *
 * A record's word "told" says how far that was done: of a provider, how many
 * changes of its history, and in one bit, that its key is refused; of a route,
 * since when it has no provider, 0: it has one.
 */


#define NGX_HTTP_LLM_FEED_TICK  500               /* ms */

/* in "told"; a state file holds numbers below 2^63 */
#define NGX_HTTP_LLM_FEED_KEY   ((uint64_t) 1 << 62)


typedef struct ngx_http_llm_feed_s  ngx_http_llm_feed_t;

struct ngx_http_llm_feed_s {
    ngx_http_llm_main_conf_t     *mcf;
    ngx_event_t                   timer;
    ngx_connection_t              dummy;          /* for the timer's log */
    uint64_t                     *queued;         /* by provider: changes */
    uint64_t                     *seen;           /* before the last turn */
    unsigned char                *refused;        /* its key, as queued */
    unsigned char                *refused_seen;   /* by probes, last turn */
    unsigned char                *down;           /* by route, as queued */
    unsigned char                *down_seen;      /* at the last turn */
    unsigned                      mine:1;
    ngx_http_llm_alert_queue_t    queue;
};


static void ngx_http_llm_feed_tick(ngx_event_t *ev);
static void ngx_http_llm_feed_begin(ngx_http_llm_feed_t *feed);
static void ngx_http_llm_feed_end(ngx_http_llm_feed_t *feed);
static void ngx_http_llm_feed_provider(ngx_http_llm_feed_t *feed,
    ngx_uint_t n);
static ngx_uint_t ngx_http_llm_feed_news(llm_history_entry_t *change);
static uint64_t ngx_http_llm_feed_lasted(llm_history_t *history, uint64_t i,
    uint64_t end);
static void ngx_http_llm_feed_key(ngx_http_llm_feed_t *feed, ngx_uint_t n);
static ngx_uint_t ngx_http_llm_feed_refused(ngx_http_llm_feed_t *feed,
    ngx_uint_t n, llm_probe_last_t *last);
static uint64_t ngx_http_llm_feed_word(ngx_http_llm_feed_t *feed,
    ngx_uint_t n, uint64_t changes);
static void ngx_http_llm_feed_route(ngx_http_llm_feed_t *feed, ngx_uint_t n);
static ngx_uint_t ngx_http_llm_feed_out(ngx_http_llm_feed_t *feed,
    ngx_http_llm_provider_t *provider);
static void ngx_http_llm_feed_add(ngx_http_llm_feed_t *feed,
    ngx_http_llm_event_t *event);


ngx_int_t
ngx_http_llm_feed_start(ngx_cycle_t *cycle, ngx_http_llm_main_conf_t *mcf)
{
    ngx_uint_t                 i;
    ngx_http_llm_feed_t       *feed;
    ngx_http_llm_receiver_t  **receiver;

    if (mcf->receivers.nelts == 0) {
        return NGX_OK;
    }

    feed = ngx_pcalloc(cycle->pool, sizeof(ngx_http_llm_feed_t));
    if (feed == NULL) {
        return NGX_ERROR;
    }

    feed->mcf = mcf;

    feed->queued = ngx_pcalloc(cycle->pool,
                               mcf->providers.nelts * sizeof(uint64_t));
    feed->seen = ngx_pcalloc(cycle->pool,
                             mcf->providers.nelts * sizeof(uint64_t));
    feed->refused = ngx_pcalloc(cycle->pool, mcf->providers.nelts);
    feed->refused_seen = ngx_pcalloc(cycle->pool, mcf->providers.nelts);
    feed->down = ngx_pcalloc(cycle->pool, mcf->routes.nelts);
    feed->down_seen = ngx_pcalloc(cycle->pool, mcf->routes.nelts);

    if (feed->queued == NULL || feed->seen == NULL
        || feed->refused == NULL || feed->refused_seen == NULL
        || feed->down == NULL || feed->down_seen == NULL)
    {
        return NGX_ERROR;
    }

    receiver = mcf->receivers.elts;

    for (i = 0; i < mcf->receivers.nelts; i++) {
        receiver[i]->queue = &feed->queue;
    }

    mcf->feed = feed;

    feed->dummy.fd = (ngx_socket_t) -1;

    feed->timer.handler = ngx_http_llm_feed_tick;
    feed->timer.data = &feed->dummy;
    feed->timer.log = cycle->log;
    feed->timer.cancelable = 1;

    feed->dummy.data = feed;

    ngx_add_timer(&feed->timer, NGX_HTTP_LLM_FEED_TICK);

    return NGX_OK;
}


/* The worker leaves: whoever comes next goes on from what was told. */

void
ngx_http_llm_feed_stop(ngx_http_llm_main_conf_t *mcf)
{
    if (mcf->feed == NULL) {
        return;
    }

    if (mcf->feed->timer.timer_set) {
        ngx_del_timer(&mcf->feed->timer);
    }

    ngx_http_llm_feed_end(mcf->feed);

    mcf->feed = NULL;
}


static void
ngx_http_llm_feed_tick(ngx_event_t *ev)
{
    ngx_uint_t                 i;
    ngx_connection_t          *c;
    ngx_http_llm_feed_t       *feed;
    ngx_http_llm_main_conf_t  *mcf;
    ngx_http_llm_receiver_t  **receiver;

    c = ev->data;
    feed = c->data;
    mcf = feed->mcf;

    /* whoever comes after a worker that died has its number */

    if (ngx_exiting || ngx_worker != 0) {
        ngx_http_llm_feed_end(feed);

    } else {

        ngx_http_llm_feed_begin(feed);

        for (i = 0; i < mcf->providers.nelts; i++) {
            ngx_http_llm_feed_provider(feed, i);
            ngx_http_llm_feed_key(feed, i);
        }

        for (i = 0; i < mcf->routes.nelts; i++) {
            ngx_http_llm_feed_route(feed, i);
        }

        receiver = mcf->receivers.elts;

        for (i = 0; i < mcf->receivers.nelts; i++) {
            ngx_http_llm_tell(receiver[i]);
        }

        ngx_http_llm_tell_taken(mcf, &feed->queue);
    }

    if (!ngx_exiting) {
        ngx_add_timer(ev, NGX_HTTP_LLM_FEED_TICK);
    }
}


/* This worker is the one from now on. */

static void
ngx_http_llm_feed_begin(ngx_http_llm_feed_t *feed)
{
    uint64_t                   told;
    ngx_uint_t                 i;
    ngx_http_llm_route_t     **route;
    ngx_http_llm_provider_t  **provider;

    if (feed->mine) {
        return;
    }

    feed->mine = 1;

    provider = feed->mcf->providers.elts;

    for (i = 0; i < feed->mcf->providers.nelts; i++) {
        told = provider[i]->record->told;

        feed->queued[i] = told & ~NGX_HTTP_LLM_FEED_KEY;
        feed->seen[i] = provider[i]->record->history.next;
        feed->refused[i] = (told & NGX_HTTP_LLM_FEED_KEY) != 0;
        feed->refused_seen[i] = feed->refused[i];
    }

    route = feed->mcf->routes.elts;

    for (i = 0; i < feed->mcf->routes.nelts; i++) {
        feed->down[i] = route[i]->record->told != 0;
        feed->down_seen[i] = feed->down[i];
    }
}


static void
ngx_http_llm_feed_end(ngx_http_llm_feed_t *feed)
{
    ngx_uint_t                 i;
    ngx_http_llm_receiver_t  **receiver;

    if (!feed->mine) {
        return;
    }

    feed->mine = 0;

    receiver = feed->mcf->receivers.elts;

    for (i = 0; i < feed->mcf->receivers.nelts; i++) {
        ngx_http_llm_tell_stop(receiver[i]);
        receiver[i]->at = feed->queue.tail;
    }

    feed->queue.head = feed->queue.tail;
}


/*
 * What its circuit did.  Only what was there at the last turn is read: by
 * now it is written, whoever did so.
 */

static void
ngx_http_llm_feed_provider(ngx_http_llm_feed_t *feed, ngx_uint_t n)
{
    uint64_t                   i, seen, old;
    llm_history_t             *history;
    llm_history_entry_t        change;
    ngx_http_llm_event_t       event;
    ngx_http_llm_provider_t  **provider;

    provider = feed->mcf->providers.elts;
    history = &provider[n]->record->history;

    seen = feed->seen[n];
    feed->seen[n] = history->next;

    if (feed->queued[n] > seen) {

        /* the history begins anew */

        feed->queued[n] = 0;
    }

    old = ngx_http_llm_wall_clock() - NGX_HTTP_LLM_ALERT_OLD * 1000;

    for (i = feed->queued[n]; i < seen; i++) {

        if (!llm_history_at(history, i, &change) || change.time < old) {
            continue;
        }

        ngx_memzero(&event, sizeof(ngx_http_llm_event_t));

        event.what = ngx_http_llm_feed_news(&change);

        if (feed->refused[n]) {
            event.what &= ~NGX_HTTP_LLM_ALERT_CREDENTIAL;
        }

        if (event.what == 0) {
            continue;
        }

        if (event.what & NGX_HTTP_LLM_ALERT_CREDENTIAL) {
            feed->refused[n] = 1;
        }

        event.time = change.time;
        event.provider = provider[n];
        event.reason = change.reason;
        event.status = change.status;
        event.told = ngx_http_llm_feed_word(feed, n, i + 1);
        event.over = change.to == LLM_CIRCUIT_CLOSED;

        if (event.over) {
            event.lasted = ngx_http_llm_feed_lasted(history, i, change.time);
        }

        ngx_http_llm_feed_add(feed, &event);
    }

    feed->queued[n] = seen;
}


static ngx_uint_t
ngx_http_llm_feed_news(llm_history_entry_t *change)
{
    ngx_uint_t  what;

    what = 0;

    if (change->to == LLM_CIRCUIT_OPEN) {

        if (change->from == LLM_CIRCUIT_CLOSED) {
            what |= NGX_HTTP_LLM_ALERT_OPEN;
        }

        if (change->reason == LLM_REASON_CREDENTIAL) {
            what |= NGX_HTTP_LLM_ALERT_CREDENTIAL;
        }

    } else if (change->to == LLM_CIRCUIT_CLOSED
               && change->from != LLM_CIRCUIT_CLOSED)
    {
        what |= NGX_HTTP_LLM_ALERT_CLOSE;
    }

    return what;
}


/* Since the circuit opened last; 0: not known any more. */

static uint64_t
ngx_http_llm_feed_lasted(llm_history_t *history, uint64_t i, uint64_t end)
{
    llm_history_entry_t  change;

    while (i-- > 0 && llm_history_at(history, i, &change)) {

        if (change.from == LLM_CIRCUIT_CLOSED
            && change.to == LLM_CIRCUIT_OPEN)
        {
            return end > change.time ? end - change.time : 0;
        }
    }

    return 0;
}


/*
 * Whether its key is refused, and that it is no more; told a turn later, behind
 * what its circuit did.
 */

static void
ngx_http_llm_feed_key(ngx_http_llm_feed_t *feed, ngx_uint_t n)
{
    ngx_uint_t                 refused, seen;
    llm_probe_last_t           last;
    llm_circuit_view_t         view;
    ngx_http_llm_event_t       event;
    ngx_http_llm_provider_t  **provider;

    provider = feed->mcf->providers.elts;

    refused = ngx_http_llm_feed_refused(feed, n, &last);

    seen = feed->refused_seen[n];
    feed->refused_seen[n] = (unsigned char) refused;

    if (refused != seen || refused == feed->refused[n]
        || feed->queued[n] != provider[n]->record->history.next)
    {
        return;
    }

    llm_circuit_view(&provider[n]->record->circuit, &provider[n]->circuit,
                     ngx_http_llm_now(feed->mcf), &view);

    if (!refused && view.state != LLM_CIRCUIT_CLOSED) {

        /* it may take its key, but it is not in service yet */

        return;
    }

    feed->refused[n] = (unsigned char) refused;

    ngx_memzero(&event, sizeof(ngx_http_llm_event_t));

    event.what = NGX_HTTP_LLM_ALERT_CREDENTIAL;
    event.time = refused ? last.time * 1000 : ngx_http_llm_wall_clock();
    event.provider = provider[n];
    event.told = ngx_http_llm_feed_word(feed, n, feed->queued[n]);
    event.over = !refused;

    if (provider[n]->probe) {
        event.reason = refused ? LLM_REASON_CREDENTIAL : LLM_REASON_PROBED;
        event.status = last.status;
        event.probe = 1;

    } else {
        event.reason = view.reason;
    }

    ngx_http_llm_feed_add(feed, &event);
}


/* A probe that fails for another reason says nothing of the key. */

static ngx_uint_t
ngx_http_llm_feed_refused(ngx_http_llm_feed_t *feed, ngx_uint_t n,
    llm_probe_last_t *last)
{
    ngx_http_llm_provider_t  **provider;

    provider = feed->mcf->providers.elts;

    if (provider[n]->probe == NULL) {

        /* then its circuit alone says so, as long as it is not closed */

        return 0;
    }

    if (!llm_probe_last(provider[n]->record->probe, last)
        || (time_t) last->time < ngx_time() - NGX_HTTP_LLM_ALERT_OLD)
    {
        return feed->refused[n];
    }

    switch (last->result) {

    case LLM_PROBE_CREDENTIAL:
        return 1;

    case LLM_PROBE_SUCCESS:
        return 0;

    default:
        return feed->refused[n];
    }
}


static uint64_t
ngx_http_llm_feed_word(ngx_http_llm_feed_t *feed, ngx_uint_t n,
    uint64_t changes)
{
    return feed->refused[n] ? changes | NGX_HTTP_LLM_FEED_KEY : changes;
}


/*
 * Whether all its circuits are open; told a turn later, behind what they did
 * themselves.
 */

static void
ngx_http_llm_feed_route(ngx_http_llm_feed_t *feed, ngx_uint_t n)
{
    uint64_t                began;
    ngx_uint_t              i, down;
    ngx_http_llm_use_t     *use;
    ngx_http_llm_event_t    event;
    ngx_http_llm_route_t  **route;

    route = feed->mcf->routes.elts;
    use = route[n]->uses.elts;

    down = 1;

    for (i = 0; down && i < route[n]->uses.nelts; i++) {
        down = ngx_http_llm_feed_out(feed, use[i].provider);
    }

    if (down != feed->down_seen[n] || down == feed->down[n]) {
        feed->down_seen[n] = (unsigned char) down;
        return;
    }

    feed->down[n] = (unsigned char) down;

    ngx_memzero(&event, sizeof(ngx_http_llm_event_t));

    event.what = NGX_HTTP_LLM_ALERT_ALL_OPEN;
    event.time = ngx_http_llm_wall_clock();
    event.route = route[n];
    event.told = down ? event.time : 0;
    event.over = !down;

    began = route[n]->record->told;

    if (!down && began && began < event.time) {
        event.lasted = event.time - began;
    }

    ngx_http_llm_feed_add(feed, &event);
}


/* Half-open is not yet well again; an operator may say otherwise. */

static ngx_uint_t
ngx_http_llm_feed_out(ngx_http_llm_feed_t *feed,
    ngx_http_llm_provider_t *provider)
{
    uint64_t            left;
    llm_circuit_view_t  view;

    switch (llm_circuit_admin_now(&provider->record->circuit,
                                  ngx_http_llm_time(feed->mcf), &left))
    {

    case LLM_ADMIN_OPEN:
        return 1;

    case LLM_ADMIN_DISABLED:
    case LLM_ADMIN_OBSERVE:
        return 0;

    default:
        break;
    }

    llm_circuit_view(&provider->record->circuit, &provider->circuit,
                     ngx_http_llm_now(feed->mcf), &view);

    return view.state != LLM_CIRCUIT_CLOSED;
}


/* Where the queue is full its oldest event goes. */

static void
ngx_http_llm_feed_add(ngx_http_llm_feed_t *feed, ngx_http_llm_event_t *event)
{
    ngx_uint_t                   i;
    ngx_http_llm_receiver_t    **receiver;
    ngx_http_llm_alert_queue_t  *queue;

    queue = &feed->queue;

    if (queue->tail - queue->head == NGX_HTTP_LLM_ALERT_QUEUE) {

        receiver = feed->mcf->receivers.elts;

        for (i = 0; i < feed->mcf->receivers.nelts; i++) {
            if (receiver[i]->at == queue->head) {
                ngx_http_llm_tell_drop(receiver[i]);
            }
        }

        ngx_http_llm_tell_taken(feed->mcf, queue);
    }

    *ngx_http_llm_alert_event(queue, queue->tail) = *event;

    queue->tail++;
}
