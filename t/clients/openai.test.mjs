/* The OpenAI client's calls, answered through the gateway. */

import assert from 'node:assert/strict';
import { File } from 'node:buffer';
import test from 'node:test';

import OpenAI from 'openai';

import { CALLER, CHAT, errorOf, startGateway, textOf }
    from './lib/gateway.mjs';
import { ANSWER, VECTOR } from './lib/provider.mjs';

globalThis.File ??= File;   /* Node 18 keeps it in a module */

test('a chat completion', async (t) => {
    const gateway = await startGateway(t, { only: '' });
    const { only } = gateway.providers;

    const { data, response } = await gateway.openai().chat.completions
        .create(CHAT).withResponse();

    assert.equal(data.object, 'chat.completion');
    assert.equal(data.choices[0].message.content, ANSWER);
    assert.equal(data.choices[0].finish_reason, 'stop');
    assert.ok(data.usage.total_tokens > 0);
    assert.equal(response.headers.get('x-llm-provider'), 'only');
    assert.equal(response.headers.get('x-llm-attempts'), '1');

    assert.equal(only.received.length, 1);
    assert.equal(only.last.method, 'POST');
    assert.equal(only.last.url, '/v1/chat/completions');
    assert.equal(only.last.headers.authorization, `Bearer ${only.key}`);
    assert.equal(only.last.headers.host, `127.0.0.1:${only.port}`);
    assert.equal(only.last.headers['content-type'], 'application/json');
    assert.match(only.last.headers['user-agent'], /^OpenAI\/JS /);
    assert.equal(only.last.body, JSON.stringify(CHAT), 'byte for byte');
});

test('a chat completion as a stream', async (t) => {
    const gateway = await startGateway(t, { only: '' });

    const { data: stream, response } = await gateway.openai().chat.completions
        .create({
            ...CHAT, stream: true, stream_options: { include_usage: true },
        }).withResponse();
    const chunks = [];

    for await (const chunk of stream) {
        chunks.push(chunk);
    }

    assert.match(response.headers.get('content-type'), /^text\/event-stream/);
    assert.equal(response.headers.get('x-llm-provider'), 'only');

    const deltas = chunks.map((c) => c.choices[0]?.delta.content)
        .filter(Boolean);

    assert.ok(deltas.length > 1, 'in more than one chunk');
    assert.equal(deltas.join(''), ANSWER);
    assert.ok(chunks.at(-1).usage.total_tokens > 0);
    assert.ok(chunks.some((c) => c.choices[0]?.finish_reason === 'stop'));
});

test('chunks of a stream arrive as they are made', async (t) => {
    const gateway = await startGateway(t, { only: '' });
    const pause = 300;

    gateway.providers.only.mock.prependFixture({
        match: { userMessage: 'slowly' },
        response: { content: ANSWER },
        latency: pause,
    });

    const stream = await gateway.openai().chat.completions.create({
        model: 'gpt-4.1',
        messages: [{ role: 'user', content: 'slowly' }],
        stream: true,
    });
    const times = [];

    for await (const chunk of stream) {
        if (chunk.choices[0]?.delta.content) {
            times.push(performance.now());
        }
    }

    assert.ok(times.length > 1);
    for (let i = 1; i < times.length; i++) {
        const gap = times[i] - times[i - 1];
        assert.ok(gap > pause / 3, `${gap} ms between two chunks`);
    }
});

test('tool calls, whole and as a stream', async (t) => {
    const gateway = await startGateway(t, { only: '' });
    const call = { name: 'weather', arguments: '{"city":"Zürich"}' };

    gateway.providers.only.mock.prependFixture({
        match: { toolName: 'weather' },
        response: { toolCalls: [call] },
    });

    const params = {
        ...CHAT,
        tools: [{
            type: 'function',
            function: {
                name: 'weather',
                parameters: {
                    type: 'object',
                    properties: { city: {}, model: { const: 'not this' } },
                },
            },
        }],
    };
    const calls = (completion) => completion.choices[0].message.tool_calls
        .map((c) => ({ ...c.function }));
    const client = gateway.openai();

    const whole = await client.chat.completions.create(params);
    const streamed = await client.chat.completions.stream(params)
        .finalChatCompletion();

    for (const completion of [whole, streamed]) {
        assert.equal(completion.choices[0].finish_reason, 'tool_calls');
        assert.equal(calls(completion).length, 1);
        assert.equal(calls(completion)[0].name, call.name);
        assert.equal(calls(completion)[0].arguments, call.arguments);
    }
});

