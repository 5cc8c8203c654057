import { printableJson } from '../../text.js';
import type { Format } from '../format.js';
import { type EndsRecord, hasEnds, startOf } from './numbers.js';

/** Suricata's: microseconds, and the zone without a colon. */
const eveTime = (time: string) => time.replace(/Z$/, '000+0000');

const REASONS = { closed: 'tcp_done', timeout: 'timeout', revoked: 'forced', deleted: 'forced' } as const;

function common(record: EndsRecord, eventType: 'flow' | 'drop') {
  const { src, dst, icmp, protocol, communityId } = record;
  return {
    timestamp: eveTime(record.time),
    event_type: eventType,
    src_ip: src.ip,
    ...(src.port !== undefined && { src_port: src.port }),
    dest_ip: dst.ip,
    ...(dst.port !== undefined && { dest_port: dst.port }),
    proto: protocol === 'ICMP' && src.ip.includes(':') ? 'IPv6-ICMP' : String(protocol),
    ...(icmp !== undefined && { icmp_type: icmp.type, icmp_code: icmp.code }),
    ...(communityId !== undefined && { community_id: communityId }),
    host: record.gateway,
  };
}

function flow(record: EndsRecord) {
  const { packets, bytes, endReason, time } = record;
  const start = startOf(record);
  return {
    pkts_toserver: packets?.out ?? 0,
    pkts_toclient: packets?.in ?? 0,
    bytes_toserver: bytes?.out ?? 0,
    bytes_toclient: bytes?.in ?? 0,
    start: eveTime(start),
    end: eveTime(time),
    age: Math.max(0, Math.round((Date.parse(time) - Date.parse(start)) / 1_000)),
    state: (packets?.in ?? 0) > 0 ? (endReason === 'closed' ? 'closed' : 'established') : 'new',
    reason: endReason === undefined ? 'unknown' : REASONS[endReason],
    alerted: false,
    action: 'pass',
  };
}

/** What Suricata has no field for stands under `sluice`. */
function own({ rule, generation, src, dst, nat, enforced, verdict }: EndsRecord) {
  return {
    rule: rule?.name,
    generation,
    verdict,
    enforced,
    functions: src.functions,
    src: src.groups,
    dst: dst.groups,
    nat,
  };
}

/** Suricata's EVE: `flow` when a connection has ended, `drop` for what was refused. Nothing else has a form. */
export const eveFormat: Format = (record) => {
  if (!hasEnds(record)) return undefined;
  if (record.event === 'close')
    return printableJson({ ...common(record, 'flow'), flow: flow(record), sluice: own(record) });
  if ((record.event !== 'deny' && record.event !== 'revoke') || record.enforced !== true) return undefined;
  const drop = { reason: record.reason === 'rule' ? 'rules' : (record.reason ?? 'rules') };
  return printableJson({ ...common(record, 'drop'), drop, sluice: own(record) });
};
