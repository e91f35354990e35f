
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_member.h"
#include "ngx_http_llm_saved.h"

#include "llm_circuit_save.h"


/* What of a record is in the state file: one row for each line. */


static void ngx_http_llm_save_circuit(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_restore_circuit(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_save_history(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_restore_history(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static bool ngx_http_llm_check_history(const uint64_t *v);
static void ngx_http_llm_save_failure(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_restore_failure(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static bool ngx_http_llm_check_failure(const uint64_t *v);
static void ngx_http_llm_save_failover(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_restore_failover(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_save_probe(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_restore_probe(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static bool ngx_http_llm_check_probe(const uint64_t *v);
static void ngx_http_llm_save_told(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_restore_told(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_save_latency(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_restore_latency(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static bool ngx_http_llm_check_latency(const uint64_t *v);
static void ngx_http_llm_save_times(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_restore_times(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static bool ngx_http_llm_check_times(const uint64_t *v);
static void ngx_http_llm_save_counters(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_restore_counters(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_save_usage(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);
static void ngx_http_llm_restore_usage(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v);


#define NGX_HTTP_LLM_SAVED_COUNTERS                                           \
    ngx_http_llm_save_counters, ngx_http_llm_restore_counters, NULL

#define NGX_HTTP_LLM_SAVED_USAGE                                              \
    ngx_http_llm_save_usage, ngx_http_llm_restore_usage, NULL

#define NGX_HTTP_LLM_SAVED_TIMES                                              \
    ngx_http_llm_save_times, ngx_http_llm_restore_times,                      \
    ngx_http_llm_check_times


ngx_http_llm_saved_row_t  ngx_http_llm_saved_rows[] = {

    { "circuit", NGX_HTTP_LLM_SAVED_P, LLM_SAVED_NUMBERS,
      ngx_http_llm_save_circuit, ngx_http_llm_restore_circuit,
      llm_circuit_saved, 0 },

    { "history", NGX_HTTP_LLM_SAVED_P, 1 + 5 * LLM_HISTORY,
      ngx_http_llm_save_history, ngx_http_llm_restore_history,
      ngx_http_llm_check_history, 0 },

    { "last_failure", NGX_HTTP_LLM_SAVED_P, 3,
      ngx_http_llm_save_failure, ngx_http_llm_restore_failure,
      ngx_http_llm_check_failure, 0 },

    { "probe", NGX_HTTP_LLM_SAVED_P, LLM_PROBE_NUMBERS,
      ngx_http_llm_save_probe, ngx_http_llm_restore_probe,
      ngx_http_llm_check_probe, 0 },

    { "told", NGX_HTTP_LLM_SAVED_PR, 1,
      ngx_http_llm_save_told, ngx_http_llm_restore_told, NULL, 0 },

    { "last_success", NGX_HTTP_LLM_SAVED_P, 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_LAST_SUCCESS },

    { "latency", NGX_HTTP_LLM_SAVED_P, 2,
      ngx_http_llm_save_latency, ngx_http_llm_restore_latency,
      ngx_http_llm_check_latency, 0 },

    { "duration", NGX_HTTP_LLM_SAVED_P, 1 + LLM_HISTOGRAM_BUCKETS,
      NGX_HTTP_LLM_SAVED_TIMES, offsetof(ngx_http_llm_times_t, duration) },

    { "first_token", NGX_HTTP_LLM_SAVED_P, 1 + LLM_HISTOGRAM_BUCKETS,
      NGX_HTTP_LLM_SAVED_TIMES, offsetof(ngx_http_llm_times_t, first_token) },

    { "successful_calls", NGX_HTTP_LLM_SAVED_P, 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_CALLS_SUCCESSFUL },

    { "failed_calls", NGX_HTTP_LLM_SAVED_P, 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_CALLS_FAILED },

    { "throttled_calls", NGX_HTTP_LLM_SAVED_P, 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_CALLS_THROTTLED },

    { "neutral_calls", NGX_HTTP_LLM_SAVED_P, 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_CALLS_NEUTRAL },

    { "total_calls", NGX_HTTP_LLM_SAVED_P, 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_CALLS },

    { "rejected_calls", NGX_HTTP_LLM_SAVED_P, 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_CALLS_REJECTED },

    { "late_calls", NGX_HTTP_LLM_SAVED_P, 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_CALLS_LATE },

    { "unreadable_frames", NGX_HTTP_LLM_SAVED_P, 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_UNREADABLE_FRAMES },

    { "moves", NGX_HTTP_LLM_SAVED_P, 6,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_MOVES },

    { "outcomes", NGX_HTTP_LLM_SAVED_R,
      LLM_OUTCOME_CACHED - LLM_OUTCOME_OK + 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_OUTCOME_OK },

    { "requests", NGX_HTTP_LLM_SAVED_R, 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_REQUESTS },

    { "failovers", NGX_HTTP_LLM_SAVED_R, 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_FAILOVERS },

    { "waited", NGX_HTTP_LLM_SAVED_R, 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_REQUESTS_WAITED },

    { "rejected", NGX_HTTP_LLM_SAVED_R,
      LLM_REJECTED_REQUEST - LLM_REJECTED_CIRCUITS + 1,
      NGX_HTTP_LLM_SAVED_COUNTERS, LLM_REJECTED_CIRCUITS },

    { "answers", NGX_HTTP_LLM_SAVED_PR,
      LLM_USAGE_BAD - LLM_USAGE_TOLD + 1,
      NGX_HTTP_LLM_SAVED_USAGE, LLM_USAGE_TOLD },

    { "tokens", NGX_HTTP_LLM_SAVED_PR,
      LLM_TOKENS_REASONING - LLM_TOKENS_IN + 1,
      NGX_HTTP_LLM_SAVED_USAGE, LLM_TOKENS_IN },

    { "cost", NGX_HTTP_LLM_SAVED_PR,
      LLM_COST_ADDED - LLM_COST + 1,
      NGX_HTTP_LLM_SAVED_USAGE, LLM_COST },

    { "stream_failures", NGX_HTTP_LLM_SAVED_P,
      LLM_STREAM_ERROR_EVENT - LLM_STREAM_BROKEN + 1,
      NGX_HTTP_LLM_SAVED_USAGE, LLM_STREAM_BROKEN },

    { "count", NGX_HTTP_LLM_SAVED_F, 1,
      ngx_http_llm_save_failover, ngx_http_llm_restore_failover, NULL, 0 },

    { NULL, 0, 0, NULL, NULL, NULL, 0 }
};


static void
ngx_http_llm_save_circuit(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    llm_circuit_save(&s->record->circuit, s->now, v);
}


static void
ngx_http_llm_restore_circuit(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    llm_circuit_restore(&s->record->circuit, v, s->elapsed, s->now);
}


/* How many there ever were; of each its time, from, to, reason, status. */

static void
ngx_http_llm_save_history(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    unsigned             i, n;
    llm_history_entry_t  entries[LLM_HISTORY];

    *v++ = s->record->history.next;

    n = llm_history_read(&s->record->history, entries, LLM_HISTORY);

    for (i = 0; i < n; i++) {
        *v++ = entries[i].time;
        *v++ = entries[i].from;
        *v++ = entries[i].to;
        *v++ = entries[i].reason;
        *v++ = entries[i].status;
    }
}


static void
ngx_http_llm_restore_history(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    unsigned              i, n;
    uint64_t             *e;
    llm_history_entry_t   entry;

    e = v + 1;

    for (n = 0; n < LLM_HISTORY && e[5 * n]; n++) { /* void */ }

    s->record->history.next = v[0] > n ? v[0] - n : 0;

    for (i = 0; i < n; i++) {
        entry.time = *e++;
        entry.from = *e++;
        entry.to = *e++;
        entry.reason = *e++;
        entry.status = *e++;

        llm_history_add(&s->record->history, &entry);
    }
}


static bool
ngx_http_llm_check_history(const uint64_t *v)
{
    unsigned         i;
    const uint64_t  *e;

    for (i = 0; i < LLM_HISTORY; i++) {
        e = &v[1 + 5 * i];

        if (e[0] >= (uint64_t) 1 << 44
            || e[1] > LLM_CIRCUIT_HALF_OPEN || e[2] > LLM_CIRCUIT_HALF_OPEN
            || e[3] > 63 || e[4] > 1023)
        {
            return 0;
        }
    }

    return 1;
}


/* When, what, and the answer's status. */

static void
ngx_http_llm_save_failure(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    uint64_t  failure;

    failure = s->record->last_failure;

    v[0] = failure >> 20;
    v[1] = failure & 0xff;
    v[2] = failure >> 8 & 0xfff;
}


static void
ngx_http_llm_restore_failure(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    s->record->last_failure = v[0] << 20 | v[2] << 8 | v[1];
}


static bool
ngx_http_llm_check_failure(const uint64_t *v)
{
    return v[0] < (uint64_t) 1 << 44 && v[1] < NGX_HTTP_LLM_FAULTS
           && v[2] <= 0xfff;
}


/* Of a provider without probes all are 0. */

static void
ngx_http_llm_save_probe(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    if (s->record->probe) {
        llm_probe_save(s->record->probe, v);
    }
}


static void
ngx_http_llm_restore_probe(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    if (s->record->probe) {
        llm_probe_restore(s->record->probe, v);
    }
}


static bool
ngx_http_llm_check_probe(const uint64_t *v)
{
    return llm_probe_saved(v, NGX_HTTP_LLM_FAULTS);
}


/* What receivers of alerts know. */

static void
ngx_http_llm_save_told(ngx_http_llm_saved_t *s, ngx_http_llm_saved_row_t *row,
    uint64_t *v)
{
    v[0] = s->record->told;
}


static void
ngx_http_llm_restore_told(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    s->record->told = v[0];
}


/* The average, us, and how old it is, ms. */

static void
ngx_http_llm_save_latency(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    uint64_t  average;

    average = s->record->latency.average;

    v[0] = average & 0xffffffff;
    v[1] = (uint32_t) s->now - (uint32_t) (average >> 32);

    if (v[1] > INT32_MAX) {
        v[1] = v[1] > UINT32_MAX - LLM_LATENCY_SKEW ? 0 : INT32_MAX;
    }
}


static void
ngx_http_llm_restore_latency(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    uint64_t  age;

    if (v[0] == 0) {
        return;
    }

    age = ngx_min(s->elapsed, INT32_MAX);
    age = ngx_min(v[1] + age, INT32_MAX);

    s->record->latency.average = (s->now - age) << 32 | v[0];
}


static bool
ngx_http_llm_check_latency(const uint64_t *v)
{
    return v[0] <= LLM_LATENCY_MAX && v[1] <= INT32_MAX;
}


/* The sum of all, us, and how many there are in each bucket. */

static void
ngx_http_llm_save_times(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    unsigned          i;
    llm_histogram_t  *h;

    h = (llm_histogram_t *) ((u_char *) s->record->times + row->data);

    v[0] = h->sum;

    for (i = 0; i < LLM_HISTOGRAM_BUCKETS; i++) {
        v[1 + i] = h->count[i];
    }
}


static void
ngx_http_llm_restore_times(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    unsigned          i;
    llm_histogram_t  *h;

    h = (llm_histogram_t *) ((u_char *) s->record->times + row->data);

    h->sum = v[0];

    for (i = 0; i < LLM_HISTOGRAM_BUCKETS; i++) {
        h->count[i] = v[1 + i];
    }
}


static bool
ngx_http_llm_check_times(const uint64_t *v)
{
    unsigned  i;

    for (i = 0; i < LLM_HISTOGRAM_BUCKETS; i++) {
        if (v[1 + i] > UINT32_MAX) {
            return 0;
        }
    }

    return 1;
}


static void
ngx_http_llm_save_counters(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    unsigned  i;

    for (i = 0; i < row->n; i++) {
        v[i] = s->counters[row->data + i];
    }
}


static void
ngx_http_llm_restore_counters(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    unsigned  i;

    for (i = 0; i < row->n; i++) {
        s->record->counters[0].v[row->data + i] = v[i];
    }
}


static void
ngx_http_llm_save_usage(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    unsigned  i;

    for (i = 0; i < row->n; i++) {
        v[i] = s->usage[row->data + i];
    }
}


static void
ngx_http_llm_restore_usage(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    unsigned  i;

    for (i = 0; i < row->n; i++) {
        s->record->usage[0].v[row->data + i] = v[i];
    }
}


static void
ngx_http_llm_save_failover(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    v[0] = s->failover->count;
}


static void
ngx_http_llm_restore_failover(ngx_http_llm_saved_t *s,
    ngx_http_llm_saved_row_t *row, uint64_t *v)
{
    s->failover->count = v[0];
}
