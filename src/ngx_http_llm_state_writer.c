
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_conf.h"
#include "ngx_http_llm_file.h"
#include "ngx_http_llm_provider.h"
#include "ngx_http_llm_saved.h"
#include "ngx_http_llm_slot.h"
#include "ngx_http_llm_state.h"


/*
 * The state file is written by whoever may take his time: nginx's cache
 * manager, a helper process that the master starts anew where it dies, and by
 * the master when nginx ends.  So no request ever waits for a disk.  A process
 * without a master writes itself.
 *
 * Two nginx may have the same file: the old and the new one, while a binary
 * is upgraded.  Each has a number, the later one the larger, and the file
 * says whose it is: it is left to a larger number as long as its process
 * lives.
 */


#define NGX_HTTP_LLM_STATE_TICK      1000                   /* ms */
#define NGX_HTTP_LLM_STATE_INTERVAL  5000                   /* ms */
#define NGX_HTTP_LLM_STATE_LEASE     15000                  /* ms; to write */

#define NGX_HTTP_LLM_STATE_HEAD      512
#define NGX_HTTP_LLM_STATE_SIZE      65536


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
static void ngx_http_llm_state_write(ngx_http_llm_main_conf_t *mcf,
    ngx_log_t *log, ngx_uint_t always);
static u_char *ngx_http_llm_state_text(ngx_http_llm_main_conf_t *mcf,
    llm_state_text_t *t, uint32_t *crc, ngx_http_llm_file_error_t *error,
    ngx_log_t *log);
static ngx_int_t ngx_http_llm_state_own(ngx_http_llm_main_conf_t *mcf,
    ngx_log_t *log, ngx_uint_t *mine);
static void ngx_http_llm_state_failed(ngx_http_llm_main_conf_t *mcf,
    ngx_log_t *log, ngx_http_llm_file_error_t *error);


static ngx_http_llm_writer_t  ngx_http_llm_writer;


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

    if (!ngx_http_llm_lease(mcf, &mcf->sh->state.writer,
                            NGX_HTTP_LLM_STATE_LEASE))
    {
        writer->started = 0;
        return;
    }

    buf = NULL;

    if (ngx_http_llm_state_own(mcf, log, &mine) != NGX_OK) {
        goto done;
    }

    buf = ngx_http_llm_state_text(mcf, &text, &crc, &error, log);
    if (buf == NULL) {
        ngx_http_llm_state_failed(mcf, log, &error);
        goto done;
    }

    if (mine && !always && !writer->failing && crc == writer->crc) {
        mcf->sh->state.current = ngx_http_llm_wall_clock();
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
    mcf->sh->state.current = mcf->sh->state.written;

done:

    if (buf) {
        ngx_free(buf);
    }

    ngx_http_llm_lease_leave(&mcf->sh->state.writer);
}


/* Everything, in memory that the caller frees. */

static u_char *
ngx_http_llm_state_text(ngx_http_llm_main_conf_t *mcf, llm_state_text_t *t,
    uint32_t *crc, ngx_http_llm_file_error_t *error, ngx_log_t *log)
{
    size_t     size;
    u_char    *buf, *records;
    uint64_t   written, owner[2];

    size = ngx_max(ngx_http_llm_writer.size, NGX_HTTP_LLM_STATE_SIZE);

    written = ngx_http_llm_wall_clock();

    owner[0] = mcf->sh->state.owner;
    owner[1] = (ngx_process == NGX_PROCESS_HELPER) ? ngx_parent : ngx_pid;

    error->what = "making";

    for ( ;; ) {
        buf = ngx_alloc(size, log);
        if (buf == NULL) {
            error->err = NGX_ENOMEM;
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
            error->err = EFBIG;
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

    if (n <= 0 || !llm_state_head(head, n, "owner", &line)
        || line.v[0] >= NGX_HTTP_LLM_SAVED_MAX)
    {
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

    (void) ngx_atomic_fetch_add(&mcf->sh->state.failures, 1);

    if (mcf->sh->state.current == 0) {
        mcf->sh->state.current = ngx_http_llm_wall_clock();
    }
}


void
ngx_http_llm_state_name(ngx_http_llm_main_conf_t *mcf, u_char *name,
    uint64_t owner)
{
    (void) ngx_sprintf(name, "%V.%uL%Z", &mcf->state, owner);
}
