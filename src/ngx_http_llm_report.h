
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_REPORT_H_INCLUDED_
#define _NGX_HTTP_LLM_REPORT_H_INCLUDED_


#include "ngx_http_llm_ctx.h"

#include "llm_counters.h"


void ngx_http_llm_report(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_choice_t *choice, llm_class_t class, uint32_t hint,
    ngx_http_llm_fault_e fault, ngx_uint_t status);
void ngx_http_llm_report_break(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_fault_e fault);
const char *ngx_http_llm_fault(ngx_http_llm_fault_e fault);
void ngx_http_llm_ended(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_moved(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider, llm_transition_t *tr,
    ngx_uint_t status);
void ngx_http_llm_switch_off(ngx_cycle_t *cycle, ngx_http_llm_main_conf_t *mcf);
void ngx_http_llm_transition(ngx_log_t *log,
    ngx_http_llm_provider_t *provider, llm_transition_t *tr,
    ngx_uint_t status);


/* what is kept of a verdict, whoever's circuit it is */

void ngx_http_llm_count_class(llm_counters_t *counters, llm_class_t class);
void ngx_http_llm_note_failure(ngx_http_llm_record_t *record,
    ngx_http_llm_fault_e fault, ngx_uint_t status);
void ngx_http_llm_note_transition(ngx_http_llm_record_t *record,
    llm_transition_t *tr, ngx_uint_t status);

/* why an attempt ended before its answer, as nginx's connection tells it */

ngx_http_llm_fault_e ngx_http_llm_transport_fault(ngx_http_request_t *r);


#endif /* _NGX_HTTP_LLM_REPORT_H_INCLUDED_ */
