import t from 'tap';
import { Applier } from './apply.js';
import type { Batch } from './batch.js';
import { EMPTY_TABLE, type NftKernel } from './kernel.js';
import type { Chain } from './program.js';
import { match } from './statement.js';

/** One that takes everything, and tells how large each transaction was. */
function kernelOf(sizes: number[]): NftKernel {
  const kernel: Pick<NftKernel, 'commit' | 'list' | 'tableFlags'> = {
    commit: async (batch: Batch) => {
      sizes.push(batch.bytes);
    },
    list: async () => EMPTY_TABLE,
    tableFlags: async () => undefined,
  };
  return kernel as NftKernel;
}

t.test('however many rules there are, no transaction is larger than the kernel takes', async (t) => {
  const sizes: number[] = [];
  const chains = Array.from(
    { length: 20_000 },
    (_, index): Chain => ({
      name: `list_${index}`,
      rules: Array.from({ length: 10 }, () => [match('mark', index), { kind: 'setMark', value: index }]),
    }),
  );
  const applier = new Applier(kernelOf(sizes));
  await applier.takeOver();
  const nothing = { maps: [], liveSets: [], counters: [], limits: [] };
  await applier.apply({ generation: 1, fixed: [], chains, ...nothing });
  const total = sizes.reduce((sum, bytes) => sum + bytes, 0);
  t.ok(total > 32 << 20, `${total} bytes in all`);
  t.ok(Math.max(...sizes) < 9 << 20, `${Math.max(...sizes)} bytes in one`);
});
