import { addressToBytes } from '../net/address.js';
import type { Attributes } from '../netlink/reader.js';
import * as key from '../nft/constants.js';
import {
  CMP_EQ,
  CMP_GTE,
  CMP_LTE,
  CMP_NEQ,
  hostU32,
  NFPROTO_OF_FAMILY,
  networkU16,
  PAYLOAD_TRANSPORT_HEADER,
  REG_VERDICT,
  TCP_FLAGS_OFFSET,
  TCP_SYN,
} from '../nft/expressions.js';
import { ACTION_MASK, KIND, KIND_MASK, RULE_MASK } from '../nft/mark.js';
import { CT_STATE } from '../nft/statement.js';
import type { Connection } from '../policy/evaluate.js';
import {
  type Expression,
  type KernelData,
  type KernelTable,
  type KernelVerdict,
  kernelData,
} from './kernel-table.js';

/** What the kernel's program does with the first packet of a connection. */
export interface Walked {
  readonly verdict: 'PERMIT' | 'DENY' | 'REJECT';
  /** The number of the rule that decided; undefined where the packet fell through the program. */
  readonly rule: number | undefined;
}

/** The kernel holds something that no program of ours has: what it does with a packet can't be told. */
export class UnreadableProgramError extends Error {
  override readonly name = 'UnreadableProgramError';
}

/** A chain of ours is empty, or gone with all the rest. */
export class MissingChainError extends Error {
  override readonly name = 'MissingChainError';
}

const unreadable = (what: string) => new UnreadableProgramError(`Cannot read the kernel's program: ${what}`);

type Step = 'next' | 'break' | 'return' | 'accept' | 'drop' | 'reject';

/** Verdict codes of the kernel: `NF_DROP`, `NF_ACCEPT`, `NFT_CONTINUE`, `NFT_JUMP`, `NFT_GOTO`, `NFT_RETURN`. */
const [DROP, ACCEPT, CONTINUE, JUMP, GOTO, RETURN] = [0, 1, -1, -3, -4, -5];

const CHAINS_DEPTH_MAX = 16;
const INTERFACE_NAME_BYTES = 16;

/** Of a register of equal length, as `memcmp`. */
function compares(operation: number | undefined, register: Uint8Array, value: Uint8Array): boolean {
  const order = Buffer.compare(register.subarray(0, value.length), value);
  switch (operation) {
    case CMP_EQ:
      return order === 0;
    case CMP_NEQ:
      return order !== 0;
    case CMP_LTE:
      return order <= 0;
    case CMP_GTE:
      return order >= 0;
    default:
      throw unreadable(`a comparison of kind ${operation}`);
  }
}

const numberOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);

/**
 * Goes through the chains that the kernel lists for us, expression by expression, as the first packet of a new
 * connection would: a bare SYN, from an interface that leads back to its source, within every rate limit. Single
 * elements are looked up in the kernel's own maps. Cost: a request for each chain and each lookup on the way, a dozen.
 */
