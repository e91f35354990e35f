/*
 * The dashboard of nginx-llm.  It asks the location that it comes from for
 * its JSON, and shows that.
 */

'use strict';

const POLL = 2000;          /* ms between two questions, at least */
const SHARE = 25;           /* ... and so many times what a question takes */
const PATIENCE = 10000;     /* ms for an answer */
const LATE = 15000;         /* ms; news is old after that */
const CARDS = 9;
const LANES = 40;
const CHANGES = 25;


/* the verdict */

function showVerdict(all, routes, file) {
    const out = all.filter((p) => p.is.kind === 'out');
    const half = all.filter((p) => p.is.kind === 'half');
    const ill = all.filter((p) => p.is.kind === 'ill');
    const held = all.filter((p) => p.is.kind === 'held');
    const troubled = [...out, ...half, ...ill, ...held];
    const dead = routes.filter((r) => r.members.length
        && !r.members.some((p) => p.is.admits));
    const kind = troubled[0]?.is.kind ?? 'good';
    const first = (of) => of.length === 1 ? [name(of[0].name), ' is ']
        : [`${count(of.length)} of ${plural(all.length, 'provider')} are `];
    const keys = ill.length === 1 ? [name(ill[0].name), ' refuses its key']
        : `${plural(ill.length, 'provider')} refuse their keys`;

    put($('verdict'), [kind, troubled.map((p) => [p.name, p.is.word]),
        dead.map((r) => r.name), all.length], () => [
        sign(kind),
        out.length ? [first(out), 'out', out.length === 1
            && out[0].is.brief ? `, ${out[0].is.brief}` : null]
            : half.length ? [first(half), 'being probed'] : ill.length
                ? keys : held.length ? [first(held), 'held back']
                    : all.length ? `All ${plural(all.length, 'provider')} admit`
                        : 'There are no providers',
        dead.length === 1
            ? [', and nobody is left for ', name(dead[0].name)]
            : dead.length ? `, and ${plural(dead.length, 'route')} have nobody`
                + ' left' : null,
        ill.length && troubled[0] !== ill[0] && !dead.length
            ? [', and ', keys] : null,
        '.',
    ]);

    document.title = out.length ? `${out.length} out – nginx-llm`
        : troubled.length ? `(${troubled.length}) nginx-llm` : 'nginx-llm';

    list($('troubles'), troubled.slice(0, CARDS), (p) => p.id,
        () => h('li', {}), (li, p) => showTrouble(li, p, routes));

    const more = troubled.length - CARDS;

    put($('more'), more, () => `And ${count(more)} more, below.`);
    $('more').hidden = more <= 0;

    showLead(all, routes, file);
}

function showLead(all, routes, file) {
    const [n, over, refused, bad] = Object.keys(OUTCOMES).map((key) =>
        routes.reduce((a, r) => a + sum(r.hour[key], WINDOW), 0));
    const admit = all.filter((p) => p.is.admits).length;
    const of = (part, what) => part ? `${count(part)} (${
        percent(part, n)}) ${what}` : null;
    const troubles = [of(refused, 'were refused'),
        of(bad, 'broke off or failed')].filter(Boolean).join(', ');

    put($('lead'), [n, over, refused, bad, admit, all.length, file], () => [
        admit < all.length
            ? `${count(admit)} of ${plural(all.length, 'provider')} admit. `
            : null,
        !n ? `No request has ended within ${WINDOW} minutes.`
            : `Of ${plural(n, 'request')} in ${WINDOW} minutes ${
                troubles || 'none was refused or broken'}${
                over ? `; ${of(over, 'were answered by another provider than'
                    + ' the first choice')}` : ''}.`,
        file ? [' ', h('b', { class: 'out' },
            `The state file is not written: ${file}.`)] : null,
    ]);
}

