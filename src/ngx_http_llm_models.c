
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_ctx.h"
#include "ngx_http_llm_error.h"
#include "ngx_http_llm_pages.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_route.h"
#include "ngx_http_llm_tree.h"

#include <jansson.h>


/*
 * llm_models: the models of a route, as the configuration names them, in the
 * shape of OpenAI's API, or of Anthropic's where the caller says which version
 * of that it speaks.  No provider is asked.
 */


static json_t *ngx_http_llm_models_list(ngx_http_llm_route_t *route,
    ngx_uint_t anthropic);
static json_t *ngx_http_llm_models_one(ngx_http_llm_route_t *route,
    ngx_str_t *name, ngx_uint_t anthropic);
static json_t *ngx_http_llm_models_json(ngx_http_llm_provider_t *provider,
    ngx_str_t *name, ngx_uint_t anthropic);
static ngx_int_t ngx_http_llm_models_unknown(ngx_http_request_t *r,
    ngx_str_t *name);


/* llm_models ROUTE */

char *
ngx_http_llm_models(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    char  *rv;

    if (llcf->models) {
        return "is duplicate";
    }

    rv = ngx_http_llm_pages_answer(cf, llcf, ngx_http_llm_models_handler);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    rv = ngx_http_llm_add_pass(cf, llcf);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    llcf->models = 1;

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_llm_models_handler(ngx_http_request_t *r)
{
    u_char                   *p, *last;
    json_t                   *json;
    ngx_int_t                 rc;
    ngx_str_t                 name;
    ngx_uint_t                anthropic;
    ngx_http_llm_route_t     *route;
    ngx_http_llm_loc_conf_t  *llcf;

    rc = ngx_http_llm_pages_get(r);

    if (rc != NGX_OK) {
        return rc;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    route = ngx_http_llm_eval_route(r, llcf);
    if (route == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    anthropic = ngx_http_llm_speaks_anthropic(r);

    /* a name may hold slashes, and "/models/" */

    last = r->uri.data + r->uri.len;

    p = ngx_strnstr(r->uri.data, "/models/", r->uri.len);

    name.data = p ? p + sizeof("/models/") - 1 : last;
    name.len = last - name.data;

    if (name.len == 0) {
        json = ngx_http_llm_models_list(route, anthropic);

    } else {
        json = ngx_http_llm_models_one(route, &name, anthropic);

        if (json == NULL) {
            return ngx_http_llm_models_unknown(r, &name);
        }
    }

    return ngx_http_llm_pages_send(r, NGX_HTTP_OK, json);
}


/* Each model once: the first provider that names it owns it. */

static json_t *
ngx_http_llm_models_list(ngx_http_llm_route_t *route, ngx_uint_t anthropic)
{
    json_t                   *o, *list, *known, *model;
    ngx_uint_t                i, n;
    const char               *id;
    ngx_http_llm_use_t       *use;
    ngx_http_llm_model_t     *models;
    ngx_http_llm_provider_t  *provider;

    list = json_array();
    known = json_object();

    use = route->uses.elts;

    for (i = 0; i < route->uses.nelts; i++) {

        provider = use[i].provider;
        models = provider->models.elts;

        for (n = 0; n < provider->models.nelts; n++) {

            model = ngx_http_llm_models_json(provider, &models[n].name,
                                             anthropic);

            id = json_string_value(json_object_get(model, "id"));

            if (id && json_object_get(known, id) == NULL) {
                json_object_set_new(known, id, json_true());
                json_array_append(list, model);
            }

            json_decref(model);
        }
    }

    json_decref(known);

    o = json_object();

    if (anthropic) {
        n = json_array_size(list);

        json_object_set(o, "first_id", json_object_get(json_array_get(list, 0),
                                                       "id"));
        json_object_set(o, "last_id",
                        json_object_get(json_array_get(list, n - 1), "id"));

        if (n == 0) {
            json_object_set_new(o, "first_id", json_null());
            json_object_set_new(o, "last_id", json_null());
        }

        json_object_set_new(o, "has_more", json_false());

    } else {
        json_object_set_new(o, "object", json_string("list"));
    }

    json_object_set_new(o, "data", list);

    return o;
}


/* NULL: no provider of the route names it. */

static json_t *
ngx_http_llm_models_one(ngx_http_llm_route_t *route, ngx_str_t *name,
    ngx_uint_t anthropic)
{
    ngx_uint_t                i, n;
    ngx_http_llm_use_t       *use;
    ngx_http_llm_model_t     *models;
    ngx_http_llm_provider_t  *provider;

    use = route->uses.elts;

    for (i = 0; i < route->uses.nelts; i++) {

        provider = use[i].provider;
        models = provider->models.elts;

        for (n = 0; n < provider->models.nelts; n++) {

            if (models[n].name.len == name->len
                && ngx_memcmp(models[n].name.data, name->data, name->len) == 0)
            {
                return ngx_http_llm_models_json(provider, name, anthropic);
            }
        }
    }

    return NULL;
}


/*
 * NULL: the name is no UTF-8, and JSON can not tell it.  When a model was
 * made is not known here; clients of both want to be told something.
 */

static json_t *
ngx_http_llm_models_json(ngx_http_llm_provider_t *provider, ngx_str_t *name,
    ngx_uint_t anthropic)
{
    json_t  *o, *id, *owner;

    id = json_stringn((char *) name->data, name->len);

    if (id == NULL) {
        return NULL;
    }

    o = json_object();

    json_object_set_new(o, "id", id);

    if (anthropic) {
        json_object_set_new(o, "type", json_string("model"));
        json_object_set(o, "display_name", id);
        json_object_set_new(o, "created_at",
                            json_string("1970-01-01T00:00:00Z"));
        return o;
    }

    owner = json_stringn((char *) provider->name.data, provider->name.len);

    json_object_set_new(o, "object", json_string("model"));
    json_object_set_new(o, "created", json_integer(0));
    json_object_set_new(o, "owned_by", owner ? owner : json_string(""));

    return o;
}


static ngx_int_t
ngx_http_llm_models_unknown(ngx_http_request_t *r, ngx_str_t *name)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_ctx_t));
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->request = r;
    ctx->model = *name;
    ctx->filter_only = 1;

    ngx_http_set_ctx(r, ctx, ngx_http_llm_module);

    return ngx_http_llm_no_model(r, ctx);
}
