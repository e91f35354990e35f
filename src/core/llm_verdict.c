/*
 * Whose fault an answer is: the table, and the words around it.
 */

#include <string.h>

#include "llm_verdict.h"


typedef struct {
    unsigned first;
    unsigned last;
    llm_class_t own_key;    /* a completion with the provider's key */
    llm_class_t caller_key; /* a completion with the caller's key */
    llm_class_t other;      /* a call that is no completion */
} llm_verdict_row_t;


#define SUCCESS LLM_CLASS_SUCCESS
#define FAILURE LLM_CLASS_FAILURE
#define THROTTLE LLM_CLASS_THROTTLE
#define CREDENTIAL LLM_CLASS_CREDENTIAL
#define CAPABILITY LLM_CLASS_CAPABILITY
#define NEUTRAL LLM_CLASS_NEUTRAL


/* the first row that fits decides; what fits none is a failure */

/* clang-format off */
static const llm_verdict_row_t llm_verdict_table[] = {
    { 200, 399, SUCCESS,    SUCCESS,    SUCCESS },
    { 401, 402, CREDENTIAL, NEUTRAL,    NEUTRAL },
    { 404, 404, CAPABILITY, CAPABILITY, NEUTRAL },
    { 408, 408, FAILURE,    FAILURE,    NEUTRAL },
    { 413, 413, CAPABILITY, CAPABILITY, NEUTRAL },
    { 429, 429, THROTTLE,   THROTTLE,   NEUTRAL },
    { 498, 498, THROTTLE,   THROTTLE,   NEUTRAL },
    { 400, 499, NEUTRAL,    NEUTRAL,    NEUTRAL },
    { 501, 501, FAILURE,    FAILURE,    NEUTRAL }, /* any method can be sent */
    { 500, 599, FAILURE,    FAILURE,    FAILURE }
};
/* clang-format on */


static const char *const llm_class_names[LLM_CLASSES] = {
    [SUCCESS] = "success",
    [FAILURE] = "failure",
    [THROTTLE] = "throttle",
    [CREDENTIAL] = "credential",
    [CAPABILITY] = "capability",
    [NEUTRAL] = "neutral",
};


static const char *const llm_completion_names[] = {
    "completions",
    "embeddings",
    "responses",
    "messages",
};


#define LLM_ROWS (sizeof(llm_verdict_table) / sizeof(llm_verdict_table[0]))
#define LLM_COMPLETIONS \
    (sizeof(llm_completion_names) / sizeof(llm_completion_names[0]))


static bool
llm_word_is(const char *name, const uint8_t *word, size_t len)
{
    return strlen(name) == len && memcmp(name, word, len) == 0;
}


llm_class_t
llm_verdict_status(unsigned status, llm_call_t call)
{
    for (size_t i = 0; i < LLM_ROWS; i++) {
        const llm_verdict_row_t *row = &llm_verdict_table[i];

        if (status < row->first || status > row->last) {
            continue;
        }

        if (!call.completion) {
            return row->other;
        }

        return call.own_key ? row->own_key : row->caller_key;
    }

    return LLM_CLASS_FAILURE;
}


bool
llm_verdict_next(llm_class_t class)
{
    switch (class) {

    case LLM_CLASS_FAILURE:
    case LLM_CLASS_THROTTLE:
    case LLM_CLASS_CREDENTIAL:
    case LLM_CLASS_CAPABILITY:
        return true;

    case LLM_CLASS_SUCCESS:
    case LLM_CLASS_NEUTRAL:
        break;
    }

    return false;
}


bool
llm_verdict_completion(const uint8_t *path, size_t len)
{
    size_t start;

    while (len > 0 && path[len - 1] == '/') {
        len--;
    }

    start = len;

    while (start > 0 && path[start - 1] != '/') {
        start--;
    }

    for (size_t i = 0; i < LLM_COMPLETIONS; i++) {
        if (llm_word_is(llm_completion_names[i], path + start, len - start)) {
            return true;
        }
    }

    return false;
}


const char *
llm_class_name(llm_class_t class)
{
    return (unsigned) class < LLM_CLASSES ? llm_class_names[class] : "unknown";
}


int
llm_class_parse(const uint8_t *word, size_t len)
{
    for (int i = 0; i < LLM_CLASSES; i++) {
        if (llm_word_is(llm_class_names[i], word, len)) {
            return i;
        }
    }

    return -1;
}