function showTrouble(li, p, routes) {
    const { is } = p;
    const heirs = routes.filter((r) => r.members.includes(p)).map((r) => ({
        route: r.name,
        names: r.members.filter((m) => m.is.admits).map((m) => m.name),
    }));
    const until = is.until && Math.round(is.until / 1000) * 1000;

    li.className = `trouble is-${is.kind}`;

    put(li, [p.name, is, until, heirs, p.last_error, p.open_level,
        p.success_count, p.probe].map((v) => v === is ? [is.kind, is.word, is.why,
            is.since, is.status, is.never, is.then] : v), () => [
        h('p', { class: 'who' }, sign(is.kind), name(p.name), ' ',
            h('span', { class: is.kind }, is.word)),
        h('p', { class: 'until' }, is.until
            ? [`${is.then} in `, h('span', { class: 'clock' }, left(until))]
            : is.never ?? null),
        h('p', {}, [is.since ? ['since ', since(is.since), ': '] : null,
            sentence(is, p), '.']),
        p.probe ? h('p', { class: 'quiet' }, probe(p), '.') : null,
        is.admits ? null : heirs.map(({ route, names }) => h('p', { class: 'quiet' },
            names.length
                ? ['Callers of ', name(route), ' go on to ', join(names), '.']
                : ['Callers of ', name(route), ' are refused: ',
                    h('b', { class: 'out' }, 'nobody is left'), '.'])),
    ]);
}

function sentence(is, p) {
    return [
        is.why,
        p.last_error && p.admin === 'auto' && !is.admits ? `, last error: ${p.last_error}`
            : null,
        p.open_level > 0 ? `, opened again ${p.open_level === 1 ? 'once'
            : `${p.open_level} times`}` : null,
        is.kind === 'half' && p.success_count
            ? `, ${plural(p.success_count, 'probe')} answered` : null,
    ];
}

const join = (names) => names.slice(0, 4).map((text, i) =>
    [i ? ', ' : '', name(text)]).concat(names.length > 4
    ? [`, and ${names.length - 4} more`] : []);


/* routes */

function showRoutes(routes) {
    list($('routes'), routes, (r) => r.id, () => h('article', {},
        h('div', {}), h('div', {}), h('dl', {}), h('p', {})), showRoute);
}

function showRoute(article, r) {
    const [who, chart, figures, ever] = article.children;
    const { requests, failover, rejected, broken } = r.hour;
    const n = sum(requests, WINDOW);
    const over = sum(failover, WINDOW);
    const refused = sum(rejected, WINDOW);
    const bad = sum(broken, WINDOW);

    article.className = 'route';
    figures.className = 'figures';
    ever.className = 'since';

    put(who, [r.name, r.members.map((p) => [p.name, p.is.kind, p.is.word])],
        () => [
            h('h3', {}, name(r.name)),
            h('ol', { class: 'chain', 'aria-label': 'Its providers' },
                r.members.slice(0, 12).map((p) => h('li', {},
                    sign(p.is.kind), name(p.name),
                    h('span', { class: 'heard' }, `, ${p.is.word}`))),
                r.members.length > 12
                    ? h('li', {}, `and ${r.members.length - 12} more`)
                    : null),
        ]);

    put(chart, [requests, failover, rejected, broken], () => [
        bars(`Requests a minute of the last hour: ${
            plural(sum(requests, 61), 'request')}, ${
            count(sum(failover, 61))} failed over, ${
            count(sum(rejected, 61))} refused, ${
            count(sum(broken, 61))} broken`,
        requests, [['bad', broken], ['slow', rejected], ['over', failover]]),
        scale(peak(requests)),
    ]);

    const figure = (value, what, kind) => h('div', {}, h('dt', {}, what),
        h('dd', { class: value && kind }, count(value), ' ',
            value && value !== n ? h('small', {}, percent(value, n)) : null));

    put(figures, [n, over, refused, bad], () => [
        figure(n, n === 1 ? 'request' : 'requests'),
        figure(n - over - refused - bad, 'first choice'),
        figure(over, 'failed over', 'word'),
        figure(refused, 'refused', 'half'),
        figure(bad, 'broken off or failed', 'out'),
    ]);

    const o = r.outcomes;
    const refusals = Object.entries(r.rejections).filter(([, v]) => v);
    const money_ = [r.saved, r.added];

    /* from whom to whom, where a gateway tells */

    const pairs = Object.entries(r.failovers_from ?? {}).flatMap(([from, to]) =>
        Object.entries(to).map(([name_, n_]) => [n_, from, name_]))
        .filter(([n_]) => n_).sort((a, b) => b[0] - a[0]);

    put(ever, [o, pairs, r.rejections, r.waited, r.cost, money_, r.requests], () => [
        `Since the start: ${plural(r.requests, 'request')}, `,
        [
            [o.ok, 'ok'], [o.failover, 'failed over'],
            [o.rejected, 'refused', refusals.map(([why, v]) =>
                `${count(v)} ${REJECTIONS[why]
                    ?? why.replaceAll('_', ' ')}`).join(', ')],
            [o.truncated, 'broken off'], [o.error, 'failed'],
            [o.aborted, 'left by their caller'], [o.cached, 'from the cache'],
            [r.waited, 'waited'],
        ].filter(([v]) => v).map(([v, what, more]) =>
            `${count(v)} ${what}${more ? ` (${more})` : ''}`).join(' · ')
            || 'none is over',
        pairs.slice(0, 4).map(([n_, from, to]) => [` · ${count(n_)} from `,
            name(from), ' on to ', name(to)]),
        r.cost ? ` · ${money(r.cost)}` : null,
        r.added ? `, ${money(r.added)} more by failover` : null,
        r.saved ? `, ${money(r.saved)} less by failover` : null,
    ]);
}


