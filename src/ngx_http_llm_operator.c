
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_operator.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_tree.h"


/*
 * The operator's word: what an order to a provider's circuit says, what it
 * does, and that it is over when its time is.
 *
 * Orders are obeyed one at a time, under the mutex of the zone's pool: of all
 * locks nginx releases this one for a worker that was killed.  Requests know
 * nothing of it: for them the word is a part of the circuit.
 */


#define NGX_HTTP_LLM_TTL_MIN  1000                          /* ms */
#define NGX_HTTP_LLM_TTL_MAX  ((ngx_int_t) 30 * 86400 * 1000)


typedef struct {
    const char                   *name;
    llm_admin_t                   admin;
    unsigned                      sets:1;         /* the operator's word */
    unsigned                      resets:1;       /* the circuit */
} ngx_http_llm_action_t;


typedef struct {
    ngx_http_llm_action_t        *action;
    uint64_t                      ttl;            /* ms; 0: none */
} ngx_http_llm_order_t;


/* how a circuit stands */

typedef struct {
    llm_admin_t                   admin;
    llm_circuit_state_t           state;
    uint64_t                      ttl;            /* ms; 0: none */
} ngx_http_llm_stand_t;


static ngx_int_t ngx_http_llm_order_read(ngx_http_request_t *r, json_t *json,
    ngx_http_llm_order_t *order, ngx_str_t *error);
static ngx_int_t ngx_http_llm_order_action(ngx_http_request_t *r, json_t *json,
    ngx_http_llm_order_t *order, ngx_str_t *error);
static size_t ngx_http_llm_order_quoted(const char *name);
static ngx_int_t ngx_http_llm_order_ttl(ngx_http_request_t *r, json_t *json,
    ngx_http_llm_order_t *order, ngx_str_t *error);
static ngx_int_t ngx_http_llm_order_invalid(ngx_http_request_t *r,
    ngx_str_t *error, const char *fmt, ...);
static json_t *ngx_http_llm_order_obey(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider, ngx_http_llm_order_t *order);
static void ngx_http_llm_order_stand(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider, ngx_http_llm_stand_t *stand);
static json_t *ngx_http_llm_order_describe(ngx_http_llm_stand_t *stand);
static void ngx_http_llm_order_log(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider, ngx_http_llm_order_t *order,
    ngx_http_llm_stand_t *was);


static ngx_http_llm_action_t  ngx_http_llm_actions[] = {
    { "open", LLM_ADMIN_OPEN, 1, 0 },
    { "close", LLM_ADMIN_AUTO, 1, 1 },
    { "disable", LLM_ADMIN_DISABLED, 1, 0 },
    { "observe", LLM_ADMIN_OBSERVE, 1, 0 },
    { "auto", LLM_ADMIN_AUTO, 1, 0 },
    { "reset", LLM_ADMIN_AUTO, 0, 1 },
    { NULL, LLM_ADMIN_AUTO, 0, 0 }
};


/*
 * Obeys the order in a body; what was and what is.  NULL: it is no order, or
 * there is no memory; error says what was expected, or is empty.
 */

json_t *
ngx_http_llm_order(ngx_http_request_t *r, ngx_http_llm_provider_t *provider,
    ngx_str_t *body, ngx_str_t *error)
{
    json_t                *json;
    ngx_int_t              rc;
    ngx_http_llm_order_t   order;

    ngx_str_null(error);

    order.action = NULL;

    json = json_loadb((char *) body->data, body->len, JSON_REJECT_DUPLICATES,
                      NULL);

    rc = ngx_http_llm_order_read(r, json, &order, error);

    json_decref(json);

    return rc == NGX_OK ? ngx_http_llm_order_obey(r, provider, &order) : NULL;
}


