import { setTimeout as sleep } from 'node:timers/promises';

export { sleep };

/* Polls until the function returns something true, and returns that. */

export async function waitFor(what, look, patience = 10000) {
    const end = Date.now() + patience;

    for (;;) {
        const seen = await look();
        if (seen) {
            return seen;
        }
        if (Date.now() > end) {
            throw new Error(`waited in vain: ${what}`);
        }
        await sleep(10);
    }
}

/* Fails where the promise takes longer. */

export async function within(ms, what, promise) {
    const timer = new AbortController();

    try {
        return await Promise.race([
            promise,
            sleep(ms, null, { signal: timer.signal }).then(() => {
                throw new Error(`not within ${ms} ms: ${what}`);
            }),
        ]);
    } finally {
        timer.abort();
    }
}
