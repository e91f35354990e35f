/* llm_status in a browser: what somebody sees who has just been woken up. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';

import { launch, openPage, textBecomes } from './lib/browser.mjs';
import { startGateway } from './lib/gateway.mjs';

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const REFUSED = /Failed to load resource: net::ERR_CONNECTION_REFUSED/;
const OUT = 'circuit failure_threshold=2 open=1h;';

const ODD = [
    '<img src=x onerror="window.harmed=1">',
    '"\'><script>window.harmed=1</script>',
    '\u202egnitrevni',
    '\ufffd\ufffd',
    '__proto__',
    'constructor',
    'a-name-that-nobody-would-write-'.repeat(8),
];

let browser;

before(async () => {
    browser = await launch();
});

after(() => browser.close());

async function gatewayWithOutage(t, options, more = {}) {
    const gateway = await startGateway(t, {
        first: `${OUT} price 2 8; limit rpm=100 concurrency=9;`,
        second: 'model * mock-large; price 3 15;',
        ...more,
    }, options);

    await gateway.chat();
    await gateway.providers.first.fail(500);
    for (let i = 0; i < 5; i++) {
        await gateway.chat();
    }

    return gateway;
}

/* Lets the page see another status than the gateway's. */

async function pretend(page, change) {
    await page.route((url) => /^(\?recent)?$/.test(url.search),
        async (route) => {
            if (route.request().isNavigationRequest()) {
                return route.fallback();
            }

            const response = await route.fetch();
            const status = await response.json();

            change(status);
            await route.fulfill({ response, json: status });
        });
}

async function statusOf(gateway) {
    return (await fetch(`${gateway.nginx.url}/status?recent`)).json();
}

const background = () => getComputedStyle(document.documentElement)
    .backgroundColor.match(/\d+/g).slice(0, 3)
    .reduce((sum, value) => sum + Number(value), 0) / 3;

test('an outage is told in one look', async (t) => {
    const gateway = await gatewayWithOutage(t);
    const page = await openPage(t, browser, `${gateway.nginx.url}/status`);

    await textBecomes(page, 'h1', /^first is out\.$/);
    assert.match(await page.title(), /^1 out/);
    await textBecomes(page, '#lead', /1 of 2 providers admit/);
    await textBecomes(page, '#lead', /6 requests in 10 minutes none was/);
    await textBecomes(page, '#lead', /5 \(83\s%\) were answered by another/);

    const card = await page.textContent('.trouble');

    assert.match(card, /first out/);
    assert.match(card, /next probe in (1:0\d:\d\d|\d\d:\d\d)/);
    assert.match(card, /too many failures in a row, last error: status 500/);
    assert.match(card, /since \d\d:\d\d:\d\d, \d+ s ago/);
    assert.match(card, /Callers of llm go on to second\./);

    assert.deepEqual(await page.locator('.figures dd').allTextContents()
        .then((all) => all.map((text) => text.trim().split(' ')[0])),
    ['6', '1', '5', '0', '0']);
    assert.deepEqual(await page.locator('#rows .name').allTextContents(),
        ['first', 'second']);
    assert.match(await page.textContent('#rows tr'), /3 \/ 100/);
    assert.equal(await page.locator('.lanes .lane .open').count(), 1);
    assert.match(await page.textContent('#moves tr'),
        /first.*open.*too many failures in a row \(status 500\)/);

    /* a countdown runs, and what is not new is not made anew */

    const until = page.locator('.trouble [data-until]');
    const start = await until.textContent();

    await page.evaluate(() => {
        window.sameRow = document.querySelector('#rows .name');
    });
    await page.waitForFunction((text) => document.querySelector(
        '.trouble [data-until]').textContent < text, start);
    assert.ok(await page.evaluate(() => window.sameRow.isConnected));
});

test('where nobody is left, that is told', async (t) => {
    const gateway = await startGateway(t, { only: OUT });

    await gateway.providers.only.fail(500);
    for (let i = 0; i < 4; i++) {
        await assert.rejects(gateway.chat());
    }

    const page = await openPage(t, browser, `${gateway.nginx.url}/status`);

    await textBecomes(page, 'h1', /^only is out, and nobody is left for llm\.$/);
    await textBecomes(page, '.trouble', /Callers of llm are refused: nobody/);
    await textBecomes(page, '#lead', /2 \(50\s%\) were refused, 2 \(50\s%\) broke/);
    await textBecomes(page, '.since', /2 refused \(2 no circuit admits\)/);
});

