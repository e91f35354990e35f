
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_member.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_saved.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_state.h"


/*
 * The records in the state file.  What is not in a file is left as it is in a
 * new record; what of a record is in it, is the table's affair.
 */


static void ngx_http_llm_save_record(ngx_http_llm_saved_t *s,
    llm_state_text_t *t);
static void ngx_http_llm_save_failovers(ngx_http_llm_saved_t *s,
    llm_state_text_t *t);
static void ngx_http_llm_save_rows(ngx_http_llm_saved_t *s,
    llm_state_text_t *t, u_char *name, size_t len);

static ngx_http_llm_saved_kind_e ngx_http_llm_saved_kind(
    llm_state_line_t *line);
static ngx_http_llm_saved_row_t *ngx_http_llm_saved_row(
    ngx_http_llm_saved_kind_e kind, llm_state_line_t *line);
static ngx_uint_t ngx_http_llm_saved_find(ngx_http_llm_saved_t *s,
    llm_state_line_t *line);
static ngx_http_llm_record_t *ngx_http_llm_saved_route(
    ngx_http_llm_main_conf_t *mcf, ngx_str_t *name);
static ngx_http_llm_failover_t *ngx_http_llm_saved_failover(
    ngx_http_llm_main_conf_t *mcf, ngx_str_t *name);
static void ngx_http_llm_saved_settle(ngx_http_llm_main_conf_t *mcf);


static const char  *ngx_http_llm_saved_kinds[] = {
    "provider",
    "route",
    "failover"
};


void
ngx_http_llm_saved_write(ngx_http_llm_main_conf_t *mcf, llm_state_text_t *t)
{
    ngx_uint_t                 i;
    ngx_http_llm_saved_t       s;
    ngx_http_llm_route_t     **routep;
    ngx_http_llm_provider_t  **providerp;

    ngx_memzero(&s, sizeof(ngx_http_llm_saved_t));

    s.mcf = mcf;
    s.now = ngx_http_llm_time(mcf);

    providerp = mcf->providers.elts;
    s.kind = NGX_HTTP_LLM_SAVED_PROVIDER;

    for (i = 0; i < mcf->providers.nelts; i++) {
        s.record = providerp[i]->record;
        ngx_http_llm_save_record(&s, t);
    }

    routep = mcf->routes.elts;

    for (i = 0; i < mcf->routes.nelts; i++) {
        s.kind = NGX_HTTP_LLM_SAVED_ROUTE;
        s.record = routep[i]->record;
        ngx_http_llm_save_record(&s, t);

        s.kind = NGX_HTTP_LLM_SAVED_FAILOVER;
        ngx_http_llm_save_failovers(&s, t);
    }
}


static void
ngx_http_llm_save_record(ngx_http_llm_saved_t *s, llm_state_text_t *t)
{
    llm_counters_total(s->record->counters, s->mcf->sh->nslots, s->counters);
    llm_counters_total(s->record->usage, NGX_HTTP_LLM_STRIPES, s->usage);

    ngx_http_llm_save_rows(s, t, s->record->name.data, s->record->name.len);
}


static void
ngx_http_llm_save_failovers(ngx_http_llm_saved_t *s, llm_state_text_t *t)
{
    u_char                    name[LLM_STATE_NAME], *p, *last;
    ngx_http_llm_member_t    *member;
    ngx_http_llm_failover_t  *failover;

    last = name + sizeof(name);

    for (member = s->record->members; member; member = member->next) {

        for (failover = member->failovers; failover; failover = failover->next)
        {
            p = ngx_slprintf(name, last, "%V%Z%s%Z%s", &s->record->name,
                             member->name, failover->to->name);

            /* of a name that is as long as that, something would be missing */

            if (failover->count && p < last) {
                s->failover = failover;
                ngx_http_llm_save_rows(s, t, name, p - name);
            }
        }
    }
}


static void
ngx_http_llm_save_rows(ngx_http_llm_saved_t *s, llm_state_text_t *t,
    u_char *name, size_t len)
{
    uint64_t                   v[LLM_STATE_NUMBERS];
    ngx_http_llm_saved_row_t  *row;

    llm_state_record(t, ngx_http_llm_saved_kinds[s->kind], name, len);

    for (row = ngx_http_llm_saved_rows; row->key; row++) {

        if (row->kinds & (1 << s->kind)) {
            ngx_memzero(v, row->n * sizeof(uint64_t));

            row->save(s, row, v);

            llm_state_numbers(t, row->key, v, row->n);
        }
    }
}


/* Of a text that can be read: whether its numbers can be what they are of. */

