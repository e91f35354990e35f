/* Anthropic's client through the gateway, in its own dialect. */

import assert from 'node:assert/strict';
import test from 'node:test';

import Anthropic from '@anthropic-ai/sdk';

import { CALLER, errorOf, startGateway } from './lib/gateway.mjs';
import { ANSWER } from './lib/provider.mjs';

const KEY = 'api_key {{key}} header=x-api-key scheme=;';

const MESSAGE = {
    model: 'claude-large',
    max_tokens: 100,
    messages: [{ role: 'user', content: 'Grüß Gott, "gateway"' }],
};

const say = (client, params) =>
    client.messages.create({ ...MESSAGE, ...params });

test('a message', async (t) => {
    const gateway = await startGateway(t, { only: KEY });
    const { only } = gateway.providers;

    const { data, response } = await say(gateway.anthropic()).withResponse();

    assert.equal(data.type, 'message');
    assert.equal(data.content[0].text, ANSWER);
    assert.equal(data.stop_reason, 'end_turn');
    assert.equal(response.headers.get('x-llm-provider'), 'only');

    assert.equal(only.last.url, '/v1/messages');
    assert.equal(only.last.headers['x-api-key'], only.key);
    assert.equal(only.last.headers.authorization, undefined);
    assert.ok(only.last.headers['anthropic-version'], 'is passed on');
    assert.equal(only.last.body, JSON.stringify(MESSAGE), 'byte for byte');
});

test('a message as a stream', async (t) => {
    const gateway = await startGateway(t, { only: KEY });

    const types = [];
    const stream = gateway.anthropic().messages.stream(MESSAGE)
        .on('streamEvent', ({ type }) => types.push(type));
    const message = await stream.finalMessage();

    assert.equal(message.content[0].text, ANSWER);
    assert.equal(message.stop_reason, 'end_turn');
    assert.equal(types[0], 'message_start');
    assert.equal(types.at(-1), 'message_stop');
    assert.ok(types.filter((x) => x === 'content_block_delta').length > 1);
});

test('a caller with a token instead of a key', async (t) => {
    const gateway = await startGateway(t, { only: KEY });
    const { only } = gateway.providers;

    const client = gateway.anthropic({ apiKey: null, authToken: CALLER });

    assert.equal((await say(client)).content[0].text, ANSWER);
    assert.equal(only.last.headers['x-api-key'], only.key);
    assert.equal(only.last.headers.authorization, undefined);
});

test('a provider that fails is not noticed', async (t) => {
    const gateway = await startGateway(t, {
        first: `${KEY} circuit failure_threshold=3;`,
        second: `${KEY} model * claude-small;`,
    });
    const { first, second } = gateway.providers;
    const client = gateway.anthropic();

    await first.fail(500);

    for (let i = 0; i < 5; i++) {
        const { data, response } = await say(client).withResponse();

        assert.equal(data.content[0].text, ANSWER);
        assert.equal(response.headers.get('x-llm-provider'), 'second');

        const text = await client.messages.stream(MESSAGE).finalText();

        assert.equal(text, ANSWER);
    }

    assert.equal(first.received.length, 3);
    assert.equal((await gateway.status('first')).state, 'open');
    assert.equal(second.received.length, 10);
    assert.equal(second.last.json.model, 'claude-small');
    assert.equal(second.last.headers['x-api-key'], second.key);
});

test('an overloaded provider, 529, is not noticed', async (t) => {
    const gateway = await startGateway(t, { first: KEY, second: KEY });

    gateway.providers.first.mock.nextRequestError(529, {
        type: 'overloaded_error', message: 'Overloaded',
    });

    const { data, response } = await say(gateway.anthropic()).withResponse();

    assert.equal(data.content[0].text, ANSWER);
    assert.equal(response.headers.get('x-llm-provider'), 'second');
    assert.equal(response.headers.get('x-llm-attempts'), '2');
});

test('errors in Anthropic\'s dialect', async (t) => {
    const gateway = await startGateway(t, {
        only: `${KEY} model claude-large;
            circuit failure_threshold=1 open=20s;`,
    }, { server: 'client_max_body_size 4k;' });
    const { only } = gateway.providers;
    const client = gateway.anthropic();

    const expect = async (params, Class, status, type, message) => {
        const error = await errorOf(say(client, params));

        assert.ok(error instanceof Class, `${error}`);
        assert.equal(error.status, status);
        assert.equal(error.error.type, 'error');
        assert.equal(error.error.error.type, type);
        assert.match(error.error.error.message, message);
        assert.equal(error.type, type);

        return error;
    };

    await expect({ model: 'claude-9' }, Anthropic.NotFoundError, 404,
        'not_found_error', /"claude-9"/);
    await expect({ model: 5 }, Anthropic.BadRequestError, 400,
        'invalid_request_error', /model/);
    await expect({ system: 'x'.repeat(5000) }, Anthropic.APIError, 413,
        'request_too_large', /large/);
    assert.equal(only.received.length, 0);

    await only.fail(500);
    await expect({}, Anthropic.InternalServerError, 502,
        'api_error', /only \(status 500\)/);

    const refused = await expect({ stream: true }, Anthropic.APIError, 503,
        'overloaded_error', /only \(circuit open, \d+ s left\)/);

    assert.ok(Number(refused.headers.get('retry-after-ms')) > 10000);
    assert.equal(only.received.length, 1);
});

test('a rate limit in Anthropic\'s dialect', async (t) => {
    const gateway = await startGateway(t, { only: KEY });
    const client = gateway.anthropic();

    await gateway.providers.only.fail(429);
    await errorOf(say(client));

    const error = await errorOf(say(client));

    assert.ok(error instanceof Anthropic.RateLimitError);
    assert.equal(error.type, 'rate_limit_error');
    assert.equal(gateway.providers.only.received.length, 1);
});

test('a client that is told when to come back does, and is answered',
    async (t) => {
        const gateway = await startGateway(t, {
            only: `${KEY}
                circuit failure_threshold=1 success_threshold=1 open=2s;`,
        });
        const { only } = gateway.providers;

        await only.fail(500);
        await errorOf(say(gateway.anthropic()));
        await only.heal();

        const begin = performance.now();
        const message = await say(gateway.anthropic({ maxRetries: 1 }));

        assert.equal(message.content[0].text, ANSWER);
        assert.ok(performance.now() - begin > 1000,
            'left to itself it would be back in half a second');
    });

test('the models, and one of them', async (t) => {
    const gateway = await startGateway(t, {
        only: `${KEY} model claude-large; model claude-small;`,
    }, { server: 'location /v1/models { llm_models llm; }' });
    const { models } = gateway.anthropic();
    const seen = [];

    for await (const model of models.list({ limit: 1 })) {
        assert.equal(model.type, 'model');
        assert.equal(new Date(model.created_at).getTime(), 0);
        seen.push(model.display_name);
    }

    assert.deepEqual(seen, ['claude-large', 'claude-small']);
    assert.equal((await models.retrieve('claude-small')).id, 'claude-small');

    const error = await errorOf(models.retrieve('nope'));

    assert.ok(error instanceof Anthropic.NotFoundError);
    assert.equal(error.type, 'not_found_error');
    assert.equal(gateway.providers.only.received.length, 0);
});
