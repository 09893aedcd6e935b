// The question of the comparing benchmarks, as its bytes are sent.
import { signedHeaders } from '../src/lib/service-signature.ts';

const PATH = '/tools/get_price';

/** What get_price is asked. */
export const PRICE_BODY = JSON.stringify({ symbol: 'BTC' });

/** A request to get_price with those headers. */
export function priceRequest(headers: Readonly<Record<string, string>>): string {
  return [
    `POST ${PATH} HTTP/1.1`,
    'host: 127.0.0.1',
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    'content-type: application/json',
    `content-length: ${PRICE_BODY.length}`,
    '',
    PRICE_BODY,
  ].join('\r\n');
}

export interface Signer {
  readonly keyId: string;
  readonly secret: Uint8Array;
}

/** Headers of a request to get_price that is signed now; good for one request. */
export function signedPriceHeaders(signer: Signer): Record<string, string> {
  return signedHeaders({ ...signer, method: 'POST', target: PATH, body: PRICE_BODY }, Date.now());
}

/** A request to get_price that is signed now. */
export function signedPriceRequest(signer: Signer): string {
  return priceRequest(signedPriceHeaders(signer));
}
