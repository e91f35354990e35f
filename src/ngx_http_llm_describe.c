
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_alert.h"
#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_describe.h"
#include "ngx_http_llm_slot.h"


/*
 * What the circuits and counters say, as trees, whatever format they are
 * shown in.  Reading changes nothing, and takes no lock that a request could
 * wait for.
 */


/* changes of state on a page, of all providers together */

#define NGX_HTTP_LLM_DESCRIBE_CHANGES  2048

#define NGX_HTTP_LLM_DESCRIBE_POOL     16384


/* a list of the page: an array of pointers in the configuration */

typedef struct {
    const char  *name;
    size_t       offset;
    json_t    *(*describe)(ngx_http_llm_main_conf_t *mcf, void *entry,
                     ngx_uint_t changes);
} ngx_http_llm_description_t;


static ngx_int_t ngx_http_llm_describe_all(ngx_http_llm_page_t *page,
    ngx_http_llm_format_t *format, ngx_pool_t *pool, ngx_uint_t changes);
static json_t *ngx_http_llm_describe_head(ngx_http_llm_main_conf_t *mcf);
static json_t *ngx_http_llm_describe_zone(ngx_http_llm_main_conf_t *mcf);
static json_t *ngx_http_llm_describe_file(ngx_http_llm_main_conf_t *mcf);


/* Each piece's memory is free again when the next one is made. */

ngx_int_t
ngx_http_llm_describe(ngx_http_llm_page_t *page,
    ngx_http_llm_format_t *format, ngx_uint_t changes)
{
    ngx_int_t    rc;
    ngx_pool_t  *pool;

    pool = ngx_create_pool(NGX_HTTP_LLM_DESCRIBE_POOL, page->text.pool->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    ngx_http_llm_tree_begin(pool);

    rc = ngx_http_llm_describe_all(page, format, pool, changes);

    if (ngx_http_llm_tree_end() != NGX_OK) {
        rc = NGX_ERROR;
    }

    ngx_destroy_pool(pool);

    return rc;
}


static ngx_int_t
ngx_http_llm_describe_all(ngx_http_llm_page_t *page,
    ngx_http_llm_format_t *format, ngx_pool_t *pool, ngx_uint_t changes)
{
    ngx_uint_t                   i, n;
    ngx_array_t                 *array;
    ngx_http_llm_description_t  *list;

    static ngx_http_llm_description_t  lists[] = {
        { "providers", offsetof(ngx_http_llm_main_conf_t, providers),
          ngx_http_llm_describe_provider },
        { "routes", offsetof(ngx_http_llm_main_conf_t, routes),
          ngx_http_llm_describe_route },
        { "alerts", offsetof(ngx_http_llm_main_conf_t, receivers),
          ngx_http_llm_alert_describe }
    };

    if (format->head(page, ngx_http_llm_describe_head(page->mcf)) != NGX_OK) {
        return NGX_ERROR;
    }

    changes = ngx_http_llm_describe_most(page->mcf, changes);

    for (n = 0; n < sizeof(lists) / sizeof(lists[0]); n++) {

        list = &lists[n];
        array = (ngx_array_t *) ((char *) page->mcf + list->offset);

        if (format->list(page, list->name) != NGX_OK) {
            return NGX_ERROR;
        }

        for (i = 0; i < array->nelts; i++) {

            ngx_reset_pool(pool);

            if (format->entry(page, i,
                              list->describe(page->mcf,
                                             ((void **) array->elts)[i],
                                             changes))
                != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }

    if (ngx_http_llm_describe_observed(page, format, pool, changes) != NGX_OK) {
        return NGX_ERROR;
    }

    return format->end(page);
}


/* How many changes of state of each are told, where all are on one page. */

ngx_uint_t
ngx_http_llm_describe_most(ngx_http_llm_main_conf_t *mcf, ngx_uint_t changes)
{
    return ngx_min(changes, NGX_HTTP_LLM_DESCRIBE_CHANGES
                            / ngx_max(mcf->providers.nelts
                                      + mcf->observed.nelts, 1));
}


static json_t *
ngx_http_llm_describe_head(ngx_http_llm_main_conf_t *mcf)
{
    json_t  *o;

    o = json_object();

    ngx_http_llm_set(o, "module", json_string(NGX_HTTP_LLM_VERSION));
    ngx_http_llm_set(o, "nginx", json_string(NGINX_VERSION));
    ngx_http_llm_set(o, "time",
                     ngx_http_llm_tree_time(ngx_http_llm_wall_clock()));
    ngx_http_llm_set(o, "zone", ngx_http_llm_describe_zone(mcf));

    return o;
}


static json_t *
ngx_http_llm_describe_zone(ngx_http_llm_main_conf_t *mcf)
{
    json_t           *o;
    ngx_shm_t        *shm;
    ngx_slab_pool_t  *shpool;

    shm = &mcf->shm_zone->shm;
    shpool = (ngx_slab_pool_t *) shm->addr;

    o = json_object();

    ngx_http_llm_set(o, "name", ngx_http_llm_tree_string(&shm->name));
    ngx_http_llm_set(o, "size", json_integer(shm->size));
    ngx_http_llm_set(o, "used", json_integer(shm->size - shpool->pfree
                     * ngx_pagesize));
    ngx_http_llm_set(o, "state", ngx_http_llm_describe_file(mcf));

    return o;
}


static json_t *
ngx_http_llm_describe_file(ngx_http_llm_main_conf_t *mcf)
{
    json_t     *o;
    uint64_t    now, current;
    ngx_err_t   err;

    if (mcf->state.len == 0) {
        return json_null();
    }

    err = mcf->sh->state.error;
    current = mcf->sh->state.current;
    now = ngx_http_llm_wall_clock();

    o = json_object();

    ngx_http_llm_set(o, "written",
                     ngx_http_llm_tree_time(mcf->sh->state.written));
    ngx_http_llm_set(o, "age",
                     current ? ngx_http_llm_tree_seconds(now - ngx_min(now,
                                                                     current))
                             : json_null());
    ngx_http_llm_set(o, "failures", json_integer(mcf->sh->state.failures));
    ngx_http_llm_set(o, "error",
                     err ? json_string(strerror(err)) : json_null());

    return o;
}