test('a change is announced while the page is open, once', async (t) => {
    const gateway = await startGateway(t, {
        first: 'circuit failure_threshold=1 success_threshold=1 open=3s;',
        second: '',
    });

    await gateway.chat();

    const page = await openPage(t, browser, `${gateway.nginx.url}/status`);

    await textBecomes(page, 'h1', /^All 2 providers admit\.$/);
    assert.equal(await page.getAttribute('#news', 'role'), 'status');
    await page.evaluate(() => {
        window.news = [];
        new MutationObserver(() => window.news.push(
            document.querySelector('#news').textContent))
            .observe(document.querySelector('#news'), { childList: true });
    });

    await gateway.providers.first.fail(500);
    await gateway.chat();

    await textBecomes(page, '#news', /^first is out: too many failures in a row\.$/);
    await textBecomes(page, 'h1', /^first is out\.$/);

    /* two more answers, with nothing new in them */

    for (let i = 0; i < 2; i++) {
        await page.waitForResponse(/\/status/);
    }
    assert.equal((await page.evaluate(() => window.news)).length, 1);

    await textBecomes(page, '.trouble .until', /^probed with the next request$/);
    await gateway.providers.first.heal();
    await gateway.chat();

    await textBecomes(page, '#news', /^first admits again\.$/);
    await textBecomes(page, 'h1', /^All 2 providers admit\.$/);
    assert.equal(await page.locator('.trouble').count(), 0);
});

test('an operator’s word is shown', async (t) => {
    const gateway = await startGateway(t, { first: '', second: '' },
        { server: 'location /llm/ { llm_api; }' });
    const order = async (name, body) => {
        const response = await fetch(
            `${gateway.nginx.url}/llm/providers/${name}`,
            { method: 'POST', body: JSON.stringify(body),
                headers: { 'content-type': 'application/json' } });

        assert.equal(response.status, 200, await response.text());
    };

    await order('first', { action: 'open', ttl: '10m' });
    await order('second', { action: 'observe' });

    const page = await openPage(t, browser, `${gateway.nginx.url}/status`);

    await textBecomes(page, '.trouble', /taken out by an operator/);
    await textBecomes(page, '.trouble .until', /^word ends in (10:00|9:\d\d)$/);
    await textBecomes(page, '#rows', /second observed.*everybody is let through/);
});

test('what probes find is told, a refused key in the headline', async (t) => {
    const gateway = await startGateway(t, {
        first: 'probe interval=500ms;',
        second: 'probe interval=500ms; api_key of-somebody-else;',
        third: '',
    });
    const page = await openPage(t, browser, `${gateway.nginx.url}/status`);

    await textBecomes(page, 'h1', /^second refuses its key\.$/);
    await textBecomes(page, '.trouble', new RegExp('second refusing its key'
        + 'callers are sent to it all the same\\.probe found its key refused '
        + '\\(status 401\\), \\d\\d:\\d\\d:\\d\\d, \\d s ago\\.$'));
    assert.equal(await page.title(), '(1) nginx-llm');

    /* whichever is asked first */
    await textBecomes(page, '#rows tr:nth-child(2)', /probe answered/);

    const rows = await page.locator('#rows tr').allTextContents();

    assert.match(rows[0], /^second refusing its key.*key refused \(status 401\)/);
    assert.match(rows[0], /good probes: 0\s% of the hour, 0\s% of the day/);
    assert.match(rows[1], /^first closed.*probe answered in \d+\sms, .* s ago/);
    assert.match(rows[1], /good probes: 100\s% of the hour, 100\s% of the day/);
    assert.match(rows[2], /^third closed/);
    assert.doesNotMatch(rows[2], /probe/);
});

