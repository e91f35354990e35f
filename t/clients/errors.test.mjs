/* What the gateway refuses, and whether the OpenAI client understands. */

import assert from 'node:assert/strict';
import test from 'node:test';

import OpenAI from 'openai';

import { errorOf, startGateway } from './lib/gateway.mjs';
import { ANSWER } from './lib/provider.mjs';

test('a model that nobody serves', async (t) => {
    const gateway = await startGateway(t, {
        first: 'model gpt-4.1;', second: 'model gpt-4.1-mini;',
    });

    for (const stream of [false, true]) {
        const error = await errorOf(gateway.chat({ model: 'gpt-9', stream }));

        assert.ok(error instanceof OpenAI.NotFoundError);
        assert.equal(error.status, 404);
        assert.equal(error.code, 'model_not_found');
        assert.equal(error.param, 'model');
        assert.equal(error.type, 'invalid_request_error');
        assert.match(error.message, /"gpt-9"/);
    }

    assert.equal(gateway.providers.first.received.length, 0);
    assert.equal(gateway.providers.second.received.length, 0);
});

test('a request without a model, or with something else', async (t) => {
    const gateway = await startGateway(t, {
        only: 'circuit failure_threshold=1;',
    });

    for (const model of [undefined, 4, null, ['gpt-4.1'], {}]) {
        const error = await errorOf(gateway.chat({ model }));

        assert.ok(error instanceof OpenAI.BadRequestError, `${model}`);
        assert.equal(error.code, 'invalid_request_error');
        assert.equal(error.type, 'invalid_request_error');
        assert.match(error.message, /model/);
    }

    assert.equal(gateway.providers.only.received.length, 0);
    assert.equal((await gateway.status('only')).state, 'closed');
});

test('a body that is no JSON', async (t) => {
    const gateway = await startGateway(t, { only: '' });

    const error = await errorOf(gateway.openai().post('/chat/completions', {
        body: new TextEncoder().encode('{"model": "gpt-4.1", '),
        headers: { 'Content-Type': 'application/json' },
    }));

    assert.ok(error instanceof OpenAI.BadRequestError, `${error}`);
    assert.equal(error.code, 'invalid_request_error');
    assert.equal(gateway.providers.only.received.length, 0);
});

test('a request that is too large', async (t) => {
    const gateway = await startGateway(t, { only: '' }, {
        server: 'client_max_body_size 1k;',
    });

    const error = await errorOf(gateway.chat({ user: 'x'.repeat(2000) }));

    assert.ok(error instanceof OpenAI.APIError);
    assert.equal(error.status, 413);
    assert.equal(error.code, 'request_too_large');
    assert.equal(gateway.providers.only.received.length, 0);
});

test('a provider\'s own complaint passes unchanged', async (t) => {
    const gateway = await startGateway(t, {
        first: 'circuit failure_threshold=1;', second: '',
    });
    const { first, second } = gateway.providers;

    first.mock.nextRequestError(400, {
        message: 'That is too hot.',
        type: 'invalid_request_error',
        code: 'unsupported_value',
    });

    const error = await errorOf(gateway.chat({ temperature: 9 }));

    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.code, 'unsupported_value');
    assert.match(error.message, /That is too hot\./);
    assert.equal(error.headers.get('x-llm-provider'), 'first');
    assert.equal(second.received.length, 0);
    assert.equal((await gateway.status('first')).state, 'closed');
});