test('the responses API, whole and as a stream', async (t) => {
    const gateway = await startGateway(t, { only: '' });
    const client = gateway.openai();
    const params = { model: 'gpt-4.1', input: 'Hello' };

    const response = await client.responses.create(params);

    assert.equal(response.status, 'completed');
    assert.equal(response.output_text, ANSWER);
    assert.equal(gateway.providers.only.last.url, '/v1/responses');

    let text = '';
    let last;

    for await (const event of await client.responses
        .create({ ...params, stream: true }))
    {
        if (event.type === 'response.output_text.delta') {
            text += event.delta;
        }
        last = event.type;
    }

    assert.equal(text, ANSWER);
    assert.equal(last, 'response.completed');
});

test('legacy completions, whole and as a stream', async (t) => {
    const gateway = await startGateway(t, { only: '' });
    const client = gateway.openai();
    const params = { model: 'gpt-3.5-turbo-instruct', prompt: 'Say hello' };

    const whole = await client.completions.create(params);

    assert.equal(whole.model, params.model);
    assert.equal(whole.choices[0].text, ANSWER);

    let text = '';

    for await (const chunk of await client.completions
        .create({ ...params, stream: true }))
    {
        text += chunk.choices[0].text;
    }

    assert.equal(text, ANSWER);
});

test('embeddings', async (t) => {
    const gateway = await startGateway(t, {
        only: 'model small text-embedding-3-small;',
    });

    const { data, model } = await gateway.openai().embeddings.create({
        model: 'small', input: ['one', 'two'], encoding_format: 'float',
    });

    assert.equal(data.length, 2);
    assert.deepEqual([...data[1].embedding], VECTOR);
    assert.equal(model, 'text-embedding-3-small');
    assert.equal(gateway.providers.only.last.json.model,
        'text-embedding-3-small');
});

test('the list of models: a GET, by who is first', async (t) => {
    const gateway = await startGateway(t, {
        first: 'model gpt-4.1;', second: '',
    });
    const { first, second } = gateway.providers;

    const models = [];

    for await (const model of gateway.openai().models.list()) {
        models.push(model.id);
    }

    assert.ok(models.includes('gpt-4'), `${models}`);
    assert.equal(first.last.method, 'GET');
    assert.equal(first.last.url, '/v1/models');
    assert.equal(first.last.body, '');
    assert.equal(second.received.length, 0);
});

test('an upload that is no JSON passes unchanged', async (t) => {
    const gateway = await startGateway(t, { only: 'model * other;' });
    const lines = `${JSON.stringify({ custom_id: '1', body: CHAT })}\n`;

    const file = await gateway.openai().files.create({
        purpose: 'batch', file: new globalThis.File([lines], 'batch.jsonl'),
    });

    assert.equal(file.bytes, Buffer.byteLength(lines));
    assert.match(gateway.providers.only.last.headers['content-type'],
        /^multipart\/form-data; boundary=/);
    assert.ok(gateway.providers.only.last.body.includes(lines));
});

test('a long chat, larger than nginx keeps in memory', async (t) => {
    const gateway = await startGateway(t, { only: 'model * other;' }, {
        server: 'client_max_body_size 8m;',
    });
    const params = {
        messages: [{ role: 'user', content: 'ä'.repeat(1 << 20) }],
        model: 'gpt-4.1',
    };

    const completion = await gateway.openai().chat.completions.create(params);

    assert.equal(completion.choices[0].message.content, ANSWER);
    assert.equal(gateway.providers.only.last.body,
        JSON.stringify({ ...params, model: 'other' }));
});

