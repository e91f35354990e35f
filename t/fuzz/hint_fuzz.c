/*
 * Retry hints: the first eight bytes are the clock, the others the header.
 */

#include <stdlib.h>
#include <string.h>

#include "llm_hint.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(int ok)
{
    if (!ok) {
        abort();
    }
}


/* A duration is the same wherever it stands; a reset time may be more. */
static void
check_reset(const uint8_t *p, size_t len, int64_t now, size_t digits)
{
    bool duration, reset;
    uint32_t d, r;

    d = 4711;
    r = 4711;
    duration = llm_hint_duration(p, len, &d);
    reset = llm_hint_reset(p, len, now, &r);

    check(duration || d == 4711);
    check(reset || r == 4711);
    check(!reset || digits != 0);
    check(!duration || (reset && r == d));
    check(digits == 0 || digits != len || (reset && !duration));
}


/* A header of digits and blanks is understood, one without digits never. */
static void
check_hint(const uint8_t *p, size_t len, int64_t now)
{
    bool seconds, millis;
    size_t i, digits;
    uint32_t s, ms;

    s = 4711;
    ms = 4711;
    seconds = llm_hint_retry_after(p, len, now, &s);
    millis = llm_hint_retry_after_ms(p, len, &ms);

    digits = 0;

    for (i = 0; i < len; i++) {
        digits += (p[i] >= '0' && p[i] <= '9');
    }

    check(seconds || s == 4711);
    check(millis || ms == 4711);
    check(!seconds || digits != 0);
    check(seconds || !millis);
    check(digits == 0 || digits != len || millis);

    check_reset(p, len, now, digits);

    /* the same figure: as seconds it is longer, up to a thousand times */

    if (millis) {
        check(s >= ms);
        check(ms >= UINT32_MAX / 1000 || s <= (uint64_t) ms * 1000);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t now;
    uint8_t *copy;

    if (size < sizeof(now)) {
        return 0;
    }

    memcpy(&now, data, sizeof(now));
    size -= sizeof(now);
    copy = malloc(size);

    if (copy == NULL) {
        return 0;
    }

    memcpy(copy, data + sizeof(now), size);
    check_hint(copy, size, now);
    free(copy);

    return 0;
}
