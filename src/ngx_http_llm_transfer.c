
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_transfer.h"


/*
 * What libcurl is told of a call before it begins, what it reads of the
 * answer, and what came of it.
 */


#define NGX_HTTP_LLM_TRANSFER_HEADER  65536       /* bytes, of an answer */


static ngx_int_t ngx_http_llm_transfer_address(ngx_http_llm_curl_t *t,
    ngx_http_llm_curl_call_t *call);
static ngx_int_t ngx_http_llm_transfer_headers(ngx_http_llm_curl_t *t,
    ngx_array_t *headers);
static ngx_int_t ngx_http_llm_transfer_body(ngx_http_llm_curl_t *t,
    ngx_http_llm_curl_call_t *call);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_llm_transfer_tls(ngx_http_llm_curl_t *t,
    ngx_http_llm_curl_call_t *call);
static CURLcode ngx_http_llm_transfer_trust(CURL *easy, void *ssl_ctx,
    void *data);
static ngx_int_t ngx_http_llm_transfer_ciphers(SSL_CTX *ctx, SSL_CTX *from);
#endif
static char *ngx_http_llm_transfer_text(ngx_str_t *s);
static const char *ngx_http_llm_transfer_error(ngx_http_llm_curl_t *t,
    CURLcode code);
static size_t ngx_http_llm_transfer_header(char *p, size_t size, size_t n,
    void *data);
static size_t ngx_http_llm_transfer_data(char *p, size_t size, size_t n,
    void *data);
static ngx_http_llm_fault_e ngx_http_llm_transfer_fault(
    ngx_http_llm_curl_t *t, CURLcode code,
    ngx_http_llm_curl_result_t *result);


ngx_int_t
ngx_http_llm_transfer_setup(ngx_http_llm_curl_t *t,
    ngx_http_llm_curl_call_t *call)
{
    char     *url;
    CURL     *easy;
    CURLcode  rc;

    t->done = call->done;
    t->data = call->data;
    t->max_answer = call->max_answer;

    t->easy = easy = curl_easy_init();
    url = ngx_http_llm_transfer_text(&call->url);

    rc = (easy && url) ? curl_easy_setopt(easy, CURLOPT_URL, url)
                       : CURLE_OUT_OF_MEMORY;

    if (url) {
        ngx_free(url);
    }

    if (rc
        || curl_easy_setopt(easy, CURLOPT_PRIVATE, t)
        || curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error)
        || curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L)
        || curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https")
        || curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                            (long) CURL_HTTP_VERSION_1_1)
        || curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L)
        || curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L)
        || curl_easy_setopt(easy, CURLOPT_PROXY, "")
        || curl_easy_setopt(easy, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED)
        || curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L)
        || curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L)
        || curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, 0L)
        || curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                            (long) call->connect_timeout)
        || curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long) call->timeout)
        || curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION,
                            ngx_http_llm_curl_open)
        || curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, t)
        || curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION,
                            ngx_http_llm_curl_close)
        || curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION,
                            ngx_http_llm_transfer_header)
        || curl_easy_setopt(easy, CURLOPT_HEADERDATA, t)
        || curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION,
                            ngx_http_llm_transfer_data)
        || curl_easy_setopt(easy, CURLOPT_WRITEDATA, t))
    {
        return NGX_ERROR;
    }

#if (NGX_HTTP_SSL)

    if (ngx_http_llm_transfer_tls(t, call) != NGX_OK) {
        return NGX_ERROR;
    }

#endif

    if (ngx_http_llm_transfer_address(t, call) != NGX_OK
        || ngx_http_llm_transfer_headers(t, call->headers) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_transfer_body(t, call);
}


/* An address of the host, so that nobody has to look it up. */

