
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_answer.h"
#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_connect.h"
#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_target.h"


/*
 * To what an attempt connects: an address of its provider, a connection to
 * it that is idle, a TLS session.
 */


/*
 * The address, marked with the provider and the location.  The stock pool of
 * idle connections compares whole addresses, so it never gives a provider's
 * connection to another provider that has the same address, or to a location
 * with other TLS settings.  The mark is where the kernel does not look.
 *
 * All of it is the request's own, as the provider's addresses may be others
 * a moment later.
 */

ngx_int_t
ngx_http_llm_get_address(ngx_peer_connection_t *pc, ngx_http_llm_ctx_t *ctx)
{
    u_char                   *p;
    uint32_t                  mark[2];
    ngx_str_t                *name;
    ngx_http_llm_address_t   *addr;
    ngx_http_llm_provider_t  *provider;

    provider = ctx->now.provider;

    addr = ngx_http_llm_provider_address(provider);
    if (addr == NULL) {
        return NGX_ERROR;
    }

    name = ngx_palloc(ctx->request->pool, sizeof(ngx_str_t) + addr->name.len);
    if (name == NULL) {
        return NGX_ERROR;
    }

    name->len = addr->name.len;
    name->data = (u_char *) (name + 1);

    ngx_memcpy(name->data, addr->name.data, addr->name.len);

    ctx->addresses++;

    mark[0] = (uint32_t) provider->index;
    mark[1] = (uint32_t) ctx->llcf->id;

    ctx->sockaddr = addr->sockaddr;

    pc->socklen = addr->socklen;

    switch (addr->sockaddr.sockaddr.sa_family) {

    case AF_INET:
        p = (u_char *) ctx->sockaddr.sockaddr_in.sin_zero;
        break;

#if (NGX_HAVE_UNIX_DOMAIN)
    case AF_UNIX:
        p = (u_char *) &ctx->sockaddr + addr->socklen - sizeof(mark);
        break;
#endif

    default: /* AF_INET6 */
        p = (u_char *) &ctx->sockaddr + addr->socklen;
        pc->socklen += sizeof(mark);
    }

    ngx_memcpy(p, mark, sizeof(mark));

    pc->sockaddr = &ctx->sockaddr.sockaddr;
    pc->name = name;

    return NGX_OK;
}


/*
 * No connection came about, so nothing was sent: another address of the same
 * provider may do, and its circuit learns nothing.
 */

ngx_uint_t
ngx_http_llm_has_other_address(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_fault_e fault)
{
    ngx_uint_t  other;

    if (fault > NGX_HTTP_LLM_FAULT_TLS) {
        return 0;
    }

    other = ngx_http_llm_target_failed(ctx->now.provider->target,
                                       &ctx->sockaddr.sockaddr,
                                       r->connection->log);

    return other && ctx->addresses < NGX_HTTP_LLM_ADDRESS_TRIES
           && ngx_http_llm_goes_on_from(r, ctx, fault);
}


#if (NGX_HTTP_SSL)

/* TLS sessions are a provider's, and a location's with its settings. */

ngx_int_t
ngx_http_llm_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_ctx_t *ctx = data;

    ngx_ssl_session_t  *session;

    session = ctx->llcf->sessions[ctx->now.provider->index];

    return ngx_ssl_set_session(pc->connection, session);
}


void
ngx_http_llm_save_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_ctx_t *ctx = data;

    ngx_ssl_session_t  *session, **saved;

    session = ngx_ssl_get_session(pc->connection);

    if (session == NULL) {
        return;
    }

    saved = &ctx->llcf->sessions[ctx->now.provider->index];

    if (*saved) {
        ngx_ssl_free_session(*saved);
    }

    *saved = session;
}


void
ngx_http_llm_free_sessions(ngx_http_llm_main_conf_t *mcf)
{
    ngx_uint_t            i, n;
    ngx_http_llm_pass_t  *pass;

    pass = mcf->passes.elts;

    for (i = 0; i < mcf->passes.nelts; i++) {

        if (pass[i].conf->sessions == NULL) {
            continue;
        }

        for (n = 0; n < mcf->providers.nelts; n++) {
            if (pass[i].conf->sessions[n]) {
                ngx_ssl_free_session(pass[i].conf->sessions[n]);
            }
        }
    }
}

#endif
