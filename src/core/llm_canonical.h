/*
 * A key for the cache: the hash of a request's body as a JSON document.  The
 * body is scanned in one pass, in any number of pieces, without allocation
 * and without recursion.
 *
 * Two bodies have the same key if they differ only in
 *
 * - blanks, and the order of the members of objects;
 * - escapes: A, \u0041, and whatever else a string's character is written as;
 * - the members of the outermost object that do not change an answer, which
 *   are listed in llm_canonical.c: who asks, and how it is accounted for.
 *
 * All else is part of the key, members that nobody knows included.  "stream"
 * and "stream_options" are: they change the shape of an answer; and so is
 * "store", which decides whether an answer's id can be referred to.  Numbers
 * are as they are written: 1.0 is not 1, and where a provider wants an integer
 * it does not mean the same.  Of names that stand twice in an object each
 * counts, in their order, because which of them decides is up to the provider.
 *
 * The callers of a shared cache are not to find two bodies with one key, so
 * it is SHA-256 throughout.  A member is hashed with its name; the hashes of
 * an object's members, in an order that does not depend on theirs, stand in
 * the text around it for the object.  They are not added up, as multiset
 * hashes do: with some thousand members, sums of 256 bits can be made equal
 * at will (Wagner, "A Generalized Birthday Problem").
 *
 * It takes as long as SHA-256 of the body, and ten to twenty times that for
 * the worst bodies, which are nothing but tiny objects.  Grammar:
 * llm_json_reader.h, and the two limits below: a body beyond them has no key.
 */

#ifndef LLM_CANONICAL_H
#define LLM_CANONICAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llm_json_reader.h"
#include "llm_sha256.h"


#define LLM_CANONICAL_DEPTH 64     /* deepest nesting of objects */
#define LLM_CANONICAL_MEMBERS 1024 /* of all objects that are open at once */
#define LLM_CANONICAL_NAME 32
#define LLM_CANONICAL_HEX (2 * LLM_SHA256_LEN)


/* A member that is complete. */
typedef struct {
    uint64_t name; /* a hash that decides on the order, and nothing else */
    uint8_t digest[LLM_SHA256_LEN];
} llm_canonical_member_t;


/* An object that is open. */
typedef struct {
    llm_sha256_t hash; /* of the member at hand */
    uint64_t name;
    uint32_t first;  /* of its members */
    uint32_t arrays; /* that are open in the member at hand */
} llm_canonical_object_t;


/* Some 50 KB: one will do for a process. */
typedef struct {
    /* result; valid once llm_canonical_end() has returned LLM_JSON_OK */
    uint8_t key[LLM_SHA256_LEN];

    /* LLM_JSON_ERROR */
    const char *error; /* what is wrong, static text */
    uint64_t offset;   /* bytes seen; on error: where */

    /* the scanner's own */
    uint8_t state;
    bool name_next; /* a string would be a name */
    bool in_name;
    bool ignored; /* the member of the outermost object at hand */
    uint8_t digits;
    uint16_t unicode; /* of an escape, so far */
    uint16_t high;    /* a high surrogate that waits for its low one */
    uint32_t depth;   /* objects that are open */
    uint32_t members; /* complete, of objects that are open */
    uint32_t name_len;
    uint8_t name[LLM_CANONICAL_NAME];
    llm_json_reader_t grammar;
    llm_canonical_object_t objects[LLM_CANONICAL_DEPTH + 1];
    llm_canonical_member_t member[LLM_CANONICAL_MEMBERS];
    uint16_t order[LLM_CANONICAL_MEMBERS]; /* of them, in each object */
} llm_canonical_t;


/* Starts over; cheap: the large parts are not cleared. */
void llm_canonical_init(llm_canonical_t *c);

/*
 * As llm_json_scan() and llm_json_end(): any split gives the same.  Beyond a
 * limit it is LLM_JSON_ERROR, although the body may well be JSON.
 */
llm_json_rc_t llm_canonical_scan(llm_canonical_t *c, const uint8_t *p,
    size_t len);
llm_json_rc_t llm_canonical_end(llm_canonical_t *c);

/* After LLM_JSON_OK: the key in hexadecimal digits, without a final NUL. */
void llm_canonical_hex(const llm_canonical_t *c, char hex[LLM_CANONICAL_HEX]);

#endif /* LLM_CANONICAL_H */
