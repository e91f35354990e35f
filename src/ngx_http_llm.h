
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_H_INCLUDED_
#define _NGX_HTTP_LLM_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "llm_canonical.h"
#include "llm_circuit.h"
#include "llm_complexity.h"
#include "llm_counters.h"
#include "llm_error.h"
#include "llm_hint.h"
#include "llm_histogram.h"
#include "llm_history.h"
#include "llm_json.h"
#include "llm_latency.h"
#include "llm_limit.h"
#include "llm_price.h"
#include "llm_probe.h"
#include "llm_recent.h"
#include "llm_retry.h"
#include "llm_select.h"
#include "llm_sse.h"
#include "llm_verdict.h"
#include "llm_waiting.h"


#define NGX_HTTP_LLM_VERSION  "0.1.0"

/* the system's certificates */
#define NGX_HTTP_LLM_CA_FILE  "/etc/ssl/certs/ca-certificates.crt"

/* room behind the path of a unix socket for the pool's key, see upstream.c */
#define NGX_HTTP_LLM_UNIX_PATH_MAX  95

/* the most addresses that are used of a name */
#define NGX_HTTP_LLM_ADDRESSES  16

/* the context of directives inside of llm_provider {} */
#define NGX_HTTP_LLM_PROVIDER_CONF  0x00020000


typedef struct ngx_http_llm_ctx_s  ngx_http_llm_ctx_t;
typedef struct ngx_http_llm_line_s  ngx_http_llm_line_t;
typedef struct ngx_http_llm_complexity_s  ngx_http_llm_complexity_t;
typedef struct ngx_http_llm_usage_s  ngx_http_llm_usage_t;
typedef struct ngx_http_llm_target_s  ngx_http_llm_target_t;
typedef struct ngx_http_llm_probe_s  ngx_http_llm_probe_t;
typedef struct ngx_http_llm_dns_s  ngx_http_llm_dns_t;

typedef llm_json_rc_t (*ngx_http_llm_scan_pt)(void *scanner, u_char *p,
    size_t len);


/* what went wrong with an attempt; how it is said: ngx_http_llm_fault() */

typedef enum {
    NGX_HTTP_LLM_FAULT_NONE = 0,
    NGX_HTTP_LLM_FAULT_STATUS,
    NGX_HTTP_LLM_FAULT_CONNECT,
    NGX_HTTP_LLM_FAULT_CONNECT_TIMEOUT,
    NGX_HTTP_LLM_FAULT_TLS,
    NGX_HTTP_LLM_FAULT_CLOSED,
    NGX_HTTP_LLM_FAULT_HEADER_TIMEOUT,
    NGX_HTTP_LLM_FAULT_HEADER,
    NGX_HTTP_LLM_FAULT_BROKEN,
    NGX_HTTP_LLM_FAULT_IDLE_TIMEOUT,
    NGX_HTTP_LLM_FAULT_FIRST_TOKEN_TIMEOUT,
    NGX_HTTP_LLM_FAULT_DEADLINE,
    NGX_HTTP_LLM_FAULT_ERROR_EVENT,
    NGX_HTTP_LLM_FAULT_UNREADABLE,
    NGX_HTTP_LLM_FAULT_EMPTY,
    NGX_HTTP_LLM_FAULT_SLOW,
    NGX_HTTP_LLM_FAULT_TOO_LARGE,
    NGX_HTTP_LLM_FAULTS
} ngx_http_llm_fault_e;


/* how a request ended, $llm_outcome */

typedef enum {
    NGX_HTTP_LLM_OUTCOME_NONE = 0,
    NGX_HTTP_LLM_OUTCOME_OK,
    NGX_HTTP_LLM_OUTCOME_FAILOVER,
    NGX_HTTP_LLM_OUTCOME_REJECTED,
    NGX_HTTP_LLM_OUTCOME_TRUNCATED,
    NGX_HTTP_LLM_OUTCOME_ERROR,
    NGX_HTTP_LLM_OUTCOME_ABORTED,
    NGX_HTTP_LLM_OUTCOME_CACHED
} ngx_http_llm_outcome_e;


/* a record of the zone: circuit and counters of whom */

typedef enum {
    NGX_HTTP_LLM_PROVIDER = 0,
    NGX_HTTP_LLM_ROUTE,
    NGX_HTTP_LLM_OBSERVED                         /* a server, llm_observe */
} ngx_http_llm_kind_e;


typedef struct ngx_http_llm_record_s  ngx_http_llm_record_t;


