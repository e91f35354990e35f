/*
 * What the content events of a stream have in common.  From one token to the
 * next only a string changes, and perhaps a number or a string that means
 * nothing: an event like the one before need not be parsed.  For llm_sse.c
 * and llm_sse_data.c only.
 *
 * The frame is the bytes of an event that was parsed, with holes for the
 * values that may differ.  A hole is only where all that may stand in it
 * gives the same facts: the type of the value stays, and of what is content
 * it is only asked whether it is empty.  So an event that fits is what the
 * parsed one was, to the bit; whatever does not is parsed.
 */

#ifndef LLM_SSE_FRAME_H
#define LLM_SSE_FRAME_H

#include "llm_sse.h"


/* The string or number at ->value, which ends before this offset, is whole. */
void llm_sse_frame_hole(llm_sse_t *s, unsigned what, uint64_t end);

/*
 * The event of these bytes is content and nothing else: makes it the frame,
 * if it can be one.
 */
void llm_sse_frame_learn(llm_sse_t *s, const uint8_t *p, size_t len);

/*
 * At the start of an event: behind it if all of it is in the input and fits
 * the frame, or else NULL.  If all of the input fits, but ends before the
 * event does, it is kept: then ->kept is how long it is.
 */
const uint8_t *llm_sse_frame_match(llm_sse_t *s, const uint8_t *p,
    const uint8_t *end);

/*
 * Where bytes were kept: the same for them and this input, and if that fits,
 * they are kept no more.  They are not kept a third time.
 */
const uint8_t *llm_sse_frame_join(llm_sse_t *s, const uint8_t *p,
    const uint8_t *end);

#endif /* LLM_SSE_FRAME_H */
