
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_route.h"

#include "llm_canonical.h"


/*
 * Answers out of nginx's cache: the key that they are found by, and what
 * becomes of a request that nobody would take, but that the cache may answer.
 */


static ngx_int_t ngx_http_llm_body_hash(ngx_http_request_t *r,
    u_char hash[LLM_SHA256_LEN]);
static llm_json_rc_t ngx_http_llm_canonical_scan(void *scanner, u_char *p,
    size_t len);
static llm_json_rc_t ngx_http_llm_sha256_scan(void *scanner, u_char *p,
    size_t len);
static void ngx_http_llm_hash_string(llm_sha256_t *sha, ngx_str_t *s);
static void ngx_http_llm_hash_credentials(llm_sha256_t *sha,
    ngx_http_request_t *r);


/* a scanner is large, and is needed for the time of one call only */

static llm_canonical_t  ngx_http_llm_canonical;


/*
 * The hash of what a provider would be asked, in hexadecimal digits, and for
 * a private one of the caller's credentials.  There is always one: requests
 * without a key would have each other's answers.
 */

ngx_int_t
ngx_http_llm_request_key(ngx_http_request_t *r, ngx_uint_t private,
    ngx_str_t *key)
{
    u_char               hash[LLM_SHA256_LEN], *body;
    ngx_str_t            path;
    llm_sha256_t         sha;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);

    if (ctx == NULL) {
        ctx = ngx_http_llm_clone_ctx(r);
    }

    if (ctx && (ctx->filter_only || ctx->route == NULL)) {
        ctx = NULL;
    }

    body = ctx ? ctx->body_hash : NULL;

    if (body == NULL) {

        body = ngx_pnalloc(r->pool, LLM_SHA256_LEN);

        if (body == NULL || ngx_http_llm_body_hash(r, body) != NGX_OK) {
            return NGX_ERROR;
        }

        if (ctx && ctx->body_ready) {
            ctx->body_hash = body;
        }
    }

    path = r->uri;

    if (ctx && path.len >= ctx->llcf->prefix.len
        && ngx_strncmp(path.data, ctx->llcf->prefix.data,
                       ctx->llcf->prefix.len)
           == 0)
    {
        path.data += ctx->llcf->prefix.len;
        path.len -= ctx->llcf->prefix.len;
    }

    llm_sha256_init(&sha);

    ngx_http_llm_hash_string(&sha, &r->method_name);
    ngx_http_llm_hash_string(&sha, &path);
    ngx_http_llm_hash_string(&sha, &r->args);

    if (ctx) {
        ngx_http_llm_hash_string(&sha, &ctx->route->uscf->host);
    }

    if (private) {
        ngx_http_llm_hash_credentials(&sha, r);
    }

    llm_sha256_update(&sha, body, LLM_SHA256_LEN);
    llm_sha256_final(&sha, hash);

    key->len = 2 * LLM_SHA256_LEN;

    key->data = ngx_pnalloc(r->pool, key->len);
    if (key->data == NULL) {
        return NGX_ERROR;
    }

    ngx_hex_dump(key->data, hash, LLM_SHA256_LEN);

    return NGX_OK;
}


/* A JSON document has a hash of what it says, all else one of its bytes. */

static ngx_int_t
ngx_http_llm_body_hash(ngx_http_request_t *r, u_char hash[LLM_SHA256_LEN])
{
    llm_sha256_t      sha;
    llm_canonical_t  *canonical;

    canonical = &ngx_http_llm_canonical;

    llm_canonical_init(canonical);

    if (ngx_http_llm_body_read(r, ngx_http_llm_canonical_scan, canonical)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (llm_canonical_end(canonical) == LLM_JSON_OK) {
        ngx_memcpy(hash, canonical->key, LLM_SHA256_LEN);
        return NGX_OK;
    }

    llm_sha256_init(&sha);

    if (ngx_http_llm_body_read(r, ngx_http_llm_sha256_scan, &sha) != NGX_OK) {
        return NGX_ERROR;
    }

    llm_sha256_final(&sha, hash);

    return NGX_OK;
}


static llm_json_rc_t
ngx_http_llm_canonical_scan(void *scanner, u_char *p, size_t len)
{
    return llm_canonical_scan(scanner, p, len);
}


static llm_json_rc_t
ngx_http_llm_sha256_scan(void *scanner, u_char *p, size_t len)
{
    llm_sha256_update(scanner, p, len);

    return LLM_JSON_OK;
}


/* with its NUL: no two rows of strings are the same text */

static void
ngx_http_llm_hash_string(llm_sha256_t *sha, ngx_str_t *s)
{
    llm_sha256_update(sha, s->data, s->len);
    llm_sha256_update(sha, "", 1);
}


static void
ngx_http_llm_hash_credentials(llm_sha256_t *sha, ngx_http_request_t *r)
{
    ngx_str_t        *name;
    ngx_table_elt_t  *h;

    for (name = ngx_http_llm_secret_headers; name->len; name++) {

        h = ngx_http_llm_find_header(&r->headers_in.headers, name);

        if (h) {
            ngx_http_llm_hash_string(sha, name);
            ngx_http_llm_hash_string(sha, &h->value);
        }
    }
}


/*
 * Whether nginx will look into its cache before it asks for a peer.  Then
 * nobody is to be admitted before, for nothing.
 */

ngx_uint_t
ngx_http_llm_may_be_cached(ngx_http_request_t *r)
{
#if (NGX_HTTP_CACHE)

    ngx_http_upstream_conf_t  *conf;

    /* the first member of the proxy module's conf */

    conf = ngx_http_get_module_loc_conf(r, ngx_http_proxy_module);

    return conf->cache && (r->method & conf->cache_methods);

#else

    return 0;

#endif
}


/*
 * From get(), where the cache had no fresh answer, and nobody admits the
 * request: nginx is led to a stale answer if it has one and may use it.  Else
 * the request is refused as the gate would have done.  nginx itself would say
 * 502: so its upstream is ended here, as when another handler takes over, and
 * finds itself ended when get() has failed.
 */

ngx_int_t
ngx_http_llm_nobody(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_upstream_t  *u;

    u = r->upstream;

#if (NGX_HTTP_CACHE)

    if (u->cache_status == NGX_HTTP_CACHE_EXPIRED
        && ((u->conf->cache_use_stale & NGX_HTTP_UPSTREAM_FT_NOLIVE)
            || r->cache->stale_error))
    {
        return NGX_BUSY;
    }

#endif

    /* for the end of the upstream, and for its end that nginx finds done */

    r->main->count += 2;

    (*u->cleanup)(r);

    if (--r->upstream_states->nelts == 0) {
        r->upstream_states = NULL;
    }

    ngx_http_finalize_request(r, ngx_http_llm_refuse(r, ctx));

    return NGX_ERROR;
}
