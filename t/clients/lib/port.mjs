import net from 'node:net';

/*
 * A free loopback port below those that the kernel gives to outgoing
 * connections, so that it stays free while nobody listens on it.
 */

const FIRST = 10240;
const LAST = 32000;

export async function freePort() {
    for (;;) {
        const port = FIRST + Math.floor(Math.random() * (LAST - FIRST));
        if (await isFree(port)) {
            return port;
        }
    }
}

function isFree(port) {
    return new Promise((resolve) => {
        const server = net.createServer();

        server.once('error', () => resolve(false));
        server.listen(port, '127.0.0.1', () => {
            server.close(() => resolve(true));
        });
    });
}
