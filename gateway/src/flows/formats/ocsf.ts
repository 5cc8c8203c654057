import { printableJson } from '../../text.js';
import type { Format } from '../format.js';
import type { FlowRecord } from '../record.js';
import { type EndsRecord, hasEnds, protocolNumber } from './numbers.js';

/** schema.ocsf.io, class Network Activity. */
const CLASS_UID = 4001;
const ACTIVITY = {
  open: { id: 1, name: 'Open' },
  close: { id: 2, name: 'Close' },
  deny: { id: 5, name: 'Refuse' },
  revoke: { id: 5, name: 'Refuse' },
  update: { id: 6, name: 'Traffic' },
} as const;
const ALLOWED = { action_id: 1, action: 'Allowed', disposition_id: 1, disposition: 'Allowed' };
const DENIED = { action_id: 2, action: 'Denied', disposition_id: 2, disposition: 'Blocked' };
/** A MONITOR rule's: seen, and let go on. */
const OBSERVED = { action_id: 3, action: 'Observed', disposition_id: 17, disposition: 'Logged' };
const OUTBOUND = { direction_id: 2, direction: 'Outbound' };
const INFORMATIONAL = { severity_id: 1, severity: 'Informational' };

const decision = ({ enforced, verdict }: FlowRecord) =>
  enforced === false ? OBSERVED : verdict === 'PERMIT' ? ALLOWED : DENIED;

function traffic({ bytes, packets }: FlowRecord) {
  if (bytes === undefined || packets === undefined) return {};
  return {
    traffic: {
      bytes_out: bytes.out,
      bytes_in: bytes.in,
      bytes: bytes.out + bytes.in,
      packets_out: packets.out,
      packets_in: packets.in,
      packets: packets.out + packets.in,
    },
  };
}

function times({ start, end, time }: FlowRecord) {
  const startMs = start === undefined ? undefined : Date.parse(start);
  const endMs = end === undefined ? undefined : Date.parse(end);
  return {
    time: Date.parse(time),
    start_time: startMs,
    end_time: endMs,
    duration: startMs === undefined || endMs === undefined ? undefined : Math.max(0, endMs - startMs),
  };
}

function endpoints({ src, dst, nat }: EndsRecord) {
  const [uid] = src.functions;
  return {
    src_endpoint: {
      ip: src.ip,
      port: src.port,
      ...(uid !== undefined && { uid, type: 'Serverless' }),
      ...(nat !== undefined && { intermediate_ips: [nat.ip] }),
    },
    dst_endpoint: { ip: dst.ip, port: dst.port, hostname: dst.name },
  };
}

/** OCSF 1.3 Network Activity. Loss has no form. */
export const ocsfFormat: Format = (record) => {
  const { event, communityId, rule, src, generation, nat, suppressed } = record;
  if (event === 'loss' || !hasEnds(record)) return undefined;
  const { id, name } = ACTIVITY[event];
  return printableJson({
    category_uid: 4,
    category_name: 'Network Activity',
    class_uid: CLASS_UID,
    class_name: 'Network Activity',
    activity_id: id,
    activity_name: name,
    type_uid: CLASS_UID * 100 + id,
    type_name: `Network Activity: ${name}`,
    ...INFORMATIONAL,
    ...decision(record),
    ...times(record),
    metadata: {
      version: '1.3.0',
      product: { name: 'Sluice', vendor_name: 'Sluice' },
      profiles: ['cloud', 'security_control'],
      log_name: record.schema,
    },
    device: { type_id: 9, type: 'Firewall', name: record.gateway, hostname: record.gateway },
    cloud: { provider: 'AWS', region: src?.region, account: src?.account && { uid: src.account } },
    ...endpoints(record),
    connection_info: {
      ...OUTBOUND,
      protocol_num: protocolNumber(record),
      protocol_name: String(record.protocol).toLowerCase(),
      community_uid: communityId,
    },
    ...traffic(record),
    ...(rule !== undefined && { firewall_rule: { name: rule.name, uid: rule.name } }),
    ...(record.reason !== undefined && { status_detail: record.reason }),
    unmapped: {
      functions: record.src.functions,
      src_groups: record.src.groups,
      dst_groups: record.dst.groups,
      generation,
      nat,
      suppressed,
      end_reason: record.endReason,
    },
  });
};
