
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_STATE_H_INCLUDED_
#define _NGX_HTTP_LLM_STATE_H_INCLUDED_


#include "ngx_http_llm.h"

#include "llm_state.h"


#define NGX_HTTP_LLM_STATE_SIZE_MAX  (256 * 1024 * 1024)


/* state: the file of "llm_zone ... state=FILE" */

char *ngx_http_llm_state(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf,
    ngx_str_t *file);

/* the directory and the file, as nginx -t has to check them */

ngx_int_t ngx_http_llm_state_prepare(ngx_http_llm_main_conf_t *mcf,
    ngx_log_t *log);

/* when nginx starts */

void ngx_http_llm_state_load(ngx_cycle_t *cycle,
    ngx_http_llm_main_conf_t *mcf);


/* state_writer: once the configuration is read nginx calls it, in a helper */

ngx_int_t ngx_http_llm_state_init(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf);

/* in a process that has no master, and when nginx ends */

void ngx_http_llm_state_start(ngx_cycle_t *cycle,
    ngx_http_llm_main_conf_t *mcf);
void ngx_http_llm_state_end(ngx_cycle_t *cycle,
    ngx_http_llm_main_conf_t *mcf);

/* the file that is about to replace it, of the nginx with this number */

void ngx_http_llm_state_name(ngx_http_llm_main_conf_t *mcf, u_char *name,
    uint64_t owner);


/* saved: what of the records is in the file, by a table */

void ngx_http_llm_saved_write(ngx_http_llm_main_conf_t *mcf,
    llm_state_text_t *t);
ngx_int_t ngx_http_llm_saved_check(u_char *p, size_t len,
    llm_state_line_t *line);
void ngx_http_llm_saved_restore(ngx_http_llm_main_conf_t *mcf, u_char *p,
    size_t len, uint64_t elapsed, ngx_uint_t *records, ngx_uint_t *unknown);


#endif /* _NGX_HTTP_LLM_STATE_H_INCLUDED_ */