test('all providers fail', async (t) => {
    const gateway = await startGateway(t, { first: '', second: '' });
    const { first, second } = gateway.providers;

    await first.fail(500);
    await second.fail('refuse');

    const error = await errorOf(gateway.chat());

    assert.ok(error instanceof OpenAI.InternalServerError);
    assert.equal(error.status, 502);
    assert.equal(error.code, 'all_providers_failed');
    assert.match(error.message, /first \(status 500\)/);
    assert.match(error.message, /second \(/);
    assert.equal(error.headers.get('x-llm-attempts'), '2');

    for (const provider of [first, second]) {
        assert.ok(!error.message.includes(provider.key));
        assert.ok(!error.message.includes(String(provider.port)));
    }
});

test('every circuit is open', async (t) => {
    const gateway = await startGateway(t, {
        first: 'circuit failure_threshold=1 open=20s;',
        second: 'circuit failure_threshold=1 open=30s;',
    });
    const { first, second } = gateway.providers;

    await first.fail(500);
    await second.fail(500);
    await errorOf(gateway.chat());

    const received = first.received.length + second.received.length;
    const error = await errorOf(gateway.chat());

    assert.ok(error instanceof OpenAI.APIError);
    assert.ok(error instanceof OpenAI.InternalServerError);
    assert.equal(error.status, 503);
    assert.equal(error.code, 'all_circuits_open');
    assert.equal(error.type, 'server_error');
    assert.match(error.message, /first \(circuit open, \d+ s left\)/);
    assert.match(error.message, /second \(circuit open, \d+ s left\)/);

    /* to the soonest of both; jitter makes it a little longer or shorter */

    const ms = Number(error.headers.get('retry-after-ms'));
    const seconds = Number(error.headers.get('retry-after'));

    assert.ok(ms > 10000 && ms < 25000, `retry-after-ms: ${ms}`);
    assert.equal(seconds, Math.ceil(ms / 1000));
    assert.equal(error.headers.get('x-should-retry'), null);
    assert.equal(first.received.length + second.received.length, received);
});

test('a client that is told when to come back does, and is answered',
    async (t) => {
        const gateway = await startGateway(t, {
            only: 'circuit failure_threshold=1 success_threshold=1 open=2s;',
        });
        const { only } = gateway.providers;

        await only.fail(500);
        await errorOf(gateway.chat());
        await only.heal();

        /* left to itself, the client would be back in half a second */

        const begin = performance.now();
        const promised = Number((await errorOf(gateway.chat()))
            .headers.get('retry-after-ms'));
        const { text } = await gateway.chat({},
            gateway.openai({ maxRetries: 1 }));
        const waited = performance.now() - begin;

        assert.equal(text, ANSWER);
        assert.equal(only.last.headers['x-stainless-retry-count'], '1');
        assert.ok(promised > 1000 && promised < 3000, `${promised} ms`);
        assert.ok(waited >= promised && waited < promised + 2500,
            `waited ${waited} ms of ${promised}`);
        assert.equal((await gateway.status('only')).state, 'closed');
    });

test('a client that would have to wait long is told not to', async (t) => {
    const gateway = await startGateway(t, {
        only: 'circuit failure_threshold=1 open=300s;',
    });

    await gateway.providers.only.fail(500);
    await errorOf(gateway.chat());

    const begin = performance.now();
    const error = await errorOf(gateway.chat({},
        gateway.openai({ maxRetries: 5 })));

    assert.equal(error.status, 503);
    assert.equal(error.headers.get('x-should-retry'), 'false');
    assert.ok(Number(error.headers.get('retry-after')) > 60);
    assert.ok(performance.now() - begin < 2000, 'it gave up at once');
});

test('every provider is at its limit', async (t) => {
    const gateway = await startGateway(t, { first: '', second: '' });
    const { first, second } = gateway.providers;

    await first.fail(429);
    await second.fail(429);

    const answered = await errorOf(gateway.chat());
    const received = first.received.length + second.received.length;

    assert.ok(answered instanceof OpenAI.RateLimitError);
    assert.equal(received, 2, 'both were asked');

    const refused = await errorOf(gateway.chat());

    assert.ok(refused instanceof OpenAI.RateLimitError);
    assert.equal(refused.status, 429);
    assert.equal(refused.code, 'rate_limit_exceeded');
    assert.match(refused.message, /first \(throttled/);
    assert.ok(Number(refused.headers.get('retry-after')) >= 1);
    assert.ok(Number(refused.headers.get('retry-after-ms')) > 0);
    assert.equal(first.received.length + second.received.length, received,
        'nobody was asked again');

    for (const name of ['first', 'second']) {
        assert.equal((await gateway.status(name)).state, 'closed');
    }
});

test('a rate limit that passes is waited for', async (t) => {
    const gateway = await startGateway(t, { only: '' });
    const { only } = gateway.providers;

    only.mock.prependFixture({
        match: { sequenceIndex: 0 },
        response: { error: { message: 'Slow down.' }, status: 429 },
    });

    const begin = performance.now();
    const { text } = await gateway.chat({}, gateway.openai({ maxRetries: 2 }));

    assert.equal(text, ANSWER);
    assert.equal(only.received.length, 2);
    assert.ok(performance.now() - begin > 700, 'as long as aimock said: 1 s');
});