ngx_int_t
ngx_http_llm_saved_check(u_char *p, size_t len, llm_state_line_t *line)
{
    unsigned                    i;
    llm_state_reader_t          reader;
    ngx_http_llm_saved_row_t   *row;
    ngx_http_llm_saved_kind_e   kind;

    kind = NGX_HTTP_LLM_SAVED_UNKNOWN;

    llm_state_read(&reader, p, len);

    while (llm_state_next(&reader, line)) {

        if (line->record) {
            kind = ngx_http_llm_saved_kind(line);
            continue;
        }

        row = ngx_http_llm_saved_row(kind, line);
        if (row == NULL) {
            continue;
        }

        if (line->n > row->n || (row->check && !row->check(line->v))) {
            return NGX_ERROR;
        }

        for (i = 0; i < line->n; i++) {
            if (line->v[i] > NGX_HTTP_LLM_SAVED_MAX) {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


/* Of a text that was checked, into records that nobody uses yet. */

void
ngx_http_llm_saved_restore(ngx_http_llm_main_conf_t *mcf, u_char *p,
    size_t len, uint64_t elapsed, ngx_uint_t *records, ngx_uint_t *unknown)
{
    ngx_uint_t                 known;
    llm_state_line_t           line;
    llm_state_reader_t         reader;
    ngx_http_llm_saved_t       s;
    ngx_http_llm_saved_row_t  *row;

    *records = 0;
    *unknown = 0;

    ngx_memzero(&s, sizeof(ngx_http_llm_saved_t));

    s.mcf = mcf;
    s.now = ngx_http_llm_time(mcf);
    s.elapsed = elapsed;
    s.kind = NGX_HTTP_LLM_SAVED_UNKNOWN;

    known = 0;

    llm_state_read(&reader, p, len);

    while (llm_state_next(&reader, &line)) {

        if (line.record) {
            known = ngx_http_llm_saved_find(&s, &line);

            if (s.kind <= NGX_HTTP_LLM_SAVED_ROUTE) {
                *records += known;
                *unknown += !known;
            }

            continue;
        }

        row = ngx_http_llm_saved_row(s.kind, &line);

        if (known && row) {
            row->restore(&s, row, line.v);
        }
    }

    ngx_http_llm_saved_settle(mcf);
}


static ngx_http_llm_saved_kind_e
ngx_http_llm_saved_kind(llm_state_line_t *line)
{
    ngx_http_llm_saved_kind_e  kind;

    for (kind = 0; kind < NGX_HTTP_LLM_SAVED_UNKNOWN; kind++) {

        if (ngx_strlen(ngx_http_llm_saved_kinds[kind]) == line->key_len
            && ngx_strncmp(ngx_http_llm_saved_kinds[kind], line->key,
                           line->key_len)
               == 0)
        {
            break;
        }
    }

    return kind;
}


static ngx_http_llm_saved_row_t *
ngx_http_llm_saved_row(ngx_http_llm_saved_kind_e kind, llm_state_line_t *line)
{
    ngx_http_llm_saved_row_t  *row;

    for (row = ngx_http_llm_saved_rows; row->key; row++) {

        if ((row->kinds & (1 << kind))
            && ngx_strlen(row->key) == line->key_len
            && ngx_strncmp(row->key, line->key, line->key_len) == 0)
        {
            return row;
        }
    }

    return NULL;
}


/* Whose lines follow; 0: nobody's who is configured. */

static ngx_uint_t
ngx_http_llm_saved_find(ngx_http_llm_saved_t *s, llm_state_line_t *line)
{
    ngx_str_t                 name;
    ngx_http_llm_provider_t  *provider;

    name.data = line->name;
    name.len = line->name_len;

    s->kind = ngx_http_llm_saved_kind(line);

    switch (s->kind) {

    case NGX_HTTP_LLM_SAVED_PROVIDER:
        provider = ngx_http_llm_find_provider(s->mcf, &name);
        s->record = provider ? provider->record : NULL;
        return s->record != NULL;

    case NGX_HTTP_LLM_SAVED_ROUTE:
        s->record = ngx_http_llm_saved_route(s->mcf, &name);
        return s->record != NULL;

    case NGX_HTTP_LLM_SAVED_FAILOVER:
        s->failover = ngx_http_llm_saved_failover(s->mcf, &name);
        return s->failover != NULL;

    default: /* NGX_HTTP_LLM_SAVED_UNKNOWN */
        return 0;
    }
}


static ngx_http_llm_record_t *
ngx_http_llm_saved_route(ngx_http_llm_main_conf_t *mcf, ngx_str_t *name)
{
    ngx_http_llm_route_t  *route;

    route = ngx_http_llm_find_route(mcf, name);

    return route ? route->record : NULL;
}


static ngx_http_llm_failover_t *
ngx_http_llm_saved_failover(ngx_http_llm_main_conf_t *mcf, ngx_str_t *name)
{
    u_char                 *p, *last;
    ngx_uint_t              i;
    ngx_str_t               names[3];
    ngx_http_llm_record_t  *route;

    p = name->data;
    last = name->data + name->len;

    for (i = 0; i < 3; i++) {
        names[i].data = p;

        while (p < last && *p) {
            p++;
        }

        names[i].len = p - names[i].data;

        p += (p < last);
    }

    route = ngx_http_llm_saved_route(mcf, &names[0]);
    if (route == NULL) {
        return NULL;
    }

    return ngx_http_llm_member_failover(
               (ngx_slab_pool_t *) mcf->shm_zone->shm.addr, route, &names[1],
               &names[2]);
}


/* What was in flight will never get a verdict. */

static void
ngx_http_llm_saved_settle(ngx_http_llm_main_conf_t *mcf)
{
    ngx_http_llm_record_t  *record;

    for (record = mcf->sh->records; record; record = record->next) {

        if (record->kind == NGX_HTTP_LLM_ROUTE) {
            llm_counters_settle_route(&record->counters[0]);

        } else {
            llm_counters_settle(&record->counters[0]);
        }
    }
}
