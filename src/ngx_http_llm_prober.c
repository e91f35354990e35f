
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_probe.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_target.h"


/*
 * One worker of all sends the probes.  It has a lease in the zone, which it
 * renews; when it leaves, hangs or is killed, another one takes the lease and
 * goes on where the zone says that the next probe is due: a reload neither
 * brings probes forward nor puts them off.
 */


#define NGX_HTTP_LLM_PROBER_LOOK   1000           /* ms; how often, at least */
#define NGX_HTTP_LLM_PROBER_LEASE  3000           /* ms */
#define NGX_HTTP_LLM_PROBER_SOON   2000           /* ms; for the first probe */
#define NGX_HTTP_LLM_PROBER_SPARE  8              /* calls, left for others */
#define NGX_HTTP_LLM_PROBE_MAX     4194304        /* bytes of an answer */


static void ngx_http_llm_prober_handler(ngx_event_t *ev);
static void ngx_http_llm_prober_cancel(ngx_http_llm_main_conf_t *mcf);
static ngx_msec_t ngx_http_llm_prober_look(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_probe_t *probe);
static ngx_uint_t ngx_http_llm_prober_hurry(ngx_http_llm_probe_t *probe,
    llm_circuit_view_t *view);
static ngx_msec_t ngx_http_llm_probe_start(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_probe_t *probe);
static ngx_int_t ngx_http_llm_probe_send(ngx_http_llm_probe_t *probe);
static void ngx_http_llm_probe_done(void *data,
    ngx_http_llm_curl_result_t *result);
static ngx_uint_t ngx_http_llm_probe_elsewhere(ngx_http_llm_probe_t *probe,
    ngx_http_llm_curl_result_t *result);
static void ngx_http_llm_probe_forget(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_probe_t *probe);


/* of this worker */

static struct {
    ngx_http_llm_main_conf_t     *mcf;
    ngx_event_t                   timer;
    ngx_connection_t              dumb;           /* for the timer's log */
} ngx_http_llm_prober;


void
ngx_http_llm_prober_start(ngx_cycle_t *cycle, ngx_http_llm_main_conf_t *mcf)
{
    ngx_event_t  *ev;

    if (!mcf->probes) {
        return;
    }

    ngx_memzero(&ngx_http_llm_prober, sizeof(ngx_http_llm_prober));

    ngx_http_llm_prober.mcf = mcf;
    ngx_http_llm_prober.dumb.fd = (ngx_socket_t) -1;

    ev = &ngx_http_llm_prober.timer;

    ev->handler = ngx_http_llm_prober_handler;
    ev->data = &ngx_http_llm_prober.dumb;
    ev->log = cycle->log;
    ev->cancelable = 1;

    ngx_add_timer(ev, 1 + ngx_random() % 100);
}


/* A worker leaves: what is under way is nobody's verdict. */

void
ngx_http_llm_prober_exit(ngx_http_llm_main_conf_t *mcf)
{
    if (ngx_http_llm_prober.mcf != mcf) {
        return;
    }

    ngx_http_llm_prober_cancel(mcf);

    ngx_http_llm_lease_leave(&mcf->sh->prober);

    ngx_http_llm_prober.mcf = NULL;

    if (ngx_http_llm_prober.timer.timer_set) {
        ngx_del_timer(&ngx_http_llm_prober.timer);
    }
}


static void
ngx_http_llm_prober_handler(ngx_event_t *ev)
{
    ngx_uint_t                 i;
    ngx_msec_t                 wait, next;
    ngx_http_llm_main_conf_t  *mcf;
    ngx_http_llm_provider_t  **providerp;

    mcf = ngx_http_llm_prober.mcf;

    if (ngx_exiting || ngx_terminate) {
        ngx_http_llm_prober_exit(mcf);
        return;
    }

    next = NGX_HTTP_LLM_PROBER_LOOK;

    if (!ngx_http_llm_lease(mcf, &mcf->sh->prober, NGX_HTTP_LLM_PROBER_LEASE))
    {
        ngx_http_llm_prober_cancel(mcf);
        ngx_add_timer(ev, next);
        return;
    }

    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {

        if (providerp[i]->probe) {
            wait = ngx_http_llm_prober_look(mcf, providerp[i]->probe);
            next = ngx_min(next, wait);
        }
    }

    ngx_add_timer(ev, ngx_max(next, 1));
}


