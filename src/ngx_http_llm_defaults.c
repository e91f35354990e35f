
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_dns.h"
#include "ngx_http_llm_header.h"
#include "ngx_http_llm_provider.h"


/*
 * What llm_pass says to the stock proxy module on the user's behalf.
 *
 * This module stands before ngx_http_upstream_module in the list of modules:
 * its hooks run when the whole configuration is read, but before the proxy
 * module has merged what is inherited.  So it sees which of the stock
 * directives the user has written, here or above, and says the others through
 * the stock modules' own command tables: the user's word always wins.
 */


typedef struct ngx_http_llm_level_s  ngx_http_llm_level_t;

struct ngx_http_llm_level_s {
    void                         *proxy;          /* conf of the level */
    ngx_http_llm_level_t         *parent;
    ngx_array_t                  *user_headers;   /* ngx_keyval_t */
    ngx_uint_t                    ours;           /* not the user's words */
    ngx_uint_t                    gate;
};


typedef struct {
    const char                   *name;
    const char                   *value;
    const char                   *stock;          /* nginx's own */
    unsigned                      tls:1;          /* if an endpoint is https */
    unsigned                      file:1;         /* the value is a path */
} ngx_http_llm_default_t;


typedef struct {
    void                         *pristine;       /* a proxy conf as created */
} ngx_http_llm_defaults_conf_t;


static void *ngx_http_llm_create_level(ngx_conf_t *cf);
static char *ngx_http_llm_defaults_init(ngx_conf_t *cf, void *conf);
static void *ngx_http_llm_create_defaults(ngx_conf_t *cf);
static char *ngx_http_llm_merge_level(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_llm_default_apply(ngx_conf_t *cf,
    ngx_http_llm_level_t *level, ngx_http_llm_default_t *def);
static char *ngx_http_llm_default_say(ngx_conf_t *cf,
    ngx_http_llm_level_t *level, ngx_command_t *cmd, const char *text);
static char *ngx_http_llm_default_headers(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf, ngx_http_llm_level_t *level);
static ngx_array_t *ngx_http_llm_user_headers(ngx_http_llm_level_t *level,
    ngx_command_t *cmd);
static ngx_array_t *ngx_http_llm_join_headers(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *mcf, ngx_array_t *user);
static ngx_keyval_t *ngx_http_llm_find_keyval(ngx_array_t *array,
    ngx_str_t *key);
static ngx_command_t *ngx_http_llm_proxy_command(ngx_conf_t *cf,
    const char *name);


/* the headers that proxy_set_header says at a level, as nginx has them */

#define ngx_http_llm_level_headers(level, cmd)                                \
    ((ngx_array_t **) ((u_char *) (level)->proxy + (cmd)->offset))


/*
 * The timeouts of the proxy module are out of the way of each provider's own.
 * A provider steers its own answer, but nothing inside of nginx.
 */

static ngx_http_llm_default_t  ngx_http_llm_defaults[] = {
#if (nginx_version >= 1029007)
    { "proxy_http_version", "1.1", "1.1", 0, 0 },
#else
    { "proxy_http_version", "1.1", "1.0", 0, 0 },
#endif
    { "proxy_buffering", "off", "on", 0, 0 },
    { "proxy_connect_timeout", "1d", "60s", 0, 0 },
    { "proxy_read_timeout", "1d", "60s", 0, 0 },
    { "proxy_next_upstream",
      "error timeout invalid_header http_429 non_idempotent",
      "error timeout", 0, 0 },
    { "proxy_ignore_headers",
      "X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate "
      "X-Accel-Buffering X-Accel-Charset", "", 0, 0 },
    { "proxy_ssl_server_name", "on", "off", 1, 0 },
    { "proxy_ssl_verify", "on", "off", 1, 0 },
    { "proxy_ssl_verify_depth", "4", "1", 1, 0 },
    { "proxy_ssl_trusted_certificate", NGX_HTTP_LLM_CA_FILE, NULL, 1, 1 },
    { NULL, NULL, NULL, 0, 0 }
};


static ngx_http_module_t  ngx_http_llm_defaults_module_ctx = {
    NULL,                                  /* preconfiguration */
    NULL,                                  /* postconfiguration */

    ngx_http_llm_create_defaults,          /* create main configuration */
    ngx_http_llm_defaults_init,            /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_llm_create_level,             /* create location configuration */
    ngx_http_llm_merge_level               /* merge location configuration */
};


ngx_module_t  ngx_http_llm_defaults_module = {
    NGX_MODULE_V1,
    &ngx_http_llm_defaults_module_ctx,     /* module context */
    NULL,                                  /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/* nginx calls the init hook only of modules that have a conf */

static void *
ngx_http_llm_create_defaults(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_defaults_conf_t));
}


static void *
ngx_http_llm_create_level(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_level_t));
}


/* Runs at http level, first of all hooks behind the parsing. */

