/*
 * The complexity of a prompt: where its text stands, the words and lines of
 * it, and what the thresholds make of them.
 */

#include <string.h>

#include "llm_complexity.h"


typedef enum {
    WHAT_MESSAGE = 1, /* in an array, or the user's as a string */
    WHAT_PROMPT,      /* the same as strings only */
    WHAT_SYSTEM,
    WHAT_ROLE,
    WHAT_TEXT
} llm_complexity_what_t;


typedef enum {
    IN_ROOT = 1,
    IN_MESSAGE,
    IN_PART,
    IN_LEVELS
} llm_complexity_in_t;


#define LINES_OF_CODE 3


typedef struct {
    uint32_t text; /* where it begins, behind the slots */
    uint16_t len;  /* 0: the slot is free */
    uint16_t number;
} llm_complexity_slot_t;


/* Open addressing; at most half of the slots are taken. */
struct llm_complexity_terms_s {
    uint32_t mask; /* the number of slots, a power of 2, less 1 */
    llm_complexity_slot_t slots[];
};


static bool llm_complexity_value(llm_json_reader_t *r, unsigned what,
    llm_json_type_t type, uint64_t offset);
static void llm_complexity_text(llm_json_reader_t *r, unsigned what,
    const uint8_t *s, size_t n);
static void llm_complexity_done(llm_json_reader_t *r, unsigned what,
    uint64_t offset);
static llm_json_rc_t llm_complexity_told(llm_complexity_t *c, llm_json_rc_t rc);
static void llm_complexity_begin(llm_complexity_t *c, bool user);
static void llm_complexity_role(llm_complexity_t *c, const uint8_t *s,
    size_t n);
static void llm_complexity_word(llm_complexity_t *c, const uint8_t *s,
    size_t n);
static void llm_complexity_other(llm_complexity_t *c, uint8_t byte);
static void llm_complexity_word_end(llm_complexity_t *c);
static void llm_complexity_line_end(llm_complexity_t *c);
static size_t llm_complexity_find(const llm_complexity_terms_t *terms,
    const uint8_t *word, size_t len);


#define LEAF(name, what) LLM_JSON_MEMBER(name, what, 0, false)
#define EACH(name, what, inside) LLM_JSON_MEMBER(name, what, inside, true)
#define ROWS(rows) rows, sizeof(rows) / sizeof(rows[0]), NULL


static const llm_json_member_t llm_complexity_in_root[] = {
    EACH("messages", WHAT_MESSAGE, IN_MESSAGE),
    EACH("input", WHAT_MESSAGE, IN_MESSAGE),
    EACH("prompt", WHAT_PROMPT, 0),
    EACH("system", WHAT_SYSTEM, IN_PART),
    LEAF("instructions", WHAT_SYSTEM),
};


static const llm_json_member_t llm_complexity_in_message[] = {
    LEAF("role", WHAT_ROLE),
    EACH("content", WHAT_TEXT, IN_PART),
};


static const llm_json_member_t llm_complexity_in_part[] = {
    LEAF("text", WHAT_TEXT),
};


static const llm_json_level_t llm_complexity_levels[IN_LEVELS] = {
    [IN_ROOT] = { ROWS(llm_complexity_in_root) },
    [IN_MESSAGE] = { ROWS(llm_complexity_in_message) },
    [IN_PART] = { ROWS(llm_complexity_in_part) },
};


static const llm_json_rules_t llm_complexity_rules = {
    .levels = llm_complexity_levels,
    .root = { .inside = IN_ROOT },
    .value = llm_complexity_value,
    .text = llm_complexity_text,
    .done = llm_complexity_done,
};


static inline bool
llm_complexity_in_word(uint8_t byte)
{
    return byte >= 0x80 || (byte >= '0' && byte <= '9') || byte == '_'
           || ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'z');
}


static inline uint8_t
llm_complexity_lower(uint8_t byte)
{
    return (byte >= 'A' && byte <= 'Z') ? byte | 0x20 : byte;
}


void
llm_complexity_defaults(llm_complexity_conf_t *conf)
{
    memset(conf, 0, sizeof(*conf));

    conf->words.medium = 80;
    conf->words.complex = 400;
    conf->terms.medium = 1;
    conf->terms.complex = 3;
    conf->code = LLM_COMPLEXITY_MEDIUM;
    conf->code_words = 100;
}


void
llm_complexity_init(llm_complexity_t *c, const llm_complexity_conf_t *conf)
{
    memset(c, 0, offsetof(llm_complexity_t, reader));

    c->conf = conf;
    llm_json_reader_init(&c->reader, &llm_complexity_rules);
}


llm_json_rc_t
llm_complexity_scan(llm_complexity_t *c, const uint8_t *p, size_t len)
{
    return llm_complexity_told(c, llm_json_reader_scan(&c->reader, p, len));
}


llm_json_rc_t
llm_complexity_end(llm_complexity_t *c)
{
    llm_json_rc_t rc;

    rc = llm_complexity_told(c, llm_json_reader_end(&c->reader));

    if (rc == LLM_JSON_OK) {
        llm_complexity_begin(c, false);
    }

    return rc;
}


