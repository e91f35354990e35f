
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_text.h"
#include "ngx_http_llm_tree.h"

#include "llm_price.h"


/* The trees of which a page is made: their memory, and their values. */


static void *ngx_http_llm_tree_alloc(size_t size);
static void ngx_http_llm_tree_free(void *p);
static json_t *ngx_http_llm_tree_repaired(ngx_str_t *s);


static ngx_pool_t     *ngx_http_llm_tree_pool;
static ngx_uint_t      ngx_http_llm_tree_failed;
static json_malloc_t   ngx_http_llm_tree_next_malloc;
static json_free_t     ngx_http_llm_tree_next_free;


void
ngx_http_llm_tree_begin(ngx_pool_t *pool)
{
    json_get_alloc_funcs(&ngx_http_llm_tree_next_malloc,
                         &ngx_http_llm_tree_next_free);

    ngx_http_llm_tree_pool = pool;
    ngx_http_llm_tree_failed = 0;

    json_set_alloc_funcs(ngx_http_llm_tree_alloc, ngx_http_llm_tree_free);
}


/*
 * The tree goes with the pool: json_decref() is too late now.  NGX_ERROR: there
 * was no memory, and something is missing in it.
 */

ngx_int_t
ngx_http_llm_tree_end(void)
{
    json_set_alloc_funcs(ngx_http_llm_tree_next_malloc,
                         ngx_http_llm_tree_next_free);

    return ngx_http_llm_tree_failed ? NGX_ERROR : NGX_OK;
}


static void *
ngx_http_llm_tree_alloc(size_t size)
{
    void  *p;

    p = ngx_palloc(ngx_http_llm_tree_pool, size);

    ngx_http_llm_tree_failed |= (p == NULL);

    return p;
}


static void
ngx_http_llm_tree_free(void *p)
{
    /* void */
}


/*
 * Names come from the configuration and may be in any encoding, but JSON is
 * UTF-8: every byte that is none stands as U+FFFD.
 */

json_t *
ngx_http_llm_tree_string(ngx_str_t *s)
{
    json_t  *string;

    string = json_stringn((char *) s->data, s->len);

    return string ? string : ngx_http_llm_tree_repaired(s);
}


static json_t *
ngx_http_llm_tree_repaired(ngx_str_t *s)
{
    size_t   n, left;
    u_char  *text, *dst, *src, *last;
    json_t  *string;

    text = ngx_alloc(3 * s->len, ngx_cycle->log);
    if (text == NULL) {
        return NULL;
    }

    dst = text;
    last = s->data + s->len;

    for (src = s->data; src < last; src += n) {

        string = NULL;
        left = ngx_min(4, last - src);

        for (n = 1; n <= left; n++) {

            string = json_stringn((char *) src, n);

            if (string) {
                break;
            }
        }

        if (string) {
            json_decref(string);
            dst = ngx_cpymem(dst, src, n);

        } else {
            dst = ngx_cpymem(dst, "\xef\xbf\xbd", 3);
            n = 1;
        }
    }

    string = json_stringn((char *) text, dst - text);

    ngx_free(text);

    return string;
}


/* ISO 8601 in UTC; null for never */

json_t *
ngx_http_llm_tree_time(uint64_t ms)
{
    u_char    text[sizeof("1970-01-01T00:00:00.000Z") + NGX_INT64_LEN], *p;
    ngx_tm_t  tm;

    if (ms == 0) {
        return json_null();
    }

    ngx_gmtime((time_t) (ms / 1000), &tm);

    p = ngx_sprintf(text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
                    tm.ngx_tm_year, tm.ngx_tm_mon, tm.ngx_tm_mday,
                    tm.ngx_tm_hour, tm.ngx_tm_min, tm.ngx_tm_sec,
                    (int) (ms % 1000));

    return json_stringn_nocheck((char *) text, p - text);
}


json_t *
ngx_http_llm_tree_seconds(uint64_t ms)
{
    return json_real((double) ms / 1000);
}


json_t *
ngx_http_llm_tree_fine(uint64_t us)
{
    return json_real((double) us / 1000000);
}


/* a millionth is exact enough */

json_t *
ngx_http_llm_tree_share(uint64_t part, uint64_t whole)
{
    double  millionths;

    millionths = whole ? (double) part / whole * 1000000 : 0;

    return json_real((double) (uint64_t) (millionths + 0.5) / 1000000);
}


/* USD; the double that is nearest to the sum, of which all digits are told */

json_t *
ngx_http_llm_tree_money(uint64_t pico)
{
    char  text[LLM_PRICE_TEXT];

    llm_price_format(pico, text);

    return json_real(strtod(text, NULL));
}


/*
 * 15 digits, without zeroes at the end.  Most values are millionths, for
 * which printf() is not needed.
 */

u_char *
ngx_http_llm_tree_real(u_char *p, double value)
{
    uint64_t  n;

    if (value >= 0 && value < 1e9) {

        n = (uint64_t) (value * 1000000 + 0.5);

        if ((double) n / 1000000 == value) {
            return ngx_http_llm_tree_millionths(p, n);
        }
    }

    return p + snprintf((char *) p, NGX_HTTP_LLM_NUMBER_LEN, "%.15g", value);
}


u_char *
ngx_http_llm_tree_millionths(u_char *p, uint64_t n)
{
    uint64_t  fraction;

    p = ngx_sprintf(p, "%uL", n / 1000000);

    fraction = n % 1000000;

    if (fraction == 0) {
        return p;
    }

    p = ngx_sprintf(p, ".%06uL", fraction);

    while (p[-1] == '0') {
        p--;
    }

    return p;
}
