import type { Format } from '../format.js';
import type { Appended, Output } from '../queue.js';
import { Datagrams } from './datagrams.js';
import { StreamConnection, type TlsParts } from './stream.js';

/** RFC 5424, 6.2.1. */
export const FACILITIES = {
  user: 1,
  daemon: 3,
  local0: 16,
  local1: 17,
  local2: 18,
  local3: 19,
  local4: 20,
  local5: 21,
  local6: 22,
  local7: 23,
} as const;
export type Facility = keyof typeof FACILITIES;
const SEVERITY = { informational: 6, warning: 4 } as const;

/** PRINTUSASCII, of which a header field consists. */
const headerField = (text: string, charactersMax: number) =>
  text.replaceAll(/[^\x21-\x7e]/g, '_').slice(0, charactersMax) || '-';

/** Puts RFC 5424's header before each line of a format. Loss and what was refused are warnings. */
export function syslogFormat(format: Format, facility: Facility): Format {
  return (record) => {
    const { gateway, time, event } = record;
    const text = format(record);
    if (text === undefined) return undefined;
    const isGood = event === 'open' || event === 'update' || event === 'close';
    const priority = FACILITIES[facility] * 8 + SEVERITY[isGood ? 'informational' : 'warning'];
    const header = `<${priority}>1 ${time} ${headerField(gateway, 255)} sluice ${process.pid} ${event} -`;
    return text
      .split('\n')
      .map((line) => `${header} ${line}`)
      .join('\n');
  };
}

/** RFC 5426: a message a datagram. One that is too long, and those of a connection that was lost, are lost. */
class UdpOutput implements Output {
  readonly #datagrams: Datagrams;

  constructor(host: string, port: number) {
    this.#datagrams = new Datagrams(host, port);
  }

  async append(items: readonly string[]): Promise<Appended> {
    for (const [written, item] of items.entries()) {
      const { error, refused } = await this.#datagrams.send(
        item.split('\n').map((line) => Buffer.from(line)),
      );
      if (error !== undefined) return { written, ...(refused !== undefined && { refused }), error };
    }
    return { written: items.length };
  }

  async close(): Promise<void> {
    this.#datagrams.close();
  }
}

/** RFC 6587, octet counting: `LENGTH SP MESSAGE`; over TLS that is RFC 5425. */
class StreamOutput implements Output {
  readonly #connection: StreamConnection;

  constructor(connection: StreamConnection) {
    this.#connection = connection;
  }

  append(items: readonly string[]): Promise<Appended> {
    const frames = items.flatMap((item) =>
      item.split('\n').map((line) => `${Buffer.byteLength(line)} ${line}`),
    );
    return this.#connection.write(Buffer.from(frames.join('')), items.length);
  }

  async close(): Promise<void> {
    this.#connection.close();
  }
}

export interface SyslogOptions {
  readonly host: string;
  readonly port: number;
  readonly protocol: 'udp' | 'tcp' | 'tls';
  readonly tls?: TlsParts;
}

export function syslogOutput({ host, port, protocol, tls = {} }: SyslogOptions): Output {
  if (protocol === 'udp') return new UdpOutput(host, port);
  return new StreamOutput(
    new StreamConnection(host, port, protocol === 'tls' ? { servername: host, ...tls } : undefined),
  );
}
