/*
 * Errors: the first byte chooses the status, the second the call, the others
 * are the body; and what a caller may have put into it.
 */

#include <stdlib.h>
#include <string.h>

#include "llm_error.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static const unsigned statuses[] = { LLM_ERROR_EVENT, 200, 400, 401, 402, 403,
    404, 408, 413, 422, 429, 498, 500, 503, 529, 999 };

static const llm_call_t own = { .completion = true, .own_key = true };


static void
check(int ok)
{
    if (!ok) {
        abort();
    }
}


static llm_error_t
error_of(unsigned status, const uint8_t *body, size_t len, llm_call_t call)
{
    llm_class_t verdict = llm_verdict_status(status, call);
    llm_error_t error = llm_error_class(status, body, len, call);

    check((unsigned) error.class < LLM_CLASSES);
    check(error.has_retry || error.retry == 0);
    check(error.why != NULL || error.class == verdict);
    check(call.completion || error.class == verdict);
    check(call.own_key || error.class != LLM_CLASS_CREDENTIAL);
    check((error.class == LLM_CLASS_SUCCESS) == (status == 200));

    return error;
}


/* {"error": {"message": "FRONT" + what the caller wrote + "BACK"}} */
static void
check_quotation(const char *front, const uint8_t *data, size_t len,
    const char *back)
{
    static const char head[] = "{\"error\": {\"message\": \"";
    static const char tail[] = "\"}}";

    llm_class_t class;
    uint8_t *body = malloc(
        sizeof(head) + strlen(front) + 6 * len + strlen(back) + sizeof(tail));
    size_t n = 0;

    check(body != NULL);

    memcpy(body, head, sizeof(head) - 1);
    n += sizeof(head) - 1;
    memcpy(body + n, front, strlen(front));
    n += strlen(front);

    for (size_t i = 0; i < len; i++) {
        if (data[i] < ' ' || data[i] == '"' || data[i] == '\\') {
            memcpy(body + n, "\\u00", 4);
            body[n + 4] = (uint8_t) "0123456789abcdef"[data[i] >> 4];
            body[n + 5] = (uint8_t) "0123456789abcdef"[data[i] & 15];
            n += 6;

        } else {
            body[n++] = data[i];
        }
    }

    memcpy(body + n, back, strlen(back));
    n += strlen(back);
    memcpy(body + n, tail, sizeof(tail) - 1);
    n += sizeof(tail) - 1;

    class = error_of(400, body, n, own).class;
    check(class == LLM_CLASS_NEUTRAL || class == LLM_CLASS_CAPABILITY);

    free(body);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    llm_call_t call;
    unsigned status;
    uint8_t *copy;

    if (size < 2) {
        return 0;
    }

    status = statuses[data[0] % (sizeof(statuses) / sizeof(statuses[0]))];
    call.completion = (data[1] & 1) == 0;
    call.own_key = (data[1] & 2) == 0;
    data += 2;
    size -= 2;

    copy = malloc(size);
    check(copy != NULL || size == 0);

    if (size != 0) {
        memcpy(copy, data, size);
    }

    (void) error_of(status, copy, size, call);

    check_quotation("Invalid value: '", copy, size, "'.");
    check_quotation("", copy, size, ": Extra inputs are not permitted");
    check_quotation("The model `", copy, size, "` does not exist");

    free(copy);

    return 0;
}
