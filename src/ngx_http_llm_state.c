
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_file.h"
#include "ngx_http_llm_saved.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_state.h"


/*
 * The state file: what circuits and counters were when nginx ended.  It is
 * read once, by the master when nginx starts.
 */


#define NGX_HTTP_LLM_STATE_BROKEN    ".broken"


static ngx_int_t ngx_http_llm_state_directory(ngx_http_llm_main_conf_t *mcf,
    ngx_log_t *log);
static void ngx_http_llm_state_take(ngx_http_llm_main_conf_t *mcf,
    u_char *text, size_t len, ngx_log_t *log);
static ngx_int_t ngx_http_llm_state_check(ngx_http_llm_main_conf_t *mcf,
    u_char *text, size_t len, uint64_t *written, ngx_log_t *log);
static void ngx_http_llm_state_aside(ngx_http_llm_main_conf_t *mcf,
    ngx_log_t *log);


/* llm_zone ... state=FILE */

char *
ngx_http_llm_state(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf,
    ngx_str_t *file)
{
    mcf->state = *file;

    if (file->len == 0 || file->data[file->len - 1] == '/') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"state=%V\" in \"llm_zone\": "
                           "expected the name of a file", file);
        return NGX_CONF_ERROR;
    }

    if (ngx_conf_full_name(cf->cycle, &mcf->state, 0) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (mcf->state.len > NGX_MAX_PATH - 32) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the name in \"state=\" of \"llm_zone\" is too "
                           "long: expected at most %d bytes, with the prefix",
                           NGX_MAX_PATH - 32);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_llm_state_prepare(ngx_http_llm_main_conf_t *mcf, ngx_log_t *log)
{
    ngx_file_info_t  fi;

    if (mcf->state.len == 0) {
        return NGX_OK;
    }

    if (ngx_http_llm_state_directory(mcf, log) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_link_info(mcf->state.data, &fi) == NGX_FILE_ERROR) {

        if (ngx_errno == NGX_ENOENT || ngx_errno == NGX_EACCES) {
            return NGX_OK;
        }

        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      ngx_link_info_n " \"%s\" failed", mcf->state.data);
        return NGX_ERROR;
    }

    if (!ngx_is_file(&fi)) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "\"%s\" in \"llm_zone\" is not a regular file",
                      mcf->state.data);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* It is made, as nginx makes those of temporary files; others' stay. */

