
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_METRICS_H_INCLUDED_
#define _NGX_HTTP_LLM_METRICS_H_INCLUDED_


#include "ngx_http_llm.h"


/* where in the trees of ngx_http_llm_describe.c a metric stands */

typedef struct {
    const char      *name;
    const char      *type;
    const char      *list;       /* NULL: it is in the page's head */
    const char      *path;       /* NULL: a histogram */
    const char      *labels[4];  /* first the list's: what an entry is */
    const char      *value;      /* of the next label; NULL: by members */
    const char      *help;
    size_t           offset;     /* of the histogram, ... */
    const uint32_t  *edges;      /* ... and its buckets' */
} ngx_http_llm_metric_t;


extern ngx_http_llm_metric_t  ngx_http_llm_metrics[];
extern const ngx_uint_t       ngx_http_llm_nmetrics;


#endif /* _NGX_HTTP_LLM_METRICS_H_INCLUDED_ */
