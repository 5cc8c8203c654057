import { printable, printableJson } from './text.js';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

type Scalar = string | number | bigint | boolean | undefined;

/** What is known about an event beside its message. An Error is written with the chain of its causes. */
export type LogFields = Readonly<Record<string, Scalar | Error | readonly Scalar[]>>;

/** The diagnostic log of a process; never the flow log. A call writes one line and doesn't throw. */
export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

export interface LogOptions {
  /** Lower levels are left out. */
  readonly level: LogLevel;
  /** True: short text for a person; false: one JSON object a line. */
  readonly terminal: boolean;
  readonly write: (line: string) => void;
  readonly now: () => Date;
}

/** `message: cause: cause's cause`; bounded, since a cause may be its own. */
function errorText(error: Error): string {
  const causesMax = 8;
  const messages: string[] = [];
  let next: unknown = error;
  while (next instanceof Error && messages.length < causesMax) {
    messages.push(next.message);
    next = next.cause;
  }
  return messages.join(': ');
}

/** Bigints become decimal strings, which JSON readers don't round. */
function jsonField(value: LogFields[string]): unknown {
  if (value instanceof Error) return errorText(value);
  if (typeof value === 'object') return value.map(jsonField);
  return typeof value === 'bigint' ? String(value) : value;
}

function jsonLine(time: Date, level: LogLevel, message: string, fields: LogFields): string {
  const own = { level, time: time.toISOString(), message };
  const plain = Object.entries(fields).map(([name, value]) => [name, jsonField(value)]);
  return printableJson({ ...own, ...Object.fromEntries(plain), ...own });
}

function fieldText(value: LogFields[string]): string {
  if (value instanceof Error) return JSON.stringify(errorText(value));
  if (typeof value === 'object') return value.map(fieldText).join(',');
  return typeof value === 'string' && !/^[^\s"=]+$/.test(value) ? JSON.stringify(value) : String(value);
}

function textLine(time: Date, level: LogLevel, message: string, fields: LogFields): string {
  const parts = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}=${fieldText(value)}`);
  return printable(`${time.toISOString().slice(11, 23)} ${level.padEnd(5)} ${message}${parts.join('')}`);
}

/** Standard error. That its reader went away is no reason to stop enforcing. */
function standardError(): LogOptions['write'] {
  process.stderr.on('error', () => undefined);
  return (line) => {
    process.stderr.write(line);
  };
}

/** A log to standard error unless told otherwise: JSON lines, or short text when that is a terminal. */
export function createLog(options: Partial<LogOptions> = {}): Log {
  const terminal = options.terminal ?? process.stderr.isTTY === true;
  const write = options.write ?? standardError();
  const now = options.now ?? (() => new Date());
  const least = LOG_LEVELS.indexOf(options.level ?? 'info');
  const line = terminal ? textLine : jsonLine;
  const at =
    (level: LogLevel) =>
    (message: string, fields: LogFields = {}) => {
      if (LOG_LEVELS.indexOf(level) >= least) write(`${line(now(), level, message, fields)}\n`);
    };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}
