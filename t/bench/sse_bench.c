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
#define CHUNK 512 /* the longest */
#define STREAMS 200
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))


/*
 * Events with marks for what differs from one to the next: @ a word, # a
 * number, ~ padding of any length, ? a digit.
 */

static const char chat
    [] = "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":"
         "\"chat.completion.chunk\",\"created\":1741570283,\"model\":"
         "\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\","
         "\"system_fingerprint\":\"fp_06737a9306\",\"choices\":[{\"index\":0,"
         "\"delta\":{\"content\":\"@\"},\"logprobs\":null,"
         "\"finish_reason\":null}]}\n\n";

static const char padded
    [] = "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":"
         "\"chat.completion.chunk\",\"created\":1741570283,\"model\":"
         "\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\","
         "\"system_fingerprint\":\"fp_06737a9306\",\"choices\":[{\"index\":0,"
         "\"delta\":{\"content\":\"@\"},\"logprobs\":null,"
         "\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"~\"}\n\n";

/* two answers in turn, so that no event is like the one before */
static const char turns
    [] = "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":"
         "\"chat.completion.chunk\",\"created\":1741570283,\"model\":"
         "\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\","
         "\"system_fingerprint\":\"fp_06737a9306\",\"choices\":[{\"index\":?,"
         "\"delta\":{\"content\":\"@\"},\"logprobs\":null,"
         "\"finish_reason\":null}]}\n\n";

static const char completions[] =
    "data: {\"id\":\"cmpl-7iA7iJjj8V2zOkCGvWF2hAkDWBQZe\",\"object\":"
    "\"text_completion\",\"created\":1690759702,\"choices\":[{\"text\":\"@\","
    "\"index\":0,\"logprobs\":null,\"finish_reason\":null}],\"model\":"
    "\"gpt-3.5-turbo-instruct\"}\n\n";

static const char messages[] =
    "event: content_block_delta\n"
    "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
    "\"text_delta\",\"text\":\"@@@@@\"}}\n\n";

static const char
    responses[] = "event: response.output_text.delta\n"
                  "data: {\"type\":\"response.output_text.delta\",\"item_id\":"
                  "\"msg_67c9fdcf37fc8190ba82116e33fb28c501b8b0ad29eb73a7\","
                  "\"output_index\":0,\"content_index\":0,\"delta\":\"@\","
                  "\"logprobs\":[],\"sequence_number\":#,\"obfuscation\":"
                  "\"~\"}\n\n";

static const char *const words[] = { " weather", " in", " the", " north", " of",
    " country", ",", " is", " ", "mild", ".\\n\\n", " \\\"" };


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


/* Event i of a stream. */
static size_t
fill(uint8_t *to, const char *event, unsigned i)
{
    size_t n;
    char *p;
    const char *c;

    p = (char *) to;

    for (c = event; *c != '\0'; c++) {
        n = (size_t) (c - event) + i * 7;

        switch (*c) {

        case '@':
            p += sprintf(p, "%s", words[n % COUNT(words)]);
            break;

        case '#':
            p += sprintf(p, "%u", i);
            break;

        case '~':
            p += sprintf(p, "%.*s", (int) (n % 17), "9f0Wq2ZbT4xLk8Ra");
            break;

        case '?':
            p += sprintf(p, "%u", i % 2);
            break;

        default:
            *p++ = *c;
        }
    }

    return (size_t) (p - (char *) to);
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


/* The same in pieces that are an event each. */
static uint64_t
scan_events(const uint8_t *p, const size_t *len)
{
    unsigned i, events;
    llm_sse_t s;

    llm_sse_init(&s);

    for (i = 0; i < CHUNKS; i++) {
        p += llm_sse_scan(&s, p, len[i], &events);
    }

    return s.contents;
}


static uint8_t *
allocate(size_t len)
{
    uint8_t *p;

    p = malloc(len);

    if (p == NULL) {
        exit(1);
    }

    return p;
}


static void
check(bool ok)
{
    if (!ok) {
        fprintf(stderr, "not all events were found\n");
        exit(1);
    }
}


/*
 * Nanoseconds for one of these events, which come in pieces of a size; 0:
 * each in a piece.  *bytes: the mean length.
 */
static double
measure(const char *event, size_t piece, double *bytes)
{
    int round;
    size_t total, len[CHUNKS];
    unsigned i;
    double start, took[ROUNDS];
    uint8_t *stream;

    stream = allocate(CHUNK * CHUNKS);
    total = 0;

    for (i = 0; i < CHUNKS; i++) {
        len[i] = fill(stream + total, event, i);
        total += len[i];
    }

    for (round = 0; round < ROUNDS; round++) {
        start = now();

        check(
            (piece != 0 ? scan(stream, total, piece) : scan_events(stream, len))
            == CHUNKS);

        took[round] = (now() - start) / CHUNKS;
    }

    free(stream);

    if (bytes != NULL) {
        *bytes = (double) total / CHUNKS;
    }

    qsort(took, ROUNDS, sizeof(double), by_value);
    return took[ROUNDS / 2];
}


/* The same where one process reads many streams along, each a token. */
static double
measure_many(const char *event)
{
    int round;
    size_t len[CHUNKS];
    unsigned i, k, events;
    double start, took[ROUNDS];
    uint8_t *stream;
    llm_sse_t *s;

    stream = allocate(CHUNK * CHUNKS);
    s = (llm_sse_t *) (void *) allocate(STREAMS * sizeof(llm_sse_t));

    for (k = 0; k < STREAMS; k++) {
        llm_sse_init(&s[k]);
    }

    for (i = 0; i < CHUNKS; i++) {
        len[i] = fill(stream + i * CHUNK, event, i);
    }

    for (round = 0; round < ROUNDS; round++) {
        start = now();

        for (i = 0; i < CHUNKS; i++) {
            (void) llm_sse_scan(&s[i % STREAMS], stream + i * CHUNK, len[i],
                &events);
        }

        took[round] = (now() - start) / CHUNKS;
    }

    for (k = 0; k < STREAMS; k++) {
        check(s[k].contents == ROUNDS * CHUNKS / STREAMS);
    }

    free(stream);
    free(s);

    qsort(took, ROUNDS, sizeof(double), by_value);
    return took[ROUNDS / 2];
}


static void
report(const char *name, const char *event)
{
    double took, bytes;

    took = measure(event, 0, &bytes);

    printf("sse/%schunk_bytes %.0f\n", name, bytes);
    printf("sse/%schunk_ns %.1f\n", name, took);
    printf("sse/%sgbps %.2f\n", name, bytes / took);
}


int
main(void)
{
    report("", chat);
    printf("sse/chunk_in_64_ns %.1f\n", measure(chat, 64, NULL));
    printf("sse/chunk_in_16k_ns %.1f\n", measure(chat, 16384, NULL));
    printf("sse/chunk_of_200_ns %.1f\n", measure_many(chat));
    printf("sse/chunk_in_turns_ns %.1f\n", measure(turns, 0, NULL));

    report("padded_", padded);
    report("completions_", completions);
    report("messages_", messages);
    report("responses_", responses);

    printf("sse/state_bytes %zu\n", sizeof(llm_sse_t));

    return 0;
}
