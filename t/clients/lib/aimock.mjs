/*
 * aimock's ES modules want a function of a newer zlib than Node 18 has, for
 * a protocol that is not used here; its CommonJS modules look for it when
 * they need it.
 */

import { createRequire } from 'node:module';

export const { LLMock } = createRequire(import.meta.url)('@copilotkit/aimock');
