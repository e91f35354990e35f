
/*
 * Copyright (C) The nginx-llm authors
 */


#ifndef _NGX_HTTP_LLM_TARGET_H_INCLUDED_
#define _NGX_HTTP_LLM_TARGET_H_INCLUDED_


#include "ngx_http_llm_known.h"


/*
 * A target is a host and a port that this worker connects to: where a
 * provider is, or whoever else is to be reached.  It has addresses, which
 * follow DNS unless the host is an address itself, a unix socket, or stands
 * in the machine's own table of hosts.
 */


typedef struct {
    ngx_sockaddr_t             sockaddr;
    socklen_t                  socklen;
    ngx_str_t                  name;              /* with its port */
    u_char                     text[NGX_SOCKADDR_STRLEN];

    /* connecting to it failed; it is not the next until then */

    ngx_uint_t                 fails;             /* in a row */
    ngx_msec_t                 until;
} ngx_http_llm_address_t;


struct ngx_http_llm_target_s {
    ngx_http_llm_main_conf_t  *mcf;
    ngx_http_llm_address_t    *addrs;             /* of this process */
    ngx_http_llm_known_t      *known;             /* to all processes */

    /* event ident must be after 3 pointers as in ngx_connection_t */
    ngx_int_t                  ident;

    ngx_uint_t                 naddrs;            /* 0: not resolved */
    ngx_uint_t                 turn;

    ngx_str_t                  host;              /* in lower case */
    in_port_t                  port;
    ngx_str_t                  directive;         /* and who has it, for */
    ngx_str_t                  owner;             /* the log */
    ngx_str_t                  file;
    ngx_uint_t                 line;

    ngx_event_t                timer;
    ngx_array_t                names;             /* ngx_str_t, to ask for */
    ngx_uint_t                 name;              /* asked for now */
    ngx_uint_t                 server;            /* that is asked */
    u_char                    *question;          /* the resolver writes it */
    ngx_uint_t                 failures;          /* in a row */

    time_t                     resolved;          /* last; 0: never */
    time_t                     ttl;               /* that was told then */
    ngx_int_t                  error;             /* of the last; 0: none */

    ngx_http_llm_known_t       own;               /* without a record */

    unsigned                   follows:1;         /* DNS */
};


/*
 * While the configuration is read.  u is parsed with no_resolve; kind and
 * name say in the log whose host it is: provider "openai".
 */

ngx_http_llm_target_t *ngx_http_llm_target_create(ngx_conf_t *cf,
    ngx_url_t *u, const char *directive, const char *kind, ngx_str_t *name);


/*
 * The address whose turn it is; one that refused is passed over for a while,
 * unless all did.  NULL: the host is not resolved.  What it points to holds
 * until control goes back to the event loop: copy what is needed longer.
 */

ngx_http_llm_address_t *ngx_http_llm_target_address(
    ngx_http_llm_target_t *target);

#define ngx_http_llm_provider_address(provider)                               \
    ngx_http_llm_target_address((provider)->target)

#define ngx_http_llm_target_resolved(target)  ((target)->naddrs != 0)


/* addresses of one provider that one attempt connects to */

#define NGX_HTTP_LLM_ADDRESS_TRIES  3


/*
 * Connecting to an address failed, or it answered.  failed() says whether
 * another address is worth a try at once.
 */

ngx_uint_t ngx_http_llm_target_failed(ngx_http_llm_target_t *target,
    struct sockaddr *sockaddr, ngx_log_t *log);
void ngx_http_llm_target_good(ngx_http_llm_target_t *target,
    struct sockaddr *sockaddr);


/*
 * These addresses are the target's from now on; port 0: the target's own.
 * NGX_OK: they are others than before.
 */

typedef struct {
    ngx_uint_t                 n;
    ngx_http_llm_address_t     addrs[NGX_HTTP_LLM_ADDRESSES];
} ngx_http_llm_set_t;

void ngx_http_llm_set_add(ngx_http_llm_set_t *set, struct sockaddr *sockaddr,
    socklen_t socklen, in_port_t port);
ngx_int_t ngx_http_llm_target_set(ngx_http_llm_target_t *target,
    ngx_http_llm_set_t *set);


#endif /* _NGX_HTTP_LLM_TARGET_H_INCLUDED_ */
