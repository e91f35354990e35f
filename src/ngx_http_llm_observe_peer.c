
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_observe.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_slot.h"


/*
 * An observed attempt.  The hooks are outside of all others of the upstream;
 * they look, tell the circuit, and pass on what they were given: nothing of
 * the request, the peer or the answer is changed.
 *
 * A call that the circuit would have refused has no token, so its verdict is
 * counted, but does not move the circuit: if the circuit acted, there would
 * be no such verdict.
 */


typedef struct {
    ngx_http_request_t              *request;
    ngx_http_upstream_t             *upstream;
    ngx_http_llm_observed_t         *observed;
    ngx_http_llm_main_conf_t        *mcf;

    ngx_http_llm_observed_peer_t    *peer;        /* asked now, or NULL */
    ngx_http_llm_observed_peer_t    *again;       /* was found closed */
    llm_token_t                      token;
    ngx_uint_t                       refused;     /* if the circuit acted */
    ngx_int_t                        rc;          /* of the request */

    void                            *data;
    ngx_event_get_peer_pt            get;
    ngx_event_free_peer_pt           free;
    ngx_event_notify_peer_pt         notify;
#if (NGX_HTTP_SSL)
    ngx_event_set_peer_session_pt    set_session;
    ngx_event_save_peer_session_pt   save_session;
#endif
    void                           (*finalize_request)(ngx_http_request_t *r,
                                        ngx_int_t rc);
} ngx_http_llm_observe_ctx_t;


/* what is made of an attempt */

typedef struct {
    llm_class_t                      class;
    ngx_http_llm_fault_e             fault;
    ngx_uint_t                       status;
} ngx_http_llm_observe_verdict_t;


static ngx_http_llm_observed_t *ngx_http_llm_observed_of(
    ngx_http_llm_main_conf_t *mcf, ngx_http_upstream_srv_conf_t *uscf);
static void ngx_http_llm_observe_hook(ngx_http_llm_observe_ctx_t *octx);
static ngx_int_t ngx_http_llm_observe_get(ngx_peer_connection_t *pc,
    void *data);
static void ngx_http_llm_observe_ask(ngx_http_llm_observe_ctx_t *octx);
static void ngx_http_llm_observe_finalize(ngx_http_request_t *r,
    ngx_int_t rc);
static void ngx_http_llm_observe_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static ngx_http_llm_observe_verdict_t ngx_http_llm_observe_failed(
    ngx_http_llm_observe_ctx_t *octx, ngx_uint_t state);
static ngx_http_llm_observe_verdict_t ngx_http_llm_observe_answered(
    ngx_http_llm_observe_ctx_t *octx);
static llm_class_t ngx_http_llm_observe_class(ngx_http_request_t *r,
    ngx_uint_t status);
static void ngx_http_llm_observe_report(ngx_http_llm_observe_ctx_t *octx,
    ngx_http_llm_observe_verdict_t *verdict);
static void ngx_http_llm_observe_moved(ngx_http_llm_observe_ctx_t *octx,
    llm_transition_t *tr, ngx_uint_t status);
static void ngx_http_llm_observe_cleanup(void *data);
static void ngx_http_llm_observe_notify(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t type);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_llm_observe_set_session(ngx_peer_connection_t *pc,
    void *data);
static void ngx_http_llm_observe_save_session(ngx_peer_connection_t *pc,
    void *data);
#endif


/* peer.init of an observed upstream */

ngx_int_t
ngx_http_llm_observe_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_int_t                    rc;
    ngx_pool_cleanup_t          *cln;
    ngx_http_llm_observed_t     *observed;
    ngx_http_llm_main_conf_t    *mcf;
    ngx_http_llm_observe_ctx_t  *octx;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    observed = ngx_http_llm_observed_of(mcf, us);

    rc = observed->init(r, us);

    if (rc != NGX_OK) {
        return rc;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_llm_observe_ctx_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    octx = cln->data;

    ngx_memzero(octx, sizeof(ngx_http_llm_observe_ctx_t));

    cln->handler = ngx_http_llm_observe_cleanup;

    octx->request = r;
    octx->upstream = r->upstream;
    octx->observed = observed;
    octx->mcf = mcf;

    ngx_http_llm_observe_hook(octx);

    return NGX_OK;
}


