
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm.h"

#include <jansson.h>


/*
 * The page for Prometheus, text format 0.0.4: a table says where in the tree
 * of ngx_http_llm_describe.c each metric stands.  What stands there says how
 * it is shown:
 *
 *   number     a sample
 *   string     1 where it is the row's value of the label, else 0
 *   object     its members, the name of each is the value of the next label
 *   null, or nothing at all: no sample
 *
 * Histograms have too many numbers for a tree, and come from the record.
 *
 * All but the names in the configuration is the gateway's own words, no
 * caller can make a label.
 */


#define NGX_HTTP_LLM_NUMBER_LEN  40


typedef struct {
    const char      *name;
    const char      *type;
    const char      *list;       /* in the tree; NULL: the tree itself */
    const char      *path;       /* NULL: a histogram */
    const char      *labels[3];  /* the first one is the list's */
    const char      *value;      /* of the second label; NULL: by members */
    const char      *help;
    size_t           offset;     /* of the histogram, ... */
    const uint32_t  *edges;      /* ... and its buckets' */
} ngx_http_llm_metric_t;


/* a sample so far: its metric, and its labels */

typedef struct {
    ngx_http_llm_text_t    *text;
    ngx_http_llm_metric_t  *metric;
    const char             *values[3];
    ngx_uint_t              nvalues;
} ngx_http_llm_sample_t;


static ngx_int_t ngx_http_llm_prometheus_head(ngx_http_llm_text_t *text,
    ngx_http_llm_metric_t *metric);
static ngx_int_t ngx_http_llm_prometheus_info(ngx_http_llm_sample_t *sample,
    json_t *tree);
static ngx_int_t ngx_http_llm_prometheus_value(ngx_http_llm_sample_t *sample,
    json_t *value);
static ngx_int_t ngx_http_llm_prometheus_histogram(
    ngx_http_llm_sample_t *sample, ngx_http_llm_times_t *times);
static ngx_int_t ngx_http_llm_prometheus_sample(ngx_http_llm_sample_t *sample,
    const char *suffix, const char *le, const char *number);
static ngx_int_t ngx_http_llm_prometheus_label(ngx_http_llm_text_t *text,
    ngx_uint_t first, const char *name, const char *value);
static ngx_int_t ngx_http_llm_prometheus_put(ngx_http_llm_text_t *text,
    const char *s);
static void ngx_http_llm_prometheus_count(char *p, uint64_t n);
static void ngx_http_llm_prometheus_seconds(char *p, uint64_t us);


/* the rows of a metric stand together */

static ngx_http_llm_metric_t  ngx_http_llm_metrics[] = {

    { "llm_build_info", "gauge", NULL, NULL,
      { "version", "nginx" }, NULL,
      "Versions of the module and of nginx.", 0, NULL },

    { "llm_requests_total", "counter", "routes", "outcomes",
      { "route", "outcome" }, NULL,
      "Requests that are over, by how they ended.", 0, NULL },

    { "llm_rejections_total", "counter", "routes", "rejections",
      { "route", "reason" }, NULL,
      "Requests that the gate refused, by the code of the error.", 0, NULL },

    { "llm_failovers_total", "counter", "routes", "failovers",
      { "route" }, NULL,
      "Attempts at another provider than the one before.", 0, NULL },

    { "llm_attempts_total", "counter", "providers", "successful_calls",
      { "provider", "outcome" }, "success",
      "Calls to a provider that have their verdict.", 0, NULL },

    { "llm_attempts_total", "counter", "providers", "failed_calls",
      { "provider", "outcome" }, "failure", NULL, 0, NULL },

    { "llm_attempts_total", "counter", "providers", "throttled_calls",
      { "provider", "outcome" }, "throttled", NULL, 0, NULL },

    { "llm_attempts_total", "counter", "providers", "neutral_calls",
      { "provider", "outcome" }, "neutral", NULL, 0, NULL },

    { "llm_in_flight", "gauge", "providers", "in_flight",
      { "provider" }, NULL,
      "Calls to a provider that have no verdict yet.", 0, NULL },

    { "llm_stream_failures_total", "counter", "providers", "stream_errors",
      { "provider" }, NULL,
      "Answers that broke off, stalled or had an error event after their "
      "commit.", 0, NULL },

    { "llm_circuit_state", "gauge", "providers", "state",
      { "provider", "state" }, "closed",
      "1 for the state that the circuit is in.", 0, NULL },

    { "llm_circuit_state", "gauge", "providers", "state",
      { "provider", "state" }, "open", NULL, 0, NULL },

    { "llm_circuit_state", "gauge", "providers", "state",
      { "provider", "state" }, "half_open", NULL, 0, NULL },

    { "llm_circuit_transitions_total", "counter", "providers", "moves",
      { "provider", "from", "to" }, NULL,
      "Changes of a circuit's state.", 0, NULL },

    { "llm_circuit_open_remaining_seconds", "gauge", "providers",
      "time_until_retry",
      { "provider" }, NULL,
      "Time until an open circuit lets a request probe.", 0, NULL },

    { "llm_attempt_duration_seconds", "histogram", "providers", NULL,
      { "provider" }, NULL,
      "Time from sending a call to the end of its good answer.",
      offsetof(ngx_http_llm_times_t, duration), llm_histogram_durations },

    { "llm_first_token_seconds", "histogram", "providers", NULL,
      { "provider" }, NULL,
      "Time from sending a call to the first token of its stream.",
      offsetof(ngx_http_llm_times_t, first_token),
      llm_histogram_first_tokens },

    { "llm_tokens_total", "counter", "providers", "tokens",
      { "provider", "type" }, NULL,
      "Tokens that the answers took.", 0, NULL },

    { "llm_cost_usd_total", "counter", "providers", "cost",
      { "provider" }, NULL,
      "What the answers cost, in USD.", 0, NULL },

    { NULL, NULL, NULL, NULL, { NULL }, NULL, NULL, 0, NULL }
};