test('many chats at once, each with its own answer', async (t) => {
    const gateway = await startGateway(t, { only: '' });

    gateway.providers.only.mock.prependFixture({
        match: { userMessage: /^number / },
        response: ({ messages }) => ({ content: `${messages[0].content}!` }),
    });

    const client = gateway.openai();
    const numbers = Array.from({ length: 40 }, (_, i) => `number ${i}`);
    const answers = await Promise.all(numbers.map((content, i) =>
        gateway.chat({
            messages: [{ role: 'user', content }], stream: i % 2 === 0,
        }, client)));

    assert.deepEqual(answers.map((a) => a.text), numbers.map((n) => `${n}!`));
});

test('whatever a caller sends as a credential stays here', async (t) => {
    const gateway = await startGateway(t, { only: '' });
    const { only } = gateway.providers;

    await gateway.openai({
        organization: CALLER,
        project: CALLER,
        defaultHeaders: {
            'X-Api-Key': CALLER,
            'Api-Key': CALLER,
            'X-Goog-Api-Key': CALLER,
            'Proxy-Authorization': `Bearer ${CALLER}`,
            Cookie: `session=${CALLER}`,
            'X-Kept': 'kept',
        },
        defaultQuery: { api_key: 'sk-in-the-query', kept: 'kept' },
    }).chat.completions.create(CHAT);

    assert.equal(only.last.headers.authorization, `Bearer ${only.key}`);
    assert.equal(only.last.headers['x-kept'], 'kept');
    assert.equal(only.last.url, '/v1/chat/completions?kept=kept');
    assert.ok(!only.wire.includes(CALLER));
});

test('a provider that takes the caller\'s own key gets it', async (t) => {
    const gateway = await startGateway(t, { only: 'api_key client;' });
    const { only } = gateway.providers;

    const answer = await gateway.chat({},
        gateway.openai({ apiKey: only.key }));

    assert.equal(answer.text, ANSWER);

    const error = await errorOf(gateway.chat({},
        gateway.openai({ apiKey: 'sk-wrong' })));

    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.code, 'invalid_api_key');
    assert.equal((await gateway.status('only')).state, 'closed');
});

test('a stream that breaks off does not look complete', async (t) => {
    const gateway = await startGateway(t, { only: '' });

    gateway.providers.only.mock.prependFixture({
        match: { userMessage: 'break' },
        response: { content: ANSWER.repeat(4) },
        latency: 20,
        truncateAfterChunks: 4,
    });

    let text = '';
    const error = await errorOf((async () => {
        for await (const chunk of await gateway.openai().chat.completions
            .create({
                model: 'gpt-4.1',
                messages: [{ role: 'user', content: 'break' }],
                stream: true,
            }))
        {
            text += chunk.choices[0]?.delta.content ?? '';
        }
        return text;
    })());

    assert.ok(error instanceof Error);
    assert.ok(text.length > 0 && ANSWER.repeat(4).startsWith(text), text);
    assert.equal(await textOf(await gateway.openai().chat.completions
        .create({ ...CHAT, stream: true })), ANSWER, 'and the next is whole');
});

test('the models, and one of them', async (t) => {
    const gateway = await startGateway(t, {
        first: 'model gpt-4.1; model meta-llama/Llama-3.3-70B;',
        second: 'model gpt-4.1; model * mock-large;',
    }, { server: 'location /v1/models { llm_models llm; }' });
    const { models } = gateway.openai();
    const seen = [];

    for await (const model of models.list()) {
        seen.push([model.id, model.object, model.owned_by]);
    }

    assert.deepEqual(seen, [
        ['gpt-4.1', 'model', 'first'],
        ['meta-llama/Llama-3.3-70B', 'model', 'first'],
    ]);
    assert.equal((await models.retrieve(seen[1][0])).id, seen[1][0]);

    const error = await errorOf(models.retrieve('nope'));

    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, 'model_not_found');
    assert.equal(error.param, 'model');
    assert.equal(gateway.providers.first.received.length, 0);
});