static llm_json_rc_t
llm_complexity_told(llm_complexity_t *c, llm_json_rc_t rc)
{
    c->error = c->reader.error;
    c->offset = c->reader.offset;

    return rc;
}


static llm_complexity_level_t
llm_complexity_reached(uint64_t n, const llm_complexity_threshold_t *from)
{
    if (from->complex != 0 && n >= from->complex) {
        return LLM_COMPLEXITY_COMPLEX;
    }

    if (from->medium != 0 && n >= from->medium) {
        return LLM_COMPLEXITY_MEDIUM;
    }

    return LLM_COMPLEXITY_SIMPLE;
}


llm_complexity_level_t
llm_complexity_level(const llm_complexity_t *c)
{
    size_t i;
    llm_complexity_level_t level, levels[5];
    const llm_complexity_conf_t *conf;

    conf = c->conf;

    levels[0] = llm_complexity_reached(c->question.words, &conf->words);
    levels[1] = llm_complexity_reached(c->question.terms, &conf->terms);
    levels[2] = llm_complexity_reached(c->all_words, &conf->all_words);
    levels[3] = llm_complexity_reached(c->messages, &conf->messages);
    levels[4] = LLM_COMPLEXITY_SIMPLE;

    if (c->question.code) {
        levels[4] = (conf->code_words != 0
                        && c->question.words >= conf->code_words)
                        ? LLM_COMPLEXITY_COMPLEX
                        : conf->code;
    }

    level = LLM_COMPLEXITY_SIMPLE;

    for (i = 0; i < 5; i++) {
        level = (levels[i] > level) ? levels[i] : level;
    }

    return level;
}


const char *
llm_complexity_name(llm_complexity_level_t level)
{
    static const char *const names[] = { "simple", "medium", "complex" };

    return names[level];
}


/* The text of a body */

static llm_complexity_t *
llm_complexity_of(llm_json_reader_t *r)
{
    return (llm_complexity_t *) (void *) ((char *) r
                                          - offsetof(llm_complexity_t, reader));
}


static bool
llm_complexity_value(llm_json_reader_t *r, unsigned what, llm_json_type_t type,
    uint64_t offset)
{
    bool is_string;
    llm_complexity_t *c;

    (void) offset;

    c = llm_complexity_of(r);
    is_string = (type == LLM_JSON_STRING_VALUE);

    switch (what) {

    case WHAT_MESSAGE:
    case WHAT_PROMPT:
        if (is_string || (what == WHAT_MESSAGE && type == LLM_JSON_OBJECT)) {
            llm_complexity_begin(c, is_string);
            c->messages++;
        }

        break;

    case WHAT_SYSTEM:
        llm_complexity_begin(c, false);
        break;

    case WHAT_ROLE:
        c->user = false;
        c->role_fits = true;
        c->role_len = 0;
        break;
    }

    return is_string;
}


/* What comes now is another message; the one before is known by now. */
static void
llm_complexity_begin(llm_complexity_t *c, bool user)
{
    if (c->user && c->now.words != 0) {
        c->question = c->now;
    }

    memset(&c->now, 0, sizeof(c->now));
    memset(c->seen, 0, sizeof(c->seen));
    c->lines = 0;
    c->user = user;
}


static void
llm_complexity_text(llm_json_reader_t *r, unsigned what, const uint8_t *s,
    size_t n)
{
    llm_complexity_t *c;
    const uint8_t *end, *word;

    c = llm_complexity_of(r);

    if (what == WHAT_ROLE) {
        llm_complexity_role(c, s, n);
        return;
    }

    for (end = s + n; s < end; /* void */) {

        if (!llm_complexity_in_word(*s)) {
            llm_complexity_other(c, *s);
            s++;
            continue;
        }

        word = s;

        do {
            s++;
        } while (s < end && llm_complexity_in_word(*s));

        llm_complexity_word(c, word, (size_t) (s - word));
    }
}


static void
llm_complexity_done(llm_json_reader_t *r, unsigned what, uint64_t offset)
{
    llm_complexity_t *c;

    (void) offset;

    c = llm_complexity_of(r);

    if (what == WHAT_ROLE) {
        c->user = c->role_fits && c->role_len == 4;
        return;
    }

    llm_complexity_word_end(c);
    llm_complexity_line_end(c);
    c->ticks = 0;
}


static void
llm_complexity_role(llm_complexity_t *c, const uint8_t *s, size_t n)
{
    static const char user[] = "user";

    if (n > (size_t) (4 - c->role_len) || memcmp(user + c->role_len, s, n) != 0)
    {
        c->role_fits = false;
    }

    if (c->role_fits) {
        c->role_len = (uint8_t) (c->role_len + n);
    }
}


/* Words and lines */

/* Some bytes of a word, which may go on. */
static void
llm_complexity_word(llm_complexity_t *c, const uint8_t *s, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (c->word_len + i < LLM_COMPLEXITY_TERM) {
            c->word[c->word_len + i] = llm_complexity_lower(s[i]);
        }

        /* they begin the characters U+3000 to U+9FFF, and no other byte does */

        c->ideographs += (s[i] >= 0xe3 && s[i] <= 0xe9);
    }

    c->word_len += n;
    c->last = 'w';
    c->ticks = 0;
}


