import { createRequire } from 'node:module';
import { getSystemErrorMap } from 'node:util';

/** What `new NetlinkSocket` takes. */
export interface SocketOptions {
  /** A `NETLINK_*` number of linux/netlink.h: 0 is routing, 12 is netfilter. */
  readonly protocol: number;
  /**
   * Room for messages that the kernel has queued and nobody has read, 1 to 2^30 - 1. Goes beyond `rmem_max`
   * with CAP_NET_ADMIN and is cut to it without; `receiveBufferBytes` of the socket tells what was granted.
   */
  readonly receiveBufferBytes?: number;
  /** The longest batch that one `send` can carry, a little more than its bytes; granted in the same way. */
  readonly sendBufferBytes?: number;
  /**
   * How long to let messages gather after the first, 0 by default. A wake-up for each slows the kernel's
   * side.
   */
  readonly coalesceMs?: number;
  /** `NETLINK_NO_ENOBUFS`: what does not fit is dropped without a word, and never counted as lost. */
  readonly noEnobufs?: boolean;
  /**
   * Called with whole messages, one after the other, each at a multiple of four bytes. `bytes` is a copy of
   * its own and may be kept. `lost` counts the receives since the last call that failed because messages were
   * dropped or too long: 0, or at least one message is missing, from before `bytes` or among them; how many,
   * the kernel does not tell. After a loss without further messages `bytes` is empty. What it throws is an
   * uncaught exception.
   */
  readonly onReceive: (bytes: Uint8Array, lost: number) => void;
}

/** A system call that the kernel refused. */
export class NetlinkSystemError extends Error {
  override readonly name = 'NetlinkSystemError';
  /** What was tried: `open`, `send`, `join`, … */
  readonly operation: string;
  /** The positive error number, of errno(3). */
  readonly errno: number;
  /** Its name: `EPERM`. */
  readonly code: string;

  constructor(operation: string, errno: number, socket = 'netlink') {
    const [code, text] = getSystemErrorMap().get(-errno) ?? [`E${errno}`, 'unknown system error'];
    super(`Cannot ${operation}: the ${socket} socket says ${code}, ${text}`);
    this.operation = operation;
    this.errno = errno;
    this.code = code;
  }
}

/** The socket was used after `close`. */
export class SocketClosedError extends Error {
  override readonly name = 'SocketClosedError';

  constructor(operation: string) {
    super(`Cannot ${operation}: the netlink socket is closed`);
  }
}

/** One end of a TCP connection. */
export interface TcpEnd {
  /** Four or sixteen bytes. */
  readonly address: Uint8Array;
  readonly port: number;
}

/** What `resetTcp` takes. */
export interface TcpReset {
  /** In whose name it speaks. */
  readonly source: TcpEnd;
  readonly destination: TcpEnd;
  /** The next octet that the destination expects of the source, and the source of the destination. */
  readonly sequence: number;
  readonly acknowledgement: number;
  /** The packet mark of the ACK. */
  readonly mark: number;
}

/** The opaque pointer that netlink.c hands out. */
type Handle = object;

/**
 * The verbs of the C files: 0 or an errno from those that return nothing else, a negative errno from the
 * getters.
 */
interface Native {
  open(protocol: number, coalesceMs: number, onReceive: SocketOptions['onReceive']): Handle | number;
  close(handle: Handle): void;
  free(handle: Handle): void;
  unref(handle: Handle): void;
  portId(handle: Handle): number;
  setOption(handle: Handle, level: number, option: number, value: number): number;
  getOption(handle: Handle, level: number, option: number): number;
  ignore(handle: Handle, portId: number): number;
  send(handle: Handle, bytes: Uint8Array): Promise<number>;
  resetAs(
    source: Uint8Array,
    destination: Uint8Array,
    sequence: number,
    acknowledgement: number,
    mark: number,
  ): number;
  synAs(source: Uint8Array, destination: Uint8Array): number;
  ethtoolStats(name: string): ArrayBuffer | number;
  notify(path: string, text: string): number;
  peerCredentials(fd: number): ArrayBuffer | number;
}