static char *
ngx_http_llm_defaults_init(ngx_conf_t *cf, void *conf)
{
    ngx_http_llm_defaults_conf_t *dmcf = conf;

    ngx_http_module_t         *proxy;
    ngx_http_llm_level_t      *level;
    ngx_http_llm_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    if (mcf->shm_zone == NULL) {

        if (mcf->providers.nelts == 0 && mcf->passes.nelts == 0
            && mcf->receivers.nelts == 0 && !mcf->status)
        {
            return NGX_CONF_OK;
        }

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "no \"llm_zone\" at http level: expected, for example, "
                      "\"llm_zone llm:1m;\"");
        return NGX_CONF_ERROR;
    }

    if (ngx_http_llm_governed_init(cf, mcf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    proxy = ngx_http_proxy_module.ctx;

    dmcf->pristine = proxy->create_loc_conf(cf);
    if (dmcf->pristine == NULL) {
        return NGX_CONF_ERROR;
    }

    level = ngx_http_conf_get_module_loc_conf(cf, ngx_http_llm_defaults_module);
    level->proxy = ngx_http_conf_get_module_loc_conf(cf,
                                                     ngx_http_proxy_module);

    if (ngx_http_llm_dns_init(cf, mcf) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    return ngx_http_llm_resolve_names(cf, mcf);
}


static char *
ngx_http_llm_merge_level(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_llm_level_t *prev = parent;
    ngx_http_llm_level_t *level = child;

    char                      *rv;
    ngx_http_llm_default_t    *def;
    ngx_http_llm_loc_conf_t   *llcf;
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_llm_main_conf_t  *mcf;

    llcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_llm_module);
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    level->proxy = ngx_http_conf_get_module_loc_conf(cf,
                                                     ngx_http_proxy_module);
    level->parent = prev;
    level->gate = llcf->gate || (clcf->noname && prev->gate);

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    if (mcf->passes.nelts == 0) {
        return NGX_CONF_OK;
    }

    for (def = ngx_http_llm_defaults; def->name; def++) {

        if (def->tls && !mcf->tls) {
            continue;
        }

        rv = ngx_http_llm_default_apply(cf, level, def);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    return ngx_http_llm_default_headers(cf, mcf, level);
}


/*
 * Says a stock directive at this level, unless the user said it here or
 * above: a field was said if it is not as the proxy module had created it.
 * A location of another kind inside of a gate's has nginx's own default.
 */

static char *
ngx_http_llm_default_apply(ngx_conf_t *cf, ngx_http_llm_level_t *level,
    ngx_http_llm_default_t *def)
{
    ngx_uint_t                    mark, inherited;
    ngx_command_t                *cmd;
    ngx_http_llm_level_t         *l;
    ngx_http_llm_defaults_conf_t *dmcf;

    cmd = ngx_http_llm_proxy_command(cf, def->name);
    if (cmd == NULL) {
        return NGX_CONF_ERROR;
    }

    dmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_llm_defaults_module);

    mark = (ngx_uint_t) 1 << (def - ngx_http_llm_defaults);
    inherited = 0;

    for (l = level; l; l = l->parent) {

        if (l->ours & mark) {
            inherited = 1;
            continue;
        }

        /* a number, flag, time, mask, or a string's length: one word */

        if (ngx_memcmp((u_char *) l->proxy + cmd->offset,
                       (u_char *) dmcf->pristine + cmd->offset,
                       sizeof(ngx_uint_t))
            != 0)
        {
            return NGX_CONF_OK;
        }
    }

    if (!level->gate) {

        if (!inherited || def->stock == NULL) {
            return NGX_CONF_OK;
        }

        level->ours |= mark;

        return ngx_http_llm_default_say(cf, level, cmd, def->stock);
    }

    if (def->file && access(def->value, R_OK) == -1) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, ngx_errno,
                      "no certificates of the system's CAs in \"%s\": expected "
                      "the package ca-certificates, or \"%s\" with a file "
                      "of your own", def->value, def->name);
        return NGX_CONF_ERROR;
    }

    level->ours |= mark;

    return ngx_http_llm_default_say(cf, level, cmd, def->value);
}