typedef struct ngx_http_llm_member_s  ngx_http_llm_member_t;
typedef struct ngx_http_llm_failover_s  ngx_http_llm_failover_t;


/* of good answers */

typedef struct {
    llm_histogram_t               duration;       /* until their end */
    llm_histogram_t               first_token;    /* of those that stream */
} ngx_http_llm_times_t;


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


#define NGX_HTTP_LLM_STRIPES  8


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
        ngx_atomic_t              writer;         /* pid; 0: nobody writes */
        ngx_atomic_t              owner;          /* the larger one owns it */
        ngx_atomic_t              written;        /* ms since 1970; 0: never */
        ngx_atomic_t              error;          /* errno; 0: none */
    } state;

    struct {
        ngx_atomic_t              pid;            /* 0: free */
        ngx_uint_t                generation;
    } slots[1];
} ngx_http_llm_shctx_t;


/* KEY=VALUE of a directive; a value is an uint32_t, but for a text */

typedef enum {
    NGX_HTTP_LLM_WORD_NUMBER = 0,
    NGX_HTTP_LLM_WORD_TIME,                       /* ms */
    NGX_HTTP_LLM_WORD_PERCENT,
    NGX_HTTP_LLM_WORD_FRACTION,                   /* thousandths */
    NGX_HTTP_LLM_WORD_FLAG,                       /* on, off */
    NGX_HTTP_LLM_WORD_TEXT                        /* an ngx_str_t */
} ngx_http_llm_word_e;


typedef struct {
    ngx_str_t                     name;
    ngx_http_llm_word_e           type;
    size_t                        offset;
    uint32_t                      value;          /* where nothing is said */
    uint32_t                      min;
    uint32_t                      max;
    unsigned                      off:1;          /* may be: 0 */
} ngx_http_llm_word_t;


typedef struct {
    ngx_str_t                     name;
    ngx_str_t                     upstream_name;  /* empty: the same */
} ngx_http_llm_model_t;


typedef struct {
    uint32_t                      connect;        /* ms */
    uint32_t                      header;
    uint32_t                      answer;
    uint32_t                      first_token;    /* 0: off */
    uint32_t                      idle;
} ngx_http_llm_timeouts_t;


typedef struct {
    uint32_t                      rpm;            /* 0: off */
    uint32_t                      tpm;
    uint32_t                      concurrency;
} ngx_http_llm_limit_t;


typedef struct {
    ngx_str_t                     name;
    ngx_uint_t                    index;

    ngx_str_t                     endpoint;
    ngx_str_t                     schema;
    ngx_str_t                     host;           /* for Host */
    ngx_str_t                     tls_name;       /* for SNI and verification */
    ngx_str_t                     base;           /* path, no final slash */
    ngx_str_t                     args;           /* of the base path */
    ngx_http_llm_target_t        *target;         /* see resolve.h */

    ngx_array_t                   headers;        /* ngx_http_llm_header_t */
    ngx_http_complex_value_t    **governed;       /* by mcf->headers' index */

    ngx_array_t                   models;         /* ngx_http_llm_model_t */
    ngx_http_llm_model_t         *any;            /* model *; or NULL */

    llm_circuit_conf_t            circuit;
    ngx_http_llm_timeouts_t       timeout;
    ngx_http_llm_limit_t          limit;
    llm_limit_conf_t              limits;
    llm_price_t                   price;
    signed char                  *classes;        /* by status; -1: default */

    ngx_http_llm_probe_t         *probe;          /* NULL: there is none */

    ngx_http_llm_record_t        *record;

    unsigned                      ssl:1;
    unsigned                      own_key:1;
    unsigned                      client_key:1;
    unsigned                      key_set:1;
    unsigned                      circuit_set:1;
    unsigned                      timeout_set:1;
    unsigned                      limit_set:1;
    unsigned                      price_set:1;
    unsigned                      probe_set:1;
    unsigned                      limited:1;      /* or counted */
} ngx_http_llm_provider_t;


/* a request header that a provider sets, or that none may see */

typedef struct {
    ngx_str_t                     name;
    ngx_http_complex_value_t     *value;          /* NULL: removed */
} ngx_http_llm_header_t;


/* when the caller's own header goes to a provider that sets none */

typedef enum {
    NGX_HTTP_LLM_CALLERS_NEVER = 0,
    NGX_HTTP_LLM_CALLERS_KEY,                     /* with api_key client */
    NGX_HTTP_LLM_CALLERS_ALWAYS
} ngx_http_llm_callers_e;


