import t from 'tap';

/** The seed of this run's random tests: TEST_SEED replays one. Printed, so that a failure can be replayed. */
process.env.TEST_SEED ??= String(Math.floor(Math.random() * 2 ** 31));
export const seed = Number(process.env.TEST_SEED);

/** How many times as many random cases to try: TEST_ROUNDS, 1 by default. */
export const rounds = Number(process.env.TEST_ROUNDS ?? 1);

t.comment(`TEST_SEED=${seed} TEST_ROUNDS=${rounds}`);
