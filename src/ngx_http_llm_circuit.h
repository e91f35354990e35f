
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_CIRCUIT_H_INCLUDED_
#define _NGX_HTTP_LLM_CIRCUIT_H_INCLUDED_


#include "ngx_http_llm.h"

#include "llm_circuit.h"


/* what holds where nothing is said */

void ngx_http_llm_circuit_init(llm_circuit_conf_t *circuit);

/* the words of the directive at hand, from the n-th on */

char *ngx_http_llm_circuit_read(ngx_conf_t *cf, ngx_uint_t n,
    llm_circuit_conf_t *circuit);


#endif /* _NGX_HTTP_LLM_CIRCUIT_H_INCLUDED_ */
