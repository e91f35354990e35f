
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_KNOWN_H_INCLUDED_
#define _NGX_HTTP_LLM_KNOWN_H_INCLUDED_


#include "ngx_http_llm.h"


/* the most addresses that are used of a name */
#define NGX_HTTP_LLM_ADDRESSES  16


/* the last good addresses of a provider, see known.c */

typedef struct {
    uint32_t                      unresolved;     /* by the last who asked */
    uint32_t                      crc;            /* of what follows */
    uint32_t                      host;           /* whose they are; its crc */
    uint32_t                      naddrs;         /* 0: none are known */
    uint32_t                      ttl;            /* s */
    uint64_t                      resolved;       /* s since 1970 */
    u_char                        addrs[NGX_HTTP_LLM_ADDRESSES][17];
} ngx_http_llm_known_t;


/*
 * The last good addresses, where a reload finds them again.  keep() says what
 * of it is news to all workers; unresolved(): whether that is.
 */

#define NGX_HTTP_LLM_NEWS_ADDRESSES  1
#define NGX_HTTP_LLM_NEWS_RESOLVED   2

ngx_int_t ngx_http_llm_target_recall(ngx_http_llm_target_t *target);
ngx_uint_t ngx_http_llm_target_keep(ngx_http_llm_target_t *target);
ngx_uint_t ngx_http_llm_target_unresolved(ngx_http_llm_target_t *target);


#endif /* _NGX_HTTP_LLM_KNOWN_H_INCLUDED_ */
