/*
 * The text of a state file.
 */

#include "llm_state.h"

#include <string.h>

#include "llm_sha256.h"


#define LLM_STATE_FIRST "nginx-llm state "
#define LLM_STATE_LAST "sha256 "

#define LLM_STATE_HEX (2 * LLM_SHA256_LEN)
#define LLM_STATE_TAIL (sizeof(LLM_STATE_LAST) - 1 + LLM_STATE_HEX + 1)

#define LLM_STATE_DIGITS 20 /* of the largest number */


static const char llm_state_hex[] = "0123456789abcdef";


/* Appends, or nothing if there is no room for all of it. */
static void
llm_state_put(llm_state_text_t *t, const void *p, size_t len)
{
    if (t->full || (size_t) (t->end - t->p) < len) {
        t->full = true;
        return;
    }

    memcpy(t->p, p, len);
    t->p += len;
}


static void
llm_state_put_number(llm_state_text_t *t, uint64_t v)
{
    char digits[LLM_STATE_DIGITS];
    size_t i = sizeof(digits);

    do {
        digits[--i] = (char) ('0' + v % 10);
        v /= 10;
    } while (v != 0);

    llm_state_put(t, &digits[i], sizeof(digits) - i);
}


void
llm_state_begin(llm_state_text_t *t, uint8_t *p, size_t size)
{
    *t = (llm_state_text_t) { .start = p, .p = p, .end = p + size };

    llm_state_put(t, LLM_STATE_FIRST, sizeof(LLM_STATE_FIRST) - 1);
    llm_state_put_number(t, LLM_STATE_VERSION);
    llm_state_put(t, "\n", 1);
}


static bool
llm_state_is_plain(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
           || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}


void
llm_state_record(llm_state_text_t *t, const char *kind, const uint8_t *name,
    size_t len)
{
    llm_state_put(t, "[", 1);
    llm_state_put(t, kind, strlen(kind));
    llm_state_put(t, " ", 1);

    for (size_t i = 0; i < len; i++) {
        char escaped[3] = { '%', llm_state_hex[name[i] >> 4],
            llm_state_hex[name[i] & 15] };

        if (llm_state_is_plain(name[i])) {
            llm_state_put(t, &name[i], 1);

        } else {
            llm_state_put(t, escaped, sizeof(escaped));
        }
    }

    llm_state_put(t, "]\n", 2);
}


void
llm_state_numbers(llm_state_text_t *t, const char *key, const uint64_t *v,
    unsigned n)
{
    unsigned i, same;

    while (n != 0 && v[n - 1] == 0) {
        n--;
    }

    llm_state_put(t, key, strlen(key));

    for (i = 0; i < n; i += same) {

        for (same = 1; i + same < n && v[i + same] == v[i]; same++) {
        }

        llm_state_put(t, " ", 1);
        llm_state_put_number(t, v[i]);

        if (same > 1) {
            llm_state_put(t, "*", 1);
            llm_state_put_number(t, same);
        }
    }

    llm_state_put(t, "\n", 1);
}


static void
llm_state_sum(const uint8_t *p, size_t len, uint8_t hex[LLM_STATE_HEX])
{
    uint8_t digest[LLM_SHA256_LEN];
    llm_sha256_t s;

    llm_sha256_init(&s);
    llm_sha256_update(&s, p, len);
    llm_sha256_final(&s, digest);

    for (unsigned i = 0; i < LLM_SHA256_LEN; i++) {
        hex[2 * i] = (uint8_t) llm_state_hex[digest[i] >> 4];
        hex[2 * i + 1] = (uint8_t) llm_state_hex[digest[i] & 15];
    }
}


bool
llm_state_end(llm_state_text_t *t)
{
    uint8_t hex[LLM_STATE_HEX];

    if (!t->full) {
        llm_state_sum(t->start, (size_t) (t->p - t->start), hex);
        llm_state_put(t, LLM_STATE_LAST, sizeof(LLM_STATE_LAST) - 1);
        llm_state_put(t, hex, sizeof(hex));
        llm_state_put(t, "\n", 1);
    }

    return !t->full;
}


