import diagnostics from 'node:diagnostics_channel';

import { LLMock } from './aimock.mjs';
import { freePort } from './port.mjs';

/*
 * An aimock that takes one key and no other, and what it was sent.  aimock's
 * own journal hides credentials and rewrites bodies, so the requests are
 * noted as Node hands them to aimock.
 */

const providers = new Map();

diagnostics.subscribe('http.server.request.start', ({ request, server }) => {
    providers.get(request.socket.localPort)?.note(request, server);
});

const TROUBLES = {
    500: { dropRate: 1 },
    429: { rateLimitRate: 1 },
    disconnect: { disconnectRate: 1 },
};

export const ANSWER = 'Hello from a provider, said in more than one chunk.';
export const VECTOR = [0.5, -0.25, 0.125];

export class Provider {
    static async start(name) {
        const provider = new Provider();

        provider.name = name;
        provider.key = `sk-key-of-${name}`;
        provider.port = await freePort();
        provider.received = [];
        providers.set(provider.port, provider);
        await provider.listen();

        return provider;
    }

    get url() {
        return `http://127.0.0.1:${this.port}/v1`;
    }

    async listen() {
        const mock = new LLMock({
            port: this.port,
            auth: { apiKeys: [this.key] },
        });

        mock.on({ endpoint: 'chat' }, { content: ANSWER });
        mock.onEmbedding(/./, { embedding: VECTOR });
        mock.mount('/v1/completions', { handleRequest: completeText });
        await mock.start();

        this.mock = mock;
    }

    /* From now on: 500, 429, 'disconnect', or 'refuse' connections. */

    async fail(how) {
        if (how === 'refuse') {
            await this.close();
        } else {
            this.mock.setChaos(TROUBLES[how]);
        }
    }

    async heal() {
        if (!this.mock) {
            await this.listen();
        }
        this.mock.clearChaos();
    }

    async close() {
        const { mock } = this;

        if (mock) {
            this.mock = null;
            const closed = mock.stop();
            this.server?.closeAllConnections();
            this.server = null;
            await closed;
        }
    }

    async end() {
        await this.close();
        providers.delete(this.port);
    }

    note(request, server) {
        const chunks = [];
        const push = request.push;
        const seen = {
            method: request.method,
            url: request.url,
            headers: request.headers,
            rawHeaders: request.rawHeaders,
            get body() {
                return Buffer.concat(chunks).toString();
            },
            get json() {
                return JSON.parse(this.body);
            },
        };

        request.push = function (chunk, ...rest) {
            if (chunk) {
                chunks.push(Buffer.from(chunk));
            }
            return push.call(this, chunk, ...rest);
        };

        this.server = server;
        this.received.push(seen);
    }

    get last() {
        return this.received.at(-1);
    }

    /* All that it was ever sent, as text. */

    get wire() {
        return this.received
            .flatMap((r) => [r.method, r.url, ...r.rawHeaders, r.body])
            .join('\n');
    }
}

/* The one API of the client that aimock does not know. */

async function completeText(request, response) {
    let body = '';

    for await (const chunk of request) {
        body += chunk;
    }

    const { model, stream } = JSON.parse(body);
    const answer = (text, reason) => JSON.stringify({
        id: 'cmpl-1',
        object: 'text_completion',
        created: 1,
        model,
        choices: [{ index: 0, text, logprobs: null, finish_reason: reason }],
    });

    if (stream) {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write(`data: ${answer(ANSWER.slice(0, 9), null)}\n\n`);
        response.write(`data: ${answer(ANSWER.slice(9), 'stop')}\n\n`);
        response.end('data: [DONE]\n\n');
    } else {
        response.writeHead(200, { 'content-type': 'application/json' });
        response.end(answer(ANSWER, 'stop'));
    }

    return true;
}
