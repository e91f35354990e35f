
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_choice.h"
#include "ngx_http_llm_conf.h"


/*
 * Clones of a request: nginx makes them to bring a stale answer in its cache
 * up to date, and for each further slice of an answer.  They begin where
 * their parent is, behind the gate, and want what it wants.
 */


/*
 * The context of a clone, which has none yet; NULL: it is no clone, or there
 * is no memory.
 */

ngx_http_llm_ctx_t *
ngx_http_llm_clone_ctx(ngx_http_request_t *r)
{
    ngx_http_llm_ctx_t       *ctx, *parent;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    /* another subrequest has passed the gate before it has an upstream */

    if (r == r->main || r->upstream == NULL || !llcf->gate) {
        return NULL;
    }

    parent = ngx_http_get_module_ctx(r->parent, ngx_http_llm_module);

    if (parent == NULL || parent->filter_only || parent->llcf != llcf) {
        return NULL;
    }

    ctx = ngx_http_llm_create_ctx(r, llcf, parent->route);
    if (ctx == NULL) {
        return NULL;
    }

    ctx->body_ready = 1;
    ctx->complexity = parent->complexity;
    ctx->body_hash = parent->body_hash;
    ctx->answers = parent->answers;
    ctx->model = parent->model;
    ctx->model_start = parent->model_start;
    ctx->model_end = parent->model_end;
    ctx->estimate = parent->estimate;
    ctx->inject = parent->inject;
    ctx->json = parent->json;
    ctx->stream = parent->stream;

    /* the parent has found somebody who serves the model */

    (void) ngx_http_llm_candidates(ctx);

    return ctx;
}
