
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_route.h"


/*
 * The caller's body: what the gate needs to know of it, and the same body
 * with the name that a provider has for the model.  It may be in memory, in
 * several buffers, or in a temporary file.
 */


#define NGX_HTTP_LLM_READ_SIZE  65536


/* more at once is nothing that providers do */

#define NGX_HTTP_LLM_MAX_ANSWERS  128


/* bytes of the body that give way to others */

typedef struct {
    off_t       start;
    off_t       end;
    ngx_buf_t  *buf;
} ngx_http_llm_edit_t;


static llm_json_rc_t ngx_http_llm_scan(void *scanner, u_char *p, size_t len);
static ngx_int_t ngx_http_llm_read_file(ngx_http_request_t *r, ngx_buf_t *b,
    ngx_http_llm_scan_pt scan, void *scanner);
static ngx_int_t ngx_http_llm_scan_result(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, llm_json_t *json);
static ngx_uint_t ngx_http_llm_is_chat(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_body_edits(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_edit_t *edits);
static ngx_int_t ngx_http_llm_body_slice(ngx_http_request_t *r,
    ngx_chain_t *in, off_t from, off_t to, ngx_chain_t ***last);
static ngx_buf_t *ngx_http_llm_body_model(ngx_http_request_t *r,
    ngx_str_t *name);


static ngx_str_t  ngx_http_llm_encoding = ngx_string("content-encoding");


/* a scanner is large, and is needed for the time of one call only */

static llm_json_t  ngx_http_llm_json;


ngx_int_t
ngx_http_llm_body_scan(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t         rc;
    llm_json_t       *json;
    ngx_table_elt_t  *h;

    h = ngx_http_llm_find_header(&r->headers_in.headers,
                                 &ngx_http_llm_encoding);

    if (h && !(h->value.len == 8
               && ngx_strncasecmp(h->value.data, (u_char *) "identity", 8)
                  == 0))
    {
        return ngx_http_llm_invalid(r, ctx, "The request body has "
                                    "Content-Encoding \"%V\"; it is expected "
                                    "uncompressed.", &h->value);
    }

    json = &ngx_http_llm_json;

    llm_json_init(json);

    rc = ngx_http_llm_body_read(r, ngx_http_llm_scan, json);

    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_llm_scan_result(r, ctx, json);
}


static llm_json_rc_t
ngx_http_llm_scan(void *scanner, u_char *p, size_t len)
{
    return llm_json_scan(scanner, p, len);
}


/* Shows a scanner the body, in pieces, until it has seen enough. */

ngx_int_t
ngx_http_llm_body_read(ngx_http_request_t *r, ngx_http_llm_scan_pt scan,
    void *scanner)
{
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    cl = r->request_body ? r->request_body->bufs : NULL;

    for ( /* void */ ; cl; cl = cl->next) {

        b = cl->buf;

        if (ngx_buf_in_memory(b)) {

            if (scan(scanner, b->pos, b->last - b->pos) == LLM_JSON_ERROR) {
                break;
            }

            continue;
        }

        if (b->in_file) {

            rc = ngx_http_llm_read_file(r, b, scan, scanner);

            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_read_file(ngx_http_request_t *r, ngx_buf_t *b,
    ngx_http_llm_scan_pt scan, void *scanner)
{
    off_t     pos;
    size_t    size;
    u_char   *buf;
    ssize_t   n;

    buf = ngx_alloc(NGX_HTTP_LLM_READ_SIZE, r->connection->log);
    if (buf == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    for (pos = b->file_pos; pos < b->file_last; pos += n) {

        size = (size_t) ngx_min(b->file_last - pos, NGX_HTTP_LLM_READ_SIZE);

        n = ngx_read_file(b->file, buf, size, pos);

        if (n <= 0) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "llm: temporary file of the request body ended "
                          "at %O of %O bytes", pos, b->file_last);
            ngx_free(buf);
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        if (scan(scanner, buf, n) == LLM_JSON_ERROR) {
            break;
        }
    }

    ngx_free(buf);

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_scan_result(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    llm_json_t *json)
{
    if (llm_json_end(json) != LLM_JSON_OK) {
        return ngx_http_llm_invalid(r, ctx, "The request body is not valid "
                                    "JSON: %s at byte %uL.",
                                    json->error, json->offset);
    }

    llm_tokens_estimate(&ctx->estimate, json->offset,
                        json->has_max_tokens ? json->max_tokens : 0);

    ctx->answers = ngx_min(json->n, NGX_HTTP_LLM_MAX_ANSWERS);
    ctx->estimate.output *= ctx->answers;

    if (json->model_again) {
        return ngx_http_llm_invalid(r, ctx, "The request body has more than "
                                    "one \"model\".");
    }

    if (json->model == LLM_JSON_STRING_VALUE && !json->model_unfit
        && json->model_len)
    {
        ctx->model.data = ngx_pnalloc(r->pool, json->model_len);
        if (ctx->model.data == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ctx->model.len = json->model_len;

        ngx_memcpy(ctx->model.data, json->model_value, json->model_len);

        ctx->model_start = (off_t) json->model_start;
        ctx->model_end = (off_t) json->model_end;
        ctx->stream = (json->stream == LLM_JSON_TRUE);

        if (ngx_http_llm_is_chat(r)) {
            ctx->inject = llm_json_usage_insert(json);
        }

        return NGX_OK;
    }

    if (!ctx->completion) {
        return NGX_OK;
    }

    if (json->root != LLM_JSON_OBJECT) {
        return ngx_http_llm_invalid(r, ctx, "The request body is not a JSON "
                                    "object.");
    }

    if (json->model == LLM_JSON_ABSENT) {
        return ngx_http_llm_invalid(r, ctx, "The request body has no "
                                    "\"model\".");
    }

    if (json->model == LLM_JSON_STRING_VALUE) {
        return ngx_http_llm_invalid(r, ctx, "\"model\" is expected to be a "
                                    "string of 1 to %d bytes without control "
                                    "characters.", LLM_JSON_STRING);
    }

    return ngx_http_llm_invalid(r, ctx, "\"model\" is expected to be a "
                                "string.");
}


/* Chat and legacy completions: only there the usage has to be asked for. */

static ngx_uint_t
ngx_http_llm_is_chat(ngx_http_request_t *r)
{
    size_t  len;

    len = r->uri.len;

    while (len && r->uri.data[len - 1] == '/') {
        len--;
    }

    return r->method == NGX_HTTP_POST
           && len >= sizeof("/completions") - 1
           && ngx_strncmp(r->uri.data + len - (sizeof("/completions") - 1),
                          "/completions", sizeof("/completions") - 1)
              == 0;
}


/*
 * The body as the provider of this attempt is to have it, and its length.
 * Each memory buffer begins at its start: nginx rewinds to there.
 */

ngx_int_t
ngx_http_llm_body_chain(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t **out, off_t *length)
{
    off_t                 total;
    ngx_int_t             n;
    ngx_uint_t            i;
    ngx_chain_t          *cl, *in, **last;
    ngx_http_llm_edit_t   edits[2];

    in = r->request_body ? r->request_body->bufs : NULL;

    *out = in;
    *length = r->headers_in.content_length_n;

    ctx->injected = 0;

    if (in == NULL) {
        return NGX_OK;
    }

    n = ngx_http_llm_body_edits(r, ctx, edits);

    if (n <= 0) {
        return n;
    }

    total = 0;

    for (cl = in; cl; cl = cl->next) {
        total += ngx_buf_size(cl->buf);
    }

    *length = total;

    last = out;
    total = 0;

    for (i = 0; i < (ngx_uint_t) n; i++) {

        cl = ngx_alloc_chain_link(r->pool);

        if (cl == NULL
            || ngx_http_llm_body_slice(r, in, total, edits[i].start, &last)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        cl->buf = edits[i].buf;

        *last = cl;
        last = &cl->next;

        total = edits[i].end;

        *length += ngx_buf_size(cl->buf) - (edits[i].end - edits[i].start);
    }

    if (ngx_http_llm_body_slice(r, in, total, NGX_MAX_OFF_T_VALUE, &last)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    *last = NULL;

    return NGX_OK;
}


/* What gives way to what, in the order of the body; returns how many. */

static ngx_int_t
ngx_http_llm_body_edits(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_edit_t *edits)
{
    ngx_int_t             n;
    ngx_str_t            *name;
    llm_json_inject_t    *inject;
    ngx_http_llm_edit_t   edit;

    n = 0;
    name = &ctx->fares[ctx->now.use].upstream_model;

    if (name->len
        && (name->len != ctx->model.len
            || ngx_memcmp(name->data, ctx->model.data, name->len) != 0))
    {
        edits[n].start = ctx->model_start;
        edits[n].end = ctx->model_end;

        edits[n].buf = ngx_http_llm_body_model(r, name);
        if (edits[n].buf == NULL) {
            return NGX_ERROR;
        }

        n++;
    }

    inject = &ctx->inject;

    /* a stream that is stored does not come by where events are taken out */

    if (inject->text == NULL || !ctx->route->inject || r->upstream->store) {
        return n;
    }

    edits[n].start = (off_t) inject->offset;
    edits[n].end = (off_t) (inject->offset + inject->cut_len);

    edits[n].buf = ngx_create_temp_buf(r->pool, inject->len);
    if (edits[n].buf == NULL) {
        return NGX_ERROR;
    }

    edits[n].buf->last = ngx_cpymem(edits[n].buf->last, inject->text,
                                    inject->len);

    ctx->injected = 1;

    if (n == 1 && edits[1].start < edits[0].start) {
        edit = edits[0];
        edits[0] = edits[1];
        edits[1] = edit;
    }

    return n + 1;
}


/* Adds the bytes from..to of a chain to another one, without a copy. */

static ngx_int_t
ngx_http_llm_body_slice(ngx_http_request_t *r, ngx_chain_t *in, off_t from,
    off_t to, ngx_chain_t ***last)
{
    off_t         begin, end, size;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    for ( /* void */ ; in && to > 0; in = in->next) {

        size = ngx_buf_size(in->buf);

        begin = ngx_max(from, 0);
        end = ngx_min(to, size);

        from -= size;
        to -= size;

        if (begin >= end) {
            continue;
        }

        b = ngx_alloc_buf(r->pool);
        cl = ngx_alloc_chain_link(r->pool);

        if (b == NULL || cl == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(b, in->buf, sizeof(ngx_buf_t));

        if (ngx_buf_in_memory(b)) {
            b->last = b->pos + end;
            b->pos += begin;
            b->start = b->pos;

        } else {
            b->file_last = b->file_pos + end;
            b->file_pos += begin;
        }

        cl->buf = b;

        **last = cl;
        *last = &cl->next;
    }

    return NGX_OK;
}


/* The name as a JSON string. */

static ngx_buf_t *
ngx_http_llm_body_model(ngx_http_request_t *r, ngx_str_t *name)
{
    ngx_buf_t  *b;

    b = ngx_create_temp_buf(r->pool, name->len + 2
                            + ngx_escape_json(NULL, name->data, name->len));
    if (b == NULL) {
        return NULL;
    }

    *b->last++ = '"';
    b->last = (u_char *) ngx_escape_json(b->last, name->data, name->len);
    *b->last++ = '"';

    return b;
}
