
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_FILE_H_INCLUDED_
#define _NGX_HTTP_LLM_FILE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct {
    ngx_err_t                     err;
    const char                   *what;           /* "open()", ... */
} ngx_http_llm_file_error_t;


/* of a full name; name: room for as much */

void ngx_http_llm_file_directory(ngx_str_t *file, u_char *name);

/*
 * A file that a directive names, of which buf has room for one byte more than
 * it may be long.  Its length, or NGX_ERROR: it was logged.
 */

ssize_t ngx_http_llm_file_named(ngx_conf_t *cf, ngx_str_t *file, u_char *buf,
    size_t size);

/*
 * Its length, and the whole file in memory that the caller frees.
 * NGX_DECLINED: there is none; NGX_ERROR: it was logged.
 */

ssize_t ngx_http_llm_file_read(ngx_str_t *file, u_char **text, off_t max,
    ngx_log_t *log);

/* Writes another file, temp, and puts it in the place of this one. */

ngx_int_t ngx_http_llm_file_replace(ngx_str_t *file, u_char *temp, u_char *p,
    u_char *last, ngx_http_llm_file_error_t *error);


#endif /* _NGX_HTTP_LLM_FILE_H_INCLUDED_ */
