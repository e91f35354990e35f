
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_choice.h"
#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_target.h"
#include "ngx_http_llm_turn.h"

#include "llm_waiting.h"


/*
 * Whose turn it is: of those who wait in this worker, as far as circuits and
 * limits go, and over all workers, by what each says in the zone.
 */


/* by so much a worker may be late before it is overtaken, ms */

#define NGX_HTTP_LLM_WAIT_LATE  100


static ngx_msec_t ngx_http_llm_wait_for(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider);
static ngx_uint_t ngx_http_llm_wait_is_behind(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider);
static uint32_t ngx_http_llm_wait_since(ngx_http_llm_ctx_t *ctx);


ngx_int_t
ngx_http_llm_wait_ask(ngx_http_llm_ctx_t *ctx, ngx_msec_t *wait)
{
    ngx_uint_t  i;

    if (ngx_http_llm_wait_ready(ctx, wait) != NGX_OK) {
        return NGX_AGAIN;
    }

    ngx_http_llm_choose_again(ctx);

    if (ngx_http_llm_choose(ctx) != NGX_OK) {

        /* others were faster */

        *wait = NGX_HTTP_LLM_WAIT_POLL;

        return NGX_AGAIN;
    }

    /* whoever admitted may fail */

    for (i = 0; i < ctx->route->uses.nelts; i++) {
        if (ctx->fares[i].behind) {
            ctx->fares[i].behind = 0;
            ctx->select.marks[i] = LLM_SELECT_LEFT;
        }
    }

    return NGX_OK;
}


/* Whoever admits, out of turn or not: or else they say why they refuse. */

ngx_int_t
ngx_http_llm_wait_choose(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t  i;

    for (i = 0; i < ctx->route->uses.nelts; i++) {
        ctx->fares[i].behind = 0;
    }

    ngx_http_llm_choose_again(ctx);

    return ngx_http_llm_choose(ctx);
}


ngx_int_t
ngx_http_llm_wait_ready(ngx_http_llm_ctx_t *ctx, ngx_msec_t *wait)
{
    ngx_int_t             rc;
    ngx_uint_t            i;
    ngx_msec_t            ms;
    ngx_http_llm_use_t   *use;
    ngx_http_llm_fare_t  *fare;

    rc = NGX_AGAIN;
    use = ctx->route->uses.elts;

    *wait = NGX_HTTP_LLM_NEVER;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        fare = &ctx->fares[i];
        fare->behind = 0;

        if (!fare->serves
            || !ngx_http_llm_target_resolved(use[i].provider->target))
        {
            continue;
        }

        ms = ngx_http_llm_wait_for(ctx, use[i].provider);

        if (ms == 0) {
            fare->behind = ngx_http_llm_wait_is_behind(ctx, use[i].provider);

            if (!fare->behind) {
                rc = NGX_OK;
                continue;
            }

            ms = NGX_HTTP_LLM_WAIT_POLL;
        }

        *wait = ngx_min(*wait, ms);
    }

    return rc;
}


/* ms until the provider may admit, 0: it would */

static ngx_msec_t
ngx_http_llm_wait_for(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider)
{
    uint32_t          until;
    llm_limit_t       limit;
    llm_limits_t     *limits;
    llm_admission_t   admission;

    admission = ngx_http_llm_peek_circuit(ctx, provider, &until);

    if (admission == LLM_REFUSED_HALF_OPEN) {

        /* a call has to end, perhaps another worker's */

        return NGX_HTTP_LLM_WAIT_POLL;
    }

    if (admission != LLM_ADMITTED) {
        return until == LLM_CIRCUIT_WAIT_UNKNOWN ? NGX_HTTP_LLM_NEVER : until;
    }

    limit = ngx_http_llm_peek_limits(ctx, provider, &until);

    if (limit == LLM_LIMIT_NONE) {
        return 0;
    }

    limits = provider->record->limits;

    if (limit == LLM_LIMIT_CONCURRENCY
        || (limit == LLM_LIMIT_TPM
            && llm_in_flight_sum(limits->in_flight, limits->workers)))
    {
        /* the same; it may have needed fewer tokens than it took */

        return NGX_HTTP_LLM_WAIT_POLL;
    }

    return until;
}


/* Whether somebody in another worker came before, and waits for it. */

static ngx_uint_t
ngx_http_llm_wait_is_behind(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider)
{
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    return llm_waiting_before(provider->record->waiting,
                              (uint32_t) mcf->sh->nslots,
                              ngx_http_llm_my_slot(),
                              ngx_http_llm_wait_since(ctx),
                              ngx_http_llm_now(mcf));
}


void
ngx_http_llm_wait_say(ngx_http_llm_ctx_t *ctx, ngx_msec_t wait)
{
    uint32_t                   now, until;
    ngx_uint_t                 i;
    ngx_http_llm_use_t        *use;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    now = ngx_http_llm_now(mcf);
    until = now + (uint32_t) wait + NGX_HTTP_LLM_WAIT_LATE;
    use = ctx->route->uses.elts;

    for (i = 0; i < ctx->route->uses.nelts; i++) {
        if (ctx->fares[i].serves) {
            llm_waiting_say(use[i].provider->record->waiting,
                            ngx_http_llm_my_slot(),
                            ngx_http_llm_wait_since(ctx), until, now);
        }
    }
}


void
ngx_http_llm_wait_unsay(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t           i;
    ngx_http_llm_use_t  *use;

    use = ctx->route->uses.elts;

    for (i = 0; i < ctx->route->uses.nelts; i++) {
        if (ctx->fares[i].serves) {
            llm_waiting_done(use[i].provider->record->waiting,
                             ngx_http_llm_my_slot());
        }
    }
}


/* on the circuits' clock */

static uint32_t
ngx_http_llm_wait_since(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    return (uint32_t) (ctx->wait_start - mcf->sh->epoch);
}
