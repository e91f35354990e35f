/*
 * SHA-256, as FIPS 180-4 tells it.
 */

#include <string.h>

#include "llm_sha256.h"


static void llm_sha256_block(llm_sha256_t *s, const uint8_t *p);


/* the first 32 bits of the fractional parts of cube roots of primes (4.2.2) */
static const uint32_t llm_sha256_k[64] = {
    0x428a2f98,
    0x71374491,
    0xb5c0fbcf,
    0xe9b5dba5,
    0x3956c25b,
    0x59f111f1,
    0x923f82a4,
    0xab1c5ed5,
    0xd807aa98,
    0x12835b01,
    0x243185be,
    0x550c7dc3,
    0x72be5d74,
    0x80deb1fe,
    0x9bdc06a7,
    0xc19bf174,
    0xe49b69c1,
    0xefbe4786,
    0x0fc19dc6,
    0x240ca1cc,
    0x2de92c6f,
    0x4a7484aa,
    0x5cb0a9dc,
    0x76f988da,
    0x983e5152,
    0xa831c66d,
    0xb00327c8,
    0xbf597fc7,
    0xc6e00bf3,
    0xd5a79147,
    0x06ca6351,
    0x14292967,
    0x27b70a85,
    0x2e1b2138,
    0x4d2c6dfc,
    0x53380d13,
    0x650a7354,
    0x766a0abb,
    0x81c2c92e,
    0x92722c85,
    0xa2bfe8a1,
    0xa81a664b,
    0xc24b8b70,
    0xc76c51a3,
    0xd192e819,
    0xd6990624,
    0xf40e3585,
    0x106aa070,
    0x19a4c116,
    0x1e376c08,
    0x2748774c,
    0x34b0bcb5,
    0x391c0cb3,
    0x4ed8aa4a,
    0x5b9cca4f,
    0x682e6ff3,
    0x748f82ee,
    0x78a5636f,
    0x84c87814,
    0x8cc70208,
    0x90befffa,
    0xa4506ceb,
    0xbef9a3f7,
    0xc67178f2,
};


void
llm_sha256_init(llm_sha256_t *s)
{
    static const uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372,
        0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };

    s->len = 0;
    memcpy(s->h, h, sizeof(h));
}


void
llm_sha256_update(llm_sha256_t *s, const void *data, size_t len)
{
    size_t used, n;
    const uint8_t *p;

    p = data;
    used = s->len % 64;
    s->len += len;

    if (used != 0) {
        n = (len < 64 - used) ? len : 64 - used;
        memcpy(s->block + used, p, n);

        if (used + n < 64) {
            return;
        }

        llm_sha256_block(s, s->block);
        p += n;
        len -= n;
    }

    for (/* void */; len >= 64; p += 64, len -= 64) {
        llm_sha256_block(s, p);
    }

    if (len != 0) {
        memcpy(s->block, p, len);
    }
}


/* A one bit, zeroes, and the length in bits fill the last block (5.1.1). */
void
llm_sha256_final(llm_sha256_t *s, uint8_t digest[LLM_SHA256_LEN])
{
    size_t i, used;
    uint64_t bits;

    bits = s->len * 8;
    used = s->len % 64;
    s->block[used++] = 0x80;

    if (used > 56) {
        memset(s->block + used, 0, 64 - used);
        llm_sha256_block(s, s->block);
        used = 0;
    }

    memset(s->block + used, 0, 56 - used);

    for (i = 0; i < 8; i++) {
        s->block[56 + i] = (uint8_t) (bits >> (56 - 8 * i));
    }

    llm_sha256_block(s, s->block);

    for (i = 0; i < LLM_SHA256_LEN; i++) {
        digest[i] = (uint8_t) (s->h[i / 4] >> (24 - 8 * (i % 4)));
    }
}


static inline uint32_t
llm_sha256_rotate(uint32_t x, unsigned n)
{
    return (x >> n) | (x << (32 - n));
}


/*
 * A step of 6.2.2.  The variables do not move on from step to step: their
 * names do.
 */
#define STEP(a, b, c, d, e, f, g, h, t)                          \
    do {                                                         \
        h += (llm_sha256_rotate(e, 6) ^ llm_sha256_rotate(e, 11) \
                 ^ llm_sha256_rotate(e, 25))                     \
             + ((e & f) ^ (~e & g)) + llm_sha256_k[t] + w[t];    \
        d += h;                                                  \
        h += (llm_sha256_rotate(a, 2) ^ llm_sha256_rotate(a, 13) \
                 ^ llm_sha256_rotate(a, 22))                     \
             + ((a & b) ^ (a & c) ^ (b & c));                    \
    } while (0)


static void
llm_sha256_block(llm_sha256_t *s, const uint8_t *p)
{
    int t;
    uint32_t a, b, c, d, e, f, g, h, w[64];

    for (t = 0; t < 16; t++) {
        w[t] = (uint32_t) p[4 * t] << 24 | (uint32_t) p[4 * t + 1] << 16
               | (uint32_t) p[4 * t + 2] << 8 | p[4 * t + 3];
    }

    for (/* void */; t < 64; t++) {
        a = w[t - 15];
        e = w[t - 2];
        w[t] = w[t - 16] + w[t - 7]
               + (llm_sha256_rotate(a, 7) ^ llm_sha256_rotate(a, 18) ^ (a >> 3))
               + (llm_sha256_rotate(e, 17) ^ llm_sha256_rotate(e, 19)
                   ^ (e >> 10));
    }

    a = s->h[0];
    b = s->h[1];
    c = s->h[2];
    d = s->h[3];
    e = s->h[4];
    f = s->h[5];
    g = s->h[6];
    h = s->h[7];

    for (t = 0; t < 64; t += 8) {
        STEP(a, b, c, d, e, f, g, h, t);
        STEP(h, a, b, c, d, e, f, g, t + 1);
        STEP(g, h, a, b, c, d, e, f, t + 2);
        STEP(f, g, h, a, b, c, d, e, t + 3);
        STEP(e, f, g, h, a, b, c, d, t + 4);
        STEP(d, e, f, g, h, a, b, c, t + 5);
        STEP(c, d, e, f, g, h, a, b, t + 6);
        STEP(b, c, d, e, f, g, h, a, t + 7);
    }

    s->h[0] += a;
    s->h[1] += b;
    s->h[2] += c;
    s->h[3] += d;
    s->h[4] += e;
    s->h[5] += f;
    s->h[6] += g;
    s->h[7] += h;
}
