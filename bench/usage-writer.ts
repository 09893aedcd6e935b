// How many usage rows a second reach the disk through the writer, and what each costs the process that serves callers.
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { createUsageWriter, EVENTS_HELD_MAX } from '../src/features/usage/index.ts';
import { defineOperation } from '../src/kernel/operation.ts';
import { openLog } from '../src/platform/log.ts';
import type { Benchmark } from './benchmark.ts';
import { keyPrincipal } from './key-principal.ts';
import { median, rounded } from './statistics.ts';
import { startTemporaryPostgres, withClient } from './temporary-postgres.ts';

const METHOD =
  'Each round records as many events as the writer holds and then flushes, on an embedded PostgreSQL with its default, durable settings. ' +
  'The time runs from the first event to the answer of the last commit, recording included. "CPU" is what the process of the writer used, ' +
  'not PostgreSQL. At the end the rows are counted. The two share the cores as the kernel sees fit.';

const MS_PER_SECOND = 1_000;
/** Flushes are asked for here, so the writer's own timer never comes into it. */
const FLUSH_INTERVAL_MS = 3_600_000;

const operation = defineOperation({
  name: 'market.get_price',
  route: { method: 'POST', path: '/tools/get_price' },
  summary: 'stands for the operation that is called most',
  permission: null,
  audience: 'tenant',
  transports: [],
  cost: 1,
  input: z.object({}),
  output: z.object({}),
  answer: 'json',
  idempotent: true,
  readOnly: true,
  example: {},
  run: () => Promise.resolve({}),
});

export const usageWriter: Benchmark = {
  name: 'usage-writer',
  async run({ short, signal }) {
    const rounds = short ? 3 : 15;
    const postgres = await startTemporaryPostgres();
    try {
      const url = await postgres.create('usage');
      const database = postgres.open('usage', 1);
      const writer = createUsageWriter({ database, flushIntervalMs: FLUSH_INTERVAL_MS, log: openLog('warn') });
      const principal = keyPrincipal();
      const samples: { rowsPerSecond: number; cpuUsPerRow: number }[] = [];
      for (let round = 0; round <= rounds; round += 1) {
        signal.throwIfAborted();
        const startedAt = performance.now();
        const cpuBefore = process.cpuUsage();
        for (let i = 0; i < EVENTS_HELD_MAX; i += 1) {
          writer.record({
            createdAtMs: Date.now(),
            principal,
            operation,
            symbol: 'BTC',
            statusCode: 200,
            responseTimeMs: 1,
            errorCode: null,
            cost: 1,
            requestId: randomUUID(),
          });
        }
        await writer.flush();
        const { user, system } = process.cpuUsage(cpuBefore);
        const seconds = (performance.now() - startedAt) / MS_PER_SECOND;
        if (round === 0) continue;
        samples.push({
          rowsPerSecond: rounded(EVENTS_HELD_MAX / seconds),
          cpuUsPerRow: rounded((user + system) / EVENTS_HELD_MAX),
        });
      }
      await writer.close(0);
      await database.close();
      const rows = await withClient(url, async (client) => {
        const counted = await client.query<{ rows: string }>('SELECT count(*) AS rows FROM usage_logs WHERE cost = 1');
        return Number(counted.rows[0]?.rows);
      });
      const recorded = (rounds + 1) * EVENTS_HELD_MAX;
      return {
        method: METHOD,
        postgres: postgres.version,
        figures: {
          'rows per second': median(samples.map(({ rowsPerSecond }) => rowsPerSecond)),
          'CPU per row, us': median(samples.map(({ cpuUsPerRow }) => cpuUsPerRow)),
        },
        verdicts: [
          { what: 'rows in the table', value: rows, wanted: `= ${recorded}`, ok: rows === recorded, exact: true },
        ],
        samples,
      };
    } finally {
      await postgres.remove();
    }
  },
};
