/*
 * The scanner over an error's body.
 */

#include <string.h>

#include "llm_error_scan.h"


/* what a value is, by where it stands, its name and how it begins */
typedef struct {
    llm_error_what_t inside;
    const char *key;
    char begin;
    llm_error_what_t what;
} llm_error_step_t;


#define DOCUMENT LLM_ERROR_DOCUMENT
#define LIST LLM_ERROR_LIST
#define BODY LLM_ERROR_BODY
#define RESPONSE LLM_ERROR_RESPONSE
#define OBJECT LLM_ERROR_OBJECT
#define DETAILS LLM_ERROR_DETAILS
#define DETAIL LLM_ERROR_DETAIL
#define WORD LLM_ERROR_WORD
#define MESSAGE LLM_ERROR_MESSAGE
#define DELAY LLM_ERROR_DELAY


static const llm_error_step_t llm_error_steps[] = {
    { DOCUMENT, "", '{', BODY },
    { DOCUMENT, "", '[', LIST },
    { LIST, "", '{', BODY },

    { BODY, "error", '{', OBJECT },
    { BODY, "error", '"', MESSAGE },
    { BODY, "response", '{', RESPONSE },
    { BODY, "type", '"', WORD },
    { BODY, "code", '"', WORD },
    { BODY, "status", '"', WORD },
    { BODY, "message", '"', MESSAGE },

    { RESPONSE, "error", '{', OBJECT },

    { OBJECT, "type", '"', WORD },
    { OBJECT, "code", '"', WORD },
    { OBJECT, "status", '"', WORD },
    { OBJECT, "message", '"', MESSAGE },
    { OBJECT, "innererror", '{', DETAIL },
    { OBJECT, "details", '{', DETAIL },
    { OBJECT, "details", '[', DETAILS },
    { DETAILS, "", '{', DETAIL },

    { DETAIL, "code", '"', WORD },
    { DETAIL, "error_code", '"', WORD },
    { DETAIL, "reason", '"', WORD },
    { DETAIL, "retryDelay", '"', DELAY },
};

#define LLM_ERROR_STEPS (sizeof(llm_error_steps) / sizeof(llm_error_steps[0]))


typedef enum {
    LLM_ERROR_GO_ON = 0,
    LLM_ERROR_FOUND,
    LLM_ERROR_OVER
} llm_error_rc_t;


static llm_error_rc_t llm_error_token(llm_error_scan_t *s);
static llm_error_rc_t llm_error_close(llm_error_scan_t *s);
static void llm_error_open(llm_error_scan_t *s, char begin);
static llm_error_rc_t llm_error_string(llm_error_scan_t *s);
static bool llm_error_is_name(const llm_error_scan_t *s);
static void llm_error_decode(llm_error_scan_t *s);
static uint8_t llm_error_escape(llm_error_scan_t *s);
static uint8_t llm_error_unicode(llm_error_scan_t *s);
static llm_error_what_t llm_error_step(const llm_error_scan_t *s, char begin);


void
llm_error_scan_init(llm_error_scan_t *s, const uint8_t *body, size_t len)
{
    s->p = body;
    s->end = len != 0 ? body + len : body;
    s->depth = 0;
    s->inside[0] = LLM_ERROR_DOCUMENT;
    s->key_len = 0;
}


bool
llm_error_scan_next(llm_error_scan_t *s)
{
    while (s->p < s->end) {
        switch (llm_error_token(s)) {

        case LLM_ERROR_GO_ON:
            break;

        case LLM_ERROR_FOUND:
            return true;

        case LLM_ERROR_OVER:
            s->p = s->end;
            break;
        }
    }

    return false;
}


static llm_error_rc_t
llm_error_token(llm_error_scan_t *s)
{
    char c = (char) *s->p++;

    switch (c) {

    case ' ':
    case '\t':
    case '\n':
    case '\r':
        return LLM_ERROR_GO_ON;

    case '{':
    case '[':
        llm_error_open(s, c);
        return LLM_ERROR_GO_ON;

    default:
        break;
    }

    if (s->depth == 0) {
        return LLM_ERROR_OVER;
    }

    switch (c) {

    case ':':
        return LLM_ERROR_GO_ON;

    case ',':
        s->key_len = 0;
        return LLM_ERROR_GO_ON;

    case '}':
    case ']':
        return llm_error_close(s);

    case '"':
        return llm_error_string(s);

    default:
        /* numbers and literals */
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z')
                       || (c >= 'A' && c <= 'Z') || c == '-' || c == '+'
                       || c == '.'
                   ? LLM_ERROR_GO_ON
                   : LLM_ERROR_OVER;
    }
}


