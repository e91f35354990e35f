/*
 * The text of strings, 64 bytes at a time.  Each way of doing so is told by
 * how it finds the few characters that mean something; what follows from
 * where they are is the same for all, and done on 64 bits at once.
 */

#include <string.h>

#if defined(__GNUC__) && defined(__SSE2__)
#define LLM_JSON_SIMD 1
#include <immintrin.h>
#endif

#include "llm_json_skip.h"


static const uint8_t *llm_json_skip_first(llm_json_reader_t *r,
    const uint8_t *p, const uint8_t *end, uint64_t plain);


llm_json_skip_t llm_json_skip_on = llm_json_skip_first;


const uint8_t llm_json_escapes[256] = {
    ['"'] = '"',
    ['\\'] = '\\',
    ['/'] = '/',
    ['b'] = '\b',
    ['f'] = '\f',
    ['n'] = '\n',
    ['r'] = '\r',
    ['t'] = '\t',
};


#define X LLM_JSON_BAD_HEX
#define ROW X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X
#define DIGITS 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, X, X, X, X, X, X
#define LETTERS X, 10, 11, 12, 13, 14, 15, X, X, X, X, X, X, X, X, X

const uint8_t llm_json_hex_digits[256] = { ROW, ROW, ROW, DIGITS, LETTERS, ROW,
    LETTERS, ROW, ROW, ROW, ROW, ROW, ROW, ROW, ROW, ROW };

#undef X
#undef ROW
#undef DIGITS
#undef LETTERS


/* 8 bytes at a time, and never over an escape. */
static const uint8_t *
llm_json_skip_portable(llm_json_reader_t *r, const uint8_t *p,
    const uint8_t *end, uint64_t plain)
{
    uint64_t v, quote, slash, hit;
    const uint64_t ones = UINT64_C(0x0101010101010101);

    (void) r;
    (void) plain;

    /* a byte's top bit: it is below 0x20, or 0 once what is sought is 0 */

    while (end - p >= 8) {
        memcpy(&v, p, 8);
        quote = v ^ (ones * '"');
        slash = v ^ (ones * '\\');
        hit = ((v - ones * 0x20) & ~v) | ((quote - ones) & ~quote)
              | ((slash - ones) & ~slash);

        if (hit & (ones * 0x80)) {
            break;
        }

        p += 8;
    }

    while (p < end && *p >= 0x20 && *p != '"' && *p != '\\') {
        p++;
    }

    return p;
}


#if defined(LLM_JSON_SIMD)

/* A bit for each of 64 bytes. */
typedef struct {
    uint64_t slash; /* a backslash */
    uint64_t stop;  /* a quote or a control character */
    uint64_t usual; /* a quote or an n: what most escapes end with */
} llm_json_block_t;


/*
 * Of the letters behind backslashes that are not the usual ones: the bits of
 * the backslashes where the escape is bad, or does not end in the block.
 */
static uint64_t
llm_json_bad_escapes(const uint8_t *p, uint64_t letters)
{
    int at;
    bool good;
    uint64_t bad;

    bad = 0;

    for (/* void */; letters != 0; letters &= letters - 1) {
        at = __builtin_ctzll(letters);

        if (p[at] == 'u') {
            good = at + 4 < 64 && llm_json_hex_four(p + at + 1);

        } else {
            good = llm_json_escapes[p[at]] != 0;
        }

        bad |= (uint64_t) !good << (at - 1);
    }

    return bad;
}


/*
 * Takes 64 bytes, of which those count that have a bit in text, and of which
 * the first is not within an escape.
 *
 * Of a run of backslashes every other one begins an escape, from its first
 * on.  Adding its first bit to a run sets the bit behind it and clears its
 * own: done to the runs that begin at an even place only, it tells them from
 * the others.
 */
