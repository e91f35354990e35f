
/*
 * Copyright (C) The nginx-llm authors
 */


#include "ngx_http_llm_describe.h"


/*
 * The page as JSON.
 *
 * A page of 256 providers has some 20,000 values, and nginx does nothing
 * else meanwhile.  jansson's own dump takes most of its time for looking
 * at each object whether it contains itself, and for printf().
 */


#define NGX_HTTP_LLM_JSON_INDENT  2


static ngx_int_t ngx_http_llm_json_head(ngx_http_llm_page_t *page,
    json_t *tree);
static ngx_int_t ngx_http_llm_json_list(ngx_http_llm_page_t *page,
    const char *name);
static ngx_int_t ngx_http_llm_json_list_end(ngx_http_llm_page_t *page);
static ngx_int_t ngx_http_llm_json_entry(ngx_http_llm_page_t *page,
    ngx_uint_t i, json_t *tree);
static ngx_int_t ngx_http_llm_json_end(ngx_http_llm_page_t *page);
static ngx_int_t ngx_http_llm_json_value(ngx_http_llm_text_t *text,
    json_t *json, ngx_uint_t depth);
static ngx_int_t ngx_http_llm_json_object(ngx_http_llm_text_t *text,
    json_t *json, ngx_uint_t depth);
static ngx_int_t ngx_http_llm_json_members(ngx_http_llm_text_t *text,
    json_t *json, ngx_uint_t depth);
static ngx_int_t ngx_http_llm_json_array(ngx_http_llm_text_t *text,
    json_t *json, ngx_uint_t depth);
static ngx_int_t ngx_http_llm_json_line(ngx_http_llm_text_t *text,
    ngx_uint_t depth);
static ngx_int_t ngx_http_llm_json_quoted(ngx_http_llm_text_t *text,
    const char *s, size_t len);
static ngx_int_t ngx_http_llm_json_number(ngx_http_llm_text_t *text,
    json_t *json);


ngx_http_llm_format_t  ngx_http_llm_json_format = {
    ngx_http_llm_json_head,
    ngx_http_llm_json_list,
    ngx_http_llm_json_entry,
    ngx_http_llm_json_end
};


