/*
 * The complexity of a prompt: a body in one piece and in the pieces that the
 * first byte of the input asks for must give the same, and no count may be
 * beyond what there is to count.
 */

#include <stdlib.h>
#include <string.h>

#include "llm_complexity.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(int ok)
{
    if (!ok) {
        abort();
    }
}


/* In copies of the pieces that have no byte too many. */
static void
scan(llm_complexity_t *c, const llm_complexity_conf_t *conf, const uint8_t *p,
    size_t len, size_t step)
{
    size_t n;
    uint8_t *copy;

    memset(c, 0xa5, sizeof(*c));
    llm_complexity_init(c, conf);

    for (/* void */; len != 0; p += n, len -= n) {
        n = (len < step) ? len : step;
        copy = malloc(n);

        if (copy != NULL) {
            memcpy(copy, p, n);
            llm_complexity_scan(c, copy, n);
            free(copy);
        }
    }

    llm_complexity_end(c);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t step;
    uint32_t memory[256];
    llm_complexity_t whole, split;
    llm_complexity_conf_t conf;

    static const llm_complexity_term_t terms[] = { { "prove", 5 },
        { "derive", 6 }, { "x", 1 }, { "X", 1 } };

    if (size == 0) {
        return 0;
    }

    step = 1 + data[0] % 64;
    data++;
    size--;

    llm_complexity_defaults(&conf);
    check(llm_complexity_terms_size(terms, 4) <= sizeof(memory));
    conf.list = llm_complexity_terms_build(memory, terms, 4);

    scan(&whole, &conf, data, size, size);
    scan(&split, &conf, data, size, step);

    check(whole.error == split.error && whole.offset == split.offset);

    if (whole.error != NULL) {
        check(whole.offset <= size);
        return 0;
    }

    check(whole.question.words == split.question.words);
    check(whole.question.terms == split.question.terms);
    check(whole.question.code == split.question.code);
    check(whole.all_words == split.all_words);
    check(whole.messages == split.messages);
    check(llm_complexity_level(&whole) == llm_complexity_level(&split));

    check(whole.question.terms <= 3);
    check(whole.question.terms <= whole.question.words);
    check(whole.question.words <= whole.all_words);
    check(whole.all_words <= size);
    check(whole.messages <= size);

    return 0;
}
