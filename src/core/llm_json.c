/*
 * The JSON scanner.  One state says what the next byte may be; each function
 * takes the bytes from p on as far as it can and returns where it stopped,
 * the end of the piece included, or NULL after an error.
 *
 * Nearly all bytes of a chat are inside strings that nobody looks at: those
 * are skipped 64 at a time.  The two chains "name and colon" and "value and
 * comma" run without going back through the states; what is in them is forced
 * inline, which is worth a third of the time of a short body.
 */

#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "llm_json.h"


#if defined(__GNUC__)
#define LLM_JSON_HOT static inline __attribute__((always_inline))
#else
#define LLM_JSON_HOT static inline
#endif

#define LLM_JSON_BAD_HEX 0x80


typedef enum {
    ST_VALUE = 0,
    ST_FIRST_VALUE, /* behind '[': a value or ']' */
    ST_KEY,
    ST_FIRST_KEY, /* behind '{': a key or '}' */
    ST_COLON,
    ST_AFTER, /* behind a value in an object or array */
    ST_DONE,  /* behind the document */
    ST_STRING,
    ST_ESCAPE, /* behind a backslash */
    ST_HEX,    /* behind \u and perhaps some digits */
    ST_NUMBER,
    ST_LITERAL,
    ST_FAILED
} llm_json_state_t;


typedef enum {
    FOR_VALUE = 0,
    FOR_KEY,
    FOR_MEMBER, /* a key of the outermost object; from here on kept */
    FOR_MODEL
} llm_json_string_t;


typedef enum {
    MEMBER_OTHER = 0,
    MEMBER_ROOT, /* not a member but the document itself */
    MEMBER_MODEL,
    MEMBER_STREAM
} llm_json_member_t;


typedef enum {
    NUM_STOP = 0, /* the byte is no part of the number */
    NUM_START,
    NUM_SIGN,
    NUM_DOT,
    NUM_EXP,
    NUM_EXP_SIGN,
    NUM_ZERO, /* from here on the number may end ... */
    NUM_INT,  /* ... and from here on more digits may come */
    NUM_FRACTION,
    NUM_POWER
} llm_json_number_t;


typedef enum {
    CHAR_OTHER = 0,
    CHAR_ZERO,
    CHAR_DIGIT,
    CHAR_DOT,
    CHAR_EXP,
    CHAR_PLUS,
    CHAR_MINUS,
    CHAR_CLASSES
} llm_json_char_t;


LLM_JSON_HOT const uint8_t *llm_json_step(llm_json_t *j, const uint8_t *p,
    const uint8_t *end);
LLM_JSON_HOT const uint8_t *llm_json_value(llm_json_t *j, const uint8_t *p,
    const uint8_t *end);
LLM_JSON_HOT const uint8_t *llm_json_value_string(llm_json_t *j,
    const uint8_t *p, const uint8_t *end);
LLM_JSON_HOT const uint8_t *llm_json_value_end(llm_json_t *j, const uint8_t *p,
    const uint8_t *end);
LLM_JSON_HOT void llm_json_note(llm_json_t *j, llm_json_type_t type,
    const uint8_t *p);
LLM_JSON_HOT const uint8_t *llm_json_open(llm_json_t *j, const uint8_t *p,
    llm_json_type_t type);
LLM_JSON_HOT const uint8_t *llm_json_close(llm_json_t *j, const uint8_t *p);
LLM_JSON_HOT const uint8_t *llm_json_after(llm_json_t *j, const uint8_t *p);
LLM_JSON_HOT const uint8_t *llm_json_key(llm_json_t *j, const uint8_t *p,
    const uint8_t *end);
LLM_JSON_HOT void llm_json_name(llm_json_t *j, const uint8_t *s, size_t n);
LLM_JSON_HOT const uint8_t *llm_json_key_end(llm_json_t *j, const uint8_t *p,
    const uint8_t *end);
LLM_JSON_HOT const uint8_t *llm_json_colon(llm_json_t *j, const uint8_t *p);
static const uint8_t *llm_json_string(llm_json_t *j, const uint8_t *p,
    const uint8_t *end);
static const uint8_t *llm_json_string_end(llm_json_t *j, const uint8_t *p,
    const uint8_t *end);
