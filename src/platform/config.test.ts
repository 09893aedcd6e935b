import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import {
  ConfigError,
  configSchema,
  type Environment,
  loadConfig,
  settingMeta,
  settingsWithoutEffect,
} from './config.ts';

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iora-config-'));
});
after(() => rm(folder, { recursive: true }));

const secretOf = (bytes = 32, fill = 7) => Buffer.alloc(bytes, fill).toString('base64');
const safe = { IORA_MODE: 'production', KEY_PEPPER: `1:${secretOf()}`, DATA_KEYS: `1:${secretOf(32, 8)}` };

/** What is said about a refused environment, line by line. */
function problemsOf(environment: Environment): readonly string[] {
  try {
    loadConfig(environment);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    for (const problem of error.problems) assert.ok(error.message.includes(problem));
    return error.problems;
  }
  return [];
}

/** The settings that the problems are about, in order. */
const named = (environment: Environment) => problemsOf(environment).map((problem) => problem.split(' ')[0]);

test('without any setting everything has its default, and nothing can be changed afterwards', () => {
  const config = loadConfig({});
  assert.deepEqual(
    [
      config.IORA_MODE,
      config.HOST,
      config.PORT,
      config.DATABASE_URL,
      config.IORA_DATA_DIR,
      config.KEY_CACHE_TTL,
      config.KEY_OUTAGE_GRACE,
      config.DATABASE_POOL_MIN,
      config.DATABASE_POOL_MAX,
      config.TRUSTED_PROXIES,
    ],
    ['development', '127.0.0.1', 7145, undefined, resolve('.iora'), 5, 60, 2, 10, []],
  );
  assert.throws(() => Object.assign(config, { PORT: 1 }), TypeError);
  assert.deepEqual(loadConfig({ PORT: '', HOST: '' }), config, 'empty is unset');
});

test('values are read as what they are', () => {
  const config = loadConfig({
    PORT: '0',
    TRUSTED_PROXIES: ' 10.0.0.0/8 ,::1,',
    MARKET_SOURCES: 'kraken, coinbase',
    MIGRATE_ON_START: 'false',
    PUBLIC_URL: 'https://iora.example/base//',
    KEY_PEPPER: ` 2:${secretOf(40)} , 1:${secretOf()}`,
    IORA_DATA_DIR: 'some/where',
  });
  assert.deepEqual(
    [
      config.PORT,
      config.TRUSTED_PROXIES,
      config.MARKET_SOURCES,
      config.MIGRATE_ON_START,
      config.PUBLIC_URL,
      config.IORA_DATA_DIR,
    ],
    [0, ['10.0.0.0/8', '::1'], ['kraken', 'coinbase'], false, 'https://iora.example/base', resolve('some/where')],
  );
  assert.deepEqual(
    config.KEY_PEPPER?.map(({ version, secret }) => [version, secret.length]),
    [
      [2, 40],
      [1, 32],
    ],
  );
});

test('every problem is told at once: shapes, contradictions and what production refuses', () => {
  assert.deepEqual(
    named({
      IORA_MODE: 'production',
      PORT: 'x',
      LOG_LEVEL: 'loud',
      DATA_KEYS: '1:short',
      DATABASE_URL: 'postgres://h/db',
      DATABASE_POOL_MIN: '5',
      DATABASE_POOL_MAX: '4',
      PUBLIC_URL: 'ftp://x',
      MARKET_SOURCES: ',',
    }).toSorted(),
    [
      'DATABASE_POOL_MIN',
      'DATABASE_URL',
      'DATA_KEYS',
      'KEY_PEPPER',
      'LOG_LEVEL',
      'MARKET_SOURCES',
      'PORT',
      'PUBLIC_URL',
    ],
  );
  assert.deepEqual(named({ IORA_MODE: 'prod', DATABASE_POOL_MIN: '5', DATABASE_POOL_MAX: '4' }), [
    'IORA_MODE',
    'DATABASE_POOL_MIN',
  ]);
});

test('production wants secrets of its own and a verified way to the database', () => {
  assert.deepEqual(named({ IORA_MODE: 'production' }), ['KEY_PEPPER', 'DATA_KEYS']);
  assert.deepEqual(problemsOf(safe), []);
  const url = (text: string) => named({ ...safe, DATABASE_URL: text });
  for (const allowed of [
    'postgres://u:p@db.example/iora?sslmode=verify-full',
    'postgres://127.0.0.1/x',
    'postgresql://localhost:5433/x',
    'postgres://[::1]/x',
    'postgres:///x?host=/run/postgresql',
    'postgres://%2Frun%2Fpostgresql/x',
  ]) {
    assert.deepEqual(url(allowed), [], allowed);
  }
  for (const refused of [
    'postgres://db.example/x',
    'postgres://db.example/x?sslmode=require',
    'postgres://db.example/x?sslmode=disable',
    'postgres://127.evil.example/x',
    'postgres://127.0.0.1/x?host=db.example',
    'postgres://localhost.evil.example/x',
    'postgres://db.example/x?sslmode=disable&sslmode=verify-full',
  ]) {
    assert.deepEqual(url(refused), ['DATABASE_URL'], refused);
  }
  const everywhere = {
    DATABASE_URL: 'postgres://a/x',
    DATABASE_DIRECT_URL: 'postgres://b/x',
    DATABASE_MIGRATION_URL: 'postgres://c/x',
  };
  assert.deepEqual(named({ ...safe, ...everywhere }), Object.keys(everywhere));
  assert.deepEqual(named(everywhere), [], 'development does not mind');
});

