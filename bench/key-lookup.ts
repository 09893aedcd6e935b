// Whether finding a key that is not in memory stays as fast with a million keys as with ten thousand.
import { randomBytes } from 'node:crypto';
import { createKeyAuthenticator, createPrincipalCache } from '../src/features/keys/index.ts';
import type { Principal } from '../src/kernel/context.ts';
import { generateKey } from '../src/lib/key-format.ts';
import { hashKey } from '../src/lib/key-hash.ts';
import type { Benchmark } from './benchmark.ts';
import { median, quantile, rounded } from './statistics.ts';
import { startTemporaryPostgres, type TemporaryPostgres, withClient } from './temporary-postgres.ts';

const METHOD =
  'Two databases on one embedded PostgreSQL, with few and with many keys, five keys to a person. All rows are inserted by SQL and vacuumed; ' +
  'those that are looked up are real keys spread evenly over them, the others have hashes as evenly distributed. A look-up is ' +
  'the authenticator of the server itself, from the text of the key to the principal (checksum, HMAC, one transaction that calls find_api_key), ' +
  'timed in this process; its memory keeps nothing, and a key comes again only after all other real ones. Rounds on the two databases alternate ' +
  'and change which goes first; one look-up at a time, then four at a time. p50 and p99 are of all look-ups of a database together. ' +
  'PostgreSQL has its default settings and runs where the kernel puts it; the files are in the page cache of the system.';

const KEYS_PER_PERSON = 5;
const CONCURRENCIES = [1, 4] as const;
/** Look-ups before those that count, so that every connection has its plans. */
const WARM_UP_LOOKUPS = 400;
const P99_RATIO_MAX = 1.5;
const US_PER_MS = 1_000;
/** What is kept of a round: every single time of 40,000 would fill the repository. */
const SHARES_KEPT = [0.5, 0.9, 0.99, 1];

interface Size {
  readonly keys: number;
  readonly rounds: number;
  readonly lookupsPerRound: number;
}

const FULL = { few: 10_000, many: 1_000_000, rounds: 20, lookupsPerRound: 500 };
const SHORT = { few: 2_000, many: 50_000, rounds: 4, lookupsPerRound: 100 };

export const keyLookup: Benchmark = {
  name: 'key-lookup',
  async run({ short, note, signal }) {
    const { few, many, rounds, lookupsPerRound } = short ? SHORT : FULL;
    const postgres = await startTemporaryPostgres();
    try {
      const populations = [];
      for (const keys of [few, many]) {
        signal.throwIfAborted();
        note(`inserting ${keys} keys`);
        populations.push(await populate(postgres, { keys, rounds, lookupsPerRound }));
      }
      note('looking keys up');
      const samples = [];
      for (const concurrency of CONCURRENCIES) {
        const perRound = populations.map(() => [] as number[][]);
        for (let round = 0; round < rounds; round += 1) {
          signal.throwIfAborted();
          const order = [...populations.keys()];
          if (round % 2 === 1) order.reverse();
          for (const which of order) {
            const lookupMs = await populations[which]?.lookUp(lookupsPerRound, concurrency);
            perRound[which]?.push(lookupMs ?? []);
          }
        }
        samples.push(...populations.map(({ keys }, which) => ({ keys, concurrency, rounds: perRound[which] ?? [] })));
      }
      for (const population of populations) await population.close();
      return outcome(postgres.version, samples);
    } finally {
      await postgres.remove();
    }
  },
};

interface Sample {
  readonly keys: number;
  readonly concurrency: number;
  /** Milliseconds of each look-up, by round. */
  readonly rounds: readonly (readonly number[])[];
}

function outcome(postgres: string, samples: readonly Sample[]) {
  const figures: Record<string, string> = {};
  const ratios = CONCURRENCIES.map((concurrency) => {
    const [few, many] = samples.filter((sample) => sample.concurrency === concurrency);
    if (few === undefined || many === undefined) throw new Error('two populations were measured');
    for (const { keys, rounds } of [few, many]) {
      const all = rounds.flat();
      figures[`${keys} keys, ${concurrency} at a time`] =
        `p50 ${rounded(quantile(all, 0.5), 3)} ms, p99 ${rounded(quantile(all, 0.99), 3)} ms of ${all.length}`;
    }
    const roundRatios = many.rounds.map(
      (round, index) => quantile(round, 0.99) / quantile(few.rounds[index] ?? round, 0.99),
    );
    figures[`p99 ratio by round, ${concurrency} at a time`] =
      `${rounded(Math.min(...roundRatios), 3)} to ${rounded(Math.max(...roundRatios), 3)}, median ${rounded(median(roundRatios), 3)}`;
    const value = rounded(quantile(many.rounds.flat(), 0.99) / quantile(few.rounds.flat(), 0.99), 3);
    return {
      what: `p99 ratio, ${concurrency} at a time`,
      value,
      wanted: `<= ${P99_RATIO_MAX}`,
      ok: value <= P99_RATIO_MAX,
      exact: false,
    };
  });
  return {
    method: METHOD,
    postgres,
    figures,
    verdicts: ratios,
    samples: samples.map(({ rounds, ...sample }) => ({
      ...sample,
      quantilesUsByRound: rounds.map((round) =>
        Object.fromEntries(
          SHARES_KEPT.map((share) => [`p${share * 100}`, Math.round(quantile(round, share) * US_PER_MS)]),
        ),
      ),
    })),
  };
}

