import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { watch } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, type TestContext, test } from 'node:test';
import { Client } from 'pg';
import {
  attachEmbeddedPostgres,
  type EmbeddedPostgres,
  EmbeddedPostgresError,
  startEmbeddedPostgres,
} from './embedded-postgres.ts';
import { isRoot, lockHolder, processIdentity } from './embedded-postgres-lock.ts';
import { clusterProcesses, until } from './embedded-postgres-server.ts';

const CHILD = new URL('../../test/support/embedded-postgres-child.ts', import.meta.url).pathname;
/** Containers often forbid user namespaces, root's way to run PostgreSQL below a folder that is closed to other users. */
const CLOSED_WORKS = !isRoot() || spawnSync('unshare', ['--user', '--map-user=65534', 'true']).status === 0;
/** Below an open folder root runs PostgreSQL as a system user. */
const WAYS = CLOSED_WORKS ? (['open', 'closed'] as const) : (['open'] as const);

/** Children by data folder, ended before it is removed. */
const holders = new Map<string, ChildProcess[]>();

interface Fact {
  readonly [name: string]: unknown;
}

interface Child {
  readonly process: ChildProcess;
  /** The first thing the child says that has this name; rejects when it ends without saying it. */
  said(name: string): Promise<Fact>;
  readonly exited: Promise<unknown>;
}

function dataFolder(t: TestContext, way: 'open' | 'closed' = 'open'): string {
  const dataDir = newFolder(way);
  t.after(() => {
    for (const holder of holders.get(dataDir) ?? []) holder.kill('SIGKILL');
    for (const pid of clusterProcesses(join(dataDir, 'postgres'))) kill(pid, 'SIGKILL');
    rmSync(join(dataDir, '..'), { recursive: true, force: true, maxRetries: 10 });
  });
  return dataDir;
}

const templates = new Map<string, Promise<string>>();
after(async () => {
  for (const template of templates.values()) rmSync(join(await template, '..'), { recursive: true });
});

/** A data folder after its first start; a copy, because that start is the slow one. */
async function begunFolder(t: TestContext, way: 'open' | 'closed' = 'open'): Promise<string> {
  const template = templates.get(way) ?? beginFolder(way);
  templates.set(way, template);
  const dataDir = dataFolder(t, way);
  execFileSync('cp', ['-a', await template, dataDir]);
  return dataDir;
}

async function beginFolder(way: 'open' | 'closed'): Promise<string> {
  const dataDir = newFolder(way);
  const database = await startEmbeddedPostgres({ dataDir });
  await database.stop();
  return dataDir;
}

function newFolder(way: 'open' | 'closed'): string {
  const base = mkdtempSync(join(tmpdir(), 'iora-postgres-'));
  if (way === 'open') chmodSync(base, 0o755);
  return join(base, 'data');
}

function child(mode: string, dataDir: string): Child {
  const spawned = spawn(process.execPath, [CHILD, mode, dataDir], {
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: true,
    env: { ...process.env, CALLER_SECRET: 'caller-secret' },
  });
  const facts: Fact[] = [];
  const news = new EventEmitter();
  const lines = createInterface({ input: spawned.stdout });
  lines.on('line', (line) => {
    facts.push(JSON.parse(line));
    news.emit('fact');
  });
  const ended = once(lines, 'close').then(() => news.emit('fact', 'ended'));
  const exited = once(spawned, 'exit').then(([code, signal]) => signal ?? code);
  holders.set(dataDir, [...(holders.get(dataDir) ?? []), spawned]);
  return {
    process: spawned,
    exited,
    async said(name) {
      for (let over = false; ; ) {
        const found = facts.find((fact) => name in fact);
        if (found !== undefined) return found;
        if (over) throw new Error(`The child never said ${name}, but ${JSON.stringify(facts)}`);
        over = await Promise.race([once(news, 'fact').then(([word]) => word === 'ended'), ended.then(() => true)]);
      }
    },
  };
}

function kill(pid: number, signal: NodeJS.Signals): void {
  if (processIdentity(pid) !== undefined) process.kill(pid, signal);
}