/* A number up to a byte that is none; false: there is none, or too large. */
static bool
llm_state_get_number(const uint8_t **p, const uint8_t *end, uint64_t *v)
{
    const uint8_t *s = *p;

    *v = 0;

    while (s < end && *s >= '0' && *s <= '9') {
        unsigned digit = (unsigned) (*s - '0');

        if (*v > (UINT64_MAX - digit) / 10 || (*v == 0 && s != *p)) {
            return false;
        }

        *v = *v * 10 + digit;
        s++;
    }

    if (s == *p) {
        return false;
    }

    *p = s;

    return true;
}


/* Behind the key: " V", " V*N". */
static bool
llm_state_get_numbers(const uint8_t *p, const uint8_t *end,
    llm_state_line_t *line)
{
    uint64_t v, same;

    while (p < end) {

        if (*p++ != ' ' || !llm_state_get_number(&p, end, &v)) {
            return false;
        }

        same = 1;

        if (p < end && *p == '*') {
            p++;

            if (!llm_state_get_number(&p, end, &same)) {
                return false;
            }
        }

        if (same == 0 || same > LLM_STATE_NUMBERS - line->n) {
            return false;
        }

        while (same-- != 0) {
            line->v[line->n++] = v;
        }
    }

    return true;
}


static int
llm_state_hex_digit(uint8_t c)
{
    const char *p = memchr(llm_state_hex, c, 16);

    return p != NULL ? (int) (p - llm_state_hex) : -1;
}


static bool
llm_state_get_name(const uint8_t *p, const uint8_t *end, llm_state_line_t *line)
{
    uint8_t c;
    int high, low;

    while (p < end) {
        c = *p++;

        if (c == '%') {

            if (end - p < 2) {
                return false;
            }

            high = llm_state_hex_digit(p[0]);
            low = llm_state_hex_digit(p[1]);

            if (high < 0 || low < 0) {
                return false;
            }

            c = (uint8_t) (high << 4 | low);
            p += 2;

        } else if (!llm_state_is_plain(c)) {
            return false;
        }

        if (line->name_len == LLM_STATE_NAME) {
            return false;
        }

        line->name[line->name_len++] = c;
    }

    return line->name_len != 0;
}


/* A key, up to a byte that is none. */
static bool
llm_state_get_key(const uint8_t **p, const uint8_t *end, llm_state_line_t *line)
{
    const uint8_t *s = *p;

    while (s < end
           && ((*s >= 'a' && *s <= 'z')
               || (s != *p && ((*s >= '0' && *s <= '9') || *s == '_'))))
    {
        s++;
    }

    line->key = *p;
    line->key_len = (size_t) (s - *p);

    *p = s;

    return line->key_len != 0 && line->key_len <= LLM_STATE_KEY;
}


/* From p to its end, without the newline. */
static bool
llm_state_get_line(const uint8_t *p, const uint8_t *end, llm_state_line_t *line)
{
    line->record = (p < end && *p == '[');
    line->n = 0;
    line->name_len = 0;

    if (!line->record) {

        if (!llm_state_get_key(&p, end, line)
            || !llm_state_get_numbers(p, end, line)) {
            return false;
        }

        memset(&line->v[line->n], 0,
            (LLM_STATE_NUMBERS - line->n) * sizeof(line->v[0]));

        return true;
    }

    p++;

    return llm_state_get_key(&p, end, line) && end - p > 2 && *p == ' '
           && end[-1] == ']' && llm_state_get_name(p + 1, end - 1, line);
}


void
llm_state_read(llm_state_reader_t *r, const uint8_t *p, size_t len)
{
    const uint8_t *first = memchr(p, '\n', len);

    r->p = first != NULL ? first + 1 : p + len;
    r->end = p + len - (len < LLM_STATE_TAIL ? len : LLM_STATE_TAIL);
    r->number = 1;
}


