import { once } from 'node:events';
import { connect } from 'node:net';
import t from 'tap';
import { createMetrics } from './metrics.js';
import { parseListen, type Readiness, serveMetrics } from './server.js';

t.test('listen addresses', (t) => {
  t.same(parseListen('127.0.0.1:9464'), { address: { family: 4, value: 0x7f00_0001n }, port: 9464 });
  t.same(parseListen('[::1]:0'), { address: { family: 6, value: 1n }, port: 0 });
  const refused: readonly [string, RegExp][] = [
    ['::1', /"::1" has no port, write \[::1\]:9464, as/],
    ['127.0.0.1', /is not ADDRESS:PORT, as 127\.0\.0\.1:9464/],
    ['', /"" is not ADDRESS:PORT/],
    ['localhost:9464', /should start with an IPv4 address or an IPv6 address in brackets/],
    [':9464', /should start with/],
    ['[127.0.0.1]:9464', /should start with/],
    ['[::1%lo]:9464', /should start with/],
    ['127.0.0.1:65536', /should end in a port from 0 to 65535/],
    ['127.0.0.1:09464', /should end in a port/],
    ['127.0.0.1:', /should end in a port/],
    ['127.0.0.1:http', /should end in a port/],
    ['[::1]9464', /is not ADDRESS:PORT/],
  ];
  for (const [text, message] of refused)
    t.throws(() => parseListen(text), { name: 'SyntaxError', message }, text);
  t.end();
});

async function serve(readiness: () => Readiness, listen = '127.0.0.1:0') {
  const server = await serveMetrics(parseListen(listen), createMetrics(), readiness);
  t.teardown(() => server.close());
  const url = `http://${server.listen}`;
  return { server, get: (path: string, method = 'GET') => fetch(url + path, { method }) };
}

t.test('pages', async (t) => {
  let readiness: Readiness = { ready: false, reason: 'program of revision 8\n\u001b[31m is not applied' };
  const { get } = await serve(() => readiness);
  const metrics = await get('/metrics?x=1');
  t.equal(metrics.status, 200);
  t.match(metrics.headers.get('content-type'), /^text\/plain; version=0\.0\.4/);
  t.match(await metrics.text(), /^# TYPE sluice_decisions_total counter$/m);

  const health = await get('/healthz');
  t.equal(health.status, 200);
  t.match(await health.json(), { alive: true });
  const unready = await get('/readyz');
  t.equal(unready.status, 503);
  t.equal(
    await unready.text(),
    '{"ready":false,"reason":"program of revision 8\\n\\u001b[31m is not applied"}\n',
  );
  readiness = { ready: true, reason: 'revision 8 is in the kernel' };
  const ready = await get('/readyz');
  t.equal(ready.status, 200);
  t.same(await ready.json(), readiness);
  readiness = undefined as unknown as Readiness;
  const broken = await get('/readyz');
  t.equal(broken.status, 500, 'not ready when readiness cannot be told');
  await broken.text();
});

t.test('everything else', async (t) => {
  const { get } = await serve(() => ({ ready: true, reason: '' }), '[::1]:0');
  for (const path of ['/', '/metrics/', '/METRICS', '/readyz/../metrics2', '//metrics']) {
    const response = await get(path);
    t.equal(response.status, 404, path);
    t.match(await response.json(), { pages: ['/metrics', '/healthz', '/readyz'] });
  }
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
    const response = await get('/metrics', method);
    t.equal(response.status, 405, method);
    t.equal(response.headers.get('allow'), 'GET, HEAD');
    await response.text();
  }
  const head = await get('/readyz', 'HEAD');
  t.equal(head.status, 200);
  t.equal(await head.text(), '');
});

t.test('an address in use is an error that names it', async (t) => {
  const { server } = await serve(() => ({ ready: true, reason: '' }));
  await t.rejects(
    serve(() => ({ ready: true, reason: '' }), server.listen),
    {
      message: new RegExp(`listening on ${server.listen} failed, listen EADDRINUSE`),
      cause: { code: 'EADDRINUSE' },
    },
  );
});

t.test('close ends at once, whatever clients do', async (t) => {
  const { server } = await serve(() => ({ ready: true, reason: '' }));
  const socket = connect(Number(server.listen.split(':')[1]), '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write('GET /metrics HTTP/1.1\r\nHost: a\r\n');
  const closed = new Promise((resolve) => socket.on('close', resolve));
  await server.close();
  await closed;
  t.pass('the half-sent request was cut off');
});
