
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_receiver.h"
#include "ngx_http_llm_target.h"


/*
 * llm_alert: who is told, of what, and in which form.  The URL may be a
 * secret, as those of chat rooms are: it is shown nowhere, the host is.
 */


#define NGX_HTTP_LLM_ALERT_INTERVAL  10000        /* ms */


static char *ngx_http_llm_alert_url(ngx_conf_t *cf,
    ngx_http_llm_receiver_t *receiver);
static char *ngx_http_llm_alert_check(ngx_str_t *url);
static char *ngx_http_llm_alert_name(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf, ngx_http_llm_receiver_t *receiver,
    ngx_url_t *u);
static char *ngx_http_llm_alert_parameter(ngx_conf_t *cf,
    ngx_http_llm_receiver_t *receiver, ngx_str_t *value);
static char *ngx_http_llm_alert_on(ngx_conf_t *cf,
    ngx_http_llm_receiver_t *receiver, ngx_str_t *value);
static ngx_http_llm_posts_t *ngx_http_llm_alert_posts(
    ngx_http_llm_shctx_t *sh, ngx_slab_pool_t *shpool, ngx_str_t *name);


static ngx_http_llm_alert_format_t  ngx_http_llm_alert_formats[] = {
    { ngx_string("json"), ngx_http_llm_message_json,
      NGX_HTTP_LLM_ALERT_EVENTS, 0 },
    { ngx_string("slack"), ngx_http_llm_message_slack,
      NGX_HTTP_LLM_ALERT_EVENTS, 0 },
    { ngx_string("pagerduty"), ngx_http_llm_message_pagerduty, 1, 1 },
    { ngx_null_string, NULL, 0, 0 }
};


static ngx_conf_bitmask_t  ngx_http_llm_alert_events[] = {
    { ngx_string("open"), NGX_HTTP_LLM_ALERT_OPEN },
    { ngx_string("close"), NGX_HTTP_LLM_ALERT_CLOSE },
    { ngx_string("all_open"), NGX_HTTP_LLM_ALERT_ALL_OPEN },
    { ngx_string("credential"), NGX_HTTP_LLM_ALERT_CREDENTIAL },
    { ngx_null_string, 0 }
};


/* llm_alert URL [on=EVENT,...] [interval=TIME] [format=NAME] ... */

char *
ngx_http_llm_alert(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *mcf = conf;

    char                      *rv;
    ngx_str_t                 *value;
    ngx_uint_t                 i, literal;
    ngx_http_llm_receiver_t   *receiver, **receiverp;

    receiver = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_receiver_t));
    if (receiver == NULL) {
        return NGX_CONF_ERROR;
    }

    receiver->mcf = mcf;
    receiver->interval = NGX_CONF_UNSET_MSEC;

    value = cf->args->elts;

    for (i = 2; i < cf->args->nelts; i++) {

        rv = ngx_http_llm_alert_parameter(cf, receiver, &value[i]);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    ngx_conf_init_msec_value(receiver->interval, NGX_HTTP_LLM_ALERT_INTERVAL);

    if (receiver->on == 0) {
        receiver->on = NGX_HTTP_LLM_ALERT_ALL;
    }

    if (receiver->format == NULL) {
        receiver->format = ngx_http_llm_alert_formats;
    }

    if (receiver->format->message == ngx_http_llm_message_pagerduty
        && receiver->key.len == 0)
    {
        return "has no \"key=VALUE\", which \"format=pagerduty\" needs: the "
               "integration's key";
    }

    rv = ngx_http_llm_secret(cf, &value[1], &receiver->url, &literal);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    rv = ngx_http_llm_alert_url(cf, receiver);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    receiverp = ngx_array_push(&mcf->receivers);
    if (receiverp == NULL) {
        return NGX_CONF_ERROR;
    }

    *receiverp = receiver;

    mcf->calls = 1;

    return NGX_CONF_OK;
}


/* No message shows what may be a secret. */

