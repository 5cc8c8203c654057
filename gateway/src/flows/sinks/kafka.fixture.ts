import { connect } from 'node:net';
import type { Readable } from 'node:stream';
import { createServer, type TlsOptions } from 'node:tls';

/** `ApiKeys` of Kafka's protocol. */
const SASL_HANDSHAKE = 17;
const API_VERSIONS = 18;
const HOST = '127.0.0.1';

export const LOGIN = { username: 'sluice', password: 'open sesame' };

/** Messages as they are on the wire: their length in four bytes before them. */
function eachMessage(socket: Readable, take: (message: Buffer) => void): void {
  let rest = Buffer.alloc(0);
  socket.on('data', (part: Buffer) => {
    rest = Buffer.concat([rest, part]);
    while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
      const end = 4 + rest.readInt32BE(0);
      take(rest.subarray(0, end));
      rest = rest.subarray(end);
    }
  });
}

function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

function message(...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([int32(body.length), body]);
}

/** An answer to ApiVersions, correlation, error, count and three numbers of each, with SaslHandshake 0 among them. */
function withHandshake(answer: Buffer): Buffer {
  const handshake = [SASL_HANDSHAKE, 0, 0].map(int16);
  return message(
    answer.subarray(4, 10),
    int32(answer.readInt32BE(10) + 1),
    ...handshake,
    answer.subarray(14),
  );
}

const endpoint = (port: number) => Buffer.concat([Buffer.from(HOST), int32(port)]);

/**
 * For tests: TLS and the PLAIN mechanism before a broker on this machine that knows neither. Clients see it as the
 * broker of every partition.
 */
export function guardBroker(brokerPort: number, secure: TlsOptions) {
  const server = createServer(secure, (client) => {
    const broker = connect(brokerPort, HOST);
    for (const [one, other] of [
      [client, broker],
      [broker, client],
    ] as const)
      one.on('error', () => undefined).on('close', () => other.destroy());
    const asked = new Set<number>();
    let login: 'none' | 'awaited' | 'done' = 'none';
    eachMessage(client, (request) => {
      if (login === 'awaited') {
        if (request.subarray(4).toString() !== `\0${LOGIN.username}\0${LOGIN.password}`)
          return client.destroy();
        login = 'done';
        return client.write(message());
      }
      const [apiKey, correlation] = [request.readInt16BE(4), request.readInt32BE(8)];
      if (apiKey === SASL_HANDSHAKE) {
        login = 'awaited';
        return client.write(message(int32(correlation), int16(0), int32(1), int16(5), Buffer.from('PLAIN')));
      }
      if (apiKey === API_VERSIONS) asked.add(correlation);
      else if (login !== 'done') return client.destroy();
      return broker.write(request);
    });
    const { port } = server.address() as { port: number };
    eachMessage(broker, (answer) => {
      if (asked.delete(answer.readInt32BE(4))) return client.write(withHandshake(answer));
      const at = answer.indexOf(endpoint(brokerPort));
      if (at >= 0) endpoint(port).copy(answer, at);
      return client.write(answer);
    });
  });
  return server;
}