static ngx_int_t
ngx_http_llm_transfer_address(ngx_http_llm_curl_t *t,
    ngx_http_llm_curl_call_t *call)
{
    u_char              *p, text[sizeof("::[]") + NGX_SOCKADDR_STRLEN];
    struct sockaddr_un  *saun;

    if (call->sockaddr->sa_family == AF_UNIX) {

        saun = (struct sockaddr_un *) call->sockaddr;

        return curl_easy_setopt(t->easy, CURLOPT_UNIX_SOCKET_PATH,
                                saun->sun_path)
               ? NGX_ERROR : NGX_OK;
    }

    p = ngx_cpymem(text, "::", 2);

    p += ngx_sock_ntop(call->sockaddr, call->socklen, p, NGX_SOCKADDR_STRLEN,
                       1);
    *p = '\0';

    t->connect_to = curl_slist_append(NULL, (char *) text);

    return t->connect_to == NULL
           || curl_easy_setopt(t->easy, CURLOPT_CONNECT_TO, t->connect_to)
           ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_http_llm_transfer_headers(ngx_http_llm_curl_t *t, ngx_array_t *headers)
{
    u_char             *line;
    ngx_uint_t          i;
    ngx_keyval_t       *h;
    struct curl_slist  *list;

    h = headers ? headers->elts : NULL;

    for (i = 0; headers && i < headers->nelts; i++) {

        line = ngx_alloc(h[i].key.len + sizeof(": ") + h[i].value.len,
                         ngx_cycle->log);
        if (line == NULL) {
            return NGX_ERROR;
        }

        /* without a value libcurl leaves its own header of the name out */

        ngx_sprintf(line, "%V: %V%Z", &h[i].key, &h[i].value);

        list = curl_slist_append(t->headers, (char *) line);

        ngx_free(line);

        if (list == NULL) {
            return NGX_ERROR;
        }

        t->headers = list;
    }

    return curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers)
           ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_http_llm_transfer_body(ngx_http_llm_curl_t *t,
    ngx_http_llm_curl_call_t *call)
{
    char      *method;
    CURL      *easy;
    CURLcode   rc;

    easy = t->easy;

    if (call->method.len == 4 && ngx_strncmp(call->method.data, "HEAD", 4) == 0)
    {
        return curl_easy_setopt(easy, CURLOPT_NOBODY, 1L) ? NGX_ERROR : NGX_OK;
    }

    if (call->body.data
        && (curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                             (curl_off_t) call->body.len)
            || curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS,
                                call->body.data)))
    {
        return NGX_ERROR;
    }

    method = ngx_http_llm_transfer_text(&call->method);
    if (method == NULL) {
        return NGX_ERROR;
    }

    rc = curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);

    ngx_free(method);

    return rc ? NGX_ERROR : NGX_OK;
}


#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_llm_transfer_tls(ngx_http_llm_curl_t *t,
    ngx_http_llm_curl_call_t *call)
{
    long   verify;
    CURL  *easy;

    t->trust = call->trust;

    if (call->name.len) {
        t->name = ngx_http_llm_transfer_text(&call->name);
        if (t->name == NULL) {
            return NGX_ERROR;
        }
    }

    easy = t->easy;
    verify = !call->unverified;

    /* the store of certificates is nginx's: libcurl neither reads nor keeps */

    if (curl_easy_setopt(easy, CURLOPT_CAINFO, NULL)
        || curl_easy_setopt(easy, CURLOPT_CAPATH, NULL)
        || curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L)
        || curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L)
        || curl_easy_setopt(easy, CURLOPT_SSL_OPTIONS,
                            (long) CURLSSLOPT_NO_PARTIALCHAIN)
        || curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, verify)
        || curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST,
                            verify && t->name == NULL ? 2L : 0L)
        || curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION,
                            ngx_http_llm_transfer_trust)
        || curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, t))
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* A connection is about to be made: it trusts whom nginx trusts. */

