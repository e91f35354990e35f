
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_saved.h"


/*
 * The records in the state file.  What is not in a file is left as it is in a
 * new record.
 */


static void ngx_http_llm_saved_record(ngx_http_llm_saved_t *s,
    llm_state_text_t *t);
static ngx_int_t ngx_http_llm_saved_kind(llm_state_line_t *line);
static ngx_http_llm_saved_row_t *ngx_http_llm_saved_row(ngx_int_t kind,
    llm_state_line_t *line);
static ngx_http_llm_record_t *ngx_http_llm_saved_find(
    ngx_http_llm_main_conf_t *mcf, ngx_int_t kind, llm_state_line_t *line);
static void ngx_http_llm_saved_settle(ngx_http_llm_main_conf_t *mcf);


static const char  *ngx_http_llm_saved_kinds[] = { "provider", "route" };


void
ngx_http_llm_saved_write(ngx_http_llm_main_conf_t *mcf, llm_state_text_t *t)
{
    ngx_uint_t                 i;
    ngx_http_llm_saved_t       s;
    ngx_http_llm_route_t     **routep;
    ngx_http_llm_provider_t  **providerp;

    s.mcf = mcf;
    s.now = ngx_http_llm_time(mcf);
    s.elapsed = 0;

    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {
        s.record = providerp[i]->record;
        ngx_http_llm_saved_record(&s, t);
    }

    routep = mcf->routes.elts;

    for (i = 0; i < mcf->routes.nelts; i++) {
        s.record = routep[i]->record;
        ngx_http_llm_saved_record(&s, t);
    }
}


static void
ngx_http_llm_saved_record(ngx_http_llm_saved_t *s, llm_state_text_t *t)
{
    uint64_t                   v[LLM_STATE_NUMBERS];
    ngx_http_llm_saved_row_t  *row;

    llm_state_record(t, ngx_http_llm_saved_kinds[s->record->kind],
                     s->record->name.data, s->record->name.len);

    llm_counters_total(s->record->counters, s->mcf->sh->nslots, s->counters);
    llm_counters_total(s->record->usage, NGX_HTTP_LLM_STRIPES, s->usage);

    for (row = ngx_http_llm_saved_rows; row->key; row++) {

        if (row->kinds & (1 << s->record->kind)) {
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
    unsigned                   i;
    ngx_int_t                  kind;
    llm_state_reader_t         reader;
    ngx_http_llm_saved_row_t  *row;

    kind = -1;

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
    ngx_int_t                  kind;
    llm_state_line_t           line;
    llm_state_reader_t         reader;
    ngx_http_llm_saved_t       s;
    ngx_http_llm_saved_row_t  *row;

    *records = 0;
    *unknown = 0;

    kind = -1;

    s.mcf = mcf;
    s.record = NULL;
    s.now = ngx_http_llm_time(mcf);
    s.elapsed = elapsed;

    llm_state_read(&reader, p, len);

    while (llm_state_next(&reader, &line)) {

        if (line.record) {
            kind = ngx_http_llm_saved_kind(&line);
            s.record = ngx_http_llm_saved_find(mcf, kind, &line);

            if (s.record) {
                (*records)++;

            } else {
                (*unknown)++;
            }

            continue;
        }

        row = ngx_http_llm_saved_row(kind, &line);

        if (s.record && row) {
            row->restore(&s, row, line.v);
        }
    }

    ngx_http_llm_saved_settle(mcf);
}


/* Of a kind that is not known: -1. */

static ngx_int_t
ngx_http_llm_saved_kind(llm_state_line_t *line)
{
    ngx_int_t  kind;

    for (kind = NGX_HTTP_LLM_PROVIDER; kind <= NGX_HTTP_LLM_ROUTE; kind++) {

        if (ngx_strlen(ngx_http_llm_saved_kinds[kind]) == line->key_len
            && ngx_strncmp(ngx_http_llm_saved_kinds[kind], line->key,
                           line->key_len)
               == 0)
        {
            return kind;
        }
    }

    return -1;
}


static ngx_http_llm_saved_row_t *
ngx_http_llm_saved_row(ngx_int_t kind, llm_state_line_t *line)
{
    ngx_http_llm_saved_row_t  *row;

    if (kind == -1) {
        return NULL;
    }

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


static ngx_http_llm_record_t *
ngx_http_llm_saved_find(ngx_http_llm_main_conf_t *mcf, ngx_int_t kind,
    llm_state_line_t *line)
{
    ngx_str_t                 name;
    ngx_http_llm_route_t     *route;
    ngx_http_llm_provider_t  *provider;

    name.data = line->name;
    name.len = line->name_len;

    if (kind == NGX_HTTP_LLM_PROVIDER) {
        provider = ngx_http_llm_find_provider(mcf, &name);
        return provider ? provider->record : NULL;
    }

    if (kind == NGX_HTTP_LLM_ROUTE) {
        route = ngx_http_llm_find_route(mcf, &name);
        return route ? route->record : NULL;
    }

    return NULL;
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
