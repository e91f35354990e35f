/*
 * How fast the event-stream scanner is.  Each line is a name and a value, the
 * median of several rounds; names end in the unit.
 */

#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llm_sse.h"


#define ROUNDS 15
#define CHUNKS 2000


static const char chat
    [] = "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":"
         "\"chat.completion.chunk\",\"created\":1741570283,\"model\":"
         "\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\","
         "\"system_fingerprint\":\"fp_06737a9306\",\"choices\":[{\"index\":0,"
         "\"delta\":{\"content\":\" weather\"},\"logprobs\":null,"
         "\"finish_reason\":null}]}\n\n";

static const char messages[] =
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
    "\"text_delta\",\"text\":\" weather in the north of the country\"}}\n\n";

static const char responses
    [] = "event: response.output_text.delta\n"
         "data: {\"type\":\"response.output_text.delta\",\"item_id\":"
         "\"msg_67c9fdcf37fc8190ba82116e33fb28c501b8b0ad29eb73a7\","
         "\"output_index\":0,\"content_index\":0,\"delta\":\" weather\","
         "\"logprobs\":[],\"sequence_number\":17,\"obfuscation\":"
         "\"9f0Wq2Zb\"}\n\n";


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


/* Scans a stream in pieces and returns how many events had content. */
static uint64_t
scan(const uint8_t *p, size_t len, size_t piece)
{
    size_t at, n, used;
    unsigned events;
    const uint8_t *end;
    llm_sse_t s;

    llm_sse_init(&s);

    for (at = 0; at < len; at += n) {
        n = (len - at < piece) ? len - at : piece;
        end = p + at + n;

        do {
            used = llm_sse_scan(&s, end - n, n, &events);
            n -= used;
        } while (used != 0 && n != 0);

        n = (len - at < piece) ? len - at : piece;
    }

    if (llm_sse_end(&s, &events)) {
        exit(1);
    }

    return s.contents;
}


/* Nanoseconds for one of these events, which come in pieces of a size. */
static double
measure(const char *event, size_t piece)
{
    int i, round;
    size_t len;
    double start, took[ROUNDS];
    uint8_t *stream;

    len = strlen(event);
    stream = malloc(len * CHUNKS);

    if (stream == NULL) {
        exit(1);
    }

    for (i = 0; i < CHUNKS; i++) {
        memcpy(stream + (size_t) i * len, event, len);
    }

    for (round = 0; round < ROUNDS; round++) {
        start = now();

        if (scan(stream, len * CHUNKS, piece) != CHUNKS) {
            fprintf(stderr, "not all events were found\n");
            exit(1);
        }

        took[round] = (now() - start) / CHUNKS;
    }

    free(stream);

    qsort(took, ROUNDS, sizeof(double), by_value);
    return took[ROUNDS / 2];
}


int
main(void)
{
    double took;
    size_t len;

    len = strlen(chat);
    took = measure(chat, len);

    printf("sse/chunk_bytes %zu\n", len);
    printf("sse/chunk_ns %.0f\n", took);
    printf("sse/gbps %.2f\n", (double) len / took);
    printf("sse/chunk_in_64_ns %.0f\n", measure(chat, 64));
    printf("sse/chunk_in_16k_ns %.0f\n", measure(chat, 16384));

    len = strlen(messages);
    took = measure(messages, len);

    printf("sse/messages_bytes %zu\n", len);
    printf("sse/messages_chunk_ns %.0f\n", took);
    printf("sse/messages_gbps %.2f\n", (double) len / took);

    len = strlen(responses);
    took = measure(responses, len);

    printf("sse/responses_bytes %zu\n", len);
    printf("sse/responses_chunk_ns %.0f\n", took);
    printf("sse/responses_gbps %.2f\n", (double) len / took);
    printf("sse/state_bytes %zu\n", sizeof(llm_sse_t));

    return 0;
}