function serverPid(dataDir: string): number {
  return Number.parseInt(readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8'), 10);
}

async function query(database: EmbeddedPostgres, text: string, values: unknown[] = []): Promise<Fact[]> {
  const client = new Client(database.url('postgres'));
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query<Fact>(text, values)).rows;
  } finally {
    await client.end();
  }
}

async function keepNote(dataDir: string, note: string): Promise<void> {
  const database = await attachEmbeddedPostgres({ dataDir });
  await query(database, 'CREATE TABLE IF NOT EXISTS notes (note text)');
  await query(database, 'INSERT INTO notes VALUES ($1)', [note]);
  await database.stop();
}

async function notes(database: EmbeddedPostgres): Promise<unknown[]> {
  return (await query(database, 'SELECT note FROM notes ORDER BY note')).map((row) => row['note']);
}

/** A process started a server and left a note in it. */
async function runningServer(dataDir: string): Promise<Child> {
  const holder = child('start', dataDir);
  await holder.said('ready');
  await keepNote(dataDir, 'kept');
  return holder;
}

async function killHolder(holder: Child): Promise<void> {
  holder.process.kill('SIGKILL');
  await holder.exited;
}

/** The next start works, finds the data, and leaves nothing running when it stops. */
async function assertStartsWithData(dataDir: string): Promise<void> {
  const database = await startEmbeddedPostgres({ dataDir });
  assert.equal(database.started, true);
  assert.deepEqual(await notes(database), ['kept']);
  await database.stop();
  assert.deepEqual(clusterProcesses(join(dataDir, 'postgres')), []);
}

function assertOneLine(error: unknown, ...parts: readonly string[]): true {
  assert.ok(error instanceof EmbeddedPostgresError, String(error));
  assert.ok(!error.message.includes('\n'), error.message);
  for (const part of parts) assert.ok(error.message.includes(part), `${error.message} lacks ${part}`);
  return true;
}

/** True when every user can enter all folders of the path. */
function isOpenToAll(path: string): boolean {
  const folders = path.split('/').map((_, depth, names) => names.slice(0, depth + 1).join('/') || '/');
  return folders.every((folder) => (statSync(folder).mode & 0o001) === 0o001);
}