static ngx_int_t
ngx_http_llm_order_read(ngx_http_request_t *r, json_t *json,
    ngx_http_llm_order_t *order, ngx_str_t *error)
{
    void        *i;
    ngx_int_t    rc;
    const char  *name;

    if (!json_is_object(json)) {
        return ngx_http_llm_order_invalid(r, error,
                   "The body is no JSON object: expected, for example, "
                   "{\"action\":\"open\",\"ttl\":\"10m\"}.");
    }

    for (i = json_object_iter(json); i; i = json_object_iter_next(json, i)) {

        name = json_object_iter_key(i);

        if (ngx_strcmp(name, "action") != 0 && ngx_strcmp(name, "ttl") != 0) {
            return ngx_http_llm_order_invalid(r, error,
                       "Unknown member \"%*s\": expected \"action\" and "
                       "perhaps \"ttl\".", ngx_http_llm_order_quoted(name),
                       name);
        }
    }

    rc = ngx_http_llm_order_action(r, json_object_get(json, "action"), order,
                                   error);

    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_llm_order_ttl(r, json_object_get(json, "ttl"), order,
                                  error);
}


static ngx_int_t
ngx_http_llm_order_action(ngx_http_request_t *r, json_t *json,
    ngx_http_llm_order_t *order, ngx_str_t *error)
{
    const char             *name;
    ngx_http_llm_action_t  *action;

    /* jansson takes no string with a zero in it */

    name = json_is_string(json) ? json_string_value(json) : "";

    for (action = ngx_http_llm_actions; action->name; action++) {

        if (ngx_strcmp(action->name, name) == 0) {
            order->action = action;
            return NGX_OK;
        }
    }

    return ngx_http_llm_order_invalid(r, error,
               "Unknown action \"%*s\": expected \"open\", \"close\", "
               "\"disable\", \"observe\", \"auto\" or \"reset\".",
               ngx_http_llm_order_quoted(name), name);
}


/* So much of it that there is room for what is expected. */

static size_t
ngx_http_llm_order_quoted(const char *name)
{
    return ngx_min(ngx_strlen(name), NGX_HTTP_LLM_API_QUOTED);
}


/* A number of seconds, or a time as nginx writes it. */

static ngx_int_t
ngx_http_llm_order_ttl(ngx_http_request_t *r, json_t *json,
    ngx_http_llm_order_t *order, ngx_str_t *error)
{
    double     seconds;
    ngx_int_t  ms;
    ngx_str_t  value;

    order->ttl = 0;

    if (json == NULL) {
        return NGX_OK;
    }

    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): order_action() */
    if (order->action->admin == LLM_ADMIN_AUTO) {
        return ngx_http_llm_order_invalid(r, error,
                   "\"%s\" takes no \"ttl\": expected one with \"open\", "
                   "\"disable\" or \"observe\" only.", order->action->name);
    }

    ms = NGX_ERROR;

    if (json_is_string(json)) {
        value.data = (u_char *) json_string_value(json);
        value.len = json_string_length(json);

        ms = ngx_parse_time(&value, 0);

    } else if (json_is_number(json)) {
        seconds = json_number_value(json);

        if (seconds > 0 && seconds * 1000 <= (double) NGX_HTTP_LLM_TTL_MAX) {
            ms = (ngx_int_t) (seconds * 1000);
        }
    }

    if (ms < NGX_HTTP_LLM_TTL_MIN || ms > NGX_HTTP_LLM_TTL_MAX) {
        return ngx_http_llm_order_invalid(r, error,
                   "Invalid \"ttl\": expected a time from 1s to 30d, such as "
                   "\"10m\", or a number of seconds.");
    }

    order->ttl = ms;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_order_invalid(ngx_http_request_t *r, ngx_str_t *error,
    const char *fmt, ...)
{
    va_list  args;

    error->data = ngx_pnalloc(r->pool, 256);
    if (error->data == NULL) {
        return NGX_ERROR;
    }

    va_start(args, fmt);
    error->len = ngx_vslprintf(error->data, error->data + 256, fmt, args)
                 - error->data;
    va_end(args);

    return NGX_DECLINED;
}


