import { hash } from 'node:crypto';
import { printable } from '../../text.js';
import type { Format } from '../format.js';
import { type EndsRecord, hasEnds, startOf } from './numbers.js';

/** local3.info. */
const PRIORITY = 158;
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
/** Not known to a layer 3 gateway, but parsers insist on one. */
const NO_MAC = '00:00:00:00:00:00';
/** 1 tcp-fin, 2 tcp-rst, 3 timeout. */
const END_REASONS = { closed: 1, revoked: 2, timeout: 3, deleted: 3 } as const;

/** A UUID made of a text, the same each time: the line names rules by UUID, and ours have names. */
function uuidOf(text: string): string {
  const hex = hash('sha256', text);
  const parts = [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, `a${hex.slice(17, 20)}`];
  return [...parts, hex.slice(20, 32)].join('-');
}

/** Syslog's time and the program's, both UTC. */
function times(time: string): { readonly syslog: string; readonly program: string } {
  const [date = '', clock = ''] = time.slice(0, 19).split('T');
  const [, month, day] = date.split('-');
  const syslog = `${MONTHS[Number(month) - 1]} ${String(Number(day)).padStart(2)} ${clock}`;
  return { syslog, program: `${date.replaceAll('-', '/')} ${clock}` };
}

function session(record: EndsRecord): string {
  const { event, packets, bytes, endReason, communityId = '', time } = record;
  const isEnd = event === 'close';
  const durationNs = BigInt(Math.max(0, Date.parse(time) - Date.parse(startOf(record)))) * 1_000_000n;
  return [
    ` SESSION_ID=${BigInt(`0x${hash('sha256', communityId).slice(0, 16)}`)}`,
    `SESSION_EVENT=${isEnd ? 1 : 0}`,
    `SESSION_END_REASON=${isEnd ? (endReason === undefined ? 3 : END_REASONS[endReason]) : 0}`,
    `SESSION_PKT_CNT=${packets === undefined ? 0 : packets.out + packets.in}`,
    `SESSION_BYTE_CNT=${bytes === undefined ? 0 : bytes.out + bytes.in}`,
    `SESSION_DUR=${isEnd ? durationNs : 0}`,
  ].join(' ');
}

/**
 * The line of an Aviatrix gateway 8.2, syslog header and all, which its connectors parse. MACs and packet sizes are not
 * known, the policy's UUID is made of the rule's name. Without form: update, loss, and protocols other than TCP, UDP, ICMP.
 */
export function aviatrixFormat(gatewayIp: string): Format {
  return (record) => {
    if (!hasEnds(record) || typeof record.protocol !== 'string') return undefined;
    if (record.event === 'update') return undefined;
    const { src, dst, protocol, verdict, enforced, event, rule, reason } = record;
    const { syslog, program } = times(record.time);
    const name = printable(record.gateway).replaceAll(/[^A-Za-z0-9.-]/g, '-');
    return [
      `<${PRIORITY}>${syslog} GW-${name}-${gatewayIp} /usr/local/bin/avx-gw-state-sync ${program}`,
      `AviatrixGwMicrosegPacket: POLICY=${uuidOf(rule?.name ?? reason ?? '')}`,
      `SRC_MAC=${NO_MAC} DST_MAC=${NO_MAC} IP_SZ=0 SRC_IP=${src.ip} DST_IP=${dst.ip} PROTO=${protocol}`,
      `SRC_PORT=${src.port ?? 0} DST_PORT=${dst.port ?? 0} DATA=0x ACT=${verdict === 'PERMIT' ? 'PERMIT' : 'DENY'}`,
      `ENFORCED=${enforced !== false}${event === 'open' || event === 'close' ? session(record) : ''}`,
    ].join(' ');
  };
}
