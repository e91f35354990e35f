
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_file.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_state.h"


/*
 * The state file: what circuits and counters were when nginx ended.
 *
 * It is read once, by the master when nginx starts, and written by whoever
 * may take his time: nginx's cache manager, a helper process that the master
 * starts anew where it dies, and by the master when nginx ends.  So no
 * request ever waits for a disk.  A process without a master writes itself.
 *
 * Two nginx may have the same file: the old and the new one, while a binary
 * is upgraded.  Each has a number, the later one the larger, and the file
 * says whose it is: it is left to a larger number as long as its process
 * lives.
 */


#define NGX_HTTP_LLM_STATE_TICK      1000                   /* ms */
#define NGX_HTTP_LLM_STATE_INTERVAL  5000                   /* ms */

#define NGX_HTTP_LLM_STATE_HEAD      512
#define NGX_HTTP_LLM_STATE_SIZE      65536
#define NGX_HTTP_LLM_STATE_SIZE_MAX  (256 * 1024 * 1024)

#define NGX_HTTP_LLM_STATE_BROKEN    ".broken"


/* what this process has written, and what it has said */

typedef struct {
    ngx_event_t                   event;
    ngx_msec_t                    written;        /* the last look */
    uint64_t                      moves;          /* of circuits, by then */
    uint32_t                      crc;            /* of the records */
    size_t                        size;           /* of the text */
    ngx_err_t                     err;            /* that was logged */
    unsigned                      started:1;
    unsigned                      failing:1;
    unsigned                      left:1;         /* to another nginx */
} ngx_http_llm_writer_t;


static ngx_msec_t ngx_http_llm_state_manager(void *data);
static void ngx_http_llm_state_handler(ngx_event_t *ev);
static uint64_t ngx_http_llm_state_moves(ngx_http_llm_main_conf_t *mcf);
static ngx_int_t ngx_http_llm_state_directory(ngx_http_llm_main_conf_t *mcf,
    ngx_log_t *log);
static ngx_uint_t ngx_http_llm_state_lease(ngx_http_llm_main_conf_t *mcf);
static void ngx_http_llm_state_write(ngx_http_llm_main_conf_t *mcf,
    ngx_log_t *log, ngx_uint_t always);
static u_char *ngx_http_llm_state_text(ngx_http_llm_main_conf_t *mcf,
    llm_state_text_t *t, uint32_t *crc, ngx_log_t *log);
static ngx_int_t ngx_http_llm_state_own(ngx_http_llm_main_conf_t *mcf,
    ngx_log_t *log, ngx_uint_t *mine);
static void ngx_http_llm_state_failed(ngx_http_llm_main_conf_t *mcf,
    ngx_log_t *log, ngx_http_llm_file_error_t *error);
static void ngx_http_llm_state_name(ngx_http_llm_main_conf_t *mcf,
    u_char *name, uint64_t owner);

static void ngx_http_llm_state_take(ngx_http_llm_main_conf_t *mcf,
    u_char *text, size_t len, ngx_log_t *log);
static void ngx_http_llm_state_aside(ngx_http_llm_main_conf_t *mcf,
    ngx_log_t *log);


static ngx_http_llm_writer_t  ngx_http_llm_writer;


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


/*
 * nginx calls those who have a path in its cache manager.  Only the hook is
 * wanted: as a path of ours nginx would make the directory the workers' own,
 * whatever else is in there.  So the name is that of a path that it has to
 * see to anyway.
 */