/* providers */

const cell = (label, kind) => h('td', { role: 'cell', class: kind,
    'data-label': label });

function showProviders(all) {
    const wanted = $('filter').value.trim().toLowerCase();
    const shown = all.filter((p) => !wanted
        || [p.name, p.is.word, p.is.why, p.state, p.last_error].join(' ')
            .toLowerCase().includes(wanted));

    shown.sort((a, b) => RANK[a.is.kind] - RANK[b.is.kind]);

    put($('count'), [shown.length, all.length], () =>
        shown.length === all.length ? count(all.length)
            : `${count(shown.length)} of ${count(all.length)}`);

    list($('rows'), shown, (p) => p.id, () => h('tr', { role: 'row' },
        h('th', { scope: 'row', role: 'rowheader' }), cell(null, 'hour'),
        cell('Calls', 'n'), cell('Failed', 'n'), cell('Duration', 'took'),
        cell('Load'), cell('Tokens and cost', 'n')),
    showProvider);
}

function showProvider(row, p) {
    const [who, chart, calls, failed, duration, load, usage] = row.children;
    const { is, hour: recent } = p;
    const n = sum(recent.calls, WINDOW);
    const bad = sum(recent.failed, WINDOW);
    const until = is.until && Math.round(is.until / 1000) * 1000;

    put(who, [p.name, is.kind, is.word, is.why, is.never, until, p.last_error,
        p.last_failure, p.failure_count, p.probe, p.dns, p.addresses,
        p.passed_over], () => [
        h('span', { class: 'name' }, sign(is.kind), name(p.name)), ' ',
        h('span', { class: is.kind }, is.word),
        is.why ? h('small', {}, is.why, is.until
            ? [`, ${is.then} in `, h('span', { class: 'nowrap' }, left(until))]
            : is.never ? `, ${is.never}` : null) : null,
        is.kind === 'good' && p.failure_count
            ? h('small', {}, `${plural(p.failure_count, 'failure')} in a row`)
            : null,
        p.last_error ? h('small', {}, `last error: ${p.last_error}, `,
            p.last_failure ? since(Date.parse(p.last_failure)) : null) : null,
        p.probe ? h('small', {}, probe(p)) : null,
        p.probe?.result ? h('small', {}, goodProbes(p.probe)) : null,
        addresses(p).map((text) => h('small', { class: 'half' }, text)),
    ]);

    put(chart, recent, () => [
        bars(`Calls a minute of the last hour: ${
            plural(sum(recent.calls, 61), 'call')}, ${
            count(sum(recent.failed, 61))} failed, ${
            count(sum(recent.throttled, 61))} throttled, ${
            count(sum(recent.rejected, 61))} refused`,
        recent.calls, [['bad', recent.failed], ['slow', recent.throttled]],
        ['away', recent.rejected]),
        scale(peak(recent.calls, recent.rejected)),
    ]);

    put(calls, [n, p.total_calls, sum(recent.rejected, WINDOW)], () => [
        count(n), h('small', {}, `in ${WINDOW} min`),
        sum(recent.rejected, WINDOW)
            ? h('small', {}, `+ ${count(sum(recent.rejected, WINDOW))}`
                + ' refused') : null,
        h('small', {}, `${count(p.total_calls)} in all`),
    ]);

    put(failed, [n, bad, p.success_rate, p.throttled_calls, p.stream_errors,
        sum(recent.throttled, WINDOW)], () => [
        bad ? h('span', { class: 'out' }, percent(bad, n)) : percent(0, 1),
        sum(recent.throttled, WINDOW) ? h('small', { class: 'half' },
            `${percent(sum(recent.throttled, WINDOW), n)} throttled`) : null,
        h('small', {}, `${percent(1 - p.success_rate, 1)} in all`),
        p.stream_errors ? h('small', {}, `${count(p.stream_errors)} broke off`)
            : null,
    ]);

    const { latency, first_token: token } = p;

    put(duration, [latency.p50, latency.p95, latency.p99, token,
        recent.duration], () => latency.p50 ? [
        `${took(latency.p50)} `,
        h('span', { class: 'quiet' }, `· p95 ${took(latency.p95)}`),
        curve('Mean duration of the last hour, minute by minute',
            recent.duration),
        token.p50 ? h('small', {}, `first token ${took(token.p50)}`
            + ` · p95 ${took(token.p95)}`) : null,
    ] : h('span', { class: 'quiet' }, 'no answer yet'));

    put(load, [p.in_flight, p.limits], () => [
        `${count(p.in_flight)} in flight`,
        h('div', { class: 'use' }, Object.entries(p.limits ?? {}).map(
            ([what, limit]) => [
                h('span', {}, what === 'concurrency' ? 'at once' : what),
                h('meter', { max: limit.limit, value: limit.used,
                    'aria-label': `${what} used` }),
                h('span', { class: limit.used >= limit.limit && 'hit' },
                    `${count(limit.used)} / ${count(limit.limit)}`),
            ])),
    ]);

    put(usage, [p.tokens, p.cost], () => [
        money(p.cost),
        h('small', {}, `${count(p.tokens.input)} in`),
        h('small', {}, `${count(p.tokens.output)} out`),
    ]);
}


