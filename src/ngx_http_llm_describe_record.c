
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_describe.h"
#include "ngx_http_llm_report.h"
#include "ngx_http_llm_zone.h"


/* What providers, routes and observed servers have in common. */


static json_t *ngx_http_llm_describe_moves(uint64_t *calls);
static json_t *ngx_http_llm_describe_changes(ngx_http_llm_record_t *record,
    ngx_uint_t n);


static ngx_http_llm_field_t  ngx_http_llm_describe_usage_fields[] = {
    { "tokens", "input", LLM_TOKENS_IN },
    { "tokens", "cached", LLM_TOKENS_CACHED },
    { "tokens", "cache_write", LLM_TOKENS_CACHE_WRITE },
    { "tokens", "output", LLM_TOKENS_OUT },
    { "tokens", "reasoning", LLM_TOKENS_REASONING },
    { "usage", "told", LLM_USAGE_TOLD },
    { "usage", "missing", LLM_USAGE_MISSING },
    { "usage", "bad", LLM_USAGE_BAD }
};


void
ngx_http_llm_describe_usage(uint64_t *usage, json_t *o)
{
    ngx_http_llm_describe_fields(ngx_http_llm_describe_usage_fields,
                                 sizeof(ngx_http_llm_describe_usage_fields)
                                 / sizeof(ngx_http_llm_field_t),
                                 usage, o);

    ngx_http_llm_set(o, "cost", ngx_http_llm_tree_money(usage[LLM_COST]));
}


void
ngx_http_llm_describe_fields(ngx_http_llm_field_t *fields, ngx_uint_t n,
    uint64_t *total, json_t *o)
{
    json_t      *object;
    ngx_uint_t   i;

    object = o;

    for (i = 0; i < n; i++) {

        if (fields[i].object
            && (i == 0 || fields[i].object != fields[i - 1].object))
        {
            object = json_object();
            ngx_http_llm_set(o, fields[i].object, object);
        }

        ngx_http_llm_set(object, fields[i].name,
                         json_integer(total[fields[i].counter]));
    }
}


void
ngx_http_llm_describe_last(ngx_http_llm_record_t *record, uint64_t *calls,
    json_t *o)
{
    json_t      *error;
    uint64_t     failure;
    ngx_uint_t   status, fault;

    failure = record->last_failure;

    status = failure >> 8 & 0xfff;
    fault = failure & 0xff;

    error = json_null();

    if (failure) {
        error = status ? json_sprintf("status %d", (int) status)
                       : json_string(ngx_http_llm_fault(fault));
    }

    ngx_http_llm_set(o, "last_success",
                     ngx_http_llm_tree_time(calls[LLM_LAST_SUCCESS]));
    ngx_http_llm_set(o, "last_failure", ngx_http_llm_tree_time(failure >> 20));
    ngx_http_llm_set(o, "last_error", error);
}


/* How the circuit moved; changes: so many of the last ones, each by itself. */

void
ngx_http_llm_describe_history(ngx_http_llm_record_t *record,
    uint64_t *calls, ngx_uint_t changes, json_t *o)
{
    ngx_http_llm_set(o, "transitions", json_integer(record->history.next));
    ngx_http_llm_set(o, "moves", ngx_http_llm_describe_moves(calls));

    if (changes) {
        ngx_http_llm_set(o, "state_changes",
                         ngx_http_llm_describe_changes(record, changes));
    }
}


/* { FROM: { TO: HOW OFTEN, ... }, ... } */

static json_t *
ngx_http_llm_describe_moves(uint64_t *calls)
{
    json_t      *o, *moves;
    ngx_uint_t   from, to;

    moves = json_object();

    for (from = LLM_CIRCUIT_CLOSED; from <= LLM_CIRCUIT_HALF_OPEN; from++) {

        o = json_object();

        for (to = LLM_CIRCUIT_CLOSED; to <= LLM_CIRCUIT_HALF_OPEN; to++) {

            if (to != from) {
                ngx_http_llm_set(o, llm_circuit_state_name(to),
                                 json_integer(calls[llm_move(from, to)]));
            }
        }

        ngx_http_llm_set(moves, llm_circuit_state_name(from), o);
    }

    return moves;
}


static json_t *
ngx_http_llm_describe_changes(ngx_http_llm_record_t *record, ngx_uint_t n)
{
    json_t               *list, *o;
    unsigned              i;
    llm_history_entry_t   entries[LLM_HISTORY];

    list = json_array();

    n = llm_history_read(&record->history, entries, n);

    for (i = 0; i < n; i++) {
        o = json_object();

        ngx_http_llm_set(o, "time", ngx_http_llm_tree_time(entries[i].time));
        ngx_http_llm_set(o, "from",
                         json_string(llm_circuit_state_name(entries[i].from)));
        ngx_http_llm_set(o, "to",
                         json_string(llm_circuit_state_name(entries[i].to)));
        ngx_http_llm_set(o, "reason",
                         json_string(llm_reason_name(entries[i].reason)));

        if (entries[i].status) {
            ngx_http_llm_set(o, "status", json_integer(entries[i].status));
        }

        json_array_append_new(list, o);
    }

    return list;
}