test('how the database is reached is told with the rest: sslmode and the file of the authority', async () => {
  const authority = join(folder, 'ca.pem');
  await writeFile(authority, 'a certificate');
  const remote = 'postgres://u:p@db.example/iora';
  assert.deepEqual(problemsOf({ PORT: 'x', DATABASE_URL: `${remote}?sslmode=prefer`, DATABASE_CA_FILE: folder }), [
    'PORT must be a port number',
    'DATABASE_URL asks for TLS in a way that is not supported: use sslmode=verify-full, or sslmode=disable',
    'DATABASE_CA_FILE names a file that cannot be read (EISDIR)',
  ]);
  const production = (settings: Environment) => problemsOf({ ...safe, ...settings });
  assert.deepEqual(production({ DATABASE_URL: remote, DATABASE_CA_FILE: authority }), [], 'a file means verify-full');
  assert.deepEqual(
    production({ DATABASE_URL: remote, DATABASE_CA_FILE: join(folder, 'none') }),
    ['DATABASE_CA_FILE names a file that cannot be read (ENOENT)'],
    'a file that is named and missing is one problem, not two',
  );
  assert.equal(
    production({ DATABASE_URL: `${remote}?sslmode=disable`, DATABASE_CA_FILE: authority })[0],
    'DATABASE_URL needs sslmode=verify-full in production (or a Unix socket or loopback address)',
  );
});

test('settings that are yet to come are named when they are set', () => {
  const environment = { REDIS_CACHE_URL: 'redis://x', STRIPE_SECRET_KEY: 'a', IORA_WORKERS: '', PORT: '1' };
  assert.deepEqual(settingsWithoutEffect(environment), ['REDIS_CACHE_URL', 'STRIPE_SECRET_KEY']);
});

test('a secret may stand in a file, but not in both places', async () => {
  const file = join(folder, 'pepper');
  await writeFile(file, `1:${secretOf()}\n`);
  assert.equal(loadConfig({ KEY_PEPPER_FILE: file }).KEY_PEPPER?.[0]?.secret.length, 32);
  assert.deepEqual(named({ ...safe, KEY_PEPPER: '', KEY_PEPPER_FILE: file }), []);

  const both = problemsOf({ ...safe, KEY_PEPPER_FILE: file });
  assert.deepEqual(both, ['KEY_PEPPER and KEY_PEPPER_FILE are both set: keep one']);
  const missing = problemsOf({ ...safe, KEY_PEPPER: undefined, KEY_PEPPER_FILE: join(folder, 'none') });
  assert.deepEqual(missing, ['KEY_PEPPER_FILE names a file that cannot be read (ENOENT)'], 'one problem, told once');
  assert.deepEqual(problemsOf({ KEY_PEPPER_FILE: folder }), [
    'KEY_PEPPER_FILE names a file that cannot be read (EISDIR)',
  ]);
  const empty = join(folder, 'empty');
  await writeFile(empty, '\n');
  assert.deepEqual(named({ KEY_PEPPER_FILE: empty }), ['KEY_PEPPER']);
  assert.equal(loadConfig({ HOST_FILE: file }).HOST, '127.0.0.1', 'only secrets are read from files');
});

test('PUBLIC_URL is kept as a client spells it that has parsed it, and holds nothing but where the server is', () => {
  const kept = (url: string) => loadConfig({ PUBLIC_URL: url }).PUBLIC_URL;
  assert.equal(kept('https://IORA.Example:443/Base/'), 'https://iora.example/Base');
  assert.equal(kept('http://127.0.0.1:7145'), 'http://127.0.0.1:7145');
  for (const url of [
    'https://user:word@iora.example',
    'https://iora.example/?a=1',
    'https://iora.example/#a',
    'iora',
  ]) {
    assert.throws(
      () => kept(url),
      (error: Error) => /PUBLIC_URL must/.test(error.message) && !error.message.includes('word'),
      url,
    );
  }
});

