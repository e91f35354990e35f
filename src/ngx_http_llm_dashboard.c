
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_dashboard.h"
#include "ngx_http_llm_header.h"


/*
 * llm_status for people: a page whose script and style come from the same
 * location, with an argument, and whose data is the JSON of that location.
 * So it works wherever it is put, and behind whatever protects it.
 */


#define NGX_HTTP_LLM_QUALITY_MAX  1000

#define ngx_http_llm_asset(id, file, type, param)                             \
    { ngx_string(file), ngx_string(type param), sizeof(type) - 1,             \
      ngx_http_llm_dashboard_##id, ngx_http_llm_dashboard_##id##_end }

#define NGX_HTTP_LLM_UTF8  "; charset=utf-8"


static ngx_uint_t ngx_http_llm_dashboard_wanted(ngx_http_request_t *r,
    ngx_http_llm_format_e format);
static ngx_uint_t ngx_http_llm_accepts(ngx_http_request_t *r,
    const char *type, const char *range);
static ngx_uint_t ngx_http_llm_accept_quality(u_char *p, u_char *last);


/* assets.S; the first is the page */

extern const u_char  ngx_http_llm_dashboard_html[];
extern const u_char  ngx_http_llm_dashboard_html_end[];
extern const u_char  ngx_http_llm_dashboard_css[];
extern const u_char  ngx_http_llm_dashboard_css_end[];
extern const u_char  ngx_http_llm_dashboard_svg[];
extern const u_char  ngx_http_llm_dashboard_svg_end[];
extern const u_char  ngx_http_llm_dashboard_js[];
extern const u_char  ngx_http_llm_dashboard_js_end[];
extern const u_char  ngx_http_llm_dashboard_parts[];
extern const u_char  ngx_http_llm_dashboard_parts_end[];
extern const u_char  ngx_http_llm_dashboard_judge[];
extern const u_char  ngx_http_llm_dashboard_judge_end[];

static ngx_http_llm_asset_t  ngx_http_llm_assets[] = {
    ngx_http_llm_asset(html, "dashboard.html", "text/html",
                       NGX_HTTP_LLM_UTF8),
    ngx_http_llm_asset(css, "dashboard.css", "text/css", NGX_HTTP_LLM_UTF8),
    ngx_http_llm_asset(svg, "dashboard.svg", "image/svg+xml", ""),
    ngx_http_llm_asset(js, "dashboard.js", "text/javascript",
                       NGX_HTTP_LLM_UTF8),
    ngx_http_llm_asset(parts, "dashboard.parts.js", "text/javascript",
                       NGX_HTTP_LLM_UTF8),
    ngx_http_llm_asset(judge, "dashboard.judge.js", "text/javascript",
                       NGX_HTTP_LLM_UTF8)
};


ngx_int_t
ngx_http_llm_dashboard(ngx_http_request_t *r, ngx_http_llm_format_e format,
    ngx_http_llm_asset_t **asset)
{
    ngx_uint_t  i, n;

    if (r->args.len >= sizeof("dashboard.") - 1
        && ngx_strncmp(r->args.data, "dashboard.", sizeof("dashboard.") - 1)
           == 0)
    {
        n = sizeof(ngx_http_llm_assets) / sizeof(ngx_http_llm_assets[0]);

        for (i = 0; i < n; i++) {
            *asset = &ngx_http_llm_assets[i];

            if ((*asset)->name.len == r->args.len
                && ngx_strncmp((*asset)->name.data, r->args.data, r->args.len)
                   == 0)
            {
                return NGX_OK;
            }
        }

        return NGX_HTTP_NOT_FOUND;
    }

    if (!ngx_http_llm_dashboard_wanted(r, format)) {
        return NGX_DECLINED;
    }

    *asset = &ngx_http_llm_assets[0];

    return NGX_OK;
}


/* Where a caller likes both as well, it is up to the location. */

static ngx_uint_t
ngx_http_llm_dashboard_wanted(ngx_http_request_t *r,
    ngx_http_llm_format_e format)
{
    ngx_uint_t  html, json;

    html = ngx_http_llm_accepts(r, "text/html", "text/*");
    json = ngx_http_llm_accepts(r, "application/json", "application/*");

    if (format == NGX_HTTP_LLM_FORMAT_HTML) {
        return html >= json;
    }

    return html > json;
}


/*
 * How much the caller likes a type, which is in a range: the more the greater.
 * Of what it says, that counts which says it most exactly; and where two types
 * are of one quality, it likes better what it has named.
 */

static ngx_uint_t
ngx_http_llm_accepts(ngx_http_request_t *r, const char *type,
    const char *range)
{
    u_char           *p, *next, *last, *end;
    ngx_uint_t        i, n, exact, quality;
    const char       *ranges[4];
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    ranges[0] = NULL;
    ranges[1] = "*/*";
    ranges[2] = range;
    ranges[3] = type;

    exact = 0;
    quality = 0;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len != sizeof("Accept") - 1
            || ngx_strncasecmp(h[i].key.data, (u_char *) "Accept",
                               sizeof("Accept") - 1)
               != 0)
        {
            continue;
        }

        last = h[i].value.data + h[i].value.len;

        for (p = h[i].value.data; p < last; p = next + 1) {

            while (p < last && (*p == ' ' || *p == '\t')) {
                p++;
            }

            next = ngx_strlchr(p, last, ',');
            next = next ? next : last;

            for (end = p; end < next; end++) {
                if (*end == ';' || *end == ' ' || *end == '\t') {
                    break;
                }
            }

            for (n = 3; n > exact; n--) {
                if (ngx_strlen(ranges[n]) == (size_t) (end - p)
                    && ngx_strncasecmp(p, (u_char *) ranges[n], end - p) == 0)
                {
                    exact = n;
                    quality = ngx_http_llm_accept_quality(end, next);
                    break;
                }
            }
        }
    }

    return quality ? 4 * quality + exact : 0;
}


