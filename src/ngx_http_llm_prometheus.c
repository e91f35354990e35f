
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_describe.h"
#include "ngx_http_llm_provider.h"


/*
 * The page for Prometheus, text format 0.0.4: a table says where in the trees
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
 * A metric's samples have to stand together, but providers come one by one:
 * each row of the table has a text of its own.
 *
 * All but the names in the configuration is the gateway's own words, no
 * caller can make a label.
 */


typedef struct {
    const char      *name;
    const char      *type;
    const char      *list;       /* NULL: it is in the page's head */
    const char      *path;       /* NULL: a histogram */
    const char      *labels[4];  /* first the list's: what an entry is */
    const char      *value;      /* of the next label; NULL: by members */
    const char      *help;
    size_t           offset;     /* of the histogram, ... */
    const uint32_t  *edges;      /* ... and its buckets' */
} ngx_http_llm_metric_t;


/* a sample so far: its metric, and its labels as they are written */

typedef struct {
    ngx_http_llm_text_t    *text;
    ngx_http_llm_metric_t  *metric;
    ngx_str_t               values[4];
    ngx_uint_t              nvalues;
} ngx_http_llm_sample_t;


static ngx_int_t ngx_http_llm_prometheus_head(ngx_http_llm_page_t *page,
    json_t *tree);
static ngx_int_t ngx_http_llm_prometheus_help(ngx_http_llm_text_t *text,
    ngx_http_llm_metric_t *metric);
static ngx_int_t ngx_http_llm_prometheus_info(ngx_http_llm_text_t *text,
    json_t *tree);
static ngx_int_t ngx_http_llm_prometheus_list(ngx_http_llm_page_t *page,
    const char *name);
static ngx_int_t ngx_http_llm_prometheus_entry(ngx_http_llm_page_t *page,
    ngx_uint_t n, json_t *tree);
static ngx_int_t ngx_http_llm_prometheus_names(ngx_http_llm_sample_t *sample,
    json_t *tree);
static ngx_int_t ngx_http_llm_prometheus_end(ngx_http_llm_page_t *page);
static json_t *ngx_http_llm_prometheus_find(json_t *tree, const char *path);
static ngx_int_t ngx_http_llm_prometheus_value(ngx_http_llm_sample_t *sample,
    json_t *value);
static ngx_int_t ngx_http_llm_prometheus_histogram(
    ngx_http_llm_sample_t *sample, ngx_http_llm_times_t *times);
static ngx_int_t ngx_http_llm_prometheus_sample(ngx_http_llm_sample_t *sample,
    const char *suffix, ngx_str_t *le, ngx_str_t *number);
static ngx_int_t ngx_http_llm_prometheus_label(ngx_http_llm_sample_t *sample,
    const char *value);


ngx_http_llm_format_t  ngx_http_llm_prometheus_format = {
    ngx_http_llm_prometheus_head,
    ngx_http_llm_prometheus_list,
    ngx_http_llm_prometheus_entry,
    ngx_http_llm_prometheus_end
};


/* the rows of a metric stand together */