class Walk {
  readonly #table: KernelTable;
  readonly #connection: Connection;
  #registers = new Map<number, Uint8Array>();
  #verdict: KernelVerdict | undefined;
  readonly #meta = new Map([
    [key.META_MARK, hostU32(0)],
    [key.META_PRIORITY, hostU32(0)],
  ]);
  #ctMark = hostU32(0);
  /** The last decision that stood in the mark. */
  decision: number | undefined;

  constructor(table: KernelTable, connection: Connection) {
    this.#table = table;
    this.#connection = connection;
  }

  async chain(name: string, depth = 0): Promise<Step> {
    if (depth > CHAINS_DEPTH_MAX) throw unreadable(`more than ${CHAINS_DEPTH_MAX} chains deep`);
    const rules = await this.#table.rules(name);
    if (rules.length === 0) throw new MissingChainError(`chain "${name}" is empty or not there`);
    for (const rule of rules) {
      this.#registers = new Map();
      for (const expression of rule) {
        this.#verdict = undefined;
        const step = (await this.#expression(expression)) ?? (await this.#follow(depth));
        if (step === 'break') break;
        if (step !== 'next') return step;
      }
    }
    return 'return';
  }

  /** Carries out the verdict that an expression set, if it set one. */
  async #follow(depth: number): Promise<Step> {
    const verdict = this.#verdict;
    if (verdict === undefined || verdict.code === CONTINUE) return 'next';
    switch (verdict.code) {
      case DROP:
        return 'drop';
      case ACCEPT:
        return 'accept';
      case RETURN:
        return 'return';
      case GOTO:
        return this.chain(verdict.chain!, depth + 1);
      case JUMP: {
        const step = await this.chain(verdict.chain!, depth + 1);
        return step === 'return' ? 'next' : step;
      }
      default:
        throw unreadable(`verdict ${verdict.code}`);
    }
  }

  #read(register: number | undefined): Uint8Array {
    const value = this.#registers.get(register ?? -1);
    if (value === undefined) throw unreadable(`register ${register} is read before it is written`);
    return value;
  }

  #write(register: number | undefined, { value, verdict }: KernelData): void {
    if (register === REG_VERDICT) this.#verdict = verdict;
    else if (value !== undefined) this.#registers.set(register ?? -1, value);
  }

  /** Undefined: the rule goes on, by the verdict that was set if one was. */
  async #expression({ name, data }: Expression): Promise<Step | undefined> {
    switch (name) {
      case 'meta':
        return this.#metaExpression(data);
      case 'ct':
        return this.#ctExpression(data);
      case 'payload':
        if (data.u32be(2) !== PAYLOAD_TRANSPORT_HEADER || data.u32be(3) !== TCP_FLAGS_OFFSET) {
          throw unreadable('it looks at other bytes of the packet than TCP flags');
        }
        this.#write(data.u32be(1), { value: Uint8Array.of(TCP_SYN), verdict: undefined });
        return undefined;
      case 'fib':
        // There is a route back; the other use of it asks for a name, which is no Lambda interface's.
        this.#write(data.u32be(1), { value: hostU32(1), verdict: undefined });
        return undefined;
      case 'cmp':
        return compares(data.u32be(2), this.#read(data.u32be(1)), data.nested(3)!.bytes(1)!)
          ? undefined
          : 'break';
      case 'bitwise':
        return this.#bitwise(data);
      case 'byteorder':
        this.#write(data.u32be(2), { value: this.#read(data.u32be(1)).toReversed(), verdict: undefined });
        return undefined;
      case 'immediate':
        this.#write(data.u32be(1), kernelData(data.nested(2)));
        return undefined;
      case 'lookup':
        // NFT_LOOKUP_F_INV: it goes on where there is no such element.
        return data.u32be(5) === 1
          ? this.#lookupMissing(data.string(1)!, data.u32be(2))
          : this.#lookup(data.string(1)!, data.u32be(2), data.u32be(3));
      case 'dynset':
        return 'break';
      case 'objref':
        return data.has(4) ? this.#lookup(data.string(4)!, data.u32be(3), undefined) : undefined;
      case 'counter':
      case 'limit':
      case 'log':
        return undefined;
      case 'reject':
        return 'reject';
      default:
        throw unreadable(`expression "${name}"`);
    }
  }

  #metaExpression(data: Attributes): undefined {
    const what = data.u32be(2)!;
    if (data.has(3)) this.#setMeta(what, this.#read(data.u32be(3)));
    else this.#write(data.u32be(1), { value: this.#metaValue(what), verdict: undefined });
  }

  #setMeta(what: number, value: Uint8Array): void {
    this.#meta.set(what, value);
    if (what !== key.META_MARK) return;
    const mark = numberOf(value);
    if ((mark & KIND_MASK) >>> 0 === KIND.decision) this.decision = mark;
  }

  #metaValue(what: number): Uint8Array {
    switch (what) {
      case key.META_IIFNAME:
      case key.META_OIFNAME:
        return new Uint8Array(INTERFACE_NAME_BYTES);
      case key.META_NFPROTO:
        return Uint8Array.of(NFPROTO_OF_FAMILY[this.#connection.src.family]);
      case key.META_L4PROTO:
        return Uint8Array.of(this.#connection.protocol);
      default: {
        const value = this.#meta.get(what);
        if (value === undefined) throw unreadable(`meta key ${what}`);
        return value;
      }
    }
  }

  #ctExpression(data: Attributes): Step | undefined {
    if (data.has(4)) {
      this.#ctMark = this.#read(data.u32be(4));
      return undefined;
    }
    const value = this.#ctValue(data.u32be(2)!);
    if (value === undefined) return 'break';
    this.#write(data.u32be(1), { value, verdict: undefined });
    return undefined;
  }

  /** Undefined for an address of the other family. */
  #ctValue(what: number): Uint8Array | undefined {
    const { src, dst, protocol, dstPort } = this.#connection;
    switch (what) {
      case key.CT_STATE_KEY:
        return hostU32(CT_STATE.new);
      case key.CT_MARK:
        return this.#ctMark;
      case key.CT_SRC_IP:
        return src.family === 4 ? addressToBytes(src) : undefined;
      case key.CT_SRC_IP6:
        return src.family === 6 ? addressToBytes(src) : undefined;
      case key.CT_DST_IP:
        return dst.family === 4 ? addressToBytes(dst) : undefined;
      case key.CT_DST_IP6:
        return dst.family === 6 ? addressToBytes(dst) : undefined;
      case key.CT_PROTOCOL:
        return Uint8Array.of(protocol);
      case key.CT_PROTO_DST:
        return networkU16(dstPort);
      default:
        throw unreadable(`ct key ${what}`);
    }
  }

  #bitwise(data: Attributes): undefined {
    const [mask, xor] = [data.nested(4)?.bytes(1), data.nested(5)?.bytes(1)];
    if ((data.u32be(6) ?? 0) !== 0 || mask === undefined || xor === undefined) {
      throw unreadable(`a bitwise operation of kind ${data.u32be(6)}`);
    }
    const value = this.#read(data.u32be(1)).map((byte, index) => (byte & mask[index]!) ^ xor[index]!);
    this.#write(data.u32be(2), { value, verdict: undefined });
  }

  async #lookupMissing(set: string, from: number | undefined): Promise<Step | undefined> {
    return (await this.#table.element(set, this.#read(from))) === undefined ? undefined : 'break';
  }

  async #lookup(set: string, from: number | undefined, to: number | undefined): Promise<Step | undefined> {
    const found = await this.#table.element(set, this.#read(from));
    if (found === undefined) return 'break';
    if (to !== undefined) this.#write(to, found);
    return undefined;
  }
}

const ENDS: Readonly<Record<Step, Walked['verdict']>> = {
  accept: 'PERMIT',
  reject: 'REJECT',
  ...{ drop: 'DENY', next: 'DENY', break: 'DENY', return: 'DENY' },
};

/**
 * What the kernel does with the first packet of a connection. Rejects with UnreadableProgramError where something
 * stands in our chains that we never write, and with MissingChainError.
 */
export async function walkKernel(table: KernelTable, connection: Connection): Promise<Walked> {
  const walk = new Walk(table, connection);
  const forward = await walk.chain('forward');
  // The gate comes behind: what it drops was not permitted.
  const step = forward === 'accept' ? await walk.chain('gate') : forward;
  const { decision } = walk;
  const isDecided = decision !== undefined && (decision & ACTION_MASK) !== 0;
  return { verdict: ENDS[step], rule: isDecided ? decision & RULE_MASK : undefined };
}
