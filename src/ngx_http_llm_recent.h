
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_RECENT_H_INCLUDED_
#define _NGX_HTTP_LLM_RECENT_H_INCLUDED_


#include "ngx_http_llm_describe.h"


/* takes samples of the last hour, as long as this worker lives */

void ngx_http_llm_recent_start(ngx_cycle_t *cycle,
    ngx_http_llm_main_conf_t *mcf);

/* the page as JSON, with them */

extern ngx_http_llm_format_t  ngx_http_llm_recent_format;


#endif /* _NGX_HTTP_LLM_RECENT_H_INCLUDED_ */
