/* The text of a state file, and a circuit in it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "llm_sha256.h"
#include "llm_state.h"


#define SIZE 65536


static uint8_t buf[SIZE];
static llm_state_line_t line;


static size_t
ended(llm_state_text_t *t)
{
    assert_true(llm_state_end(t));

    return (size_t) (t->p - t->start);
}


static size_t
sample(uint8_t *p, size_t size)
{
    llm_state_text_t t;
    uint64_t few[] = { 1, 0, 2, 0, 0 };
    uint64_t long_run[120] = { 7 };
    uint64_t large[] = { UINT64_MAX };

    long_run[60] = 12;
    long_run[119] = 3;

    llm_state_begin(&t, p, size);
    llm_state_numbers(&t, "written", large, 1);
    llm_state_record(&t, "provider", (const uint8_t *) "open ai\0]\n\xff%", 12);
    llm_state_numbers(&t, "circuit", few, 5);
    llm_state_numbers(&t, "times", long_run, 120);
    llm_state_record(&t, "route", (const uint8_t *) "llm", 3);
    llm_state_numbers(&t, "nothing", few, 0);

    return ended(&t);
}


/* A text of this body, whose checksum is right. */
static llm_state_rc_t
check_body(const char *body)
{
    uint8_t digest[LLM_SHA256_LEN];
    llm_sha256_t s;
    size_t len;

    len = (size_t) snprintf((char *) buf, SIZE, "nginx-llm state 1\n%s", body);

    llm_sha256_init(&s);
    llm_sha256_update(&s, buf, len);
    llm_sha256_final(&s, digest);

    len += (size_t) snprintf((char *) buf + len, SIZE - len, "sha256 ");

    for (unsigned i = 0; i < LLM_SHA256_LEN; i++) {
        len += (size_t) snprintf((char *) buf + len, SIZE - len, "%02x",
            digest[i]);
    }

    buf[len++] = '\n';

    return llm_state_check(buf, len, &line);
}


static void
test_what_was_written_is_read(void **state)
{
    llm_state_reader_t r;
    size_t len = sample(buf, SIZE);

    (void) state;

    assert_int_equal(llm_state_check(buf, len, &line), LLM_STATE_OK);
    llm_state_read(&r, buf, len);

    assert_true(llm_state_next(&r, &line));
    assert_memory_equal(line.key, "written", line.key_len);
    assert_int_equal(line.number, 2);
    assert_int_equal(line.n, 1);
    assert_true(line.v[0] == UINT64_MAX);

    assert_true(llm_state_next(&r, &line));
    assert_true(line.record);
    assert_memory_equal(line.key, "provider", line.key_len);
    assert_int_equal(line.name_len, 12);
    assert_memory_equal(line.name, "open ai\0]\n\xff%", 12);

    assert_true(llm_state_next(&r, &line));
    assert_false(line.record);
    assert_int_equal(line.n, 3);
    assert_int_equal(line.v[0], 1);
    assert_int_equal(line.v[2], 2);
    assert_int_equal(line.v[4], 0);

    assert_true(llm_state_next(&r, &line));
    assert_int_equal(line.n, 120);
    assert_int_equal(line.v[0], 7);
    assert_int_equal(line.v[59], 0);
    assert_int_equal(line.v[60], 12);
    assert_int_equal(line.v[119], 3);
    assert_int_equal(line.v[120], 0);

    assert_true(llm_state_next(&r, &line));
    assert_true(line.record);
    assert_memory_equal(line.name, "llm", 3);

    assert_true(llm_state_next(&r, &line));
    assert_int_equal(line.n, 0);
    assert_int_equal(line.v[0], 0);

    assert_false(llm_state_next(&r, &line));
}


static void
test_every_byte_of_a_name_comes_back(void **state)
{
    llm_state_text_t t;
    llm_state_reader_t r;
    uint8_t name[256];
    size_t len;

    (void) state;

    for (unsigned i = 0; i < sizeof(name); i++) {
        name[i] = (uint8_t) i;
    }

    llm_state_begin(&t, buf, SIZE);
    llm_state_record(&t, "provider", name, sizeof(name));
    len = ended(&t);

    assert_int_equal(llm_state_check(buf, len, &line), LLM_STATE_OK);
    llm_state_read(&r, buf, len);
    assert_true(llm_state_next(&r, &line));
    assert_int_equal(line.name_len, sizeof(name));
    assert_memory_equal(line.name, name, sizeof(name));
}


static void
test_every_flipped_bit_is_seen(void **state)
{
    size_t len = sample(buf, SIZE);

    (void) state;

    for (size_t i = 0; i < len * 8; i++) {
        buf[i / 8] ^= (uint8_t) (1 << i % 8);
        assert_int_not_equal(llm_state_check(buf, len, &line), LLM_STATE_OK);
        buf[i / 8] ^= (uint8_t) (1 << i % 8);
    }

    assert_int_equal(llm_state_check(buf, len, &line), LLM_STATE_OK);
}


static void
test_every_cut_is_seen(void **state)
{
    size_t len = sample(buf, SIZE);

    (void) state;

    assert_int_equal(llm_state_check(buf, 0, &line), LLM_STATE_EMPTY);

    for (size_t i = 1; i < len; i++) {
        uint8_t *piece = malloc(i);

        assert_non_null(piece);
        memcpy(piece, buf, i);
        assert_int_equal(llm_state_check(piece, i, &line), LLM_STATE_TRUNCATED);
        free(piece);
    }

    buf[len] = '\n';
    assert_int_equal(llm_state_check(buf, len + 1, &line), LLM_STATE_TRUNCATED);
}


