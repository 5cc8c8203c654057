import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { sendDatagram } from 'nftables-napi';
import t, { type Test } from 'tap';
import { createLog } from './log.js';
import { BUSY_MS_MAX, type Health, ServiceManager } from './service-manager.js';

/** Prints each datagram as a line of JSON; Node.js has no such sockets. */
const LISTENER = `
import json, socket, sys
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind(sys.argv[1].replace("@", "\\0", 1))
print(json.dumps("bound"), flush=True)
while True:
    print(json.dumps(listener.recv(65536).decode()), flush=True)
`;

async function listen(t: Test, path: string): Promise<{ next(): Promise<string>; child: ChildProcess }> {
  const child = spawn('python3', ['-c', LISTENER, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const next = async () => JSON.parse((await lines.next()).value as string) as string;
  t.equal(await next(), 'bound');
  return { next, child };
}

function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'sluice-notify-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

for (const kind of ['a path', 'an abstract name']) {
  t.test(`systemd is told by ${kind}`, async (t) => {
    const path = kind === 'a path' ? join(folder(t), 'notify') : `@sluice-test-${process.pid}`;
    const { next } = await listen(t, path);
    const env = { NOTIFY_SOCKET: path, WATCHDOG_USEC: '60000', WATCHDOG_PID: String(process.pid) };
    const lines: string[] = [];
    const log = createLog({ terminal: true, write: (line) => lines.push(line) });
    let health: Health = { status: 'no snapshot is in force', busyMs: 0 };
    const manager = new ServiceManager(() => health, log, env);
    t.same(env, {}, 'no child is told of the socket');
    t.teardown(() => manager.stopping());
    manager.ready();
    t.equal(await next(), 'READY=1');
    t.equal(await next(), 'STATUS=no snapshot is in force');
    t.equal(await next(), 'WATCHDOG=1');
    t.equal(await next(), 'WATCHDOG=1', 'again, by itself');
    health = { status: 'revision 2 is in the kernel', busyMs: BUSY_MS_MAX };
    let said = await next();
    while (said === 'WATCHDOG=1') said = await next();
    t.equal(said, 'STATUS=revision 2 is in the kernel', 'what changes is told');
    t.equal(await next(), 'WATCHDOG=1', 'an application may take its time');
    manager.reloading();
    said = await next();
    while (said === 'WATCHDOG=1') said = await next();
    t.match(said, /^RELOADING=1\nMONOTONIC_USEC=[0-9]+$/);
    health = { ...health, busyMs: BUSY_MS_MAX + 1 };
    manager.ready();
    t.equal(await next(), 'READY=1');
    while (!lines.some((line) => line.includes('an application does not end'))) await delay(10);
    manager.stopping();
    t.match(await next(), /^STOPPING=1\nSTATUS=/, 'no ping while the reconciler is stuck');
  });
}

t.test('nobody to tell is no reason to stop', async (t) => {
  const lines: string[] = [];
  const log = createLog({ terminal: true, level: 'debug', write: (line) => lines.push(line) });
  const health = { status: 'fine', busyMs: 0 };
  const none = new ServiceManager(() => health, log, {});
  none.ready();
  none.stopping();
  t.same(lines, [], 'systemd did not start it');
  const gone = new ServiceManager(() => health, log, { NOTIFY_SOCKET: join(folder(t), 'gone') });
  gone.ready();
  gone.stopping();
  t.match(lines[0], /Cannot send datagram: the UNIX socket says ENOENT/);
});

t.test('a watchdog of another process is not ours to ping', async (t) => {
  const path = join(folder(t), 'notify');
  const { next } = await listen(t, path);
  const env = { NOTIFY_SOCKET: path, WATCHDOG_USEC: '3000', WATCHDOG_PID: '1' };
  const manager = new ServiceManager(() => ({ status: 'fine', busyMs: 0 }), createLog(), env);
  manager.ready();
  await delay(50);
  manager.stopping();
  const said = [await next(), await next(), await next()];
  t.same(said.slice(0, 2), ['READY=1', 'STATUS=fine']);
  t.match(said[2], /^STOPPING=1/);
});

t.test('what is too long is refused by name', async (t) => {
  t.throws(() => sendDatagram('x'.repeat(108), ''), { message: /length of path is 108/ });
  t.throws(() => sendDatagram('/run/x', 'ä'.repeat(2_048)), { message: /length of text is 4096/ });
});
