
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_RESOLVE_H_INCLUDED_
#define _NGX_HTTP_LLM_RESOLVE_H_INCLUDED_


#include "ngx_http_llm.h"


/* asking for addresses, while nginx runs */

void ngx_http_llm_resolve_start(ngx_cycle_t *cycle,
    ngx_http_llm_main_conf_t *mcf);


#endif /* _NGX_HTTP_LLM_RESOLVE_H_INCLUDED_ */
