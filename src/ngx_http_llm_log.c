
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"


/* llm_log: at which level of the error log things are told. */


#define NGX_HTTP_LLM_LOG_DEFAULT  NGX_LOG_WARN


static char *ngx_http_llm_log_word(ngx_conf_t *cf, ngx_http_llm_log_t *log,
    ngx_str_t *word);
static ngx_http_llm_log_t *ngx_http_llm_log_conf(ngx_http_request_t *r);
static ngx_uint_t ngx_http_llm_log_level(ngx_uint_t level);


static struct {
    ngx_str_t    name;
    size_t       offset;
} ngx_http_llm_log_words[] = {
    { ngx_string("circuits"), offsetof(ngx_http_llm_log_t, circuits) },
    { ngx_string("attempts"), offsetof(ngx_http_llm_log_t, attempts) },
    { ngx_string("operator"), offsetof(ngx_http_llm_log_t, operator) },
    { ngx_string("probes"), offsetof(ngx_http_llm_log_t, probes) }
};


static struct {
    ngx_str_t    name;
    ngx_uint_t   level;
} ngx_http_llm_log_levels[] = {
    { ngx_string("info"), NGX_LOG_INFO },
    { ngx_string("notice"), NGX_LOG_NOTICE },
    { ngx_string("warn"), NGX_LOG_WARN },
    { ngx_string("error"), NGX_LOG_ERR }
};


/* llm_log [circuits=LEVEL] [attempts=LEVEL] [operator=LEVEL] [probes=LEVEL] */

char *
ngx_http_llm_log(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_str_t   *value;
    ngx_uint_t   i;

    if (llcf->log.set) {
        return "is duplicate";
    }

    llcf->log.set = 1;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {
        if (ngx_http_llm_log_word(cf, &llcf->log, &value[i])
            != NGX_CONF_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_log_word(ngx_conf_t *cf, ngx_http_llm_log_t *log,
    ngx_str_t *word)
{
    u_char      *p;
    ngx_str_t    name, level;
    ngx_uint_t   i, j, *what;

    p = ngx_strlchr(word->data, word->data + word->len, '=');

    name.data = word->data;
    name.len = p ? (size_t) (p - word->data) : word->len;

    level.data = p ? p + 1 : word->data + word->len;
    level.len = word->data + word->len - level.data;

    for (i = 0; i < sizeof(ngx_http_llm_log_words)
                    / sizeof(ngx_http_llm_log_words[0]); i++)
    {
        if (name.len != ngx_http_llm_log_words[i].name.len
            || ngx_strncmp(name.data, ngx_http_llm_log_words[i].name.data,
                           name.len)
               != 0)
        {
            continue;
        }

        what = (ngx_uint_t *) ((u_char *) log
                               + ngx_http_llm_log_words[i].offset);

        if (*what) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate \"%V\" in \"llm_log\"", &name);
            return NGX_CONF_ERROR;
        }

        for (j = 0; j < sizeof(ngx_http_llm_log_levels)
                        / sizeof(ngx_http_llm_log_levels[0]); j++)
        {
            if (level.len == ngx_http_llm_log_levels[j].name.len
                && ngx_strncmp(level.data,
                               ngx_http_llm_log_levels[j].name.data,
                               level.len)
                   == 0)
            {
                *what = ngx_http_llm_log_levels[j].level;
                return NGX_CONF_OK;
            }
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid level \"%V\" of \"%V\" in \"llm_log\": "
                           "expected \"info\", \"notice\", \"warn\" or "
                           "\"error\"", &level, &name);
        return NGX_CONF_ERROR;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" in \"llm_log\": expected "
                       "\"circuits=\", \"attempts=\", \"operator=\" or "
                       "\"probes=\"", word);

    return NGX_CONF_ERROR;
}


void
ngx_http_llm_merge_log(ngx_http_llm_log_t *prev, ngx_http_llm_log_t *conf)
{
    conf->circuits = conf->circuits ? conf->circuits : prev->circuits;
    conf->attempts = conf->attempts ? conf->attempts : prev->attempts;
    conf->operator = conf->operator ? conf->operator : prev->operator;
    conf->probes = conf->probes ? conf->probes : prev->probes;
}


ngx_uint_t
ngx_http_llm_log_circuits(ngx_http_request_t *r)
{
    return ngx_http_llm_log_level(ngx_http_llm_log_conf(r)->circuits);
}


ngx_uint_t
ngx_http_llm_log_attempts(ngx_http_request_t *r)
{
    return ngx_http_llm_log_level(ngx_http_llm_log_conf(r)->attempts);
}


ngx_uint_t
ngx_http_llm_log_operator(ngx_http_request_t *r)
{
    return ngx_http_llm_log_level(ngx_http_llm_log_conf(r)->operator);
}


ngx_uint_t
ngx_http_llm_log_probes(void)
{
    return ngx_http_llm_log_level(ngx_http_llm_log_conf(NULL)->probes);
}


static ngx_http_llm_log_t *
ngx_http_llm_log_conf(ngx_http_request_t *r)
{
    ngx_http_conf_ctx_t      *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    if (r) {
        llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    } else {
        ctx = (ngx_http_conf_ctx_t *) ngx_get_conf(ngx_cycle->conf_ctx,
                                                   ngx_http_module);
        llcf = ctx->loc_conf[ngx_http_llm_module.ctx_index];
    }

    return &llcf->log;
}


static ngx_uint_t
ngx_http_llm_log_level(ngx_uint_t level)
{
    return level ? level : NGX_HTTP_LLM_LOG_DEFAULT;
}