/* changes of state */

function showMoves(all, now) {
    const from = now - HOUR;
    const moved = all.filter((p) => (p.state_changes ?? []).some((c) =>
        Date.parse(c.time) > from && c.from !== c.to)
        || p.state !== 'closed').slice(0, LANES);
    const lanes = $('lanes');
    const minute = Math.floor(now / 10000);

    put(lanes, [minute, moved.map((p) => [p.name, p.state, p.transitions])],
        () => moved.length ? [
            moved.map((p) => [name(p.name), lane(p, from, now)]),
            h('div', { class: 'scale', 'aria-hidden': 'true' },
                [0, 1, 2, 3, 4].map((i) => h('span', {},
                    minutes.format(new Date(from + i * HOUR / 4))))),
        ] : h('p', { class: 'none' }, 'No circuit has moved.'));

    const changes = all.flatMap((p) => (p.state_changes ?? []).map((c) =>
        ({ ...c, name: p.name })))
        .sort((a, b) => a.time < b.time ? 1 : a.time > b.time ? -1 : 0)
        .slice(0, CHANGES);

    $('moves').parentNode.hidden = !changes.length;

    put($('moves'), changes, () => changes.map((c) => h('tr', { role: 'row' },
        h('td', { role: 'cell', class: 'nowrap' }, h('time',
            { datetime: c.time, title: c.time },
            moment(Date.parse(c.time), now))),
        h('th', { role: 'rowheader', scope: 'row' }, name(c.name)),
        h('td', { role: 'cell' }, c.from === c.to ? 'stays ' : [],
            sign({ closed: 'good', open: 'out', half_open: 'half' }[c.to]
                ?? 'word'), c.to.replace('_', '-')),
        h('td', { role: 'cell' }, reasonOf(c.reason),
            c.status ? ` (status ${c.status})` : null))));
}

/* The thicker, the worse. */

const THICK = { closed: 2, half_open: 8, open: 14 };