bool
llm_state_next(llm_state_reader_t *r, llm_state_line_t *line)
{
    const uint8_t *p = r->p, *end;

    if (p >= r->end) {
        return false;
    }

    line->number = ++r->number;

    end = memchr(p, '\n', (size_t) (r->end - p));

    if (end == NULL) {
        return false;
    }

    r->p = end + 1;

    if (!llm_state_get_line(p, end, line)) {
        r->p = p;
        return false;
    }

    return true;
}


/* The first line. */
static llm_state_rc_t
llm_state_check_first(const uint8_t *p, size_t len)
{
    const uint8_t *end = p + len;
    uint64_t version;

    if (len == 0) {
        return LLM_STATE_EMPTY;
    }

    if (len < sizeof(LLM_STATE_FIRST) - 1) {
        return memcmp(p, LLM_STATE_FIRST, len) == 0 ? LLM_STATE_TRUNCATED
                                                    : LLM_STATE_FOREIGN;
    }

    if (memcmp(p, LLM_STATE_FIRST, sizeof(LLM_STATE_FIRST) - 1) != 0) {
        return LLM_STATE_FOREIGN;
    }

    p += sizeof(LLM_STATE_FIRST) - 1;

    if (p == end) {
        return LLM_STATE_TRUNCATED;
    }

    if (!llm_state_get_number(&p, end, &version) || version == 0) {
        return LLM_STATE_FOREIGN;
    }

    if (p == end) {
        return LLM_STATE_TRUNCATED;
    }

    if (*p != '\n') {
        return LLM_STATE_FOREIGN;
    }

    return version > LLM_STATE_VERSION ? LLM_STATE_NEWER : LLM_STATE_OK;
}


llm_state_rc_t
llm_state_check(const uint8_t *p, size_t len, llm_state_line_t *line)
{
    const uint8_t *tail;
    llm_state_rc_t rc;
    llm_state_reader_t r;
    uint8_t hex[LLM_STATE_HEX];

    rc = llm_state_check_first(p, len);

    if (rc != LLM_STATE_OK) {
        return rc;
    }

    if (len < LLM_STATE_TAIL) {
        return LLM_STATE_TRUNCATED;
    }

    tail = p + len - LLM_STATE_TAIL;

    if (memcmp(tail, LLM_STATE_LAST, sizeof(LLM_STATE_LAST) - 1) != 0
        || tail[-1] != '\n' || p[len - 1] != '\n')
    {
        return LLM_STATE_TRUNCATED;
    }

    llm_state_sum(p, len - LLM_STATE_TAIL, hex);

    if (memcmp(tail + sizeof(LLM_STATE_LAST) - 1, hex, sizeof(hex)) != 0) {
        return LLM_STATE_CHECKSUM;
    }

    llm_state_read(&r, p, len);

    while (llm_state_next(&r, line)) {
    }

    return r.p == r.end ? LLM_STATE_OK : LLM_STATE_SYNTAX;
}


bool
llm_state_head(const uint8_t *p, size_t len, const char *key,
    llm_state_line_t *line)
{
    llm_state_reader_t r;

    if (llm_state_check_first(p, len) != LLM_STATE_OK) {
        return false;
    }

    llm_state_read(&r, p, len);
    r.end = p + len;

    while (llm_state_next(&r, line) && !line->record) {

        if (line->key_len == strlen(key)
            && memcmp(line->key, key, line->key_len) == 0) {
            return true;
        }
    }

    return false;
}


const char *
llm_state_says(llm_state_rc_t rc)
{
    static const char *const says[] = { "is well", "is empty",
        "is no state of nginx-llm", "is of a newer version", "is not complete",
        "has a wrong checksum", "has a line that cannot be read" };

    return says[rc];
}