static CURLcode
ngx_http_llm_transfer_trust(CURL *easy, void *ssl_ctx, void *data)
{
    SSL_CTX              *ctx = ssl_ctx;
    ngx_http_llm_curl_t  *t = data;

    X509               *cert;
    EVP_PKEY           *key;
    STACK_OF(X509)     *chain;
    X509_VERIFY_PARAM  *param;

    if (t->name) {
        param = SSL_CTX_get0_param(ctx);

        if (X509_VERIFY_PARAM_set1_host(param, t->name, 0) != 1) {
            return CURLE_SSL_CONNECT_ERROR;
        }
    }

    if (t->trust == NULL) {
        return CURLE_OK;
    }

    SSL_CTX_set1_cert_store(ctx, SSL_CTX_get_cert_store(t->trust));
    SSL_CTX_set_verify_depth(ctx, SSL_CTX_get_verify_depth(t->trust));

    SSL_CTX_set_min_proto_version(ctx, SSL_CTX_get_min_proto_version(t->trust));
    SSL_CTX_set_max_proto_version(ctx, SSL_CTX_get_max_proto_version(t->trust));
    SSL_CTX_set_options(ctx, SSL_CTX_get_options(t->trust)
                             & SSL_OP_NO_SSL_MASK);
    SSL_CTX_set_security_level(ctx, SSL_CTX_get_security_level(t->trust));

    if (ngx_http_llm_transfer_ciphers(ctx, t->trust) != NGX_OK) {
        return CURLE_SSL_CIPHER;
    }

    cert = SSL_CTX_get0_certificate(t->trust);
    key = SSL_CTX_get0_privatekey(t->trust);

    if (cert == NULL || key == NULL) {
        return CURLE_OK;
    }

    if (SSL_CTX_get0_chain_certs(t->trust, &chain) != 1
        || SSL_CTX_use_certificate(ctx, cert) != 1
        || SSL_CTX_set1_chain(ctx, chain) != 1
        || SSL_CTX_use_PrivateKey(ctx, key) != 1)
    {
        return CURLE_SSL_CERTPROBLEM;
    }

    return CURLE_OK;
}


/* The same list; what is in it of TLS 1.3, OpenSSL passes over here. */

static ngx_int_t
ngx_http_llm_transfer_ciphers(SSL_CTX *ctx, SSL_CTX *from)
{
    int                    i, rc;
    u_char                *names, *p;
    size_t                 len;
    const char            *name;
    STACK_OF(SSL_CIPHER)  *list;

    list = SSL_CTX_get_ciphers(from);
    len = 1;

    for (i = 0; i < sk_SSL_CIPHER_num(list); i++) {
        name = SSL_CIPHER_get_name(sk_SSL_CIPHER_value(list, i));
        len += ngx_strlen(name) + 1;
    }

    names = ngx_alloc(len, ngx_cycle->log);
    if (names == NULL) {
        return NGX_ERROR;
    }

    p = names;

    for (i = 0; i < sk_SSL_CIPHER_num(list); i++) {
        name = SSL_CIPHER_get_name(sk_SSL_CIPHER_value(list, i));
        p = ngx_sprintf(p, "%s:", name);
    }

    *p = '\0';

    rc = SSL_CTX_set_cipher_list(ctx, (char *) names);

    ngx_free(names);

    return rc == 1 ? NGX_OK : NGX_ERROR;
}


SSL_CTX *
ngx_http_llm_curl_trust(ngx_conf_t *cf, ngx_str_t *file)
{
    ngx_ssl_t           *ssl;
    ngx_pool_cleanup_t  *cln;

    ssl = ngx_pcalloc(cf->pool, sizeof(ngx_ssl_t));
    cln = ngx_pool_cleanup_add(cf->pool, 0);

    if (ssl == NULL || cln == NULL) {
        return NULL;
    }

    ssl->log = cf->log;

    if (ngx_ssl_create(ssl, NGX_SSL_TLSv1_2|NGX_SSL_TLSv1_3, NULL) != NGX_OK) {
        return NULL;
    }

    cln->handler = ngx_ssl_cleanup_ctx;
    cln->data = ssl;

    if (ngx_ssl_trusted_certificate(cf, ssl, file, 4) != NGX_OK) {
        return NULL;
    }

    return ssl->ctx;
}

#endif


/* A copy that ends with a zero. */

static char *
ngx_http_llm_transfer_text(ngx_str_t *s)
{
    char  *text;

    text = ngx_alloc(s->len + 1, ngx_cycle->log);

    if (text) {
        ngx_memcpy(text, s->data, s->len);
        text[s->len] = '\0';
    }

    return text;
}


static size_t
ngx_http_llm_transfer_header(char *p, size_t size, size_t n, void *data)
{
    ngx_http_llm_curl_t *t = data;

    n *= size;
    t->header_size += n;

    if (t->header_size > NGX_HTTP_LLM_TRANSFER_HEADER) {
        t->oversize = 1;
        return 0;
    }

    /* libcurl takes "HTTP/" and anything for a status of 200 */

    if (!llm_reply_header(&t->hint, (u_char *) p, n, ngx_time())) {
        t->garbled = 1;
        return 0;
    }

    return n;
}


