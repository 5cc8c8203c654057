import { readFileSync } from 'node:fs';
import { type Message, readMessages } from '../netlink/reader.js';

/**
 * For tests: the messages of a `.hex` file, by name. `#` starts a comment, `name:` a message, whose bytes
 * follow.
 * `path` is relative to `src`.
 */
export function readFixture(path: string): ReadonlyMap<string, Uint8Array> {
  const text = readFileSync(new URL(`../../src/${path}`, import.meta.url), 'utf8');
  const hex = new Map<string, string>();
  let name = '';
  for (const line of text.split('\n').map((line) => line.trim())) {
    if (line === '' || line.startsWith('#')) continue;
    if (line.endsWith(':')) name = line.slice(0, -1);
    else hex.set(name, (hex.get(name) ?? '') + line);
  }
  return new Map([...hex].map(([name, digits]) => [name, Uint8Array.from(Buffer.from(digits, 'hex'))]));
}

/** The one message in some bytes. */
export function onlyMessage(bytes: Uint8Array): Message {
  const [message, ...more] = readMessages(bytes);
  if (message === undefined || more.length > 0) throw new Error(`Cannot read fixture: not one message`);
  return message;
}