typedef struct {
    ngx_str_t                     name;
    ngx_str_t                     variable;       /* of proxy_set_header */
    ngx_http_llm_callers_e        callers;
} ngx_http_llm_governed_t;


typedef struct {
    ngx_str_t                     name;           /* of the provider */
    ngx_http_llm_provider_t      *provider;
    ngx_http_llm_member_t        *member;         /* in shared memory */
    ngx_str_t                     file;
    ngx_uint_t                    line;
    uint32_t                      weight;
    unsigned                      backup:1;
} ngx_http_llm_use_t;


/* llm_commit: when an answer becomes the caller's */

typedef enum {
    NGX_HTTP_LLM_COMMIT_FIRST_TOKEN = 0,
    NGX_HTTP_LLM_COMMIT_HEADER,
    NGX_HTTP_LLM_COMMIT_WINDOW,
    NGX_HTTP_LLM_COMMIT_COMPLETE
} ngx_http_llm_commit_e;


typedef struct {
    ngx_http_llm_commit_e         when;
    ngx_msec_t                    time;           /* of a window; 0: none */
    size_t                        size;           /* of a window; 0: none */
} ngx_http_llm_commit_t;


/* llm_retry */

typedef struct {
    uint32_t                      same;           /* tries of one provider */
    uint32_t                      rounds;         /* over the route */
    uint32_t                      budget;         /* percent */
    llm_retry_conf_t              pause;
} ngx_http_llm_retry_t;


/* llm_wait */

typedef struct {
    uint32_t                      time;           /* ms; 0: off */
    uint32_t                      queue;          /* the most that wait */
} ngx_http_llm_wait_t;


typedef struct {
    ngx_http_upstream_srv_conf_t *uscf;
    ngx_array_t                   uses;           /* ngx_http_llm_use_t */
    ngx_http_llm_record_t        *record;
    ngx_http_llm_commit_t         commit;
    ngx_http_llm_retry_t          retry;
    ngx_msec_t                    deadline;       /* 0: off */
    llm_strategy_t                strategy;
    ngx_http_complex_value_t     *strategy_value; /* where it has variables */
    uint64_t                      budget;         /* price_output; 0: off */
    ngx_http_complex_value_t     *budget_value;
    llm_candidate_t              *candidates;     /* by the uses */
    ngx_http_llm_wait_t           wait;
    ngx_uint_t                    nwaiting;       /* in this worker */
    llm_circuit_conf_t           *observe;        /* NULL: off */
    unsigned                      observe_set:1;
    unsigned                      inject:1;       /* llm_usage */
    unsigned                      usage_set:1;
    unsigned                      strategy_set:1;
    unsigned                      budget_set:1;
    unsigned                      wait_set:1;
    unsigned                      commit_set:1;
    unsigned                      deadline_set:1;
    unsigned                      retry_set:1;
} ngx_http_llm_route_t;


typedef struct {
    ngx_core_conf_t              *ccf;
    ngx_shm_zone_t               *shm_zone;
    ngx_http_llm_shctx_t         *sh;
    ngx_str_t                     state;          /* file; empty: none */
    ngx_array_t                   providers;      /* .._provider_t * */
    ngx_array_t                   routes;         /* .._route_t * */
    ngx_array_t                   observed;       /* .._observed_t */
    ngx_array_t                   governed;       /* .._governed_t */
    ngx_array_t                   passes;         /* .._pass_t */
    ngx_array_t                   targets;        /* .._target_t * */
    ngx_array_t                   receivers;      /* .._receiver_t * */
    struct ngx_http_llm_feed_s   *feed;           /* in a worker */
    ngx_http_llm_dns_t           *dns;            /* NULL: is not needed */
    ngx_http_llm_complexity_t    *complexity;
    ngx_uint_t                    generation;
    unsigned                      tls:1;          /* some endpoint is https */
    unsigned                      status:1;       /* some llm_status */
    unsigned                      probes:1;       /* some provider has one */
    unsigned                      calls:1;        /* of the gateway's own */
    unsigned                      keep_body:1;    /* some variable reads it */
} ngx_http_llm_main_conf_t;


/* what llm_status writes */

typedef enum {
    NGX_HTTP_LLM_FORMAT_NONE = 0,                 /* there is no llm_status */
    NGX_HTTP_LLM_FORMAT_JSON,
    NGX_HTTP_LLM_FORMAT_PROMETHEUS,
    NGX_HTTP_LLM_FORMAT_HTML,
    NGX_HTTP_LLM_FORMAT_ACCEPT                    /* what the caller likes */
} ngx_http_llm_format_e;


