
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_answer.h"
#include "ngx_http_llm_attempt.h"
#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_route.h"


/*
 * Before the commit: an answer whose header says too little is held until
 * its body has said enough.  An event stream is held until its first content
 * token, or longer where llm_commit says so; an error until its body tells
 * whose fault it is.
 *
 * As long as process_header() returns NGX_AGAIN, nginx reads on into
 * u->buffer and has promised nothing to the caller.  What was held is sent
 * as it came: nginx itself parses the buffer again behind the commit.
 */


/* what is read of an error */

#define NGX_HTTP_LLM_HOLD_BODY  16384


static ngx_int_t ngx_http_llm_hold_read(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_hold_chunked(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_hold_bytes(ngx_http_llm_ctx_t *ctx, u_char *p,
    size_t len);
static void ngx_http_llm_hold_stream(ngx_http_llm_ctx_t *ctx, u_char *p,
    size_t len);
static ngx_int_t ngx_http_llm_hold_decide(ngx_http_llm_ctx_t *ctx,
    ngx_int_t rc);
static ngx_http_llm_fault_e ngx_http_llm_hold_fault(ngx_http_llm_ctx_t *ctx,
    ngx_int_t rc);
static ngx_uint_t ngx_http_llm_hold_enough(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_hold_t *hold);
static ngx_int_t ngx_http_llm_hold_grow(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ssize_t ngx_http_llm_hold_recv(ngx_connection_t *c, u_char *buf,
    size_t size);


/* Nothing is held yet, but may be from now on; a stream will be read along. */

ngx_int_t
ngx_http_llm_hold_init(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_hold_e what)
{
    ngx_buf_t            *b;
    ngx_http_llm_hold_t  *hold;

    hold = ctx->hold;

    if (hold == NULL) {
        hold = ngx_palloc(r->pool, sizeof(ngx_http_llm_hold_t));
        if (hold == NULL) {
            return NGX_ERROR;
        }

        ctx->hold = hold;
    }

    ngx_memzero(hold, offsetof(ngx_http_llm_hold_t, sse));
    llm_sse_init(&hold->sse);

    b = &r->upstream->buffer;

    hold->what = what;
    hold->scanned = b->pos - b->start;

    if (what == NGX_HTTP_LLM_HOLD_ERROR) {
        hold->body = ngx_pnalloc(r->pool, NGX_HTTP_LLM_HOLD_BODY);
        if (hold->body == NULL) {
            return NGX_ERROR;
        }
    }

    ctx->last_read = ngx_current_msec;

    ngx_http_llm_deadline_update(ctx);

    return NGX_OK;
}


/*
 * More of the body is in u->buffer.
 *
 * NGX_OK: it has said enough, NGX_DECLINED: it is not what its header said,
 * and ctx->fault tells why, NGX_AGAIN: hold on
 */

ngx_int_t
ngx_http_llm_hold_more(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t  rc;

    rc = ngx_http_llm_hold_read(r, ctx);

    rc = ngx_http_llm_hold_decide(ctx, rc);

    return rc == NGX_AGAIN ? ngx_http_llm_hold_grow(r, ctx) : rc;
}


/* NGX_OK: the body is whole, NGX_AGAIN: it is not, NGX_ERROR: it is broken */

static ngx_int_t
ngx_http_llm_hold_read(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    off_t                 left;
    size_t                size;
    u_char               *p;
    ngx_http_llm_hold_t  *hold;
    ngx_http_upstream_t  *u;

    u = r->upstream;
    hold = ctx->hold;

    if (u->headers_in.chunked) {
        return ngx_http_llm_hold_chunked(r, ctx);
    }

    p = u->buffer.start + hold->scanned;
    size = u->buffer.last - p;

    if (u->headers_in.content_length_n >= 0) {

        /* nginx sends nothing that comes behind it */

        left = u->headers_in.content_length_n - (off_t) hold->bytes;
        size = (size_t) ngx_min((off_t) size, left);
    }

    ngx_http_llm_hold_bytes(ctx, p, size);

    hold->scanned = u->buffer.last - u->buffer.start;

    if (u->headers_in.content_length_n >= 0
        && (off_t) hold->bytes >= u->headers_in.content_length_n)
    {
        return NGX_OK;
    }

    return NGX_AGAIN;
}


static ngx_int_t
ngx_http_llm_hold_chunked(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    size_t                size;
    ngx_int_t             rc;
    ngx_buf_t             b;
    ngx_http_llm_hold_t  *hold;

    hold = ctx->hold;

    b = r->upstream->buffer;
    b.pos = b.start + hold->scanned;

    for ( ;; ) {

#if (nginx_version >= 1027002)
        rc = ngx_http_parse_chunked(r, &b, &hold->chunked, 0);
#else
        rc = ngx_http_parse_chunked(r, &b, &hold->chunked);
#endif

        if (rc != NGX_OK) {
            break;
        }

        size = (size_t) ngx_min(b.last - b.pos, hold->chunked.size);

        ngx_http_llm_hold_bytes(ctx, b.pos, size);

        b.pos += size;
        hold->chunked.size -= size;
    }

    hold->scanned = b.pos - b.start;

    return rc == NGX_DONE ? NGX_OK : rc;
}


static void
ngx_http_llm_hold_bytes(ngx_http_llm_ctx_t *ctx, u_char *p, size_t len)
{
    size_t                room;
    ngx_http_llm_hold_t  *hold;

    hold = ctx->hold;

    if (hold->what == NGX_HTTP_LLM_HOLD_STREAM) {
        ngx_http_llm_hold_stream(ctx, p, len);
        return;
    }

    hold->bytes += len;

    ctx->last_read = ngx_current_msec;

    if (hold->what == NGX_HTTP_LLM_HOLD_ERROR) {

        room = NGX_HTTP_LLM_HOLD_BODY - hold->body_len;
        room = ngx_min(room, len);

        ngx_memcpy(hold->body + hold->body_len, p, room);
        hold->body_len += room;
    }
}


static void
ngx_http_llm_hold_stream(ngx_http_llm_ctx_t *ctx, u_char *p, size_t len)
{
    size_t                n;
    unsigned              events;
    ngx_http_llm_hold_t  *hold;

    hold = ctx->hold;

    while (len && !hold->decided) {
        n = llm_sse_scan(&hold->sse, p, len, &events);

        if (n == 0) {
            hold->bytes += len;
            break;
        }

        hold->bytes += n;
        hold->events |= events;

        ngx_http_llm_watch_event(ctx, events);

        /* what comes behind the first event that decides has no say */

        hold->decided = ngx_http_llm_hold_fault(ctx, NGX_AGAIN)
                        != NGX_HTTP_LLM_FAULT_NONE
                        || ngx_http_llm_hold_enough(ctx, hold);

        p += n;
        len -= n;
    }

    if (hold->sse.pending) {

        /* an event is on its way */

        ctx->last_read = ngx_current_msec;
    }
}


static ngx_int_t
ngx_http_llm_hold_decide(ngx_http_llm_ctx_t *ctx, ngx_int_t rc)
{
    unsigned              events;
    ngx_http_llm_hold_t  *hold;

    hold = ctx->hold;

    if (hold->what == NGX_HTTP_LLM_HOLD_ERROR) {
        return rc == NGX_AGAIN && !hold->over
               && hold->body_len < NGX_HTTP_LLM_HOLD_BODY
               ? NGX_AGAIN : NGX_OK;
    }

    if (hold->what == NGX_HTTP_LLM_HOLD_STREAM) {

        if (hold->decided) {
            rc = NGX_AGAIN;

        } else if (rc == NGX_OK) {

            /* the last event may lack the line that ends it */

            (void) llm_sse_end(&hold->sse, &events);

            hold->events |= events;
            hold->finishes += (events & LLM_SSE_FINISH) != 0;
        }

        ctx->fault = ngx_http_llm_hold_fault(ctx, rc);
    }

    if (rc == NGX_ERROR) {
        ctx->fault = NGX_HTTP_LLM_FAULT_BROKEN;
    }

    if (ctx->fault != NGX_HTTP_LLM_FAULT_NONE) {
        return NGX_DECLINED;
    }

    if (rc == NGX_OK || ngx_http_llm_hold_enough(ctx, hold)) {
        return NGX_OK;
    }

    return NGX_AGAIN;
}


/* What is wrong with a stream, before the caller has seen anything of it. */

static ngx_http_llm_fault_e
ngx_http_llm_hold_fault(ngx_http_llm_ctx_t *ctx, ngx_int_t rc)
{
    unsigned  events;

    events = ctx->hold->events;

    if (events & LLM_SSE_ERROR) {
        return NGX_HTTP_LLM_FAULT_ERROR_EVENT;
    }

    if ((events & LLM_SSE_BROKEN) && !(events & LLM_SSE_CONTENT)) {
        return NGX_HTTP_LLM_FAULT_UNREADABLE;
    }

    if ((events & LLM_SSE_DONE) && !(events & (LLM_SSE_FINISH|LLM_SSE_CONTENT)))
    {
        return NGX_HTTP_LLM_FAULT_EMPTY;
    }

    if (rc == NGX_OK && !ngx_http_llm_watch_whole(ctx, events)) {
        return NGX_HTTP_LLM_FAULT_BROKEN;
    }

    return NGX_HTTP_LLM_FAULT_NONE;
}


/* Whether what is held of a good answer may go to the caller. */

static ngx_uint_t
ngx_http_llm_hold_enough(ngx_http_llm_ctx_t *ctx, ngx_http_llm_hold_t *hold)
{
    ngx_http_llm_commit_t  *commit;

    commit = &ctx->route->commit;

    if (hold->over) {
        return 1;
    }

    if (hold->what == NGX_HTTP_LLM_HOLD_WHOLE) {
        return hold->bytes >= NGX_HTTP_LLM_HOLD_MAX;
    }

    if (ngx_http_llm_watch_whole(ctx, hold->events)) {

        /* it is whole, whatever still comes behind */

        return 1;
    }

    switch (commit->when) {

    case NGX_HTTP_LLM_COMMIT_WINDOW:
        return (hold->events & LLM_SSE_CONTENT)
               && commit->size && hold->bytes >= commit->size;

    case NGX_HTTP_LLM_COMMIT_COMPLETE:
        return hold->bytes >= NGX_HTTP_LLM_HOLD_MAX;

    default:
        return (hold->events & LLM_SSE_CONTENT) != 0;
    }
}


/* nginx takes a full buffer for a header that is too big. */

static ngx_int_t
ngx_http_llm_hold_grow(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    size_t                size;
    u_char               *p;
    ngx_buf_t            *b;
    ngx_http_upstream_t  *u;

    u = r->upstream;
    b = &u->buffer;

    if (b->last < b->end) {
        return NGX_AGAIN;
    }

    size = b->end - b->start;

    if (size >= NGX_HTTP_LLM_HOLD_MAX) {

        /* that is all there is room for: what is held must go */

        ctx->hold->over = 1;

        return ngx_http_llm_hold_more(r, ctx);
    }

    p = ngx_palloc(r->pool, 2 * size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, b->start, size);

    if (2 * size > u->conf->busy_buffers_size && !u->cacheable && !u->store) {

        /* nginx never sends a buffer that is larger than that */

        u->buffering = 0;
    }

    b->pos = p + (b->pos - b->start);
    b->last = p + size;
    b->start = p;
    b->end = p + 2 * size;

    return NGX_AGAIN;
}


/*
 * The window is over and nothing arrives: nginx asks process_header() only
 * when it has read something, so it reads the last byte once more.
 */

void
ngx_http_llm_hold_over(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_connection_t     *c;
    ngx_http_upstream_t  *u;

    u = r->upstream;
    c = u->peer.connection;

    ctx->hold->over = 1;
    ctx->hold->recv = c->recv;

    u->buffer.last--;
    u->state->bytes_received--;

    c->recv = ngx_http_llm_hold_recv;

    c->read->handler(c->read);
}


static ssize_t
ngx_http_llm_hold_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    ngx_http_llm_ctx_t  *ctx;
    ngx_http_request_t  *r;

    r = c->data;
    ctx = ngx_http_llm_get_ctx(r);

    c->recv = ctx->hold->recv;

    return 1;
}
