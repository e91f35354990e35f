
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_ZONE_H_INCLUDED_
#define _NGX_HTTP_LLM_ZONE_H_INCLUDED_


#include "ngx_http_llm_known.h"

#include "llm_counters.h"
#include "llm_histogram.h"
#include "llm_history.h"
#include "llm_limit.h"
#include "llm_probe.h"
#include "llm_recent.h"
#include "llm_retry.h"
#include "llm_select.h"


typedef struct ngx_http_llm_failover_s  ngx_http_llm_failover_t;


/* a record of the zone: circuit and counters of whom */

typedef enum {
    NGX_HTTP_LLM_PROVIDER = 0,
    NGX_HTTP_LLM_ROUTE,
    NGX_HTTP_LLM_OBSERVED                         /* a server, llm_observe */
} ngx_http_llm_kind_e;


/* of good answers */

typedef struct {
    llm_histogram_t               duration;       /* until their end */
    llm_histogram_t               first_token;    /* of those that stream */
} ngx_http_llm_times_t;


#define NGX_HTTP_LLM_STRIPES  8


struct ngx_http_llm_record_s {
    llm_circuit_t                 circuit;
    llm_history_t                 history;
    llm_latency_t                 latency;
    llm_budget_t                  budget;         /* of a route's retries */
    llm_vtime_t                   vtime;          /* of a route */
    _Atomic uint64_t              last_failure;   /* packed, see zone.c */
    _Atomic uint64_t              told;           /* see ngx_http_llm_feed.c */
    ngx_http_llm_member_t        *members;        /* of a route */
    llm_window_t                 *retired;        /* freed by the next load */
    ngx_http_llm_record_t        *next;
    ngx_http_llm_kind_e           kind;
    ngx_uint_t                    generation;     /* last configured in */
    ngx_uint_t                    born;           /* first configured in */
    ngx_str_t                     name;
    llm_counters_t               *counters;       /* one a slot */
    llm_counters_t               *usage;          /* stripes; not observed */
    llm_limits_t                 *limits;         /* NULL: never limited */
    llm_probe_t                  *probe;          /* NULL: never probed */
    ngx_http_llm_times_t         *times;          /* of a provider */
    llm_recent_t                 *recent;
    _Atomic uint64_t             *waiting;        /* the same, by slot */
    ngx_http_llm_known_t          known;          /* of a provider */
};


/* the zone's root; its layout is ngx_http_llm_layout */

typedef struct {
    ngx_uint_t                    layout;
    ngx_msec_t                    epoch;          /* 0 of the circuits' clock */
    ngx_uint_t                    generation;     /* of configurations */
    ngx_uint_t                    nslots;
    ngx_http_llm_record_t        *records;
    ngx_http_llm_member_t        *members;        /* retired: freed by the */
    ngx_http_llm_failover_t      *failovers;      /* next load */
    struct ngx_http_llm_posts_s  *posts;          /* of llm_alert */
    _Atomic uint64_t              prober;         /* a lease */

    struct {                                      /* the file, see state.c */
        _Atomic uint64_t          writer;         /* a lease */
        ngx_atomic_t              owner;          /* the larger one owns it */
        ngx_atomic_t              written;        /* ms since 1970; 0: never */
        ngx_atomic_t              current;        /* ms; held all there was */
        ngx_atomic_t              failures;
        ngx_atomic_t              error;          /* errno; 0: none */
    } state;

    struct {
        ngx_atomic_t              pid;            /* 0: free */
        ngx_uint_t                generation;
    } slots[1];
} ngx_http_llm_shctx_t;


/* zone: the shared memory */

char *ngx_http_llm_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


/* record: a provider's or a route's, in shared memory */

ngx_http_llm_record_t *ngx_http_llm_record_get(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_kind_e kind, ngx_str_t *name);
ngx_int_t ngx_http_llm_record_limits(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *record);
ngx_int_t ngx_http_llm_record_probe(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *record);
void ngx_http_llm_records_reclaim(ngx_http_llm_shctx_t *sh,
    ngx_slab_pool_t *shpool, ngx_uint_t running);


#endif /* _NGX_HTTP_LLM_ZONE_H_INCLUDED_ */
