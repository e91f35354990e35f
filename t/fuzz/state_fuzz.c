/*
 * State files: the input as a whole text, and as the lines of one whose
 * checksum is right.  What is read and written again must be read the same,
 * and a circuit of it must be one that can be saved.
 */

#include <stdlib.h>
#include <string.h>

#include "llm_circuit_save.h"
#include "llm_sha256.h"
#include "llm_state.h"


#define FIRST "nginx-llm state 1\n"
#define TAIL (sizeof("sha256 ") - 1 + 2 * LLM_SHA256_LEN + 1)


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(int ok)
{
    if (!ok) {
        abort();
    }
}


/* A text of these lines; no byte too many. */
static uint8_t *
whole(const uint8_t *data, size_t size, size_t *len)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t digest[LLM_SHA256_LEN], *p, *text;
    llm_sha256_t s;

    *len = sizeof(FIRST) - 1 + size + TAIL;
    text = malloc(*len);

    if (text == NULL) {
        return NULL;
    }

    memcpy(text, FIRST, sizeof(FIRST) - 1);
    p = text + sizeof(FIRST) - 1;

    if (size != 0) {
        memcpy(p, data, size);
        p += size;
    }

    llm_sha256_init(&s);
    llm_sha256_update(&s, text, (size_t) (p - text));
    llm_sha256_final(&s, digest);

    memcpy(p, "sha256 ", 7);
    p += 7;

    for (unsigned i = 0; i < LLM_SHA256_LEN; i++) {
        *p++ = (uint8_t) hex[digest[i] >> 4];
        *p++ = (uint8_t) hex[digest[i] & 15];
    }

    *p = '\n';

    return text;
}


static void
check_circuit(const uint64_t *v)
{
    uint64_t again[LLM_SAVED_NUMBERS], now = v[LLM_SAVED_NUMBERS];
    llm_circuit_t c;

    if (llm_circuit_saved(v)) {
        memset(&c, 0, sizeof(c));
        llm_circuit_restore(&c, v, v[LLM_SAVED_NUMBERS + 1], now);
        llm_circuit_save(&c, now, again);

        check(llm_circuit_saved(again));
        check(again[LLM_SAVED_STATE] == v[LLM_SAVED_STATE]);
        check(again[LLM_SAVED_LEFT] <= v[LLM_SAVED_LEFT]);
        check(again[LLM_SAVED_THROTTLE] <= v[LLM_SAVED_THROTTLE]);
        check(again[LLM_SAVED_TTL] <= v[LLM_SAVED_TTL]);
    }
}


static void
check_again(const uint8_t *text, size_t len)
{
    llm_state_text_t t;
    llm_state_reader_t r, s;
    uint8_t *copy;
    char key[LLM_STATE_KEY + 1];

    /* numbers may be written shorter than they stood there, never longer */

    static llm_state_line_t line, same;

    copy = malloc(3 * len);

    if (copy == NULL) {
        return;
    }

    llm_state_begin(&t, copy, 3 * len);
    llm_state_read(&r, text, len);

    while (llm_state_next(&r, &line)) {
        memcpy(key, line.key, line.key_len);
        key[line.key_len] = '\0';

        if (line.record) {
            llm_state_record(&t, key, line.name, line.name_len);

        } else {
            llm_state_numbers(&t, key, line.v, line.n);
            check_circuit(line.v);
        }
    }

    check(llm_state_end(&t));

    llm_state_read(&r, text, len);
    llm_state_read(&s, copy, (size_t) (t.p - copy));

    while (llm_state_next(&r, &line)) {
        check(llm_state_next(&s, &same));
        check(line.record == same.record && line.key_len == same.key_len);
        check(memcmp(line.key, same.key, line.key_len) == 0);

        if (line.record) {
            check(line.name_len == same.name_len);
            check(memcmp(line.name, same.name, line.name_len) == 0);

        } else {
            check(memcmp(line.v, same.v, sizeof(line.v)) == 0);
        }
    }

    check(!llm_state_next(&s, &same));
    check(llm_state_check(copy, (size_t) (t.p - copy), &same) == LLM_STATE_OK);

    free(copy);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t len;
    uint8_t *text;

    static llm_state_line_t line;

    (void) llm_state_check(data, size, &line);
    (void) llm_state_head(data, size, "owner", &line);

    text = whole(data, size, &len);

    if (text != NULL) {
        (void) llm_state_head(text, len, "owner", &line);

        if (llm_state_check(text, len, &line) == LLM_STATE_OK) {
            check_again(text, len);
        }

        free(text);
    }

    return 0;
}