static void
test_a_buffer_that_is_too_small_is_told(void **state)
{
    llm_state_text_t t;
    uint64_t v[] = { 1, 2, 3 };
    size_t len;

    (void) state;

    for (size_t size = 0;; size++) {
        uint8_t *p = malloc(size + 1);

        assert_non_null(p);
        llm_state_begin(&t, p, size);
        llm_state_numbers(&t, "circuit", v, 3);

        if (llm_state_end(&t)) {
            len = (size_t) (t.p - t.start);
            assert_int_equal(len, size);
            assert_int_equal(llm_state_check(p, len, &line), LLM_STATE_OK);
            free(p);
            return;
        }

        assert_true(t.p <= t.end);
        free(p);
        assert_true(size < 1000);
    }
}


static void
test_what_is_wrong_is_told(void **state)
{
    static const struct {
        const char *text;
        llm_state_rc_t rc;
    } cases[] = {
        { "\n", LLM_STATE_FOREIGN },
        { "n", LLM_STATE_TRUNCATED },
        { "{\"providers\": []}\n", LLM_STATE_FOREIGN },
        { "nginx-llm state x\n", LLM_STATE_FOREIGN },
        { "nginx-llm state 0\n", LLM_STATE_FOREIGN },
        { "nginx-llm state 01\n", LLM_STATE_FOREIGN },
        { "nginx-llm state 1 \n", LLM_STATE_FOREIGN },
        { "nginx-llm state 1\n", LLM_STATE_TRUNCATED },
        { "nginx-llm state 1\ncircuit 1\n", LLM_STATE_TRUNCATED },
        { "nginx-llm state 2\n", LLM_STATE_NEWER },
        { "nginx-llm state 18446744073709551615\n", LLM_STATE_NEWER },
        { "nginx-llm state 18446744073709551616\n", LLM_STATE_FOREIGN },
    };

    (void) state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        llm_state_rc_t rc = llm_state_check((const uint8_t *) cases[i].text,
            strlen(cases[i].text), &line);

        if (rc != cases[i].rc) {
            fail_msg("\"%s\" %s", cases[i].text, llm_state_says(rc));
        }
    }
}


static void
test_a_line_that_is_none_is_told_by_its_number(void **state)
{
    static const char *const lines[] = {
        "",
        " ",
        " 1",
        "A 1",
        "1 1",
        "_a 1",
        "a-b 1",
        "a 1 ",
        "a  1",
        "a 01",
        "a -1",
        "a +1",
        "a 1.0",
        "a 0x1",
        "a 18446744073709551616",
        "a 1*",
        "a *1",
        "a 1*0",
        "a 1**2",
        "a 1*513",
        "a 0*512 1",
        "a 1*18446744073709551615",
        "abcdefghijklmnopqrstuvwxyz_012345 1",
        "[provider]",
        "[provider ]",
        "[ a]",
        "[provider a",
        "[provider a b]",
        "[provider a] ",
        "[provider a%]",
        "[provider a%1]",
        "[provider %0g]",
        "[provider %FF]",
        "[]",
        "[",
        "a 1\r",
    };
    char body[256];

    (void) state;

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        (void) snprintf(body, sizeof(body), "written 1\n%s\nb 1\n", lines[i]);

        if (check_body(body) != LLM_STATE_SYNTAX || line.number != 3) {
            fail_msg("\"%s\" at line %u", lines[i], line.number);
        }
    }

    assert_int_equal(check_body("a 1*512\n"), LLM_STATE_OK);
    assert_int_equal(check_body("[provider a%ff]\n"), LLM_STATE_OK);
    assert_int_equal(check_body(""), LLM_STATE_OK);
    assert_int_equal(check_body("a 1"), LLM_STATE_TRUNCATED);
}


static void
test_a_name_that_is_too_long_is_none(void **state)
{
    static char body[LLM_STATE_NAME + 32];

    (void) state;

    memset(body, 'a', sizeof(body));
    memcpy(body, "[provider ", 10);
    memcpy(&body[10 + LLM_STATE_NAME], "]\n", 3);
    assert_int_equal(check_body(body), LLM_STATE_OK);

    memcpy(&body[10 + LLM_STATE_NAME], "a]\n", 4);
    assert_int_equal(check_body(body), LLM_STATE_SYNTAX);
}


static void
test_the_head_is_read_of_a_beginning(void **state)
{
    size_t len = sample(buf, SIZE);
    size_t end = (size_t) ((uint8_t *) memchr(buf, '[', len) - buf);

    (void) state;

    assert_true(llm_state_head(buf, len, "written", &line));
    assert_true(line.v[0] == UINT64_MAX);

    for (size_t i = 0; i < end; i++) {
        assert_false(llm_state_head(buf, i, "written", &line));
    }

    assert_true(llm_state_head(buf, end, "written", &line));
    assert_false(llm_state_head(buf, len, "circuit", &line));
    assert_false(llm_state_head(buf, len, "owner", &line));
    assert_false(
        llm_state_head((const uint8_t *) "nginx-llm state 2\nowner 1\n", 26,
            "owner", &line));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_written_is_read),
        cmocka_unit_test(test_every_byte_of_a_name_comes_back),
        cmocka_unit_test(test_every_flipped_bit_is_seen),
        cmocka_unit_test(test_every_cut_is_seen),
        cmocka_unit_test(test_a_buffer_that_is_too_small_is_told),
        cmocka_unit_test(test_what_is_wrong_is_told),
        cmocka_unit_test(test_a_line_that_is_none_is_told_by_its_number),
        cmocka_unit_test(test_a_name_that_is_too_long_is_none),
        cmocka_unit_test(test_the_head_is_read_of_a_beginning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
