/*
 * How a JSON number is written (RFC 8259, 6), for the JSON reader.
 */

#ifndef LLM_JSON_NUMBER_H
#define LLM_JSON_NUMBER_H

#include "llm_json_string.h"


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


/*
 * The first byte from p on that does not go on with the number of which
 * *number is the last part.
 */
LLM_JSON_HOT const uint8_t *
llm_json_skip_number(uint8_t *number, const uint8_t *p, const uint8_t *end)
{
    uint8_t part, next;

    part = *number;

    while (p < end) {
        next = llm_json_numbers[part][llm_json_chars[*p]];

        if (next == NUM_STOP) {
            break;
        }

        part = next;
        p++;

        if (part >= NUM_INT) {
            while (p < end && *p >= '0' && *p <= '9') {
                p++;
            }
        }
    }

    *number = part;
    return p;
}

#endif /* LLM_JSON_NUMBER_H */