/* an llm_pass or llm_gate, until the whole configuration is read */

typedef struct {
    ngx_str_t                     directive;
    ngx_str_t                     route;          /* empty: variables */
    ngx_str_t                     file;
    ngx_uint_t                    line;
    struct ngx_http_llm_loc_conf_s  *conf;
} ngx_http_llm_pass_t;


/* llm_log: NGX_LOG_..., 0 where nothing is said */

typedef struct {
    ngx_uint_t                    circuits;
    ngx_uint_t                    attempts;
    ngx_uint_t                    operator;
    ngx_uint_t                    set;
} ngx_http_llm_log_t;


typedef struct ngx_http_llm_loc_conf_s {
    ngx_http_llm_route_t         *route;
    ngx_http_complex_value_t     *route_value;    /* llm_pass $variable */
    ngx_str_t                     prefix;         /* replaced by the base */
    ngx_uint_t                    id;             /* of the location */
#if (NGX_HTTP_SSL)
    ngx_ssl_session_t           **sessions;       /* by provider */
#endif
    ngx_http_handler_pt           handler;        /* that llm_pass stands on */
    ngx_http_core_loc_conf_t     *location;       /* around an "if", too */
    unsigned                      gate:1;
    unsigned                      pass:1;
    unsigned                      prefix_set:1;
    unsigned                      models:1;
    unsigned                      api:1;
    unsigned                      api_remote:1;   /* not this machine only */
    ngx_http_llm_format_e         status;         /* of llm_status */
    ngx_http_llm_log_t            log;
} ngx_http_llm_loc_conf_t;


/* one provider asked once */

typedef struct {
    ngx_http_llm_provider_t      *provider;
    ngx_uint_t                    use;            /* in the route */
    llm_token_t                   token;
    llm_grant_t                   grant;
} ngx_http_llm_choice_t;


/* how a provider of the route fared, for errors and the log */

typedef struct {
    unsigned                      serves:1;
    unsigned                      tried:1;
    unsigned                      refused:1;
    unsigned                      unresolved:1;
    unsigned                      shed:1;         /* a slow start */
    unsigned                      behind:1;       /* others wait for it */
    uint32_t                      again;          /* tries behind the first */
    ngx_str_t                     upstream_model;
    llm_admission_t               admission;
    llm_limit_t                   limit;          /* that refused */
    uint32_t                      wait;           /* ms */
    ngx_http_llm_fault_e          fault;
    ngx_uint_t                    status;
    llm_class_t                   class;
} ngx_http_llm_fare_t;


#define NGX_HTTP_LLM_NO_USE  ((ngx_uint_t) -1)


/* the most that is held of an answer before its commit */

#define NGX_HTTP_LLM_HOLD_MAX  262144


typedef enum {
    NGX_HTTP_LLM_HOLD_NOTHING = 0,
    NGX_HTTP_LLM_HOLD_STREAM,                     /* until its first token */
    NGX_HTTP_LLM_HOLD_ERROR,                      /* until it says enough */
    NGX_HTTP_LLM_HOLD_WHOLE                       /* until it is complete */
} ngx_http_llm_hold_e;


typedef struct {
    ngx_http_llm_hold_e           what;
    size_t                        scanned;        /* of u->buffer */
    size_t                        bytes;          /* of the body in there */
    ngx_http_chunked_t            chunked;
    u_char                       *body;           /* of an error */
    size_t                        body_len;
    ngx_recv_pt                   recv;
    unsigned                      events;         /* LLM_SSE_*, all so far */
    ngx_uint_t                    finishes;       /* answers that ended */
    ngx_uint_t                    decided;        /* by an event */
    ngx_uint_t                    over;           /* hold no longer */
    llm_sse_t                     sse;            /* last: not cleared */
} ngx_http_llm_hold_t;


struct ngx_http_llm_ctx_s {
    ngx_http_request_t           *request;
    ngx_http_upstream_t          *upstream;       /* that has our hooks */
    ngx_http_llm_ctx_t           *previous;       /* before a redirect */
    ngx_http_llm_loc_conf_t      *llcf;
    ngx_http_llm_route_t         *route;
    ngx_http_llm_fare_t          *fares;          /* by the route's uses */

    /* what the caller asks for */