static char *
ngx_http_llm_alert_url(ngx_conf_t *cf, ngx_http_llm_receiver_t *receiver)
{
    char                      *rv;
    size_t                     schema;
    ngx_url_t                  u;
    ngx_str_t                  url;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = receiver->mcf;
    url = receiver->url;

    ngx_memzero(&u, sizeof(ngx_url_t));

    if (url.len > 8
        && ngx_strncasecmp(url.data, (u_char *) "https://", 8) == 0)
    {
#if !(NGX_HTTP_SSL)
        return "is https, which needs an nginx that was built "
               "--with-http_ssl_module";
#endif
        schema = 8;
        u.default_port = 443;
        mcf->tls = 1;

    } else if (url.len > 7
               && ngx_strncasecmp(url.data, (u_char *) "http://", 7) == 0)
    {
        schema = 7;
        u.default_port = 80;

    } else {
        return "has no valid URL: expected \"https://HOST[:PORT]/PATH\", or "
               "\"env:NAME\" or \"file:PATH\" where that stands";
    }

    u.url.data = url.data + schema;
    u.url.len = url.len - schema;
    u.uri_part = 1;
    u.no_resolve = 1;

    rv = ngx_http_llm_alert_check(&u.url);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (ngx_parse_url(cf->pool, &u) != NGX_OK || u.host.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in the URL of \"llm_alert\": expected "
                           "\"https://HOST[:PORT]/PATH\"",
                           u.err ? u.err : "no host");
        return NGX_CONF_ERROR;
    }

    if (ngx_http_llm_alert_name(cf, mcf, receiver, &u) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    receiver->target = ngx_http_llm_target_create(cf, &u, "llm_alert",
                                                  "receiver", &receiver->name);
    if (receiver->target == NULL) {
        return NGX_CONF_ERROR;
    }

#if (NGX_HTTP_SSL)

    if (schema == 8) {

        if (receiver->certificate.len == 0) {
            ngx_str_set(&receiver->certificate, NGX_HTTP_LLM_CA_FILE);
        }

        receiver->trust = ngx_http_llm_curl_trust(cf, &receiver->certificate);

        if (receiver->trust == NULL) {
            return NGX_CONF_ERROR;
        }
    }

#endif

    return NGX_CONF_OK;
}


/* What nginx's own parser would take; url is without its scheme. */

static char *
ngx_http_llm_alert_check(ngx_str_t *url)
{
    u_char  *p, *last, *host_end;

    last = url->data + url->len;

    for (p = url->data; p < last; p++) {
        if (*p <= 0x20 || *p >= 0x7f || *p == '#' || *p == '\\') {
            return "has a URL with a blank, a fragment, or a character that "
                   "is to be written as %XX";
        }
    }

    if (ngx_strncasecmp(url->data, (u_char *) "unix:", 5) == 0) {
        return "has a URL of a unix socket: expected "
               "\"https://HOST[:PORT]/PATH\"";
    }

    host_end = ngx_strlchr(url->data, last, '/');

    if (host_end == NULL) {
        host_end = last;
    }

    if (ngx_strlchr(url->data, host_end, '@')
        || ngx_strlchr(url->data, host_end, '$'))
    {
        return "has a URL with credentials or a variable: expected "
               "\"https://HOST[:PORT]/PATH\", and a secret in \"key=\"";
    }

    return NGX_CONF_OK;
}


/* Of several with the same host the second is "HOST#2". */

static char *
ngx_http_llm_alert_name(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_receiver_t *receiver, ngx_url_t *u)
{
    u_char                   *p;
    ngx_str_t                 host;
    ngx_uint_t                i, n;
    ngx_http_llm_receiver_t  **other;

    host.data = u->host.data;
    host.len = u->no_port ? u->host.len
                          : u->host.len + 1 + u->port_text.len;

    n = 1;
    other = mcf->receivers.elts;

    for (i = 0; i < mcf->receivers.nelts; i++) {
        if (other[i]->name.len >= host.len
            && ngx_strncmp(other[i]->name.data, host.data, host.len) == 0
            && (other[i]->name.len == host.len
                || other[i]->name.data[host.len] == '#'))
        {
            n++;
        }
    }

    if (n == 1) {
        receiver->name = host;
        return NGX_CONF_OK;
    }

    p = ngx_pnalloc(cf->pool, host.len + 1 + NGX_INT_T_LEN);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    receiver->name.data = p;
    receiver->name.len = ngx_sprintf(p, "%V#%ui", &host, n) - p;

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_alert_parameter(ngx_conf_t *cf, ngx_http_llm_receiver_t *receiver,
    ngx_str_t *value)
{
    u_char                       *p;
    ngx_str_t                     s;
    ngx_uint_t                    literal;
    ngx_http_llm_alert_format_t  *format;

    p = ngx_strlchr(value->data, value->data + value->len, '=');

    if (p == NULL) {
        p = value->data;
    }

    s.data = p + 1;
    s.len = value->data + value->len - s.data;

    if (ngx_strncmp(value->data, "on=", 3) == 0) {
        return ngx_http_llm_alert_on(cf, receiver, &s);
    }

    if (ngx_strncmp(value->data, "trusted_certificate=", 20) == 0) {
        receiver->certificate = s;

        return s.len ? ngx_conf_full_name(cf->cycle, &receiver->certificate, 1)
                       == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR
                     : "has an empty \"trusted_certificate=\"";
    }

    if (ngx_strncmp(value->data, "key=", 4) == 0) {
        return ngx_http_llm_secret(cf, &s, &receiver->key, &literal);
    }

    if (ngx_strncmp(value->data, "interval=", 9) == 0) {
        receiver->interval = ngx_parse_time(&s, 0);

        if (receiver->interval == (ngx_msec_t) NGX_ERROR
            || receiver->interval > 86400 * 1000)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" in \"llm_alert\": "
                               "expected a time from 0 to 1d", value);
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "format=", 7) == 0) {

        for (format = ngx_http_llm_alert_formats; format->name.len; format++) {

            if (format->name.len == s.len
                && ngx_strncmp(format->name.data, s.data, s.len) == 0)
            {
                receiver->format = format;
                return NGX_CONF_OK;
            }
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" in \"llm_alert\": "
                           "expected \"format=json\", \"format=slack\" or "
                           "\"format=pagerduty\"", value);
        return NGX_CONF_ERROR;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter in \"llm_alert\": expected "
                       "\"on=\", \"interval=\", \"format=\", \"key=\" or "
                       "\"trusted_certificate=\" behind the URL");

    return NGX_CONF_ERROR;
}