static char *
ngx_http_llm_default_say(ngx_conf_t *cf, ngx_http_llm_level_t *level,
    ngx_command_t *cmd, const char *text)
{
    char         *rv;
    u_char       *p, *q, *last;
    ngx_str_t    *value;
    ngx_array_t  *saved, args;

    if (*text == '\0') {

        /* a mask with no bit in it, which no directive can say */

        *(ngx_uint_t *) ((u_char *) level->proxy + cmd->offset)
                                                       = NGX_CONF_BITMASK_SET;
        return NGX_CONF_OK;
    }

    if (ngx_array_init(&args, cf->temp_pool, 8, sizeof(ngx_str_t)) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    value = ngx_array_push(&args);

    *value = cmd->name;

    last = (u_char *) text + ngx_strlen(text);

    for (p = (u_char *) text; p < last; p = q + 1) {

        q = ngx_strlchr(p, last, ' ');
        if (q == NULL) {
            q = last;
        }

        value = ngx_array_push(&args);
        if (value == NULL) {
            return NGX_CONF_ERROR;
        }

        value->len = q - p;
        value->data = ngx_pnalloc(cf->pool, value->len + 1);
        if (value->data == NULL) {
            return NGX_CONF_ERROR;
        }

        (void) ngx_cpystrn(value->data, p, value->len + 1);
    }

    saved = cf->args;
    cf->args = &args;

    rv = cmd->set(cf, cmd, level->proxy);

    cf->args = saved;

    return rv;
}


static ngx_command_t *
ngx_http_llm_proxy_command(ngx_conf_t *cf, const char *name)
{
    ngx_command_t  *cmd;

    for (cmd = ngx_http_proxy_module.commands; cmd->name.len; cmd++) {
        if (ngx_strcmp(cmd->name.data, name) == 0) {
            return cmd;
        }
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "this nginx has no directive \"%s\", "
                  "which \"llm_pass\" needs", name);

    return NULL;
}


/*
 * proxy_set_header replaces all that was said above, so the headers are
 * joined here: the user's first, then ours that the user has not named.
 */

static char *
ngx_http_llm_default_headers(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf,
    ngx_http_llm_level_t *level)
{
    ngx_array_t    *user, **source;
    ngx_command_t  *cmd;

    cmd = ngx_http_llm_proxy_command(cf, "proxy_set_header");
    if (cmd == NULL) {
        return NGX_CONF_ERROR;
    }

    user = ngx_http_llm_user_headers(level, cmd);

    level->user_headers = user;

    source = ngx_http_llm_level_headers(level, cmd);

    if (level->gate) {
        *source = ngx_http_llm_join_headers(cf, mcf, user);

        return *source ? NGX_CONF_OK : NGX_CONF_ERROR;
    }

    /* another kind of location inside of a gate's: as if there was none */

    /* NOLINTNEXTLINE(clang-analyzer-core.*): only http has none */
    if (*source == NGX_CONF_UNSET_PTR && level->parent->gate) {
        *source = user ? user : ngx_array_create(cf->pool, 1,
                                                 sizeof(ngx_keyval_t));

        return *source ? NGX_CONF_OK : NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* What the user said here, or else above; NULL: nothing. */

static ngx_array_t *
ngx_http_llm_user_headers(ngx_http_llm_level_t *level, ngx_command_t *cmd)
{
    ngx_array_t           *user;
    ngx_http_llm_level_t  *l;

    user = *ngx_http_llm_level_headers(level, cmd);

    for (l = level->parent;
         l && (user == NULL || user == NGX_CONF_UNSET_PTR);
         l = l->parent)
    {
        user = l->gate ? l->user_headers : *ngx_http_llm_level_headers(l, cmd);
    }

    return user == NGX_CONF_UNSET_PTR ? NULL : user;
}


/* What the user said, and what providers set; NULL: there is no memory. */

static ngx_array_t *
ngx_http_llm_join_headers(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf,
    ngx_array_t *user)
{
    ngx_uint_t                i, n;
    ngx_array_t              *all;
    ngx_keyval_t             *kv;
    ngx_http_llm_governed_t  *governed;

    n = user ? user->nelts : 0;

    all = ngx_array_create(cf->pool, n + mcf->governed.nelts,
                           sizeof(ngx_keyval_t));
    if (all == NULL) {
        return NULL;
    }

    if (n) {
        kv = ngx_array_push_n(all, n);
        ngx_memcpy(kv, user->elts, n * sizeof(ngx_keyval_t));
    }

    governed = mcf->governed.elts;

    for (i = 0; i < mcf->governed.nelts; i++) {

        kv = ngx_http_llm_find_keyval(all, &governed[i].name);

        if (kv) {

            if (kv->value.len && ngx_http_llm_is_secret_header(&kv->key)) {
                ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                              "\"proxy_set_header %V\" goes to every provider "
                              "of an \"llm_pass\" below it, in the place of "
                              "\"api_key\"", &kv->key);
            }

            continue;
        }

        kv = ngx_array_push(all);
        if (kv == NULL) {
            return NULL;
        }

        kv->key = governed[i].name;
        kv->value = governed[i].variable;
    }

    return all;
}


static ngx_keyval_t *
ngx_http_llm_find_keyval(ngx_array_t *array, ngx_str_t *key)
{
    ngx_uint_t     i;
    ngx_keyval_t  *kv;

    kv = array->elts;

    for (i = 0; i < array->nelts; i++) {
        if (kv[i].key.len == key->len
            && ngx_strncasecmp(kv[i].key.data, key->data, key->len) == 0)
        {
            return &kv[i];
        }
    }

    return NULL;
}
