
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_words.h"


/*
 * Directives of KEY=VALUE words: which keys there are, what their values may
 * be, and what holds where nothing is said, is a table for each directive.
 * And arguments of others that may hold variables.
 */


static ngx_http_llm_word_t *ngx_http_llm_word_find(ngx_http_llm_word_t *words,
    ngx_str_t *value);
static u_char *ngx_http_llm_word_names(u_char *p, u_char *last,
    ngx_http_llm_word_t *words);
static ngx_int_t ngx_http_llm_word_parse(ngx_http_llm_word_t *word,
    ngx_str_t *s);
static u_char *ngx_http_llm_word_value(u_char *p, u_char *last,
    ngx_http_llm_word_t *word, ngx_uint_t n);
static u_char *ngx_http_llm_word_values(u_char *p, u_char *last,
    ngx_http_llm_word_t *word);


void
ngx_http_llm_words_init(ngx_http_llm_word_t *words, void *conf)
{
    ngx_http_llm_word_t  *word;

    for (word = words; word->name.len; word++) {
        if (word->type != NGX_HTTP_LLM_WORD_TEXT) {
            *(uint32_t *) ((char *) conf + word->offset) = word->value;
        }
    }
}


/* Reads the words of the directive at hand from the n-th on. */

char *
ngx_http_llm_words(ngx_conf_t *cf, ngx_http_llm_word_t *words, ngx_uint_t n,
    void *conf)
{
    u_char               *p, *last, expected[512];
    uint64_t              said, bit;
    ngx_int_t             rc;
    ngx_str_t            *value, s;
    ngx_http_llm_word_t  *word;

    value = cf->args->elts;
    last = expected + sizeof(expected);
    said = 0;

    for ( /* void */ ; n < cf->args->nelts; n++) {

        word = ngx_http_llm_word_find(words, &value[n]);

        if (word == NULL) {

            p = ngx_http_llm_word_names(expected, last, words);

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" in \"%V\": "
                               "expected %*s", &value[n], &value[0],
                               (size_t) (p - expected), expected);
            return NGX_CONF_ERROR;
        }

        bit = (uint64_t) 1 << (word - words);

        if (said & bit) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate parameter \"%V\" in \"%V\"",
                               &word->name, &value[0]);
            return NGX_CONF_ERROR;
        }

        said |= bit;

        s.data = value[n].data + word->name.len + 1;
        s.len = value[n].len - word->name.len - 1;

        if (word->type == NGX_HTTP_LLM_WORD_TEXT
            && s.len >= word->min && s.len <= word->max)
        {
            *(ngx_str_t *) ((char *) conf + word->offset) = s;
            continue;
        }

        rc = ngx_http_llm_word_parse(word, &s);

        if (rc == NGX_ERROR) {

            p = ngx_http_llm_word_values(expected, last, word);

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%V\" of \"%V\" in \"%V\": "
                               "expected %*s", &s, &word->name, &value[0],
                               (size_t) (p - expected), expected);
            return NGX_CONF_ERROR;
        }

        *(uint32_t *) ((char *) conf + word->offset) = (uint32_t) rc;
    }

    return NGX_CONF_OK;
}


static ngx_http_llm_word_t *
ngx_http_llm_word_find(ngx_http_llm_word_t *words, ngx_str_t *value)
{
    ngx_http_llm_word_t  *word;

    for (word = words; word->name.len; word++) {
        if (value->len > word->name.len
            && value->data[word->name.len] == '='
            && ngx_strncmp(value->data, word->name.data, word->name.len) == 0)
        {
            return word;
        }
    }

    return NULL;
}


static u_char *
ngx_http_llm_word_names(u_char *p, u_char *last, ngx_http_llm_word_t *words)
{
    ngx_http_llm_word_t  *word;

    for (word = words; word->name.len; word++) {
        p = ngx_slprintf(p, last, "%s%V=", word == words ? "" : ", ",
                         &word->name);
    }

    return p;
}


static ngx_int_t
ngx_http_llm_word_parse(ngx_http_llm_word_t *word, ngx_str_t *s)
{
    ngx_int_t  n;

    if (word->off && s->len == 3 && ngx_strncmp(s->data, "off", 3) == 0) {
        return 0;
    }

    switch (word->type) {

    case NGX_HTTP_LLM_WORD_TIME:
        n = ngx_parse_time(s, 0);
        break;

    case NGX_HTTP_LLM_WORD_PERCENT:
        n = s->len && s->data[s->len - 1] == '%'
            ? ngx_atoi(s->data, s->len - 1) : NGX_ERROR;
        break;

    case NGX_HTTP_LLM_WORD_FRACTION:
        n = ngx_atofp(s->data, s->len, 3);
        break;

    case NGX_HTTP_LLM_WORD_FLAG:
        return s->len == 2 && ngx_strncmp(s->data, "on", 2) == 0 ? 1
                                                                 : NGX_ERROR;
    case NGX_HTTP_LLM_WORD_TEXT:
        return NGX_ERROR;

    default: /* NGX_HTTP_LLM_WORD_NUMBER */
        n = ngx_atoi(s->data, s->len);
    }

    if (n == NGX_ERROR || (ngx_uint_t) n < word->min
        || (ngx_uint_t) n > word->max)
    {
        return NGX_ERROR;
    }

    return n;
}


static u_char *
ngx_http_llm_word_values(u_char *p, u_char *last, ngx_http_llm_word_t *word)
{
    if (word->type == NGX_HTTP_LLM_WORD_FLAG) {
        return ngx_slprintf(p, last, "\"on\" or \"off\"");
    }

    if (word->type == NGX_HTTP_LLM_WORD_TEXT) {
        return ngx_slprintf(p, last, "%uD to %uD bytes", word->min, word->max);
    }

    if (word->type == NGX_HTTP_LLM_WORD_TIME) {
        p = ngx_slprintf(p, last, "a time of ");
    }

    p = ngx_http_llm_word_value(p, last, word, word->min);
    p = ngx_slprintf(p, last, " to ");
    p = ngx_http_llm_word_value(p, last, word, word->max);

    return word->off ? ngx_slprintf(p, last, ", or \"off\"") : p;
}


/* as it would be written */

static u_char *
ngx_http_llm_word_value(u_char *p, u_char *last, ngx_http_llm_word_t *word,
    ngx_uint_t n)
{
    switch (word->type) {

    case NGX_HTTP_LLM_WORD_TIME:

        if (n % 86400000 == 0) {
            return ngx_slprintf(p, last, "%uid", n / 86400000);
        }

        if (n % 60000 == 0) {
            return ngx_slprintf(p, last, "%uim", n / 60000);
        }

        return ngx_slprintf(p, last, "%uims", n);

    case NGX_HTTP_LLM_WORD_PERCENT:
        return ngx_slprintf(p, last, "%ui%%", n);

    case NGX_HTTP_LLM_WORD_FRACTION:

        if (n % 1000 == 0) {
            return ngx_slprintf(p, last, "%ui", n / 1000);
        }

        return ngx_slprintf(p, last, "%ui.%03ui", n / 1000, n % 1000);

    default:
        return ngx_slprintf(p, last, "%ui", n);
    }
}


char *
ngx_http_llm_word_compile(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_complex_value_t **cv)
{
    ngx_http_compile_complex_value_t  ccv;

    *cv = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (*cv == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = value;
    ccv.complex_value = *cv;

    return ngx_http_compile_complex_value(&ccv) == NGX_OK ? NGX_CONF_OK
                                                          : NGX_CONF_ERROR;
}
