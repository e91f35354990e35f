
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_describe.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_member.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_variables.h"


/* What is known of a route. */


static uint64_t ngx_http_llm_describe_rejections(uint64_t *requests, json_t *o);
static json_t *ngx_http_llm_describe_failovers(ngx_http_llm_record_t *route);


json_t *
ngx_http_llm_describe_route(ngx_http_llm_main_conf_t *mcf, void *entry,
    ngx_uint_t changes)
{
    ngx_http_llm_route_t *route = entry;

    json_t                 *o, *list, *outcomes, *rejections;
    uint64_t                requests[LLM_COUNTERS], usage[LLM_COUNTERS];
    uint64_t                rejected;
    ngx_uint_t              i;
    ngx_http_llm_use_t     *use;
    ngx_http_llm_record_t  *record;

    record = route->record;

    llm_counters_total(record->counters, mcf->sh->nslots, requests);
    llm_counters_total(record->usage, NGX_HTTP_LLM_STRIPES, usage);

    list = json_array();
    use = route->uses.elts;

    for (i = 0; i < route->uses.nelts; i++) {
        json_array_append_new(list, ngx_http_llm_tree_string(&use[i].name));
    }

    outcomes = json_object();

    for (i = LLM_OUTCOME_OK; i <= LLM_OUTCOME_CACHED; i++) {
        ngx_http_llm_set(outcomes,
                         ngx_http_llm_outcome(i - LLM_OUTCOME_OK
                                              + NGX_HTTP_LLM_OUTCOME_OK),
                         json_integer(requests[i]));
    }

    rejections = json_object();
    rejected = ngx_http_llm_describe_rejections(requests, rejections);

    o = json_object();

    ngx_http_llm_set(o, "name", ngx_http_llm_tree_string(&route->uscf->host));
    ngx_http_llm_set(o, "providers", list);
    ngx_http_llm_set(o, "requests", json_integer(requests[LLM_REQUESTS]));
    ngx_http_llm_set(o, "waited", json_integer(requests[LLM_REQUESTS_WAITED]));
    ngx_http_llm_set(o, "failovers", json_integer(requests[LLM_FAILOVERS]));
    ngx_http_llm_set(o, "failovers_from",
                     ngx_http_llm_describe_failovers(record));
    ngx_http_llm_set(o, "rejected", json_integer(rejected));
    ngx_http_llm_set(o, "rejections", rejections);
    ngx_http_llm_set(o, "outcomes", outcomes);

    ngx_http_llm_describe_usage(usage, o);

    ngx_http_llm_set(o, "saved",
                     ngx_http_llm_tree_money(usage[LLM_COST_SAVED]));
    ngx_http_llm_set(o, "added",
                     ngx_http_llm_tree_money(usage[LLM_COST_ADDED]));

    return o;
}


static uint64_t
ngx_http_llm_describe_rejections(uint64_t *requests, json_t *o)
{
    uint64_t    all;
    ngx_uint_t  i;

    all = 0;

    for (i = LLM_REJECTED_CIRCUITS; i <= LLM_REJECTED_REQUEST; i++) {
        all += requests[i];

        ngx_http_llm_set(o, ngx_http_llm_rejection(i),
                         json_integer(requests[i]));
    }

    return all;
}


/* { FROM: { TO: HOW OFTEN, ... }, ... } */

static json_t *
ngx_http_llm_describe_failovers(ngx_http_llm_record_t *route)
{
    json_t                   *from, *o;
    ngx_http_llm_member_t    *member;
    ngx_http_llm_failover_t  *failover;

    from = json_object();

    for (member = route->members; member; member = member->next) {

        if (member->failovers == NULL) {
            continue;
        }

        o = json_object();

        for (failover = member->failovers; failover; failover = failover->next)
        {
            ngx_http_llm_set(o, (char *) failover->to->name,
                             json_integer(failover->count));
        }

        ngx_http_llm_set(from, (char *) member->name, o);
    }

    return from;
}
