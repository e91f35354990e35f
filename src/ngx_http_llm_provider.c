
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_circuit.h"
#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_probe.h"
#include "ngx_http_llm_words.h"

#include "llm_json.h"


/*
 * llm_provider NAME { ... }: one endpoint with one circuit.  The directives
 * inside are ordinary nginx directives of a context of their own, so that
 * nginx checks their names and numbers of arguments.
 */


#define NGX_HTTP_LLM_STATUSES  600


static char *ngx_http_llm_provider_check(ngx_conf_t *cf,
    ngx_http_llm_provider_t *provider);
static char *ngx_http_llm_header_check(ngx_conf_t *cf,
    ngx_http_llm_provider_t *provider, ngx_str_t *name, ngx_str_t *value);
static ngx_uint_t ngx_http_llm_is_token(ngx_str_t *s);


static ngx_http_llm_word_t  ngx_http_llm_timeout_words[] = {
    { ngx_string("connect"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(ngx_http_llm_provider_t, timeout.connect),
      5000, 1, LLM_CIRCUIT_LONGEST, 0 },
    { ngx_string("header"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(ngx_http_llm_provider_t, timeout.header),
      60000, 1, LLM_CIRCUIT_LONGEST, 0 },
    { ngx_string("answer"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(ngx_http_llm_provider_t, timeout.answer),
      600000, 1, LLM_CIRCUIT_LONGEST, 0 },
    { ngx_string("first_token"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(ngx_http_llm_provider_t, timeout.first_token),
      0, 1, LLM_CIRCUIT_LONGEST, 1 },
    { ngx_string("idle"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(ngx_http_llm_provider_t, timeout.idle),
      60000, 1, LLM_CIRCUIT_LONGEST, 0 },
    { ngx_null_string, 0, 0, 0, 0, 0, 0 }
};


static ngx_http_llm_word_t  ngx_http_llm_limit_words[] = {
    { ngx_string("rpm"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_provider_t, limit.rpm), 0, 1, 1000000, 1 },
    { ngx_string("tpm"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_provider_t, limit.tpm), 0, 1, 4000000000, 1 },
    { ngx_string("concurrency"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_provider_t, limit.concurrency), 0, 1, 1000000, 1 },
    { ngx_null_string, 0, 0, 0, 0, 0, 0 }
};


/* headers of the connection itself, which nginx writes */

static ngx_str_t  ngx_http_llm_hop_headers[] = {
    ngx_string("connection"),
    ngx_string("content-length"),
    ngx_string("expect"),
    ngx_string("keep-alive"),
    ngx_string("te"),
    ngx_string("transfer-encoding"),
    ngx_string("upgrade"),
    ngx_null_string
};


char *
ngx_http_llm_provider(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *mcf = conf;

    char                     *rv;
    void                    **loc_conf;
    ngx_str_t                *value;
    ngx_conf_t                save;
    ngx_http_conf_ctx_t       ctx;
    ngx_http_llm_provider_t  *provider, **providerp;

    value = cf->args->elts;

    if (!ngx_http_llm_is_token(&value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid name \"%V\" in \"llm_provider\": expected "
                           "letters, digits, \"-\", \"_\" and \".\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_llm_find_provider(mcf, &value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate \"llm_provider\" \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    provider = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_provider_t));
    providerp = ngx_array_push(&mcf->providers);
    loc_conf = ngx_pcalloc(cf->temp_pool, sizeof(void *) * ngx_http_max_module);

    if (provider == NULL || providerp == NULL || loc_conf == NULL
        || ngx_array_init(&provider->headers, cf->pool, 2,
                          sizeof(ngx_http_llm_header_t))
           != NGX_OK
        || ngx_array_init(&provider->models, cf->pool, 2,
                          sizeof(ngx_http_llm_model_t))
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    *providerp = provider;

    provider->name = value[1];
    provider->index = mcf->providers.nelts - 1;

    ngx_http_llm_circuit_init(&provider->circuit);
    ngx_http_llm_words_init(ngx_http_llm_timeout_words, provider);
    ngx_http_llm_words_init(ngx_http_llm_limit_words, provider);

    ctx = *(ngx_http_conf_ctx_t *) cf->ctx;
    ctx.loc_conf = loc_conf;
    loc_conf[ngx_http_llm_module.ctx_index] = provider;

    save = *cf;

    /* cppcheck-suppress autoVariables ; for as long as the block is read */
    cf->ctx = &ctx;
    cf->cmd_type = NGX_HTTP_LLM_PROVIDER_CONF;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    return ngx_http_llm_provider_check(cf, provider);
}


/* The block is read: what is missing is told or set. */

static char *
ngx_http_llm_provider_check(ngx_conf_t *cf, ngx_http_llm_provider_t *provider)
{
    if (provider->endpoint.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no \"endpoint\" in \"llm_provider\" \"%V\": "
                           "expected a URL, for example "
                           "\"endpoint https://api.openai.com/v1;\"",
                           &provider->name);
        return NGX_CONF_ERROR;
    }

    if (provider->client_key) {

        /* whatever else is sent, what a caller sends may be refused */

        provider->own_key = 0;
    }

    provider->limits.rpm = provider->limit.rpm;
    provider->limits.tpm = provider->limit.tpm;
    provider->limits.concurrency = provider->limit.concurrency;
    provider->limited = provider->limit.rpm || provider->limit.tpm
                        || provider->limit.concurrency;

    if (provider->limit.tpm && provider->limit.concurrency == 0) {

        /* counted, never refused: calls under way may give tokens back */

        provider->limits.concurrency = UINT32_MAX;
    }

    return ngx_http_llm_probe_check(cf, provider);
}


/* header NAME VALUE */

char *
ngx_http_llm_header(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_provider_t *provider = conf;

    ngx_str_t  *value;

    value = cf->args->elts;

    if (value[2].len && ngx_http_script_variables_count(&value[2]) == 0
        && ngx_http_llm_is_key_header(&value[1]))
    {
        provider->own_key = 1;
    }

    return ngx_http_llm_add_header(cf, provider, &value[1], &value[2], 0);
}


/* literal: the value is taken as it is, with no variables in it */

char *
ngx_http_llm_add_header(ngx_conf_t *cf, ngx_http_llm_provider_t *provider,
    ngx_str_t *name, ngx_str_t *value, ngx_uint_t literal)
{
    ngx_http_llm_header_t  *header;

    if (ngx_http_llm_header_check(cf, provider, name, value) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    header = ngx_array_push(&provider->headers);
    if (header == NULL) {
        return NGX_CONF_ERROR;
    }

    header->name = *name;

    if (!literal) {
        return ngx_http_llm_word_compile(cf, value, &header->value);
    }

    header->value = ngx_pcalloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (header->value == NULL) {
        return NGX_CONF_ERROR;
    }

    header->value->value = *value;

    return NGX_CONF_OK;
}


/* A header that may be sent, once, with one line of text. */

static char *
ngx_http_llm_header_check(ngx_conf_t *cf, ngx_http_llm_provider_t *provider,
    ngx_str_t *name, ngx_str_t *value)
{
    ngx_str_t              *hop;
    ngx_uint_t              i;
    ngx_http_llm_header_t  *header;

    if (!ngx_http_llm_is_token(name)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid header name \"%V\" in \"llm_provider\" "
                           "\"%V\": expected letters, digits, \"-\", \"_\" "
                           "and \".\"", name, &provider->name);
        return NGX_CONF_ERROR;
    }

    for (hop = ngx_http_llm_hop_headers; hop->len; hop++) {
        if (hop->len == name->len
            && ngx_strncasecmp(hop->data, name->data, hop->len) == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "header \"%V\" in \"llm_provider\" \"%V\" "
                               "belongs to the connection and is written by "
                               "nginx", name, &provider->name);
            return NGX_CONF_ERROR;
        }
    }

    header = provider->headers.elts;

    for (i = 0; i < provider->headers.nelts; i++) {
        if (header[i].name.len == name->len
            && ngx_strncasecmp(header[i].name.data, name->data, name->len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "header \"%V\" is set twice in "
                               "\"llm_provider\" \"%V\"",
                               name, &provider->name);
            return NGX_CONF_ERROR;
        }
    }

    for (i = 0; i < value->len; i++) {
        if ((value->data[i] < 0x20 && value->data[i] != '\t')
            || value->data[i] == 0x7f)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "control character in the value of header "
                               "\"%V\" in \"llm_provider\" \"%V\": expected "
                               "one line of text", name, &provider->name);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static ngx_uint_t
ngx_http_llm_is_token(ngx_str_t *s)
{
    u_char      c;
    ngx_uint_t  i;

    for (i = 0; i < s->len; i++) {

        c = ngx_tolower(s->data[i]);

        if ((c < 'a' || c > 'z') && (c < '0' || c > '9')
            && c != '-' && c != '_' && c != '.')
        {
            return 0;
        }
    }

    return s->len != 0;
}


/* model NAME [UPSTREAM_NAME], model * [UPSTREAM_NAME] */

char *
ngx_http_llm_model(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_provider_t *provider = conf;

    ngx_str_t             *value;
    ngx_uint_t             i;
    ngx_http_llm_model_t  *model;

    value = cf->args->elts;

    if (value[1].len == 0 || value[1].len > LLM_JSON_STRING
        || (cf->args->nelts == 3
            && (value[2].len == 0 || value[2].len > LLM_JSON_STRING)))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid name in \"model\": expected 1 to %d bytes",
                           LLM_JSON_STRING);
        return NGX_CONF_ERROR;
    }

    model = provider->models.elts;

    for (i = 0; i < provider->models.nelts; i++) {
        if (model[i].name.len == value[1].len
            && ngx_strncmp(model[i].name.data, value[1].data, value[1].len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate \"model\" \"%V\" in "
                               "\"llm_provider\" \"%V\"",
                               &value[1], &provider->name);
            return NGX_CONF_ERROR;
        }
    }

    if (value[1].len == 1 && value[1].data[0] == '*') {

        if (provider->any) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate \"model\" \"*\" in "
                               "\"llm_provider\" \"%V\"", &provider->name);
            return NGX_CONF_ERROR;
        }

        model = provider->any = ngx_palloc(cf->pool,
                                           sizeof(ngx_http_llm_model_t));
    } else {
        model = ngx_array_push(&provider->models);
    }

    if (model == NULL) {
        return NGX_CONF_ERROR;
    }

    model->name = value[1];
    ngx_str_null(&model->upstream_name);

    if (cf->args->nelts == 3) {
        model->upstream_name = value[2];
    }

    return NGX_CONF_OK;
}


/* circuit KEY=VALUE..., circuit off */

char *
ngx_http_llm_circuit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_provider_t *provider = conf;

    ngx_str_t  *value;

    if (provider->circuit_set) {
        return "is duplicate";
    }

    provider->circuit_set = 1;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        provider->circuit.off = 1;
        return cf->args->nelts == 2 ? NGX_CONF_OK : "has \"off\" and more: "
                                                    "expected \"off\" alone";
    }

    return ngx_http_llm_circuit_read(cf, 1, &provider->circuit);
}


/* limit [rpm=N] [tpm=N] [concurrency=N] */

char *
ngx_http_llm_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_provider_t *provider = conf;

    if (provider->limit_set) {
        return "is duplicate";
    }

    provider->limit_set = 1;

    return ngx_http_llm_words(cf, ngx_http_llm_limit_words, 1, provider);
}


