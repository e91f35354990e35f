
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_recent.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_slot.h"


/*
 * The last hour of each provider and route.  Requests know nothing of it:
 * every minute each worker looks whether somebody has taken the samples of
 * the minute that is over, and the first one does.
 */


/* the clocks of workers differ a little */

#define NGX_HTTP_LLM_RECENT_LATE  50


typedef struct {
    ngx_http_llm_main_conf_t  *mcf;
    void                      *unused[2];

    /* event ident must be after 3 pointers as in ngx_connection_t */
    ngx_int_t                  ident;

    ngx_event_t                event;
} ngx_http_llm_recent_t;


static void ngx_http_llm_recent_timer(ngx_event_t *ev);
static void ngx_http_llm_recent_take(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record, uint32_t minute);
static void ngx_http_llm_recent_totals(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record, llm_recent_totals_t *totals);
static ngx_int_t ngx_http_llm_recent_head(ngx_http_llm_page_t *page,
    json_t *tree);
static ngx_int_t ngx_http_llm_recent_list(ngx_http_llm_page_t *page,
    const char *name);
static ngx_int_t ngx_http_llm_recent_entry(ngx_http_llm_page_t *page,
    ngx_uint_t i, json_t *tree);
static ngx_int_t ngx_http_llm_recent_end(ngx_http_llm_page_t *page);
static json_t *ngx_http_llm_recent_json(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record);


ngx_http_llm_format_t  ngx_http_llm_recent_format = {
    ngx_http_llm_recent_head,
    ngx_http_llm_recent_list,
    ngx_http_llm_recent_entry,
    ngx_http_llm_recent_end
};



/* by ngx_http_llm_kind_e; of a route: requests that are over */

static struct {
    const char  *name;
    unsigned     counters;                        /* bits; their sum */
} ngx_http_llm_recent_counts[][LLM_RECENT_COUNTS] = {
    {
        { "calls", 1 << LLM_CALLS },
        { "failed", 1 << LLM_CALLS_FAILED },
        { "throttled", 1 << LLM_CALLS_THROTTLED },
        { "rejected", 1 << LLM_CALLS_REJECTED }
    },
    {
        { "requests", 1 << LLM_OUTCOME_OK|1 << LLM_OUTCOME_FAILOVER
                      |1 << LLM_OUTCOME_REJECTED|1 << LLM_OUTCOME_TRUNCATED
                      |1 << LLM_OUTCOME_ERROR|1 << LLM_OUTCOME_ABORTED
                      |1 << LLM_OUTCOME_CACHED },
        { "failover", 1 << LLM_OUTCOME_FAILOVER },
        { "rejected", 1 << LLM_OUTCOME_REJECTED },
        { "broken", 1 << LLM_OUTCOME_TRUNCATED|1 << LLM_OUTCOME_ERROR }
    }
};

static ngx_http_llm_recent_t  ngx_http_llm_recent;


void
ngx_http_llm_recent_start(ngx_cycle_t *cycle, ngx_http_llm_main_conf_t *mcf)
{
    ngx_event_t  *ev;

    ngx_http_llm_recent.mcf = mcf;
    ngx_http_llm_recent.ident = -1;

    ev = &ngx_http_llm_recent.event;

    ev->handler = ngx_http_llm_recent_timer;
    ev->data = &ngx_http_llm_recent;
    ev->log = cycle->log;
    ev->cancelable = 1;

    ngx_http_llm_recent_timer(ev);
}


static void
ngx_http_llm_recent_timer(ngx_event_t *ev)
{
    uint32_t                   minute;
    uint64_t                   time;
    ngx_uint_t                 i;
    ngx_http_llm_route_t     **routep;
    ngx_http_llm_recent_t     *recent;
    ngx_http_llm_provider_t  **providerp;
    ngx_http_llm_main_conf_t  *mcf;

    recent = ev->data;
    mcf = recent->mcf;

    time = ngx_http_llm_time(mcf);
    minute = (uint32_t) (time / LLM_RECENT_MINUTE);

    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {
        ngx_http_llm_recent_take(mcf, providerp[i]->record, minute);
    }

    routep = mcf->routes.elts;

    for (i = 0; i < mcf->routes.nelts; i++) {
        ngx_http_llm_recent_take(mcf, routep[i]->record, minute);
    }

    ngx_add_timer(ev, LLM_RECENT_MINUTE - time % LLM_RECENT_MINUTE
                      + NGX_HTTP_LLM_RECENT_LATE);
}


