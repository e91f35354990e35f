
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_CTX_H_INCLUDED_
#define _NGX_HTTP_LLM_CTX_H_INCLUDED_


#include "ngx_http_llm.h"

#include "llm_circuit.h"
#include "llm_json.h"
#include "llm_limit.h"
#include "llm_select.h"
#include "llm_usage.h"


typedef struct ngx_http_llm_line_s  ngx_http_llm_line_t;
typedef struct ngx_http_llm_usage_s  ngx_http_llm_usage_t;
typedef struct ngx_http_llm_hold_s  ngx_http_llm_hold_t;


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


#endif /* _NGX_HTTP_LLM_CTX_H_INCLUDED_ */
