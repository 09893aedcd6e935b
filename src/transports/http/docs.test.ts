import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { errorTable } from '../../kernel/errors.ts';
import { testOperations, testServer } from './test-server.ts';

async function get(url: string, options?: Parameters<typeof testServer>[0]) {
  const { app } = testServer(options);
  return app.inject({ method: 'GET', url });
}

function anchorsOf(html: string): Set<string> {
  return new Set([...html.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id ?? ''));
}

test('the pages load nothing, run nothing, and may not be framed', async () => {
  for (const url of ['/docs', '/docs/errors']) {
    const answer = await get(url);
    assert.equal(answer.statusCode, 200);
    assert.equal(answer.headers['content-type'], 'text/html; charset=utf-8');
    assert.doesNotMatch(answer.body, /<script|<img|@import|url\(|<[^>]+ style=|<[^>]+ on[a-z]+=/);
    const [, style = ''] = /<style>([\s\S]*)<\/style>/.exec(answer.body) ?? [];
    const hash = createHash('sha256').update(style).digest('base64');
    const policy = String(answer.headers['content-security-policy']);
    assert.ok(policy.startsWith("default-src 'none';"));
    assert.ok(policy.includes(`style-src 'sha256-${hash}';`));
    assert.ok(policy.includes("frame-ancestors 'none'"));
  }
});

test('every link leads to an anchor that is there', async () => {
  const pages = new Map([
    ['/docs', (await get('/docs')).body],
    ['/docs/errors', (await get('/docs/errors')).body],
  ]);
  for (const [from, html] of pages) {
    const links = [...html.matchAll(/<a [^>]*href="([^"]+)"/g)].map(([, href]) => href ?? '');
    assert.ok(links.length > 10);
    for (const link of links) {
      const [path = '', anchor] = link.split('#');
      if (path === '/openapi.json') continue;
      const page = pages.get(path === '' ? from : path);
      assert.ok(page !== undefined, link);
      if (anchor !== undefined) assert.ok(anchorsOf(page).has(anchor), link);
    }
  }
});

test('every operation has its section, with a command that can be copied', async () => {
  const { body } = await get('/docs', { publicUrl: 'https://iora.example' });
  for (const operation of testOperations()) {
    assert.equal(anchorsOf(body).has(operation.name), operation.transports.includes('http'));
  }
  const commands = [...body.matchAll(/<pre><code>([^<]+)<\/code>/g)].map(([, text]) => text);
  assert.ok(
    commands.includes(
      "curl -sS -X POST https://iora.example/tools/get_price \\\n  -H &quot;Authorization: Bearer $IORA_KEY&quot; \\\n  -H &quot;Content-Type: application/json&quot; \\\n  -d '{&quot;symbol&quot;:&quot;BTC&quot;}'",
    ),
  );
  assert.ok(commands.some((text) => text?.includes("'https://iora.example/user/api-keys?limit=10'")));
  assert.ok(
    commands.some((text) => text?.includes("o'\\''hara")),
    'a quote is kept from the shell',
  );
  assert.match(body, /sources\[\]\.name/);
  assert.match(body, /such as <code>BTC<\/code>/);
});

test('what operations say is text, never markup', async () => {
  const [operation] = testOperations();
  assert.ok(operation);
  const { body } = await get('/docs', { operations: [{ ...operation, summary: '<b onclick="x">&</b>' }] });
  assert.ok(body.includes('&lt;b onclick=&quot;x&quot;&gt;&amp;&lt;/b&gt;'));
});

test('every error code has its section, under the anchor that a problem names', async () => {
  const { body } = await get('/docs/errors');
  for (const code of Object.keys(errorTable)) assert.ok(anchorsOf(body).has(code), code);
});
