// The answers here are small ones written by hand in the shapes that the providers document; none was recorded.
import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { coinbase } from './coinbase.ts';
import { coingecko } from './coingecko.ts';
import { coinmarketcap } from './coinmarketcap.ts';
import { coinpaprika } from './coinpaprika.ts';
import { cryptocompare } from './cryptocompare.ts';
import { kraken } from './kraken.ts';
import { type FailureReason, type PriceSource, SourceError } from './price-source.ts';
import { BODY_BYTES_MAX } from './source-http.ts';
import { type Asset, assets } from './symbols.ts';

const NOW = Date.UTC(2026, 0, 2, 3, 4, 5);
const NOW_SECONDS = NOW / 1_000;
const NOW_ISO = '2026-01-02T03:04:05Z';
const API_KEY = 'k-0123456789';

const bitcoin = assets.find(({ symbol }) => symbol === 'BTC') as Asset;
const signal = new AbortController().signal;

let respond: (request: IncomingMessage, response: ServerResponse) => void;
let seen: IncomingMessage | undefined;
const server = createServer((request, response) => {
  seen = request;
  respond(request, response);
});
let baseUrl: string;

before(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

after(() => {
  server.closeAllConnections();
  server.close();
});

/** Has the server answer with a status and a body, which may be JSON text (to spell numbers exactly) or a value. */
function answerWith(body: unknown, status = 200): void {
  respond = (_request, response) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  };
}

interface Provider {
  readonly open: (baseUrl: string) => PriceSource;
  readonly url: string;
  readonly keyHeader?: readonly [name: string, value: string];
  /** The documented answer with this number as price, or with null. */
  readonly answer: (price: string) => string;
  /** Answers with which it says no, and what we make of them. */
  readonly refusals: readonly (readonly [body: unknown, status: number, reason: FailureReason])[];
}

const providers: Record<string, Provider> = {
  coingecko: {
    open: (baseUrl) => coingecko({ baseUrl, apiKey: API_KEY }),
    url: '/simple/price?ids=bitcoin&vs_currencies=usd&include_last_updated_at=true&precision=full',
    keyHeader: ['x-cg-demo-api-key', API_KEY],
    answer: (price) => `{"bitcoin":{"usd":${price},"last_updated_at":${NOW_SECONDS}}}`,
    refusals: [
      [{}, 200, 'not_listed'],
      [{ status: { error_code: 429, error_message: 'limit' } }, 429, 'status'],
      [{ bitcoin: {} }, 200, 'schema'],
    ],
  },
  coinpaprika: {
    open: (baseUrl) => coinpaprika({ baseUrl }),
    url: '/tickers/btc-bitcoin?quotes=USD',
    answer: (price) =>
      `{"id":"btc-bitcoin","last_updated":"${NOW_ISO}","quotes":{"USD":{"price":${price},"volume_24h":1}}}`,
    refusals: [
      [{ error: 'id not found' }, 404, 'not_listed'],
      [{ last_updated: NOW_ISO, quotes: {} }, 200, 'not_listed'],
      [{ error: 'id not found' }, 200, 'schema'],
    ],
  },
  coinmarketcap: {
    open: (baseUrl) => coinmarketcap({ baseUrl, apiKey: API_KEY }),
    url: '/v2/cryptocurrency/quotes/latest?id=1&convert=USD',
    keyHeader: ['x-cmc_pro_api_key', API_KEY],
    answer: (price) =>
      `{"status":{"error_code":0,"error_message":null},"data":{"1":{"id":1,"symbol":"BTC","quote":{"USD":{"price":${price},"last_updated":"2026-01-02T03:04:05.000Z"}}}}}`,
    refusals: [
      [{ status: { error_code: 1001, error_message: 'This API Key is invalid.' } }, 200, 'provider_error'],
      [{ status: { error_code: 1001, error_message: 'This API Key is invalid.' } }, 401, 'status'],
      [{ status: { error_code: 0 }, data: {} }, 200, 'not_listed'],
    ],
  },
  cryptocompare: {
    open: (baseUrl) => cryptocompare({ baseUrl, apiKey: API_KEY }),
    url: '/data/pricemultifull?fsyms=BTC&tsyms=USD',
    keyHeader: ['authorization', `Apikey ${API_KEY}`],
    answer: (price) => `{"RAW":{"BTC":{"USD":{"TYPE":"5","PRICE":${price},"LASTUPDATE":${NOW_SECONDS}}}},"DISPLAY":{}}`,
    refusals: [
      [{ Response: 'Error', Message: 'market does not exist for this coin pair', Data: {} }, 200, 'provider_error'],
      [{ RAW: { BTC: {} } }, 200, 'not_listed'],
      [{}, 500, 'status'],
    ],
  },
  kraken: {
    open: (baseUrl) => kraken({ baseUrl, wallClockMs: () => NOW }),
    url: '/0/public/Ticker?pair=XBTUSD',
    answer: (price) =>
      `{"error":[],"result":{"XXBTZUSD":{"a":["1","1","1.0"],"c":[${price === 'null' ? price : `"${price}"`},"0.0008"],"t":[5,7]}}}`,
    refusals: [
      [{ error: ['EQuery:Unknown asset pair'] }, 200, 'not_listed'],
      [{ error: ['EGeneral:Too many requests'] }, 200, 'provider_error'],
      [{ error: [], result: {} }, 200, 'schema'],
    ],
  },
  coinbase: {
    open: (baseUrl) => coinbase({ baseUrl }),
    url: '/products/BTC-USD/ticker',
    answer: (price) =>
      `{"trade_id":1,"price":${price === 'null' ? price : `"${price}"`},"size":"0.1","time":"2026-01-02T03:04:05.000000Z","bid":"1","ask":"2"}`,
    refusals: [
      [{ message: 'NotFound' }, 404, 'not_listed'],
      [{ message: 'forbidden' }, 403, 'status'],
    ],
  },
};

