
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_header.h"


/*
 * Headers: finding, adding, and which of them are secrets.
 */


static ngx_uint_t ngx_http_llm_header_is_one_of(ngx_str_t *name,
    ngx_str_t *names);


/* in which callers send credentials, or name the account these are for */

ngx_str_t  ngx_http_llm_secret_headers[] = {
    ngx_string("Authorization"),
    ngx_string("Proxy-Authorization"),
    ngx_string("Cookie"),
    ngx_string("X-Api-Key"),
    ngx_string("Api-Key"),
    ngx_string("X-Goog-Api-Key"),
    ngx_string("X-Goog-User-Project"),
    ngx_string("OpenAI-Organization"),
    ngx_string("OpenAI-Project"),
    ngx_null_string
};


/* those of them that are no credentials */

static ngx_str_t  ngx_http_llm_account_headers[] = {
    ngx_string("X-Goog-User-Project"),
    ngx_string("OpenAI-Organization"),
    ngx_string("OpenAI-Project"),
    ngx_null_string
};


/* Whether callers send credentials in a header of this name. */

ngx_uint_t
ngx_http_llm_is_secret_header(ngx_str_t *name)
{
    return ngx_http_llm_header_is_one_of(name, ngx_http_llm_secret_headers);
}


/* Whether that is a credential, and not the name of an account. */

ngx_uint_t
ngx_http_llm_is_key_header(ngx_str_t *name)
{
    return ngx_http_llm_is_secret_header(name)
           && !ngx_http_llm_header_is_one_of(name,
                                             ngx_http_llm_account_headers);
}


static ngx_uint_t
ngx_http_llm_header_is_one_of(ngx_str_t *name, ngx_str_t *names)
{
    for ( /* void */ ; names->len; names++) {
        if (names->len == name->len
            && ngx_strncasecmp(names->data, name->data, name->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* The first header of this name that was not removed. */

ngx_table_elt_t *
ngx_http_llm_find_header(ngx_list_t *headers, ngx_str_t *name)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &headers->part;
    h = part->elts;

    for (i = 0; /* void */; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return NULL;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == name->len
            && h[i].hash
            && ngx_strncasecmp(h[i].key.data, name->data, name->len) == 0)
        {
            return &h[i];
        }
    }
}


/* name and value live as long as the request */

ngx_int_t
ngx_http_llm_push_header(ngx_http_request_t *r, const char *name,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value = *value;
    h->lowcase_key = NULL;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    return NGX_OK;
}