/* price INPUT [OUTPUT] [cached=PRICE] [cache_write=PRICE] */

char *
ngx_http_llm_price(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_provider_t *provider = conf;

    uint64_t     pico, prices[2], *cached;
    ngx_str_t   *value, s;
    ngx_uint_t   i, n;
    const char  *expected;

    if (provider->price_set) {
        return "is duplicate";
    }

    provider->price_set = 1;

    value = cf->args->elts;
    n = 0;

    ngx_memzero(prices, sizeof(prices));

    for (i = 1; i < cf->args->nelts; i++) {

        s = value[i];
        cached = NULL;

        if (ngx_strncmp(s.data, "cached=", 7) == 0) {
            cached = &provider->price.cached;
            s.data += 7;
            s.len -= 7;

        } else if (ngx_strncmp(s.data, "cache_write=", 12) == 0) {
            cached = &provider->price.cache_write;
            s.data += 12;
            s.len -= 12;

        } else if (n == 2 || n + 1 != i) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" in \"price\": "
                               "expected INPUT [OUTPUT] [cached=PRICE] "
                               "[cache_write=PRICE]", &value[i]);
            return NGX_CONF_ERROR;
        }

        if (cached && n == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" in \"price\": "
                               "expected the price of input before it",
                               &value[i]);
            return NGX_CONF_ERROR;
        }

        expected = llm_price_parse(s.data, s.len, &pico);

        if (expected) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%V\" in \"price\": "
                               "expected %s", &value[i], expected);
            return NGX_CONF_ERROR;
        }

        if (cached) {
            *cached = pico;

        } else {
            prices[n++] = pico;
            llm_price_init(&provider->price, prices[0], prices[1]);
        }
    }

    return NGX_CONF_OK;
}


