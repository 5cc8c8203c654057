/** A field of a template: `ID`, or `PEN/ID`, and its length; 65,535 means that each record says. */
type Template = readonly (readonly [name: string, bytes: number])[];

/** One reading of RFC 7011, by its templates alone: knows nothing of what we send. Fields by their names. */
export function decodeIpfix(bytes: Buffer, templates: Map<number, Template>) {
  const records: Map<string, Buffer>[] = [];
  if (bytes.readUInt16BE(0) !== 10 || bytes.readUInt16BE(2) !== bytes.length)
    throw new Error('no IPFIX message');
  for (let at = 16; at < bytes.length; ) {
    const [id, end] = [bytes.readUInt16BE(at), at + bytes.readUInt16BE(at + 2)];
    let from = at + 4;
    while (id === 2 && from < end) from = readTemplate(bytes, from, templates);
    const template = templates.get(id);
    if (id > 255 && template === undefined) throw new Error(`no template ${id}`);
    while (template !== undefined && from < end) {
      const record = new Map<string, Buffer>();
      for (const [name, length] of template) {
        const size = length === 0xffff ? bytes[from++]! : length;
        record.set(name, bytes.subarray(from, from + size));
        from += size;
      }
      records.push(record);
    }
    if (from !== end) throw new Error('a record ends outside of its set');
    at = end;
  }
  return { sequence: bytes.readUInt32BE(8), domain: bytes.readUInt32BE(12), records };
}

function readTemplate(bytes: Buffer, from: number, templates: Map<number, Template>): number {
  const fields: [string, number][] = [];
  let at = from + 4;
  for (let count = bytes.readUInt16BE(from + 2); count > 0; count--) {
    const [id, length] = [bytes.readUInt16BE(at), bytes.readUInt16BE(at + 2)];
    const isEnterprise = (id & 0x8000) !== 0;
    fields.push([isEnterprise ? `${bytes.readUInt32BE(at + 4)}/${id & 0x7fff}` : String(id), length]);
    at += isEnterprise ? 8 : 4;
  }
  templates.set(bytes.readUInt16BE(from), fields);
  return at;
}
