
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_choice.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_target.h"


/*
 * Who is asked: the strategy says in which order, the circuits and the
 * limits who admits.  What they give is kept in the request's context, and
 * comes back through ngx_http_llm_report() and ngx_http_llm_settle(),
 * whichever way the request ends.
 */


static ngx_int_t ngx_http_llm_choose_init(ngx_http_llm_ctx_t *ctx);
static llm_strategy_t ngx_http_llm_strategy_of(ngx_http_llm_ctx_t *ctx,
    ngx_str_t *value);
static uint64_t ngx_http_llm_budget_of(ngx_http_llm_ctx_t *ctx,
    ngx_str_t *value);
static ngx_int_t ngx_http_llm_walk(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_look(ngx_http_llm_ctx_t *ctx, ngx_uint_t i);
static void ngx_http_llm_give_back(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider, llm_token_t *token);
static uint64_t ngx_http_llm_tokens(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_refused(ngx_http_llm_ctx_t *ctx, ngx_uint_t i,
    llm_admission_t admission, llm_limit_t limit, uint32_t wait);


/* Marks the providers that serve what is asked for. */

ngx_int_t
ngx_http_llm_candidates(ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t             rc;
    ngx_uint_t            i;
    ngx_http_llm_use_t   *use;
    ngx_http_llm_fare_t  *fare;

    rc = NGX_DECLINED;
    use = ctx->route->uses.elts;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        fare = &ctx->fares[i];

        fare->serves = ctx->model.len == 0
                       || ngx_http_llm_provider_serves(use[i].provider,
                                                       &ctx->model,
                                                       &fare->upstream_model)
                          == NGX_OK;

        if (!fare->serves) {
            continue;
        }

        rc = NGX_OK;
    }

    return rc;
}


/*
 * Asks the providers of the route for admission, in the strategy's order;
 * NGX_OK: ctx->next is admitted, NGX_DECLINED: nobody else admits.
 */

ngx_int_t
ngx_http_llm_choose(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t            i, shed;
    ngx_http_llm_fare_t  *fare;

    if (ctx->select.candidates == NULL
        && ngx_http_llm_choose_init(ctx) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    if (ngx_http_llm_walk(ctx) == NGX_OK) {
        return NGX_OK;
    }

    /* nobody else is left for those who were shed by a slow start */

    shed = 0;

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        fare = &ctx->fares[i];

        if (fare->shed && !fare->tried) {
            ctx->select.marks[i] = LLM_SELECT_LEFT;
            shed = 1;
        }
    }

    return shed ? ngx_http_llm_walk(ctx) : NGX_DECLINED;
}


/* All who serve the request are to be asked, once more in a retry. */

void
ngx_http_llm_choose_again(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t            i;
    ngx_http_llm_fare_t  *fare;

    if (ctx->select.marks == NULL) {
        return;
    }

    for (i = 0; i < ctx->route->uses.nelts; i++) {

        fare = &ctx->fares[i];
        fare->shed = 0;

        ctx->select.marks[i] = (fare->serves && !fare->tried && !fare->behind)
                               ? LLM_SELECT_LEFT : LLM_SELECT_EXCLUDED;
    }
}


static ngx_int_t
ngx_http_llm_choose_init(ngx_http_llm_ctx_t *ctx)
{
    ngx_str_t                  value;
    llm_select_t              *select;
    ngx_http_request_t        *r;
    ngx_http_llm_route_t      *route;
    ngx_http_llm_main_conf_t  *mcf;

    r = ctx->request;
    route = ctx->route;
    select = &ctx->select;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    select->marks = ngx_pnalloc(r->pool, route->uses.nelts);
    if (select->marks == NULL) {
        return NGX_ERROR;
    }

    select->n = (unsigned) route->uses.nelts;
    select->slots = (unsigned) mcf->sh->nslots;
    select->vtime = &route->record->vtime;
    select->input_tokens = ctx->estimate.input;
    select->output_tokens = ctx->estimate.output;
    select->strategy = route->strategy;
    select->budget = route->budget;

    if (route->strategy_value) {

        if (ngx_http_complex_value(r, route->strategy_value, &value) != NGX_OK)
        {
            return NGX_ERROR;
        }

        select->strategy = ngx_http_llm_strategy_of(ctx, &value);
    }

    if (route->budget_value) {

        if (ngx_http_complex_value(r, route->budget_value, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        select->budget = ngx_http_llm_budget_of(ctx, &value);
    }

    select->candidates = route->candidates;

    ngx_http_llm_choose_again(ctx);

    return NGX_OK;
}


/* Variables may say anything: what is no strategy is "priority". */

static llm_strategy_t
ngx_http_llm_strategy_of(ngx_http_llm_ctx_t *ctx, ngx_str_t *value)
{
    int  strategy;

    strategy = llm_strategy_by_name(value->data, value->len);

    if (strategy >= 0) {
        return strategy;
    }

    if (value->len) {
        ngx_log_error(NGX_LOG_WARN, ctx->request->connection->log, 0,
                      "llm: unknown strategy \"%V\" of route \"%V\": "
                      "\"priority\" is used", value,
                      &ctx->route->uscf->host);
    }

    return LLM_STRATEGY_PRIORITY;
}


static uint64_t
ngx_http_llm_budget_of(ngx_http_llm_ctx_t *ctx, ngx_str_t *value)
{
    uint64_t     budget;
    const char  *expected;

    budget = 0;

    if (value->len == 0
        || (value->len == 3 && ngx_strncmp(value->data, "off", 3) == 0))
    {
        return 0;
    }

    expected = llm_price_parse(value->data, value->len, &budget);

    if (expected) {
        ngx_log_error(NGX_LOG_WARN, ctx->request->connection->log, 0,
                      "llm: invalid budget \"%V\" of route \"%V\": expected "
                      "%s, no budget is used", value, &ctx->route->uscf->host,
                      expected);
    }

    return budget;
}


static ngx_int_t
ngx_http_llm_walk(ngx_http_llm_ctx_t *ctx)
{
    int                        i;
    uint32_t                   now;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);
    now = ngx_http_llm_now(mcf);

    for ( ;; ) {

        i = llm_select_next(&ctx->select, now, (uint32_t) ngx_random() << 1);

        if (i < 0) {
            return NGX_DECLINED;
        }

        if (!ctx->chosen) {
            ctx->chosen = 1;
            ctx->first = i;
        }

        if (ngx_http_llm_ask(ctx, i) == NGX_OK) {
            return NGX_OK;
        }

        ctx->select.marks[i] = LLM_SELECT_EXCLUDED;
    }
}


/* Asks one provider of the route. */

ngx_int_t
ngx_http_llm_ask(ngx_http_llm_ctx_t *ctx, ngx_uint_t i)
{
    uint32_t                   wait;
    llm_token_t                token;
    llm_limit_t                limit;
    llm_grant_t                grant;
    llm_admission_t            admission;
    llm_transition_t           tr;
    ngx_http_llm_use_t        *use;
    ngx_http_llm_fare_t       *fare;
    ngx_http_llm_provider_t   *provider;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    use = ctx->route->uses.elts;
    provider = use[i].provider;
    fare = &ctx->fares[i];

    if (provider->circuit.slow_start && !fare->shed
        && llm_circuit_shed(&provider->record->circuit, &provider->circuit,
                            ngx_http_llm_now(mcf),
                            (uint32_t) ngx_random() << 1))
    {
        fare->shed = 1;
        return NGX_DECLINED;
    }

    /* the limits before the circuit, which would move for nothing */

    if (ngx_http_llm_look(ctx, i) != NGX_OK) {
        ngx_http_llm_refused(ctx, i, fare->admission, fare->limit, fare->wait);
        return NGX_DECLINED;
    }

    admission = llm_circuit_acquire(&provider->record->circuit,
                                    &provider->circuit, ngx_http_llm_now(mcf),
                                    &token, &wait, &tr);

    ngx_http_llm_moved(ctx->request, provider, &tr, 0);

    if (admission != LLM_ADMITTED) {
        ngx_http_llm_refused(ctx, i, admission, LLM_LIMIT_NONE, wait);
        return NGX_DECLINED;
    }

    ngx_memzero(&grant, sizeof(llm_grant_t));

    limit = LLM_LIMIT_NONE;

    if (provider->limited) {
        limit = llm_limits_acquire(provider->record->limits,
                                   &provider->limits, ngx_http_llm_my_slot(),
                                   ngx_http_llm_time(mcf),
                                   ngx_http_llm_tokens(ctx), &grant, &wait);
    }

    if (limit != LLM_LIMIT_NONE) {

        /* others were faster: nobody is asked, and nothing is learnt */

        ngx_http_llm_give_back(ctx, provider, &token);

        ngx_http_llm_refused(ctx, i, LLM_ADMITTED, limit, wait);
        return NGX_DECLINED;
    }

    llm_count(ngx_http_llm_counters(provider->record), LLM_CALLS);

    fare->tried = 1;

    ctx->next.provider = provider;
    ctx->next.use = i;
    ctx->next.token = token;
    ctx->next.grant = grant;

    return NGX_OK;
}


static void
ngx_http_llm_give_back(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider, llm_token_t *token)
{
    bool                       late;
    llm_transition_t           tr;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    (void) llm_circuit_report(&provider->record->circuit, &provider->circuit,
                              token, LLM_CLASS_NEUTRAL, 0,
                              ngx_http_llm_now(mcf), 0, &late, &tr);
}


/* What is taken from tpm before it is known. */

static uint64_t
ngx_http_llm_tokens(ngx_http_llm_ctx_t *ctx)
{
    return ctx->estimate.input + ctx->estimate.output;
}


/*
 * Would the circuit admit, as the operator's word is at this moment?  *wait is
 * that of llm_circuit_peek(), but tells when a word is over.
 */

llm_admission_t
ngx_http_llm_peek_circuit(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider, uint32_t *wait)
{
    uint64_t                   left, now;
    llm_admission_t            admission;
    llm_transition_t           tr;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);
    now = ngx_http_llm_time(mcf);

    if (llm_circuit_admin_expire(&provider->record->circuit, now, &tr)) {
        ngx_http_llm_moved(ctx->request, provider, &tr, 0);
    }

    admission = llm_circuit_peek(&provider->record->circuit,
                                 &provider->circuit, (uint32_t) now, wait);

    if (admission == LLM_REFUSED_FORCED) {

        (void) llm_circuit_admin_now(&provider->record->circuit, now, &left);

        if (left) {
            *wait = (uint32_t) left;
        }
    }

    return admission;
}


llm_limit_t
ngx_http_llm_peek_limits(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider, uint32_t *wait)
{
    uint64_t                   tokens;
    llm_limit_conf_t           limits;
    ngx_http_llm_main_conf_t  *mcf;

    if (!provider->limited) {
        *wait = 0;
        return LLM_LIMIT_NONE;
    }

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    limits = provider->limits;
    tokens = ngx_http_llm_tokens(ctx);

    if (tokens == 0) {

        /* the body is not read: to look at all tokens would be for nothing */

        limits.tpm = 0;
    }

    return llm_limits_peek(provider->record->limits, &limits,
                           ngx_http_llm_time(mcf), tokens, wait);
}


/* A call is over; tokens: what it took, or LLM_TOKENS_UNKNOWN. */

void
ngx_http_llm_settle(ngx_http_llm_ctx_t *ctx, ngx_http_llm_choice_t *choice,
    uint64_t tokens)
{
    if (choice->provider && choice->provider->limited) {
        llm_limits_settle(choice->provider->record->limits, &choice->grant,
                          tokens);
        ngx_http_llm_wake();
    }
}


/*
 * Whether some provider of the route would take a request, whatever its
 * model is.  Nothing is written unless all refuse.
 */

ngx_int_t
ngx_http_llm_peek(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t  i;

    for (i = 0; i < ctx->route->uses.nelts; i++) {
        if (ngx_http_llm_look(ctx, i) == NGX_OK) {
            return NGX_OK;
        }
    }

    for (i = 0; i < ctx->route->uses.nelts; i++) {
        ctx->fares[i].serves = 1;
        ngx_http_llm_refused(ctx, i, ctx->fares[i].admission,
                             ctx->fares[i].limit, ctx->fares[i].wait);
    }

    return NGX_DECLINED;
}


/* Would a provider of the route admit?  Where not, its fare says why. */

static ngx_int_t
ngx_http_llm_look(ngx_http_llm_ctx_t *ctx, ngx_uint_t i)
{
    uint32_t                  wait;
    ngx_http_llm_use_t       *use;
    ngx_http_llm_fare_t      *fare;
    ngx_http_llm_provider_t  *provider;

    use = ctx->route->uses.elts;
    provider = use[i].provider;
    fare = &ctx->fares[i];

    fare->limit = LLM_LIMIT_NONE;
    fare->unresolved = !ngx_http_llm_target_resolved(provider->target);

    if (fare->unresolved) {
        fare->admission = LLM_REFUSED_FORCED;
        fare->wait = LLM_CIRCUIT_WAIT_UNKNOWN;
        return NGX_DECLINED;
    }

    fare->admission = ngx_http_llm_peek_circuit(ctx, provider, &fare->wait);

    fare->limit = ngx_http_llm_peek_limits(ctx, provider, &wait);

    if (fare->limit == LLM_LIMIT_NONE) {
        return fare->admission == LLM_ADMITTED ? NGX_OK : NGX_DECLINED;
    }

    if (fare->admission == LLM_ADMITTED) {
        fare->wait = wait;

    } else {

        /* both refuse: the circuit says why, who takes longer says when */

        if (fare->limit != LLM_LIMIT_CONCURRENCY) {
            fare->wait = ngx_max(fare->wait, wait);
        }

        fare->limit = LLM_LIMIT_NONE;
    }

    return NGX_DECLINED;
}


/* A provider refuses; that counts once per request. */

static void
ngx_http_llm_refused(ngx_http_llm_ctx_t *ctx, ngx_uint_t i,
    llm_admission_t admission, llm_limit_t limit, uint32_t wait)
{
    ngx_http_llm_use_t   *use;
    ngx_http_llm_fare_t  *fare;

    fare = &ctx->fares[i];

    fare->admission = admission;
    fare->limit = limit;
    fare->wait = wait;

    if (fare->refused) {
        return;
    }

    fare->refused = 1;

    use = ctx->route->uses.elts;

    llm_count(ngx_http_llm_counters(use[i].provider->record),
              LLM_CALLS_REJECTED);
}