static ngx_http_llm_observed_t *
ngx_http_llm_observed_of(ngx_http_llm_main_conf_t *mcf,
    ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_http_llm_observed_t  *observed;

    /* it is there: who is not has no hook */

    for (observed = mcf->observed.elts; observed->uscf != uscf; observed++) {
        /* void */
    }

    return observed;
}


static void
ngx_http_llm_observe_hook(ngx_http_llm_observe_ctx_t *octx)
{
    ngx_http_upstream_t    *u;
    ngx_peer_connection_t  *pc;

    u = octx->upstream;
    pc = &u->peer;

    octx->data = pc->data;
    pc->data = octx;

    octx->get = pc->get;
    pc->get = ngx_http_llm_observe_get;

    octx->free = pc->free;
    pc->free = ngx_http_llm_observe_free;

    if (pc->notify) {
        octx->notify = pc->notify;
        pc->notify = ngx_http_llm_observe_notify;
    }

#if (NGX_HTTP_SSL)

    if (pc->set_session) {
        octx->set_session = pc->set_session;
        pc->set_session = ngx_http_llm_observe_set_session;
    }

    if (pc->save_session) {
        octx->save_session = pc->save_session;
        pc->save_session = ngx_http_llm_observe_save_session;
    }

#endif

    octx->finalize_request = u->finalize_request;
    u->finalize_request = ngx_http_llm_observe_finalize;
}


static ngx_int_t
ngx_http_llm_observe_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_observe_ctx_t *octx = data;

    ngx_int_t  rc;

    rc = octx->get(pc, octx->data);

    if (pc->sockaddr && pc->name
        && (rc == NGX_OK || rc == NGX_DONE || rc == NGX_AGAIN))
    {
        octx->peer = ngx_http_llm_observe_find(octx->observed, pc->name);

        if (octx->peer) {
            ngx_http_llm_observe_ask(octx);
        }
    }

    return rc;
}


/* The call goes out in any case: would the circuit have let it? */

static void
ngx_http_llm_observe_ask(ngx_http_llm_observe_ctx_t *octx)
{
    uint32_t             now, wait;
    llm_circuit_t       *circuit;
    llm_counters_t      *counters;
    llm_transition_t     tr;
    llm_admission_t      admission;
    llm_circuit_conf_t  *conf;

    conf = octx->observed->circuit;
    circuit = &octx->peer->record->circuit;
    counters = ngx_http_llm_counters(octx->peer->record);
    now = ngx_http_llm_now(octx->mcf);

    octx->token.kind = LLM_TOKEN_NONE;

    llm_count(counters, LLM_CALLS);

    if (llm_circuit_shed(circuit, conf, now, (uint32_t) ngx_random() << 1)) {
        admission = LLM_REFUSED_SLOW_START;

    } else {
        admission = llm_circuit_acquire(circuit, conf, now, &octx->token,
                                        &wait, &tr);

        ngx_http_llm_observe_moved(octx, &tr, 0);
    }

    octx->refused = admission != LLM_ADMITTED;

    /* once for a call that begins anew on another connection */

    if (octx->refused && octx->again != octx->peer) {
        llm_count(counters, LLM_CALLS_REJECTED);
    }

    octx->again = NULL;
}


/* The request is over; free() is the next that is called. */

static void
ngx_http_llm_observe_finalize(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_pool_cleanup_t          *cln;
    ngx_http_llm_observe_ctx_t  *octx;

    /* contexts of modules are gone where another location took over */

    for (cln = r->pool->cleanup; cln; cln = cln->next) {

        octx = cln->data;

        if (cln->handler == ngx_http_llm_observe_cleanup
            && octx->upstream == r->upstream)
        {
            octx->rc = rc;
            octx->finalize_request(r, rc);

            return;
        }
    }
}


