/*
 * The pictures of the dashboard: node screenshots.mjs FOLDER
 *
 * A gateway with made-up providers has an hour of traffic, and an outage near
 * its end.  Its clock runs sixty times as fast (libfaketime), so that takes a
 * minute; what the pictures show is what it measured by that clock.
 */

import path from 'node:path';

import { launch } from './lib/browser.mjs';
import { CHAT, CALLER, startGateway } from './lib/gateway.mjs';
import { sleep } from './lib/wait.mjs';

const SPEED = 60;
const HOUR = 60000;     /* of ours */

const CIRCUIT = 'circuit failure_threshold=3 open=4m open_max=20m;';
const CONF = {
    openai: `${CIRCUIT} price 2 8; limit rpm=600 concurrency=64;`,
    anthropic: `${CIRCUIT} model * claude-haiku; price 1 5; limit tpm=80000;`,
    gemini: `${CIRCUIT} model * gemini-flash; price 0.3 2.5;`,
    deepseek: `${CIRCUIT} model * deepseek-chat; price 0.28 0.42;`,
};
const PAUSE = { openai: 14, anthropic: 19, gemini: 8, deepseek: 26 };

const PICTURES = {
    'dashboard.png': {
        viewport: { width: 1240, height: 900 },
        deviceScaleFactor: 1.5,
        colorScheme: 'light',
    },
    'dashboard-phone.png': {
        viewport: { width: 390, height: 844 },
        deviceScaleFactor: 2,
        colorScheme: 'dark',
    },
};

const [folder] = process.argv.slice(2);
const endings = [];

Object.assign(process.env, { TZ: 'UTC' });

try {
    await takePictures(await anHour());
} finally {
    for (const end of endings) {
        await end();
    }
}

async function anHour() {
    const gateway = await startGateway(
        { after: (end) => endings.unshift(end) }, CONF, {
            env: {
                LD_PRELOAD: '/usr/$LIB/faketime/libfaketime.so.1',
                FAKETIME: `+0 x${SPEED}`,
                TZ: 'UTC',
            },
            http: `upstream batch { llm_use deepseek; llm_use gemini; }
                keepalive_timeout 1d; keepalive_time 1d;
                keepalive_requests 1000000;`,
            server: `client_header_timeout 1d;
                location /batch/ { llm_pass batch; }`,
        });
    const { providers } = gateway;
    const start = performance.now();
    const passed = () => (performance.now() - start) / HOUR;
    const over = () => passed() > 1.01;

    for (const [name, latencyMs] of Object.entries(PAUSE)) {
        providers[name].mock.setChaos({ latencyMs });
    }

    /* busier at some times than at others */

    const caller = async (route, pace, stream) => {
        while (!over()) {
            const response = await fetch(
                `${gateway.nginx.url}/${route}/chat/completions`, {
                    method: 'POST',
                    headers: { 'content-type': 'application/json',
                        authorization: `Bearer ${CALLER}` },
                    body: JSON.stringify({ ...CHAT, stream }),
                });

            await response.text();
            await sleep(pace * (0.3 + Math.random())
                / (1 + 0.6 * Math.sin(9 * passed())));
        }
    };
    const callers = [
        ...Array.from({ length: 4 }, (_, i) => caller('v1', 130, i % 2 === 0)),
        caller('batch', 120, false),
    ];
    const at = async (share, act) => {
        await sleep(Math.max(0, (share - passed()) * HOUR));
        await act();
    };

    await at(0.31, () => providers.deepseek.mock.setChaos({
        rateLimitRate: 0.4, latencyMs: PAUSE.deepseek }));
    await at(0.36, () => providers.deepseek.mock.setChaos({
        latencyMs: PAUSE.deepseek }));
    await at(0.52, () => providers.deepseek.mock.setChaos({ dropRate: 1 }));
    await at(0.57, () => providers.deepseek.mock.setChaos({
        latencyMs: PAUSE.deepseek }));
    await at(0.79, () => providers.openai.mock.setChaos({ dropRate: 1 }));
    await Promise.all(callers);

    return gateway;
}

async function takePictures(gateway) {
    const browser = await launch();

    endings.unshift(() => browser.close());

    for (const [file, options] of Object.entries(PICTURES)) {
        const page = await browser.newPage({ ...options, timezoneId: 'UTC' });

        await page.goto(`${gateway.nginx.url}/status`);
        await page.waitForSelector('.trouble');
        await page.waitForFunction(() =>
            document.querySelector('#fresh').textContent === 'Live');
        await page.screenshot({
            path: path.join(folder, file),
            fullPage: file === 'dashboard.png',
        });
        console.log(path.join(folder, file));
    }
}