static llm_error_what_t
llm_error_inside(const llm_error_scan_t *s)
{
    return s->depth <= LLM_ERROR_DEPTH ? s->inside[s->depth]
                                       : LLM_ERROR_NOTHING;
}


static void
llm_error_open(llm_error_scan_t *s, char begin)
{
    llm_error_what_t what = llm_error_step(s, begin);

    s->depth++;
    s->key_len = 0;

    if (s->depth <= LLM_ERROR_DEPTH) {
        s->inside[s->depth] = what;
    }
}


static llm_error_rc_t
llm_error_close(llm_error_scan_t *s)
{
    s->depth--;
    s->key_len = 0;

    return s->depth != 0 ? LLM_ERROR_GO_ON : LLM_ERROR_OVER;
}


static llm_error_rc_t
llm_error_string(llm_error_scan_t *s)
{
    llm_error_decode(s);

    if (llm_error_is_name(s)) {
        s->key_len = s->len < LLM_ERROR_KEY ? s->len : LLM_ERROR_KEY;
        memcpy(s->key, s->text, s->key_len);
        return LLM_ERROR_GO_ON;
    }

    s->what = llm_error_step(s, '"');
    s->key_len = 0;

    return s->what != LLM_ERROR_NOTHING ? LLM_ERROR_FOUND : LLM_ERROR_GO_ON;
}


/* Of all strings only a name has a colon behind it. */
static bool
llm_error_is_name(const llm_error_scan_t *s)
{
    const uint8_t *p = s->p;

    while (p < s->end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
    {
        p++;
    }

    return p < s->end && *p == ':';
}


/* Decodes up to the closing quote; what does not fit is passed over. */
static void
llm_error_decode(llm_error_scan_t *s)
{
    uint8_t c;

    s->len = 0;
    s->cut = false;

    while (s->p < s->end) {
        c = *s->p++;

        if (c == '"') {
            return;
        }

        if (c == '\\') {
            c = llm_error_escape(s);
        }

        if (s->len < LLM_ERROR_TEXT) {
            s->text[s->len++] = (char) c;

        } else {
            s->cut = true;
        }
    }

    s->cut = true;
}


static uint8_t
llm_error_escape(llm_error_scan_t *s)
{
    uint8_t c;

    if (s->p == s->end) {
        return '\\';
    }

    c = *s->p++;

    switch (c) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'u':
        return llm_error_unicode(s);
    default:
        return c;
    }
}


/* What is not ASCII is in no row of the table: "?" will do. */
static uint8_t
llm_error_unicode(llm_error_scan_t *s)
{
    unsigned code = 0;

    for (int i = 0; i < 4; i++) {
        uint8_t c = s->p < s->end ? *s->p : 0;

        if (c >= '0' && c <= '9') {
            code = code * 16 + (unsigned) (c - '0');

        } else if ((c | 32) >= 'a' && (c | 32) <= 'f') {
            code = code * 16 + (unsigned) ((c | 32) - 'a') + 10;

        } else {
            return '?';
        }

        s->p++;
    }

    return code < 0x80 ? (uint8_t) code : '?';
}


static llm_error_what_t
llm_error_step(const llm_error_scan_t *s, char begin)
{
    llm_error_what_t inside = llm_error_inside(s);

    for (size_t i = 0; i < LLM_ERROR_STEPS; i++) {
        const llm_error_step_t *step = &llm_error_steps[i];

        if (step->inside == inside && step->begin == begin
            && strlen(step->key) == s->key_len
            && memcmp(step->key, s->key, s->key_len) == 0)
        {
            return step->what;
        }
    }

    return LLM_ERROR_NOTHING;
}