static void
ngx_http_llm_prober_cancel(ngx_http_llm_main_conf_t *mcf)
{
    ngx_uint_t                 i;
    ngx_http_llm_probe_t      *probe;
    ngx_http_llm_provider_t  **providerp;

    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {

        probe = providerp[i]->probe;

        if (probe && probe->call) {

            ngx_http_llm_curl_cancel(probe->call);
            ngx_http_llm_probe_forget(mcf, probe);

            /* who comes next asks again */

            providerp[i]->record->probe->next = ngx_http_llm_time(mcf);
        }
    }
}


/* Sends a probe that is due; says when to look again. */

static ngx_msec_t
ngx_http_llm_prober_look(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_probe_t *probe)
{
    uint64_t             now, next;
    llm_probe_t         *record;
    llm_circuit_view_t   view;

    record = probe->provider->record->probe;

    now = ngx_http_llm_time(mcf);
    next = record->next;

    if (probe->call) {
        return next > now ? next - now : probe->interval;
    }

    if (record->mark != probe->mark || next > now + probe->interval) {

        /* not all providers, and not all gateways, at once */

        next = now + 1 + ngx_random() % ngx_min(probe->interval,
                                                NGX_HTTP_LLM_PROBER_SOON);
        record->next = next;
        record->mark = probe->mark;
    }

    llm_circuit_view(&probe->provider->record->circuit,
                     &probe->provider->circuit, (uint32_t) now, &view);

    if (next > now && !ngx_http_llm_prober_hurry(probe, &view)) {
        return next - now;
    }

    probe->hurried = view.epoch + 1;

    return ngx_http_llm_probe_start(mcf, probe);
}


/*
 * Once in an episode there is a probe before its time: so that a circuit that
 * is open is known to be well, or is held open, before a call would have to
 * try; and for half-open.
 */

static ngx_uint_t
ngx_http_llm_prober_hurry(ngx_http_llm_probe_t *probe,
    llm_circuit_view_t *view)
{
    if (probe->hurried == view->epoch + 1) {
        return 0;
    }

    return view->state == LLM_CIRCUIT_HALF_OPEN
           || (view->state == LLM_CIRCUIT_OPEN
               && view->retry <= probe->timeout
                                 + 2 * NGX_HTTP_LLM_PROBER_LOOK);
}


static ngx_msec_t
ngx_http_llm_probe_start(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_probe_t *probe)
{
    bool                      admitted;
    uint32_t                  wait;
    uint64_t                  now, next;
    llm_transition_t          tr;
    ngx_http_llm_provider_t  *provider;

    provider = probe->provider;

    if (!ngx_http_llm_target_resolved(provider->target)
        || ngx_http_llm_curl_room() <= NGX_HTTP_LLM_PROBER_SPARE)
    {
        probe->hurried = 0;
        return NGX_HTTP_LLM_PROBER_LOOK;
    }

    admitted = llm_circuit_probe(&provider->record->circuit,
                                 &provider->circuit, ngx_http_llm_now(mcf),
                                 &probe->token, &wait, &tr);

    ngx_http_llm_transition(ngx_cycle->log, provider, &tr, 0);

    if (!admitted) {
        probe->hurried = 0;
        return ngx_max(ngx_min(wait, NGX_HTTP_LLM_PROBER_LOOK), 10);
    }

    now = ngx_http_llm_time(mcf);
    next = llm_probe_next(now, (uint32_t) probe->interval,
                          (uint32_t) ngx_random());

    provider->record->probe->next = next;
    probe->addresses = 0;

    if (ngx_http_llm_probe_send(probe) != NGX_OK) {
        ngx_http_llm_probe_forget(mcf, probe);
    }

    return next - now;
}