static ngx_int_t
ngx_http_llm_state_directory(ngx_http_llm_main_conf_t *mcf, ngx_log_t *log)
{
    u_char            name[NGX_MAX_PATH];
    ngx_file_info_t   fi;
    ngx_core_conf_t  *ccf;

    ngx_http_llm_file_directory(&mcf->state, name);

    if (ngx_create_dir(name, 0700) == NGX_FILE_ERROR) {

        if (ngx_errno != NGX_EEXIST) {
            ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                          ngx_create_dir_n " \"%s\" failed", name);
            return NGX_ERROR;
        }

        if (ngx_file_info(name, &fi) == NGX_FILE_ERROR || !ngx_is_dir(&fi)) {
            ngx_log_error(NGX_LOG_EMERG, log, 0,
                          "\"%s\" in \"llm_zone\" is not a directory", name);
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    ccf = mcf->ccf;

    if (geteuid() != 0 || ccf->user == (ngx_uid_t) NGX_CONF_UNSET_UINT) {
        return NGX_OK;
    }

    if (chown((char *) name, ccf->user, ccf->group) == -1) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "chown(\"%s\", %d) failed", name, ccf->user);
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
ngx_http_llm_state_load(ngx_cycle_t *cycle, ngx_http_llm_main_conf_t *mcf)
{
    u_char   *text;
    ssize_t   len;

    if (mcf->state.len == 0) {
        return;
    }

    mcf->sh->state.owner = ngx_http_llm_wall_clock();
    mcf->sh->state.current = mcf->sh->state.owner;

    len = ngx_http_llm_file_read(&mcf->state, &text,
                                 NGX_HTTP_LLM_STATE_SIZE_MAX, cycle->log);

    if (len == NGX_DECLINED) {
        return;
    }

    if (len == NGX_ERROR) {
        ngx_http_llm_state_aside(mcf, cycle->log);
        return;
    }

    ngx_http_llm_state_take(mcf, text, len, cycle->log);

    ngx_free(text);
}


/* All of it, or nothing. */

static void
ngx_http_llm_state_take(ngx_http_llm_main_conf_t *mcf, u_char *text,
    size_t len, ngx_log_t *log)
{
    u_char            name[NGX_MAX_PATH];
    uint64_t          now, written, elapsed;
    ngx_uint_t        records, unknown;
    llm_state_line_t  line;

    if (ngx_http_llm_state_check(mcf, text, len, &written, log) != NGX_OK) {
        ngx_http_llm_state_aside(mcf, log);
        return;
    }

    now = ngx_http_llm_wall_clock();
    elapsed = now > written ? now - written : 0;

    if (written > now) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "llm: state file \"%s\" is %uLs from the future: its "
                      "circuits stay as long as they had left",
                      mcf->state.data, (written - now + 999) / 1000);
    }

    if (llm_state_head(text, len, "owner", &line)) {

        mcf->sh->state.owner = ngx_max(mcf->sh->state.owner, line.v[0] + 1);

        if (kill((ngx_pid_t) line.v[1], 0) == -1 && ngx_errno == ESRCH) {

            /* what it may have left when it was killed */

            ngx_http_llm_state_name(mcf, name, line.v[0]);
            (void) ngx_delete_file(name);
        }
    }

    ngx_http_llm_saved_restore(mcf, text, len, elapsed, &records, &unknown);

    ngx_log_error(NGX_LOG_NOTICE, log, 0,
                  "llm: circuits and counters of %uL.%03uLs ago are taken "
                  "over from \"%s\": %ui providers and routes; %ui others "
                  "are not configured",
                  elapsed / 1000, elapsed % 1000, mcf->state.data, records,
                  unknown);
}


/* Whether it can be read, and what it says can be; *written: when that was. */

static ngx_int_t
ngx_http_llm_state_check(ngx_http_llm_main_conf_t *mcf, u_char *text,
    size_t len, uint64_t *written, ngx_log_t *log)
{
    llm_state_rc_t    rc;
    llm_state_line_t  line;

    rc = llm_state_check(text, len, &line);

    if (rc == LLM_STATE_SYNTAX) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "llm: state file \"%s\" %s: line %uD",
                      mcf->state.data, llm_state_says(rc), line.number);

    } else if (rc != LLM_STATE_OK) {
        ngx_log_error(NGX_LOG_ERR, log, 0, "llm: state file \"%s\" %s",
                      mcf->state.data, llm_state_says(rc));

    } else if (ngx_http_llm_saved_check(text, len, &line) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "llm: state file \"%s\" has a number that cannot be: "
                      "line %uD", mcf->state.data, line.number);

    } else if (llm_state_head(text, len, "owner", &line)
               && line.v[0] >= NGX_HTTP_LLM_SAVED_MAX)
    {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "llm: state file \"%s\" has an owner that cannot be: "
                      "line %uD", mcf->state.data, line.number);

    } else if (!llm_state_head(text, len, "written", &line)
               || line.v[0] == 0)
    {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "llm: state file \"%s\" does not say when it was "
                      "written", mcf->state.data);

    } else {
        *written = line.v[0];
        return NGX_OK;
    }

    return NGX_ERROR;
}


static void
ngx_http_llm_state_aside(ngx_http_llm_main_conf_t *mcf, ngx_log_t *log)
{
    u_char  name[NGX_MAX_PATH];

    (void) ngx_sprintf(name, "%V" NGX_HTTP_LLM_STATE_BROKEN "%Z", &mcf->state);

    if (ngx_rename_file(mcf->state.data, name) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                      "llm: " ngx_rename_file_n " \"%s\" to \"%s\" failed",
                      mcf->state.data, name);
    }

    ngx_log_error(NGX_LOG_ERR, log, 0,
                  "llm: circuits and counters begin anew; what was in the "
                  "state file is kept in \"%s\"", name);
}