static ngx_int_t
ngx_http_llm_json_head(ngx_http_llm_page_t *page, json_t *tree)
{
    page->data = NULL;

    if (ngx_http_llm_text(&page->text, "{", 1) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_llm_json_members(&page->text, tree, 1);
}


static ngx_int_t
ngx_http_llm_json_list(ngx_http_llm_page_t *page, const char *name)
{
    if (ngx_http_llm_json_list_end(page) != NGX_OK
        || ngx_http_llm_text(&page->text, ",", 1) != NGX_OK
        || ngx_http_llm_json_line(&page->text, 1) != NGX_OK
        || ngx_http_llm_json_quoted(&page->text, name, ngx_strlen(name))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    page->data = (void *) name;

    return ngx_http_llm_text(&page->text, ": [", 3);
}


static ngx_int_t
ngx_http_llm_json_list_end(ngx_http_llm_page_t *page)
{
    if (page->data == NULL) {
        return NGX_OK;
    }

    if (ngx_http_llm_json_line(&page->text, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_llm_text(&page->text, "]", 1);
}


static ngx_int_t
ngx_http_llm_json_entry(ngx_http_llm_page_t *page, ngx_uint_t i, json_t *tree)
{
    if ((i && ngx_http_llm_text(&page->text, ",", 1) != NGX_OK)
        || ngx_http_llm_json_line(&page->text, 2) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_json_value(&page->text, tree, 2);
}


static ngx_int_t
ngx_http_llm_json_end(ngx_http_llm_page_t *page)
{
    if (ngx_http_llm_json_list_end(page) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_llm_text(&page->text, "\n}\n", 3);
}


static ngx_int_t
ngx_http_llm_json_value(ngx_http_llm_text_t *text, json_t *json,
    ngx_uint_t depth)
{
    if (json == NULL) {
        return NGX_ERROR;
    }

    switch (json_typeof(json)) {

    case JSON_OBJECT:
        return ngx_http_llm_json_object(text, json, depth);

    case JSON_ARRAY:
        return ngx_http_llm_json_array(text, json, depth);

    case JSON_STRING:
        return ngx_http_llm_json_quoted(text, json_string_value(json),
                                        json_string_length(json));

    case JSON_TRUE:
        return ngx_http_llm_text(text, "true", 4);

    case JSON_FALSE:
        return ngx_http_llm_text(text, "false", 5);

    case JSON_NULL:
        return ngx_http_llm_text(text, "null", 4);

    default:
        return ngx_http_llm_json_number(text, json);
    }
}


static ngx_int_t
ngx_http_llm_json_object(ngx_http_llm_text_t *text, json_t *json,
    ngx_uint_t depth)
{
    if (json_object_size(json) == 0) {
        return ngx_http_llm_text(text, "{}", 2);
    }

    if (ngx_http_llm_text(text, "{", 1) != NGX_OK
        || ngx_http_llm_json_members(text, json, depth + 1) != NGX_OK
        || ngx_http_llm_json_line(text, depth) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_text(text, "}", 1);
}


static ngx_int_t
ngx_http_llm_json_members(ngx_http_llm_text_t *text, json_t *json,
    ngx_uint_t depth)
{
    void        *i;
    ngx_uint_t   more;
    const char  *name;

    more = 0;

    for (i = json_object_iter(json); i; i = json_object_iter_next(json, i)) {

        name = json_object_iter_key(i);

        if ((more && ngx_http_llm_text(text, ",", 1) != NGX_OK)
            || ngx_http_llm_json_line(text, depth) != NGX_OK
            || ngx_http_llm_json_quoted(text, name, ngx_strlen(name)) != NGX_OK
            || ngx_http_llm_text(text, ": ", 2) != NGX_OK
            || ngx_http_llm_json_value(text, json_object_iter_value(i), depth)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        more = 1;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_json_array(ngx_http_llm_text_t *text, json_t *json,
    ngx_uint_t depth)
{
    size_t  i, n;

    n = json_array_size(json);

    if (n == 0) {
        return ngx_http_llm_text(text, "[]", 2);
    }

    for (i = 0; i < n; i++) {

        if (ngx_http_llm_text(text, i ? "," : "[", 1) != NGX_OK
            || ngx_http_llm_json_line(text, depth + 1) != NGX_OK
            || ngx_http_llm_json_value(text, json_array_get(json, i),
                                       depth + 1)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ngx_http_llm_json_line(text, depth) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_llm_text(text, "]", 1);
}


static ngx_int_t
ngx_http_llm_json_line(ngx_http_llm_text_t *text, ngx_uint_t depth)
{
    u_char  *p;
    size_t   blanks;

    blanks = NGX_HTTP_LLM_JSON_INDENT * depth;

    p = ngx_http_llm_text_room(text, 1 + blanks);
    if (p == NULL) {
        return NGX_ERROR;
    }

    *p++ = '\n';
    ngx_memset(p, ' ', blanks);

    text->last->buf->last = p + blanks;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_json_quoted(ngx_http_llm_text_t *text, const char *s, size_t len)
{
    u_char  *p;
    size_t   more;

    more = ngx_escape_json(NULL, (u_char *) s, len);

    p = ngx_http_llm_text_room(text, len + more + 2);
    if (p == NULL) {
        return NGX_ERROR;
    }

    *p++ = '"';

    p = more ? (u_char *) ngx_escape_json(p, (u_char *) s, len)
             : ngx_cpymem(p, s, len);

    *p++ = '"';

    text->last->buf->last = p;

    return NGX_OK;
}


/* What is no integer shows that, for readers that tell them apart. */

static ngx_int_t
ngx_http_llm_json_number(ngx_http_llm_text_t *text, json_t *json)
{
    u_char  *p, *last;

    p = ngx_http_llm_text_room(text, NGX_HTTP_LLM_NUMBER_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (json_is_integer(json)) {
        last = ngx_sprintf(p, "%L", (int64_t) json_integer_value(json));

    } else {
        last = ngx_http_llm_tree_real(p, json_real_value(json));

        *last = '\0';

        if (strpbrk((char *) p, ".e") == NULL) {
            *last++ = '.';
            *last++ = '0';
        }
    }

    text->last->buf->last = last;

    return NGX_OK;
}
