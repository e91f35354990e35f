/*
 * The key of a body.  The JSON reader checks the grammar of each piece first,
 * so here the text is known to be JSON, and only its tokens are told apart.
 *
 * What is hashed is the document's text in one form: no blanks; in strings,
 * quotes and backslashes have a backslash before them, lone surrogates are
 * \u escapes, and all else is itself.  In the place of an object stand its
 * brackets, the number of its members, and their hashes.
 */

#include <string.h>

#include "llm_canonical.h"
#include "llm_json_string.h"


typedef enum {
    IN_STRUCTURE = 0,
    IN_WORD, /* a number, or true, false, null */
    IN_TEXT,
    IN_ESCAPE, /* behind a backslash */
    IN_HEX     /* behind \u and perhaps some digits */
} llm_canonical_state_t;


static void llm_canonical_walk(llm_canonical_t *c, const uint8_t *p,
    const uint8_t *end);
static const uint8_t *llm_canonical_structure(llm_canonical_t *c,
    const uint8_t *p);
static const uint8_t *llm_canonical_word(llm_canonical_t *c, const uint8_t *p,
    const uint8_t *end);
static const uint8_t *llm_canonical_text(llm_canonical_t *c, const uint8_t *p,
    const uint8_t *end);
static void llm_canonical_string(llm_canonical_t *c);
static void llm_canonical_string_end(llm_canonical_t *c);
static void llm_canonical_escape(llm_canonical_t *c, uint8_t byte);
static void llm_canonical_digit(llm_canonical_t *c, uint8_t byte);
static void llm_canonical_lone(llm_canonical_t *c);
static void llm_canonical_char(llm_canonical_t *c, uint32_t code);
static void llm_canonical_open(llm_canonical_t *c);
static void llm_canonical_close(llm_canonical_t *c);
static bool llm_canonical_is_ignored(const llm_canonical_t *c);
static void llm_canonical_member(llm_canonical_t *c);
static void llm_canonical_put(llm_canonical_t *c, const void *s, size_t n);


/* A change of the form needs another number: caches outlive programs. */
static const char llm_canonical_version[] = "nginx-llm 1\n";


/*
 * What does not change an answer: who asks, for what account, with which
 * urgency, and the provider's own caching.
 */
