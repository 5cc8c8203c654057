import { align, NLA_HDRLEN, NLA_TYPE_MASK } from '../netlink/writer.js';

/**
 * Calls `visit` for each attribute from `from` to `to`, with its type, and where its payload starts and ends.
 * Does what `Attributes` does without its maps and views: events come by the hundred thousand a second.
 *
 * Throws RangeError for an attribute shorter than its header or longer than what is left. Up to three bytes
 * at the end are padding.
 */
export function walkAttributes(
  view: DataView,
  from: number,
  to: number,
  visit: (type: number, start: number, end: number) => void,
): void {
  let at = from;
  while (at + NLA_HDRLEN <= to) {
    const length = view.getUint16(at, true);
    if (length < NLA_HDRLEN || at + length > to) {
      throw new RangeError(`Cannot decode attribute: it says ${length} bytes, ${to - at} are left`);
    }
    visit(view.getUint16(at + 2, true) & NLA_TYPE_MASK, at + NLA_HDRLEN, at + length);
    at += align(length);
  }
}

/** Throws RangeError unless a payload has exactly so many bytes. */
export function checkSize(type: number, start: number, end: number, size: number): void {
  if (end - start !== size) {
    throw new RangeError(`Cannot decode attribute ${type}: it has ${end - start} bytes, not ${size}`);
  }
}
