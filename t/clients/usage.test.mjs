/* Usage that the gateway asks for, and the OpenAI client. */

import assert from 'node:assert/strict';
import test from 'node:test';

import { CHAT, startGateway, textOf } from './lib/gateway.mjs';
import { ANSWER } from './lib/provider.mjs';
import { waitFor } from './lib/wait.mjs';

const PRICE = 'price 2 8;';

async function startInjecting(t) {
    const gateway = await startGateway(t, { only: PRICE },
        { route: 'llm_usage inject;' });

    return { gateway, only: gateway.providers.only };
}

/* What the status says of the one call, when it is over. */

function counted(gateway) {
    return waitFor('the call is counted', async () => {
        const provider = await gateway.status('only');

        return provider.usage.told + provider.usage.missing && provider;
    });
}

test('a stream that did not ask for its usage', async (t) => {
    const { gateway, only } = await startInjecting(t);
    const chunks = [];

    const stream = await gateway.openai().chat.completions
        .create({ ...CHAT, stream: true });

    for await (const chunk of stream) {
        chunks.push(chunk);
    }

    assert.ok(chunks.length > 1);
    assert.ok(chunks.every((c) => c.choices.length === 1), 'no extra chunk');
    assert.equal(chunks.at(-1).choices[0].finish_reason, 'stop');
    assert.equal(chunks.map((c) => c.choices[0].delta.content ?? '').join(''),
        ANSWER);
    assert.deepEqual(only.last.json.stream_options, { include_usage: true });

    const { tokens, usage } = await counted(gateway);

    assert.ok(tokens.input > 0 && tokens.output > 0, 'and yet it is known');
    assert.deepEqual(usage, { told: 1, missing: 0, bad: 0 });
});

test('a stream that asked for its usage', async (t) => {
    const { gateway, only } = await startInjecting(t);
    const body = {
        ...CHAT, stream: true, stream_options: { include_usage: true },
    };
    let last;

    for await (const chunk of
        await gateway.openai().chat.completions.create(body)) {
        last = chunk;
    }

    assert.equal(only.last.body, JSON.stringify(body), 'byte for byte');
    assert.deepEqual(last.choices, []);

    const { tokens, cost } = await counted(gateway);

    assert.equal(tokens.input, last.usage.prompt_tokens);
    assert.equal(tokens.output, last.usage.completion_tokens);
    assert.equal(Math.round(cost * 1e6),
        2 * last.usage.prompt_tokens + 8 * last.usage.completion_tokens);
});

test('a stream that asks in its own words', async (t) => {
    const { gateway, only } = await startInjecting(t);
    const text = await textOf(await gateway.openai().chat.completions
        .create({
            ...CHAT, stream: true, stream_options: { include_usage: false },
        }));

    assert.equal(text, ANSWER);
    assert.deepEqual(only.last.json.stream_options, { include_usage: true });
});

test('an answer that is no stream', async (t) => {
    const { gateway, only } = await startInjecting(t);
    const data = await gateway.openai().chat.completions.create(CHAT);

    assert.equal(only.last.body, JSON.stringify(CHAT), 'byte for byte');

    const { tokens } = await counted(gateway);

    assert.equal(tokens.input, data.usage.prompt_tokens);
    assert.equal(tokens.output, data.usage.completion_tokens);
});