    ngx_str_t                     model;
    off_t                         model_start;    /* its JSON string, in */
    off_t                         model_end;      /* the body */
    const char                   *complexity;     /* NULL: nobody asked yet */
    u_char                       *body_hash;      /* the same */
    ngx_uint_t                    answers;        /* that it wants, "n" */
    llm_usage_totals_t            estimate;
    llm_json_inject_t             inject;         /* asks for the usage */
    ngx_str_t                    *veiled;         /* headers, by governed */

    /* the wait for somebody who admits */

    ngx_queue_t                   queue;
    ngx_http_llm_line_t          *line;           /* NULL: does not wait */
    ngx_uint_t                    arrival;
    ngx_msec_t                    wait_start;
    ngx_msec_t                    wait_until;
    ngx_msec_t                    waited;         /* ms */

    /* the attempts */

    ngx_http_llm_choice_t         next;           /* admitted, not yet used */
    ngx_http_llm_choice_t         now;
    ngx_uint_t                    first;          /* choice, in the route */
    llm_select_t                  select;         /* the walk over it */
    ngx_uint_t                    attempts;
    ngx_uint_t                    addresses;      /* of this one, so far */
    ngx_uint_t                    http_version;
    ngx_http_llm_fault_e          fault;          /* a timer's word */
    ngx_uint_t                    answered;       /* status that failed */
    ngx_uint_t                    round;
    ngx_uint_t                    pauses;
    ngx_uint_t                    same;           /* use to ask again, or */
                                                  /* NGX_HTTP_LLM_NO_USE */
    ngx_msec_t                    pause;          /* ms; before that */
    ngx_msec_t                    pause_start;
    ngx_uint_t                    log_level;      /* while a pause ends */
    ngx_http_llm_hold_t          *hold;
    ngx_msec_t                    start;          /* of the request */
    ngx_msec_t                    first_token;    /* when; if content */
    uint64_t                      sent;           /* attempt, us */
    uint64_t                      token;          /* the first, us; 0: none */
    ngx_msec_t                    last_read;
    size_t                        watched;        /* bytes seen in the hold */
    off_t                         read_length;    /* of nginx's pipe, then */
    ngx_event_t                   timer;
    ngx_sockaddr_t                sockaddr;
    socklen_t                     socklen;

    ngx_int_t                   (*create_request)(ngx_http_request_t *r);
    ngx_int_t                   (*reinit_request)(ngx_http_request_t *r);
    ngx_int_t                   (*process_header)(ngx_http_request_t *r);
    void                        (*finalize_request)(ngx_http_request_t *r,
                                     ngx_int_t rc);
    ngx_int_t                   (*input_filter_init)(void *data);
    ngx_int_t                   (*input_filter)(void *data, ssize_t bytes);
    ngx_event_pipe_input_filter_pt  pipe_filter;
    ngx_http_handler_pt           content_handler;

    /* the answer */

    ngx_http_llm_usage_t         *usage;          /* NULL: none is told */
    llm_usage_totals_t            totals;         /* if usage_told */
    uint64_t                      cost;           /* pico-USD */
    unsigned                      usage_bad;      /* numbers that are none */
    ngx_buf_t                    *held;           /* of an event, its begin */
    ngx_buf_t                    *released;       /* goes first */
    ngx_http_llm_outcome_e        outcome;
    const char                   *code;           /* of an error */
    ngx_str_t                     message;        /* as JSON has it */
    ngx_buf_t                    *error;          /* instead of nginx's body */
    ngx_uint_t                    retry_status;   /* tells when to come back */
    uint32_t                      retry_wait;     /* ms */

    unsigned                      body_ready:1;
    unsigned                      waiting:1;
    unsigned                      json:1;         /* the body was scanned */
    unsigned                      stream:1;
    unsigned                      completion:1;
    unsigned                      hooked:1;
    unsigned                      again:1;        /* the same attempt */
    unsigned                      committed:1;
    unsigned                      pausing:1;
    unsigned                      resumed:1;
    unsigned                      content:1;      /* a token came */
    unsigned                      watch:1;        /* the stream goes on */
    unsigned                      finished:1;     /* the stream said so */
    unsigned                      broken:1;       /* and was counted as such */
    unsigned                      misframed:1;    /* no HTTP any more */
    unsigned                      dead:1;         /* nothing more is passed */
    unsigned                      no_last:1;      /* must not look complete */
    unsigned                      usage_over:1;   /* and was counted */
    unsigned                      usage_told:1;
    unsigned                      injected:1;     /* we asked for the usage */
    unsigned                      taken:1;        /* bytes of the stream */
    unsigned                      error_sent:1;
    unsigned                      filter_only:1;  /* no gate was passed */
    unsigned                      fallback:1;     /* not the first choice */
    unsigned                      chosen:1;       /* there was a first one */
    unsigned                      good:1;         /* a success, so far */
    unsigned                      decided:1;      /* who serves it, is known */
    unsigned                      wait_over:1;    /* in vain */
};