static ngx_int_t
ngx_http_llm_probe_send(ngx_http_llm_probe_t *probe)
{
    ngx_http_llm_address_t    *addr;
    ngx_http_llm_curl_call_t   call;

    addr = ngx_http_llm_provider_address(probe->provider);

    if (addr == NULL) {
        return NGX_DECLINED;
    }

    probe->addresses++;

    ngx_memcpy(&probe->sockaddr, &addr->sockaddr, sizeof(ngx_sockaddr_t));

    ngx_memzero(&call, sizeof(ngx_http_llm_curl_call_t));

    call.owner = probe->provider->target->owner;
    call.method = probe->method;
    call.url = probe->url;
    call.sockaddr = &probe->sockaddr.sockaddr;
    call.socklen = addr->socklen;
    call.headers = &probe->headers;
    call.body = probe->body;

#if (NGX_HTTP_SSL)
    call.trust = probe->trust;
    call.name = probe->tls_name;
    call.unverified = probe->unverified;
#endif

    call.connect_timeout = ngx_min(probe->timeout,
                                   probe->provider->timeout.connect);
    call.timeout = probe->timeout;
    call.max_answer = NGX_HTTP_LLM_PROBE_MAX;
    call.done = ngx_http_llm_probe_done;
    call.data = probe;

    probe->call = ngx_http_llm_curl_start(&call);

    return probe->call ? NGX_OK : NGX_ERROR;
}


static void
ngx_http_llm_probe_done(void *data, ngx_http_llm_curl_result_t *result)
{
    ngx_http_llm_probe_t *probe = data;

    ngx_uint_t                 good;
    llm_circuit_view_t         view;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_llm_prober.mcf;

    probe->call = NULL;

    if (result->shortage) {

        /* which says nothing about the provider */

        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "llm: probe of provider \"%V\" is not sent: %s",
                      &probe->provider->name, result->error);

        ngx_http_llm_probe_forget(mcf, probe);
        return;
    }

    if (ngx_http_llm_probe_elsewhere(probe, result)
        && ngx_http_llm_probe_send(probe) == NGX_OK)
    {
        return;
    }

    good = ngx_http_llm_probe_result(mcf, probe, result);

    llm_circuit_view(&probe->provider->record->circuit,
                     &probe->provider->circuit, ngx_http_llm_now(mcf), &view);

    if (view.state == LLM_CIRCUIT_HALF_OPEN && good) {

        /* the next success is not left to a caller */

        probe->hurried = view.epoch + 1;

        (void) ngx_http_llm_probe_start(mcf, probe);
    }
}


/* Of several addresses one that can not be connected to is passed over. */

static ngx_uint_t
ngx_http_llm_probe_elsewhere(ngx_http_llm_probe_t *probe,
    ngx_http_llm_curl_result_t *result)
{
    ngx_http_llm_target_t  *target;

    target = probe->provider->target;

    if (result->fault == NGX_HTTP_LLM_FAULT_NONE
        || result->fault > NGX_HTTP_LLM_FAULT_TLS)
    {
        ngx_http_llm_target_good(target, &probe->sockaddr.sockaddr);
        return 0;
    }

    return ngx_http_llm_target_failed(target, &probe->sockaddr.sockaddr,
                                      ngx_cycle->log)
           && probe->addresses < NGX_HTTP_LLM_ADDRESS_TRIES;
}


/* Nobody will hear how it ends. */

static void
ngx_http_llm_probe_forget(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_probe_t *probe)
{
    bool                      late;
    llm_transition_t          tr;
    ngx_http_llm_provider_t  *provider;

    provider = probe->provider;
    probe->call = NULL;

    (void) llm_circuit_probe_report(&provider->record->circuit,
                                    &provider->circuit, &probe->token,
                                    LLM_CLASS_NEUTRAL, 0, 0, 0,
                                    ngx_http_llm_now(mcf), 0, &late, &tr);
}
