import { align, NLA_HDRLEN, NLA_TYPE_MASK } from '../netlink/writer.js';

/*
 * Walks the attributes of one level, without the maps, views and closures of `Attributes`: events come by the hundred
 * thousand a second.
 *
 *     for (let at = from; hasAttribute(view, at, to); at = nextAttribute(view, at)) …
 */

/**
 * Whether there is an attribute at `at`. Throws RangeError for one shorter than its header or longer than what is left.
 * Up to three bytes at the end are padding.
 */
export function hasAttribute(view: DataView, at: number, to: number): boolean {
  if (at + NLA_HDRLEN > to) return false;
  const length = view.getUint16(at, true);
  if (length >= NLA_HDRLEN && at + length <= to) return true;
  throw new RangeError(`Cannot decode attribute: it says ${length} bytes, ${to - at} are left`);
}

export const attributeType = (view: DataView, at: number) => view.getUint16(at + 2, true) & NLA_TYPE_MASK;
export const attributeStart = (at: number) => at + NLA_HDRLEN;
export const attributeEnd = (view: DataView, at: number) => at + view.getUint16(at, true);
export const nextAttribute = (view: DataView, at: number) => at + align(view.getUint16(at, true));

/** Where the payload of an attribute starts. Throws RangeError unless it has exactly so many bytes. */
export function payloadOf(view: DataView, at: number, size: number): number {
  const bytes = view.getUint16(at, true) - NLA_HDRLEN;
  if (bytes === size) return at + NLA_HDRLEN;
  throw new RangeError(
    `Cannot decode attribute ${attributeType(view, at)}: it has ${bytes} bytes, not ${size}`,
  );
}
