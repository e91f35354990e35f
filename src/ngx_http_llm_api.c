
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_describe.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_operator.h"
#include "ngx_http_llm_pages.h"
#include "ngx_http_llm_provider.h"


/*
 * llm_api: an operator asks and orders.
 *
 *     GET  .../providers          what llm_status says of all of them
 *     GET  .../providers/NAME     and of this one
 *     POST .../providers/NAME     {"action":"open","ttl":"10m"}
 *
 * Who may is asked first: without "remote" only this machine, and never a
 * page of another site in an operator's browser.
 */


#define NGX_HTTP_LLM_API_BODY  4096


typedef struct {
    size_t                        len;            /* more than there is room */
    u_char                        data[NGX_HTTP_LLM_API_BODY];
} ngx_http_llm_api_body_t;


static ngx_int_t ngx_http_llm_api_may(ngx_http_request_t *r);
static ngx_uint_t ngx_http_llm_api_is_local(ngx_http_request_t *r);
static ngx_uint_t ngx_http_llm_api_is_foreign(ngx_http_request_t *r,
    ngx_uint_t remote);
static ngx_uint_t ngx_http_llm_api_is_loopback(ngx_str_t *authority);
static ngx_int_t ngx_http_llm_api_find(ngx_http_request_t *r,
    ngx_http_llm_provider_t **provider);
static ngx_int_t ngx_http_llm_api_get(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider);
static ngx_int_t ngx_http_llm_api_post(ngx_http_request_t *r);
static void ngx_http_llm_api_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_api_act(ngx_http_request_t *r);
static llm_json_rc_t ngx_http_llm_api_gather(void *data, u_char *p,
    size_t len);
static ngx_int_t ngx_http_llm_api_not_allowed(ngx_http_request_t *r,
    const char *allow);
static ngx_int_t ngx_http_llm_api_too_large(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_api_error(ngx_http_request_t *r,
    ngx_uint_t status, const char *fmt, ...);
static ngx_int_t ngx_http_llm_api_send(ngx_http_request_t *r,
    ngx_uint_t status, json_t *json);


static ngx_str_t  ngx_http_llm_origin_header = ngx_string("origin");
static ngx_str_t  ngx_http_llm_fetch_site_header =
                                           ngx_string("sec-fetch-site");


/* llm_api [ZONE] [remote] */

char *
ngx_http_llm_api(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    char                      *rv;
    ngx_str_t                 *value;
    ngx_uint_t                 i;
    ngx_http_llm_main_conf_t  *mcf;

    if (llcf->api) {
        return "is duplicate";
    }

    rv = ngx_http_llm_pages_answer(cf, llcf, ngx_http_llm_api_handler);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);
    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "remote") == 0) {
            llcf->api_remote = 1;
            continue;
        }

        if (!ngx_http_llm_pages_zone(mcf, &value[i])) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown zone \"%V\" in \"llm_api\": expected "
                               "\"remote\", or the name given by an "
                               "\"llm_zone\" above", &value[i]);
            return NGX_CONF_ERROR;
        }
    }

    llcf->api = 1;
    mcf->status = 1;

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_llm_api_handler(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    ngx_http_llm_provider_t  *provider;

    rc = ngx_http_llm_api_may(r);

    if (rc != NGX_DECLINED) {
        return rc;
    }

    rc = ngx_http_llm_api_find(r, &provider);

    if (rc != NGX_DECLINED) {
        return rc;
    }

    if (r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD)) {
        return ngx_http_llm_api_get(r, provider);
    }

    if (provider == NULL) {
        return ngx_http_llm_api_not_allowed(r, "GET, HEAD");
    }

    if (r->method != NGX_HTTP_POST) {
        return ngx_http_llm_api_not_allowed(r, "GET, HEAD, POST");
    }

    return ngx_http_llm_api_post(r);
}


/* NGX_DECLINED: this caller may. */

static ngx_int_t
ngx_http_llm_api_may(ngx_http_request_t *r)
{
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (!llcf->api_remote && !ngx_http_llm_api_is_local(r)) {
        ngx_log_error(ngx_http_llm_log_operator(r), r->connection->log, 0,
                      "llm: operator's API is for this machine only, "
                      "refused to %V", &r->connection->addr_text);

        return ngx_http_llm_api_error(r, NGX_HTTP_FORBIDDEN,
                   "This is for callers on the same machine only. "
                   "\"llm_api remote\" lets others in.");
    }

    if (ngx_http_llm_api_is_foreign(r, llcf->api_remote)) {
        ngx_log_error(ngx_http_llm_log_operator(r), r->connection->log, 0,
                      "llm: operator's API refused to a page of another "
                      "site, from %V", &r->connection->addr_text);

        return ngx_http_llm_api_error(r, NGX_HTTP_FORBIDDEN,
                   "This is not for pages of other sites: a request must "
                   "have no \"Origin\", or this server's own.");
    }

    return NGX_DECLINED;
}


