
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_file.h"


/*
 * A whole file, read and replaced.  At every moment the name stands for the
 * old one or the new one, also after the power was cut.  Who may write into
 * the directory can make the name a link or a pipe: neither is followed.
 */


static ssize_t ngx_http_llm_file_read_fd(ngx_str_t *file, ngx_fd_t fd,
    u_char **text, off_t max, ngx_log_t *log);
static ngx_int_t ngx_http_llm_file_fill(ngx_fd_t fd, u_char *p, u_char *last,
    ngx_http_llm_file_error_t *error);
static void ngx_http_llm_file_sync_directory(ngx_str_t *file);
static ngx_int_t ngx_http_llm_file_failed(ngx_http_llm_file_error_t *error,
    const char *what, ngx_err_t err);


void
ngx_http_llm_file_directory(ngx_str_t *file, u_char *name)
{
    size_t  len;

    for (len = file->len; file->data[len - 1] != '/'; len--) { /* void */ }

    /* without the slash, but for the root */

    len -= (len > 1);

    ngx_cpystrn(name, file->data, len + 1);
}


ssize_t
ngx_http_llm_file_named(ngx_conf_t *cf, ngx_str_t *file, u_char *buf,
    size_t size)
{
    ssize_t           n;
    ngx_fd_t          fd;
    ngx_str_t        *directive;
    ngx_file_info_t   fi;

    directive = cf->args->elts;

    /* a pipe would wait for somebody who writes */

    fd = ngx_open_file(file->data, NGX_FILE_RDONLY,
                       NGX_FILE_OPEN|O_NONBLOCK, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "file \"%V\" of \"%V\" can not be opened",
                           file, directive);
        return NGX_ERROR;
    }

    n = NGX_ERROR;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR || !ngx_is_file(&fi)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "file \"%V\" of \"%V\" is not a regular file",
                           file, directive);
        goto done;
    }

    n = ngx_read_fd(fd, buf, size);

    if (n == -1 || n == (ssize_t) size) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, n == -1 ? ngx_errno : 0,
                           "file \"%V\" of \"%V\" can not be read or is "
                           "longer than %uz bytes", file, directive, size - 1);
        n = NGX_ERROR;
    }

done:

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_ALERT, cf, ngx_errno,
                           ngx_close_file_n " \"%V\" failed", file);
    }

    return n;
}


ssize_t
ngx_http_llm_file_read(ngx_str_t *file, u_char **text, off_t max,
    ngx_log_t *log)
{
    ssize_t   n;
    ngx_fd_t  fd;

    fd = ngx_open_file(file->data, NGX_FILE_RDONLY,
                       NGX_FILE_OPEN|O_NOFOLLOW|O_NONBLOCK, 0);

    if (fd == NGX_INVALID_FILE) {

        if (ngx_errno == NGX_ENOENT) {
            return NGX_DECLINED;
        }

        ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                      "llm: " ngx_open_file_n " \"%V\" failed", file);
        return NGX_ERROR;
    }

    n = ngx_http_llm_file_read_fd(file, fd, text, max, log);

    (void) ngx_close_file(fd);

    return n;
}


static ssize_t
ngx_http_llm_file_read_fd(ngx_str_t *file, ngx_fd_t fd, u_char **text,
    off_t max, ngx_log_t *log)
{
    size_t            size, len;
    ssize_t           n;
    ngx_file_info_t   fi;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                      "llm: " ngx_fd_info_n " \"%V\" failed", file);
        return NGX_ERROR;
    }

    if (!ngx_is_file(&fi) || ngx_file_size(&fi) > max) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "llm: \"%V\" is not a regular file, or is too large",
                      file);
        return NGX_ERROR;
    }

    size = (size_t) ngx_file_size(&fi);

    *text = ngx_alloc(size + 1, log);
    if (*text == NULL) {
        return NGX_ERROR;
    }

    for (len = 0; len < size; len += n) {

        n = ngx_read_fd(fd, *text + len, size - len);

        if (n == -1 && ngx_errno == NGX_EINTR) {
            n = 0;
            continue;
        }

        if (n == -1) {
            ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                          "llm: " ngx_read_fd_n " \"%V\" failed", file);
            ngx_free(*text);
            return NGX_ERROR;
        }

        if (n == 0) {
            break;
        }
    }

    return len;
}


ngx_int_t
ngx_http_llm_file_replace(ngx_str_t *file, u_char *temp, u_char *p,
    u_char *last, ngx_http_llm_file_error_t *error)
{
    ngx_fd_t   fd;
    ngx_int_t  rc;

    /* of a writer that was killed over it */

    (void) ngx_delete_file(temp);

    fd = ngx_open_file(temp, NGX_FILE_WRONLY, O_CREAT|O_EXCL|O_NOFOLLOW, 0600);

    if (fd == NGX_INVALID_FILE) {
        return ngx_http_llm_file_failed(error, ngx_open_file_n, ngx_errno);
    }

    rc = ngx_http_llm_file_fill(fd, p, last, error);

    if (ngx_close_file(fd) == NGX_FILE_ERROR && rc == NGX_OK) {
        rc = ngx_http_llm_file_failed(error, ngx_close_file_n, ngx_errno);
    }

    if (rc == NGX_OK && ngx_rename_file(temp, file->data) == NGX_FILE_ERROR) {
        rc = ngx_http_llm_file_failed(error, ngx_rename_file_n, ngx_errno);
    }

    if (rc != NGX_OK) {
        (void) ngx_delete_file(temp);
        return NGX_ERROR;
    }

    ngx_http_llm_file_sync_directory(file);

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_file_fill(ngx_fd_t fd, u_char *p, u_char *last,
    ngx_http_llm_file_error_t *error)
{
    ssize_t  n;

    for ( /* void */ ; p < last; p += n) {

        n = ngx_write_fd(fd, p, last - p);

        if (n == -1 && ngx_errno == NGX_EINTR) {
            n = 0;
            continue;
        }

        if (n <= 0) {
            return ngx_http_llm_file_failed(error, ngx_write_fd_n,
                                            n ? ngx_errno : NGX_ENOSPC);
        }
    }

    while (fsync(fd) == -1) {
        if (ngx_errno != NGX_EINTR) {
            return ngx_http_llm_file_failed(error, "fsync()", ngx_errno);
        }
    }

    return NGX_OK;
}


/* So that the new name is on the disk, too; not every file system can. */

static void
ngx_http_llm_file_sync_directory(ngx_str_t *file)
{
    u_char    name[NGX_MAX_PATH];
    ngx_fd_t  fd;

    ngx_http_llm_file_directory(file, name);

    fd = ngx_open_file(name, NGX_FILE_RDONLY, NGX_FILE_OPEN|O_DIRECTORY, 0);

    if (fd != NGX_INVALID_FILE) {
        (void) fsync(fd);
        (void) ngx_close_file(fd);
    }
}


static ngx_int_t
ngx_http_llm_file_failed(ngx_http_llm_file_error_t *error, const char *what,
    ngx_err_t err)
{
    error->what = what;
    error->err = err;

    return NGX_ERROR;
}
