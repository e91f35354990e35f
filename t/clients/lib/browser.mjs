import assert from 'node:assert/strict';

import { chromium } from 'playwright-core';

const CHROMIUM = process.env.LLM_CHROMIUM || '/usr/bin/chromium';

/* One that asks nobody but the pages' own server, with an empty profile. */

const ARGS = [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
    '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync',
];

export const launch = () =>
    chromium.launch({ executablePath: CHROMIUM, args: ARGS });

/*
 * A page of a browser.  When the test is over it fails where the page had an
 * error, broke a Content-Security-Policy, or asked another server; `expected`
 * are the errors of the console that the test is about.
 */

export async function openPage(t, browser, url, options = {}) {
    const { expected = /^$/, init, ...rest } = options;
    const context = await browser.newContext(rest);
    const page = await context.newPage();
    const troubles = [];

    page.setDefaultTimeout(15000);
    page.on('pageerror', (error) => troubles.push(error.stack));
    page.on('console', (message) => {
        if (['error', 'warning'].includes(message.type())
            && !expected.test(message.text()))
        {
            troubles.push(message.text());
        }
    });
    page.on('request', (request) => {
        if (new URL(request.url()).origin !== new URL(url).origin) {
            troubles.push(`asks ${request.url()}`);
        }
    });

    await page.addInitScript(() => {
        document.addEventListener('securitypolicyviolation', (event) => {
            console.error(`policy: ${event.violatedDirective}`
                + ` ${event.blockedURI}`);
        });
    });
    if (init) {
        await page.addInitScript(init);
    }

    t.after(async () => {
        await context.close();
        assert.deepEqual(troubles, []);
    });

    page.answer = await page.goto(url);

    return page;
}

/* What a text is, sooner or later. */

export async function textBecomes(page, selector, pattern) {
    await page.waitForFunction(([where, source, flags]) => {
        const element = document.querySelector(where);

        return element && new RegExp(source, flags).test(element.textContent);
    }, [selector, pattern.source, pattern.flags]).catch(async (error) => {
        throw new Error(`${selector} is not ${pattern}, but "${
            await page.textContent(selector, { timeout: 100 })
                .catch(() => 'not there')}"`, { cause: error });
    });
}