static ngx_uint_t
ngx_http_llm_api_is_local(ngx_http_request_t *r)
{
    struct sockaddr      *sa;
    struct sockaddr_in   *sin;
#if (NGX_HAVE_INET6)
    u_char               *p;
    struct sockaddr_in6  *sin6;
#endif

    sa = r->connection->sockaddr;

    switch (sa->sa_family) {

    case AF_INET:
        sin = (struct sockaddr_in *) sa;
        return (ntohl(sin->sin_addr.s_addr) >> 24) == 127;

#if (NGX_HAVE_INET6)
    case AF_INET6:
        sin6 = (struct sockaddr_in6 *) sa;
        p = sin6->sin6_addr.s6_addr;

        return IN6_IS_ADDR_LOOPBACK(&sin6->sin6_addr)
               || (IN6_IS_ADDR_V4MAPPED(&sin6->sin6_addr) && p[12] == 127);
#endif

    default:
        return sa->sa_family == AF_UNIX;
    }
}


/*
 * Browsers name the site of a page that asks.  The name of another site may
 * have been made to lead here, so where only this machine may, the site has
 * to be called so, too.
 */

static ngx_uint_t
ngx_http_llm_api_is_foreign(ngx_http_request_t *r, ngx_uint_t remote)
{
    u_char           *p;
    ngx_str_t        *host, authority;
    ngx_table_elt_t  *h;

    h = ngx_http_llm_find_header(&r->headers_in.headers,
                                 &ngx_http_llm_fetch_site_header);

    if (h && ngx_strcasecmp(h->value.data, (u_char *) "same-origin") != 0
        && ngx_strcasecmp(h->value.data, (u_char *) "none") != 0)
    {
        return 1;
    }

    h = ngx_http_llm_find_header(&r->headers_in.headers,
                                 &ngx_http_llm_origin_header);
    if (h == NULL) {
        return 0;
    }

    p = (u_char *) ngx_strstr(h->value.data, "://");

    if (p == NULL || r->headers_in.host == NULL) {
        return 1;
    }

    authority.data = p + 3;
    authority.len = h->value.data + h->value.len - authority.data;

    host = &r->headers_in.host->value;

    return authority.len != host->len
           || ngx_strncasecmp(authority.data, host->data, host->len) != 0
           || (!remote && !ngx_http_llm_api_is_loopback(&authority));
}


static ngx_uint_t
ngx_http_llm_api_is_loopback(ngx_str_t *authority)
{
    u_char     *p, *last;
    in_addr_t   addr;

    last = authority->data + authority->len;

    if (authority->len >= 5 && ngx_strncmp(authority->data, "[::1]", 5) == 0) {
        return 1;
    }

    p = ngx_strlchr(authority->data, last, ':');

    if (p) {
        last = p;
    }

    if (last - authority->data == sizeof("localhost") - 1
        && ngx_strncasecmp(authority->data, (u_char *) "localhost",
                           sizeof("localhost") - 1)
           == 0)
    {
        return 1;
    }

    addr = ngx_inet_addr(authority->data, last - authority->data);

    return addr != INADDR_NONE && (ntohl(addr) >> 24) == 127;
}


/* NGX_DECLINED: *provider is the one that is meant, NULL: all of them. */