/* A byte that is in no word. */
static void
llm_complexity_other(llm_complexity_t *c, uint8_t byte)
{
    llm_complexity_word_end(c);

    switch (byte) {

    case '\n':
        llm_complexity_line_end(c);
        c->ticks = 0;
        return;

    case '`':
        if (++c->ticks == 3) {
            c->now.code = true;
            c->ticks = 0;
        }

        break;

    default:
        c->ticks = 0;
        break;
    }

    if (byte <= ' ') {
        return;
    }

    c->before = c->last;
    c->last = byte;
    c->marked |= (byte == '(' || byte == '=');
}


static void
llm_complexity_word_end(llm_complexity_t *c)
{
    size_t at;
    uint64_t bit, words;
    const llm_complexity_slot_t *slot;

    if (c->word_len == 0) {
        return;
    }

    words = (c->ideographs > 2) ? (c->ideographs + 1) / 2 : 1;
    c->now.words += words;
    c->all_words += words;

    if (c->conf->list != NULL && c->word_len <= LLM_COMPLEXITY_TERM) {
        at = llm_complexity_find(c->conf->list, c->word, c->word_len);
        slot = &c->conf->list->slots[at];
        bit = UINT64_C(1) << (slot->number % 64);

        if (slot->len != 0 && !(c->seen[slot->number / 64] & bit)) {
            c->seen[slot->number / 64] |= bit;
            c->now.terms++;
        }
    }

    c->word_len = 0;
    c->ideographs = 0;
}


static void
llm_complexity_line_end(llm_complexity_t *c)
{
    bool code;

    switch (c->last) {

    case '{':
    case '}':
        code = true;
        break;

    case ';':
        code = c->marked;
        break;

    case ':':
        code = (c->before == ')');
        break;

    case ',':
        code = (c->before == '}');
        break;

    default:
        code = false;
    }

    if (code && c->lines < LINES_OF_CODE && ++c->lines == LINES_OF_CODE) {
        c->now.code = true;
    }

    c->last = 0;
    c->before = 0;
    c->marked = false;
}


/* The list of terms */

bool
llm_complexity_is_term(const llm_complexity_term_t *term)
{
    size_t i;

    for (i = 0; i < term->len; i++) {
        if (!llm_complexity_in_word((uint8_t) term->text[i])) {
            return false;
        }
    }

    return term->len != 0 && term->len <= LLM_COMPLEXITY_TERM;
}


static size_t
llm_complexity_slots(size_t n)
{
    size_t slots;

    for (slots = 2; slots < 2 * n; slots *= 2) {
        /* void */
    }

    return slots;
}


size_t
llm_complexity_terms_size(const llm_complexity_term_t *terms, size_t n)
{
    size_t i, size;

    size = sizeof(llm_complexity_terms_t)
           + llm_complexity_slots(n) * sizeof(llm_complexity_slot_t);

    for (i = 0; i < n; i++) {
        size += terms[i].len;
    }

    return size;
}


const llm_complexity_terms_t *
llm_complexity_terms_build(void *memory, const llm_complexity_term_t *terms,
    size_t n)
{
    size_t i, k, at, slots;
    uint8_t *text;
    uint32_t used;
    uint16_t number;
    llm_complexity_slot_t *slot;
    llm_complexity_terms_t *list;

    slots = llm_complexity_slots(n);

    list = memory;
    list->mask = (uint32_t) (slots - 1);
    memset(list->slots, 0, slots * sizeof(llm_complexity_slot_t));

    text = (uint8_t *) &list->slots[slots];
    used = 0;
    number = 0;

    for (i = 0; i < n; i++) {
        for (k = 0; k < terms[i].len; k++) {
            text[used + k] = llm_complexity_lower((uint8_t) terms[i].text[k]);
        }

        at = llm_complexity_find(list, text + used, terms[i].len);
        slot = &list->slots[at];

        if (slot->len == 0) {
            slot->text = used;
            slot->len = (uint16_t) terms[i].len;
            slot->number = number++;
            used += slot->len;
        }
    }

    return list;
}


/* The slot of a word in lower case, or the free one where it would be. */
static size_t
llm_complexity_find(const llm_complexity_terms_t *terms, const uint8_t *word,
    size_t len)
{
    size_t i;
    uint32_t hash;
    const uint8_t *texts;
    const llm_complexity_slot_t *slot;

    texts = (const uint8_t *) &terms->slots[terms->mask + 1];
    hash = 2166136261; /* FNV-1a */

    for (i = 0; i < len; i++) {
        hash = (hash ^ word[i]) * 16777619;
    }

    for (;; hash++) {
        slot = &terms->slots[hash & terms->mask];

        if (slot->len == 0
            || (slot->len == len && memcmp(texts + slot->text, word, len) == 0))
        {
            return hash & terms->mask;
        }
    }
}