static const uint8_t *llm_json_keep(llm_json_t *j, const uint8_t *p,
    const uint8_t *end);
static const uint8_t *llm_json_skip_escapes(const uint8_t *p,
    const uint8_t *end);
static const uint8_t *llm_json_escape(llm_json_t *j, const uint8_t *p);
static const uint8_t *llm_json_hex(llm_json_t *j, const uint8_t *p,
    const uint8_t *end);
static const uint8_t *llm_json_unicode(llm_json_t *j, const uint8_t *p);
static bool llm_json_lone(llm_json_t *j, uint64_t offset);
static void llm_json_put_char(llm_json_t *j, uint32_t c);
static void llm_json_put(llm_json_t *j, const uint8_t *s, size_t n);
LLM_JSON_HOT const uint8_t *llm_json_literal(llm_json_t *j, const uint8_t *p,
    const uint8_t *end);
LLM_JSON_HOT const uint8_t *llm_json_number(llm_json_t *j, const uint8_t *p,
    const uint8_t *end);
static const uint8_t *llm_json_fail(llm_json_t *j, const uint8_t *p,
    const char *error);
static void llm_json_fail_at(llm_json_t *j, uint64_t offset, const char *error);


/* what a character behind a backslash stands for; 0: it may not stand there */
static const uint8_t llm_json_escapes[256] = {
    ['"'] = '"',
    ['\\'] = '\\',
    ['/'] = '/',
    ['b'] = '\b',
    ['f'] = '\f',
    ['n'] = '\n',
    ['r'] = '\r',
    ['t'] = '\t',
};


static const uint8_t llm_json_chars[256] = {
    ['0'] = CHAR_ZERO,
    ['1'] = CHAR_DIGIT,
    ['2'] = CHAR_DIGIT,
    ['3'] = CHAR_DIGIT,
    ['4'] = CHAR_DIGIT,
    ['5'] = CHAR_DIGIT,
    ['6'] = CHAR_DIGIT,
    ['7'] = CHAR_DIGIT,
    ['8'] = CHAR_DIGIT,
    ['9'] = CHAR_DIGIT,
    ['.'] = CHAR_DOT,
    ['e'] = CHAR_EXP,
    ['E'] = CHAR_EXP,
    ['+'] = CHAR_PLUS,
    ['-'] = CHAR_MINUS,
};


/* how a number goes on (RFC 8259, 6) with: other 0 1-9 . e + - */
static const uint8_t llm_json_numbers[][CHAR_CLASSES] = {
    [NUM_START] = { 0, NUM_ZERO, NUM_INT, 0, 0, 0, NUM_SIGN },
    [NUM_SIGN] = { 0, NUM_ZERO, NUM_INT, 0, 0, 0, 0 },
    [NUM_DOT] = { 0, NUM_FRACTION, NUM_FRACTION, 0, 0, 0, 0 },
    [NUM_EXP] = { 0, NUM_POWER, NUM_POWER, 0, 0, NUM_EXP_SIGN, NUM_EXP_SIGN },
    [NUM_EXP_SIGN] = { 0, NUM_POWER, NUM_POWER, 0, 0, 0, 0 },
    [NUM_ZERO] = { 0, 0, 0, NUM_DOT, NUM_EXP, 0, 0 },
    [NUM_INT] = { 0, NUM_INT, NUM_INT, NUM_DOT, NUM_EXP, 0, 0 },
    [NUM_FRACTION] = { 0, NUM_FRACTION, NUM_FRACTION, 0, NUM_EXP, 0, 0 },
    [NUM_POWER] = { 0, NUM_POWER, NUM_POWER, 0, 0, 0, 0 },
};


void
llm_json_init(llm_json_t *j)
{
    j->root = LLM_JSON_ABSENT;
    j->model = LLM_JSON_ABSENT;
    j->stream = LLM_JSON_ABSENT;
    j->model_too_long = false;
    j->model_len = 0;
    j->model_start = 0;
    j->model_end = 0;

    j->error = NULL;
    j->offset = 0;

    j->piece = NULL;
    j->literal = NULL;
    j->high_at = 0;
    j->high = 0;
    j->unicode = 0;
    j->digits = 0;
    j->state = ST_VALUE;
    j->string = FOR_VALUE;
    j->number = NUM_START;
    j->member = MEMBER_ROOT;
    j->key_other = false;
    j->key_len = 0;
    j->depth = 0;
}