static ngx_http_llm_metric_t  ngx_http_llm_metrics[] = {

    { "llm_build_info", "gauge", NULL, NULL,
      { "version", "nginx" }, NULL,
      "Versions of the module and of nginx.", 0, NULL },

    { "llm_state_age_seconds", "gauge", NULL, "zone.state.age",
      { NULL }, NULL,
      "How long ago the state file last held all there was.", 0, NULL },

    { "llm_state_failures_total", "counter", NULL, "zone.state.failures",
      { NULL }, NULL,
      "Times that the state file could not be written.", 0, NULL },

    { "llm_requests_total", "counter", "routes", "outcomes",
      { "route", "outcome" }, NULL,
      "Requests that are over, by how they ended.", 0, NULL },

    { "llm_rejections_total", "counter", "routes", "rejections",
      { "route", "reason" }, NULL,
      "Requests that the gate refused, by the code of the error.", 0, NULL },

    { "llm_failovers_total", "counter", "routes", "failovers_from",
      { "route", "from", "to" }, NULL,
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

    { "llm_alerts_total", "counter", "alerts", "delivered",
      { "receiver", "result" }, "delivered",
      "Events that receivers of alerts were told, or never will be.",
      0, NULL },

    { "llm_alerts_total", "counter", "alerts", "dropped",
      { "receiver", "result" }, "dropped", NULL, 0, NULL },

    { "llm_alert_failures_total", "counter", "alerts", "failures",
      { "receiver" }, NULL,
      "Messages that a receiver of alerts did not take.", 0, NULL },

    { "llm_in_flight", "gauge", "providers", "in_flight",
      { "provider" }, NULL,
      "Calls to a provider that have no verdict yet.", 0, NULL },

    { "llm_stream_failures_total", "counter", "providers", "stream_failures",
      { "provider", "reason" }, NULL,
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

    { "llm_addresses", "gauge", "providers", "addresses",
      { "provider" }, NULL,
      "Addresses of a provider's host; 0 where it is not found.", 0, NULL },

    { "llm_addresses_passed_over", "gauge", "providers", "passed_over",
      { "provider" }, NULL,
      "Of these, those where connecting failed lately.", 0, NULL },

    { "llm_probe_total", "counter", "providers", "probe.total",
      { "provider", "result" }, NULL,
      "Active probes, by what came of them.", 0, NULL },

    { "llm_probe_result", "gauge", "providers", "probe.result",
      { "provider", "result" }, "success",
      "1 for what came of the last active probe.", 0, NULL },

    { "llm_probe_result", "gauge", "providers", "probe.result",
      { "provider", "result" }, "failure", NULL, 0, NULL },

    { "llm_probe_result", "gauge", "providers", "probe.result",
      { "provider", "result" }, "credential", NULL, 0, NULL },

    { "llm_probe_result", "gauge", "providers", "probe.result",
      { "provider", "result" }, "throttle", NULL, 0, NULL },

    { "llm_probe_duration_seconds", "gauge", "providers", "probe.latency",
      { "provider" }, NULL,
      "How long the last active probe took.", 0, NULL },

    { "llm_probe_success_ratio", "gauge", "providers", "probe.success_rate",
      { "provider", "window" }, NULL,
      "Share of good active probes over the last hour and day.", 0, NULL },

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

    { "llm_observed_calls_total", "counter", "observed", "successful_calls",
      { "upstream", "server", "outcome" }, "success",
      "Calls to an observed server, by what a circuit makes of them.", 0,
      NULL },

    { "llm_observed_calls_total", "counter", "observed", "failed_calls",
      { "upstream", "server", "outcome" }, "failure", NULL, 0, NULL },

    { "llm_observed_calls_total", "counter", "observed", "throttled_calls",
      { "upstream", "server", "outcome" }, "throttled", NULL, 0, NULL },

    { "llm_observed_calls_total", "counter", "observed", "neutral_calls",
      { "upstream", "server", "outcome" }, "neutral", NULL, 0, NULL },

    { "llm_observed_rejections_total", "counter", "observed", "would_reject",
      { "upstream", "server" }, NULL,
      "Calls to an observed server that its circuit would have refused.", 0,
      NULL },

    { "llm_observed_good_rejections_total", "counter", "observed",
      "would_reject_good",
      { "upstream", "server" }, NULL,
      "Of these, calls that were good.", 0, NULL },

    { "llm_observed_circuit_state", "gauge", "observed", "state",
      { "upstream", "server", "state" }, "closed",
      "1 for the state that the circuit would be in.", 0, NULL },

    { "llm_observed_circuit_state", "gauge", "observed", "state",
      { "upstream", "server", "state" }, "open", NULL, 0, NULL },

    { "llm_observed_circuit_state", "gauge", "observed", "state",
      { "upstream", "server", "state" }, "half_open", NULL, 0, NULL },

    { "llm_observed_circuit_transitions_total", "counter", "observed", "moves",
      { "upstream", "server", "from", "to" }, NULL,
      "Changes that the circuit's state would have made.", 0, NULL }
};


#define NGX_HTTP_LLM_METRICS                                                  \
    (sizeof(ngx_http_llm_metrics) / sizeof(ngx_http_llm_metric_t))


typedef struct {
    const char                   *list;
    ngx_http_llm_text_t           texts[NGX_HTTP_LLM_METRICS];
} ngx_http_llm_prometheus_t;


static ngx_int_t
ngx_http_llm_prometheus_head(ngx_http_llm_page_t *page, json_t *tree)
{
    ngx_uint_t                  i;
    ngx_http_llm_metric_t      *metric;
    ngx_http_llm_sample_t       sample;
    ngx_http_llm_prometheus_t  *texts;

    texts = ngx_pcalloc(page->text.pool, sizeof(ngx_http_llm_prometheus_t));
    if (texts == NULL) {
        return NGX_ERROR;
    }

    page->data = texts;

    for (i = 0; i < NGX_HTTP_LLM_METRICS; i++) {

        metric = &ngx_http_llm_metrics[i];

        texts->texts[i].pool = page->text.pool;

        if (ngx_http_llm_prometheus_help(&texts->texts[i], metric) != NGX_OK) {
            return NGX_ERROR;
        }

        if (metric->list || metric->path == NULL) {
            continue;
        }

        sample.text = &texts->texts[i];
        sample.metric = metric;
        sample.nvalues = 0;

        if (ngx_http_llm_prometheus_value(&sample,
                                     ngx_http_llm_prometheus_find(tree,
                                                             metric->path))
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    /* the first one */

    return ngx_http_llm_prometheus_info(texts->texts, tree);
}


/* Only the first row of a metric has a text. */

static ngx_int_t
ngx_http_llm_prometheus_help(ngx_http_llm_text_t *text,
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
        if (ngx_http_llm_text(text, words[i], ngx_strlen(words[i])) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_prometheus_info(ngx_http_llm_text_t *text, json_t *tree)
{
    ngx_str_t              one = ngx_string("1");
    const char            *module, *nginx;
    ngx_http_llm_sample_t  sample;

    module = json_string_value(json_object_get(tree, "module"));
    nginx = json_string_value(json_object_get(tree, "nginx"));

    sample.text = text;
    sample.metric = ngx_http_llm_metrics;
    sample.nvalues = 0;

    if (ngx_http_llm_prometheus_label(&sample, module) != NGX_OK
        || ngx_http_llm_prometheus_label(&sample, nginx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_prometheus_sample(&sample, "", NULL, &one);
}


static ngx_int_t
ngx_http_llm_prometheus_list(ngx_http_llm_page_t *page, const char *name)
{
    ngx_http_llm_prometheus_t *texts = page->data;

    texts->list = name;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_prometheus_entry(ngx_http_llm_page_t *page, ngx_uint_t n,
    json_t *tree)
{
    ngx_http_llm_prometheus_t *texts = page->data;

    ngx_int_t                  rc;
    ngx_uint_t                 i;
    ngx_http_llm_metric_t     *metric;
    ngx_http_llm_sample_t      sample;
    ngx_http_llm_provider_t  **providerp;

    providerp = page->mcf->providers.elts;

    for (i = 0; i < NGX_HTTP_LLM_METRICS; i++) {

        metric = &ngx_http_llm_metrics[i];

        if (metric->list == NULL || ngx_strcmp(metric->list, texts->list) != 0)
        {
            continue;
        }

        sample.text = &texts->texts[i];
        sample.metric = metric;
        sample.nvalues = 0;

        if (ngx_http_llm_prometheus_names(&sample, tree) != NGX_OK) {
            return NGX_ERROR;
        }

        if (metric->value
            && ngx_http_llm_prometheus_label(&sample, metric->value) != NGX_OK)
        {
            return NGX_ERROR;
        }

        rc = metric->path
             ? ngx_http_llm_prometheus_value(&sample,
                                        ngx_http_llm_prometheus_find(tree,
                                                             metric->path))
             : ngx_http_llm_prometheus_histogram(&sample,
                                                 providerp[n]->record->times);
        if (rc != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_prometheus_names(ngx_http_llm_sample_t *sample, json_t *tree)
{
    json_t  *upstream, *server;

    upstream = json_object_get(tree, "upstream");
    server = json_object_get(tree, "server");

    if (upstream == NULL) {
        return ngx_http_llm_prometheus_label(sample,
                            json_string_value(json_object_get(tree, "name")));
    }

    if (ngx_http_llm_prometheus_label(sample, json_string_value(upstream))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_prometheus_label(sample, json_string_value(server));
}


static ngx_int_t
ngx_http_llm_prometheus_end(ngx_http_llm_page_t *page)
{
    ngx_http_llm_prometheus_t *texts = page->data;

    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_LLM_METRICS; i++) {
        ngx_http_llm_text_append(&page->text, &texts->texts[i]);
    }

    return NGX_OK;
}


/* a member, or OBJECT.MEMBER, or OBJECT.OBJECT.MEMBER */

static json_t *
ngx_http_llm_prometheus_find(json_t *tree, const char *path)
{
    const char  *dot;

    for ( ;; ) {

        dot = ngx_strchr(path, '.');

        if (dot == NULL) {
            return json_object_get(tree, path);
        }

        tree = json_object_getn(tree, path, dot - path);
        path = dot + 1;
    }
}


static ngx_int_t
ngx_http_llm_prometheus_value(ngx_http_llm_sample_t *sample, json_t *value)
{
    u_char       text[NGX_HTTP_LLM_NUMBER_LEN];
    json_t      *member;
    ngx_str_t    number;
    const char  *name;

    number.data = text;

    switch (value ? json_typeof(value) : JSON_NULL) {

    case JSON_INTEGER:
        number.len = ngx_sprintf(text, "%L",
                                 (int64_t) json_integer_value(value))
                     - text;
        break;

    case JSON_REAL:
        number.len = ngx_http_llm_tree_real(text, json_real_value(value))
                     - text;
        break;

    case JSON_STRING:
        /* NOLINTNEXTLINE(clang-analyzer-core.*): a word has a value */
        text[0] = ngx_strcmp(json_string_value(value), sample->metric->value)
                  == 0 ? '1' : '0';
        number.len = 1;
        break;

    case JSON_OBJECT:

        json_object_foreach(value, name, member) {

            if (ngx_http_llm_prometheus_label(sample, name) != NGX_OK
                || ngx_http_llm_prometheus_value(sample, member) != NGX_OK)
            {
                return NGX_ERROR;
            }

            sample->nvalues--;
        }

        return NGX_OK;

    default:
        return NGX_OK;
    }

    return ngx_http_llm_prometheus_sample(sample, "", NULL, &number);
}


static ngx_int_t
ngx_http_llm_prometheus_histogram(ngx_http_llm_sample_t *sample,
    ngx_http_llm_times_t *times)
{
    u_char                 seconds[NGX_HTTP_LLM_NUMBER_LEN];
    u_char                 count[NGX_HTTP_LLM_NUMBER_LEN];
    ngx_str_t              le, n;
    const uint32_t        *edge;
    llm_histogram_t       *h;
    llm_histogram_view_t   view;

    static ngx_str_t       inf = ngx_string("+Inf");

    h = (llm_histogram_t *) ((u_char *) times + sample->metric->offset);

    llm_histogram_view(h, &view);

    le.data = seconds;
    n.data = count;

    for (edge = sample->metric->edges; *edge; edge++) {

        le.len = ngx_http_llm_tree_millionths(seconds, *edge) - seconds;
        n.len = ngx_sprintf(count, "%uL", llm_histogram_below(&view, *edge))
                - count;

        if (ngx_http_llm_prometheus_sample(sample, "_bucket", &le, &n)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    le.len = ngx_http_llm_tree_millionths(seconds, view.sum) - seconds;
    n.len = ngx_sprintf(count, "%uL", llm_histogram_total(&view)) - count;

    if (ngx_http_llm_prometheus_sample(sample, "_bucket", &inf, &n) != NGX_OK
        || ngx_http_llm_prometheus_sample(sample, "_sum", NULL, &le) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_prometheus_sample(sample, "_count", NULL, &n);
}


/* NAMEsuffix{LABEL="VALUE",LABEL="VALUE",le="LE"} NUMBER */

static ngx_int_t
ngx_http_llm_prometheus_sample(ngx_http_llm_sample_t *sample,
    const char *suffix, ngx_str_t *le, ngx_str_t *number)
{
    size_t                  len;
    u_char                 *p;
    ngx_uint_t              i;
    ngx_http_llm_metric_t  *metric;

    metric = sample->metric;

    len = ngx_strlen(metric->name) + ngx_strlen(suffix) + number->len
          + sizeof("} \n");

    for (i = 0; i < sample->nvalues; i++) {
        len += ngx_strlen(metric->labels[i]) + sample->values[i].len
               + sizeof(",=\"\"");
    }

    if (le) {
        len += le->len + sizeof(",le=\"\"");
    }

    p = ngx_http_llm_text_room(sample->text, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(p, metric->name, ngx_strlen(metric->name));
    p = ngx_cpymem(p, suffix, ngx_strlen(suffix));

    for (i = 0; i < sample->nvalues; i++) {
        *p++ = i ? ',' : '{';
        p = ngx_cpymem(p, metric->labels[i], ngx_strlen(metric->labels[i]));
        *p++ = '=';
        *p++ = '"';
        p = ngx_cpymem(p, sample->values[i].data, sample->values[i].len);
        *p++ = '"';
    }

    if (le) {
        p = ngx_cpymem(p, ",le=\"", sizeof(",le=\"") - 1);
        p = ngx_cpymem(p, le->data, le->len);
        *p++ = '"';
    }

    if (sample->nvalues || le) {
        *p++ = '}';
    }

    *p++ = ' ';
    p = ngx_cpymem(p, number->data, number->len);
    *p++ = '\n';

    sample->text->last->buf->last = p;

    return NGX_OK;
}


/* One more label's value, as it is to be written. */

static ngx_int_t
ngx_http_llm_prometheus_label(ngx_http_llm_sample_t *sample, const char *value)
{
    size_t      n;
    u_char     *p;
    ngx_str_t  *label;

    if (value == NULL) {
        return NGX_ERROR;
    }

    label = &sample->values[sample->nvalues++];

    label->len = ngx_strlen(value);
    label->data = (u_char *) value;

    n = strcspn(value, "\\\"\n");

    if (n == label->len) {
        return NGX_OK;
    }

    p = ngx_pnalloc(sample->text->pool, 2 * label->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    label->data = p;

    for ( /* void */ ; *value; value++) {

        if (*value == '\\' || *value == '"' || *value == '\n') {
            *p++ = '\\';
        }

        *p++ = *value == '\n' ? 'n' : *value;
    }

    label->len = p - label->data;

    return NGX_OK;
}
