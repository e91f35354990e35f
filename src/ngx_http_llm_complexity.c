
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_gate.h"
#include "ngx_http_llm_words.h"

#include "llm_complexity.h"


/*
 * $llm_complexity: how demanding a prompt is, by the rules of the
 * configuration.  The body is read for it once, where somebody wants to know.
 */


#define NGX_HTTP_LLM_COUNT_MAX  1000000


struct ngx_http_llm_complexity_s {
    uint32_t                      medium_words;   /* 0: never, for all */
    uint32_t                      complex_words;
    uint32_t                      medium_terms;
    uint32_t                      complex_terms;
    uint32_t                      medium_all_words;
    uint32_t                      complex_all_words;
    uint32_t                      medium_messages;
    uint32_t                      complex_messages;
    uint32_t                      code;
    uint32_t                      code_words;
    ngx_array_t                   terms;          /* llm_complexity_term_t */
    llm_complexity_conf_t         conf;           /* made of all these */
    ngx_uint_t                    set;
};


static llm_json_rc_t ngx_http_llm_complexity_scan(void *scanner, u_char *p,
    size_t len);


static ngx_http_llm_word_t  ngx_http_llm_complexity_rules_words[] = {
    { ngx_string("medium_words"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_complexity_t, medium_words),
      80, 1, NGX_HTTP_LLM_COUNT_MAX, 1 },
    { ngx_string("complex_words"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_complexity_t, complex_words),
      400, 1, NGX_HTTP_LLM_COUNT_MAX, 1 },
    { ngx_string("medium_terms"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_complexity_t, medium_terms),
      1, 1, LLM_COMPLEXITY_TERMS, 1 },
    { ngx_string("complex_terms"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_complexity_t, complex_terms),
      3, 1, LLM_COMPLEXITY_TERMS, 1 },
    { ngx_string("code"), NGX_HTTP_LLM_WORD_FLAG,
      offsetof(ngx_http_llm_complexity_t, code), 1, 0, 1, 1 },
    { ngx_string("code_words"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_complexity_t, code_words),
      100, 1, NGX_HTTP_LLM_COUNT_MAX, 1 },
    { ngx_string("medium_all_words"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_complexity_t, medium_all_words),
      0, 1, NGX_HTTP_LLM_COUNT_MAX, 1 },
    { ngx_string("complex_all_words"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_complexity_t, complex_all_words),
      0, 1, NGX_HTTP_LLM_COUNT_MAX, 1 },
    { ngx_string("medium_messages"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_complexity_t, medium_messages),
      0, 1, NGX_HTTP_LLM_COUNT_MAX, 1 },
    { ngx_string("complex_messages"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(ngx_http_llm_complexity_t, complex_messages),
      0, 1, NGX_HTTP_LLM_COUNT_MAX, 1 },
    { ngx_null_string, 0, 0, 0, 0, 0, 0 }
};


/* a scanner is large, and is needed for the time of one call only */

static llm_complexity_t  ngx_http_llm_complexity_scanner;


ngx_http_llm_complexity_t *
ngx_http_llm_create_complexity(ngx_conf_t *cf)
{
    ngx_http_llm_complexity_t  *complexity;

    complexity = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_complexity_t));
    if (complexity == NULL) {
        return NULL;
    }

    if (ngx_array_init(&complexity->terms, cf->pool, 4,
                       sizeof(llm_complexity_term_t))
        != NGX_OK)
    {
        return NULL;
    }

    ngx_http_llm_words_init(ngx_http_llm_complexity_rules_words, complexity);

    return complexity;
}


/* llm_complexity_rules KEY=VALUE ... */

char *
ngx_http_llm_complexity_rules(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *mcf = conf;

    if (mcf->complexity->set) {
        return "is duplicate";
    }

    mcf->complexity->set = 1;

    return ngx_http_llm_words(cf, ngx_http_llm_complexity_rules_words, 1,
                              mcf->complexity);
}


/* llm_complexity_terms WORD ... */

char *
ngx_http_llm_complexity_terms(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *mcf = conf;

    ngx_str_t              *value;
    ngx_uint_t              i;
    llm_complexity_term_t  *term;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (mcf->complexity->terms.nelts == LLM_COMPLEXITY_TERMS) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "too many words in \"%V\" from \"%V\" on: "
                               "expected at most %d",
                               &value[0], &value[i], LLM_COMPLEXITY_TERMS);
            return NGX_CONF_ERROR;
        }

        term = ngx_array_push(&mcf->complexity->terms);
        if (term == NULL) {
            return NGX_CONF_ERROR;
        }

        term->text = (char *) value[i].data;
        term->len = value[i].len;

        if (!llm_complexity_is_term(term)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid word \"%V\" in \"%V\": expected a "
                               "single word of at most %d bytes",
                               &value[i], &value[0], LLM_COMPLEXITY_TERM);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


/* When all of the configuration is read. */

ngx_int_t
ngx_http_llm_complexity_init(ngx_conf_t *cf,
    ngx_http_llm_complexity_t *complexity)
{
    void                   *table;
    size_t                  size;
    llm_complexity_conf_t  *conf;
    llm_complexity_term_t  *terms;

    conf = &complexity->conf;

    conf->words.medium = complexity->medium_words;
    conf->words.complex = complexity->complex_words;
    conf->terms.medium = complexity->medium_terms;
    conf->terms.complex = complexity->complex_terms;
    conf->all_words.medium = complexity->medium_all_words;
    conf->all_words.complex = complexity->complex_all_words;
    conf->messages.medium = complexity->medium_messages;
    conf->messages.complex = complexity->complex_messages;

    if (complexity->code) {
        conf->code = LLM_COMPLEXITY_MEDIUM;
        conf->code_words = complexity->code_words;
    }

    if (complexity->terms.nelts == 0) {
        return NGX_OK;
    }

    terms = complexity->terms.elts;

    size = llm_complexity_terms_size(terms, complexity->terms.nelts);

    table = ngx_palloc(cf->pool, size);
    if (table == NULL) {
        return NGX_ERROR;
    }

    conf->list = llm_complexity_terms_build(table, terms,
                                            complexity->terms.nelts);
    return NGX_OK;
}


/* What is no prompt, or can not be read, is simple. */

const char *
ngx_http_llm_complexity(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    llm_complexity_t          *scanner;
    llm_complexity_level_t     level;
    ngx_http_llm_main_conf_t  *mcf;

    if (ctx->complexity == NULL) {

        mcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

        scanner = &ngx_http_llm_complexity_scanner;
        level = LLM_COMPLEXITY_SIMPLE;

        llm_complexity_init(scanner, &mcf->complexity->conf);

        if (ngx_http_llm_body_read(r, ngx_http_llm_complexity_scan, scanner)
            == NGX_OK
            && llm_complexity_end(scanner) == LLM_JSON_OK)
        {
            level = llm_complexity_level(scanner);
        }

        ctx->complexity = llm_complexity_name(level);
    }

    return ctx->complexity;
}


static llm_json_rc_t
ngx_http_llm_complexity_scan(void *scanner, u_char *p, size_t len)
{
    return llm_complexity_scan(scanner, p, len);
}
