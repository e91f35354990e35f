
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_receiver.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"


/*
 * Events as a receiver reads them: a text for people in each form, beside
 * fields for programs.
 */


static json_t *ngx_http_llm_message_event(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_receiver_t *receiver, ngx_http_llm_event_t *event);
static json_t *ngx_http_llm_message_routes(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider);
static const char *ngx_http_llm_message_what(
    ngx_http_llm_receiver_t *receiver, ngx_http_llm_event_t *event);
static json_t *ngx_http_llm_message_text(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_event_t *event);
static u_char *ngx_http_llm_message_probe(u_char *p, u_char *last,
    ngx_http_llm_event_t *event, ngx_str_t *name);
static u_char *ngx_http_llm_message_why(u_char *p, u_char *last,
    ngx_http_llm_event_t *event);
static u_char *ngx_http_llm_message_duration(u_char *p, u_char *last,
    uint64_t ms);
static uint64_t ngx_http_llm_message_retry(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_event_t *event);
static json_t *ngx_http_llm_message_escape(json_t *text);
static json_t *ngx_http_llm_message_host(void);


#define NGX_HTTP_LLM_MESSAGE_TEXT  1024


/* { gateway, time, events: [ ... ] } */

json_t *
ngx_http_llm_message_json(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_receiver_t *receiver, ngx_http_llm_event_t **events,
    ngx_uint_t n)
{
    json_t      *o, *list;
    ngx_uint_t   i;

    list = json_array();

    for (i = 0; i < n; i++) {
        json_array_append_new(list,
                     ngx_http_llm_message_event(mcf, receiver, events[i]));
    }

    o = json_object();

    json_object_set_new(o, "gateway", ngx_http_llm_message_host());
    json_object_set_new(o, "time",
                        ngx_http_llm_tree_time(ngx_http_llm_wall_clock()));
    json_object_set_new(o, "events", list);

    return o;
}


/* { text }, a line for each event; nothing in it is markup */

json_t *
ngx_http_llm_message_slack(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_receiver_t *receiver, ngx_http_llm_event_t **events,
    ngx_uint_t n)
{
    json_t      *text, *line, *host;
    ngx_uint_t   i;

    host = ngx_http_llm_message_host();

    text = json_sprintf("*nginx-llm* on %s", json_string_value(host));

    json_decref(host);

    for (i = 0; i < n; i++) {
        line = ngx_http_llm_message_escape(
                                   ngx_http_llm_message_text(mcf, events[i]));

        host = text;
        text = json_sprintf("%s\n%s %s", json_string_value(host),
                            events[i]->over ? ":large_green_circle:"
                                            : ":red_circle:",
                            line ? json_string_value(line) : "");
        json_decref(host);
        json_decref(line);
    }

    return json_pack("{s:o}", "text", text);
}


/*
 * An event of PagerDuty's Events API v2: an outage is one incident, a refused
 * key is another one.
 */

json_t *
ngx_http_llm_message_pagerduty(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_receiver_t *receiver, ngx_http_llm_event_t **events,
    ngx_uint_t n)
{
    json_t                *o, *payload, *host, *name, *details;
    const char            *kind, *what;
    ngx_http_llm_event_t  *event;

    event = events[0];
    kind = event->provider ? "provider" : "route";
    what = ngx_http_llm_message_what(receiver, event);

    host = ngx_http_llm_message_host();
    details = ngx_http_llm_message_event(mcf, receiver, event);
    name = json_object_get(details, kind);

    payload = json_object();

    json_object_set_new(payload, "summary",
                        ngx_http_llm_message_text(mcf, event));
    json_object_set(payload, "source", host);
    json_object_set_new(payload, "severity",
                        json_string(event->provider ? "error" : "critical"));
    json_object_set_new(payload, "timestamp",
                        ngx_http_llm_tree_time(event->time));
    json_object_set(payload, "component", name);
    json_object_set_new(payload, "group", json_string("nginx-llm"));
    json_object_set_new(payload, "class", json_string(what));
    json_object_set_new(payload, "custom_details", details);

    o = json_object();

    json_object_set_new(o, "routing_key",
                        json_stringn((char *) receiver->key.data,
                                     receiver->key.len));
    json_object_set_new(o, "event_action",
                        json_string(event->over ? "resolve" : "trigger"));
    json_object_set_new(o, "dedup_key",
                        json_sprintf("nginx-llm/%s/%s/%s",
                                     json_string_value(host),
                                     ngx_strcmp(what, "credential") == 0
                                     ? what : kind,
                                     json_string_value(name)));
    json_object_set_new(o, "payload", payload);

    json_decref(host);

    return o;
}