LLM_JSON_HOT void
llm_json_take(llm_json_reader_t *r, const uint8_t *p, llm_json_block_t *b,
    uint64_t text)
{
    uint64_t slash, first, letters, others;
    const uint64_t even = UINT64_C(0x5555555555555555);
    const uint64_t last = UINT64_C(1) << 63;

    slash = b->slash & text;
    first = slash & ~(slash << 1);

    r->escapes = slash & ((slash + (first & even)) ^ even);

    letters = r->escapes << 1;
    others = letters & ~(b->usual | b->slash);

    r->stops = (b->stop & text & ~letters) | (r->escapes & last);

    if (others != 0) {
        r->stops |= llm_json_bad_escapes(p, others);
    }
}


/*
 * Whether nothing has to be stopped at in 64 bytes, of which the first is not
 * within an escape: there is only text, and escapes that are the usual ones,
 * whole, and not one behind the other.
 */
LLM_JSON_HOT bool
llm_json_is_text(const llm_json_block_t *b, uint64_t plain)
{
    uint64_t letters;
    const uint64_t last = UINT64_C(1) << 63;

    letters = b->slash << 1;

    return ((letters & (b->slash | ~b->usual)) | (b->stop & ~letters)
               | (b->slash & (plain | last)))
           == 0;
}


/* As llm_json_skip_on(), with blocks as this function sees them. */
LLM_JSON_HOT const uint8_t *
llm_json_skip_blocks(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end,
    uint64_t plain, void (*look)(llm_json_block_t *b, const uint8_t *p))
{
    int at;
    size_t left;
    uint64_t stops;
    uint8_t few[64];
    const uint8_t *last;
    llm_json_block_t b;

    while (end - p >= 64) {
        look(&b, p);

        if (llm_json_is_text(&b, plain)) {
            p += 64;
            continue;
        }

        llm_json_take(r, p, &b, ~UINT64_C(0));

        stops = r->stops | (r->escapes & plain);

        if (stops == 0) {
            p += 64;
            continue;
        }

        at = __builtin_ctzll(stops);

        /* an escape at the end may be whole in a block that begins there */

        if (at < 64 - 5 || !((r->escapes >> at) & 1)) {
            r->seen = p + 64;
            return p + at;
        }

        p += at;
    }

    if (p == end) {
        return p;
    }

    left = (size_t) (end - p);

    if (end - r->piece >= 64) {
        last = end - 64;

    } else {
        memset(few, 0, sizeof(few));
        memcpy(few + 64 - left, p, left);
        last = few;
    }

    look(&b, last);
    llm_json_take(r, last, &b, ~UINT64_C(0) << (64 - left));
    r->seen = end;

    stops = (r->stops | (r->escapes & plain)) >> (64 - left);

    return (stops != 0) ? p + __builtin_ctzll(stops) : end;
}


/* The 16 bytes at p + at. */
LLM_JSON_HOT void
llm_json_part_sse2(llm_json_block_t *b, const uint8_t *p, int at)
{
    __m128i v, quote, slash, control, n;

    v = _mm_loadu_si128((const __m128i *) (p + at));

    quote = _mm_cmpeq_epi8(v, _mm_set1_epi8('"'));
    slash = _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'));
    control = _mm_cmpeq_epi8(v, _mm_min_epu8(v, _mm_set1_epi8(0x1f)));
    n = _mm_cmpeq_epi8(v, _mm_set1_epi8('n'));

    control = _mm_or_si128(control, quote);
    n = _mm_or_si128(n, quote);

    b->slash |= (uint64_t) (uint32_t) _mm_movemask_epi8(slash) << at;
    b->stop |= (uint64_t) (uint32_t) _mm_movemask_epi8(control) << at;
    b->usual |= (uint64_t) (uint32_t) _mm_movemask_epi8(n) << at;
}


LLM_JSON_HOT void
llm_json_look_sse2(llm_json_block_t *b, const uint8_t *p)
{
    memset(b, 0, sizeof(llm_json_block_t));

    llm_json_part_sse2(b, p, 0);
    llm_json_part_sse2(b, p, 16);
    llm_json_part_sse2(b, p, 32);
    llm_json_part_sse2(b, p, 48);
}


