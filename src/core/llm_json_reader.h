/*
 * A reader of JSON that comes in pieces: it checks the syntax and tells of
 * the members that a table asks for, in one pass, without allocation and
 * without recursion.
 *
 * Grammar: RFC 8259.  Bytes above 0x7f are accepted inside strings as they
 * are; control characters, bad escapes, a byte order mark and anything
 * behind the document are errors.  A name is compared after its escapes are
 * decoded; one with a lone surrogate is no name of the table.
 */

#ifndef LLM_JSON_READER_H
#define LLM_JSON_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>


#define LLM_JSON_DEPTH 2048 /* deepest nesting accepted */
#define LLM_JSON_PATH 12    /* deepest nesting of what is told of */
#define LLM_JSON_NAME 27    /* longest name in a table */


typedef enum {
    LLM_JSON_OK = 0,
    LLM_JSON_AGAIN, /* fine so far, the document is not complete */
    LLM_JSON_ERROR  /* ->error and ->offset tell what and where */
} llm_json_rc_t;


typedef enum {
    LLM_JSON_ABSENT = 0,
    LLM_JSON_STRING_VALUE,
    LLM_JSON_NUMBER,
    LLM_JSON_TRUE,
    LLM_JSON_FALSE,
    LLM_JSON_NULL,
    LLM_JSON_OBJECT,
    LLM_JSON_ARRAY
} llm_json_type_t;


/* A member of an object, as a row of a table. */
typedef struct {
    char name[LLM_JSON_NAME + 1];
    uint8_t len;
    uint8_t what;   /* the table owner's word for it; 0: not told */
    uint8_t inside; /* level of its members if it is an object; 0: none */
    bool each;      /* the elements of an array are as the value itself */
} llm_json_member_t;


#define LLM_JSON_MEMBER(name, what, inside, each)  \
    {                                              \
        name, sizeof(name) - 1, what, inside, each \
    }


/* What may stand in one object. */
typedef struct {
    const llm_json_member_t *members;
    size_t count;
    const llm_json_member_t *other; /* for all other names; NULL: not told */
} llm_json_level_t;


typedef struct llm_json_reader_s llm_json_reader_t;


typedef struct {
    const llm_json_level_t *levels; /* [0] is never used */
    llm_json_member_t root;         /* the document itself; has no name */

    /*
     * A value begins at this offset.  True: text() and done() shall tell of
     * it as well; that counts for strings and numbers only.
     */
    bool (*value)(llm_json_reader_t *r, unsigned what, llm_json_type_t type,
        uint64_t offset);

    /* Some bytes of a string, decoded, or of a number as it is written. */
    void (
        *text)(llm_json_reader_t *r, unsigned what, const uint8_t *s, size_t n);

    /* The string or number is whole and ends before this offset. */
    void (*done)(llm_json_reader_t *r, unsigned what, uint64_t offset);

    /* the error that a lone surrogate in a text() is; NULL: it is U+FFFD */
    const char *lone;
} llm_json_rules_t;


struct llm_json_reader_s {
    const char *error; /* LLM_JSON_ERROR: what is wrong, static text */
    uint64_t offset;   /* bytes seen; on error: where */

    /* the reader's own */
    const llm_json_rules_t *rules;
    const llm_json_member_t *member; /* what the next value is; may be NULL */
    const uint8_t *piece; /* start of the piece, during a call only */
    const uint8_t *seen;  /* end of the bytes that the next two are about: */
    uint64_t stops;       /* where text may end, and ... */
    uint64_t escapes;     /* ... the backslashes that begin an escape */
    const char *literal;  /* what is still to come of true, false, null */
    uint64_t high_at;     /* offset of the escape that gave ->high */
    uint32_t high;        /* a high surrogate that waits for its low one */
    uint32_t unicode;     /* digits of a \u escape so far, ... */
    uint8_t digits;       /* ... and how many */
    uint8_t state;
    uint8_t string;   /* what the string at hand is for */
    uint8_t number;   /* part of a number */
    uint8_t what;     /* of the value at hand */
    bool keep;        /* its text is wanted */
    bool strange;     /* the name at hand is in no table */
    uint8_t name_len; /* of the name at hand, ... */
    uint8_t known;    /* depth down to which ->path goes */
    uint32_t depth;
    uint8_t name[LLM_JSON_NAME];       /* ... if it is cut or has escapes */
    uint8_t stack[LLM_JSON_DEPTH / 8]; /* bit set: an object */
    const llm_json_member_t *path[LLM_JSON_PATH + 1];
};


/* Starts over; cheap: the stacks are not cleared. */
void llm_json_reader_init(llm_json_reader_t *r, const llm_json_rules_t *rules);

/*
 * Takes the next piece of the document, which is not needed afterwards.  Any
 * split into pieces gives the same values, the same text, perhaps in other
 * portions, and the same error at the same offset.  LLM_JSON_OK: the document
 * is whole, only blanks may follow.  After LLM_JSON_ERROR further calls do
 * nothing.
 */
llm_json_rc_t llm_json_reader_scan(llm_json_reader_t *r, const uint8_t *p,
    size_t len);

/* No more input: LLM_JSON_OK if it was one whole document. */
llm_json_rc_t llm_json_reader_end(llm_json_reader_t *r);

#endif /* LLM_JSON_READER_H */