static json_t *
ngx_http_llm_message_event(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_receiver_t *receiver, ngx_http_llm_event_t *event)
{
    json_t    *o;
    uint64_t   retry;

    o = json_object();

    json_object_set_new(o, "event",
                        json_string(ngx_http_llm_message_what(receiver,
                                                              event)));
    json_object_set_new(o, "over", json_boolean(event->over));
    json_object_set_new(o, "time", ngx_http_llm_tree_time(event->time));

    if (event->provider) {
        json_object_set_new(o, "provider",
                            ngx_http_llm_tree_string(&event->provider->name));
        json_object_set_new(o, "routes",
                            ngx_http_llm_message_routes(mcf, event->provider));
        json_object_set_new(o, "reason",
                            json_string(llm_reason_name(event->reason)));
        json_object_set_new(o, "probe", json_boolean(event->probe));

        if (event->status) {
            json_object_set_new(o, "status", json_integer(event->status));
        }

        retry = ngx_http_llm_message_retry(mcf, event);

        if (retry) {
            json_object_set_new(o, "time_until_retry",
                                json_real((double) retry / 1000));
        }

    } else {
        json_object_set_new(o, "route",
                       ngx_http_llm_tree_string(&event->route->uscf->host));
    }

    if (event->lasted) {
        json_object_set_new(o, "lasted",
                            json_real((double) event->lasted / 1000));
    }

    json_object_set_new(o, "text", ngx_http_llm_message_text(mcf, event));

    return o;
}


/* whom it concerns */

static json_t *
ngx_http_llm_message_routes(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider)
{
    json_t                 *list;
    ngx_uint_t              i, n;
    ngx_http_llm_use_t     *use;
    ngx_http_llm_route_t  **route;

    list = json_array();
    route = mcf->routes.elts;

    for (i = 0; i < mcf->routes.nelts; i++) {

        use = route[i]->uses.elts;

        for (n = 0; n < route[i]->uses.nelts; n++) {

            if (use[n].provider == provider) {
                json_array_append_new(list,
                          ngx_http_llm_tree_string(&route[i]->uscf->host));
                break;
            }
        }
    }

    return list;
}


/* as "on=" calls it; of two names, one that was asked for */

static const char *
ngx_http_llm_message_what(ngx_http_llm_receiver_t *receiver,
    ngx_http_llm_event_t *event)
{
    ngx_uint_t  what;

    what = event->what & receiver->on;

    if (what & NGX_HTTP_LLM_ALERT_CREDENTIAL) {
        return "credential";
    }

    if (what & NGX_HTTP_LLM_ALERT_ALL_OPEN) {
        return "all_open";
    }

    return (what & NGX_HTTP_LLM_ALERT_OPEN) ? "open" : "close";
}