static const char *const llm_canonical_ignored[] = { "user", "metadata",
    "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "service_tier" };


/* The reader is to check, and to tell of nothing. */
static const llm_json_rules_t llm_canonical_rules = { .levels = NULL };


void
llm_canonical_init(llm_canonical_t *c)
{
    memset(c, 0, offsetof(llm_canonical_t, grammar));
    llm_json_reader_init(&c->grammar, &llm_canonical_rules);

    c->objects[0].arrays = 0;
    llm_sha256_init(&c->objects[0].hash);
    llm_canonical_put(c, llm_canonical_version,
        sizeof(llm_canonical_version) - 1);
}


llm_json_rc_t
llm_canonical_scan(llm_canonical_t *c, const uint8_t *p, size_t len)
{
    llm_json_rc_t rc;

    if (c->error != NULL) {
        return LLM_JSON_ERROR;
    }

    rc = llm_json_reader_scan(&c->grammar, p, len);

    /* up to an error all was well, and what is beyond a limit comes first */

    if (rc == LLM_JSON_ERROR) {
        len = (size_t) (c->grammar.offset - c->offset);
    }

    if (len != 0) {
        llm_canonical_walk(c, p, p + len);
    }

    if (c->error == NULL && rc == LLM_JSON_ERROR) {
        c->error = c->grammar.error;
    }

    return (c->error == NULL) ? rc : LLM_JSON_ERROR;
}


llm_json_rc_t
llm_canonical_end(llm_canonical_t *c)
{
    llm_sha256_t hash;

    if (c->error != NULL) {
        return LLM_JSON_ERROR;
    }

    if (llm_json_reader_end(&c->grammar) != LLM_JSON_OK) {
        c->error = c->grammar.error;
        c->offset = c->grammar.offset;
        return LLM_JSON_ERROR;
    }

    hash = c->objects[0].hash;
    llm_sha256_final(&hash, c->key);

    return LLM_JSON_OK;
}


void
llm_canonical_hex(const llm_canonical_t *c, char hex[LLM_CANONICAL_HEX])
{
    size_t i;

    static const char digits[] = "0123456789abcdef";

    for (i = 0; i < LLM_SHA256_LEN; i++) {
        hex[2 * i] = digits[c->key[i] >> 4];
        hex[2 * i + 1] = digits[c->key[i] & 0xf];
    }
}


static void
llm_canonical_walk(llm_canonical_t *c, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *piece;

    piece = p;

    while (p < end) {
        switch (c->state) {

        case IN_STRUCTURE:
            p = llm_canonical_structure(c, p);
            break;

        case IN_WORD:
            p = llm_canonical_word(c, p, end);
            break;

        case IN_TEXT:
            p = llm_canonical_text(c, p, end);
            break;

        case IN_ESCAPE:
            llm_canonical_escape(c, *p++);
            break;

        case IN_HEX:
            llm_canonical_digit(c, *p++);
            break;
        }

        if (c->error != NULL) {
            c->offset += (uint64_t) (p - piece) - 1;
            return;
        }
    }

    c->offset += (uint64_t) (end - piece);
}


static const uint8_t *
llm_canonical_structure(llm_canonical_t *c, const uint8_t *p)
{
    llm_canonical_object_t *object;

    object = &c->objects[c->depth];

    switch (*p) {

    case ' ':
    case '\t':
    case '\n':
    case '\r':
        break;

    case '"':
        llm_canonical_string(c);
        break;

    case '{':
        llm_canonical_open(c);
        break;

    case '}':
        llm_canonical_close(c);
        break;

    case '[':
        object->arrays++;
        llm_canonical_put(c, "[", 1);
        break;

    case ']':
        object->arrays--;
        llm_canonical_put(c, "]", 1);
        break;

    case ',':
        if (object->arrays != 0) {
            llm_canonical_put(c, ",", 1);

        } else {
            llm_canonical_member(c);
            c->name_next = true;
        }

        break;

    case ':':
        llm_canonical_put(c, ":", 1);
        break;

    default:
        c->state = IN_WORD;
        return p;
    }

    return p + 1;
}


static const uint8_t *
llm_canonical_word(llm_canonical_t *c, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *word;

    word = p;

    while (p<end && * p> ' ' && *p != ',' && *p != ']' && *p != '}') {
        p++;
    }

    llm_canonical_put(c, word, (size_t) (p - word));

    if (p < end) {
        c->state = IN_STRUCTURE;
    }

    return p;
}


/* Strings */

/* One begins.  If it is a name, so does a member. */
static void
llm_canonical_string(llm_canonical_t *c)
{
    llm_canonical_object_t *object;

    object = &c->objects[c->depth];

    if (c->name_next) {
        llm_sha256_init(&object->hash);
        object->name = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
        c->name_len = 0;
    }

    llm_canonical_put(c, "\"", 1);

    c->in_name = c->name_next;
    c->name_next = false;
    c->state = IN_TEXT;
}


static const uint8_t *
llm_canonical_text(llm_canonical_t *c, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *text;

    text = p;

    while (p < end && *p != '"' && *p != '\\') {
        p++;
    }

    if (p > text) {
        llm_canonical_lone(c);
        llm_canonical_put(c, text, (size_t) (p - text));
    }

    if (p == end) {
        return p;
    }

    if (*p == '\\') {
        c->state = IN_ESCAPE;

    } else {
        llm_canonical_string_end(c);
    }

    return p + 1;
}


static void
llm_canonical_string_end(llm_canonical_t *c)
{
    llm_canonical_lone(c);

    if (c->in_name && c->depth == 1) {
        c->ignored = c->objects[0].arrays == 0 && llm_canonical_is_ignored(c);
    }

    c->in_name = false;
    c->state = IN_STRUCTURE;

    llm_canonical_put(c, "\"", 1);
}


static bool
llm_canonical_is_ignored(const llm_canonical_t *c)
{
    size_t i;
    const char *name;

    for (i = 0; i < sizeof(llm_canonical_ignored) / sizeof(char *); i++) {
        name = llm_canonical_ignored[i];

        if (strlen(name) == c->name_len
            && memcmp(name, c->name, c->name_len) == 0) {
            return true;
        }
    }

    return false;
}


static void
llm_canonical_escape(llm_canonical_t *c, uint8_t byte)
{
    if (byte == 'u') {
        c->unicode = 0;
        c->digits = 0;
        c->state = IN_HEX;
        return;
    }

    llm_canonical_lone(c);
    llm_canonical_char(c, llm_json_escapes[byte]);
    c->state = IN_TEXT;
}


static void
llm_canonical_digit(llm_canonical_t *c, uint8_t byte)
{
    uint32_t code;

    c->unicode = (uint16_t) (c->unicode << 4 | llm_json_hex_digits[byte]);

    if (++c->digits < 4) {
        return;
    }

    c->state = IN_TEXT;
    code = c->unicode;

    if (code >= 0xdc00 && code <= 0xdfff && c->high != 0) {
        code = 0x10000 + ((c->high - 0xd800u) << 10) + (code - 0xdc00);
        c->high = 0;
        llm_canonical_char(c, code);
        return;
    }

    llm_canonical_lone(c);

    if (code >= 0xd800 && code <= 0xdfff) {
        c->high = (uint16_t) code;

        if (code >= 0xdc00) {
            llm_canonical_lone(c);
        }

        return;
    }

    llm_canonical_char(c, code);
}


/* To be called where a surrogate that waits has no partner. */
static void
llm_canonical_lone(llm_canonical_t *c)
{
    size_t i;
    char s[6];

    if (c->high == 0) {
        return;
    }

    s[0] = '\\';
    s[1] = 'u';

    for (i = 0; i < 4; i++) {
        s[2 + i] = "0123456789abcdef"[(c->high >> (12 - 4 * i)) & 0xf];
    }

    c->high = 0;
    llm_canonical_put(c, s, sizeof(s));
}


static void
llm_canonical_char(llm_canonical_t *c, uint32_t code)
{
    size_t n;
    uint8_t s[4];

    if (code == '"' || code == '\\') {
        llm_canonical_put(c, "\\", 1);
    }

    n = llm_json_utf8(s, code);
    llm_canonical_put(c, s, n);
}


/* Objects */

static void
llm_canonical_open(llm_canonical_t *c)
{
    llm_canonical_object_t *object;

    if (c->depth == LLM_CANONICAL_DEPTH) {
        c->error = "nested too deeply for a key";
        return;
    }

    object = &c->objects[++c->depth];
    object->first = c->members;
    object->arrays = 0;

    c->name_next = true;
}


static void
llm_canonical_close(llm_canonical_t *c)
{
    uint32_t i, n, first;
    uint8_t count[4];

    if (!c->name_next) {
        llm_canonical_member(c);

        if (c->error != NULL) {
            return;
        }
    }

    first = c->objects[c->depth].first;
    n = c->members - first;

    count[0] = (uint8_t) (n >> 24);
    count[1] = (uint8_t) (n >> 16);
    count[2] = (uint8_t) (n >> 8);
    count[3] = (uint8_t) n;

    c->depth--;
    c->members = first;
    c->name_next = false;

    llm_canonical_put(c, "{", 1);
    llm_canonical_put(c, count, sizeof(count));

    for (i = first; i < first + n; i++) {
        llm_canonical_put(c, c->member[c->order[i]].digest, LLM_SHA256_LEN);
    }

    llm_canonical_put(c, "}", 1);
}


/* The member at hand is complete: it takes its place among the others. */
static void
llm_canonical_member(llm_canonical_t *c)
{
    uint32_t low, high, middle;
    llm_canonical_object_t *object;

    if (c->depth == 1 && c->ignored) {
        return;
    }

    if (c->members == LLM_CANONICAL_MEMBERS) {
        c->error = "too many members for a key";
        return;
    }

    object = &c->objects[c->depth];
    low = object->first;
    high = c->members;

    while (low < high) {
        middle = (low + high) / 2;

        if (c->member[c->order[middle]].name <= object->name) {
            low = middle + 1;

        } else {
            high = middle;
        }
    }

    memmove(&c->order[low + 1], &c->order[low],
        (c->members - low) * sizeof(c->order[0]));

    c->order[low] = (uint16_t) c->members;
    c->member[c->members].name = object->name;
    llm_sha256_final(&object->hash, c->member[c->members].digest);
    c->members++;
}


/* Takes bytes of the form into the hash of the member at hand. */
static void
llm_canonical_put(llm_canonical_t *c, const void *s, size_t n)
{
    size_t i;
    const uint8_t *p;
    llm_canonical_object_t *object;

    object = &c->objects[c->depth];
    llm_sha256_update(&object->hash, s, n);

    if (!c->in_name) {
        return;
    }

    for (p = s, i = 0; i < n; i++) {
        object->name = (object->name ^ p[i]) * UINT64_C(0x100000001b3);
    }

    if (n > LLM_CANONICAL_NAME - c->name_len) {
        c->name_len = LLM_CANONICAL_NAME; /* too long for any that is ignored */
        return;
    }

    memcpy(c->name + c->name_len, s, n);
    c->name_len += (uint32_t) n;
}