ngx_int_t
ngx_http_llm_prometheus(ngx_http_llm_main_conf_t *mcf, json_t *tree,
    ngx_http_llm_text_t *text)
{
    size_t                     i;
    json_t                    *entry;
    ngx_int_t                  rc;
    ngx_http_llm_sample_t      sample;
    ngx_http_llm_provider_t  **providerp;

    sample.text = text;
    providerp = mcf->providers.elts;

    for (sample.metric = ngx_http_llm_metrics;
         sample.metric->name;
         sample.metric++)
    {
        rc = ngx_http_llm_prometheus_head(text, sample.metric);

        if (rc != NGX_OK) {
            return rc;
        }

        if (sample.metric->list == NULL) {

            rc = ngx_http_llm_prometheus_info(&sample, tree);

            if (rc != NGX_OK) {
                return rc;
            }

            continue;
        }

        json_array_foreach(json_object_get(tree, sample.metric->list), i,
                           entry)
        {
            sample.values[0] = json_string_value(json_object_get(entry,
                                                                 "name"));
            sample.nvalues = 1;

            if (sample.metric->value) {
                sample.values[sample.nvalues++] = sample.metric->value;
            }

            if (sample.metric->path == NULL) {
                rc = ngx_http_llm_prometheus_histogram(&sample,
                                               providerp[i]->record->times);

            } else {
                rc = ngx_http_llm_prometheus_value(&sample,
                                       json_object_get(entry,
                                                       sample.metric->path));
            }

            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    return NGX_OK;
}


/* Only the first row of a metric has a text. */

static ngx_int_t
ngx_http_llm_prometheus_head(ngx_http_llm_text_t *text,
    ngx_http_llm_metric_t *metric)
{
    ngx_uint_t   i;
    const char  *words[] = {
        "# HELP ", metric->name, " ", metric->help,
        "\n# TYPE ", metric->name, " ", metric->type, "\n"
    };

    if (metric->help == NULL) {
        return NGX_OK;
    }

    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (ngx_http_llm_prometheus_put(text, words[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_prometheus_info(ngx_http_llm_sample_t *sample, json_t *tree)
{
    sample->values[0] = json_string_value(json_object_get(tree, "module"));
    sample->values[1] = json_string_value(json_object_get(tree, "nginx"));
    sample->nvalues = 2;

    return ngx_http_llm_prometheus_sample(sample, "", NULL, "1");
}


static ngx_int_t
ngx_http_llm_prometheus_value(ngx_http_llm_sample_t *sample, json_t *value)
{
    char         number[NGX_HTTP_LLM_NUMBER_LEN];
    json_t      *member;
    ngx_int_t    rc;
    const char  *name;

    if (json_is_integer(value)) {
        ngx_http_llm_prometheus_count(number, json_integer_value(value));
        return ngx_http_llm_prometheus_sample(sample, "", NULL, number);
    }

    if (json_is_real(value)) {

        /* as many digits as the JSON has */

        (void) snprintf(number, sizeof(number), "%.15g",
                        json_real_value(value));
        return ngx_http_llm_prometheus_sample(sample, "", NULL, number);
    }

    if (json_is_string(value)) {
        name = json_string_value(value);

        return ngx_http_llm_prometheus_sample(sample, "", NULL,
                              ngx_strcmp(name, sample->metric->value) == 0
                              ? "1" : "0");
    }

    json_object_foreach(value, name, member) {

        sample->values[sample->nvalues++] = name;

        rc = ngx_http_llm_prometheus_value(sample, member);

        if (rc != NGX_OK) {
            return rc;
        }

        sample->nvalues--;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_prometheus_histogram(ngx_http_llm_sample_t *sample,
    ngx_http_llm_times_t *times)
{
    char              le[NGX_HTTP_LLM_NUMBER_LEN];
    char              number[NGX_HTTP_LLM_NUMBER_LEN];
    const uint32_t   *edge;
    llm_histogram_t  *h;

    h = (llm_histogram_t *) ((u_char *) times + sample->metric->offset);

    /* read in this order, no count is below one before */

    for (edge = sample->metric->edges; *edge; edge++) {

        ngx_http_llm_prometheus_seconds(le, *edge);
        ngx_http_llm_prometheus_count(number, llm_histogram_below(h, *edge));

        if (ngx_http_llm_prometheus_sample(sample, "_bucket", le, number)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    ngx_http_llm_prometheus_seconds(le, llm_histogram_sum(h));
    ngx_http_llm_prometheus_count(number, llm_histogram_total(h));

    if (ngx_http_llm_prometheus_sample(sample, "_bucket", "+Inf", number)
        != NGX_OK
        || ngx_http_llm_prometheus_sample(sample, "_sum", NULL, le) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_prometheus_sample(sample, "_count", NULL, number);
}


static ngx_int_t
ngx_http_llm_prometheus_sample(ngx_http_llm_sample_t *sample,
    const char *suffix, const char *le, const char *number)
{
    ngx_uint_t            i;
    ngx_http_llm_text_t  *text;

    text = sample->text;

    if (ngx_http_llm_prometheus_put(text, sample->metric->name) != NGX_OK
        || ngx_http_llm_prometheus_put(text, suffix) != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < sample->nvalues; i++) {
        if (ngx_http_llm_prometheus_label(text, i == 0,
                                          sample->metric->labels[i],
                                          sample->values[i])
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (le && ngx_http_llm_prometheus_label(text, 0, "le", le) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_prometheus_put(text, "} ") != NGX_OK
        || ngx_http_llm_prometheus_put(text, number) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_prometheus_put(text, "\n");
}


static ngx_int_t
ngx_http_llm_prometheus_label(ngx_http_llm_text_t *text, ngx_uint_t first,
    const char *name, const char *value)
{
    size_t  n;

    if (ngx_http_llm_prometheus_put(text, first ? "{" : ",") != NGX_OK
        || ngx_http_llm_prometheus_put(text, name) != NGX_OK
        || ngx_http_llm_prometheus_put(text, "=\"") != NGX_OK)
    {
        return NGX_ERROR;
    }

    for ( ;; ) {

        n = strcspn(value, "\\\"\n");

        if (ngx_http_llm_text(text, value, n) != NGX_OK) {
            return NGX_ERROR;
        }

        value += n;

        if (*value == '\0') {
            return ngx_http_llm_prometheus_put(text, "\"");
        }

        if (ngx_http_llm_prometheus_put(text, *value == '\\' ? "\\\\"
                                              : *value == '"' ? "\\\"" : "\\n")
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        value++;
    }
}


static ngx_int_t
ngx_http_llm_prometheus_put(ngx_http_llm_text_t *text, const char *s)
{
    return ngx_http_llm_text(text, s, ngx_strlen(s));
}


static void
ngx_http_llm_prometheus_count(char *p, uint64_t n)
{
    *ngx_sprintf((u_char *) p, "%uL", n) = '\0';
}


/* without zeroes at the end */

static void
ngx_http_llm_prometheus_seconds(char *p, uint64_t us)
{
    u_char  *last;

    last = ngx_sprintf((u_char *) p, "%uL.%06uL", us / 1000000, us % 1000000);

    while (last[-1] == '0') {
        last--;
    }

    if (last[-1] == '.') {
        last--;
    }

    *last = '\0';
}
