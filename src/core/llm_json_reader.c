/*
 * The JSON reader: the structure of a document.  One state says what the next
 * byte may be; each function takes the bytes from p on as far as it can and
 * returns where it stopped, the end of the piece included, or NULL after an
 * error.
 *
 * The two chains "name and colon" and "value and comma" run without going
 * back through the states; what is in them is forced inline, which is worth a
 * third of the time of a short body.
 *
 * ->path[d] is what the container at depth d is, down to depth ->known;
 * whatever is deeper leads to nothing that is told.
 */

#include "llm_json_number.h"
#include "llm_json_string.h"


LLM_JSON_HOT const uint8_t *llm_json_step(llm_json_reader_t *r,
    const uint8_t *p, const uint8_t *end);
LLM_JSON_HOT const uint8_t *llm_json_value(llm_json_reader_t *r,
    const uint8_t *p, const uint8_t *end);
LLM_JSON_HOT const uint8_t *llm_json_value_string(llm_json_reader_t *r,
    const uint8_t *p, const uint8_t *end);
LLM_JSON_HOT const uint8_t *llm_json_value_end(llm_json_reader_t *r,
    const uint8_t *p, const uint8_t *end);
LLM_JSON_HOT void llm_json_done(llm_json_reader_t *r, uint64_t offset);
LLM_JSON_HOT void llm_json_note(llm_json_reader_t *r, llm_json_type_t type,
    const uint8_t *p);
LLM_JSON_HOT const uint8_t *llm_json_open(llm_json_reader_t *r,
    const uint8_t *p, llm_json_type_t type);
LLM_JSON_HOT const uint8_t *llm_json_close(llm_json_reader_t *r,
    const uint8_t *p);
LLM_JSON_HOT const uint8_t *llm_json_after(llm_json_reader_t *r,
    const uint8_t *p);
LLM_JSON_HOT const uint8_t *llm_json_key(llm_json_reader_t *r, const uint8_t *p,
    const uint8_t *end);
LLM_JSON_HOT void llm_json_name(llm_json_reader_t *r, const uint8_t *s,
    size_t n);
LLM_JSON_HOT const uint8_t *llm_json_key_end(llm_json_reader_t *r,
    const uint8_t *p, const uint8_t *end);
LLM_JSON_HOT const uint8_t *llm_json_colon(llm_json_reader_t *r,
    const uint8_t *p);
static const uint8_t *llm_json_string_end(llm_json_reader_t *r,
    const uint8_t *p, const uint8_t *end);
LLM_JSON_HOT const uint8_t *llm_json_literal(llm_json_reader_t *r,
    const uint8_t *p, const uint8_t *end);
LLM_JSON_HOT const uint8_t *llm_json_number(llm_json_reader_t *r,
    const uint8_t *p, const uint8_t *end);
LLM_JSON_HOT const uint8_t *llm_json_digits(llm_json_reader_t *r,
    const uint8_t *p, const uint8_t *end);


void
llm_json_reader_init(llm_json_reader_t *r, const llm_json_rules_t *rules)
{
    r->error = NULL;
    r->offset = 0;

    r->rules = rules;
    r->member = &rules->root;
    r->piece = NULL;
    r->literal = NULL;
    r->high_at = 0;
    r->high = 0;
    r->unicode = 0;
    r->digits = 0;
    r->state = ST_VALUE;
    r->string = FOR_NOTHING;
    r->number = NUM_START;
    r->what = 0;
    r->keep = false;
    r->strange = false;
    r->name_len = 0;
    r->known = 0;
    r->depth = 0;
}


llm_json_rc_t
llm_json_reader_scan(llm_json_reader_t *r, const uint8_t *p, size_t len)
{
    const uint8_t *end;

    if (r->state == ST_FAILED) {
        return LLM_JSON_ERROR;
    }

    if (len != 0) {
        r->piece = p;
        r->seen = p;
        end = p + len;

        do {
            p = llm_json_step(r, p, end);

            if (p == NULL) {
                return LLM_JSON_ERROR;
            }

        } while (p < end);

        r->offset += len;
    }

    return (r->state == ST_DONE) ? LLM_JSON_OK : LLM_JSON_AGAIN;
}


