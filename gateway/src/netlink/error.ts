import { getSystemErrorName } from 'node:util';

/** What the kernel said of one message: an errno, and its own words where it has them. */
export class NetlinkError extends Error {
  override readonly name = 'NetlinkError';
  /** Such as `EEXIST`. */
  readonly code: string;

  constructor(
    /** What was asked for, such as `add chain "forward"`. */
    readonly operation: string,
    /** Positive, as in errno.h. */
    readonly errno: number,
    /** The kernel's own message (extended acknowledgement), where it gave one. */
    readonly kernelMessage?: string,
    /** Offset in bytes of the attribute it means. */
    readonly offset?: number,
  ) {
    const code = getSystemErrorName(-errno);
    const words = kernelMessage === undefined ? '' : `, the kernel says ${JSON.stringify(kernelMessage)}`;
    super(`Cannot ${operation}: ${code}${words}`);
    this.code = code;
  }
}

/** The kernel's answer did not come, or was lost: whether it did what was asked is not known. */
export class UnknownOutcomeError extends Error {
  override readonly name = 'UnknownOutcomeError';
}

const hasCode = (error: unknown, code: string) => error instanceof NetlinkError && error.code === code;

export const isNotFound = (error: unknown) => hasCode(error, 'ENOENT');
/** A listing was interrupted by a change: to be made again. */
export const isInterrupted = (error: unknown) => hasCode(error, 'EINTR');
export const isPermissionDenied = (error: unknown) => hasCode(error, 'EPERM');
export const isBusy = (error: unknown) => hasCode(error, 'EBUSY');
export const isNotSupported = (error: unknown) => hasCode(error, 'EOPNOTSUPP') || hasCode(error, 'ENOTSUP');
