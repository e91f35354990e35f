#!/usr/bin/env node

/*
 * Sends a file of prompts through the gateway, so many at the same time, and
 * writes the results in the order of the prompts.
 *
 *     batch.mjs [-n 16] PROMPTS RESULTS [http://127.0.0.1:8080/batch/v1]
 *
 * Both files have a line of JSON for each prompt, as those of OpenAI's Batch
 * API have:
 *
 *     {"custom_id": "1", "body": {"model": "gpt-4.1", "messages": [...]}}
 *     {"custom_id": "1", "response": {"status_code": 200, "body": {...}},
 *      "error": null}
 *
 * What is answered is kept in RESULTS.part at once, so a batch that was
 * stopped goes on where it was: run it again.  A prompt is known by its
 * custom_id.  What has failed is told, and asked again by the next run.
 * Ends with 0 when every prompt has its answer, else with 1.
 *
 * Node.js 18, and nothing else.
 */

import { appendFileSync, existsSync, readFileSync, renameSync, rmSync,
    writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

/* a prompt may say its own, as those of OpenAI do */
const DEFAULT_URL = '/v1/chat/completions';

/* between two tries, ms: the gateway knows better, and makes us wait there */
const FIRST_PAUSE = 500;
const LAST_PAUSE = 2000;

try {
    process.exitCode = await main();
} catch (error) {
    console.error(`batch: ${error.message}`);
    process.exitCode = 1;
}


async function main() {
    const { values, positionals } = parseArgs({
        options: { n: { type: 'string', short: 'n', default: '16' } },
        allowPositionals: true,
    });
    const [prompts, results, base = 'http://127.0.0.1:8080/batch/v1']
        = positionals;

    if (results === undefined || !(Number(values.n) >= 1)) {
        throw new Error('usage: batch.mjs [-n 16] PROMPTS RESULTS [URL]');
    }

    const part = `${results}.part`;
    const all = readPrompts(prompts);
    const known = new Map([...readResults(results), ...readResults(part)]);
    const todo = all.filter(({ custom_id: id }) => !isDone(known.get(id)));
    const asked = new Set(all.map((prompt) => prompt.custom_id));
    const other = [...known.keys()].find((id) => !asked.has(id));

    if (other !== undefined) {
        throw new Error(`${results} has the answer to "${other}", which is no `
            + `prompt of ${prompts}: choose another file`);
    }

    console.error(`${all.length} prompts, ${todo.length} to ask`);

    /* a line that a stop has torn must not run into the next one */
    if (existsSync(part)) {
        appendFileSync(part, '\n');
    }

    await inParallel(Number(values.n), todo, async (prompt) => {
        const result = await ask(base, prompt);

        known.set(prompt.custom_id, result);
        appendFileSync(part, `${JSON.stringify(result)}\n`);
    });

    const lines = all.map(({ custom_id: id }) => known.get(id));

    writeFileSync(`${results}.new`,
        lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    renameSync(`${results}.new`, results);
    rmSync(part, { force: true });

    const failed = lines.filter((line) => !isDone(line));

    for (const line of failed) {
        console.error(`failed: ${line.custom_id}: ${reason(line)}`);
    }
    console.error(`${all.length - failed.length} done, `
        + `${failed.length} failed`);

    return failed.length ? 1 : 0;
}


function readPrompts(file) {
    const seen = new Set();

    return readFileSync(file, 'utf8').split('\n').flatMap((line, i) => {
        if (line.trim() === '') {
            return [];
        }

        const prompt = parse(line);

        if (typeof prompt?.custom_id !== 'string'
            || prompt.body === null || typeof prompt.body !== 'object')
        {
            throw new Error(`${file}:${i + 1} is no {"custom_id", "body"}`);
        }
        if (seen.has(prompt.custom_id)) {
            throw new Error(`${file}:${i + 1} has the custom_id of another`);
        }
        seen.add(prompt.custom_id);

        return [prompt];
    });
}


/* [[custom_id, result], ...] */

function readResults(file) {
    if (!existsSync(file)) {
        return [];
    }

    return readFileSync(file, 'utf8').split('\n').map(parse)
        .filter((result) => result?.custom_id !== undefined)
        .map((result) => [result.custom_id, result]);
}


function parse(line) {
    try {
        return JSON.parse(line);
    } catch {
        return undefined;
    }
}


function isDone(result) {
    return result?.response?.status_code === 200;
}


function reason({ response, error }) {
    return response === null ? error.message
        : `${response.status_code} ${response.body?.error?.message ?? ''}`;
}


async function inParallel(n, items, work) {
    const queue = items.values();

    await Promise.all(Array.from({ length: n }, async () => {
        for (const item of queue) {
            await work(item);
        }
    }));
}


async function ask(base, prompt) {
    for (let pause = FIRST_PAUSE; ; pause *= 2) {
        const result = await askOnce(base, prompt);

        if (pause > LAST_PAUSE || !mayBeAskedAgain(result)) {
            return result;
        }
        await sleep(pause);
    }
}


async function askOnce(base, { custom_id, url = DEFAULT_URL, body }) {
    try {
        const response = await post(base + url.replace(/^\/v1/, ''), body);

        return { custom_id, response, error: null };
    } catch (error) {
        return { custom_id, response: null,
            error: { code: error.code ?? null, message: error.message } };
    }
}


function mayBeAskedAgain({ response }) {
    return response === null || response.status_code === 429
        || response.status_code >= 500;
}


/* Not fetch(), which gives up when there was no header for five minutes. */

function post(url, body) {
    const { request } = url.startsWith('https:') ? https : http;

    return new Promise((resolve, reject) => {
        const call = request(url, {
            method: 'POST',
            agent: false,
            headers: { 'content-type': 'application/json' },
        }, async (answer) => {
            answer.setEncoding('utf8');

            try {
                const text = (await answer.toArray()).join('');

                resolve({ status_code: answer.statusCode,
                    body: parse(text) ?? text });
            } catch (error) {
                reject(error);
            }
        });

        call.on('error', reject);
        call.end(JSON.stringify(body));
    });
}