llm_json_rc_t
llm_json_reader_end(llm_json_reader_t *r)
{
    switch (r->state) {

    case ST_DONE:
        return LLM_JSON_OK;

    case ST_FAILED:
        return LLM_JSON_ERROR;

    case ST_STRING:
    case ST_ESCAPE:
    case ST_HEX:
        llm_json_fail_at(r, r->offset, "unterminated string");
        return LLM_JSON_ERROR;
    }

    /* nothing but the end tells that a number is whole */

    if (r->state == ST_NUMBER && r->depth == 0 && r->number >= NUM_ZERO) {
        llm_json_done(r, r->offset);
        r->state = ST_DONE;
        return LLM_JSON_OK;
    }

    llm_json_fail_at(r, r->offset,
        (r->state == ST_VALUE && r->depth == 0) ? "empty document"
                                                : "unexpected end");
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


LLM_JSON_HOT const uint8_t *
llm_json_step(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    switch (r->state) {
    case ST_STRING:
        p = llm_json_string(r, p, end);
        return (r->state == ST_STRING_END) ? llm_json_string_end(r, p, end) : p;
    case ST_ESCAPE:
        return llm_json_escape(r, p);
    case ST_HEX:
        return llm_json_hex(r, p, end);
    case ST_NUMBER:
        return llm_json_number(r, p, end);
    case ST_LITERAL:
        return llm_json_literal(r, p, end);
    }

    p = llm_json_skip_blanks(p, end);
    if (p == end) {
        return p;
    }

    switch (r->state) {
    case ST_FIRST_VALUE:
        return (*p == ']') ? llm_json_close(r, p) : llm_json_value(r, p, end);
    case ST_VALUE:
        return llm_json_value(r, p, end);
    case ST_FIRST_KEY:
        return (*p == '}') ? llm_json_close(r, p) : llm_json_key(r, p, end);
    case ST_KEY:
        return llm_json_key(r, p, end);
    case ST_COLON:
        return llm_json_colon(r, p);
    case ST_AFTER:
        return llm_json_after(r, p);
    }

    return llm_json_fail(r, p, "unexpected character behind the document");
}


LLM_JSON_HOT const uint8_t *
llm_json_value(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    if (*p == '"') {
        return llm_json_value_string(r, p, end);
    }

    switch (*p) {

    case '{':
        return llm_json_open(r, p, LLM_JSON_OBJECT);

    case '[':
        return llm_json_open(r, p, LLM_JSON_ARRAY);

    case 't':
        llm_json_note(r, LLM_JSON_TRUE, p);
        r->literal = "true";
        return llm_json_literal(r, p, end);

    case 'f':
        llm_json_note(r, LLM_JSON_FALSE, p);
        r->literal = "false";
        return llm_json_literal(r, p, end);

    case 'n':
        llm_json_note(r, LLM_JSON_NULL, p);
        r->literal = "null";
        return llm_json_literal(r, p, end);
    }

    if (*p != '-' && (*p < '0' || *p > '9')) {
        return llm_json_fail(r, p, "unexpected character");
    }

    llm_json_note(r, LLM_JSON_NUMBER, p);
    r->number = NUM_START;
    return llm_json_number(r, p, end);
}


LLM_JSON_HOT const uint8_t *
llm_json_value_string(llm_json_reader_t *r, const uint8_t *p,
    const uint8_t *end)
{
    const uint8_t *text;

    llm_json_note(r, LLM_JSON_STRING_VALUE, p);

    text = p + 1;
    p = llm_json_skip(r, text, end, r->keep ? LLM_JSON_PLAIN : LLM_JSON_TEXT);

    if (p < end && *p == '"') {
        if (r->keep) {
            r->rules->text(r, r->what, text, (size_t) (p - text));
            llm_json_done(r, llm_json_at(r, p + 1));
        }

        return llm_json_value_end(r, p + 1, end);
    }

    r->state = ST_STRING;
    r->string = FOR_NOTHING;

    if (r->keep) {
        r->string = FOR_TEXT;
        r->rules->text(r, r->what, text, (size_t) (p - text));
    }

    return p;
}


/* The string or number at hand, if its text was wanted, ends there. */
LLM_JSON_HOT void
llm_json_done(llm_json_reader_t *r, uint64_t offset)
{
    if (r->keep) {
        r->keep = false;
        r->rules->done(r, r->what, offset);
    }
}


LLM_JSON_HOT const uint8_t *
llm_json_value_end(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    if (r->depth == 0) {
        r->state = ST_DONE;
        return p;
    }

    r->state = ST_AFTER;

    p = llm_json_skip_blanks(p, end);
    return (p < end) ? llm_json_after(r, p) : p;
}


/*
 * A value begins at p: if it is one of the table, it is told.  Of a container
 * what it is goes to the path, for its members and elements.
 */
LLM_JSON_HOT void
llm_json_note(llm_json_reader_t *r, llm_json_type_t type, const uint8_t *p)
{
    const llm_json_member_t *member;

    member = r->member;

    if (member == NULL) {
        return;
    }

    r->member = NULL;

    if (type >= LLM_JSON_OBJECT && r->known < LLM_JSON_PATH) {

        if (type == LLM_JSON_ARRAY ? member->each : member->inside != 0) {
            r->known++;
            r->path[r->known] = member;
        }
    }

    if (member->what != 0) {
        r->what = member->what;
        r->keep = r->rules->value(r, member->what, type, llm_json_at(r, p))
                  && type <= LLM_JSON_NUMBER;
    }
}


LLM_JSON_HOT bool
llm_json_in_object(const llm_json_reader_t *r)
{
    uint32_t top;

    top = r->depth - 1;
    return (r->stack[top / 8] >> (top % 8)) & 1;
}


/* The next value is an element of the array at hand. */
LLM_JSON_HOT void
llm_json_element(llm_json_reader_t *r)
{
    if (r->depth == r->known) {
        r->member = r->path[r->known];
    }
}


LLM_JSON_HOT const uint8_t *
llm_json_open(llm_json_reader_t *r, const uint8_t *p, llm_json_type_t type)
{
    uint8_t *slot, bit;

    if (r->depth == LLM_JSON_DEPTH) {
        return llm_json_fail(r, p, "nested too deeply");
    }

    llm_json_note(r, type, p);

    slot = &r->stack[r->depth / 8];
    bit = (uint8_t) (1u << (r->depth % 8));
    r->depth++;

    if (type == LLM_JSON_OBJECT) {
        *slot = (uint8_t) (*slot | bit);
        r->state = ST_FIRST_KEY;

    } else {
        *slot = (uint8_t) (*slot & ~bit);
        r->state = ST_FIRST_VALUE;
        llm_json_element(r);
    }

    return p + 1;
}


LLM_JSON_HOT const uint8_t *
llm_json_close(llm_json_reader_t *r, const uint8_t *p)
{
    if (*p != (llm_json_in_object(r) ? '}' : ']')) {
        return llm_json_fail(r, p, "unexpected character");
    }

    if (r->depth == r->known) {
        r->known--;
    }

    r->depth--;
    r->state = (r->depth == 0) ? ST_DONE : ST_AFTER;

    return p + 1;
}


LLM_JSON_HOT const uint8_t *
llm_json_after(llm_json_reader_t *r, const uint8_t *p)
{
    if (*p != ',') {
        return llm_json_close(r, p);
    }

    if (llm_json_in_object(r)) {
        r->state = ST_KEY;

    } else {
        r->state = ST_VALUE;
        llm_json_element(r);
    }

    return p + 1;
}


LLM_JSON_HOT const uint8_t *
llm_json_key(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *name;

    if (*p != '"') {
        return llm_json_fail(r, p, "unexpected character");
    }

    name = p + 1;
    p = llm_json_skip(r, name, end, LLM_JSON_PLAIN);

    if (p < end && *p == '"') {
        if (r->depth == r->known) {
            llm_json_name(r, name, (size_t) (p - name));
        }

        return llm_json_key_end(r, p + 1, end);
    }

    r->state = ST_STRING;
    r->string = FOR_KEY;

    if (r->depth == r->known) {
        r->string = FOR_NAME;
        r->strange = false;
        r->name_len = 0;
        llm_json_put(r, name, (size_t) (p - name));
    }

    return p;
}


/* What the member of this name is. */
LLM_JSON_HOT void
llm_json_name(llm_json_reader_t *r, const uint8_t *s, size_t n)
{
    size_t i;
    const llm_json_level_t *level;
    const llm_json_member_t *member;

    level = &r->rules->levels[r->path[r->known]->inside];

    for (i = 0; i < level->count; i++) {
        member = &level->members[i];

        if (member->len == n && member->name[0] == (char) s[0]
            && memcmp(member->name, s, n) == 0)
        {
            r->member = member;
            return;
        }
    }

    r->member = level->other;
}


LLM_JSON_HOT const uint8_t *
llm_json_key_end(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    r->state = ST_COLON;

    p = llm_json_skip_blanks(p, end);
    return (p < end) ? llm_json_colon(r, p) : p;
}


LLM_JSON_HOT const uint8_t *
llm_json_colon(llm_json_reader_t *r, const uint8_t *p)
{
    if (*p != ':') {
        return llm_json_fail(r, p, "unexpected character");
    }

    r->state = ST_VALUE;
    return p + 1;
}


static const uint8_t *
llm_json_string_end(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    switch (r->string) {

    case FOR_NAME:
        if (r->strange) {
            r->member = r->rules->levels[r->path[r->known]->inside].other;

        } else {
            llm_json_name(r, r->name, r->name_len);
        }

        return llm_json_key_end(r, p, end);

    case FOR_KEY:
        return llm_json_key_end(r, p, end);
    }

    llm_json_done(r, llm_json_at(r, p));
    return llm_json_value_end(r, p, end);
}


LLM_JSON_HOT const uint8_t *
llm_json_literal(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    const char *rest;

    rest = r->literal;

    while (*rest != '\0' && p < end) {
        if (*p != (uint8_t) *rest) {
            return llm_json_fail(r, p, "malformed literal");
        }

        p++;
        rest++;
    }

    if (*rest == '\0') {
        return llm_json_value_end(r, p, end);
    }

    r->literal = rest;
    r->state = ST_LITERAL;

    return p;
}


LLM_JSON_HOT const uint8_t *
llm_json_number(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *text;

    if (r->keep) {
        text = p;
        p = llm_json_digits(r, p, end);

        if (p != NULL) {
            r->rules->text(r, r->what, text, (size_t) (p - text));

            if (p < end) {
                llm_json_done(r, llm_json_at(r, p));
            }
        }

    } else {
        p = llm_json_digits(r, p, end);
    }

    return (p != NULL && p < end) ? llm_json_value_end(r, p, end) : p;
}


/* Behind the number, or NULL if it is none. */
LLM_JSON_HOT const uint8_t *
llm_json_digits(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    uint8_t part;

    part = r->number;
    p = llm_json_skip_number(&part, p, end);

    if (p == end) {
        r->number = part;
        r->state = ST_NUMBER;
        return p;
    }

    if (part < NUM_ZERO) {
        return llm_json_fail(r, p, "malformed number");
    }

    return p;
}