// Two at a time: most of a test is waiting for processes.
describe('embedded PostgreSQL', { concurrency: 2, timeout: 300_000 }, () => {
  for (const way of WAYS) {
    test(`first start, settings, file modes and a second start with the data kept (folder ${way})`, async (t) => {
      const dataDir = dataFolder(t, way);
      const first = await startEmbeddedPostgres({ dataDir });
      const settings = `SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
      current_setting('full_page_writes') AS full_page_writes, current_setting('data_checksums') AS data_checksums,
      current_setting('password_encryption') AS password_encryption, current_setting('listen_addresses') AS listen_addresses,
      current_setting('server_encoding') AS server_encoding, current_setting('timezone') AS timezone,
      current_setting('unix_socket_directories') AS unix_socket_directories, current_database() AS database,
      (SELECT datcollate FROM pg_database WHERE datname = 'iora') AS locale,
      (SELECT bool_and(auth_method = 'scram-sha-256') FROM pg_hba_file_rules) AS scram_only,
      current_setting('server_version_num')::int / 10000 AS major`;
      assert.deepEqual(await query(first, settings), [
        {
          fsync: 'on',
          synchronous_commit: 'on',
          full_page_writes: 'on',
          data_checksums: 'on',
          password_encryption: 'scram-sha-256',
          listen_addresses: '127.0.0.1',
          server_encoding: 'UTF8',
          timezone: 'UTC',
          unix_socket_directories: '',
          database: 'iora',
          locale: 'C.UTF-8',
          scram_only: true,
          major: 18,
        },
      ]);
      await keepNote(dataDir, 'kept');

      const mode = (...path: string[]) => (statSync(join(dataDir, ...path)).mode & 0o777).toString(8);
      const owner = statSync(join(dataDir, 'postgres')).uid;
      assert.equal(first.password('postgres').length, 43);
      assert.equal(first.password('iora_app'), first.password('iora_app'));
      assert.notEqual(first.password('iora_app'), first.password('postgres'));
      assert.equal(
        first.url('iora_app', 'other'),
        `postgres://iora_app:${first.password('iora_app')}@127.0.0.1:${first.port}/other`,
      );
      assert.throws(() => first.password('../escape'), EmbeddedPostgresError);
      const files = [
        ['secrets', 'postgres.password'],
        ['secrets', 'iora_app.password'],
        ['postgres.lock'],
        ['postgres.log'],
      ];
      assert.deepEqual(
        files.map((path) => mode(...path)),
        ['600', '600', '600', '600'],
      );
      assert.deepEqual([mode('secrets'), mode('postgres')], ['700', '700']);
      // A system user's group may pass through the folder to reach the cluster, and nothing else.
      assert.equal(mode(), isRoot() && owner !== 0 ? '710' : '700');
      assert.deepEqual(readdirSync(dataDir).sort(), ['postgres', 'postgres.lock', 'postgres.log', 'secrets']);
      if (isRoot()) assert.equal(owner !== 0, isOpenToAll(join(dataDir, '..')) && isOpenToAll(import.meta.dirname));

      await Promise.all([first.stop(), first.stop()]);
      assert.ok(!existsSync(join(dataDir, 'postgres.lock')));
      await assertStartsWithData(dataDir);
      assert.equal(statSync(join(dataDir, 'postgres')).uid, owner);
    });

    test(`after SIGKILL of the holder, and of holder and server, the next start works (folder ${way})`, async (t) => {
      const dataDir = await begunFolder(t, way);
      await killHolder(await runningServer(dataDir));
      assert.notDeepEqual(clusterProcesses(join(dataDir, 'postgres')), [], 'the server outlives its holder');
      await assertStartsWithData(dataDir);

      const holder = child('start', dataDir);
      await holder.said('ready');
      await killHolder(holder);
      kill(serverPid(dataDir), 'SIGKILL');
      await assertStartsWithData(dataDir);
    });
  }

  if (isRoot() && isOpenToAll(tmpdir()) && isOpenToAll(import.meta.dirname)) {
    test('root stays with the user a folder was begun with, or says what stands against it', async (t) => {
      const dataDir = await begunFolder(t);
      await keepNote(dataDir, 'kept');
      const { uid } = statSync(join(dataDir, 'postgres'));
      chmodSync(join(dataDir, '..'), 0o700);
      await assert.rejects(startEmbeddedPostgres({ dataDir }), (error) =>
        assertOneLine(error, dataDir, `user id ${uid}`),
      );
      chmodSync(join(dataDir, '..'), 0o755);
      await assertStartsWithData(dataDir);
    });

    test('root uses the folder of another user as that user, who can go on with it', async (t) => {
      const dataDir = dataFolder(t);
      const uid = Number(spawnSync('id', ['-u', 'nobody'], { encoding: 'utf8' }).stdout);
      mkdirSync(dataDir, { mode: 0o700 });
      chownSync(dataDir, uid, uid);
      await killHolder(await runningServer(dataDir));
      const owners = readdirSync(dataDir, { recursive: true }).map((name) => statSync(join(dataDir, String(name))).uid);
      assert.deepEqual(new Set(owners), new Set([uid]));
    });
  }

  if (isRoot() && CLOSED_WORKS) {
    test('root stays with the user namespace a folder was begun with', async (t) => {
      const dataDir = await begunFolder(t, 'closed');
      await keepNote(dataDir, 'kept');
      chmodSync(join(dataDir, '..'), 0o755);
      await assertStartsWithData(dataDir);
      assert.equal(statSync(join(dataDir, 'postgres')).uid, 0);
    });
  }

  if (!CLOSED_WORKS) {
    test('a folder that no system user can enter is told to root in one line', async (t) => {
      const dataDir = dataFolder(t, 'closed');
      await assert.rejects(startEmbeddedPostgres({ dataDir }), (error) => assertOneLine(error, dataDir, 'root'));
    });
  }

  test('a second server on the folder is refused with one line naming folder and process', async (t) => {
    const dataDir = await begunFolder(t);
    const holder = await runningServer(dataDir);
    const refusal = (error: unknown) =>
      assertOneLine(error, dataDir, `process id ${holder.process.pid}`, 'IORA_DATA_DIR');
    await assert.rejects(startEmbeddedPostgres({ dataDir }), refusal);
    holder.process.kill('SIGTERM');
    assert.equal(await holder.exited, 0);
    await assertStartsWithData(dataDir);
  });

  test('of two servers started at once one wins, on a new folder and on one left by a crash', async (t) => {
    const dataDir = dataFolder(t);
    for (const state of ['new', 'crashed']) {
      const rivals = [child('start', dataDir), child('start', dataDir)];
      const results = await Promise.all(
        rivals.map((rival) => Promise.any([rival.said('ready'), rival.said('failed')])),
      );
      assert.equal(results.filter((fact) => fact['ready']).length, 1, `${state}: ${JSON.stringify(results)}`);
      assert.match(String(results.find((fact) => fact['failed'])?.['failed']), /is in use by the server/);
      await Promise.all(rivals.map(killHolder));
    }
  });

  test('a signal to the whole process group, as Ctrl-C sends it, lets the holder finish its work first', async (t) => {
    const dataDir = await begunFolder(t);
    const holder = await runningServer(dataDir);
    const [pid] = clusterProcesses(join(dataDir, 'postgres'));
    assert.ok(pid);
    const password = readFileSync(join(dataDir, 'secrets', 'postgres.password'), 'utf8');
    if (process.platform === 'linux') {
      const visible = ['cmdline', 'environ']
        .map((file) => readFileSync(`/proc/${serverPid(dataDir)}/${file}`, 'utf8'))
        .join();
      assert.ok(!visible.includes(password) && !visible.includes('caller-secret'));
    }
    process.kill(-(holder.process.pid ?? Number.NaN), 'SIGINT');
    assert.ok(Number((await holder.said('drained'))['drained']) > 0);
    assert.equal(await holder.exited, 0);
    assert.deepEqual(clusterProcesses(join(dataDir, 'postgres')), []);
  });

  test('a command attaches beside a server, leaves it running, and runs its own where there is none', async (t) => {
    const dataDir = await begunFolder(t);
    const alone = await attachEmbeddedPostgres({ dataDir });
    assert.equal(alone.started, true);
    await assert.rejects(startEmbeddedPostgres({ dataDir }), (error) => assertOneLine(error, dataDir, 'a command'));
    await alone.stop();
    assert.deepEqual(clusterProcesses(join(dataDir, 'postgres')), []);

    const holder = await runningServer(dataDir);
    const beside = await attachEmbeddedPostgres({ dataDir });
    assert.equal(beside.started, false);
    assert.equal(beside.port, (await holder.said('ready'))['port']);
    assert.deepEqual(await notes(beside), ['kept']);
    await beside.stop();
    await beside.stop();
    await keepNote(dataDir, 'server still there');
    const last = await attachEmbeddedPostgres({ dataDir });
    holder.process.kill('SIGTERM');
    assert.equal(await holder.exited, 0, 'a server does not wait for commands');
    await last.stop();
  });

  test('commands started at once without a server all finish, whichever of them runs the database', async (t) => {
    const dataDir = dataFolder(t);
    const commands = [child('work', dataDir), child('work', dataDir), child('work', dataDir)];
    await Promise.all(commands.map((command) => command.said('done')));
    const ready = await Promise.all(commands.map((command) => command.said('ready')));
    assert.ok(ready.some((fact) => fact['started']));
    assert.deepEqual(await Promise.all(commands.map((command) => command.exited)), [0, 0, 0]);
    assert.deepEqual(clusterProcesses(join(dataDir, 'postgres')), []);
  });

  test('a process that is done ends without stop(), and what it leaves blocks nothing', async (t) => {
    const dataDir = await begunFolder(t);
    const leaver = child('leave', dataDir);
    assert.equal(await leaver.exited, 0);
    await keepNote(dataDir, 'kept');
    await assertStartsWithData(dataDir);
  });

  test('a server that is killed comes back on its port, after its busy sessions are gone', async (t) => {
    const dataDir = await begunFolder(t);
    const events = new EventEmitter();
    const database = await startEmbeddedPostgres({ dataDir, log: (event, details) => events.emit(event, details) });
    await keepNote(dataDir, 'kept');
    const before = serverPid(dataDir);
    const client = new Client(database.url('postgres'));
    client.on('error', () => {});
    await client.connect();
    const busy = once(client, 'notice');
    // An empty loop never looks up, so this session does not notice by itself that its server is gone.
    const cutOff = assert.rejects(client.query(`DO $$ BEGIN RAISE NOTICE 'busy'; LOOP END LOOP; END $$`));
    await busy;
    const restarted = once(events, 'embedded_postgres.restarted');
    kill(before, 'SIGKILL');
    assert.deepEqual((await restarted)[0], { port: database.port });
    await cutOff;
    assert.deepEqual(await notes(database), ['kept']);
    assert.notEqual(serverPid(dataDir), before);
    assert.equal(lockHolder(join(dataDir, 'postgres.lock'))?.postmasterPid, serverPid(dataDir));
    await database.stop();
    await assertStartsWithData(dataDir);
  });

  test('a server that cannot come back is given up after a bounded number of restarts', async (t) => {
    const dataDir = await begunFolder(t);
    const events = new EventEmitter();
    const database = await startEmbeddedPostgres({ dataDir, log: (event, details) => events.emit(event, details) });
    await keepNote(dataDir, 'kept');
    let failures = 0;
    const squatter = createServer();
    t.after(() => squatter.close());
    events.once('embedded_postgres.died', () => squatter.listen(database.port, '127.0.0.1'));
    events.on('embedded_postgres.restart_failed', () => failures++);
    const gaveUp = once(events, 'embedded_postgres.gave_up');
    kill(serverPid(dataDir), 'SIGKILL');
    await gaveUp;
    assert.equal(failures, 5);
    await database.stop();
    await assertStartsWithData(dataDir);
  });

  test('a stale postmaster.pid blocks nothing: one naming a process that is not PostgreSQL, and an empty one', async (t) => {
    // In a namespace root's PostgreSQL may signal our parent, as an ordinary user's may, and so would believe the file.
    const dataDir = await begunFolder(t, CLOSED_WORKS ? 'closed' : 'open');
    const pidFile = join(dataDir, 'postgres', 'postmaster.pid');
    await keepNote(dataDir, 'kept');
    for (const damage of [(text: string) => text.replace(/^\d+/, `${process.ppid}`), () => '']) {
      const holder = child('start', dataDir);
      await holder.said('ready');
      await killHolder(holder);
      const text = readFileSync(pidFile, 'utf8');
      kill(serverPid(dataDir), 'SIGKILL');
      writeFileSync(pidFile, damage(text));
      await assertStartsWithData(dataDir);
    }
  });

  test('a server that hangs is stopped, by its holder and after its holder was killed', async (t) => {
    const dataDir = await begunFolder(t);
    const holder = await runningServer(dataDir);
    for (const pid of clusterProcesses(join(dataDir, 'postgres'))) kill(pid, 'SIGSTOP');
    truncateSync(join(dataDir, 'postgres.log'));
    await killHolder(holder);
    const database = await startEmbeddedPostgres({ dataDir });
    assert.match(readFileSync(join(dataDir, 'postgres.log'), 'utf8'), /received fast shutdown request/);
    assert.deepEqual(await notes(database), ['kept']);
    for (const pid of clusterProcesses(join(dataDir, 'postgres'))) kill(pid, 'SIGSTOP');
    await database.stop();
    await assertStartsWithData(dataDir);
  });

  test('an initialisation killed in the middle leaves nothing that blocks', async (t) => {
    const dataDir = dataFolder(t);
    mkdirSync(dataDir, { mode: 0o700 });
    const changes = watch(dataDir);
    const holder = child('start', dataDir);
    let draft = '';
    for await (const { filename } of changes) {
      draft = join(dataDir, filename ?? '');
      if (filename?.startsWith('postgres.init-')) break;
    }
    await killHolder(holder);
    assert.ok(!existsSync(join(dataDir, 'postgres')));
    await keepNote(dataDir, 'kept');
    // Its initdb was not killed and ends when it finds its files gone; then the next start leaves none.
    const isOver = () => !spawnSync('ps', ['-axww', '-o', 'command='], { encoding: 'utf8' }).stdout.includes(draft);
    assert.ok(await until(isOver, 20_000));
    await assertStartsWithData(dataDir);
    assert.deepEqual(readdirSync(dataDir).sort(), ['postgres', 'postgres.log', 'secrets']);
  });

  test('a start that fails says why in one line, leaves nothing running and the folder free', async (t) => {
    const dataDir = await begunFolder(t);
    await keepNote(dataDir, 'kept');
    const configuration = join(dataDir, 'postgres', 'postgresql.auto.conf');
    const good = readFileSync(configuration);
    writeFileSync(configuration, 'no_such_setting = 1\n');
    const reason = (error: unknown) => assertOneLine(error, dataDir, 'no_such_setting', 'postgres.log');
    await assert.rejects(startEmbeddedPostgres({ dataDir }), reason);
    assert.deepEqual(clusterProcesses(join(dataDir, 'postgres')), []);
    writeFileSync(configuration, good);
    await assertStartsWithData(dataDir);

    const secret = join(dataDir, 'secrets', 'postgres.password');
    const password = readFileSync(secret);
    rmSync(secret);
    await assert.rejects(startEmbeddedPostgres({ dataDir }), (error) => assertOneLine(error, secret));
    writeFileSync(secret, 'not the password', { mode: 0o600 });
    await assert.rejects(attachEmbeddedPostgres({ dataDir }), (error) =>
      assertOneLine(error, dataDir, 'refuses the password'),
    );
    writeFileSync(secret, password);
    await assertStartsWithData(dataDir);
  });

  test('the log is bounded and holds no data of statements', async (t) => {
    const dataDir = await begunFolder(t);
    await keepNote(dataDir, 'kept');
    const log = join(dataDir, 'postgres.log');
    writeFileSync(log, 'x'.repeat(9 * 1024 * 1024));
    const database = await startEmbeddedPostgres({ dataDir });
    assert.equal(statSync(`${log}.1`).size, 9 * 1024 * 1024);
    assert.equal(statSync(log).mode & 0o777, 0o600);
    await query(database, 'CREATE UNIQUE INDEX ON notes (note)');
    for (const text of ['SELECT $1::text::int', 'INSERT INTO notes SELECT $1 FROM generate_series(1, 2)']) {
      await assert.rejects(query(database, text, ['sesame-parameter']), /sesame-parameter|duplicate/);
    }
    await assert.rejects(query(database, `SELECT 'sesame-literal'::int`));
    await database.stop();
    const written = readFileSync(log, 'utf8');
    assert.ok(written.includes('database system is ready'));
    assert.ok(!written.includes('sesame'), written);
  });

  test('the servers of a folder are found also without /proc', async (t) => {
    const dataDir = await begunFolder(t);
    const database = await startEmbeddedPostgres({ dataDir });
    assert.deepEqual(clusterProcesses(join(dataDir, 'postgres'), 'darwin'), [serverPid(dataDir)]);
    await database.stop();
  });
});

test('a data folder that cannot be used, and a platform without PostgreSQL, are told in one line', async (t) => {
  const dataDir = dataFolder(t);
  writeFileSync(dataDir, 'a file');
  await assert.rejects(startEmbeddedPostgres({ dataDir }), (error) => assertOneLine(error, dataDir, 'IORA_DATA_DIR'));
  rmSync(dataDir);
  const { arch } = process;
  t.after(() => Object.defineProperty(process, 'arch', { value: arch }));
  Object.defineProperty(process, 'arch', { value: 'pdp11' });
  const refusal = (error: unknown) => assertOneLine(error, `${process.platform}-pdp11`, 'DATABASE_URL');
  await assert.rejects(startEmbeddedPostgres({ dataDir }), refusal);
  assert.deepEqual(readdirSync(dataDir), [], 'the folder is free again');
});