test('a name without an address is told in the headline', async (t) => {
    const gateway = await startGateway(t, { first: '', second: '', third: '' });
    const page = await openPage(t, browser, `${gateway.nginx.url}/status`);
    const probe = { result: null, time: null,
        success_rate: { hour: null, day: null } };
    let error = null;

    await pretend(page, (status) => {
        const [first, second, third] = status.providers;

        Object.assign(first, { resolved: false, addresses: 0, probe,
            dns: { error: 'Host not found' } });
        Object.assign(second, { dns: { error: 'Operation timed out' },
            addresses: 3, passed_over: 1 });
        third.probe = { ...probe, result: 'failure', error: 'timed out',
            time: status.time, success_rate: { hour: 0.9999, day: 1 } };
        status.zone.state = { error };
    });

    await textBecomes(page, 'h1', /^first is out, its name has no address\.$/);
    await textBecomes(page, '.trouble', new RegExp('its name has no address: '
        + 'Host not found\\.no probe yet\\.Callers of llm go on to'));
    await textBecomes(page, '.trouble .until', /^until DNS knows it$/);
    await textBecomes(page, '#rows', new RegExp('DNS: Operation timed out, goes '
        + 'on with 3 addresses.*1 of 3 addresses passed over'));
    await textBecomes(page, '#rows', new RegExp('probe failed \\(timed out\\), .*'
        + 'good probes: > 99\\.9\\s% of the hour, 100\\s% of the day'));
    assert.ok(!(await page.textContent('#lead')).includes('state file'));

    error = 'No space left on device';
    await textBecomes(page, '#lead',
        /The state file is not written: No space left on device\.$/);
});

test('it tells when it is not up to date, and recovers', async (t) => {
    const gateway = await gatewayWithOutage(t);
    const page = await openPage(t, browser, `${gateway.nginx.url}/status`,
        { expected: REFUSED });

    await textBecomes(page, 'h1', /^first is out\.$/);
    assert.ok(await page.isHidden('#stale'));

    gateway.nginx.child.kill('SIGTERM');
    await gateway.nginx.exited;

    await page.waitForSelector('#stale', { state: 'visible' });
    await textBecomes(page, '#stale [role=alert]', /cannot be reached\.$/);
    await textBecomes(page, '#stale-age', /^What you see is [1-9]\d* s old/);
    await textBecomes(page, 'h1', /^first is out\.$/);

    assert.ok(await gateway.nginx.spawn());
    await page.waitForSelector('#stale', { state: 'hidden' });
    await textBecomes(page, 'h1', /^All 2 providers admit\.$/);
});

for (const [what, answer, pattern] of [
    ['an error', { status: 403, body: 'no' }, /answers with status 403\.$/],
    ['another page', { status: 200, body: '<p>Log in</p>' }, /something else/],
    ['other JSON', { status: 200, body: '{"providers":1}' }, /something else/],
]) {
    test(`it tells when it gets ${what}`, async (t) => {
        const gateway = await startGateway(t, { first: '' });
        const page = await openPage(t, browser,
            `${gateway.nginx.url}/status`, { expected: /status of 403/ });

        await textBecomes(page, 'h1', /admit/);
        await page.route(/status\?/, (route) => route.fulfill(answer));
        await textBecomes(page, '#stale [role=alert]', pattern);
        await page.unroute(/status\?/);
        await page.waitForSelector('#stale', { state: 'hidden' });
    });
}

const PLACES = {
    'an exact location': ['= /s', 'llm_status;', '/s'],
    'a prefix': ['/ops/', 'llm_status;', '/ops/llm/status'],
    'format=html': ['= /s', 'llm_status format=html;', '/s?from=somewhere'],
    'a policy of the administrator’s': ['= /s', `llm_status; add_header
        Content-Security-Policy "default-src 'self'" always;`, '/s'],
    'a password': ['= /s', `llm_status; auth_basic ops;
        auth_basic_user_file {{prefix}}/passwords;`, '/s'],
};

for (const [what, [location, directives, uri]] of Object.entries(PLACES)) {
    test(`it works in ${what}`, async (t) => {
        const gateway = await startGateway(t, { first: '' }, {
            server: `location ${location} { ${directives} }`,
        });

        fs.writeFileSync(gateway.nginx.file('passwords'),
            'night:{PLAIN}shift\n');

        const page = await openPage(t, browser, gateway.nginx.url + uri, {
            expected: /TrustedHTML|trusted-types-sink/,
            httpCredentials: { username: 'night', password: 'shift' },
        });

        await textBecomes(page, 'h1', /^All 1 provider admit/);
        await textBecomes(page, '#fresh', /^Live$/);
        assert.equal(await page.evaluate(() => document.styleSheets.length), 1);
        assert.match(page.answer.headers()['content-security-policy'],
            /default-src 'none'.*frame-ancestors 'none'/);

        /* the policy is in force: this test could fail */

        await assert.rejects(page.evaluate(() => {
            document.body.innerHTML = '<b>markup</b>';
        }), /TrustedHTML/);
    });
}

