/*
 * The JSON scanner: a body in one piece and in the pieces that the first two
 * bytes of the input ask for must give the same, in all ways of getting over
 * text, and what is said of the model must be true of the body.
 */

#include <stdlib.h>
#include <string.h>

#include "llm_json.h"
#include "llm_json_skip.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* Scans a copy of the piece that has no byte too many. */
static void
scan_piece(llm_json_t *j, const uint8_t *p, size_t len)
{
    uint8_t *copy;

    copy = malloc(len);

    if (copy == NULL) {
        return;
    }

    memcpy(copy, p, len);
    llm_json_scan(j, copy, len);
    free(copy);
}


/* One piece of first bytes, the others of step. */
static void
scan(llm_json_t *j, const uint8_t *p, size_t len, size_t first, size_t step)
{
    size_t n;

    memset(j, 0xa5, sizeof(llm_json_t));
    llm_json_init(j);

    for (n = first; len != 0; n = step) {
        n = (n > len) ? len : n;
        scan_piece(j, p, n);
        p += n;
        len -= n;
    }

    llm_json_end(j);
}


static void
check(int ok)
{
    if (!ok) {
        abort();
    }
}


static void
check_same(const llm_json_t *a, const llm_json_t *b)
{
    check(a->error == b->error && a->offset == b->offset);

    if (a->error != NULL) {
        return;
    }

    check(a->root == b->root && a->model == b->model);
    check(a->stream == b->stream);
    check(a->has_max_tokens == b->has_max_tokens);
    check(a->max_tokens == b->max_tokens && a->n == b->n);
    check(a->stream_options == b->stream_options);
    check(a->include_usage == b->include_usage);
    check(a->model_unfit == b->model_unfit);
    check(a->model_start == b->model_start);
    check(a->model_end == b->model_end);
    check(a->model_len == b->model_len);
    check(memcmp(a->model_value, b->model_value, a->model_len) == 0);
}


/* The bytes between the offsets are a string, and the one that was found. */
static void
check_model(const llm_json_t *j, const uint8_t *p, size_t len)
{
    size_t n;
    uint8_t *text;
    llm_json_t again;

    check(j->offset == len && j->model_len <= LLM_JSON_STRING);

    if (j->model != LLM_JSON_STRING_VALUE) {
        check(j->model_start == 0 && j->model_end == 0 && j->model_len == 0);
        return;
    }

    check(j->model_start + 2 <= j->model_end && j->model_end < len);
    check(p[j->model_start] == '"' && p[j->model_end - 1] == '"');

    n = (size_t) (j->model_end - j->model_start);
    text = malloc(n + 10);

    if (text == NULL) {
        return;
    }

    memcpy(text, "{\"model\":", 9);
    memcpy(text + 9, p + j->model_start, n);
    text[9 + n] = '}';

    scan(&again, text, n + 10, n + 10, 1);
    free(text);

    check(again.error == NULL && again.model == LLM_JSON_STRING_VALUE);
    check(again.model_start == 9 && again.model_end == 9 + n);
    check(again.model_unfit == j->model_unfit);
    check(again.model_len == j->model_len);
    check(memcmp(again.model_value, j->model_value, j->model_len) == 0);
}


/* What is inserted leaves a whole document, which asks for usage. */
static void
check_usage(const llm_json_t *j, const uint8_t *p, size_t len)
{
    size_t at, behind, n;
    uint8_t *text;
    llm_json_t again;
    llm_json_inject_t inject;

    inject = llm_json_usage_insert(j);

    if (inject.text == NULL) {
        return;
    }

    at = (size_t) inject.offset;
    behind = at + (size_t) inject.cut_len;
    n = len - inject.cut_len + inject.len;
    check(behind < len);
    text = malloc(n);

    if (text == NULL) {
        return;
    }

    memcpy(text, p, at);
    memcpy(text + at, inject.text, inject.len);
    memcpy(text + at + inject.len, p + behind, len - behind);

    scan(&again, text, n, n, 1);
    free(text);

    check(again.error == NULL && again.stream == LLM_JSON_TRUE);
    check(again.stream_options == LLM_JSON_OBJECT);
    check(again.include_usage == LLM_JSON_TRUE);
    check(again.model == j->model && again.model_len == j->model_len);
    check(again.max_tokens == j->max_tokens && again.n == j->n);
    check(llm_json_usage_insert(&again).text == NULL);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned way;
    size_t first, step;
    llm_json_t whole, split;

    if (size < 2) {
        return 0;
    }

    first = data[0];
    step = 1 + data[1] % 80;
    data += 2;
    size -= 2;

    llm_json_skip_by(LLM_JSON_PORTABLE);
    scan(&whole, data, size, size, 1);

    for (way = LLM_JSON_WAYS; way-- > 0; /* void */) {
        if (llm_json_skip_by(way)) {
            scan(&split, data, size, size, 1);
            check_same(&whole, &split);

            scan(&split, data, size, first, step);
            check_same(&whole, &split);
        }
    }

    if (whole.error == NULL) {
        check_model(&whole, data, size);
        check_usage(&whole, data, size);

    } else {
        check(whole.offset <= size);
    }

    return 0;
}