/* on=open,close,all_open,credential */

static char *
ngx_http_llm_alert_on(ngx_conf_t *cf, ngx_http_llm_receiver_t *receiver,
    ngx_str_t *value)
{
    u_char              *p, *end, *last;
    size_t               len;
    ngx_conf_bitmask_t  *event;

    last = value->data + value->len;

    for (p = value->data; p <= last; p = end + 1) {

        end = ngx_strlchr(p, last, ',');

        if (end == NULL) {
            end = last;
        }

        len = end - p;

        for (event = ngx_http_llm_alert_events; event->name.len; event++) {

            if (event->name.len == len
                && ngx_strncmp(event->name.data, p, len) == 0)
            {
                break;
            }
        }

        if (event->name.len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid event \"%*s\" in \"on=\" of "
                               "\"llm_alert\": expected \"open\", \"close\", "
                               "\"all_open\" or \"credential\", with commas "
                               "between them", len, p);
            return NGX_CONF_ERROR;
        }

        receiver->on |= event->mask;
    }

    return NGX_CONF_OK;
}


json_t *
ngx_http_llm_alert_describe(ngx_http_llm_main_conf_t *mcf, void *entry,
    ngx_uint_t changes)
{
    ngx_http_llm_receiver_t *receiver = entry;

    json_t                *o;
    ngx_http_llm_posts_t  *posts;

    posts = receiver->posts;

    o = json_object();

    ngx_http_llm_set(o, "name", ngx_http_llm_tree_string(&receiver->name));
    ngx_http_llm_set(o, "delivered", json_integer(posts->delivered));
    ngx_http_llm_set(o, "dropped", json_integer(posts->dropped));
    ngx_http_llm_set(o, "failures", json_integer(posts->failures));

    return o;
}


/* What is counted of the receivers; from: of the zone before, or NULL. */

ngx_int_t
ngx_http_llm_alert_zone(ngx_http_llm_main_conf_t *mcf, ngx_slab_pool_t *shpool,
    ngx_http_llm_shctx_t *from)
{
    ngx_uint_t                i;
    ngx_http_llm_posts_t     *posts, *old;
    ngx_http_llm_receiver_t **receiver;

    receiver = mcf->receivers.elts;

    for (i = 0; i < mcf->receivers.nelts; i++) {

        posts = ngx_http_llm_alert_posts(mcf->sh, shpool, &receiver[i]->name);
        if (posts == NULL) {
            return NGX_ERROR;
        }

        receiver[i]->posts = posts;
        receiver[i]->target->known = &posts->known;

        for (old = from ? from->posts : NULL; old; old = old->next) {

            if (old->name.len == posts->name.len
                && ngx_strncmp(old->name.data, posts->name.data,
                               posts->name.len)
                   == 0)
            {
                posts->known = old->known;
                posts->delivered = old->delivered;
                posts->dropped = old->dropped;
                posts->failures = old->failures;
            }
        }

        (void) ngx_http_llm_target_recall(receiver[i]->target);
    }

    return NGX_OK;
}


static ngx_http_llm_posts_t *
ngx_http_llm_alert_posts(ngx_http_llm_shctx_t *sh, ngx_slab_pool_t *shpool,
    ngx_str_t *name)
{
    ngx_http_llm_posts_t  *posts;

    for (posts = sh->posts; posts; posts = posts->next) {
        if (posts->name.len == name->len
            && ngx_strncmp(posts->name.data, name->data, name->len) == 0)
        {
            return posts;
        }
    }

    posts = ngx_slab_calloc(shpool, sizeof(ngx_http_llm_posts_t) + name->len);
    if (posts == NULL) {
        return NULL;
    }

    posts->name.len = name->len;
    posts->name.data = (u_char *) posts + sizeof(ngx_http_llm_posts_t);

    ngx_memcpy(posts->name.data, name->data, name->len);

    posts->next = sh->posts;

    ngx_memory_barrier();

    sh->posts = posts;

    return posts;
}
