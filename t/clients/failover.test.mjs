/* One provider fails, another answers, and the caller notices nothing. */

import assert from 'node:assert/strict';
import test from 'node:test';

import { CHAT, startGateway } from './lib/gateway.mjs';
import { ANSWER } from './lib/provider.mjs';
import { sleep, waitFor } from './lib/wait.mjs';

const CIRCUIT = 'circuit failure_threshold=2 success_threshold=2 open=1500ms;';

/*
 * How often the broken provider is asked, until its circuit is open.  A kept
 * connection that closes is nobody's failure: that request is sent once more.
 */

const KINDS = [
    { how: 500, asked: [2] },
    { how: 'disconnect', asked: [2, 3] },
    { how: 'refuse', asked: [0] },
];

for (const { how, asked } of KINDS) {
    test(`ten of ten are answered: ${how}`, async (t) => {
        const gateway = await startGateway(t, {
            first: `model gpt-4.1; ${CIRCUIT}`,
            second: 'model * mock-large;',
        });
        const { first, second } = gateway.providers;
        const client = gateway.openai();

        assert.equal((await gateway.chat({}, client)).provider, 'first');
        assert.equal(first.last.json.model, 'gpt-4.1');
        assert.equal(second.received.length, 0);

        const before = first.received.length;

        await first.fail(how);

        for (let i = 0; i < 10; i++) {
            const stream = i % 2 === 1;
            const answer = await gateway.chat({ stream }, client);

            assert.equal(answer.text, ANSWER);
            assert.equal(answer.provider, 'second');
            assert.equal(answer.attempts, i < 2 ? 2 : 1);
        }

        const open = await gateway.status('first');

        assert.equal(open.state, 'open');
        assert.equal(open.reason, 'failure_threshold');
        assert.equal(open.failed_calls, 2);
        assert.ok(asked.includes(first.received.length - before),
            `asked ${first.received.length - before} times`);

        assert.equal(second.received.length, 10);
        for (const [i, request] of second.received.entries()) {
            assert.equal(request.headers.authorization,
                `Bearer ${second.key}`);
            assert.equal(request.headers.host, `127.0.0.1:${second.port}`);
            assert.equal(request.body, JSON.stringify({
                ...CHAT, model: 'mock-large', stream: i % 2 === 1,
            }), 'nothing but the model is another');
        }

        await first.heal();
        await waitFor('for the circuit to close', async () => {
            assert.equal((await gateway.chat({}, client)).text, ANSWER);
            await sleep(50);
            return (await gateway.status('first')).state === 'closed';
        });

        const healed = await gateway.chat({}, client);

        assert.equal(healed.provider, 'first');
        assert.equal(healed.attempts, 1);

        const { state_changes: changes } = await gateway.status('first');

        assert.deepEqual(changes.map(({ from, to }) => `${from} ${to}`)
            .sort(), ['closed open', 'half_open closed', 'open half_open']);
    });
}

test('ten of ten are answered: 429', async (t) => {
    const gateway = await startGateway(t, { first: CIRCUIT, second: '' });
    const { first } = gateway.providers;

    await first.fail(429);

    for (let i = 0; i < 10; i++) {
        const answer = await gateway.chat({ stream: i % 2 === 1 });

        assert.equal(answer.text, ANSWER);
        assert.equal(answer.provider, 'second');
    }

    assert.equal(first.received.length, 1, 'it asked to be left alone');
    assert.equal((await gateway.status('first')).state, 'closed');

    await first.heal();
    await waitFor('for the first to be asked again', async () => {
        await sleep(50);
        return (await gateway.chat()).provider === 'first';
    });
});

test('a provider is killed in the midst of a series', async (t) => {
    const gateway = await startGateway(t, {
        first: CIRCUIT, second: 'model * mock-large;',
    });
    const { first, second } = gateway.providers;
    const client = gateway.openai();

    await first.close();

    await gateway.startProcess(first, 300, 4);

    const answers = [];
    for (let i = 0; i < 10; i++) {
        answers.push(await gateway.chat({}, client));
    }

    assert.ok(answers.every(({ text }) => text === ANSWER));
    assert.deepEqual(answers.map(({ provider }) => provider),
        [...Array(3).fill('first'), ...Array(7).fill('second')]);
    assert.equal(answers[3].attempts, 2, 'killed while it thought');
    assert.equal(second.received.length, 7);
    assert.equal((await gateway.status('first')).state, 'open');

    /* it comes back, with requests on their way all the time */

    await gateway.startProcess(first, 0);
    await waitFor('for the circuit to close', async () => {
        assert.equal((await gateway.chat({}, client)).text, ANSWER);
        await sleep(50);
        return (await gateway.status('first')).state === 'closed';
    });
    assert.equal((await gateway.chat({}, client)).provider, 'first');
});

test('a provider is killed under many callers at once', async (t) => {
    const gateway = await startGateway(t, { first: CIRCUIT, second: '' });
    const { first } = gateway.providers;
    const client = gateway.openai();

    await first.close();

    await gateway.startProcess(first, 100, 25);

    const answers = (await Promise.all(Array.from({ length: 10 }, async () => {
        const mine = [];
        for (let i = 0; i < 10; i++) {
            mine.push(await gateway.chat({ stream: i % 2 === 1 }, client));
        }
        return mine;
    }))).flat();

    assert.equal(answers.length, 100);
    assert.ok(answers.every(({ text }) => text === ANSWER));
    assert.ok(answers.some(({ provider }) => provider === 'first'));
    assert.ok(answers.some(({ attempts }) => attempts === 2));

    const { in_flight: inFlight, total_calls: total,
        successful_calls: ok, failed_calls: failed } =
        await gateway.status('first');

    assert.equal(inFlight, 0);
    assert.equal(total, ok + failed);
    assert.ok(failed >= 2);
});

test('the third answers when two are down', async (t) => {
    const gateway = await startGateway(t, {
        first: CIRCUIT,
        second: 'model * mock-large;',
        third: 'model gpt-4.1 mock-small;',
    });
    const { first, second, third } = gateway.providers;

    await first.fail('refuse');
    await second.fail(500);

    const answer = await gateway.chat({ stream: true });

    assert.equal(answer.text, ANSWER);
    assert.equal(answer.provider, 'third');
    assert.equal(answer.attempts, 3);
    assert.equal(second.last.json.model, 'mock-large');
    assert.equal(third.last.json.model, 'mock-small');
    assert.equal(third.last.headers.authorization, `Bearer ${third.key}`);
});

test('a provider that does not serve the model is not asked', async (t) => {
    const gateway = await startGateway(t, {
        first: 'model gpt-4.1;', second: 'model gpt-4.1-mini;',
    });

    const answer = await gateway.chat({ model: 'gpt-4.1-mini' });

    assert.equal(answer.provider, 'second');
    assert.equal(answer.attempts, 1);
    assert.equal(gateway.providers.first.received.length, 0);
});
