/*
 * Prices as they are written, and what tokens cost at them.
 */

#include <stdbool.h>
#include <string.h>

#include "llm_price.h"


/* 10 ^ LLM_PRICE_DECIMALS */
#define LLM_PRICE_SCALE 1000000

#define LLM_PRICE_MALFORMED \
    "USD for a million tokens as a decimal number, such as 0.28"


static bool
llm_price_digit(const uint8_t *p, const uint8_t *end)
{
    return p < end && *p >= '0' && *p <= '9';
}


const char *
llm_price_parse(const uint8_t *p, size_t len, uint64_t *pico)
{
    bool negative;
    uint64_t value, unit;
    const uint8_t *end, *fraction;

    end = p + len;
    fraction = end;
    value = 0;
    unit = LLM_PRICE_SCALE;

    negative = (p < end && *p == '-');
    p += negative;

    if (!llm_price_digit(p, end)) {
        return LLM_PRICE_MALFORMED;
    }

    for (/* void */; llm_price_digit(p, end); p++) {

        /* one that is too large stays too large, whatever follows */

        if (value <= LLM_PRICE_LARGEST * LLM_PRICE_SCALE) {
            value = value * 10 + (uint64_t) (*p - '0') * LLM_PRICE_SCALE;
        }
    }

    if (p < end && *p == '.') {
        p++;
        fraction = p;

        if (!llm_price_digit(p, end)) {
            return LLM_PRICE_MALFORMED;
        }

        for (/* void */; llm_price_digit(p, end); p++) {
            unit /= 10;
            value += (uint64_t) (*p - '0') * unit;
        }
    }

    if (p < end) {
        return LLM_PRICE_MALFORMED;
    }

    if (negative) {
        return "a price of 0 or more";
    }

    if (end - fraction > LLM_PRICE_DECIMALS) {
        return "at most 6 decimals";
    }

    if (value > LLM_PRICE_LARGEST * LLM_PRICE_SCALE) {
        return "at most 1000000 USD for a million tokens";
    }

    *pico = value;
    return NULL;
}


void
llm_price_init(llm_price_t *price, uint64_t input, uint64_t output)
{
    price->input = input;
    price->output = output;
    price->cached = input;
    price->cache_write = input;
}


uint64_t
llm_price_add(uint64_t a, uint64_t b)
{
    return (a > UINT64_MAX - b) ? UINT64_MAX : a + b;
}


static uint64_t
llm_price_times(uint64_t tokens, uint64_t pico)
{
    if (pico != 0 && tokens > UINT64_MAX / pico) {
        return UINT64_MAX;
    }

    return tokens * pico;
}


uint64_t
llm_price_cost(const llm_price_t *price, const llm_usage_totals_t *t)
{
    uint64_t plain, cost;

    plain = t->input - t->cached - t->cache_write;

    cost = llm_price_times(plain, price->input);
    cost = llm_price_add(cost, llm_price_times(t->cached, price->cached));
    cost = llm_price_add(cost,
        llm_price_times(t->cache_write, price->cache_write));
    cost = llm_price_add(cost, llm_price_times(t->output, price->output));

    return cost;
}


size_t
llm_price_format(uint64_t pico, char buf[LLM_PRICE_TEXT])
{
    char *p;
    size_t len;
    uint64_t whole, fraction;

    whole = pico / LLM_PRICE_USD;
    fraction = pico % LLM_PRICE_USD;

    /* the whole part backwards from the end, then to its place */

    p = buf + LLM_PRICE_TEXT;

    do {
        *--p = (char) ('0' + whole % 10);
        whole /= 10;
    } while (whole != 0);

    len = (size_t) (buf + LLM_PRICE_TEXT - p);
    memmove(buf, p, len);

    p = buf + len;

    if (fraction != 0) {
        *p++ = '.';
    }

    while (fraction != 0) {
        fraction *= 10;
        *p++ = (char) ('0' + fraction / LLM_PRICE_USD);
        fraction %= LLM_PRICE_USD;
    }

    *p = '\0';

    return (size_t) (p - buf);
}
