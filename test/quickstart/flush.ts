import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Batch } from 'sluice-gateway/nft/batch.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';

/** What `nft flush ruleset` would do to our table, for machines without nft. */
const connection = new NetlinkConnection(NETLINK_NETFILTER);
await new NftKernel(connection).commit(new Batch().deleteTable());
connection.close();