function lane(p, from, now) {
    const changes = p.state_changes.filter((c) => c.from !== c.to)
        .map((c) => ({ ...c, at: Date.parse(c.time) }));
    const svg = s('svg', { class: 'lane', viewBox: '0 0 1000 16', role: 'img',
        preserveAspectRatio: 'none' });
    const later = changes.filter((c) => c.at > from);
    let state = later[0]?.from ?? changes.at(-1)?.to ?? p.state;
    let at = from;
    let open = 0;

    for (const change of [...later, { at: now, to: null }]) {
        const x = 1000 * (at - from) / HOUR;
        const width = Math.max(1.5, 1000 * (change.at - at) / HOUR);
        const height = THICK[state] ?? 8;

        open += state === 'closed' ? 0 : change.at - at;
        svg.append(s('rect', { class: state, x, width, height,
            y: 8 - height / 2 }));
        state = change.to;
        at = change.at;
    }

    svg.setAttribute('aria-label', `Out for ${span(open)} of the last hour, ${
        plural(later.length, 'change')}, now ${p.state.replace('_', '-')}`);

    return svg;
}


/* what is not part of any route: observed servers, receivers of alerts */

function showOthers({ observed = [], alerts = [] }) {
    const state = { closed: 'good', open: 'out', half_open: 'half' };

    $('observed').hidden = !observed.length;
    $('alerts').hidden = !alerts.length;

    put($('servers'), observed, () => observed.map((o) =>
        h('tr', { role: 'row' },
            h('th', { role: 'rowheader', scope: 'row' }, name(o.server),
                h('small', {}, 'of ', name(o.upstream))),
            h('td', { role: 'cell' }, sign(state[o.state] ?? 'word'),
                o.state.replace('_', '-'),
                o.reason ? h('small', {}, reasonOf(o.reason)) : null,
                o.last_error
                    ? h('small', {}, `last error: ${o.last_error}`) : null),
            h('td', { role: 'cell' }, count(o.total_calls),
                h('small', {}, `${count(o.failed_calls)} failed`)),
            h('td', { role: 'cell' }, count(o.would_reject),
                o.would_reject_good ? h('small', {}, `${
                    count(o.would_reject_good)} of them were answered well`)
                    : null))));

    put($('receivers'), alerts, () => alerts.map((a) => h('li', {},
        sign(a.dropped ? 'out' : a.failures ? 'held' : 'good'), name(a.name),
        h('span', { class: 'quiet' }, ` ${plural(a.delivered, 'event')
        } delivered${a.dropped ? `, ${count(a.dropped)} given up` : ''}${
            a.failures ? `, ${plural(a.failures, 'failed try', 'failed tries')}`
                : ''}`))));
}


/* what is said to those who do not look */

let before = null;

function announce(all) {
    const news = [];

    for (const p of all) {
        const was = before?.get(p.name);

        if (before && was !== `${p.is.kind} ${p.is.word}`) {
            news.push(p.is.kind === 'good' ? `${p.name} ${
                was?.startsWith('ill') ? 'takes its key' : 'admits'} again.`
                : `${p.name} is ${p.is.word}${
                    p.is.why ? `: ${p.is.why}` : ''}.`);
        }
    }

    before = new Map(all.map((p) => [p.name, `${p.is.kind} ${p.is.word}`]));

    if (news.length) {
        $('news').textContent = news.length > 5
            ? `${news.length} providers have changed their state. ${
                $('verdict').textContent}` : news.join(' ');
    }
}


/* the whole page */

let skew = 0;
let shown = null;

const gatewayNow = () => performance.now() + skew;

function show(status, asked, answered) {
    identify(status.providers);
    identify(status.routes);

    skew = Date.parse(status.time) - (asked + answered) / 2;

    const now = gatewayNow();

    if (status.recent) {
        remember(status, answered);
    }

    const all = status.providers.map((p) => ({ ...p, is: judge(p, now),
        hour: recentOf(p, hour?.providers, TOTALS) }));
    const byName = new Map(all.map((p) => [p.name, p]));
    const routes = status.routes.map((r) => ({ ...r,
        hour: recentOf(r, hour?.routes, OUTCOMES),
        members: r.providers.map((text) => byName.get(text)).filter(Boolean),
    }));

    showVerdict(all, routes, status.zone.state?.error);
    showRoutes(routes);
    showProviders(all);
    showMoves(all, now);
    showOthers(status);
    announce(all);

    put($('about'), [status.zone, status.module, status.nginx], () =>
        `${status.module} on nginx ${status.nginx} · zone ${status.zone.name}, `
        + `${percent(status.zone.used, status.zone.size)} used`);
    put($('foot'), Intl.DateTimeFormat().resolvedOptions().timeZone, () =>
        `Times are in ${Intl.DateTimeFormat().resolvedOptions().timeZone}. `
        + 'Figures of calls and requests are of the last '
        + `${WINDOW} minutes, durations and costs since the start of nginx.`);

    $('main').setAttribute('aria-busy', 'false');
    shown = { status, all };
    tick();
}