static json_t *
ngx_http_llm_order_obey(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider, ngx_http_llm_order_t *order)
{
    llm_circuit_t             *circuit;
    ngx_slab_pool_t           *shpool;
    llm_transition_t           over, reset, word;
    ngx_http_llm_stand_t       was, is;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);
    shpool = (ngx_slab_pool_t *) mcf->shm_zone->shm.addr;
    circuit = &provider->record->circuit;

    reset.reason = LLM_REASON_NONE;
    word.reason = LLM_REASON_NONE;

    ngx_shmtx_lock(&shpool->mutex);

    (void) llm_circuit_admin_expire(circuit, ngx_http_llm_time(mcf), &over);

    ngx_http_llm_order_stand(mcf, provider, &was);

    /* the word comes last: what is to be closed is not probed meanwhile */

    if (order->action->resets) {
        llm_circuit_reset(circuit, ngx_http_llm_now(mcf), &reset);
    }

    if (order->action->sets) {
        (void) llm_circuit_admin_for(circuit, order->action->admin, order->ttl,
                                     ngx_http_llm_time(mcf), &word);
    }

    ngx_http_llm_order_stand(mcf, provider, &is);

    ngx_shmtx_unlock(&shpool->mutex);

    ngx_http_llm_moved(r, provider, &over, 0);
    ngx_http_llm_order_log(r, provider, order, &was);
    ngx_http_llm_moved(r, provider, &reset, 0);
    ngx_http_llm_moved(r, provider, &word, 0);

    ngx_http_llm_wake();

    return json_pack("{s:o, s:s, s:o, s:o}",
                     "provider", ngx_http_llm_tree_string(&provider->name),
                     "action", order->action->name,
                     "was", ngx_http_llm_order_describe(&was),
                     "is", ngx_http_llm_order_describe(&is));
}


static void
ngx_http_llm_order_stand(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_provider_t *provider, ngx_http_llm_stand_t *stand)
{
    llm_circuit_view_t  view;

    stand->admin = llm_circuit_admin_now(&provider->record->circuit,
                                         ngx_http_llm_time(mcf), &stand->ttl);

    llm_circuit_view(&provider->record->circuit, &provider->circuit,
                     ngx_http_llm_now(mcf), &view);

    stand->state = view.state;
}


static json_t *
ngx_http_llm_order_describe(ngx_http_llm_stand_t *stand)
{
    const char  *admin, *state;

    admin = llm_admin_name(stand->admin);
    state = llm_circuit_state_name(stand->state);

    if (stand->ttl == 0) {
        return json_pack("{s:s, s:s}", "admin", admin, "state", state);
    }

    return json_pack("{s:s, s:s, s:f}", "admin", admin, "state", state,
                     "ttl", (double) stand->ttl / 1000);
}


static void
ngx_http_llm_order_log(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider, ngx_http_llm_order_t *order,
    ngx_http_llm_stand_t *was)
{
    u_char     buf[sizeof(" for .000s") + NGX_INT64_LEN];
    ngx_str_t  user, ttl;

    ngx_str_set(&user, "-");

    if (ngx_http_auth_basic_user(r) == NGX_OK) {
        user = r->headers_in.user;
    }

    ttl.data = buf;
    ttl.len = 0;

    if (order->ttl) {
        ttl.len = ngx_sprintf(buf, " for %uL.%03uLs", order->ttl / 1000,
                              order->ttl % 1000)
                  - buf;
    }

    /* the name is the caller's own, and may hold anything */

    user = ngx_http_llm_printable(r, &user);

    ngx_log_error(ngx_http_llm_log_operator(r), r->connection->log, 0,
                  "llm: operator \"%V\" at %V: \"%s\"%V to provider \"%V\", "
                  "which was %s and %s",
                  &user, &r->connection->addr_text, order->action->name, &ttl,
                  &provider->name, llm_admin_name(was->admin),
                  llm_circuit_state_name(was->state));
}


/* What a caller wrote, for people: no line of their own, no odd bytes. */

ngx_str_t
ngx_http_llm_printable(ngx_http_request_t *r, ngx_str_t *text)
{
    size_t     i;
    ngx_str_t  safe;

    safe.len = text->len;
    safe.data = ngx_pnalloc(r->pool, text->len);

    if (safe.data == NULL) {
        safe.len = 0;
    }

    for (i = 0; i < safe.len; i++) {
        safe.data[i] = (text->data[i] < 0x20 || text->data[i] > 0x7e)
                       ? '?' : text->data[i];
    }

    return safe;
}
