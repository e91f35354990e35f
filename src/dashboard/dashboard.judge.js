/*
 * What the gateway says, and what that means: how a provider fares, why, since
 * when and until when, and what the last hour was like.
 */

'use strict';


/* what a provider's figures mean */

const REASONS = {
    failure_threshold: 'too many failures in a row',
    failure_rate: 'too large a share of failures',
    credential: 'it refuses its key, or there is no money',
    probe_failed: 'a probe failed',
    open_elapsed: 'its time was over',
    probe_succeeded: 'an active probe was answered',
    recovered: 'probes were answered',
    operator: 'an operator’s word',
    ttl: 'the time of an operator’s word was over',
    reset: 'an operator closed it',
    off: 'the configuration switched it off',
};

const WORDS = {
    open: 'taken out by an operator',
    disabled: 'circuit disabled by an operator: everybody is let through',
    observe: 'observed only, by an operator: everybody is let through',
};

const REJECTIONS = {
    all_circuits_open: 'no circuit admits',
    rate_limit_exceeded: 'at its limits',
    model_not_found: 'unknown model',
    invalid_request_error: 'bad request',
};

const reasonOf = (reason) => REASONS[reason]
    ?? String(reason ?? 'unknown').replaceAll('_', ' ');

/* in which order they are shown */

const RANK = { out: 0, half: 1, ill: 2, held: 3, word: 4, good: 5 };

/*
 * How a provider fares, from what the status says of it: a kind, a word for
 * it, and whether callers are sent to it.
 */

function judge(p, now) {
    const full = Object.values(p.limits ?? {})
        .some((limit) => limit.used >= limit.limit);
    const changes = p.state_changes ?? [];

    if (p.admin === 'open') {
        return { kind: 'out', admits: false, word: 'taken out',
            why: WORDS.open, ...since_(lastChange(changes, 'operator')),
            ...p.admin_ttl ? { until: now + p.admin_ttl * 1000,
                then: 'word ends' } : { never: 'until it is taken back' } };
    }

    if (p.resolved === false) {
        return { kind: 'out', admits: false, word: 'no address',
            brief: 'its name has no address',
            why: `its name has no address${
                p.dns?.error ? `: ${p.dns.error}` : ''}`,
            never: 'until DNS knows it' };
    }

    if (p.admin === 'disabled' || p.admin === 'observe') {
        return { kind: 'word', admits: true,
            word: p.admin === 'observe' ? `observed, ${p.state}`
                .replace('_', '-') : 'circuit disabled',
            why: WORDS[p.admin],
            ...p.admin_ttl ? { until: now + p.admin_ttl * 1000,
                then: 'word ends' } : {} };
    }

    if (p.state === 'open') {
        return { kind: 'out', admits: false, word: 'out',
            why: reasonOf(cause(p)), ...since_(outage(changes)),
            ...p.time_until_retry > 0
                ? { until: now + p.time_until_retry * 1000, then: 'next probe' }
                : { never: 'probed with the next request' } };
    }

    if (p.state === 'half_open') {
        return { kind: 'half', admits: false, word: 'being probed',
            why: reasonOf(cause(p)), ...since_(outage(changes)) };
    }

    if (p.throttled_for > 0) {
        return { kind: 'held', admits: false, word: 'throttled',
            why: 'it asked to be left alone',
            until: now + p.throttled_for * 1000, then: 'goes on' };
    }

    if (p.probe?.result === 'credential') {
        return { kind: 'ill', admits: !full, word: 'refusing its key',
            why: full ? 'its limit is used up, too'
                : 'callers are sent to it all the same' };
    }

    return full
        ? { kind: 'held', admits: false, word: 'at its limit',
            why: 'its limit is used up' }
        : { kind: 'good', admits: true, word: 'closed' };
}

const since_ = (change) =>
    change ? { since: Date.parse(change.time), status: change.status } : {};

const lastChange = (changes, reason) =>
    changes.findLast((change) => change.reason === reason);

/* the change that an outage began with, however often it was probed since */

function outage(changes) {
    let first;

    for (const change of changes.toReversed?.() ?? [...changes].reverse()) {
        if (change.from !== change.to) {
            if (change.to === 'closed') {
                break;
            }
            first = change;
        }
    }

    return first;
}

function cause(p) {
    return outage(p.state_changes ?? [])?.reason ?? p.reason;
}


/* the last probe, in words */

function probe({ probe: last }) {
    const why = last.error ?? (last.status ? `status ${last.status}` : null);
    const [text, kind] = {
        success: [`probe answered in ${took(last.latency ?? 0)}`],
        failure: ['probe failed', 'half'],
        credential: ['probe found its key refused', 'out'],
        throttle: ['probe was asked to wait', 'half'],
    }[last.result] ?? ['no probe yet'];

    return [
        h('span', { class: kind }, text,
            why && kind ? ` (${why})` : null),
        last.time ? [', ', since(Date.parse(last.time))] : null,
    ];
}

function goodProbes({ success_rate: share }) {
    const parts = [['hour', share.hour], ['day', share.day]]
        .filter(([, value]) => value !== null)
        .map(([of, value]) => `${percent(value, 1)} of the ${of}`);

    return `good probes: ${parts.join(', ')}`;
}

/* what is wrong with addresses that are there */

function addresses(p) {
    const all = plural(p.addresses, 'address', 'addresses');

    return [
        p.resolved && p.dns?.error
            ? `DNS: ${p.dns.error}, goes on with ${all}` : null,
        p.passed_over ? `${count(p.passed_over)} of ${all} passed over` : null,
    ].filter(Boolean);
}


/* the last hour: what the gateway kept, and what has come since */

let hour = null;

const TOTALS = {
    calls: (p) => p.total_calls,
    failed: (p) => p.failed_calls,
    throttled: (p) => p.throttled_calls,
    rejected: (p) => p.rejected_calls,
};

const OUTCOMES = {
    requests: (r) => Object.values(r.outcomes).reduce((a, b) => a + b, 0),
    failover: (r) => r.outcomes.failover,
    rejected: (r) => r.outcomes.rejected,
    broken: (r) => r.outcomes.truncated + r.outcomes.error,
};

function remember(status, asked) {
    hour = {
        over: asked + (status.recent.interval - status.recent.age) * 1000 + 300,
        providers: new Map(status.providers.map((p) => [p.id, p])),
        routes: new Map(status.routes.map((r) => [r.id, r])),
    };
}

/* Two names may look the same where they are not UTF-8. */

function identify(items) {
    const seen = new Map();

    for (const item of items) {
        const n = seen.get(item.name) ?? 0;

        seen.set(item.name, n + 1);
        item.id = `${n} ${item.name}`;
    }
}

function recentOf(item, known, totals) {
    const then = known?.get(item.id);
    const recent = {};

    for (const [key, total] of Object.entries(totals)) {
        const values = [...then?.recent?.[key] ?? []];

        if (values.length) {
            values.push((values.pop() ?? 0)
                + Math.max(0, total(item) - total(then)));
        }
        recent[key] = values;
    }
    recent.duration = then?.recent?.duration ?? [];

    return recent;
}

const sum = (values, n) => values.slice(-n).reduce((a, b) => a + (b ?? 0), 0);