llm_json_rc_t
llm_json_scan(llm_json_t *j, const uint8_t *p, size_t len)
{
    const uint8_t *end;

    if (j->state == ST_FAILED) {
        return LLM_JSON_ERROR;
    }

    if (len != 0) {
        j->piece = p;
        j->seen = p;
        end = p + len;

        do {
            p = llm_json_step(j, p, end);

            if (p == NULL) {
                return LLM_JSON_ERROR;
            }

        } while (p < end);

        j->offset += len;
    }

    return (j->state == ST_DONE) ? LLM_JSON_OK : LLM_JSON_AGAIN;
}


llm_json_rc_t
llm_json_end(llm_json_t *j)
{
    switch (j->state) {

    case ST_DONE:
        return LLM_JSON_OK;

    case ST_FAILED:
        return LLM_JSON_ERROR;

    case ST_STRING:
    case ST_ESCAPE:
    case ST_HEX:
        llm_json_fail_at(j, j->offset, "unterminated string");
        return LLM_JSON_ERROR;
    }

    /* nothing but the end tells that a number is whole */

    if (j->state == ST_NUMBER && j->depth == 0 && j->number >= NUM_ZERO) {
        j->state = ST_DONE;
        return LLM_JSON_OK;
    }

    llm_json_fail_at(j, j->offset,
        (j->root == LLM_JSON_ABSENT) ? "empty document" : "unexpected end");
    return LLM_JSON_ERROR;
}


LLM_JSON_HOT const uint8_t *
llm_json_skip_blanks(const uint8_t *p, const uint8_t *end)
{
    if (p == end || *p > ' ') {
        return p;
    }

    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
        p++;
    }

    return p;
}


#if defined(__SSE2__)

/* A bit for each of 64 bytes that needs a look: '"', '\\', a control. */
LLM_JSON_HOT uint64_t
llm_json_special(const uint8_t *p)
{
    int i;
    __m128i v, hit;
    uint64_t special;

    special = 0;

    for (i = 0; i < 64; i += 16) {
        v = _mm_loadu_si128((const __m128i *) (p + i));
        hit = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
        hit = _mm_or_si128(hit, _mm_cmpeq_epi8(v, _mm_set1_epi8('"')));
        hit = _mm_or_si128(hit, _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));

        special |= (uint64_t) (unsigned) _mm_movemask_epi8(hit) << i;
    }

    return special;
}


/* The same for up to 63 bytes; the top bits are theirs. */
static uint64_t
llm_json_special_few(const uint8_t *p, size_t n)
{
    uint8_t text[64] = { 0 };

    memcpy(text + 64 - n, p, n);
    return llm_json_special(text);
}


/* Looks at the bytes from p on, up to 64, but never outside the piece. */
static void
llm_json_look(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    if (end - p >= 64) {
        j->special = llm_json_special(p);
        j->seen = p + 64;

    } else if (end - j->piece >= 64) {
        j->special = llm_json_special(end - 64);
        j->seen = end;

    } else {
        j->special = llm_json_special_few(p, (size_t) (end - p));
        j->seen = end;
    }
}


/*
 * The first byte from p on that needs a look.  The bits of the last 64 bytes
 * are kept: short strings are found in them without touching the text again.
 */
LLM_JSON_HOT const uint8_t *
llm_json_skip_plain(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    uint64_t special;

    while (p < end) {

        if (p >= j->seen) {
            llm_json_look(j, p, end);
        }

        special = j->special >> (64 - (j->seen - p));

        if (special != 0) {
            return p + __builtin_ctzll(special);
        }

        p = j->seen;
    }

    return p;
}

#else