function isRefusal(name: string, reason: FailureReason) {
  return (error: unknown) => {
    assert.ok(error instanceof SourceError, String(error));
    assert.deepEqual([error.source, error.reason], [name, reason]);
    const told = `${error.message} ${error.cause}`;
    assert.ok(!told.includes(API_KEY) && !told.includes(baseUrl), `tells too much: ${told}`);
    return true;
  };
}

for (const [name, provider] of Object.entries(providers)) {
  test(`${name}: asks as documented and reads price and time, digit for digit`, async () => {
    const source = provider.open(baseUrl);
    assert.equal(source.name, name);
    assert.ok(source.knows(bitcoin, 'USD'));
    for (const price of ['67187.3358936566', '12345678901234567.123456789', '0.000000012345', '52609.60000']) {
      answerWith(provider.answer(price));
      assert.deepEqual(await source.fetchPrice(bitcoin, 'USD', signal), { name, price, asOf: new Date(NOW) });
    }
    assert.equal(seen?.url, provider.url);
    assert.equal(seen?.headers['user-agent'], 'iora');
    if (provider.keyHeader !== undefined) {
      const [header, value] = provider.keyHeader;
      assert.equal(seen?.headers[header], value);
    }
  });

  test(`${name}: every refusal is told apart and tells no key and no address`, async () => {
    const source = provider.open(baseUrl);
    const broken = [
      [provider.answer('null'), 200, 'schema'],
      [provider.answer('-5'), 200, 'schema'],
      ['<html>maintenance</html>', 200, 'schema'],
      ['', 200, 'schema'],
      ['[]', 200, 'schema'],
      ['null', 200, 'schema'],
      [{}, 503, 'status'],
    ] as const;
    for (const [body, status, reason] of [...provider.refusals, ...broken]) {
      answerWith(body, status);
      await assert.rejects(source.fetchPrice(bitcoin, 'USD', signal), isRefusal(name, reason), JSON.stringify(body));
    }
  });

  test(`${name}: an asset without its id, or a currency it does not quote, is not asked for`, () => {
    const source = provider.open(baseUrl);
    const nameless: Asset = {
      ...bitcoin,
      ids: {
        coingecko: null,
        coinpaprika: null,
        coinmarketcap: null,
        cryptocompare: null,
        kraken: null,
        coinbase: null,
      },
    };
    assert.equal(source.knows(nameless, 'USD'), false);
    assert.equal(source.knows(bitcoin, 'JPY'), name !== 'kraken' && name !== 'coinbase');
  });
}

test('a number with an exponent keeps its text', async () => {
  answerWith(providers['coingecko']?.answer('1.2e-7'));
  assert.equal((await coingecko({ baseUrl }).fetchPrice(bitcoin, 'USD', signal)).price, '1.2e-7');
  assert.equal(seen?.headers['x-cg-demo-api-key'], undefined);
});

test('an answer that does not end is cut off at its bound', async () => {
  let sent = 0;
  respond = (_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    const more = () => {
      while (!response.destroyed && sent < 64 * BODY_BYTES_MAX) {
        sent += 65_536;
        if (!response.write(Buffer.alloc(65_536, 0x20))) break;
      }
    };
    response.on('drain', more);
    more();
  };
  await assert.rejects(coinbase({ baseUrl }).fetchPrice(bitcoin, 'USD', signal), isRefusal('coinbase', 'too_large'));
  assert.ok(sent < 64 * BODY_BYTES_MAX, `${sent} bytes were taken`);
});

test('a redirect is not followed: it would carry the key along', async () => {
  let calls = 0;
  respond = (_request, response) => {
    calls++;
    response.writeHead(302, { location: `${baseUrl}/elsewhere` }).end();
  };
  const source = cryptocompare({ baseUrl, apiKey: API_KEY });
  await assert.rejects(source.fetchPrice(bitcoin, 'USD', signal), isRefusal('cryptocompare', 'unreachable'));
  assert.equal(calls, 1);
});

test('nobody listening is unreachable, and an aborted call is a timeout', async () => {
  const free = createServer();
  await new Promise<void>((resolve) => free.listen(0, '127.0.0.1', resolve));
  const unused = `http://127.0.0.1:${(free.address() as AddressInfo).port}`;
  await new Promise((resolve) => free.close(resolve));
  await assert.rejects(
    coinbase({ baseUrl: unused }).fetchPrice(bitcoin, 'USD', signal),
    isRefusal('coinbase', 'unreachable'),
  );

  const caller = new AbortController();
  respond = () => caller.abort();
  await assert.rejects(
    coinbase({ baseUrl }).fetchPrice(bitcoin, 'USD', caller.signal),
    isRefusal('coinbase', 'timeout'),
  );
});
