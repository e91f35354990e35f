/* A provider to be killed: an aimock that takes its time, in a process. */

import diagnostics from 'node:diagnostics_channel';

import { LLMock } from './aimock.mjs';
import { ANSWER } from './provider.mjs';

const [port, latency] = process.argv.slice(2).map(Number);
const mock = new LLMock({ port });

mock.on({ endpoint: 'chat' }, { content: ANSWER }, {
    chaos: { latencyMs: latency },
});
await mock.start();

diagnostics.subscribe('http.server.request.start', () => {
    process.send('asked');
});
process.on('disconnect', () => process.exit());
process.send('ready');
