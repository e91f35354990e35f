
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_describe.h"
#include "ngx_http_llm_metrics.h"
#include "ngx_http_llm_provider.h"


/*
 * The page for Prometheus, text format 0.0.4: the table of metrics says where
 * in the trees of ngx_http_llm_describe.c each of them stands.  What stands
 * there says how it is shown:
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


typedef struct {
    const char                   *list;
    ngx_http_llm_text_t          *texts;          /* by metric */
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

    texts->texts = ngx_pcalloc(page->text.pool, ngx_http_llm_nmetrics
                                                * sizeof(ngx_http_llm_text_t));
    if (texts->texts == NULL) {
        return NGX_ERROR;
    }

    page->data = texts;

    for (i = 0; i < ngx_http_llm_nmetrics; i++) {

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

    for (i = 0; i < ngx_http_llm_nmetrics; i++) {

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

    for (i = 0; i < ngx_http_llm_nmetrics; i++) {
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