function tick() {
    const now = gatewayNow();
    const say = (element, text) => {
        if (element.textContent !== text) {
            element.textContent = text;
        }
    };

    for (const element of document.querySelectorAll('[data-until]')) {
        say(element, countdown(element.dataset.until - now));
    }
    for (const element of document.querySelectorAll('[data-since]')) {
        const ms = Number(element.dataset.since);

        say(element, `${moment(ms, now)}, ${span(now - ms)} ago`);
    }

    const age = performance.now() - fresh;

    say($('fresh'), !shown ? '' : paused ? `Paused at ${
        clock.format(new Date(now - age))}`
        : age < 5000 ? 'Live' : `Updated ${span(age)} ago`);

    if (!paused && shown && age > LATE && !document.hidden) {
        stale('The gateway has not answered for a while.');
    }
    if (!$('stale').hidden) {
        say($('stale-age'), shown ? `What you see is ${span(age)} old. `
            + 'Trying again.' : 'Trying again.');
    }
}


/* asking */

let fresh = 0;
let paused = false;
let asking = null;
let timer = 0;

async function ask() {
    clearTimeout(timer);

    if (asking || paused || document.hidden) {
        return;
    }

    const asked = performance.now();
    const abort = new AbortController();
    const patience = setTimeout(() => abort.abort(), PATIENCE);

    asking = abort;

    try {
        const status = await load(!hour || asked > hour.over, abort.signal);

        if (abort === asking) {
            fresh = performance.now();
            show(status, asked, fresh);
            stale(null);
        }
    } catch (error) {
        stale(abort.signal.aborted ? 'The gateway does not answer in time.'
            : error instanceof Trouble ? error.message
                : 'The gateway cannot be reached.');
    } finally {
        clearTimeout(patience);
        asking = null;
    }

    timer = setTimeout(ask, Math.max(POLL,
        SHARE * Math.min(performance.now() - asked, 1000)));
}

class Trouble extends Error { }

async function load(recent, signal) {
    const response = await fetch(recent ? '?recent' : '?', {
        headers: { Accept: 'application/json' },
        cache: 'no-store',
        redirect: 'error',
        signal,
    });

    if (!response.ok) {
        throw new Trouble(`The gateway answers with status ${
            response.status}.`);
    }

    const text = await response.text();

    try {
        const status = JSON.parse(text);

        if (Array.isArray(status.providers) && Array.isArray(status.routes)) {
            return status;
        }
    } catch { /* told below */ }

    throw new Trouble('The gateway answers with something else than its '
        + 'status.');
}

function stale(why) {
    $('stale').hidden = !why;
    document.body.classList.toggle('is-stale', Boolean(why));

    if ($('stale-why').textContent !== (why ?? '')) {
        $('stale-why').textContent = why ?? '';
    }
    if (why) {
        tick();
    }
}


/* the keys to the signs, and what can be pressed */

const box = (kind) => s('svg', { viewBox: '0 0 10 10', 'aria-hidden': 'true' },
s('rect', { class: `bar-${kind}`, width: 10, height: 10 }));

put($('key'), 'key', () => [
    ['ok', 'answered, or under way'], ['bad', 'failed'], ['slow', 'throttled'],
    ['away', 'refused before it was sent'],
].map(([kind, text]) => h('span', {}, box(kind), text)));

$('pause').addEventListener('click', () => {
    paused = !paused;
    $('pause').setAttribute('aria-pressed', paused);
    stale(null);
    tick();
    ask();
});

$('filter').addEventListener('input', () => {
    if (shown) {
        showProviders(shown.all);
        tick();
    }
});

document.addEventListener('visibilitychange', ask);
window.addEventListener('online', ask);

setInterval(tick, 500);
ask();
