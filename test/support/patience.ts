/** How many times as long as elsewhere tests wait before they give up: TEST_PATIENCE, 1 by default. For emulated machines. */
export const patience = Number(process.env.TEST_PATIENCE ?? 1);

/** Of a whole test file that asks the kernel. */
export const FILE_MS_MAX = 180_000 * patience;
