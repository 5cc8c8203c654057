import { printableJson } from '../../text.js';
import type { Format } from '../format.js';
import type { FlowRecord } from '../record.js';
import type { HttpBody } from './http.js';

/** `SeverityNumber` of opentelemetry/proto/logs/v1/logs.proto. */
const INFO = { severityNumber: 9, severityText: 'INFO' };
const WARN = { severityNumber: 13, severityText: 'WARN' };

type AnyValue =
  | { readonly stringValue: string }
  | { readonly boolValue: boolean }
  | { readonly intValue: string }
  | { readonly arrayValue: { readonly values: readonly AnyValue[] } }
  | { readonly kvlistValue: { readonly values: readonly KeyValue[] } };

interface KeyValue {
  readonly key: string;
  readonly value: AnyValue;
}

/** JSON of a record, whose numbers are whole, as OTLP's `AnyValue`. */
function anyValue(value: unknown): AnyValue {
  if (typeof value === 'boolean') return { boolValue: value };
  if (typeof value === 'number') return { intValue: String(value) };
  if (Array.isArray(value)) return { arrayValue: { values: value.map(anyValue) } };
  if (typeof value === 'object' && value !== null) return { kvlistValue: { values: keyValues(value) } };
  return { stringValue: String(value) };
}

function keyValues(object: object): KeyValue[] {
  return Object.entries(object).flatMap(([key, value]) =>
    value === undefined ? [] : [{ key, value: anyValue(value) }],
  );
}

/** What has a name in OpenTelemetry's semantic conventions, or is searched for. */
function attributes({ src, dst, protocol, rule, verdict, event }: FlowRecord): KeyValue[] {
  return keyValues({
    'event.name': `sluice.flow.${event}`,
    'source.address': src?.ip,
    'source.port': src?.port,
    'destination.address': dst?.ip,
    'destination.port': dst?.port,
    'network.transport': protocol === undefined ? undefined : String(protocol).toLowerCase(),
    'faas.instance': src?.functions[0],
    'sluice.rule': rule?.name,
    'sluice.verdict': verdict,
  });
}

/** A `LogRecord`: the whole record as its body. */
export const otlpFormat: Format = (record) => {
  const { event, verdict, time } = record;
  const timeUnixNano = String(BigInt(Date.parse(time)) * 1_000_000n);
  const severity = event === 'loss' || (verdict !== undefined && verdict !== 'PERMIT') ? WARN : INFO;
  return printableJson({
    timeUnixNano,
    observedTimeUnixNano: timeUnixNano,
    ...severity,
    body: anyValue(record),
    attributes: attributes(record),
  });
};

/** `ExportLogsServiceRequest`, and what its answer says was rejected. */
export function otlpBody(gateway: string): HttpBody {
  const resource = JSON.stringify({
    attributes: keyValues({ 'service.name': 'sluice', 'service.instance.id': gateway, 'host.name': gateway }),
  });
  const head = `{"resourceLogs":[{"resource":${resource},"scopeLogs":[{"scope":{"name":"sluice.flow"},"logRecords":[`;
  return {
    contentType: 'application/json',
    of: (items) => `${head}${items.join(',')}]}]}]}`,
    refused: (answer) => {
      try {
        const { partialSuccess } = JSON.parse(answer) as {
          partialSuccess?: { rejectedLogRecords?: string | number };
        };
        const rejected = Number(partialSuccess?.rejectedLogRecords ?? 0);
        return Number.isInteger(rejected) ? Math.max(0, rejected) : 0;
      } catch {
        return 0;
      }
    },
  };
}
