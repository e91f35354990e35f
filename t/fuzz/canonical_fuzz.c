/*
 * The key of a body: in one piece and in the pieces that the first byte of
 * the input asks for, it must be the same, and so it must for the document as
 * jansson writes it anew.
 */

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "llm_canonical.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static llm_canonical_t whole, split;


static void
check(int ok)
{
    if (!ok) {
        abort();
    }
}


/* In copies of the pieces that have no byte too many. */
static void
scan(llm_canonical_t *c, const uint8_t *p, size_t len, size_t step)
{
    size_t n;
    uint8_t *copy;

    memset(c, 0xa5, sizeof(*c));
    llm_canonical_init(c);

    for (/* void */; len != 0; p += n, len -= n) {
        n = (len < step) ? len : step;
        copy = malloc(n);

        if (copy != NULL) {
            memcpy(copy, p, n);
            llm_canonical_scan(c, copy, n);
            free(copy);
        }
    }

    llm_canonical_end(c);
}


static int
has_numbers(const json_t *value)
{
    size_t i;
    const char *name;
    json_t *member;

    if (json_is_array(value)) {
        for (i = 0; i < json_array_size(value); i++) {
            if (has_numbers(json_array_get(value, i))) {
                return 1;
            }
        }
    }

    json_object_foreach((json_t *) (uintptr_t) value, name, member)
    {
        if (has_numbers(member)) {
            return 1;
        }
    }

    return json_is_number(value);
}


/* Numbers may be written anew: those are not compared. */
static void
check_anew(const uint8_t *p, size_t len)
{
    char *text;
    json_t *root;

    root = json_loadb((const char *) p, len,
        JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);

    if (root == NULL) {
        return;
    }

    text = has_numbers(root)
               ? NULL
               : json_dumps(root, JSON_ENCODE_ANY | JSON_SORT_KEYS
                                      | JSON_ENSURE_ASCII | JSON_INDENT(1));
    json_decref(root);

    if (text == NULL) {
        return;
    }

    scan(&split, (const uint8_t *) text, strlen(text), strlen(text));
    free(text);

    check(split.error == NULL);
    check(memcmp(whole.key, split.key, sizeof(whole.key)) == 0);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t step;

    if (size == 0) {
        return 0;
    }

    step = 1 + data[0] % 64;
    data++;
    size--;

    scan(&whole, data, size, size);
    scan(&split, data, size, step);

    check(whole.error == split.error && whole.offset == split.offset);
    check(whole.offset <= size);

    if (whole.error == NULL) {
        check(memcmp(whole.key, split.key, sizeof(whole.key)) == 0);
        check_anew(data, size);
    }

    return 0;
}
