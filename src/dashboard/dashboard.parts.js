/*
 * The dashboard's tools: numbers and times as text, elements, signs, charts.
 * What comes from the gateway becomes text and attributes of elements, never
 * markup.
 */

'use strict';

const WINDOW = 10;          /* minutes that the figures are about */
const HOUR = 3600000;

const $ = (id) => document.getElementById(id);


/* text */

const plain = new Intl.NumberFormat('en');
const short = new Intl.NumberFormat('en',
    { notation: 'compact', maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat('en-GB',
    { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const minutes = new Intl.DateTimeFormat('en-GB',
    { hour: '2-digit', minute: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });

const count = (n) => (n < 100000 ? plain : short).format(n);

const plural = (n, one, many = `${one}s`) =>
    `${count(n)} ${n === 1 ? one : many}`;

function percent(part, whole) {
    const p = whole ? 100 * part / whole : 0;

    return p > 0 && p < 0.1 ? '< 0.1\u00a0%'
        : p > 99.9 && p < 100 ? '> 99.9\u00a0%'
        : `${p < 10 && p > 0 ? p.toFixed(1) : p.toFixed(0)}\u00a0%`;
}

function money(usd) {
    return usd === 0 ? '$0' : usd < 0.0001 ? '< $0.0001'
        : usd < 1 ? `$${usd.toFixed(4)}`
        : usd < 100000 ? `$${usd.toLocaleString('en',
            { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`
        : `$${short.format(usd)}`;
}

/* how long a call took */

function took(s) {
    return s < 0.0995 ? `${Math.max(1, Math.round(s * 1000))}\u00a0ms`
        : s < 9.95 ? `${s.toFixed(s < 0.995 ? 2 : 1)}\u00a0s`
        : s < 100 ? `${s.toFixed(0)}\u00a0s` : span(s * 1000);
}

/* how long something lasts */

function span(ms) {
    const s = Math.max(0, Math.round(ms / 1000));

    return s < 60 ? `${s} s`
        : s < 3600 ? `${Math.floor(s / 60)} min`
        : s < 86400 ? `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`
        : `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

function countdown(ms) {
    const s = Math.max(0, Math.ceil(ms / 1000));
    const two = (n) => String(n).padStart(2, '0');

    return s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)}`
        : `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}`
            + `:${two(s % 60)}`;
}

function moment(ms, now) {
    const date = new Date(ms);

    return now - ms < 12 * HOUR ? clock.format(date)
        : `${day.format(date)}, ${clock.format(date)}`;
}


/* elements */

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
        if (value !== null && value !== undefined && value !== false) {
            element.setAttribute(name, value);
        }
    }
    element.append(...children.flat(Infinity)
        .filter((child) => child !== null && child !== undefined));

    return element;
}

const h = (name, attributes = {}, ...children) =>
    fill(document.createElement(name), attributes, children);

const s = (name, attributes = {}, ...children) =>
    fill(document.createElementNS(SVG, name), attributes, children);

/* Where a part of the page is made again only if it says something else. */

function put(element, key, make) {
    const text = JSON.stringify(key);

    if (element.said !== text) {
        element.said = text;
        element.replaceChildren(...[make()].flat(Infinity)
            .filter((child) => child !== null && child !== undefined));
    }
}

/* A list of parts, each known by its key, in this order. */

function list(parent, items, keyOf, make, update) {
    const known = parent.known ??= new Map();
    const gone = new Set(known.keys());

    items.forEach((item, i) => {
        const key = keyOf(item);
        let element = known.get(key);

        if (!element) {
            element = make(item);
            known.set(key, element);
        }
        gone.delete(key);
        if (parent.children[i] !== element) {
            parent.insertBefore(element, parent.children[i] ?? null);
        }
        update(element, item);
    });

    for (const key of gone) {
        known.get(key).remove();
        known.delete(key);
    }
}

const name = (text) => h('bdi', {}, text);

const SIGNS = {
    good: () => [
        s('circle', { cx: 8, cy: 8, r: 6.6, fill: 'none',
            stroke: 'currentColor', 'stroke-width': 1.6 }),
        s('path', { d: 'M4.8 8.2 7 10.4l4.2-4.6', fill: 'none',
            stroke: 'currentColor', 'stroke-width': 1.7 }),
    ],
    out: () => [
        s('path', { d: 'M5 .8h6L15.200 5v6L11 15.200H5L.8 11V5z',
            fill: 'currentColor' }),
        s('path', { d: 'm5.300 5.300 5.400 5.400m0-5.400-5.400 5.400',
            fill: 'none', stroke: 'Canvas', 'stroke-width': 1.9 }),
    ],
    half: () => [
        s('circle', { cx: 8, cy: 8, r: 6.6, fill: 'none',
            stroke: 'currentColor', 'stroke-width': 1.6 }),
        s('path', { d: 'M8 1.500a6.500 6.500 0 0 1 0 13z',
            fill: 'currentColor' }),
    ],
    held: () => [
        s('circle', { cx: 8, cy: 8, r: 6.6, fill: 'none',
            stroke: 'currentColor', 'stroke-width': 1.6 }),
        s('path', { d: 'M6.200 5v6M9.800 5v6', stroke: 'currentColor',
            'stroke-width': 1.8 }),
    ],
    word: () => [
        s('path', { d: 'M8 1 15.200 14.300H.8z', fill: 'none',
            stroke: 'currentColor', 'stroke-width': 1.5,
            'stroke-linejoin': 'round' }),
        s('path', { d: 'M8 6v4m0 1v1.500', stroke: 'currentColor',
            'stroke-width': 1.6 }),
    ],
};

SIGNS.ill = SIGNS.word;

const sign = (kind) => s('svg',
    { class: `sign ${kind}`, viewBox: '0 0 16 16', 'aria-hidden': 'true' },
    SIGNS[kind]());

/* what ticks; ms of the gateway's clock */

const left = (until) => h('span', { 'data-until': until });

const since = (ms) => h('time', {
    datetime: new Date(ms).toISOString(),
    title: new Date(ms).toISOString(),
    'data-since': ms,
});


/* charts */

/*
 * Bars of an hour, a minute each: what was good, and on top of each other
 * the others, [class, values].
 */

function bars(label, whole, parts, above) {
    const n = 61;
    const max = Math.max(1, ...whole.map((v, i) =>
        (v ?? 0) + (above?.[1][i] ?? 0)));
    const y = (v) => 30 * v / max;
    const svg = s('svg', { class: 'chart', viewBox: `0 0 ${n * 4} 30`,
        preserveAspectRatio: 'none', role: 'img', 'aria-label': label });

    svg.append(s('path', { class: 'base', d: `M0 30H${n * 4}` }));

    whole.forEach((value, i) => {
        let top = 30;
        const box = (kind, v) => {
            if (v > 0) {
                const height = Math.max(y(v), 0.8);

                top -= height;
                svg.append(s('rect', { class: `bar-${kind}`, x: i * 4, y: top,
                    width: 3.2, height }));
            }
        };
        let rest = value ?? 0;

        for (const [kind, values] of parts) {
            const v = Math.min(rest, values[i] ?? 0);

            rest -= v;
            box(kind, v);
        }
        box('ok', rest);
        if (above) {
            box(above[0], above[1][i] ?? 0);
        }
    });

    return svg;
}

function curve(label, values) {
    const max = Math.max(...values.map((v) => v ?? 0));

    if (!max) {
        return null;
    }

    let d = '';
    let drawn = false;

    values.forEach((v, i) => {
        if (v === null) {
            drawn = false;
            return;
        }
        const y = (19 - 18 * v / max).toFixed(2);

        /* a single minute is a dash */

        d += drawn ? `L${i * 4 + 2} ${y}` : `M${i * 4} ${y}H${i * 4 + 2}`;
        drawn = true;
    });

    return s('svg', { class: 'chart line', role: 'img', 'aria-label': label,
        viewBox: '0 0 244 20', preserveAspectRatio: 'none' },
    s('path', { class: 'mean', d }));
}

const scale = (max) => h('div', { class: 'scale', 'aria-hidden': 'true' },
    h('span', {}, '− 60 min'), h('span', {}, `peak ${count(max)}/min`));

const peak = (...lists) => Math.max(0, ...(lists[0] ?? []).map((_, i) =>
    lists.reduce((a, values) => a + (values[i] ?? 0), 0)));