/* The first byte from p on that needs a look: '"', '\\', a control. */
LLM_JSON_HOT const uint8_t *
llm_json_skip_plain(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    uint64_t v, quote, slash, hit;
    const uint64_t ones = UINT64_C(0x0101010101010101);

    (void) j;

    /* a byte's top bit: it is below 0x20, or 0 once what is sought is 0 */

    while (end - p >= 8) {
        memcpy(&v, p, 8);
        quote = v ^ (ones * '"');
        slash = v ^ (ones * '\\');
        hit = ((v - ones * 0x20) & ~v) | ((quote - ones) & ~quote)
              | ((slash - ones) & ~slash);

        if (hit & (ones * 0x80)) {
            break;
        }

        p += 8;
    }

    while (p < end && *p >= 0x20 && *p != '"' && *p != '\\') {
        p++;
    }

    return p;
}

#endif


LLM_JSON_HOT const uint8_t *
llm_json_step(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    switch (j->state) {
    case ST_STRING:
        return llm_json_string(j, p, end);
    case ST_ESCAPE:
        return llm_json_escape(j, p);
    case ST_HEX:
        return llm_json_hex(j, p, end);
    case ST_NUMBER:
        return llm_json_number(j, p, end);
    case ST_LITERAL:
        return llm_json_literal(j, p, end);
    }

    p = llm_json_skip_blanks(p, end);
    if (p == end) {
        return p;
    }

    switch (j->state) {
    case ST_FIRST_VALUE:
        return (*p == ']') ? llm_json_close(j, p) : llm_json_value(j, p, end);
    case ST_VALUE:
        return llm_json_value(j, p, end);
    case ST_FIRST_KEY:
        return (*p == '}') ? llm_json_close(j, p) : llm_json_key(j, p, end);
    case ST_KEY:
        return llm_json_key(j, p, end);
    case ST_COLON:
        return llm_json_colon(j, p);
    case ST_AFTER:
        return llm_json_after(j, p);
    }

    return llm_json_fail(j, p, "unexpected character behind the document");
}


LLM_JSON_HOT const uint8_t *
llm_json_value(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    if (*p == '"') {
        return llm_json_value_string(j, p, end);
    }

    switch (*p) {

    case '{':
        return llm_json_open(j, p, LLM_JSON_OBJECT);

    case '[':
        return llm_json_open(j, p, LLM_JSON_ARRAY);

    case 't':
        llm_json_note(j, LLM_JSON_TRUE, p);
        j->literal = "true";
        return llm_json_literal(j, p, end);

    case 'f':
        llm_json_note(j, LLM_JSON_FALSE, p);
        j->literal = "false";
        return llm_json_literal(j, p, end);

    case 'n':
        llm_json_note(j, LLM_JSON_NULL, p);
        j->literal = "null";
        return llm_json_literal(j, p, end);
    }

    if (*p != '-' && (*p < '0' || *p > '9')) {
        return llm_json_fail(j, p, "unexpected character");
    }

    llm_json_note(j, LLM_JSON_NUMBER, p);
    j->number = NUM_START;
    return llm_json_number(j, p, end);
}


LLM_JSON_HOT const uint8_t *
llm_json_value_string(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    j->string = FOR_VALUE;
    llm_json_note(j, LLM_JSON_STRING_VALUE, p);
    p++;

    if (j->string == FOR_VALUE) {
        p = llm_json_skip_plain(j, p, end);

        if (p < end && *p == '"') {
            return llm_json_value_end(j, p + 1, end);
        }
    }

    j->state = ST_STRING;
    return p;
}


LLM_JSON_HOT const uint8_t *
llm_json_value_end(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    if (j->depth == 0) {
        j->state = ST_DONE;
        return p;
    }

    j->state = ST_AFTER;

    p = llm_json_skip_blanks(p, end);
    return (p < end) ? llm_json_after(j, p) : p;
}


/* A value begins at p: if it is one that counts, its type is kept. */
LLM_JSON_HOT void
llm_json_note(llm_json_t *j, llm_json_type_t type, const uint8_t *p)
{
    uint8_t member;

    if (j->member == MEMBER_OTHER) {
        return;
    }

    member = j->member;
    j->member = MEMBER_OTHER;

    switch (member) {

    case MEMBER_ROOT:
        j->root = type;
        break;

    case MEMBER_STREAM:
        j->stream = type;
        break;

    case MEMBER_MODEL:
        j->model = type;
        j->model_too_long = false;
        j->model_len = 0;
        j->model_start = 0;
        j->model_end = 0;

        if (type == LLM_JSON_STRING_VALUE) {
            j->string = FOR_MODEL;
            j->model_start = j->offset + (uint64_t) (p - j->piece);
        }

        break;
    }
}


