
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_SLOT_H_INCLUDED_
#define _NGX_HTTP_LLM_SLOT_H_INCLUDED_


#include "ngx_http_llm.h"

#include "llm_counters.h"


ngx_int_t ngx_http_llm_slot_join(ngx_cycle_t *cycle,
    ngx_http_llm_main_conf_t *mcf);
void ngx_http_llm_slot_leave(ngx_http_llm_main_conf_t *mcf);
ngx_uint_t ngx_http_llm_lease(ngx_http_llm_main_conf_t *mcf,
    _Atomic uint64_t *lease, uint32_t ms);
void ngx_http_llm_lease_leave(_Atomic uint64_t *lease);
uint32_t ngx_http_llm_now(ngx_http_llm_main_conf_t *mcf);
uint64_t ngx_http_llm_time(ngx_http_llm_main_conf_t *mcf);
llm_counters_t *ngx_http_llm_counters(ngx_http_llm_record_t *record);
llm_counters_t *ngx_http_llm_usage_counters(ngx_http_llm_record_t *record);
uint32_t ngx_http_llm_my_slot(void);
uint64_t ngx_http_llm_wall_clock(void);
uint64_t ngx_http_llm_stopwatch(void);


#endif /* _NGX_HTTP_LLM_SLOT_H_INCLUDED_ */