/* timeout KEY=TIME... */

char *
ngx_http_llm_timeout(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_provider_t *provider = conf;

    if (provider->timeout_set) {
        return "is duplicate";
    }

    provider->timeout_set = 1;

    return ngx_http_llm_words(cf, ngx_http_llm_timeout_words, 1, provider);
}


/* classify STATUS... CLASS; a STATUS may be a range, 520-524 */

char *
ngx_http_llm_classify(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_provider_t *provider = conf;

    int          class;
    u_char      *p;
    ngx_int_t    first, last;
    ngx_str_t   *value, *word;
    ngx_uint_t   i;

    value = cf->args->elts;
    word = &value[cf->args->nelts - 1];

    class = llm_class_parse(word->data, word->len);

    if (class < 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid class \"%V\" in \"classify\": expected "
                           "failure, throttle, credential, capability, "
                           "neutral or success", word);
        return NGX_CONF_ERROR;
    }

    if (provider->classes == NULL) {
        provider->classes = ngx_palloc(cf->pool, NGX_HTTP_LLM_STATUSES);
        if (provider->classes == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memset(provider->classes, -1, NGX_HTTP_LLM_STATUSES);
    }

    for (i = 1; i < cf->args->nelts - 1; i++) {

        p = ngx_strlchr(value[i].data, value[i].data + value[i].len, '-');

        first = ngx_atoi(value[i].data,
                         p ? (size_t) (p - value[i].data) : value[i].len);
        last = p ? ngx_atoi(p + 1, value[i].data + value[i].len - (p + 1))
                 : first;

        if (first < 200 || last < first || last >= NGX_HTTP_LLM_STATUSES) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid status \"%V\" in \"classify\": "
                               "expected 200 to 599, or a range such as "
                               "\"520-524\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        ngx_memset(provider->classes + first, class, last - first + 1);
    }

    return NGX_CONF_OK;
}


