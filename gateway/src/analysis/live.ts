import { printAddress } from '../net/address.js';
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkConnection } from '../netlink/connection.js';
import { NetlinkError } from '../netlink/error.js';
import type { Connection } from '../policy/evaluate.js';
import type { GatewayInterfaces } from '../policy/fixed-chains.js';
import type { PolicyInForce } from '../policy/in-force.js';
import { lookUpRoute } from '../route/lookup.js';
import type { Explained } from './explain.js';
import { KernelTable } from './kernel-table.js';
import { MissingChainError, UnreadableProgramError, type Walked, walkKernel } from './kernel-walk.js';
import type { Explanation, KernelSays, Snat } from './output.js';
import { snatOf } from './snat.js';

/** Walks that a change of the program cut short are made again, so often. */
const WALKS_MAX = 5;

/** A walk in which the program did not change. Undefined where it changed each time. */
async function steadyWalk(table: KernelTable, connection: Connection): Promise<Walked | undefined> {
  for (let walks = 0; walks < WALKS_MAX; walks++) {
    const before = await table.generation();
    const walked = await walkKernel(table, connection).catch((error: Error) => error);
    if ((await table.generation()) !== before) continue;
    if (walked instanceof Error) throw walked;
    return walked;
  }
  return undefined;
}

/** Whether the kernel does what an explanation says: asked of its rules and maps, not of our memory of them. */
async function askKernel(
  connection: Connection,
  { verdict, rule }: Explanation,
  policy: PolicyInForce,
): Promise<KernelSays> {
  const netlink = new NetlinkConnection(NETLINK_NETFILTER);
  try {
    const walked = await steadyWalk(new KernelTable(netlink), connection);
    if (walked === undefined) return { state: 'unknown', why: 'the program changes all the time' };
    const decided = [...policy.rules, policy.byDefault].find(({ number }) => number === walked.rule);
    const isSame = walked.verdict === verdict && decided?.name === rule.name;
    if (isSame) return { state: 'same', verdict, rule: rule.name };
    const named = decided === undefined ? {} : { rule: decided.name };
    const why = decided === undefined ? 'no rule decides there' : 'another rule decides there';
    return { state: 'different', verdict: walked.verdict, ...named, why };
  } catch (error) {
    if (error instanceof MissingChainError) return { state: 'different', why: error.message };
    if (error instanceof UnreadableProgramError || error instanceof NetlinkError) {
      return { state: 'unknown', why: error.message };
    }
    throw error;
  } finally {
    netlink.close();
  }
}

/** Which address a permitted connection leaves with, by the routing table of this moment. */
async function askSnat({ src, dst }: Connection, interfaces: GatewayInterfaces): Promise<Snat | undefined> {
  const snat = snatOf(interfaces);
  if (snat === undefined) return undefined;
  const netlink = new NetlinkConnection(NETLINK_ROUTE);
  try {
    const { interfaceName: egress, preferred } = await lookUpRoute(netlink, dst);
    const { ip: to, ...configured } = snat;
    if (!snat.interfaces.includes(egress)) return { ...configured, egress, ip: printAddress(src) };
    const ip = to ?? (preferred && printAddress(preferred));
    return { ...configured, egress, ...(ip !== undefined && { ip }) };
  } catch (error) {
    if (error instanceof NetlinkError) return snat;
    throw error;
  } finally {
    netlink.close();
  }
}

async function explainLive(
  connection: Connection,
  explanation: Explanation,
  policy: PolicyInForce,
  interfaces: GatewayInterfaces,
): Promise<Explanation> {
  const snat = explanation.verdict === 'PERMIT' ? await askSnat(connection, interfaces) : undefined;
  const kernel = await askKernel(connection, explanation, policy);
  return { ...explanation, ...(snat !== undefined && { snat }), kernel };
}

/** Explanations that the kernel is asked about in one answer. */
const ASKED_MAX = 16;

/** Adds to explanations what only a live gateway can know. Cost: about a dozen netlink requests for each. */
export async function explainAllLive(
  explained: readonly Explained[],
  policy: PolicyInForce,
  interfaces: GatewayInterfaces,
): Promise<Explanation[]> {
  const answers: Explanation[] = [];
  for (const [index, { connection, explanation }] of explained.entries()) {
    answers.push(
      index < ASKED_MAX ? await explainLive(connection, explanation, policy, interfaces) : explanation,
    );
  }
  return answers;
}
