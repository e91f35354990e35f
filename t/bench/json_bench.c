/*
 * How fast a request's body is scanned: for what the gateway needs of it, for
 * its key, and for its complexity.  Each line is a name and a value, the
 * median of several rounds; names end in the unit.
 */

#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llm_canonical.h"
#include "llm_complexity.h"
#include "llm_json.h"


#define ROUNDS 15


/* Scans a body in pieces, as it has to be. */
typedef llm_json_rc_t (*scan_t)(const uint8_t *body, size_t len, size_t piece);


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

static const char chat_tail[] =
    "{\"role\":\"user\",\"content\":\"What shall I do?\"}],\"stream\":true}";

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


static llm_json_rc_t
scan_json(const uint8_t *body, size_t len, size_t piece)
{
    size_t at, n;
    llm_json_t j;

    llm_json_init(&j);

    for (at = 0; at < len; at += n) {
        n = (len - at < piece) ? len - at : piece;
        llm_json_scan(&j, body + at, n);
    }

    return llm_json_end(&j);
}


static llm_json_rc_t
scan_key(const uint8_t *body, size_t len, size_t piece)
{
    size_t at, n;
    static llm_canonical_t c;

    llm_canonical_init(&c);

    for (at = 0; at < len; at += n) {
        n = (len - at < piece) ? len - at : piece;
        llm_canonical_scan(&c, body + at, n);
    }

    return llm_canonical_end(&c);
}


static llm_json_rc_t
scan_complexity(const uint8_t *body, size_t len, size_t piece)
{
    size_t at, n;
    uint32_t memory[64];
    llm_complexity_t c;
    llm_complexity_conf_t conf;

    static const llm_complexity_term_t terms[] = { { "prove", 5 },
        { "derive", 6 } };

    llm_complexity_defaults(&conf);
    conf.list = llm_complexity_terms_build(memory, terms, 2);
    llm_complexity_init(&c, &conf);

    for (at = 0; at < len; at += n) {
        n = (len - at < piece) ? len - at : piece;
        llm_complexity_scan(&c, body + at, n);
    }

    return llm_complexity_end(&c);
}


/* Nanoseconds for one scan of a body that comes in pieces. */
static double
measure(scan_t scan, const char *body, size_t len, size_t piece, int times)
{
    int i, round;
    double start, took[ROUNDS];

    for (round = 0; round < ROUNDS; round++) {
        start = now();

        for (i = 0; i < times; i++) {
            if (scan((const uint8_t *) body, len, piece) != LLM_JSON_OK) {
                fprintf(stderr, "the body cannot be read\n");
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
measure_big(const char *name, scan_t scan, const char *head, const char *text,
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
    printf("%s %.2f\n", name, (double) n / measure(scan, body, n, n, 40));
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
    printf("json/scan_1k_ns %.0f\n", measure(scan_json, chat, len, len, 20000));
    printf("json/scan_1k_in_64_ns %.0f\n",
        measure(scan_json, chat, len, 64, 20000));

    printf("json/key_1k_ns %.0f\n", measure(scan_key, chat, len, len, 2000));
    printf("json/complexity_1k_ns %.0f\n",
        measure(scan_complexity, chat, len, len, 2000));

    measure_big("json/key_100k_gbps", scan_key, chat_head, chat_turns,
        chat_tail, 100000);
    measure_big("json/key_64k_tiny_gbps", scan_key, "[{}", ",{\"\":0}", "]",
        1 << 16);
    measure_big("json/complexity_100k_gbps", scan_complexity, chat_head,
        chat_turns, chat_tail, 100000);

    measure_big("json/scan_100k_gbps", scan_json, chat_head, chat_turns,
        chat_tail, 100000);

    measure_big("json/scan_1m_gbps", scan_json, head,
        "The committee met again in the afternoon; nothing in the "
        "minutes says who asked for the second reading of the bill, "
        "and none of those present remembered it in a later year. ",
        tail, 1 << 20);

    measure_big("json/scan_1m_lines_gbps", scan_json, head,
        "The committee met again in the afternoon; nothing in the "
        "minutes says who\\nasked for the \\\"second\\\" reading.\\n\\n",
        tail, 1 << 20);

    measure_big("json/scan_1m_unicode_gbps", scan_json, head,
        "\\u4eca\\u65e5\\u306f\\u3044\\u3044\\u5929\\u6c17\\u3002", tail,
        1 << 20);

    measure_big("json/scan_1m_numbers_gbps", scan_json,
        "{\"model\":\"e\",\"input\":[0", ",1734,11,262,50256", "]}", 1 << 20);

    return 0;
}