static void
ngx_http_llm_observe_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    ngx_http_llm_observe_ctx_t *octx = data;

    ngx_http_llm_observe_verdict_t  verdict;

    /* first: whose connection is kept, is not there afterwards */

    if (octx->peer) {
        verdict = (state & (NGX_PEER_FAILED|NGX_PEER_NEXT))
                  ? ngx_http_llm_observe_failed(octx, state)
                  : ngx_http_llm_observe_answered(octx);

        ngx_http_llm_observe_report(octx, &verdict);
    }

    octx->free(pc, octx->data, state);
}


/* nginx gave the attempt up, and may go on to another server. */

static ngx_http_llm_observe_verdict_t
ngx_http_llm_observe_failed(ngx_http_llm_observe_ctx_t *octx, ngx_uint_t state)
{
    ngx_connection_t                *c;
    ngx_http_upstream_t             *u;
    ngx_http_llm_observe_verdict_t   verdict;

    u = octx->upstream;

    verdict.status = u->state->status;

    if ((state & NGX_PEER_NEXT)
        || verdict.status == NGX_HTTP_TOO_MANY_REQUESTS
        || (verdict.status >= NGX_HTTP_INTERNAL_SERVER_ERROR
            && verdict.status <= NGX_HTTP_GATEWAY_TIME_OUT))
    {
        verdict.fault = NGX_HTTP_LLM_FAULT_STATUS;
        verdict.class = ngx_http_llm_observe_class(octx->request,
                                                   verdict.status);
        return verdict;
    }

    verdict.fault = ngx_http_llm_transport_fault(octx->request);
    verdict.status = 0;
    verdict.class = LLM_CLASS_FAILURE;

    c = u->peer.connection;

    if (verdict.fault == NGX_HTTP_LLM_FAULT_CLOSED
        && c && !c->read->eof && !c->read->error)
    {
        verdict.fault = NGX_HTTP_LLM_FAULT_HEADER;
    }

    if (verdict.fault == NGX_HTTP_LLM_FAULT_CLOSED && u->peer.cached
        && u->state->bytes_received == 0)
    {
        /* an idle connection that was closed: nobody's failure */

        octx->again = octx->peer;
        verdict.class = LLM_CLASS_NEUTRAL;

    } else if (octx->request->connection->error) {

        /* the caller is gone, and so is the interest in an answer */

        verdict.class = LLM_CLASS_NEUTRAL;
    }

    return verdict;
}


/* The request has ended with this attempt. */

static ngx_http_llm_observe_verdict_t
ngx_http_llm_observe_answered(ngx_http_llm_observe_ctx_t *octx)
{
    llm_circuit_conf_t              *conf;
    ngx_http_upstream_t             *u;
    ngx_http_llm_observe_verdict_t   verdict;

    u = octx->upstream;
    conf = octx->observed->circuit;

    if (u->state->header_time == (ngx_msec_t) -1) {

        /* it was the caller, or nginx itself, who had enough */

        verdict.fault = NGX_HTTP_LLM_FAULT_NONE;
        verdict.status = 0;
        verdict.class = LLM_CLASS_NEUTRAL;

        return verdict;
    }

    /* not that of u->headers_in, which a stale answer may have replaced */

    verdict.fault = NGX_HTTP_LLM_FAULT_STATUS;
    verdict.status = u->state->status;
    verdict.class = ngx_http_llm_observe_class(octx->request, verdict.status);

    if (verdict.class == LLM_CLASS_FAILURE) {
        return verdict;
    }

    if (conf->stream_errors && verdict.status < NGX_HTTP_SPECIAL_RESPONSE
        && (octx->rc == NGX_HTTP_BAD_GATEWAY
            || octx->rc == NGX_HTTP_GATEWAY_TIME_OUT))
    {
        verdict.fault = NGX_HTTP_LLM_FAULT_BROKEN;
        verdict.status = 0;
        verdict.class = LLM_CLASS_FAILURE;

    } else if (conf->slow_call && verdict.class == LLM_CLASS_SUCCESS
               && u->state->header_time > conf->slow_call)
    {
        verdict.fault = NGX_HTTP_LLM_FAULT_SLOW;
        verdict.status = 0;
        verdict.class = LLM_CLASS_FAILURE;
    }

    return verdict;
}


