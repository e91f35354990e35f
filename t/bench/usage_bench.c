/*
 * How fast the scanner for usage is.  Each line is a name and a value, the
 * median of several rounds; names end in the unit.
 */

#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llm_usage.h"


#define ROUNDS 15
#define TIMES 200
#define SIZE (100 * 1024)


typedef struct {
    const char *head;
    const char *body; /* repeated */
    const char *tail;
} answer_t;


/* a long answer: paragraphs with line feeds and quotation marks */
static const answer_t chat = { //
    "{\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":"
    "\"chat.completion\",\"created\":1741570283,\"model\":\"gpt-4o\","
    "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
    "\"content\":\"",
    "A parcel that is \\\"in transit\\\" is most often just scanned late. "
    "Most arrive within two days of the last scan; one that does not is "
    "looked for, which takes a week.\\n\\nIf it is not found, you get your "
    "money back, or the same again. Please wait until Friday, and then write "
    "\\\"search\\\" with the number of your order.\\n\\n",
    "\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":1117,\"completion_tokens\":25600,"
    "\"total_tokens\":26717,\"prompt_tokens_details\":{\"cached_tokens\":"
    "1024,\"audio_tokens\":0},\"completion_tokens_details\":{"
    "\"reasoning_tokens\":0}}}"
};

/* what has no strings to skip */
static const answer_t embeddings = { //
    "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,"
    "\"embedding\":[0.0",
    ",-0.009327292,0.015797347,-0.0077816764,0.02416498",
    "]}],\"model\":\"text-embedding-3-small\",\"usage\":{\"prompt_tokens\":8,"
    "\"completion_tokens\":0,\"total_tokens\":8}}"
};


static double
now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double) ts.tv_sec * 1e9 + (double) ts.tv_nsec;
}


static int
by_value(const void *a, const void *b)
{
    double x, y;

    x = *(const double *) a;
    y = *(const double *) b;

    return (x > y) - (x < y);
}


static void
scan(const uint8_t *p, size_t len, size_t piece)
{
    size_t n;
    llm_usage_scan_t u;

    llm_usage_init(&u);

    for (/* void */; len != 0; len -= n, p += n) {
        n = (len < piece) ? len : piece;
        llm_usage_scan(&u, p, n);
    }

    if (llm_usage_end(&u) != LLM_JSON_OK
        || !(u.usage.told & 1u << LLM_USAGE_TOTAL)) {
        fprintf(stderr, "no usage was found\n");
        exit(1);
    }
}


/* Bytes a nanosecond over an answer of about SIZE bytes in such pieces. */
static double
measure(const answer_t *a, size_t piece)
{
    int i, round;
    char *text;
    size_t n, len;
    double start, took[ROUNDS];

    n = strlen(a->body);
    text = malloc(strlen(a->head) + SIZE + n + strlen(a->tail) + 1);

    if (text == NULL) {
        exit(1);
    }

    len = (size_t) sprintf(text, "%s", a->head);

    while (len < SIZE) {
        memcpy(text + len, a->body, n);
        len += n;
    }

    len += (size_t) sprintf(text + len, "%s", a->tail);

    for (round = 0; round < ROUNDS; round++) {
        start = now();

        for (i = 0; i < TIMES; i++) {
            scan((const uint8_t *) text, len, piece);
        }

        took[round] = (now() - start) / TIMES;
    }

    free(text);

    qsort(took, ROUNDS, sizeof(double), by_value);
    return (double) len / took[ROUNDS / 2];
}


int
main(void)
{
    printf("usage/chat_gbps %.2f\n", measure(&chat, SIZE * 2));
    printf("usage/chat_in_16k_gbps %.2f\n", measure(&chat, 16384));
    printf("usage/chat_in_4k_gbps %.2f\n", measure(&chat, 4096));
    printf("usage/embeddings_gbps %.2f\n", measure(&embeddings, SIZE * 2));
    printf("usage/state_bytes %zu\n", sizeof(llm_usage_scan_t));

    return 0;
}