static json_t *
ngx_http_llm_message_text(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_event_t *event)
{
    u_char     *p, *last, text[NGX_HTTP_LLM_MESSAGE_TEXT];
    uint64_t    retry;
    ngx_str_t   s, *name;

    p = text;
    last = text + sizeof(text);

    name = event->provider ? &event->provider->name : &event->route->uscf->host;

    s.data = name->data;
    s.len = ngx_min(name->len, 256);

    if (event->provider == NULL) {
        p = event->over
            ? ngx_slprintf(p, last, "route \"%V\" has a provider again", &s)
            : ngx_slprintf(p, last, "route \"%V\" has no provider left: every "
                           "circuit is open, callers are refused", &s);

    } else if (event->probe) {
        p = ngx_http_llm_message_probe(p, last, event, &s);

    } else if (event->what & NGX_HTTP_LLM_ALERT_CLOSE) {
        p = ngx_slprintf(p, last, "provider \"%V\" is in service again", &s);

    } else if (event->over) {
        p = ngx_slprintf(p, last, "provider \"%V\" no longer refuses its key",
                         &s);

    } else if (event->what & NGX_HTTP_LLM_ALERT_CREDENTIAL) {
        p = ngx_slprintf(p, last, "provider \"%V\" is out of service: it "
                         "refuses the key, or there is no money", &s);
        p = ngx_http_llm_message_why(p, last, event);

    } else {
        p = ngx_slprintf(p, last, "provider \"%V\" is out of service", &s);
        p = ngx_http_llm_message_why(p, last, event);
    }

    if (event->lasted) {
        p = ngx_slprintf(p, last, ", after ");
        p = ngx_http_llm_message_duration(p, last, event->lasted);
    }

    retry = ngx_http_llm_message_retry(mcf, event);

    if (retry) {
        p = ngx_slprintf(p, last, "; it is asked again in ");
        p = ngx_http_llm_message_duration(p, last, retry);
    }

    s.data = text;
    s.len = p - text;

    return ngx_http_llm_tree_string(&s);
}


/* what a probe found of its key */

static u_char *
ngx_http_llm_message_probe(u_char *p, u_char *last,
    ngx_http_llm_event_t *event, ngx_str_t *name)
{
    if (event->over) {
        return ngx_slprintf(p, last, "provider \"%V\" takes its key again",
                            name);
    }

    p = ngx_slprintf(p, last, "provider \"%V\" refuses its key", name);
    p = ngx_http_llm_message_why(p, last, event);

    return ngx_slprintf(p, last, ", as a probe finds");
}


static u_char *
ngx_http_llm_message_why(u_char *p, u_char *last, ngx_http_llm_event_t *event)
{
    p = ngx_slprintf(p, last, " (%s", llm_reason_name(event->reason));

    if (event->status) {
        p = ngx_slprintf(p, last, ", status %ui", event->status);
    }

    return ngx_slprintf(p, last, ")");
}


static u_char *
ngx_http_llm_message_duration(u_char *p, u_char *last, uint64_t ms)
{
    uint64_t  s;

    s = (ms + 500) / 1000;

    if (s < 1) {
        return ngx_slprintf(p, last, "%uL ms", ms);
    }

    if (s < 120) {
        return ngx_slprintf(p, last, "%uL s", s);
    }

    if (s < 7200) {
        return ngx_slprintf(p, last, "%uL min %uL s", s / 60, s % 60);
    }

    return ngx_slprintf(p, last, "%uL h %uL min", s / 3600, s % 3600 / 60);
}


/* ms until the circuit lets somebody try, as it is now; 0: it does */

static uint64_t
ngx_http_llm_message_retry(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_event_t *event)
{
    llm_circuit_view_t  view;

    if (event->provider == NULL || event->over) {
        return 0;
    }

    llm_circuit_view(&event->provider->record->circuit,
                     &event->provider->circuit, ngx_http_llm_now(mcf), &view);

    return view.retry;
}


/* the three characters that mean something to Slack */

static json_t *
ngx_http_llm_message_escape(json_t *text)
{
    size_t       i, len;
    u_char      *dst, escaped[NGX_HTTP_LLM_MESSAGE_TEXT * 3 * 5];
    const char  *src;

    if (text == NULL) {
        return NULL;
    }

    dst = escaped;
    src = json_string_value(text);
    len = json_string_length(text);

    for (i = 0; i < len; i++) {

        switch (src[i]) {

        case '&':
            dst = ngx_cpymem(dst, "&amp;", 5);
            break;

        case '<':
            dst = ngx_cpymem(dst, "&lt;", 4);
            break;

        case '>':
            dst = ngx_cpymem(dst, "&gt;", 4);
            break;

        default:
            *dst++ = src[i];
        }
    }

    json_decref(text);

    return json_stringn((char *) escaped, dst - escaped);
}


static json_t *
ngx_http_llm_message_host(void)
{
    return ngx_http_llm_tree_string(&((ngx_cycle_t *) ngx_cycle)->hostname);
}