ngx_http_llm_provider_t *
ngx_http_llm_find_provider(ngx_http_llm_main_conf_t *mcf, ngx_str_t *name)
{
    ngx_uint_t                 i;
    ngx_http_llm_provider_t  **providerp;

    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {
        if (providerp[i]->name.len == name->len
            && ngx_strncmp(providerp[i]->name.data, name->data, name->len)
               == 0)
        {
            return providerp[i];
        }
    }

    return NULL;
}


/*
 * Whether the provider serves a model, and under which name: empty where
 * the body may stay as it is.
 */

ngx_int_t
ngx_http_llm_provider_serves(ngx_http_llm_provider_t *provider,
    ngx_str_t *model, ngx_str_t *upstream_name)
{
    ngx_uint_t             i;
    ngx_http_llm_model_t  *m;

    ngx_str_null(upstream_name);

    m = provider->models.elts;

    for (i = 0; i < provider->models.nelts; i++) {
        if (m[i].name.len == model->len
            && ngx_memcmp(m[i].name.data, model->data, model->len) == 0)
        {
            *upstream_name = m[i].upstream_name;
            return NGX_OK;
        }
    }

    if (provider->any) {
        *upstream_name = provider->any->upstream_name;
        return NGX_OK;
    }

    return provider->models.nelts ? NGX_DECLINED : NGX_OK;
}