/* "; q=0.5", in thousandths; what can not be read is as if it was not there */

static ngx_uint_t
ngx_http_llm_accept_quality(u_char *p, u_char *last)
{
    ngx_int_t  quality;

    for ( ;; ) {
        p = ngx_strlchr(p, last, ';');

        if (p == NULL) {
            return NGX_HTTP_LLM_QUALITY_MAX;
        }

        do {
            p++;
        } while (p < last && (*p == ' ' || *p == '\t'));

        if (last - p > 2 && (p[0] == 'q' || p[0] == 'Q') && p[1] == '=') {
            break;
        }
    }

    p += 2;

    while (last > p && (last[-1] == ' ' || last[-1] == '\t')) {
        last--;
    }

    quality = ngx_atofp(p, last - p, 3);

    return (quality == NGX_ERROR || quality > NGX_HTTP_LLM_QUALITY_MAX)
           ? NGX_HTTP_LLM_QUALITY_MAX : (ngx_uint_t) quality;
}


ngx_int_t
ngx_http_llm_dashboard_headers(ngx_http_request_t *r)
{
    ngx_uint_t  i, n;

    static struct {
        const char  *name;
        ngx_str_t    value;
    } headers[] = {
        { "Vary", ngx_string("Accept") },
        { "X-Content-Type-Options", ngx_string("nosniff") },
        { "X-Frame-Options", ngx_string("DENY") },
        { "Referrer-Policy", ngx_string("no-referrer") },
        { "Content-Security-Policy",
          ngx_string("default-src 'none'; script-src 'self'; "
                     "style-src 'self'; img-src 'self'; connect-src 'self'; "
                     "base-uri 'none'; form-action 'none'; "
                     "frame-ancestors 'none'; "
                     "require-trusted-types-for 'script'") }
    };

    n = sizeof(headers) / sizeof(headers[0]);

    for (i = 0; i < n; i++) {
        if (ngx_http_llm_push_header(r, headers[i].name, &headers[i].value)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