/* Whose keys the calls are made with, is not known. */

static llm_class_t
ngx_http_llm_observe_class(ngx_http_request_t *r, ngx_uint_t status)
{
    llm_call_t  call;

    if (status == NGX_HTTP_SWITCHING_PROTOCOLS) {
        return LLM_CLASS_SUCCESS;
    }

    call.completion = r->method == NGX_HTTP_POST
                      && llm_verdict_completion(r->uri.data, r->uri.len);
    call.own_key = 0;

    return llm_verdict_status(status, call);
}


static void
ngx_http_llm_observe_report(ngx_http_llm_observe_ctx_t *octx,
    ngx_http_llm_observe_verdict_t *verdict)
{
    bool                    late;
    llm_counters_t         *counters;
    llm_transition_t        tr;
    ngx_http_llm_record_t  *record;

    record = octx->peer->record;
    counters = ngx_http_llm_counters(record);

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, octx->request->connection->log, 0,
                   "llm observe: peer \"%V\", %s, status %ui",
                   &octx->peer->name, llm_class_name(verdict->class),
                   verdict->status);

    ngx_http_llm_count_class(counters, verdict->class);

    if (verdict->class == LLM_CLASS_SUCCESS) {
        llm_counters_stamp(counters, LLM_LAST_SUCCESS,
                           ngx_http_llm_wall_clock());

        if (octx->refused) {
            llm_count(counters, LLM_CALLS_REJECTED_GOOD);
        }

    } else if (verdict->class == LLM_CLASS_FAILURE) {
        ngx_http_llm_note_failure(record, verdict->fault, verdict->status);
    }

    if (llm_circuit_report(&record->circuit, octx->observed->circuit,
                           &octx->token, verdict->class, 0,
                           ngx_http_llm_now(octx->mcf),
                           (uint32_t) ngx_random() << 1, &late, &tr))
    {
        if (late) {
            llm_count(counters, LLM_CALLS_LATE);
        }

        ngx_http_llm_observe_moved(octx, &tr, verdict->status);
    }

    octx->peer = NULL;
}


static void
ngx_http_llm_observe_moved(ngx_http_llm_observe_ctx_t *octx,
    llm_transition_t *tr, ngx_uint_t status)
{
    u_char  duration[sizeof(", for s") + NGX_INT32_LEN + 4];

    if (tr->reason == LLM_REASON_NONE) {
        return;
    }

    ngx_http_llm_note_transition(octx->peer->record, tr, status);

    duration[0] = '\0';

    if (tr->to == LLM_CIRCUIT_OPEN) {
        ngx_sprintf(duration, ", for %uD.%03uDs%Z", tr->duration / 1000,
                    tr->duration % 1000);
    }

    ngx_log_error(ngx_http_llm_log_circuits(octx->request),
                  octx->request->connection->log, 0,
                  "llm: circuit of server \"%V\" in upstream \"%V\" would go "
                  "%s -> %s: %s%s",
                  &octx->peer->name, &octx->observed->name,
                  llm_circuit_state_name(tr->from),
                  llm_circuit_state_name(tr->to), llm_reason_name(tr->reason),
                  duration);
}


/* The request is gone; nginx has told free() before. */

static void
ngx_http_llm_observe_cleanup(void *data)
{
    ngx_http_llm_observe_ctx_t *octx = data;

    ngx_http_llm_observe_verdict_t  verdict;

    if (octx->peer) {
        ngx_memzero(&verdict, sizeof(ngx_http_llm_observe_verdict_t));

        verdict.class = LLM_CLASS_NEUTRAL;

        ngx_http_llm_observe_report(octx, &verdict);
    }
}


static void
ngx_http_llm_observe_notify(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t type)
{
    ngx_http_llm_observe_ctx_t *octx = data;

    octx->notify(pc, octx->data, type);
}


#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_llm_observe_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_observe_ctx_t *octx = data;

    return octx->set_session(pc, octx->data);
}


static void
ngx_http_llm_observe_save_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_observe_ctx_t *octx = data;

    octx->save_session(pc, octx->data);
}

#endif