/* what follows when a deadline is over */

typedef enum {
    NGX_HTTP_LLM_DEADLINE_FAIL = 0,               /* with its fault */
    NGX_HTTP_LLM_DEADLINE_COMMIT,                 /* the window is over */
    NGX_HTTP_LLM_DEADLINE_END,                    /* nothing more will come */
    NGX_HTTP_LLM_DEADLINE_RESUME                  /* the pause is over */
} ngx_http_llm_deadline_e;


typedef struct {
    ngx_msec_t                    left;
    ngx_http_llm_deadline_e       then;
    ngx_http_llm_fault_e          fault;
} ngx_http_llm_deadline_t;


#define NGX_HTTP_LLM_NEVER  ((ngx_msec_t) -1)


extern ngx_module_t  ngx_http_proxy_module;
extern ngx_module_t  ngx_http_llm_module;
extern ngx_module_t  ngx_http_llm_defaults_module;


/* words: KEY=VALUE */

void ngx_http_llm_words_init(ngx_http_llm_word_t *words, void *conf);
char *ngx_http_llm_words(ngx_conf_t *cf, ngx_http_llm_word_t *words,
    ngx_uint_t n, void *conf);

/* provider: llm_provider {} */

char *ngx_http_llm_provider(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_endpoint(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_api_key(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_header(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_model(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_circuit(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_timeout(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_price(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_limit(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_classify(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_add_header(ngx_conf_t *cf,
    ngx_http_llm_provider_t *provider, ngx_str_t *name, ngx_str_t *value,
    ngx_uint_t literal);
ngx_http_llm_provider_t *ngx_http_llm_find_provider(
    ngx_http_llm_main_conf_t *mcf, ngx_str_t *name);
ngx_int_t ngx_http_llm_provider_serves(ngx_http_llm_provider_t *provider,
    ngx_str_t *model, ngx_str_t *upstream_name);

/* route: upstream { llm_use } */

char *ngx_http_llm_use(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_strategy(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_budget(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_wait_time(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_commit_when(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_deadline(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_retry(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void *ngx_http_llm_create_route(ngx_conf_t *cf);
char *ngx_http_llm_route_candidates(ngx_conf_t *cf,
    ngx_http_llm_route_t *route);
ngx_http_llm_route_t *ngx_http_llm_eval_route(ngx_http_request_t *r,
    ngx_http_llm_loc_conf_t *llcf);
ngx_http_llm_route_t *ngx_http_llm_find_route(ngx_http_llm_main_conf_t *mcf,
    ngx_str_t *name);

/* names: what they stand for */

char *ngx_http_llm_add_pass(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *llcf);
char *ngx_http_llm_resolve_names(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf);
char *ngx_http_llm_check_gate(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *conf,
    ngx_uint_t other);
/* governed: request headers that providers set, or that none may see */

ngx_int_t ngx_http_llm_governed_init(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf);
ngx_int_t ngx_http_llm_governed_unveil(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/* key: secrets, from where they are */

char *ngx_http_llm_secret(ngx_conf_t *cf, ngx_str_t *value, ngx_str_t *key,
    ngx_uint_t *literal);

/* header: finding, adding, secrets */

extern ngx_str_t  ngx_http_llm_secret_headers[];

ngx_uint_t ngx_http_llm_is_secret_header(ngx_str_t *name);
ngx_table_elt_t *ngx_http_llm_find_header(ngx_list_t *headers,
    ngx_str_t *name);
ngx_int_t ngx_http_llm_push_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value);

/* record: a provider's or a route's, in shared memory */

ngx_http_llm_record_t *ngx_http_llm_record_get(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_kind_e kind, ngx_str_t *name);
ngx_int_t ngx_http_llm_record_limits(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *record);
ngx_int_t ngx_http_llm_record_probe(ngx_http_llm_main_conf_t *mcf,
    ngx_slab_pool_t *shpool, ngx_http_llm_record_t *record);
void ngx_http_llm_records_reclaim(ngx_http_llm_shctx_t *sh,
    ngx_slab_pool_t *shpool, ngx_uint_t running);

/* zone: the shared memory */

char *ngx_http_llm_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* slot: where this process counts, and what time it is for all */

ngx_int_t ngx_http_llm_slot_join(ngx_cycle_t *cycle,
    ngx_http_llm_main_conf_t *mcf);
void ngx_http_llm_slot_leave(ngx_http_llm_main_conf_t *mcf);
uint32_t ngx_http_llm_now(ngx_http_llm_main_conf_t *mcf);
uint64_t ngx_http_llm_time(ngx_http_llm_main_conf_t *mcf);
llm_counters_t *ngx_http_llm_counters(ngx_http_llm_record_t *record);
llm_counters_t *ngx_http_llm_usage_counters(ngx_http_llm_record_t *record);
uint32_t ngx_http_llm_my_slot(void);
uint64_t ngx_http_llm_wall_clock(void);
uint64_t ngx_http_llm_stopwatch(void);

/* gate: before anything is sent */

ngx_int_t ngx_http_llm_gate_handler(ngx_http_request_t *r);

/* ctx: what is known of a request */

ngx_http_llm_ctx_t *ngx_http_llm_create_ctx(ngx_http_request_t *r,
    ngx_http_llm_loc_conf_t *llcf, ngx_http_llm_route_t *route);
ngx_int_t ngx_http_llm_set_route(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_route_t *route);
ngx_http_llm_ctx_t *ngx_http_llm_get_ctx(ngx_http_request_t *r);
ngx_http_llm_ctx_t *ngx_http_llm_upstream_ctx(ngx_http_request_t *r);
ngx_http_llm_outcome_e ngx_http_llm_get_outcome(ngx_http_llm_ctx_t *ctx);
llm_call_t ngx_http_llm_call(ngx_http_llm_ctx_t *ctx);

/* clone: a request that begins behind the gate */

ngx_http_llm_ctx_t *ngx_http_llm_clone_ctx(ngx_http_request_t *r);

/* body: the caller's, and as a provider wants it */

ngx_int_t ngx_http_llm_body_scan(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_body_read(ngx_http_request_t *r,
    ngx_http_llm_scan_pt scan, void *scanner);
ngx_int_t ngx_http_llm_body_chain(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t **out, off_t *length);

/* complexity: how demanding a prompt is */

ngx_http_llm_complexity_t *ngx_http_llm_create_complexity(ngx_conf_t *cf);
char *ngx_http_llm_complexity_rules(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_complexity_terms(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
ngx_int_t ngx_http_llm_complexity_init(ngx_conf_t *cf,
    ngx_http_llm_complexity_t *complexity);
const char *ngx_http_llm_complexity(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);

/* wake: tells those who wait */

void ngx_http_llm_wake_by(ngx_event_t *ev);
void ngx_http_llm_wake(void);

/* wait: until somebody admits */

void ngx_http_llm_wait_init(ngx_cycle_t *cycle);
ngx_int_t ngx_http_llm_wait(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_wait_done(ngx_http_llm_ctx_t *ctx);
ngx_msec_t ngx_http_llm_waited(ngx_http_llm_ctx_t *ctx);

/* choice: who is asked */

ngx_int_t ngx_http_llm_candidates(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_choose(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_choose_again(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_ask(ngx_http_llm_ctx_t *ctx, ngx_uint_t i);
ngx_int_t ngx_http_llm_peek(ngx_http_llm_ctx_t *ctx);
llm_limit_t ngx_http_llm_peek_limits(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider, uint32_t *wait);
void ngx_http_llm_settle(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_choice_t *choice, uint64_t tokens);

/* report: what the circuits learn */

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

/* request: as this provider wants it */

ngx_int_t ngx_http_llm_request_create(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
ngx_uint_t ngx_http_llm_has_secret_arg(ngx_str_t *args);

/* upstream: nginx's hooks around an attempt */

ngx_int_t ngx_http_llm_content_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_llm_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);

/* answer: the verdict on what a provider said */

ngx_int_t ngx_http_llm_process_header(ngx_http_request_t *r);
ngx_uint_t ngx_http_llm_goes_on_from(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_fault_e fault);

/* hint: when a provider wants to be left alone */

uint32_t ngx_http_llm_hint(ngx_http_request_t *r);
void ngx_http_llm_hint_header(ngx_str_t *name, ngx_str_t *value,
    uint32_t *hint);
void ngx_http_llm_exhausted(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);

/* retry: once more, after a pause */

ngx_int_t ngx_http_llm_retry_same(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, uint32_t hint);
void ngx_http_llm_retry_round(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_retry_choose(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_pause(ngx_peer_connection_t *pc,
    ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_pause_over(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_pause_done(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_attempt_failed(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, llm_class_t class, uint32_t hint,
    ngx_http_llm_fault_e fault, ngx_uint_t status);

/* hold: before the commit */

ngx_int_t ngx_http_llm_hold_init(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_hold_e what);
ngx_int_t ngx_http_llm_hold_more(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_hold_over(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);

/* watch: behind the commit */

ngx_int_t ngx_http_llm_watch_framing(void *data);
ngx_int_t ngx_http_llm_watch(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *in);
ngx_uint_t ngx_http_llm_watch_whole(ngx_http_llm_ctx_t *ctx,
    unsigned events);
void ngx_http_llm_watch_event(ngx_http_llm_ctx_t *ctx, unsigned events);
ngx_int_t ngx_http_llm_watch_end(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_int_t rc);

/* extra: an event of the usage that nobody but us asked for */

ngx_uint_t ngx_http_llm_extra_event(ngx_http_llm_ctx_t *ctx, ngx_buf_t *b,
    u_char *p, size_t n, unsigned events);
ngx_int_t ngx_http_llm_extra_hold(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_buf_t *b, u_char *p);
ngx_int_t ngx_http_llm_extra_chain(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t **in);

/* usage: what an answer took, and what it costs */

char *ngx_http_llm_usage_mode(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_usage_start(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_uint_t readable);
uint64_t ngx_http_llm_usage_end(ngx_http_llm_ctx_t *ctx);

/* deadline: a provider's timeouts */

void ngx_http_llm_deadline_update(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_deadline_stop(ngx_http_llm_ctx_t *ctx);
ngx_http_llm_deadline_t ngx_http_llm_deadline_next(ngx_http_llm_ctx_t *ctx);

/* expire: a deadline is over */

void ngx_http_llm_expire(ngx_event_t *ev);

/* error: refusals and nginx's own errors as JSON */

ngx_uint_t ngx_http_llm_speaks_anthropic(ngx_http_request_t *r);
ngx_int_t ngx_http_llm_refuse(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
const char *ngx_http_llm_rejection(unsigned why);
ngx_int_t ngx_http_llm_no_model(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_invalid(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    const char *fmt, ...);
void ngx_http_llm_all_failed(ngx_http_llm_ctx_t *ctx, ngx_int_t rc);
ngx_int_t ngx_http_llm_retry_headers(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
ngx_buf_t *ngx_http_llm_error_body(ngx_http_request_t *r, ngx_uint_t status);
ngx_buf_t *ngx_http_llm_error_event(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, const char *what, ngx_uint_t open);

/* cache: answers that nginx has kept */

ngx_int_t ngx_http_llm_request_key(ngx_http_request_t *r, ngx_uint_t private,
    ngx_str_t *key);
ngx_uint_t ngx_http_llm_may_be_cached(ngx_http_request_t *r);
ngx_int_t ngx_http_llm_nobody(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);

/* filter */

ngx_int_t ngx_http_llm_filter_init(ngx_conf_t *cf);

/* models: what a route has, told from the configuration */

char *ngx_http_llm_models(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_models_handler(ngx_http_request_t *r);

/* status: the page, in the format that is wanted */

char *ngx_http_llm_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_status_handler(ngx_http_request_t *r);

/* api: an operator asks and orders */

char *ngx_http_llm_api(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_api_handler(ngx_http_request_t *r);

/* operator: the operator's word */

#define NGX_HTTP_LLM_API_QUOTED  64               /* of what somebody wrote */

struct json_t *ngx_http_llm_order(ngx_http_request_t *r,
    ngx_http_llm_provider_t *provider, ngx_str_t *body, ngx_str_t *error);
ngx_str_t ngx_http_llm_printable(ngx_http_request_t *r, ngx_str_t *text);
llm_admission_t ngx_http_llm_peek_circuit(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_provider_t *provider, uint32_t *wait);

/* variables */

ngx_int_t ngx_http_llm_add_variables(ngx_conf_t *cf);
ngx_uint_t ngx_http_llm_variables_read_body(ngx_conf_t *cf);
const char *ngx_http_llm_outcome(ngx_http_llm_outcome_e outcome);


#endif /* _NGX_HTTP_LLM_H_INCLUDED_ */
