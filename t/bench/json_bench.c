/*
 * How fast the JSON scanner is.  Each line is a name and a value, the median
 * of several rounds; names end in the unit.
 */

#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llm_json.h"


#define ROUNDS 15


static const char chat[] =
    "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"system\",\"content\":"
    "\"You are a support assistant of a web shop. Answer in the language of "
    "the customer, in at most five sentences.\\nNever promise a refund; point "
    "to the returns page instead.\\nIf you do not know, say so.\"},{\"role\":"
    "\"user\",\"content\":\"Hello, my order 48213 has not arrived yet. The "
    "tracking page says \\\"in transit\\\" since Monday.\"},{\"role\":"
    "\"assistant\",\"content\":\"I am sorry to hear that. Parcels are "
    "sometimes scanned late; most arrive within two days of the last scan."
    "\\n\\nMay I ask which carrier it is?\"},{\"role\":\"user\",\"content\":"
    "\"It is the yellow one. I have attached what their page shows:\\n\\n"
    "Mon 09:12 left the depot\\nMon 17:40 arrived at the sorting centre\\n\\n"
    "Should I wait or can you send the shoes again? I need them on Friday, "
    "they are a present for my daughter. If that cannot be done, please "
    "tell me which shop has them in size 38.\"}],\"temperature\":0.7,"
    "\"max_tokens\":512,\"top_p\":1,\"stream\":true,\"stream_options\":"
    "{\"include_usage\":true},\"user\":\"customer-77120\"}";


static const char chat_head[] = "{\"model\":\"gpt-4o\",\"messages\":[";

/* repeated: a long conversation */
static const char chat_turns[] =
    "{\"role\":\"user\",\"content\":\"The tracking page says \\\"in transit"
    "\\\" since Monday; nobody\\ncould tell me more than that.\\n\\nWhat they "
    "did say, and what I wrote down:\\n\\n1. It left the depot, \\\"as "
    "planned\\\".\\n2. It is not at the sorting centre.\\n3. Somebody will "
    "call me back.\\n\\nThat was on Tuesday. May I have my money back?\"},"
    "{\"role\":\"assistant\",\"content\":\"I am sorry to hear that.\\n\\nA "
    "parcel that is \\\"in transit\\\" is most often just scanned late:\\n\\n"
    "- most arrive within two days of the last scan;\\n- one that does not "
    "is looked for, which takes a week;\\n- if it is not found, you get "
    "your money back, or the same again.\\n\\nPlease wait until Friday, and "
    "then write \\\"search\\\" with the number of your order: somebody of "
    "ours will see to it on the same day.\"},";


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


/* Nanoseconds for one scan of a body that comes in pieces. */
static double
measure(const char *body, size_t len, size_t piece, int times)
{
    int i, round;
    size_t at, n;
    double start, took[ROUNDS];
    llm_json_t j;

    for (round = 0; round < ROUNDS; round++) {
        start = now();

        for (i = 0; i < times; i++) {
            llm_json_init(&j);

            for (at = 0; at < len; at += n) {
                n = (len - at < piece) ? len - at : piece;
                llm_json_scan(&j, (const uint8_t *) body + at, n);
            }

            if (llm_json_end(&j) != LLM_JSON_OK) {
                fprintf(stderr, "%s at %llu\n", j.error,
                    (unsigned long long) j.offset);
                exit(1);
            }
        }

        took[round] = (now() - start) / times;
    }

    qsort(took, ROUNDS, sizeof(double), by_value);
    return took[ROUNDS / 2];
}


/* Repeats text between head and tail until there are about size bytes. */
static void
measure_big(const char *name, const char *head, const char *text,
    const char *tail, size_t size)
{
    char *body, *p;
    size_t n;

    body = malloc(size + strlen(head) + strlen(tail) + 1);
    if (body == NULL) {
        exit(1);
    }

    n = strlen(text);
    p = body + sprintf(body, "%s", head);

    for (/* void */; (size_t) (p - body) + n <= size; p += n) {
        memcpy(p, text, n);
    }

    p += sprintf(p, "%s", tail);

    n = (size_t) (p - body);
    printf("%s %.2f\n", name, (double) n / measure(body, n, n, 40));
    free(body);
}


int
main(void)
{
    size_t len;

    static const char head[] =
        "{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":\"";
    static const char tail[] = "\"}],\"stream\":true}";

    len = strlen(chat);

    printf("json/body_1k_bytes %zu\n", len);
    printf("json/scan_1k_ns %.0f\n", measure(chat, len, len, 20000));
    printf("json/scan_1k_in_64_ns %.0f\n", measure(chat, len, 64, 20000));

    measure_big("json/scan_100k_gbps", chat_head, chat_turns,
        "{\"role\":\"user\",\"content\":\"What shall I do?\"}],"
        "\"stream\":true}",
        100000);

    measure_big("json/scan_1m_gbps", head,
        "The committee met again in the afternoon; nothing in the "
        "minutes says who asked for the second reading of the bill, "
        "and none of those present remembered it in a later year. ",
        tail, 1 << 20);

    measure_big("json/scan_1m_lines_gbps", head,
        "The committee met again in the afternoon; nothing in the "
        "minutes says who\\nasked for the \\\"second\\\" reading.\\n\\n",
        tail, 1 << 20);

    measure_big("json/scan_1m_unicode_gbps", head,
        "\\u4eca\\u65e5\\u306f\\u3044\\u3044\\u5929\\u6c17\\u3002", tail,
        1 << 20);

    measure_big("json/scan_1m_numbers_gbps", "{\"model\":\"e\",\"input\":[0",
        ",1734,11,262,50256", "]}", 1 << 20);

    return 0;
}
