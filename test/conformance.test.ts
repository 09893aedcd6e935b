// The official conformance suite against a running server, in both its versions: 0.1 knows the revisions up to 2025-11-25,
// the alpha of 0.2 knows 2026-07-28. A loopback proxy adds the key, because the suite has no credentials of its own.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createServer, request as forward } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startTestServer } from './support/server.ts';

interface Scenario {
  readonly name: string;
  /** How many checks this version of the suite makes, so that a run that checked less does not pass. */
  readonly checks: number;
  /** Checks that do not apply here, by id, with the reason. */
  readonly notApplicable?: Readonly<Record<string, string>>;
}

const noTestTool = 'asks for a tool that exists only for the suite; every tool here is an operation of the product';
const noListChanges = 'the server announces no changes of its lists, as server/discover says';
const noPrompts = 'the server has no prompts, as server/discover says';
const noResources = 'the server has no resources, as server/discover says';

const suites: readonly { version: string; cli: string; flags: readonly string[]; scenarios: readonly Scenario[] }[] = [
  {
    version: '0.1, revisions up to 2025-11-25',
    cli: cliOf(import.meta.resolve('mcp-conformance-0.1/package.json')),
    flags: [],
    scenarios: [
      { name: 'server-initialize', checks: 1 },
      { name: 'ping', checks: 1 },
      { name: 'tools-list', checks: 1 },
      { name: 'dns-rebinding-protection', checks: 2 },
    ],
  },
  {
    version: '0.2, revision 2026-07-28',
    cli: cliOf(import.meta.resolve('mcp-conformance-0.2/package.json')),
    flags: ['--spec-version', '2026-07-28'],
    scenarios: [
      { name: 'tools-list', checks: 4 },
      { name: 'http-header-validation', checks: 14 },
      { name: 'dns-rebinding-protection', checks: 2 },
      {
        name: 'server-stateless',
        checks: 30,
        notApplicable: {
          'sep-2575-server-rejects-undeclared-capability': noTestTool,
          'sep-2575-missing-capability-http-400': noTestTool,
          'sep-2575-http-server-no-independent-requests-on-stream': noTestTool,
          'sep-2575-server-no-log-without-loglevel': noTestTool,
          'sep-2575-server-sends-prompts-list-changed-on-subscription': noListChanges,
          'sep-2575-server-sends-tools-list-changed-on-subscription': noListChanges,
        },
      },
      {
        name: 'caching',
        checks: 8,
        notApplicable: {
          'sep-2549-prompts-list-caching-hints': noPrompts,
          'sep-2549-resources-list-caching-hints': noResources,
          'sep-2549-resources-templates-list-caching-hints': noResources,
          'sep-2549-resources-read-caching-hints': noResources,
        },
      },
    ],
  },
];

describe('MCP conformance', () => {
  let server: Awaited<ReturnType<typeof startTestServer>>;
  let proxy: Awaited<ReturnType<typeof startProxy>>;
  let results: string;

  before(async () => {
    server = await startTestServer();
    proxy = await startProxy(server.baseUrl, await server.createKey());
    results = await mkdtemp(join(tmpdir(), 'iora-conformance-'));
  });

  after(async () => {
    await proxy?.stop();
    await server?.stop();
    if (results !== undefined) await rm(results, { recursive: true });
  });

  for (const [index, { version, cli, flags, scenarios }] of suites.entries()) {
    for (const { name, checks, notApplicable = {} } of scenarios) {
      it(`${version}: ${name}`, async (t) => {
        const folder = join(results, `${index}-${name}`);
        const args = [cli, 'server', '--url', `${proxy.url}/mcp`, '--scenario', name, ...flags, '-o', folder];
        const found = await runScenario(args, folder);
        assert.equal(found.length, checks);
        const unmet = found.filter(({ status }) => status !== 'SUCCESS');
        const unexpected = unmet.filter(({ id }) => !(id in notApplicable));
        assert.deepEqual(unexpected, []);
        assert.deepEqual(unmet.map(({ id }) => id).sort(), Object.keys(notApplicable).sort());
        for (const [id, reason] of Object.entries(notApplicable)) t.diagnostic(`${id} does not apply: ${reason}`);
      });
    }
  }
});

interface Check {
  readonly id: string;
  readonly status: string;
  readonly errorMessage?: string;
}

/** A scenario has a time limit of 30 s of its own; one that does not keep it is ended. */
const SCENARIO_TIMEOUT_MS = 45_000;

/** Runs one scenario and returns the checks it wrote below `folder`. Its exit code is 1 for checks that do not apply, too. */
async function runScenario(args: readonly string[], folder: string): Promise<Check[]> {
  const said = await new Promise<string>((resolve) => {
    execFile(process.execPath, args, { timeout: SCENARIO_TIMEOUT_MS }, (_, stdout, stderr) => resolve(stdout + stderr));
  });
  const [run] = await readdir(folder).catch(() => []);
  assert.ok(run, `the suite wrote no results and said: ${said}`);
  return JSON.parse(await readFile(join(folder, run, 'checks.json'), 'utf8'));
}

/** Passes requests on as they are, `Host` and `Origin` included, with the key added. */
async function startProxy(target: string, key: string): Promise<{ url: string; stop(): Promise<void> }> {
  const { hostname, port } = new URL(target);
  const proxy = createServer((request, response) => {
    const { method, url, headers } = request;
    const outgoing = forward(
      { hostname, port, method, path: url, headers: { ...headers, authorization: `Bearer ${key}` } },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      },
    );
    outgoing.on('error', () => response.destroy());
    request.pipe(outgoing);
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    async stop() {
      await new Promise((resolve) => {
        proxy.close(resolve);
        proxy.closeAllConnections();
      });
    },
  };
}

/** The program of a conformance package, from the address of its package.json. */
function cliOf(packageFile: string): string {
  return fileURLToPath(new URL('dist/index.js', packageFile));
}
