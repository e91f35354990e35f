import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

import { Nginx } from './nginx.mjs';
import { Provider } from './provider.mjs';
import { within } from './wait.mjs';

const PROCESS = fileURLToPath(
    new URL('provider-process.mjs', import.meta.url));

/* What the caller sends as a credential, and no provider may ever see. */

export const CALLER = 'sk-the-callers-own';

/*
 * nginx with the module, a provider for each name, and the route "llm" over
 * them in this order:
 *
 *     const gateway = await startGateway(t, {
 *         first: 'circuit failure_threshold=1 open=500ms;',
 *         second: 'model * mock-large;',
 *     });
 *
 * "endpoint" is added, and "api_key" where there is none.  When the test is
 * over, everything ends, and whatever the error log should not hold, or a
 * provider should not have seen, fails the test.
 */

export async function startGateway(t, conf, more = {}) {
    const gateway = new Gateway();

    t.after(() => gateway.end());

    for (const name of Object.keys(conf)) {
        gateway.providers[name] = await Provider.start(name);
    }

    await gateway.startNginx(conf, more);

    return gateway;
}

class Gateway {
    providers = {};
    processes = [];

    async startNginx(conf, { server = '', route = '', http = '', ...more }) {
        const env = { ...more.env };
        const blocks = Object.entries(conf).map(([name, directives]) => {
            const provider = this.providers[name];
            const variable = `KEY_OF_${name.toUpperCase()}`;

            env[variable] = provider.key;

            return `llm_provider ${name} {
                endpoint ${provider.url};
                ${/\bapi_key\b/.test(directives)
                    ? '' : `api_key env:${variable};`}
                ${directives.replaceAll('{{key}}', `env:${variable}`)}
            }`;
        });

        this.nginx = await Nginx.start(`
            llm_zone llm:1m;
            ${blocks.join('\n')}
            upstream llm {
                ${Object.keys(conf).map((n) => `llm_use ${n};`).join(' ')}
                keepalive 16;
                ${route}
            }
            ${http}
            server {
                listen 127.0.0.1:{{port}};
                location /v1/ { llm_pass llm; }
                location = /status { llm_status; }
                ${server}
            }`, env);
    }

    openai(options = {}) {
        return new OpenAI({
            baseURL: `${this.nginx.url}/v1`,
            apiKey: CALLER,
            organization: null,
            project: null,
            maxRetries: 0,
            timeout: 10000,
            ...options,
        });
    }

    anthropic(options = {}) {
        return new Anthropic({
            baseURL: this.nginx.url,
            apiKey: CALLER,
            authToken: null,
            maxRetries: 0,
            timeout: 10000,
            ...options,
        });
    }

    /*
     * In the place of a provider, a process that takes its time to answer,
     * and is killed when it is asked the n-th time.
     */

    async startProcess({ port }, latency, n) {
        const child = fork(PROCESS, [port, latency], { execArgv: [] });
        let asked = 0;

        this.processes.push(child);
        child.over = once(child, 'exit');
        await within(10000, 'a provider starts', once(child, 'message'));

        child.on('message', () => {
            if (++asked === n) {
                child.kill('SIGKILL');
            }
        });
    }

    /* One chat: what it said, and who answered after how many attempts. */

    async chat(params = {}, client = this.openai()) {
        const { data, response } = await client.chat.completions
            .create({ ...CHAT, ...params }).withResponse();

        return {
            text: params.stream ? await textOf(data)
                : data.choices[0].message.content,
            data,
            provider: response.headers.get('x-llm-provider'),
            attempts: Number(response.headers.get('x-llm-attempts')),
        };
    }

    async status(name) {
        const response = await fetch(`${this.nginx.url}/status`);
        const status = await response.json();

        return status.providers.find((provider) => provider.name === name);
    }

    async end() {
        const all = Object.values(this.providers);
        const secrets = [CALLER, ...all.map((provider) => provider.key)];
        const troubles = await this.nginx?.end(secrets) ?? [];

        for (const provider of all) {
            await provider.end();
        }

        for (const child of this.processes) {
            child.kill('SIGKILL');
            await child.over;
        }

        for (const provider of all) {
            troubles.push(...secrets
                .filter((s) => s !== provider.key && provider.wire.includes(s))
                .map((s) => `"${provider.name}" was sent "${s}"`));
        }

        assert.deepEqual(troubles, []);
    }
}

export const CHAT = {
    model: 'gpt-4.1',
    messages: [{ role: 'user', content: 'Grüß Gott, "gateway"' }],
};

export async function textOf(stream) {
    let text = '';

    for await (const chunk of stream) {
        text += chunk.choices[0]?.delta.content ?? '';
    }

    return text;
}

/* The error that a promise is rejected with. */

export async function errorOf(promise) {
    let value;

    try {
        value = await promise;
    } catch (error) {
        return error;
    }

    assert.fail(`no error, but ${JSON.stringify(value)}`);
}