test('secrets are refused when short, doubled or of the wrong form', () => {
  const pepper = (text: string) => named({ KEY_PEPPER: text }).length;
  for (const text of [
    'x',
    secretOf(),
    `1:${secretOf(31)}`,
    `0:${secretOf()}`,
    `1:${secretOf()},1:${secretOf(32, 9)}`,
    `1:${secretOf()},`,
    `1:${secretOf()} 2:${secretOf()}`,
    '1:',
    `-1:${secretOf()}`,
    `1:${'€'.repeat(50)}`,
  ]) {
    assert.equal(pepper(text), 1, text.slice(0, 20));
  }
  // AES-256 takes 32 bytes, no more.
  assert.deepEqual(named({ DATA_KEYS: `1:${secretOf(33)}` }), ['DATA_KEYS']);
  assert.deepEqual(named({ DATA_KEYS: `1:${secretOf(32)}` }), []);
});

test('what identity providers are told by is refused when nobody could sign in by it', () => {
  const pem = (bits: number, publicExponent = 65_537) =>
    generateKeyPairSync('rsa', { modulusLength: bits, publicExponent })
      .publicKey.export({ type: 'pkcs1', format: 'pem' })
      .toString();
  const publishable = `pk_test_${Buffer.from('clerk.example.com$').toString('base64')}`;
  const clerk = {
    PUBLIC_URL: 'https://iora.example.com',
    CLERK_PUBLISHABLE_KEY: publishable,
    CLERK_JWT_KEY: pem(2_048).replaceAll('\n', '\\n'),
  };
  const { CLERK_JWT_KEY: key } = loadConfig(clerk);
  assert.match(key ?? '', /^-----BEGIN PUBLIC KEY-----\n/, 'in the form that Clerk’s library reads');
  assert.deepEqual(named({ ...clerk, CLERK_JWT_KEY: pem(3_072) }), ['CLERK_JWT_KEY']);
  assert.deepEqual(named({ ...clerk, CLERK_JWT_KEY: pem(2_048, 3) }), ['CLERK_JWT_KEY']);
  assert.deepEqual(named({ ...clerk, CLERK_AUTHORIZED_PARTIES: ' , ' }), ['CLERK_AUTHORIZED_PARTIES']);
  for (const text of ['clerk.example.com', 'localhost$', 'https://clerk.example.com$']) {
    const malformed = `pk_test_${Buffer.from(text).toString('base64')}`;
    assert.deepEqual(named({ ...clerk, CLERK_PUBLISHABLE_KEY: malformed }), ['CLERK_PUBLISHABLE_KEY'], text);
  }
  const long = `https://id.example.com/${'x'.repeat(255)}`;
  assert.deepEqual(named({ PUBLIC_URL: clerk.PUBLIC_URL, OIDC_ISSUER: long, OIDC_AUDIENCE: 'a' }), ['OIDC_ISSUER']);
});

test('no problem repeats the value of a secret, whatever is wrong with it', async () => {
  const secrets = Object.entries(configSchema.shape)
    .filter(([, schema]) => settingMeta(schema).secret)
    .map(([name]) => name);
  assert.ok(secrets.length >= 8);
  const marker = 'hunter2secret';
  const values = fc.oneof(
    fc.constantFrom(
      marker,
      `1:${marker}`,
      `postgres//${marker}@h/db`,
      `postgres://${marker}:x@[bad/db`,
      `postgres://u:${marker}@db.example/x?sslmode=${marker}`,
      `${marker}\n${marker}`,
    ),
    fc.string({ maxLength: 20 }).map((text) => `${text}${marker}`),
  );
  const file = join(folder, 'secret');
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...secrets), values, fc.boolean(), async (name, value, inFile) => {
      await writeFile(file, value);
      const environment = {
        IORA_MODE: 'production',
        PORT: 'x',
        ...(inFile ? { [`${name}_FILE`]: file } : { [name]: value }),
      };
      const problems = problemsOf(environment);
      assert.ok(problems.length > 0);
      assert.equal(problems.join('\n').includes(marker), false);
    }),
    { numRuns: 300 },
  );
});

test('any environment is either taken or refused with reasons', () => {
  const names = Object.keys(configSchema.shape);
  const value = fc.oneof(
    fc.string({ maxLength: 30 }),
    fc.constantFrom(
      '0',
      '1',
      '-1',
      '1e9',
      '99999999999999',
      'true',
      'postgres://',
      'https://x',
      'a,b',
      '::/0',
      '10.0.0.0/33',
    ),
  );
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...names), value, { maxKeys: 8 }), (environment) => {
      problemsOf(environment);
    }),
    { numRuns: 500 },
  );
});

test('every setting says what it is for', () => {
  for (const [name, schema] of Object.entries(configSchema.shape)) {
    const { description, section } = settingMeta(schema);
    assert.ok(description.endsWith('.') && section.length > 0, name);
  }
});