function load(): Native {
  try {
    return createRequire(import.meta.url)('../build/netlink.node');
  } catch (cause) {
    throw new Error(
      'Cannot load nftables-napi: build/netlink.node is missing or unfit, run `npm rebuild nftables-napi`',
      { cause },
    );
  }
}

const native = load();

/** asm-generic/socket.h, linux/netlink.h and linux/socket.h; the same on x64 and arm64. */
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_DROP_MEMBERSHIP = 2;
const NETLINK_NO_ENOBUFS = 5;

const EPERM = 1;
const INT_MAX = 0x7fffffff;
const UINT_MAX = 0xffffffff;
/** The kernel doubles what it is asked for, in an `int`. */
const BUFFER_BYTES_MAX = 0x3fffffff;
const COALESCE_MS_MAX = 60_000;

function checkInteger(name: string, value: number, min: number, max: number, socket = 'netlink'): void {
  if (typeof value !== 'number') {
    throw new TypeError(`Cannot use ${socket} socket: ${name} is a ${typeof value}, not a number`);
  }
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(
      `Cannot use ${socket} socket: ${name} is ${value}, not an integer from ${min} to ${max}`,
    );
  }
}

function checkOptions(options: SocketOptions): void {
  checkInteger('protocol', options.protocol, 0, 31);
  checkInteger('coalesceMs', options.coalesceMs ?? 0, 0, COALESCE_MS_MAX);
  checkInteger('receiveBufferBytes', options.receiveBufferBytes ?? 1, 1, BUFFER_BYTES_MAX);
  checkInteger('sendBufferBytes', options.sendBufferBytes ?? 1, 1, BUFFER_BYTES_MAX);
  if (typeof options.onReceive !== 'function') {
    throw new TypeError(
      `Cannot use netlink socket: onReceive is a ${typeof options.onReceive}, not a function`,
    );
  }
}

function check(operation: string, errno: number): void {
  if (errno !== 0) throw new NetlinkSystemError(operation, errno);
}

/**
 * A netlink socket, bound to a port of its own, with a thread that receives. It keeps the process alive until
 * `close` (or `unref`), and belongs to the network namespace in which it was made.
 *
 * Keep a reference: a socket that nothing refers to is closed when it is collected. Opening needs no
 * privilege; what a protocol demands it demands of `send` and `join`: CAP_NET_ADMIN for all of netfilter.
 * Every method throws NetlinkSystemError where the kernel refuses, SocketClosedError after `close` (but for
 * `close` itself), TypeError or RangeError for wrong arguments.
 */
export class NetlinkSocket {
  /** The address that the kernel answers to: the port id in the headers of its answers. */
  readonly portId: number;
  /** What the kernel granted, by its own count: twice what was asked for, its bookkeeping included. */
  readonly receiveBufferBytes: number;
  readonly #handle: Handle;
  #closed = false;
  #sent: Promise<unknown> = Promise.resolve();

