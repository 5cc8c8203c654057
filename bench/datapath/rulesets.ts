import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Prefix, parsePrefix, printPrefix } from 'sluice-gateway/net/prefix.js';
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Applier } from 'sluice-gateway/nft/apply.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import { encodeMark, GENERATION_MAX } from 'sluice-gateway/nft/mark.js';
import type { Program } from 'sluice-gateway/nft/program.js';
import { compilePolicy, programOf } from 'sluice-gateway/policy/compile.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import type { Policy } from 'sluice-gateway/policy/model.js';
import { Guard } from 'sluice-gateway/route/guard.js';
import { enableForwarding, enableTracking, honourMarks } from 'sluice-gateway/sysctl.js';
import type { Place } from 'sluice-test/support/namespace.js';
import type { PolicyData } from './policies.js';

const WORKER = fileURLToPath(new URL('worker.js', import.meta.url));
const interfaces = { lambda: ['lam0'], egress: ['wan0'], inputIcmp: false };
const GENERATION = 1;

/** `always`: the program is the same but for the generation that lets a connection pass unjudged, which none has. */
export type Judging = 'once' | 'always';

/** Policy as a file has it. */
export interface PolicyFile {
  readonly policy: Policy;
  readonly groups: readonly (readonly [name: string, prefixes: readonly string[]])[];
}

export function writePolicyFile(path: string, { policy, groups }: PolicyData): void {
  const printed = [...groups].map(([name, prefixes]) => [name, prefixes.map(printPrefix)] as const);
  writeFileSync(path, JSON.stringify({ policy, groups: printed } satisfies PolicyFile));
}

/** Has a gateway enforce the policy of a file as the product does: program, guard, sysctls. */
export function load(gateway: Place, policyFile: string, judging: Judging): void {
  gateway.run(process.execPath, [WORKER, policyFile, judging]);
}

/** The same program, with a generation in the set of those that count that no connection has. */
function neverJudged(program: Program): Program {
  const mark = BigInt(encodeMark({ generation: GENERATION_MAX, rule: 0 }));
  const elements = [{ first: mark, last: mark, data: undefined }];
  const maps = program.maps.map((map) => (map.data === 'none' ? { ...map, elements } : map));
  return { ...program, maps };
}

/** The part of `load` that runs in the gateway's namespace. */
export async function loadHere({ policy, groups }: PolicyFile, judging: Judging): Promise<void> {
  const compiled = compilePolicy({
    policy: policyInForce(policy, new Date()),
    groups: new Map(groups.map(([name, prefixes]): [string, Prefix[]] => [name, prefixes.map(parsePrefix)])),
    excluded: [],
    epoch: '',
  });
  const program = programOf(compiled, interfaces, GENERATION);
  const connections = [
    new NetlinkConnection(NETLINK_NETFILTER),
    new NetlinkConnection(NETLINK_ROUTE),
  ] as const;
  try {
    const names = [...interfaces.lambda, ...interfaces.egress];
    await new Guard(connections[1], names).ensure();
    await honourMarks(names);
    await enableTracking();
    await new Applier(new NftKernel(connections[0])).apply(
      judging === 'once' ? program : neverJudged(program),
    );
    await enableForwarding(names);
  } finally {
    for (const connection of connections) connection.close();
  }
}

/** The baseline: connections are tracked, and everything is accepted. */
export const CONNTRACK_RULES = `table inet conntrack {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state new,established,related accept
  }
}
`;

/** The same policy as somebody would write it by hand: a set a group, a rule for each pair of groups a rule names. */
export function linearRules({ policy, groups }: PolicyData): string {
  const names = [...groups.keys()];
  const setOf = (name: string) => `@g${names.indexOf(name)}`;
  const sets = [...groups.values()].map((prefixes, index) => {
    const elements = prefixes.filter(({ family }) => family === 4).map(printPrefix);
    const list = elements.length === 0 ? '' : `elements = { ${elements.join(', ')} }`;
    return `  set g${index} { type ipv4_addr; flags interval; auto-merge; ${list} }`;
  });
  const enforced = policy.rules.filter(({ enforcement }) => enforcement === 'ENFORCE');
  const rules = enforced.flatMap(({ src, dst, protocol, portRanges, action }) => {
    const verdict = action === 'PERMIT' ? 'accept' : 'drop';
    const numbers = protocol === 'ANY' ? '{ tcp, udp }' : protocol.toLowerCase();
    const ports = portRanges.map(({ lo, hi }) => `${lo}-${hi}`).join(', ');
    const isAll = protocol === 'ANY' && ports === '';
    const service = `${isAll ? '' : `meta l4proto ${numbers}`} ${ports === '' ? '' : `th dport { ${ports} }`}`;
    return src.flatMap((from) =>
      dst.map((to) => `    ip saddr ${setOf(from)} ip daddr ${setOf(to)} ${service} ${verdict}`),
    );
  });
  const chain = '  chain forward {\n    type filter hook forward priority 0; policy drop;';
  return `table inet linear {\n${sets.join('\n')}\n${chain}\n${rules.join('\n')}\n  }\n}\n`;
}
