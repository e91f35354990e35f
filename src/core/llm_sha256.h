/*
 * SHA-256 (FIPS 180-4).
 */

#ifndef LLM_SHA256_H
#define LLM_SHA256_H

#include <stddef.h>
#include <stdint.h>


#define LLM_SHA256_LEN 32


typedef struct {
    uint64_t len; /* bytes so far */
    uint32_t h[8];
    uint8_t block[64];
} llm_sha256_t;


void llm_sha256_init(llm_sha256_t *s);
void llm_sha256_update(llm_sha256_t *s, const void *data, size_t len);

/* Ends it: s has to be started over before it is used again. */
void llm_sha256_final(llm_sha256_t *s, uint8_t digest[LLM_SHA256_LEN]);

#endif /* LLM_SHA256_H */