static ngx_int_t
ngx_http_llm_api_find(ngx_http_request_t *r, ngx_http_llm_provider_t **provider)
{
    u_char                    *p, *last;
    ngx_str_t                  name;
    ngx_http_llm_main_conf_t  *mcf;

    *provider = NULL;

    last = r->uri.data + r->uri.len;

    p = ngx_strnstr(r->uri.data, "/providers", r->uri.len);

    if (p == NULL
        || (p + sizeof("/providers") - 1 != last
            && p[sizeof("/providers") - 1] != '/'))
    {
        return ngx_http_llm_api_error(r, NGX_HTTP_NOT_FOUND,
                   "There is nothing here: expected \".../providers\" or "
                   "\".../providers/NAME\".");
    }

    name.data = ngx_min(p + sizeof("/providers"), last);
    name.len = last - name.data;

    if (name.len == 0) {
        return NGX_DECLINED;
    }

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    *provider = ngx_http_llm_find_provider(mcf, &name);

    if (*provider == NULL) {
        return ngx_http_llm_api_error(r, NGX_HTTP_NOT_FOUND,
                   "There is no provider \"%*s\": expected one that "
                   "\".../providers\" lists.",
                   ngx_min(name.len, NGX_HTTP_LLM_API_QUOTED), name.data);
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_llm_api_get(ngx_http_request_t *r, ngx_http_llm_provider_t *provider)
{
    json_t                    *json, *list;
    ngx_int_t                  rc;
    ngx_uint_t                 i, changes;
    ngx_http_llm_main_conf_t  *mcf;
    ngx_http_llm_provider_t  **providerp;

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    if (provider) {
        json = ngx_http_llm_describe_provider(mcf, provider, LLM_HISTORY);

        return ngx_http_llm_api_send(r, NGX_HTTP_OK, json);
    }

    changes = ngx_http_llm_describe_most(mcf, LLM_HISTORY);

    list = json_array();
    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {
        json_array_append_new(list,
                              ngx_http_llm_describe_provider(mcf, providerp[i],
                                                             changes));
    }

    json = json_object();
    json_object_set_new(json, "providers", list);

    return ngx_http_llm_api_send(r, NGX_HTTP_OK, json);
}


static ngx_int_t
ngx_http_llm_api_post(ngx_http_request_t *r)
{
    ngx_int_t   rc;
    ngx_str_t  *type;

    /* a page of another site can send a form, but this only if we agree */

    type = r->headers_in.content_type ? &r->headers_in.content_type->value
                                      : NULL;

    if (type == NULL
        || ngx_strncasecmp(type->data, (u_char *) "application/json",
                           sizeof("application/json") - 1)
           != 0
        || (type->len > sizeof("application/json") - 1
            && type->data[sizeof("application/json") - 1] != ';'
            && type->data[sizeof("application/json") - 1] != ' '))
    {
        return ngx_http_llm_api_error(r, NGX_HTTP_UNSUPPORTED_MEDIA_TYPE,
                   "The body is not said to be JSON: expected "
                   "\"Content-Type: application/json\".");
    }

    if (r->headers_in.content_length_n > NGX_HTTP_LLM_API_BODY) {
        return ngx_http_llm_api_too_large(r);
    }

    rc = ngx_http_read_client_request_body(r, ngx_http_llm_api_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;
}


static void
ngx_http_llm_api_body_handler(ngx_http_request_t *r)
{
    ngx_http_finalize_request(r, ngx_http_llm_api_act(r));
}


static ngx_int_t
ngx_http_llm_api_act(ngx_http_request_t *r)
{
    json_t                   *json;
    ngx_int_t                 rc;
    ngx_str_t                 text, error;
    ngx_http_llm_provider_t  *provider;
    ngx_http_llm_api_body_t  *body;

    rc = ngx_http_llm_api_find(r, &provider);

    if (rc != NGX_DECLINED) {
        return rc;
    }

    body = ngx_palloc(r->pool, sizeof(ngx_http_llm_api_body_t));
    if (body == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    body->len = 0;

    rc = ngx_http_llm_body_read(r, ngx_http_llm_api_gather, body);

    if (rc != NGX_OK) {
        return rc;
    }

    if (body->len > NGX_HTTP_LLM_API_BODY) {
        return ngx_http_llm_api_too_large(r);
    }

    text.data = body->data;
    text.len = body->len;

    json = ngx_http_llm_order(r, provider, &text, &error);

    if (json == NULL && error.len) {
        return ngx_http_llm_api_error(r, NGX_HTTP_BAD_REQUEST, "%V", &error);
    }

    return ngx_http_llm_api_send(r, NGX_HTTP_OK, json);
}


static llm_json_rc_t
ngx_http_llm_api_gather(void *data, u_char *p, size_t len)
{
    ngx_http_llm_api_body_t *body = data;

    if (len > NGX_HTTP_LLM_API_BODY - body->len) {
        body->len = NGX_HTTP_LLM_API_BODY + 1;
        return LLM_JSON_ERROR;
    }

    ngx_memcpy(body->data + body->len, p, len);
    body->len += len;

    return LLM_JSON_AGAIN;
}


static ngx_int_t
ngx_http_llm_api_not_allowed(ngx_http_request_t *r, const char *allow)
{
    ngx_str_t  value;

    value.data = (u_char *) allow;
    value.len = ngx_strlen(allow);

    if (ngx_http_llm_push_header(r, "Allow", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_api_error(r, NGX_HTTP_NOT_ALLOWED,
               "This method is not allowed here: expected %s.", allow);
}


static ngx_int_t
ngx_http_llm_api_too_large(ngx_http_request_t *r)
{
    return ngx_http_llm_api_error(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
               "The body is too large: expected at most %d bytes.",
               NGX_HTTP_LLM_API_BODY);
}


static ngx_int_t
ngx_http_llm_api_error(ngx_http_request_t *r, ngx_uint_t status,
    const char *fmt, ...)
{
    u_char       text[512];
    json_t      *json, *error;
    va_list      args;
    ngx_int_t    rc;
    ngx_str_t    message;

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    va_start(args, fmt);
    message.data = text;
    message.len = ngx_vslprintf(text, text + sizeof(text), fmt, args) - text;
    va_end(args);

    message = ngx_http_llm_printable(r, &message);

    error = json_object();
    json_object_set_new(error, "message",
                        json_stringn((char *) message.data, message.len));

    json = json_object();
    json_object_set_new(json, "error", error);

    return ngx_http_llm_api_send(r, status, json);
}


/* Takes json for its own. */

static ngx_int_t
ngx_http_llm_api_send(ngx_http_request_t *r, ngx_uint_t status, json_t *json)
{
    ngx_str_t  value;

    ngx_str_set(&value, "no-store");

    if (ngx_http_llm_push_header(r, "Cache-Control", &value) != NGX_OK) {
        json_decref(json);
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_pages_send(r, status, json);
}