LLM_JSON_HOT const uint8_t *
llm_json_open(llm_json_t *j, const uint8_t *p, llm_json_type_t type)
{
    uint8_t *slot, bit;

    if (j->depth == LLM_JSON_DEPTH) {
        return llm_json_fail(j, p, "nested too deeply");
    }

    llm_json_note(j, type, p);

    slot = &j->stack[j->depth / 8];
    bit = (uint8_t) (1u << (j->depth % 8));
    j->depth++;

    if (type == LLM_JSON_OBJECT) {
        *slot = (uint8_t) (*slot | bit);
        j->state = ST_FIRST_KEY;

    } else {
        *slot = (uint8_t) (*slot & ~bit);
        j->state = ST_FIRST_VALUE;
    }

    return p + 1;
}


LLM_JSON_HOT bool
llm_json_in_object(const llm_json_t *j)
{
    uint32_t top;

    top = j->depth - 1;
    return (j->stack[top / 8] >> (top % 8)) & 1;
}


LLM_JSON_HOT const uint8_t *
llm_json_close(llm_json_t *j, const uint8_t *p)
{
    if (*p != (llm_json_in_object(j) ? '}' : ']')) {
        return llm_json_fail(j, p, "unexpected character");
    }

    j->depth--;
    j->state = (j->depth == 0) ? ST_DONE : ST_AFTER;

    return p + 1;
}


LLM_JSON_HOT const uint8_t *
llm_json_after(llm_json_t *j, const uint8_t *p)
{
    if (*p != ',') {
        return llm_json_close(j, p);
    }

    j->state = llm_json_in_object(j) ? ST_KEY : ST_VALUE;

    return p + 1;
}


LLM_JSON_HOT const uint8_t *
llm_json_key(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *name;

    if (*p != '"') {
        return llm_json_fail(j, p, "unexpected character");
    }

    name = p + 1;
    p = llm_json_skip_plain(j, name, end);

    if (p < end && *p == '"') {
        if (j->depth == 1) {
            llm_json_name(j, name, (size_t) (p - name));
        }

        return llm_json_key_end(j, p + 1, end);
    }

    j->state = ST_STRING;
    j->string = FOR_KEY;

    if (j->depth == 1) {
        j->string = FOR_MEMBER;
        j->key_other = false;
        j->key_len = 0;
        llm_json_put(j, name, (size_t) (p - name));
    }

    return p;
}


LLM_JSON_HOT void
llm_json_name(llm_json_t *j, const uint8_t *s, size_t n)
{
    if (n == 5 && memcmp(s, "model", 5) == 0) {
        j->member = MEMBER_MODEL;

    } else if (n == 6 && memcmp(s, "stream", 6) == 0) {
        j->member = MEMBER_STREAM;
    }
}


LLM_JSON_HOT const uint8_t *
llm_json_key_end(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    j->state = ST_COLON;

    p = llm_json_skip_blanks(p, end);
    return (p < end) ? llm_json_colon(j, p) : p;
}


LLM_JSON_HOT const uint8_t *
llm_json_colon(llm_json_t *j, const uint8_t *p)
{
    if (*p != ':') {
        return llm_json_fail(j, p, "unexpected character");
    }

    j->state = ST_VALUE;
    return p + 1;
}


static const uint8_t *
llm_json_string(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *behind;

    if (j->string >= FOR_MEMBER) {
        return llm_json_keep(j, p, end);
    }

    for (;;) {
        p = llm_json_skip_plain(j, p, end);

        if (p == end) {
            return p;
        }

        if (*p == '"') {
            return llm_json_string_end(j, p + 1, end);
        }

        if (*p != '\\') {
            return llm_json_fail(j, p, "control character in a string");
        }

        behind = llm_json_skip_escapes(p, end);

        if (behind == p) {
            j->state = ST_ESCAPE;
            return p + 1;
        }

        p = behind;
    }
}


