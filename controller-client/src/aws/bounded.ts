/**
 * Runs `task` for every item, at most `runningMax` at a time, and gives the results in the items' order.
 * Rejects with the first failure, after which no further task starts.
 */
export async function mapBounded<T, R>(
  items: readonly T[],
  runningMax: number,
  task: (item: T) => Promise<R>,
): Promise<R[]> {
  const results = Array<R>(items.length);
  const entries = items.entries();
  let failed = false;
  const worker = async () => {
    for (const [index, item] of entries) {
      if (failed) return;
      try {
        results[index] = await task(item);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(runningMax, items.length) }, worker));
  return results;
}
