import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';

/** Echo servers: `serve.js tcp|ADDRESS|PORT udp|ADDRESS|PORT …`. Prints "ready" when all of them listen. */
for (const argument of process.argv.slice(2)) {
  const [protocol, host, port] = argument.split('|') as [string, string, string];
  if (protocol === 'tcp') {
    const server = createServer((socket) => {
      socket.on('error', () => socket.destroy());
      socket.pipe(socket);
    });
    server.listen(Number(port), host);
    await once(server, 'listening');
  } else {
    const server = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    server.on('message', (message, from) => server.send(message, from.port, from.address));
    server.bind(Number(port), host);
    await once(server, 'listening');
  }
}
process.stdout.write('ready\n');
