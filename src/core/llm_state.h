/*
 * The text of a state file: what is known of providers and routes, one line
 * for each thing.
 *
 *     nginx-llm state 1
 *     written 1767225600000
 *     [provider openai]
 *     circuit 1 0 2 0 ...
 *     duration 12345 0*57 12 3
 *     [route llm]
 *     requests 17
 *     sha256 9f86d081884c7d65...
 *
 * A line is a key and numbers; lines behind "[KIND NAME]" belong to that
 * record, those before the first to the whole.  V*N stands for N times V.
 * In a name all bytes but letters, digits, ".", "_" and "-" are %XX.  The
 * last line is the checksum of everything before it.
 *
 * Who reads skips keys and kinds that he does not know, and does without
 * those that are missing: so what is added needs no other version.  The
 * version is for changes that an older reader would get wrong.
 *
 * Bytes in, lines out: no allocation, no input or output.  No pointer
 * argument may be NULL.
 */

#ifndef LLM_STATE_H
#define LLM_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>


#define LLM_STATE_VERSION 1

#define LLM_STATE_KEY 32      /* bytes of a key or a kind, at most */
#define LLM_STATE_NAME 4096   /* bytes of a name, at most */
#define LLM_STATE_NUMBERS 512 /* of a line, at most */


typedef enum {
    LLM_STATE_OK = 0,
    LLM_STATE_EMPTY,
    LLM_STATE_FOREIGN,   /* the first line is not ours */
    LLM_STATE_NEWER,     /* of a version to come */
    LLM_STATE_TRUNCATED, /* the last line is missing, or not whole */
    LLM_STATE_CHECKSUM,
    LLM_STATE_SYNTAX
} llm_state_rc_t;


/* A text that is written; ends where the buffer does. */
typedef struct {
    uint8_t *start;
    uint8_t *p;
    uint8_t *end;
    bool full; /* some of it had no room */
} llm_state_text_t;


/* One line. */
typedef struct {
    const uint8_t *key; /* not terminated; of a record its kind */
    size_t key_len;
    bool record;
    unsigned number; /* of the line, from 1 */
    unsigned n;      /* numbers */
    size_t name_len; /* of a record */
    uint64_t v[LLM_STATE_NUMBERS];
    uint8_t name[LLM_STATE_NAME];
} llm_state_line_t;


typedef struct {
    const uint8_t *p;
    const uint8_t *end;
    unsigned number;
} llm_state_reader_t;


/* Writes the first line. */
void llm_state_begin(llm_state_text_t *t, uint8_t *p, size_t size);

/* Begins a record; kind: as a key. */
void llm_state_record(llm_state_text_t *t, const char *kind,
    const uint8_t *name, size_t len);

/*
 * Writes a line; key: a letter, then letters, digits and "_", lower case.
 * Zeroes at the end are left out: they are what a reader takes for missing.
 */
void llm_state_numbers(llm_state_text_t *t, const char *key, const uint64_t *v,
    unsigned n);

/* Writes the last line; false: the buffer was too small. */
bool llm_state_end(llm_state_text_t *t);

/*
 * Whether this is a whole text that can be read to its end.  SYNTAX: the line
 * is line->number.
 */
llm_state_rc_t llm_state_check(const uint8_t *p, size_t len,
    llm_state_line_t *line);

/* Begins to read a text that was checked. */
void llm_state_read(llm_state_reader_t *r, const uint8_t *p, size_t len);

/*
 * The next line, without the first and the last of the text.  Of a line all
 * numbers behind the last are 0.  False: there is none.
 */
bool llm_state_next(llm_state_reader_t *r, llm_state_line_t *line);

/*
 * Finds a line that belongs to the whole, in a text or in the beginning of
 * one.  False: it is not there, or the text is not of this version.
 */
bool llm_state_head(const uint8_t *p, size_t len, const char *key,
    llm_state_line_t *line);

/* What is wrong with a text, for people. */
const char *llm_state_says(llm_state_rc_t rc);

#endif /* LLM_STATE_H */
