import { type Families, pulled } from './family.js';

/** How long ago an account's region was last read in full. */
export interface InventoryAge {
  readonly account: string;
  readonly region: string;
  readonly ageSeconds: number;
}

export interface InventoryState {
  readonly account: string;
  readonly region: string;
  readonly isFailing: boolean;
}

export interface GroupSize {
  readonly group: string;
  readonly prefixes: number;
}

export function inventoryMetrics(families: Families) {
  return {
    /** Asked at scrape; of accounts and regions that fold into `other` the oldest counts. */
    inventoryAge: pulled(families, {
      name: 'sluice_inventory_age_seconds',
      help: 'Time since the functions and subnets of an account and region were last read in full',
      labels: ['account', 'region'],
      kind: 'gauge',
      merge: 'highest',
      of: ({ account, region, ageSeconds }: InventoryAge) => ({
        labels: { account, region },
        value: ageSeconds,
      }),
    }),
    /** Asked at scrape; of those that fold into `other`, whether one fails. */
    inventoryFailing: pulled(families, {
      name: 'sluice_inventory_failing',
      help: 'Whether an account and region could not be read the last time, so that what was known stays, 1 or 0',
      labels: ['account', 'region'],
      kind: 'gauge',
      merge: 'highest',
      of: ({ account, region, isFailing }: InventoryState) => ({
        labels: { account, region },
        value: Number(isFailing),
      }),
    }),
    /** Asked at scrape: the groups of the snapshot in force. */
    groupPrefixes: pulled(families, {
      name: 'sluice_group_prefixes',
      help: 'Prefixes of a group in the snapshot in force',
      labels: ['group'],
      kind: 'gauge',
      merge: 'sum',
      of: ({ group, prefixes }: GroupSize) => ({ labels: { group }, value: prefixes }),
    }),
  };
}