ngx_int_t
ngx_http_llm_state_init(ngx_conf_t *cf, ngx_http_llm_main_conf_t *mcf)
{
    ngx_path_t  *path, **paths, **p;

    if (mcf->state.len == 0 || cf->cycle->paths.nelts == 0) {
        return NGX_OK;
    }

    path = ngx_pcalloc(cf->pool, sizeof(ngx_path_t));
    if (path == NULL) {
        return NGX_ERROR;
    }

    p = ngx_array_push(&cf->cycle->paths);
    if (p == NULL) {
        return NGX_ERROR;
    }

    paths = cf->cycle->paths.elts;

    path->name = paths[0]->name;
    path->manager = ngx_http_llm_state_manager;
    path->data = mcf;
    path->conf_file = cf->conf_file->file.name.data;
    path->line = cf->conf_file->line;

    *p = path;

    return NGX_OK;
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


static ngx_msec_t
ngx_http_llm_state_manager(void *data)
{
    ngx_http_llm_main_conf_t *mcf = data;

    uint64_t                moves;
    ngx_uint_t              always;
    ngx_http_llm_writer_t  *writer;

    writer = &ngx_http_llm_writer;

    moves = ngx_http_llm_state_moves(mcf);
    always = !writer->started || moves != writer->moves;

    if (always
        || ngx_current_msec - writer->written >= NGX_HTTP_LLM_STATE_INTERVAL)
    {
        writer->started = 1;
        writer->moves = moves;
        writer->written = ngx_current_msec;

        ngx_http_llm_state_write(mcf, ngx_cycle->log, always);
    }

    return NGX_HTTP_LLM_STATE_TICK;
}


/* A process without a master has no cache manager. */

void
ngx_http_llm_state_start(ngx_cycle_t *cycle, ngx_http_llm_main_conf_t *mcf)
{
    ngx_event_t  *ev;

    static ngx_connection_t  dumb;

    if (mcf->state.len == 0 || ngx_process != NGX_PROCESS_SINGLE) {
        return;
    }

    dumb.fd = (ngx_socket_t) -1;
    dumb.read = (ngx_event_t *) mcf;

    ev = &ngx_http_llm_writer.event;

    ev->handler = ngx_http_llm_state_handler;
    ev->data = &dumb;
    ev->log = cycle->log;
    ev->cancelable = 1;

    ngx_add_timer(ev, 1);
}


static void
ngx_http_llm_state_handler(ngx_event_t *ev)
{
    ngx_connection_t  *dumb;

    dumb = ev->data;

    ngx_add_timer(ev, ngx_http_llm_state_manager(dumb->read));
}


/* nginx ends: all workers have, or there are none. */

void
ngx_http_llm_state_end(ngx_cycle_t *cycle, ngx_http_llm_main_conf_t *mcf)
{
    if (mcf->state.len) {
        ngx_time_update();
        ngx_http_llm_state_write(mcf, cycle->log, 1);
    }
}


/* Changes when a circuit moves, or is told to. */

static uint64_t
ngx_http_llm_state_moves(ngx_http_llm_main_conf_t *mcf)
{
    uint64_t                   moves;
    ngx_uint_t                 i;
    ngx_http_llm_record_t     *record;
    ngx_http_llm_provider_t  **providerp;

    moves = 0;
    providerp = mcf->providers.elts;

    for (i = 0; i < mcf->providers.nelts; i++) {
        record = providerp[i]->record;

        moves = moves * 31 + record->history.next;
        moves = moves * 31 + record->circuit.throttle;
        moves = moves * 31 + record->circuit.until;
    }

    return moves;
}


/* One process at a time; who holds it and is dead, holds it no more. */

static ngx_uint_t
ngx_http_llm_state_lease(ngx_http_llm_main_conf_t *mcf)
{
    ngx_atomic_t       *writer;
    ngx_atomic_uint_t   pid;

    writer = &mcf->sh->state.writer;
    pid = *writer;

    if (pid && (ngx_pid_t) pid != ngx_pid
        && (kill((ngx_pid_t) pid, 0) == 0 || ngx_errno != ESRCH))
    {
        return 0;
    }

    return ngx_atomic_cmp_set(writer, pid, (ngx_atomic_uint_t) ngx_pid);
}


static void
ngx_http_llm_state_write(ngx_http_llm_main_conf_t *mcf, ngx_log_t *log,
    ngx_uint_t always)
{
    u_char                     *buf, name[NGX_MAX_PATH];
    uint32_t                    crc;
    ngx_uint_t                  mine;
    llm_state_text_t            text;
    ngx_http_llm_writer_t      *writer;
    ngx_http_llm_file_error_t   error;

    writer = &ngx_http_llm_writer;

    if (!ngx_http_llm_state_lease(mcf)) {
        writer->started = 0;
        return;
    }

    buf = NULL;

    if (ngx_http_llm_state_own(mcf, log, &mine) != NGX_OK) {
        goto done;
    }

    buf = ngx_http_llm_state_text(mcf, &text, &crc, log);
    if (buf == NULL) {
        goto done;
    }

    if (mine && !always && !writer->failing && crc == writer->crc) {
        goto done;
    }

    ngx_http_llm_state_name(mcf, name, mcf->sh->state.owner);

    if (ngx_http_llm_file_replace(&mcf->state, name, text.start, text.p, &error)
        != NGX_OK)
    {
        ngx_http_llm_state_failed(mcf, log, &error);
        goto done;
    }

    if (writer->failing) {
        ngx_log_error(NGX_LOG_NOTICE, log, 0,
                      "llm: state file \"%s\" is written again",
                      mcf->state.data);
    }

    writer->failing = 0;
    writer->crc = crc;

    mcf->sh->state.error = 0;
    mcf->sh->state.written = ngx_http_llm_wall_clock();

done:

    if (buf) {
        ngx_free(buf);
    }

    mcf->sh->state.writer = 0;
}


/* Everything, in memory that the caller frees. */

static u_char *
ngx_http_llm_state_text(ngx_http_llm_main_conf_t *mcf, llm_state_text_t *t,
    uint32_t *crc, ngx_log_t *log)
{
    size_t     size;
    u_char    *buf, *records;
    uint64_t   written, owner[2];

    size = ngx_max(ngx_http_llm_writer.size, NGX_HTTP_LLM_STATE_SIZE);

    written = ngx_http_llm_wall_clock();

    owner[0] = mcf->sh->state.owner;
    owner[1] = (ngx_process == NGX_PROCESS_HELPER) ? ngx_parent : ngx_pid;

    for ( ;; ) {
        buf = ngx_alloc(size, log);
        if (buf == NULL) {
            return NULL;
        }

        llm_state_begin(t, buf, size);
        llm_state_numbers(t, "written", &written, 1);
        llm_state_numbers(t, "owner", owner, 2);

        records = t->p;

        ngx_http_llm_saved_write(mcf, t);

        *crc = ngx_crc32_long(records, t->p - records);

        if (llm_state_end(t)) {
            ngx_http_llm_writer.size = size;
            return buf;
        }

        ngx_free(buf);

        size *= 2;

        if (size > NGX_HTTP_LLM_STATE_SIZE_MAX) {
            return NULL;
        }
    }
}


/* Whether this nginx may write the file; mine: and was the last who did. */

static ngx_int_t
ngx_http_llm_state_own(ngx_http_llm_main_conf_t *mcf, ngx_log_t *log,
    ngx_uint_t *mine)
{
    u_char             head[NGX_HTTP_LLM_STATE_HEAD];
    ssize_t            n;
    ngx_fd_t           fd;
    ngx_pid_t          pid;
    ngx_uint_t         newer;
    llm_state_line_t   line;

    *mine = 0;

    fd = ngx_open_file(mcf->state.data, NGX_FILE_RDONLY,
                       NGX_FILE_OPEN|O_NOFOLLOW|O_NONBLOCK, 0);

    if (fd == NGX_INVALID_FILE) {
        return NGX_OK;
    }

    n = ngx_read_fd(fd, head, sizeof(head));

    (void) ngx_close_file(fd);

    if (n <= 0 || !llm_state_head(head, n, "owner", &line)) {
        return NGX_OK;
    }

    *mine = (line.v[0] == mcf->sh->state.owner);

    pid = (ngx_pid_t) line.v[1];

    newer = line.v[0] > mcf->sh->state.owner && pid > 0
            && (kill(pid, 0) == 0 || ngx_errno != ESRCH);

    if (newer && !ngx_http_llm_writer.left) {
        ngx_log_error(NGX_LOG_NOTICE, log, 0,
                      "llm: state file \"%s\" is written by the nginx of "
                      "process %P from now", mcf->state.data, pid);
    }

    ngx_http_llm_writer.left = newer;

    if (newer) {
        return NGX_DECLINED;
    }

    if (line.v[0] > mcf->sh->state.owner) {

        /* it is gone, and we are still there */

        mcf->sh->state.owner = line.v[0] + 1;
    }

    return NGX_OK;
}


/* Said once, and again when it is something else. */

static void
ngx_http_llm_state_failed(ngx_http_llm_main_conf_t *mcf, ngx_log_t *log,
    ngx_http_llm_file_error_t *error)
{
    const char             *hint;
    ngx_http_llm_writer_t  *writer;

    writer = &ngx_http_llm_writer;

    if (!writer->failing || writer->err != error->err) {

        hint = (error->err == NGX_EACCES)
               ? ", the directory must be writable for the user of the workers"
               : "";

        ngx_log_error(NGX_LOG_ERR, log, error->err,
                      "llm: circuits and counters of zone \"%V\" are not "
                      "saved: %s \"%s\" failed%s",
                      &mcf->shm_zone->shm.name, error->what, mcf->state.data,
                      hint);
    }

    writer->failing = 1;
    writer->err = error->err;

    mcf->sh->state.error = error->err;
}


static void
ngx_http_llm_state_name(ngx_http_llm_main_conf_t *mcf, u_char *name,
    uint64_t owner)
{
    (void) ngx_sprintf(name, "%V.%uL%Z", &mcf->state, owner);
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
    u_char             name[NGX_MAX_PATH];
    uint64_t           now, written, elapsed;
    ngx_uint_t         records, unknown;
    llm_state_rc_t     rc;
    llm_state_line_t   line;

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

    } else if (!llm_state_head(text, len, "written", &line)
               || line.v[0] == 0)
    {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "llm: state file \"%s\" does not say when it was "
                      "written", mcf->state.data);

    } else {
        goto good;
    }

    ngx_http_llm_state_aside(mcf, log);

    return;

good:

    now = ngx_http_llm_wall_clock();
    written = line.v[0];
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
