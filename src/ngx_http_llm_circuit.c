
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_circuit.h"
#include "ngx_http_llm_words.h"


/*
 * The thresholds of a circuit, said by "circuit" for a provider and by
 * "llm_observe" for the servers of an upstream.
 */


static void ngx_http_llm_circuit_open_max(llm_circuit_conf_t *circuit);


static ngx_http_llm_word_t  ngx_http_llm_circuit_words[] = {
    { ngx_string("failure_threshold"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(llm_circuit_conf_t, failure_threshold), 5, 1, 255, 0 },
    { ngx_string("success_threshold"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(llm_circuit_conf_t, success_threshold), 2, 1, 255, 0 },
    { ngx_string("open"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(llm_circuit_conf_t, open),
      30000, 1, LLM_CIRCUIT_LONGEST, 0 },
    { ngx_string("open_max"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(llm_circuit_conf_t, open_max),
      0, 1, LLM_CIRCUIT_LONGEST, 0 },
    { ngx_string("half_open_max_calls"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(llm_circuit_conf_t, half_open_max_calls),
      1, 1, LLM_CIRCUIT_PERMITS, 0 },
    { ngx_string("half_open_timeout"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(llm_circuit_conf_t, half_open_timeout),
      10000, 1, LLM_CIRCUIT_LONGEST, 0 },
    { ngx_string("failure_rate"), NGX_HTTP_LLM_WORD_PERCENT,
      offsetof(llm_circuit_conf_t, failure_rate), 0, 1, 100, 1 },
    { ngx_string("window"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(llm_circuit_conf_t, window),
      10000, LLM_RATE_SHORTEST, LLM_RATE_LONGEST, 0 },
    { ngx_string("min_requests"), NGX_HTTP_LLM_WORD_NUMBER,
      offsetof(llm_circuit_conf_t, min_requests),
      20, 1, LLM_RATE_REQUESTS, 0 },
    { ngx_string("slow_call"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(llm_circuit_conf_t, slow_call),
      0, 1, LLM_CIRCUIT_LONGEST, 1 },
    { ngx_string("slow_start"), NGX_HTTP_LLM_WORD_TIME,
      offsetof(llm_circuit_conf_t, slow_start),
      0, 1, LLM_CIRCUIT_LONGEST, 1 },
    { ngx_string("stream_errors"), NGX_HTTP_LLM_WORD_FLAG,
      offsetof(llm_circuit_conf_t, stream_errors), 1, 0, 1, 1 },
    { ngx_null_string, 0, 0, 0, 0, 0, 0 }
};


void
ngx_http_llm_circuit_init(llm_circuit_conf_t *circuit)
{
    ngx_http_llm_words_init(ngx_http_llm_circuit_words, circuit);
    ngx_http_llm_circuit_open_max(circuit);
}


char *
ngx_http_llm_circuit_read(ngx_conf_t *cf, ngx_uint_t n,
    llm_circuit_conf_t *circuit)
{
    char       *rv;
    ngx_str_t  *value;

    circuit->open_max = 0;

    rv = ngx_http_llm_words(cf, ngx_http_llm_circuit_words, n, circuit);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    ngx_http_llm_circuit_open_max(circuit);

    if (circuit->open_max < circuit->open) {
        value = cf->args->elts;

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"open_max\" of %uDms is less than \"open\" of "
                           "%uDms in \"%V\"",
                           circuit->open_max, circuit->open, &value[0]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* where nothing is said, four times as long as the first time */

static void
ngx_http_llm_circuit_open_max(llm_circuit_conf_t *circuit)
{
    if (circuit->open_max == 0) {
        circuit->open_max = ngx_min(circuit->open, LLM_CIRCUIT_LONGEST / 4)
                            * 4;
    }
}