static void
ngx_http_llm_recent_take(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record, uint32_t minute)
{
    llm_recent_totals_t  totals;

    if (!llm_recent_due(record->recent, minute)) {
        return;
    }

    ngx_http_llm_recent_totals(mcf, record, &totals);

    llm_recent_take(record->recent, minute, &totals);
}


static void
ngx_http_llm_recent_totals(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record, llm_recent_totals_t *totals)
{
    uint64_t               counters[LLM_COUNTERS];
    ngx_uint_t             i, k;
    llm_histogram_view_t   view;

    ngx_memzero(totals, sizeof(llm_recent_totals_t));

    llm_counters_total(record->counters, mcf->sh->nslots, counters);

    for (k = 0; k < LLM_RECENT_COUNTS; k++) {
        for (i = 0; i < LLM_COUNTERS; i++) {
            if (ngx_http_llm_recent_counts[record->kind][k].counters
                & 1 << i)
            {
                totals->count[k] += counters[i];
            }
        }
    }

    if (record->times) {
        llm_histogram_view(&record->times->duration, &view);

        totals->n = llm_histogram_total(&view);
        totals->sum = view.sum;
    }
}


static ngx_int_t
ngx_http_llm_recent_head(ngx_http_llm_page_t *page, json_t *tree)
{
    json_t    *o;
    uint64_t   time;

    time = ngx_http_llm_time(page->mcf);

    o = json_object();

    ngx_http_llm_set(o, "interval",
                     ngx_http_llm_tree_seconds(LLM_RECENT_MINUTE));
    ngx_http_llm_set(o, "age",
                     ngx_http_llm_tree_seconds(time % LLM_RECENT_MINUTE));
    ngx_http_llm_set(tree, "recent", o);

    return ngx_http_llm_json_format.head(page, tree);
}


static ngx_int_t
ngx_http_llm_recent_list(ngx_http_llm_page_t *page, const char *name)
{
    return ngx_http_llm_json_format.list(page, name);
}


/* page->data is the name of the list, as it is to JSON */

static ngx_int_t
ngx_http_llm_recent_entry(ngx_http_llm_page_t *page, ngx_uint_t i,
    json_t *tree)
{
    ngx_http_llm_route_t     **routep;
    ngx_http_llm_record_t     *record;
    ngx_http_llm_provider_t  **providerp;

    record = NULL;

    if (ngx_strcmp(page->data, "providers") == 0) {
        providerp = page->mcf->providers.elts;
        record = providerp[i]->record;

    } else if (ngx_strcmp(page->data, "routes") == 0) {
        routep = page->mcf->routes.elts;
        record = routep[i]->record;
    }

    if (record) {
        ngx_http_llm_set(tree, "recent",
                         ngx_http_llm_recent_json(page->mcf, record));
    }

    return ngx_http_llm_json_format.entry(page, i, tree);
}


static ngx_int_t
ngx_http_llm_recent_end(ngx_http_llm_page_t *page)
{
    return ngx_http_llm_json_format.end(page);
}


/*
 * A list for each count, null where there is no sample; the minute that runs
 * is the last.
 */

static json_t *
ngx_http_llm_recent_json(ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_record_t *record)
{
    json_t               *o, *list;
    uint32_t              minute;
    ngx_uint_t            i, n;
    llm_recent_totals_t   totals;
    llm_recent_sample_t   samples[LLM_RECENT + 1];

    minute = (uint32_t) (ngx_http_llm_time(mcf) / LLM_RECENT_MINUTE);

    llm_recent_read(record->recent, minute, samples);

    ngx_http_llm_recent_totals(mcf, record, &totals);

    llm_recent_since(record->recent, &totals, &samples[LLM_RECENT]);

    o = json_object();

    for (n = 0; n < LLM_RECENT_COUNTS; n++) {
        list = json_array();

        for (i = 0; i <= LLM_RECENT; i++) {
            json_array_append_new(list, samples[i].taken
                                        ? json_integer(samples[i].count[n])
                                        : json_null());
        }

        ngx_http_llm_set(o, ngx_http_llm_recent_counts[record->kind][n].name,
                         list);
    }

    if (record->times == NULL) {
        return o;
    }

    list = json_array();

    for (i = 0; i <= LLM_RECENT; i++) {
        json_array_append_new(list, samples[i].mean
                                    ? ngx_http_llm_tree_seconds(
                                          samples[i].mean)
                                    : json_null());
    }

    ngx_http_llm_set(o, "duration", list);

    return o;
}