static const uint8_t *
llm_json_skip_sse2(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end,
    uint64_t plain)
{
    return llm_json_skip_blocks(r, p, end, plain, llm_json_look_sse2);
}


#define AVX2 __attribute__((target("avx2,bmi")))

/* The 32 bytes at p + at. */
AVX2 LLM_JSON_HOT void
llm_json_part_avx2(llm_json_block_t *b, const uint8_t *p, int at)
{
    __m256i v, quote, slash, control, n;

    v = _mm256_loadu_si256((const __m256i *) (p + at));

    quote = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('"'));
    slash = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('\\'));
    control = _mm256_min_epu8(v, _mm256_set1_epi8(0x1f));
    control = _mm256_cmpeq_epi8(v, control);
    n = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('n'));

    control = _mm256_or_si256(control, quote);
    n = _mm256_or_si256(n, quote);

    b->slash |= (uint64_t) (uint32_t) _mm256_movemask_epi8(slash) << at;
    b->stop |= (uint64_t) (uint32_t) _mm256_movemask_epi8(control) << at;
    b->usual |= (uint64_t) (uint32_t) _mm256_movemask_epi8(n) << at;
}


AVX2 LLM_JSON_HOT void
llm_json_look_avx2(llm_json_block_t *b, const uint8_t *p)
{
    memset(b, 0, sizeof(llm_json_block_t));

    llm_json_part_avx2(b, p, 0);
    llm_json_part_avx2(b, p, 32);
}


AVX2 static const uint8_t *
llm_json_skip_avx2(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end,
    uint64_t plain)
{
    return llm_json_skip_blocks(r, p, end, plain, llm_json_look_avx2);
}


#define AVX512 __attribute__((target("avx512bw,avx512vbmi2,bmi")))

AVX512 LLM_JSON_HOT void
llm_json_look_avx512(llm_json_block_t *b, const uint8_t *p)
{
    __m512i v;
    uint64_t quote;

    v = _mm512_loadu_si512(p);

    quote = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('"'));

    b->slash = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('\\'));
    b->stop = quote | _mm512_cmplt_epu8_mask(v, _mm512_set1_epi8(0x20));
    b->usual = quote | _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('n'));
}


AVX512 static const uint8_t *
llm_json_skip_avx512(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end,
    uint64_t plain)
{
    return llm_json_skip_blocks(r, p, end, plain, llm_json_look_avx512);
}


/* AVX-512 without VBMI2 is of the processors that it slows down. */
static llm_json_skip_t
llm_json_skip_of(llm_json_way_t way)
{
    bool bmi;

    bmi = __builtin_cpu_supports("bmi");

    switch (way) {

    case LLM_JSON_AVX512:
        return (bmi && __builtin_cpu_supports("avx512bw")
                   && __builtin_cpu_supports("avx512vbmi2"))
                   ? llm_json_skip_avx512
                   : NULL;

    case LLM_JSON_AVX2:
        return (bmi && __builtin_cpu_supports("avx2")) ? llm_json_skip_avx2
                                                       : NULL;

    case LLM_JSON_SSE2:
        return llm_json_skip_sse2;

    default:
        return llm_json_skip_portable;
    }
}

#else

static llm_json_skip_t
llm_json_skip_of(llm_json_way_t way)
{
    return (way == LLM_JSON_PORTABLE) ? llm_json_skip_portable : NULL;
}

#endif


bool
llm_json_skip_by(llm_json_way_t way)
{
    llm_json_skip_t skip;

    skip = llm_json_skip_of(way);

    if (skip == NULL) {
        return false;
    }

    llm_json_skip_on = skip;
    return true;
}


static const uint8_t *
llm_json_skip_first(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end,
    uint64_t plain)
{
    unsigned way;

    way = LLM_JSON_WAYS - 1;

    while (!llm_json_skip_by(way)) {
        way--;
    }

    return llm_json_skip_on(r, p, end, plain);
}