interface Population {
  readonly keys: number;
  /** Looks up that many different keys, each again only after all others. Returns how long each took, in ms. */
  lookUp(count: number, concurrency: number): Promise<number[]>;
  close(): Promise<void>;
}

async function populate(postgres: TemporaryPostgres, { keys, rounds, lookupsPerRound }: Size): Promise<Population> {
  const pepper = { version: 1, secret: randomBytes(32) };
  const wanted = Math.min(keys, WARM_UP_LOOKUPS + CONCURRENCIES.length * rounds * lookupsPerRound);
  const real = Array.from({ length: wanted }, () => generateKey('live'));
  const name = `keys_${keys}`;
  await insertKeys(
    await postgres.create(name),
    keys,
    real.map((key) => hashKey(key, pepper.secret)),
  );

  const database = postgres.open(name, Math.max(...CONCURRENCIES));
  const authenticate = createKeyAuthenticator({
    database,
    peppers: [pepper],
    cache: createPrincipalCache({
      entriesMax: 1,
      freshMs: () => 0,
      outageGraceMs: 0,
      monotonicMs: () => performance.now(),
      wallClockMs: () => Date.now(),
    }),
    use: { touch: () => undefined },
    log: { warn: () => undefined },
  });
  let unused: string[] = [];
  const population: Population = {
    keys,
    async lookUp(count, concurrency) {
      if (unused.length < count) unused = shuffled(real);
      const round = unused.splice(0, count);
      const lookupMs: number[] = [];
      const worker = async () => {
        for (let key = round.pop(); key !== undefined; key = round.pop()) {
          const startedAt = performance.now();
          const principal: Principal = await authenticate(key, null);
          lookupMs.push(performance.now() - startedAt);
          if (principal.kind !== 'api_key') throw new Error('a key was taken for something else');
        }
      };
      await Promise.all(Array.from({ length: concurrency }, worker));
      return lookupMs;
    },
    close: () => database.close(),
  };
  await population.lookUp(WARM_UP_LOOKUPS, Math.max(...CONCURRENCIES));
  return population;
}

/**
 * Fills the tables past foreign keys and triggers, which would only repeat what the statements themselves make sure of,
 * and leaves them as autovacuum would.
 */
async function insertKeys(url: string, keys: number, hashes: readonly Buffer[]): Promise<void> {
  const every = Math.floor(keys / hashes.length);
  await withClient(url, async (client) => {
    await client.query('SET session_replication_role = replica');
    await client.query('CREATE TEMP TABLE real_keys (n integer PRIMARY KEY, hash bytea NOT NULL)');
    await client.query(
      'INSERT INTO real_keys SELECT i * $2::integer, h FROM unnest($1::bytea[]) WITH ORDINALITY AS u (h, i)',
      [hashes, every],
    );
    await client.query(
      `INSERT INTO users (id, issuer, subject)
       SELECT 'user_' || n, 'bench', n::text FROM generate_series(1, $1::integer) AS n`,
      [Math.ceil(keys / KEYS_PER_PERSON)],
    );
    await client.query(
      `INSERT INTO api_key_families (id, user_id, name, environment)
       SELECT md5('family' || n)::uuid, 'user_' || (n - 1) / $2::integer + 1, 'bench', 'live' FROM generate_series(1, $1::integer) AS n`,
      [keys, KEYS_PER_PERSON],
    );
    await client.query(
      `INSERT INTO api_keys (family_id, user_id, key_hash, pepper_version, key_prefix)
       SELECT md5('family' || n)::uuid, 'user_' || (n - 1) / $2::integer + 1, coalesce(r.hash, sha256(n::text::bytea)), 1, 'iora_pk_live_Benc'
       FROM generate_series(1, $1::integer) AS n LEFT JOIN real_keys r USING (n)`,
      [keys, KEYS_PER_PERSON],
    );
    await client.query('VACUUM (FREEZE, ANALYZE) users, api_key_families, api_keys');
    await client.query('CHECKPOINT');
  });
}

/** The same items in random order, so that neighbours in the table are not looked up one after the other. */
function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, at: Math.random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}