static size_t
ngx_http_llm_transfer_data(char *p, size_t size, size_t n, void *data)
{
    ngx_http_llm_curl_t *t = data;

    size_t  room;

    n *= size;
    t->body_size += n;

    if (t->body_size > t->max_answer) {
        t->oversize = 1;
        return 0;
    }

    room = ngx_min(n, NGX_HTTP_LLM_CURL_BODY - t->kept);

    ngx_memcpy(t->body + t->kept, p, room);
    t->kept += room;

    return n;
}


void
ngx_http_llm_transfer_result(ngx_http_llm_curl_t *t, CURLcode code,
    ngx_http_llm_curl_result_t *result)
{
    long        status;
    curl_off_t  connected, first_byte, total;

    status = 0;
    connected = first_byte = total = 0;

    (void) curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    (void) curl_easy_getinfo(t->easy, CURLINFO_CONNECT_TIME_T, &connected);
    (void) curl_easy_getinfo(t->easy, CURLINFO_STARTTRANSFER_TIME_T,
                             &first_byte);
    (void) curl_easy_getinfo(t->easy, CURLINFO_TOTAL_TIME_T, &total);

    result->status = t->garbled ? 0 : status;
    result->connected = connected;
    result->first_byte = first_byte;
    result->total = total;
    result->body.data = t->body;
    result->body.len = t->kept;
    result->hint = t->hint.ms;
    result->error = NULL;

    if (code == CURLE_OUT_OF_MEMORY && !t->shortage) {

        /* so it calls a line of the header that is over its own limit, too */

        t->oversize = (connected != 0);
        t->shortage = (connected == 0);
    }

    /* of a name that nobody has to look up, it could not make an address */

    t->shortage |= (code == CURLE_COULDNT_RESOLVE_HOST);

    result->shortage = t->shortage;

    result->fault = ngx_http_llm_transfer_fault(t, code, result);

    if (t->oversize) {
        result->error = t->body_size ? "the answer is too large"
                                     : "the header is too large";

    } else if (t->garbled) {
        result->error = "the answer begins with no status line";

    } else if (t->shortage) {
        result->error = "nginx lacks a connection, a descriptor or memory";

    } else if (code != CURLE_OK) {
        result->error = ngx_http_llm_transfer_error(t, code);
    }
}


/* What libcurl says may have a name in it that a certificate bears. */

static const char *
ngx_http_llm_transfer_error(ngx_http_llm_curl_t *t, CURLcode code)
{
    char  *p;

    for (p = t->error; *p; p++) {
        if (*p < 0x20 || *p > 0x7e) {
            *p = '?';
        }
    }

    return t->error[0] ? t->error : curl_easy_strerror(code);
}


static ngx_http_llm_fault_e
ngx_http_llm_transfer_fault(ngx_http_llm_curl_t *t, CURLcode code,
    ngx_http_llm_curl_result_t *result)
{
    if (t->oversize) {
        return NGX_HTTP_LLM_FAULT_TOO_LARGE;
    }

    switch (code) {

    case CURLE_OK:
        return NGX_HTTP_LLM_FAULT_NONE;

    case CURLE_COULDNT_CONNECT:
        return NGX_HTTP_LLM_FAULT_CONNECT;

    case CURLE_OPERATION_TIMEDOUT:

        if (result->connected == 0) {
            return NGX_HTTP_LLM_FAULT_CONNECT_TIMEOUT;
        }

        return result->status ? NGX_HTTP_LLM_FAULT_IDLE_TIMEOUT
                              : NGX_HTTP_LLM_FAULT_HEADER_TIMEOUT;

    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
        return NGX_HTTP_LLM_FAULT_TLS;

    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
        return result->status ? NGX_HTTP_LLM_FAULT_BROKEN
                              : NGX_HTTP_LLM_FAULT_CLOSED;

    case CURLE_PARTIAL_FILE:
        return NGX_HTTP_LLM_FAULT_BROKEN;

    default:
        return NGX_HTTP_LLM_FAULT_HEADER;
    }
}


void
ngx_http_llm_transfer_free(ngx_http_llm_curl_t *t)
{
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    curl_slist_free_all(t->connect_to);

#if (NGX_HTTP_SSL)

    if (t->name) {
        ngx_free(t->name);
    }

#endif

    ngx_free(t);
}
