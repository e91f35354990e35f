/*
 * What the data of an event tells.  For llm_sse.c only.
 */

#ifndef LLM_SSE_DATA_H
#define LLM_SSE_DATA_H

#include "llm_sse.h"


/* The data of another event begins. */
void llm_sse_data_start(llm_sse_t *s);

/* Some bytes of it; lines are joined by a line feed. */
void llm_sse_data(llm_sse_t *s, const uint8_t *p, size_t len);

/* It is whole: what it is.  No number of tokens is taken over by that. */
unsigned llm_sse_data_end(llm_sse_t *s);

/* Takes over the numbers and the error's words of an event of this kind. */
void llm_sse_data_settle(llm_sse_t *s, unsigned events);

#endif /* LLM_SSE_DATA_H */
