import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { freePort } from './port.mjs';
import { waitFor, within } from './wait.mjs';

const MODULE = process.env.LLM_MODULE || fileURLToPath(
    new URL('../../../build/ngx_http_llm_module.so', import.meta.url));
const NGINX = process.env.LLM_NGINX || '/usr/sbin/nginx';

const TEMP = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];

/* What must never be in an error log. */

const TROUBLE = /\[(?:alert|crit|emerg)\]|exited on signal/;

/* An nginx with the module in a directory of its own. */

export class Nginx {
    static async start(http, env = {}) {
        const nginx = new Nginx();

        nginx.prefix = fs.mkdtempSync(path.join(os.tmpdir(), 'llm-clients-'));
        fs.chmodSync(nginx.prefix, 0o755);
        nginx.env = env;

        try {
            await nginx.startSomewhere(http);
        } catch (error) {
            nginx.remove();
            throw error;
        }

        return nginx;
    }

    /* Somebody else may take the port before nginx does. */

    async startSomewhere(http) {
        for (let tries = 3; ; tries--) {
            this.port = await freePort();
            fs.rmSync(this.file('error.log'), { force: true });
            fs.writeFileSync(this.file('nginx.conf'), this.conf(http));

            if (await this.spawn()) {
                return;
            }
            if (!tries || !/Address already in use/.test(this.errorLog)) {
                throw new Error(`nginx did not start:\n${this.errorLog}`);
            }
        }
    }

    async spawn() {
        const args = ['-p', this.prefix, '-c', this.file('nginx.conf'),
            '-e', this.file('error.log')];

        this.child = spawn(NGINX, args, {
            stdio: ['ignore', 'ignore', 'inherit'],
            env: { PATH: process.env.PATH, ...this.env },
        });
        this.exited = new Promise((resolve) => {
            this.child.once('error', (error) => resolve(error.message));
            this.child.once('exit', (code, signal) => resolve(signal ?? code));
        });
        this.lastResort = () => this.child.kill('SIGTERM');
        process.once('exit', this.lastResort);

        let over = false;
        this.exited.then(() => {
            over = true;
            process.removeListener('exit', this.lastResort);
        });

        /* it listens before it writes this file */

        await waitFor('for nginx to start', () => over
            || (fs.existsSync(this.file('nginx.pid'))
                && fs.readFileSync(this.file('nginx.pid'), 'utf8').trim()));

        return !over;
    }

    conf(http) {
        return [
            `load_module ${MODULE};`,
            ...process.getuid() === 0 ? ['user root;'] : [],
            'daemon off;',
            'worker_processes 2;',
            `pid ${this.file('nginx.pid')};`,
            `error_log ${this.file('error.log')} info;`,
            'events { }',
            'http {',
            `access_log ${this.file('access.log')};`,
            // browsers open connections in advance, and quit waits for them
            'client_header_timeout 2s;',
            ...TEMP.map((name) =>
                `${name}_temp_path ${this.file(`${name}_temp`)};`),
            http.replaceAll('{{port}}', this.port)
                .replaceAll('{{prefix}}', this.prefix),
            '}',
            '',
        ].join('\n');
    }

    get url() {
        return `http://127.0.0.1:${this.port}`;
    }

    file(name) {
        return path.join(this.prefix, name);
    }

    get errorLog() {
        return this.read('error.log');
    }

    get accessLog() {
        return this.read('access.log');
    }

    read(name) {
        try {
            return fs.readFileSync(this.file(name), 'utf8');
        } catch {
            return '';
        }
    }

    /* Ends it, and returns what is to be complained about. */

    async end(secrets = []) {
        const troubles = [];

        try {
            this.child.kill('SIGQUIT');
            const code = await within(5000, 'nginx ends', this.exited);
            if (code !== 0) {
                troubles.push(`nginx ended with ${code}`);
            }
        } catch (error) {
            troubles.push(error.message);
            this.child.kill('SIGTERM');
            await this.exited;
        }

        const { errorLog, accessLog } = this;

        troubles.push(
            ...errorLog.split('\n').filter((line) => TROUBLE.test(line)),
            ...secrets.filter((s) => (errorLog + accessLog).includes(s))
                .map((s) => `"${s}" is in a log`));
        this.remove();

        return troubles;
    }

    remove() {
        fs.rmSync(this.prefix, { recursive: true, force: true });
    }
}
