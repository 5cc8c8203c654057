import { aviatrixFormat } from './formats/aviatrix.js';
import { eveFormat } from './formats/eve.js';
import { ocsfFormat } from './formats/ocsf.js';
import { sluiceFormat } from './formats/sluice.js';
import { DEFAULT_FIELDS, type VpcField, vpcFormat } from './formats/vpc-flow-log.js';
import type { FlowRecord } from './record.js';

/**
 * A record as text, without a newline at its end; several lines where the format has a line for each direction.
 * Undefined where the format has no form for such a record.
 */
export type Format = (record: FlowRecord) => string | undefined;

export const FORMATS = ['sluice', 'vpc-flow-log', 'ocsf', 'aviatrix', 'eve'] as const;
export type FormatName = (typeof FORMATS)[number];

/** What formats need to know beside the record. */
export interface FormatOptions {
  /** Of `vpc-flow-log`: its fields in order; version 2's where undefined. */
  readonly fields?: readonly VpcField[] | undefined;
  /** The gateway's own address, which some formats name beside it. */
  readonly gatewayIp: string;
}

/** The format of a name. None of them lets control characters of names through. */
export function formatOf(name: FormatName, options: FormatOptions): Format {
  switch (name) {
    case 'sluice':
      return sluiceFormat;
    case 'vpc-flow-log':
      return vpcFormat(options.fields ?? DEFAULT_FIELDS);
    case 'ocsf':
      return ocsfFormat;
    case 'aviatrix':
      return aviatrixFormat(options.gatewayIp);
    case 'eve':
      return eveFormat;
    default:
      return name satisfies never;
  }
}
