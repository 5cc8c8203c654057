import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import { ask } from '../ask.js';
import { config, json, type Options, socket, socketOf } from '../options.js';
import { say, show } from '../output.js';

const FOLLOW_MS = 300;

function endText(side: FlowRecord['src'] | FlowRecord['dst']): string {
  if (side === undefined) return '?';
  const address =
    side.port === undefined
      ? side.ip
      : side.ip.includes(':')
        ? `[${side.ip}]:${side.port}`
        : `${side.ip}:${side.port}`;
  const names = 'functions' in side && side.functions.length > 0 ? side.functions : side.groups;
  const short = names.map((name) => name.replace(/^arn:.*:function:/, ''));
  return short.length === 0 ? address : `${address} (${short.join(', ')})`;
}

function showFlow(record: FlowRecord): void {
  const verdict =
    record.verdict === undefined
      ? ''
      : ` ${record.verdict}${record.enforced === false ? ' (monitored)' : ''}`;
  const why = record.rule?.name ?? record.reason ?? '';
  const traffic = record.bytes === undefined ? '' : ` ${record.bytes.out} bytes out, ${record.bytes.in} in`;
  say(
    `${record.time} ${record.event.padEnd(6)}${verdict} ${record.protocol ?? ''} ${endText(record.src)} -> ${endText(record.dst)} by ${why}${traffic}`,
  );
}

/** Adds `sluice flows`. */
export function addFlows(program: Command): void {
  program
    .command('flows')
    .description('show the newest flow records')
    .option('--follow', 'go on until interrupted')
    .addOption(config())
    .addOption(socket())
    .addOption(json())
    .action(async ({ follow, ...options }: Options & { follow?: boolean }) => {
      let since = 0;
      do {
        const { records, next } = await ask<{ records: FlowRecord[]; next: number }>(
          socketOf(options),
          '/flows',
          {
            since: String(since),
          },
        );
        since = next;
        for (const record of records) show(options, record, showFlow);
        if (follow === true) await delay(FOLLOW_MS);
      } while (follow === true);
    });
}