  constructor(options: SocketOptions) {
    checkOptions(options);
    const onReceive: SocketOptions['onReceive'] = (bytes, lost) => {
      setImmediate(free);
      options.onReceive(bytes, lost);
    };
    const handle = native.open(options.protocol, options.coalesceMs ?? 0, onReceive);
    // What the native side calls must not keep the socket from being collected.
    const weak = typeof handle === 'number' ? undefined : new WeakRef(handle);
    const free = () => {
      const open = weak?.deref();
      if (open !== undefined) native.free(open);
    };
    if (typeof handle === 'number') throw new NetlinkSystemError('open', handle);
    this.#handle = handle;
    try {
      const { receiveBufferBytes, sendBufferBytes } = options;
      if (receiveBufferBytes !== undefined) this.#setBuffer(SO_RCVBUFFORCE, SO_RCVBUF, receiveBufferBytes);
      if (sendBufferBytes !== undefined) this.#setBuffer(SO_SNDBUFFORCE, SO_SNDBUF, sendBufferBytes);
      if (options.noEnobufs === true) this.setOption(NETLINK_NO_ENOBUFS, 1);
      this.portId = this.#get(native.portId(handle));
      this.receiveBufferBytes = this.#get(native.getOption(handle, SOL_SOCKET, SO_RCVBUF));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Joins a multicast group by its number (not its bit): `NFNLGRP_*`, `RTNLGRP_*`. */
  join(group: number): void {
    this.#checkOpen('join');
    checkInteger('group', group, 1, INT_MAX);
    check('join', native.setOption(this.#handle, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group));
  }

  /** Leaves a multicast group; what is already received still arrives. */
  leave(group: number): void {
    this.#checkOpen('leave');
    checkInteger('group', group, 1, INT_MAX);
    check('leave', native.setOption(this.#handle, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, group));
  }

  /**
   * No longer receives what the owner of another port caused. It takes no room in the receive buffer, so that none of it
   * is lost either. A later call replaces an earlier one. Works on the kernel's multicast; SO_ATTACH_FILTER, socket(7).
   */
  ignore(portId: number): void {
    this.#checkOpen('ignore');
    checkInteger('port id', portId, 0, UINT_MAX);
    check('ignore', native.ignore(this.#handle, portId));
  }

  /** Sets an option of level SOL_NETLINK, such as NETLINK_CAP_ACK (10) or NETLINK_EXT_ACK (11). */
  setOption(option: number, value: number): void {
    this.#checkOpen('set option');
    checkInteger('option', option, 1, INT_MAX);
    checkInteger('value', value, -INT_MAX - 1, INT_MAX);
    check('set option', native.setOption(this.#handle, SOL_NETLINK, option, value));
  }

  /**
   * Sends one datagram to the kernel, after the sends before it. Resolves when the kernel has processed it,
   * which for nf_tables is the whole transaction and can take seconds, on a thread of libuv's pool. `bytes`
   * is not copied: leave it as it is until then. Rejects with EMSGSIZE if it outgrows the send buffer. A send
   * that has reached the kernel when the socket is closed finishes; those behind it reject with
   * SocketClosedError.
   */
  async send(bytes: Uint8Array): Promise<void> {
    if (!(bytes instanceof Uint8Array)) {
      throw new TypeError('Cannot use netlink socket: bytes is not a Uint8Array');
    }
    const turn = this.#sent.then(() => {
      this.#checkOpen('send');
      return native.send(this.#handle, bytes);
    });
    this.#sent = turn.catch(() => undefined);
    check('send', await turn);
  }

  /** Lets the process end while the socket is open. */
  unref(): void {
    this.#checkOpen('unref');
    native.unref(this.#handle);
  }

  /** Ends receiving: `onReceive` is not called again. Idempotent. */
  close(): void {
    this.#closed = true;
    native.close(this.#handle);
  }

  #checkOpen(operation: string): void {
    if (this.#closed) throw new SocketClosedError(operation);
  }

  /** The forced option needs CAP_NET_ADMIN; the plain one is cut to `rmem_max` or `wmem_max`. */
  #setBuffer(forced: number, plain: number, bytes: number): void {
    const errno = native.setOption(this.#handle, SOL_SOCKET, forced, bytes);
    const done = errno === EPERM ? native.setOption(this.#handle, SOL_SOCKET, plain, bytes) : errno;
    check('size buffers', done);
  }

  #get(value: number): number {
    if (value < 0) throw new NetlinkSystemError('read option', -value);
    return value;
  }
}

/** sys/socket.h, and the sizes of `struct sockaddr_in` and `sockaddr_in6`, where the address is at 4 and at 8. */
const AF_INET = 2;
const AF_INET6 = 10;
const SOCKADDR_IN_BYTES = 16;
const SOCKADDR_IN6_BYTES = 28;
const UINT32_MAX = 0xffffffff;

function socketAddress({ address, port }: TcpEnd): Uint8Array {
  const is4 = address.length === 4;
  if (!is4 && address.length !== 16) {
    throw new RangeError(`Cannot use TCP socket: an address has ${address.length} bytes, not 4 or 16`);
  }
  checkInteger('port', port, 0, 0xffff, 'TCP');
  const bytes = new Uint8Array(is4 ? SOCKADDR_IN_BYTES : SOCKADDR_IN6_BYTES);
  const view = new DataView(bytes.buffer);
  new Uint16Array(bytes.buffer, 0, 1)[0] = is4 ? AF_INET : AF_INET6;
  view.setUint16(2, port);
  bytes.set(address, is4 ? 4 : 8);
  return bytes;
}

/**
 * In the name of one end of a TCP connection that goes through this machine, sends the other an ACK that carries
 * nothing (its sequence number is the one before the next), under a packet mark, and then a reset, under none. Both
 * leave by the output hook, as conntrack has the connection. Throws NetlinkSystemError: EPERM without CAP_NET_ADMIN,
 * EACCES for a source port below `ip_unprivileged_port_start` without CAP_NET_BIND_SERVICE, ENETUNREACH. Linux 4.19.
 */
export function resetTcp({ source, destination, sequence, acknowledgement, mark }: TcpReset): void {
  for (const [name, value] of Object.entries({ sequence, acknowledgement, mark })) {
    checkInteger(name, value, 0, UINT32_MAX, 'TCP');
  }
  const [from, to] = [socketAddress(source), socketAddress(destination)];
  const errno = native.resetAs(from, to, sequence, acknowledgement, mark);
  if (errno !== 0) throw new NetlinkSystemError('reset connection', errno, 'TCP');
}

/** In the name of one end of a TCP connection, sends the other a SYN, and nothing more. Throws as `resetTcp` does. */
export function probeTcp(source: TcpEnd, destination: TcpEnd): void {
  const errno = native.synAs(socketAddress(source), socketAddress(destination));
  if (errno !== 0) throw new NetlinkSystemError('probe connection', errno, 'TCP');
}

/** linux/ethtool.h, linux/if.h */
const ETH_GSTRING_LEN = 32;
const IFNAMSIZ = 16;
const STAT_BYTES = ETH_GSTRING_LEN + 8;

/**
 * What the driver of a network interface counts, by its own names, as `ethtool -S` shows it; nothing where it counts
 * nothing. Throws NetlinkSystemError: ENODEV where there is no such interface. Blocks for as long as the driver takes,
 * some microseconds for most.
 */
export function ethtoolStats(name: string): ReadonlyMap<string, bigint> {
  const bytesOfName = Buffer.byteLength(name);
  checkInteger('length of name', bytesOfName, 1, IFNAMSIZ - 1, 'ethtool');
  const answer = native.ethtoolStats(name);
  if (typeof answer === 'number') throw new NetlinkSystemError('read statistics', answer, 'ethtool');
  const count = answer.byteLength / STAT_BYTES;
  const names = Buffer.from(answer, 0, count * ETH_GSTRING_LEN).toString('latin1');
  const values = new BigUint64Array(answer, count * ETH_GSTRING_LEN, count);
  return new Map(
    Array.from(values, (value, index) => {
      const text = names.slice(index * ETH_GSTRING_LEN, (index + 1) * ETH_GSTRING_LEN);
      return [text.split('\0', 1)[0]!, value];
    }),
  );
}

/** `sizeof(sun_path)` of sys/un.h, and what notify.c has room for; both less the zero at the end. */
const SUN_PATH_BYTES_MAX = 107;
const DATAGRAM_TEXT_BYTES_MAX = 4_095;

/**
 * Sends one datagram to a UNIX socket: a path, or `@name` in the abstract namespace. Throws NetlinkSystemError: ENOENT
 * or ECONNREFUSED where nobody listens, EAGAIN where the listener's queue is full.
 */
export function sendDatagram(path: string, text: string): void {
  checkInteger('length of path', Buffer.byteLength(path), 1, SUN_PATH_BYTES_MAX, 'UNIX');
  checkInteger('length of text', Buffer.byteLength(text), 1, DATAGRAM_TEXT_BYTES_MAX, 'UNIX');
  const errno = native.notify(path, text);
  if (errno !== 0) throw new NetlinkSystemError('send datagram', errno, 'UNIX');
}

/** The process at the other end of a UNIX socket, as it was when it connected. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** Who connected, by a descriptor of a UNIX stream socket. Throws NetlinkSystemError: ENOTSOCK, EBADF. */
export function peerCredentials(fd: number): PeerCredentials {
  checkInteger('descriptor', fd, 0, 0x7fffffff, 'UNIX');
  const answer = native.peerCredentials(fd);
  if (typeof answer === 'number') throw new NetlinkSystemError('read peer credentials', answer, 'UNIX');
  const [pid, uid, gid] = new Uint32Array(answer);
  return { pid: pid!, uid: uid!, gid: gid! };
}
