
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_SAVED_H_INCLUDED_
#define _NGX_HTTP_LLM_SAVED_H_INCLUDED_


#include "ngx_http_llm_zone.h"


/* A line of the state file: what of a record it has; for saved*.c only. */


#define NGX_HTTP_LLM_SAVED_P    (1 << NGX_HTTP_LLM_SAVED_PROVIDER)
#define NGX_HTTP_LLM_SAVED_R    (1 << NGX_HTTP_LLM_SAVED_ROUTE)
#define NGX_HTTP_LLM_SAVED_F    (1 << NGX_HTTP_LLM_SAVED_FAILOVER)
#define NGX_HTTP_LLM_SAVED_PR   (NGX_HTTP_LLM_SAVED_P|NGX_HTTP_LLM_SAVED_R)

/* the largest number that status pages can tell */
#define NGX_HTTP_LLM_SAVED_MAX  INT64_MAX


/* of what are the lines; the name of a failover is route, from and to */

typedef enum {
    NGX_HTTP_LLM_SAVED_PROVIDER = 0,
    NGX_HTTP_LLM_SAVED_ROUTE,
    NGX_HTTP_LLM_SAVED_FAILOVER,
    NGX_HTTP_LLM_SAVED_UNKNOWN
} ngx_http_llm_saved_kind_e;


typedef struct {
    ngx_http_llm_main_conf_t     *mcf;
    ngx_http_llm_saved_kind_e     kind;
    ngx_http_llm_record_t        *record;         /* NULL: not configured */
    ngx_http_llm_failover_t      *failover;       /* of this route */
    uint64_t                      now;            /* of the circuits' clock */
    uint64_t                      elapsed;        /* ms; since it was saved */
    uint64_t                      counters[LLM_COUNTERS];
    uint64_t                      usage[LLM_COUNTERS];
} ngx_http_llm_saved_t;


typedef struct ngx_http_llm_saved_row_s  ngx_http_llm_saved_row_t;

struct ngx_http_llm_saved_row_s {
    const char                   *key;
    ngx_uint_t                    kinds;
    unsigned                      n;              /* numbers, at most */
    void                        (*save)(ngx_http_llm_saved_t *s,
                                     ngx_http_llm_saved_row_t *row,
                                     uint64_t *v);
    void                        (*restore)(ngx_http_llm_saved_t *s,
                                     ngx_http_llm_saved_row_t *row,
                                     uint64_t *v);
    bool                        (*check)(const uint64_t *v);
    ngx_uint_t                    data;           /* of these three */
};


/* a NULL key ends it */

extern ngx_http_llm_saved_row_t  ngx_http_llm_saved_rows[];


#endif /* _NGX_HTTP_LLM_SAVED_H_INCLUDED_ */