test('no name can bring markup in', async (t) => {
    const route = '<img src=x onerror="window.harmed=1">';
    const gateway = await startGateway(t, { first: OUT }, {
        http: `upstream '${route}' { llm_use first; }
            upstream "\xff\xfe" { llm_use first; }`,
    });

    await gateway.providers.first.fail(500);
    for (let i = 0; i < 3; i++) {
        await assert.rejects(gateway.chat());
    }

    const { providers: [model] } = await statusOf(gateway);
    const page = await openPage(t, browser, `${gateway.nginx.url}/status`);

    await textBecomes(page, '#routes', /<img src=x onerror/);
    await textBecomes(page, '.trouble', /Callers of <img src=x/);

    await pretend(page, (status) => {
        status.providers = ODD.map((name) => ({ ...model, name,
            last_error: `<b>${name}`, reason: `<i>${name}` }));
        status.routes[0].providers = ODD;
    });
    await textBecomes(page, '#count', /^7$/);

    assert.deepEqual(await page.locator('#rows .name').allTextContents(), ODD);
    assert.equal(await page.locator('img, b:not(.out), script:not([src])')
        .count(), 0);
    assert.equal(await page.evaluate(() => window.harmed), undefined);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth
        <= innerWidth), true);
});

test('256 providers can be used: the troubled first, and a filter',
    async (t) => {
        const gateway = await gatewayWithOutage(t);
        const { providers: [out, good] } = await statusOf(gateway);
        const page = await openPage(t, browser, `${gateway.nginx.url}/status`);

        await pretend(page, (status) => {
            status.providers = Array.from({ length: 256 }, (_, i) =>
                ({ ...i % 16 === 9 ? out : good, name: `provider-${i}` }));
            status.routes[0].providers = status.providers
                .map(({ name }) => name);
        });

        await textBecomes(page, 'h1', /^16 of 256 providers are out\.$/);
        assert.equal(await page.locator('.trouble').count(), 9);
        await textBecomes(page, '#more', /^And 7 more/);
        assert.deepEqual((await page.locator('#rows .name').allTextContents())
            .slice(0, 17), [...Array.from({ length: 16 }, (_, i) =>
            `provider-${16 * i + 9}`), 'provider-0']);

        await page.fill('#filter', 'provider-12');
        await textBecomes(page, '#count', /^11 of 256$/);
        await page.fill('#filter', 'too many');
        await textBecomes(page, '#count', /^16 of 256$/);
        await page.fill('#filter', '');
        await textBecomes(page, '#count', /^256$/);
    });

test('observed servers and receivers of alerts are shown', async (t) => {
    const gateway = await startGateway(t, { first: '' }, {
        http: `upstream own { llm_observe on failure_threshold=1;
            server 127.0.0.1:9; }`,
        server: 'location /own { proxy_pass http://own; }',
    });

    await fetch(`${gateway.nginx.url}/own`);

    const page = await openPage(t, browser, `${gateway.nginx.url}/status`);

    await textBecomes(page, '#servers',
        /127\.0\.0\.1:9.*own.*open.*too many failures in a row/);
    assert.ok(await page.isHidden('#alerts'));

    await pretend(page, (status) => {
        status.alerts = [{ name: 'hooks.example', delivered: 1, dropped: 2,
            failures: 3 }];
    });
    await textBecomes(page, '#alerts', new RegExp('hooks.example 1 event '
        + 'delivered, 2 given up, 3 failed tries'));
});

test('the hour before the page was opened is there', async (t) => {
    const gateway = await startGateway(t, { first: '' });
    const page = await openPage(t, browser, `${gateway.nginx.url}/status`);
    const line = (of) => Array.from({ length: 61 }, (_, i) => of(i));

    await pretend(page, ({ providers: [first], routes: [route] }) => {
        if (first.recent) {
            first.recent = {
                calls: line((i) => i < 20 ? null : 10),
                failed: line((i) => i < 20 ? null : i === 30 ? 10 : 0),
                throttled: line((i) => i < 20 ? null : 0),
                rejected: line((i) => i < 20 ? null : i > 30 ? 5 : 0),
                duration: line((i) => i < 20 ? null : i / 10),
            };
            route.recent = {
                requests: line(() => 10), failover: line((i) => i > 55 ? 2 : 0),
                rejected: line(() => 0), broken: line(() => 1),
            };
        }
    });
    await page.reload();

    await textBecomes(page, '.figures', /requests100 /);
    assert.deepEqual((await page.locator('.figures dd').allTextContents())
        .map((text) => Number(text.trim().split(' ')[0])),
    [100, 80, 10, 0, 10]);

    const chart = page.locator('#rows .chart').first();

    assert.equal(await chart.locator('.bar-ok').count(), 40);
    assert.equal(await chart.locator('.bar-bad').count(), 1);
    assert.equal(await chart.locator('.bar-away').count(), 30);
    assert.match(await chart.getAttribute('aria-label'),
        /410 calls, 10 failed, 0 throttled, 150 refused/);

    /* what comes now is added to the minute that runs */

    await gateway.chat();
    await textBecomes(page, '.figures', /requests101 /);
});