static const uint8_t *
llm_json_string_end(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    switch (j->string) {

    case FOR_MEMBER:
        if (!j->key_other) {
            llm_json_name(j, j->key, j->key_len);
        }

        return llm_json_key_end(j, p, end);

    case FOR_KEY:
        return llm_json_key_end(j, p, end);

    case FOR_MODEL:
        j->model_end = j->offset + (uint64_t) (p - j->piece);
        break;
    }

    return llm_json_value_end(j, p, end);
}


/* As llm_json_string(), for a string whose text is wanted. */
static const uint8_t *
llm_json_keep(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *plain;

    plain = p;
    p = llm_json_skip_plain(j, p, end);

    if (p > plain) {
        if (!llm_json_lone(j, j->high_at)) {
            return NULL;
        }

        llm_json_put(j, plain, (size_t) (p - plain));
    }

    if (p == end) {
        return p;
    }

    if (*p == '\\') {
        j->state = ST_ESCAPE;
        return p + 1;
    }

    if (*p != '"') {
        return llm_json_fail(j, p, "control character in a string");
    }

    if (!llm_json_lone(j, j->high_at)) {
        return NULL;
    }

    return llm_json_string_end(j, p + 1, end);
}


/* The value of a hexadecimal digit, LLM_JSON_BAD_HEX of anything else. */
static inline uint32_t
llm_json_hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return (uint32_t) (c - '0');
    }

    c |= 0x20;

    return (c >= 'a' && c <= 'f') ? (uint32_t) (c - 'a' + 10)
                                  : LLM_JSON_BAD_HEX;
}


/*
 * Behind the well-formed escapes at p that are in the piece as a whole; what
 * is cut or malformed is left to llm_json_escape() and llm_json_hex().
 */
static const uint8_t *
llm_json_skip_escapes(const uint8_t *p, const uint8_t *end)
{
    uint32_t bad;

    while (end - p >= 2 && p[0] == '\\') {

        if (p[1] != 'u') {
            if (llm_json_escapes[p[1]] == 0) {
                break;
            }

            p += 2;
            continue;
        }

        if (end - p < 6) {
            break;
        }

        bad = llm_json_hex_digit(p[2]) | llm_json_hex_digit(p[3])
              | llm_json_hex_digit(p[4]) | llm_json_hex_digit(p[5]);

        if (bad & LLM_JSON_BAD_HEX) {
            break;
        }

        p += 6;
    }

    return p;
}


static const uint8_t *
llm_json_escape(llm_json_t *j, const uint8_t *p)
{
    const uint8_t *c;

    if (*p == 'u') {
        j->unicode = 0;
        j->digits = 0;
        j->state = ST_HEX;
        return p + 1;
    }

    c = &llm_json_escapes[*p];

    if (*c == 0) {
        return llm_json_fail(j, p, "bad escape in a string");
    }

    if (j->string >= FOR_MEMBER) {
        if (!llm_json_lone(j, j->high_at)) {
            return NULL;
        }

        llm_json_put(j, c, 1);
    }

    j->state = ST_STRING;
    return p + 1;
}


static const uint8_t *
llm_json_hex(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    uint32_t digit;

    for (/* void */; p < end; p++) {
        digit = llm_json_hex_digit(*p);

        if (digit == LLM_JSON_BAD_HEX) {
            return llm_json_fail(j, p, "bad escape in a string");
        }

        j->unicode = (j->unicode << 4) | digit;

        if (++j->digits == 4) {
            j->state = ST_STRING;
            p++;
            return (j->string >= FOR_MEMBER) ? llm_json_unicode(j, p) : p;
        }
    }

    return p;
}


/* Takes the \u escape that ends at p into the string that is kept. */
static const uint8_t *
llm_json_unicode(llm_json_t *j, const uint8_t *p)
{
    uint32_t c;
    uint64_t start;

    c = j->unicode;
    start = j->offset + (uint64_t) (p - j->piece) - 6;

    if (c >= 0xdc00 && c <= 0xdfff) {
        if (j->high != 0) {
            c = 0x10000 + ((j->high - 0xd800) << 10) + (c - 0xdc00);
            j->high = 0;
            llm_json_put_char(j, c);
            return p;
        }

        j->high = c;
        return llm_json_lone(j, start) ? p : NULL;
    }

    if (!llm_json_lone(j, j->high_at)) {
        return NULL;
    }

    if (c >= 0xd800 && c <= 0xdbff) {
        j->high = c;
        j->high_at = start;
        return p;
    }

    llm_json_put_char(j, c);
    return p;
}


