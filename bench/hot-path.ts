// How much of a bare HTTP server's throughput is left when a call is authenticated, limited, answered from the price
// cache, logged and written down as usage.
import type { Benchmark } from './benchmark.ts';
import { type Comparison, compareServers } from './compare-servers.ts';
import { describeSide, medianOf } from './side-by-side.ts';
import { rounded } from './statistics.ts';

const METHOD =
  'POST /tools/get_price with an API key, as the server program answers it (key from memory, minute and month limit, cached price of the ' +
  'simulated market, usage row, log line into a file), against a node:http server that answers every request with one constant JSON text of ' +
  `the same length. Both get the same request bytes from one load program over 64 connections, one request under way on each. Rounds ` +
  'alternate and change which server goes first; each begins with a warm-up that is not timed. Both servers are tied to one core and the ' +
  'load program to another; PostgreSQL, with its default durable settings, is left to the kernel, so its time comes mostly from the load ' +
  "program's core. The ratio is that of the medians of answers per second. After the rounds the server is stopped by SIGTERM, its " +
  'database is started once more, and the usage rows of cost 1 are counted: they must equal the answers of status 200, warm-ups included. ' +
  'All of it is done a second time at LOG_LEVEL=warn, which shows what the log lines cost.';

const RATIO_MIN = 0.3;

export const hotPath: Benchmark = {
  name: 'hot-path',
  async run(options) {
    const asIs = await compareServers('info', options);
    const quiet = await compareServers('warn', options);
    return {
      method: METHOD,
      postgres: asIs.postgres,
      figures: figuresOf(asIs, quiet),
      verdicts: [
        { what: 'ratio', value: asIs.ratio, wanted: `>= ${RATIO_MIN}`, ok: asIs.ratio >= RATIO_MIN, exact: false },
        ...[asIs, quiet].map(({ logLevel, rows, answered }) => {
          const ok = rows === answered;
          return {
            what: `usage rows, LOG_LEVEL=${logLevel}`,
            value: rows,
            wanted: `= ${answered} answers`,
            ok,
            exact: true,
          };
        }),
        ...[asIs, quiet].map(({ logLevel, otherAnswers }) => {
          const ok = otherAnswers === 0;
          return {
            what: `answers but 200, LOG_LEVEL=${logLevel}`,
            value: otherAnswers,
            wanted: '= 0',
            ok,
            exact: true,
          };
        }),
      ],
      samples: [asIs, quiet],
    };
  },
};

function figuresOf(asIs: Comparison, quiet: Comparison): Record<string, string | number> {
  const loadShare = (side: 'bare' | 'iora') => rounded(medianOf(asIs.rounds, side, 'loadCpuShare'));
  return {
    'bare server': describeSide(asIs.rounds, 'bare'),
    IORA: describeSide(asIs.rounds, 'iora'),
    'ratio by round': asIs.ratiosByRound.join(' '),
    'ratio with LOG_LEVEL=warn': quiet.ratio,
    "load program's use of its core": `${loadShare('bare')} for the bare server, ${loadShare('iora')} for IORA`,
    'PostgreSQL, seconds by core': JSON.stringify(asIs.postgresSecondsByCore),
    ...Object.fromEntries(Object.entries(asIs.durability).map(([name, setting]) => [`PostgreSQL ${name}`, setting])),
  };
}