for (const colorScheme of ['light', 'dark']) {
    for (const viewport of [{ width: 1280, height: 800 },
        { width: 320, height: 640 }])
    {
        test(`${colorScheme}, ${viewport.width} pixels`, async (t) => {
            const gateway = await gatewayWithOutage(t, {}, {
                third: 'probe interval=1s; api_key of-somebody-else;',
                fourth: 'probe interval=1s;',
            });
            const page = await openPage(t, browser,
                `${gateway.nginx.url}/status`, { viewport, colorScheme });

            await textBecomes(page, 'h1',
                /^first is out, and third refuses its key\.$/);
            await textBecomes(page, '#rows', /probe answered/);

            assert.ok(await page.evaluate(() =>
                document.documentElement.scrollWidth <= innerWidth));
            assert.equal(await page.evaluate(background) > 128,
                colorScheme === 'light');

            /* in a world of its own, where the page's policy is not */

            const session = await page.context().newCDPSession(page);
            const { frameTree } = await session.send('Page.getFrameTree');
            const world = await session.send('Page.createIsolatedWorld',
                { frameId: frameTree.frame.id });
            const evaluate = async (expression) => (await session.send(
                'Runtime.evaluate', { expression, awaitPromise: true,
                    returnByValue: true,
                    contextId: world.executionContextId })).result.value;

            await evaluate(fs.readFileSync(AXE, 'utf8'));

            const found = await evaluate(`axe.run().then(({ violations,
                passes }) => ({ passed: passes.length, violations:
                violations.map((v) => v.id + ': '
                    + v.nodes.map((n) => n.html).join(' ')) }))`);

            assert.ok(found.passed > 10);
            assert.deepEqual(found.violations, []);
        });
    }
}

test('the keyboard is enough', async (t) => {
    const gateway = await gatewayWithOutage(t);
    const page = await openPage(t, browser, `${gateway.nginx.url}/status`);
    const focus = () => page.evaluate(() => {
        const { id, className, matches } = document.activeElement;
        const style = getComputedStyle(document.activeElement);

        return [id || className, style.outlineStyle];
    });

    await textBecomes(page, 'h1', /^first is out\.$/);

    await page.keyboard.press('Tab');
    assert.deepEqual(await focus(), ['skip', 'solid']);
    await page.keyboard.press('Tab');
    assert.deepEqual(await focus(), ['pause', 'solid']);
    await page.keyboard.press('Space');
    assert.equal(await page.getAttribute('#pause', 'aria-pressed'), 'true');
    await textBecomes(page, '#fresh', /^Paused at/);
    await page.keyboard.press('Enter');
    await textBecomes(page, '#fresh', /^Live/);
    await page.keyboard.press('Tab');
    assert.deepEqual(await focus(), ['filter', 'solid']);
    await page.keyboard.type('second');
    await textBecomes(page, '#count', /^1 of 2$/);
});

test('a page that nobody sees does not ask', async (t) => {
    const gateway = await startGateway(t, { first: '' });
    const page = await openPage(t, browser, `${gateway.nginx.url}/status`, {
        init: () => Object.defineProperty(Document.prototype, 'hidden',
            { get: () => window.isHidden ?? false }),
    });
    const hide = (hidden) => page.evaluate((value) => {
        window.isHidden = value;
        document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
    let asked = 0;

    await textBecomes(page, 'h1', /admit/);
    await hide(true);
    await page.waitForTimeout(500);
    page.on('request', () => asked++);
    await page.waitForTimeout(3000);
    assert.equal(asked, 0);

    await hide(false);
    await page.waitForResponse(/\/status/);
    await textBecomes(page, '#fresh', /^Live$/);
});
