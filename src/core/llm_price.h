/*
 * Money, exact: prices as providers list them, in USD for a million tokens
 * with up to six decimals, and what tokens cost at them.
 *
 * The unit is the pico-USD, 1e-12 USD.  One pico-USD for a token is a
 * millionth of a USD for a million tokens, so every price and every sum is a
 * whole number.  2.00 USD for a million are 2000000 for each.  Sums stop at
 * UINT64_MAX, which is 18446744 USD.
 */

#ifndef LLM_PRICE_H
#define LLM_PRICE_H

#include <stddef.h>
#include <stdint.h>

#include "llm_usage.h"


#define LLM_PRICE_USD UINT64_C(1000000000000) /* one USD */

#define LLM_PRICE_DECIMALS 6                /* of a price as it is written */
#define LLM_PRICE_LARGEST UINT64_C(1000000) /* USD for a million tokens */

/* room for any amount: 8 digits, the point, 12 digits, the final NUL */
#define LLM_PRICE_TEXT 22


/* pico-USD for a token */
typedef struct {
    uint64_t input;
    uint64_t output;
    uint64_t cached;      /* input that is read from a cache */
    uint64_t cache_write; /* input that is written to a cache */
} llm_price_t;


/*
 * A price as it is written: "2", "2.00", "0.075".  NULL: *pico is what a
 * token costs.  Else *pico is untouched, and the text says what is expected,
 * to be put behind "expected".
 */
const char *llm_price_parse(const uint8_t *p, size_t len, uint64_t *pico);

/* Prices where caches make no difference, unless they are set later. */
void llm_price_init(llm_price_t *price, uint64_t input, uint64_t output);

/* What an answer cost that took these; as llm_usage_totals() fills them. */
uint64_t llm_price_cost(const llm_price_t *price, const llm_usage_totals_t *t);

/* The sum of two amounts. */
uint64_t llm_price_add(uint64_t a, uint64_t b);

/*
 * Writes an amount as USD: "0", "12", "0.000123", with all digits that it
 * has and none that are not needed, and with a final NUL.  Returns the length
 * without it.
 */
size_t llm_price_format(uint64_t pico, char buf[LLM_PRICE_TEXT]);

#endif /* LLM_PRICE_H */