/*
 * To be called where a surrogate that waits has no partner.  False if that
 * is an error; a name with one is just none that counts.
 */
static bool
llm_json_lone(llm_json_t *j, uint64_t offset)
{
    if (j->high == 0) {
        return true;
    }

    j->high = 0;

    if (j->string == FOR_MODEL) {
        llm_json_fail_at(j, offset, "lone surrogate in \"model\"");
        return false;
    }

    j->key_other = true;
    return true;
}


static void
llm_json_put_char(llm_json_t *j, uint32_t c)
{
    size_t n;
    uint8_t s[4];

    if (c < 0x80) {
        s[0] = (uint8_t) c;
        n = 1;

    } else if (c < 0x800) {
        s[0] = (uint8_t) (0xc0 | (c >> 6));
        s[1] = (uint8_t) (0x80 | (c & 0x3f));
        n = 2;

    } else if (c < 0x10000) {
        s[0] = (uint8_t) (0xe0 | (c >> 12));
        s[1] = (uint8_t) (0x80 | ((c >> 6) & 0x3f));
        s[2] = (uint8_t) (0x80 | (c & 0x3f));
        n = 3;

    } else {
        s[0] = (uint8_t) (0xf0 | (c >> 18));
        s[1] = (uint8_t) (0x80 | ((c >> 12) & 0x3f));
        s[2] = (uint8_t) (0x80 | ((c >> 6) & 0x3f));
        s[3] = (uint8_t) (0x80 | (c & 0x3f));
        n = 4;
    }

    if (c == 0 && j->string == FOR_MODEL) {
        j->model_too_long = true;
    }

    llm_json_put(j, s, n);
}


static void
llm_json_put(llm_json_t *j, const uint8_t *s, size_t n)
{
    if (j->string == FOR_MEMBER) {
        if (j->key_other || n > sizeof(j->key) - j->key_len) {
            j->key_other = true;
            return;
        }

        while (n-- != 0) {
            j->key[j->key_len++] = *s++;
        }

        return;
    }

    if (j->model_too_long || n > LLM_JSON_STRING - j->model_len) {
        j->model_too_long = true;
        j->model_len = 0;
        return;
    }

    memcpy(j->model_value + j->model_len, s, n);
    j->model_len += n;
}


LLM_JSON_HOT const uint8_t *
llm_json_literal(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    const char *rest;

    rest = j->literal;

    while (*rest != '\0' && p < end) {
        if (*p != (uint8_t) *rest) {
            return llm_json_fail(j, p, "malformed literal");
        }

        p++;
        rest++;
    }

    if (*rest == '\0') {
        return llm_json_value_end(j, p, end);
    }

    j->literal = rest;
    j->state = ST_LITERAL;

    return p;
}


LLM_JSON_HOT const uint8_t *
llm_json_number(llm_json_t *j, const uint8_t *p, const uint8_t *end)
{
    uint8_t part, next;

    part = j->number;

    while (p < end) {
        next = llm_json_numbers[part][llm_json_chars[*p]];

        if (next == NUM_STOP) {
            if (part < NUM_ZERO) {
                return llm_json_fail(j, p, "malformed number");
            }

            return llm_json_value_end(j, p, end);
        }

        part = next;
        p++;

        if (part >= NUM_INT) {
            while (p < end && *p >= '0' && *p <= '9') {
                p++;
            }
        }
    }

    j->number = part;
    j->state = ST_NUMBER;

    return p;
}


static const uint8_t *
llm_json_fail(llm_json_t *j, const uint8_t *p, const char *error)
{
    llm_json_fail_at(j, j->offset + (uint64_t) (p - j->piece), error);
    return NULL;
}


static void
llm_json_fail_at(llm_json_t *j, uint64_t offset, const char *error)
{
    j->state = ST_FAILED;
    j->error = error;
    j->offset = offset;
}
