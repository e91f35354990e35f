
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_attempt.h"
#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_zone.h"

#include "llm_hint.h"


/*
 * How long a provider wants to be left alone, by the header of its answer.
 */


static void ngx_http_llm_exhausted_header(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_table_elt_t *h);


static ngx_str_t  ngx_http_llm_retry_after_ms = ngx_string("retry-after-ms");
static ngx_str_t  ngx_http_llm_x_ms = ngx_string("x-ms-retry-after-ms");
static ngx_str_t  ngx_http_llm_retry_after = ngx_string("retry-after");

static ngx_str_t  ngx_http_llm_openai_limit =
                                      ngx_string("x-ratelimit-remaining-");
static ngx_str_t  ngx_http_llm_anthropic_limit =
                                      ngx_string("anthropic-ratelimit-");
static ngx_str_t  ngx_http_llm_remaining = ngx_string("-remaining");


/* How long the provider asks to be left alone, ms; 0: it does not say. */

uint32_t
ngx_http_llm_hint(ngx_http_request_t *r)
{
    uint32_t          ms;
    ngx_str_t        *name;
    ngx_list_t       *headers;
    ngx_table_elt_t  *h;

    headers = &r->upstream->headers_in.headers;

    for (name = &ngx_http_llm_retry_after_ms; name; ) {

        h = ngx_http_llm_find_header(headers, name);

        if (h && llm_hint_retry_after_ms(h->value.data, h->value.len, &ms)) {
            return ms;
        }

        name = (name == &ngx_http_llm_retry_after_ms) ? &ngx_http_llm_x_ms
                                                      : NULL;
    }

    name = &ngx_http_llm_retry_after;

    h = ngx_http_llm_find_header(headers, name);

    if (h && llm_hint_retry_after(h->value.data, h->value.len, ngx_time(),
                                  &ms))
    {
        return ms;
    }

    return 0;
}


/*
 * A good answer may say that it was the last one for now:
 *
 *     x-ratelimit-remaining-WHAT: 0       x-ratelimit-reset-WHAT: 1s
 *     anthropic-ratelimit-WHAT-remaining: 0
 *     anthropic-ratelimit-WHAT-reset: 2026-01-01T00:00:00Z
 *
 * Then the next caller is better asked elsewhere, before there is a 429.
 */

void
ngx_http_llm_exhausted(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    if (!ctx->completion || ctx->now.provider->client_key) {
        return;
    }

    part = &r->upstream->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].value.len == 1 && h[i].value.data[0] == '0') {
            ngx_http_llm_exhausted_header(r, ctx, &h[i]);
        }
    }
}


static void
ngx_http_llm_exhausted_header(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_table_elt_t *h)
{
    u_char                    *p, reset[128];
    uint32_t                   ms;
    ngx_str_t                  name, *openai, *anthropic, *remaining;
    ngx_table_elt_t           *other;
    ngx_http_llm_provider_t   *provider;
    ngx_http_llm_main_conf_t  *mcf;

    openai = &ngx_http_llm_openai_limit;
    anthropic = &ngx_http_llm_anthropic_limit;
    remaining = &ngx_http_llm_remaining;

    if (h->key.len > sizeof(reset)) {
        return;
    }

    if (h->key.len > openai->len
        && ngx_strncmp(h->lowcase_key, openai->data, openai->len) == 0)
    {
        p = ngx_sprintf(reset, "x-ratelimit-reset-%*s",
                        h->key.len - openai->len,
                        h->lowcase_key + openai->len);

    } else if (h->key.len > anthropic->len + remaining->len
               && ngx_strncmp(h->lowcase_key, anthropic->data,
                              anthropic->len)
                  == 0
               && ngx_strncmp(h->lowcase_key + h->key.len - remaining->len,
                              remaining->data, remaining->len)
                  == 0)
    {
        p = ngx_sprintf(reset, "%*s-reset", h->key.len - remaining->len,
                        h->lowcase_key);

    } else {
        return;
    }

    name.data = reset;
    name.len = p - reset;

    other = ngx_http_llm_find_header(&r->upstream->headers_in.headers, &name);

    if (other == NULL
        || !llm_hint_reset(other->value.data, other->value.len, ngx_time(),
                           &ms)
        || ms == 0)
    {
        return;
    }

    mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);
    provider = ctx->now.provider;

    llm_circuit_throttle(&provider->record->circuit, &provider->circuit, ms,
                         ngx_http_llm_now(mcf));
}
