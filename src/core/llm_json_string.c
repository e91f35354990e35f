/*
 * The JSON reader inside strings.  Nearly all bytes of a chat are in strings
 * that nobody looks at: those are skipped, see llm_json_skip.c.
 */

#include "llm_json_string.h"


static const uint8_t *llm_json_keep(llm_json_reader_t *r, const uint8_t *p,
    const uint8_t *end);
static const uint8_t *llm_json_skip_escapes(const uint8_t *p,
    const uint8_t *end);
static const uint8_t *llm_json_unicode(llm_json_reader_t *r, const uint8_t *p);
static bool llm_json_lone(llm_json_reader_t *r, uint64_t offset);
static void llm_json_put_char(llm_json_reader_t *r, uint32_t c);


const uint8_t *
llm_json_string(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *behind;

    if (r->string >= FOR_NAME) {
        return llm_json_keep(r, p, end);
    }

    for (;;) {
        p = llm_json_skip(r, p, end, LLM_JSON_TEXT);

        if (p == end) {
            return p;
        }

        if (*p == '"') {
            r->state = ST_STRING_END;
            return p + 1;
        }

        if (*p != '\\') {
            return llm_json_fail(r, p, "control character in a string");
        }

        behind = llm_json_skip_escapes(p, end);

        if (behind == p) {
            r->state = ST_ESCAPE;
            return p + 1;
        }

        p = behind;
    }
}


/* As llm_json_string(), for a string whose text is wanted. */
static const uint8_t *
llm_json_keep(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *plain;

    plain = p;
    p = llm_json_skip(r, p, end, LLM_JSON_PLAIN);

    if (p > plain) {
        if (!llm_json_lone(r, r->high_at)) {
            return NULL;
        }

        llm_json_put(r, plain, (size_t) (p - plain));
    }

    if (p == end) {
        return p;
    }

    if (*p == '\\') {
        r->state = ST_ESCAPE;
        return p + 1;
    }

    if (*p != '"') {
        return llm_json_fail(r, p, "control character in a string");
    }

    if (!llm_json_lone(r, r->high_at)) {
        return NULL;
    }

    r->state = ST_STRING_END;
    return p + 1;
}


/*
 * Behind the well-formed escapes at p that are in the piece as a whole; what
 * is cut or malformed is left to llm_json_escape() and llm_json_hex().
 */
static const uint8_t *
llm_json_skip_escapes(const uint8_t *p, const uint8_t *end)
{
    while (end - p >= 2 && p[0] == '\\') {

        if (p[1] != 'u') {
            if (llm_json_escapes[p[1]] == 0) {
                break;
            }

            p += 2;
            continue;
        }

        if (end - p < 6 || !llm_json_hex_four(p + 2)) {
            break;
        }

        p += 6;
    }

    return p;
}


const uint8_t *
llm_json_escape(llm_json_reader_t *r, const uint8_t *p)
{
    const uint8_t *c;

    if (*p == 'u') {
        r->unicode = 0;
        r->digits = 0;
        r->state = ST_HEX;
        return p + 1;
    }

    c = &llm_json_escapes[*p];

    if (*c == 0) {
        return llm_json_fail(r, p, "bad escape in a string");
    }

    if (r->string >= FOR_NAME) {
        if (!llm_json_lone(r, r->high_at)) {
            return NULL;
        }

        llm_json_put(r, c, 1);
    }

    r->state = ST_STRING;
    return p + 1;
}


const uint8_t *
llm_json_hex(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    uint32_t digit;

    for (/* void */; p < end; p++) {
        digit = llm_json_hex_digits[*p];

        if (digit == LLM_JSON_BAD_HEX) {
            return llm_json_fail(r, p, "bad escape in a string");
        }

        r->unicode = (r->unicode << 4) | digit;

        if (++r->digits == 4) {
            r->state = ST_STRING;
            p++;
            return (r->string >= FOR_NAME) ? llm_json_unicode(r, p) : p;
        }
    }

    return p;
}


/* Takes the \u escape that ends at p into the string that is kept. */
static const uint8_t *
llm_json_unicode(llm_json_reader_t *r, const uint8_t *p)
{
    uint32_t c;
    uint64_t start;

    c = r->unicode;
    start = llm_json_at(r, p) - 6;

    if (c >= 0xdc00 && c <= 0xdfff) {
        if (r->high != 0) {
            c = 0x10000 + ((r->high - 0xd800) << 10) + (c - 0xdc00);
            r->high = 0;
            llm_json_put_char(r, c);
            return p;
        }

        r->high = c;
        return llm_json_lone(r, start) ? p : NULL;
    }

    if (!llm_json_lone(r, r->high_at)) {
        return NULL;
    }

    if (c >= 0xd800 && c <= 0xdbff) {
        r->high = c;
        r->high_at = start;
        return p;
    }

    llm_json_put_char(r, c);
    return p;
}


/*
 * To be called where a surrogate that waits has no partner.  False if that
 * is an error; a name with one is just none of the table.
 */
static bool
llm_json_lone(llm_json_reader_t *r, uint64_t offset)
{
    if (r->high == 0) {
        return true;
    }

    r->high = 0;

    if (r->string == FOR_NAME) {
        r->strange = true;
        return true;
    }

    if (r->rules->lone != NULL) {
        llm_json_fail_at(r, offset, r->rules->lone);
        return false;
    }

    llm_json_put_char(r, 0xfffd);
    return true;
}


static void
llm_json_put_char(llm_json_reader_t *r, uint32_t c)
{
    size_t n;
    uint8_t s[4];

    n = llm_json_utf8(s, c);
    llm_json_put(r, s, n);
}


void
llm_json_put(llm_json_reader_t *r, const uint8_t *s, size_t n)
{
    if (r->string == FOR_TEXT) {
        r->rules->text(r, r->what, s, n);
        return;
    }

    if (r->strange || n > sizeof(r->name) - r->name_len) {
        r->strange = true;
        return;
    }

    memcpy(r->name + r->name_len, s, n);
    r->name_len = (uint8_t) (r->name_len + n);
}
