import { createHash, timingSafeEqual } from 'node:crypto';
import type { Endpoint, EndpointRequest } from '../../kernel/endpoint.ts';
import { AppError } from '../../kernel/errors.ts';
import type { Metrics } from '../../platform/metrics.ts';

export interface MetricsEndpointParts {
  readonly metrics: Metrics;
  readonly token: string | undefined;
  readonly mode: 'development' | 'production';
}

/** Headers by which a proxy shows itself; with one of them a loopback peer is not the caller. */
const FORWARDING_HEADERS = ['forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-real-ip', 'via'];

/** `GET /metrics` in Prometheus text: with the token, or in development from this machine itself. Else it is not there. */
export function createMetricsEndpoint(parts: MetricsEndpointParts): Endpoint {
  return {
    method: 'GET',
    path: '/metrics',
    summary: 'Prometheus metrics',
    async answer(request) {
      if (!mayRead(parts, request)) throw new AppError('not_found', 'There is nothing at this address.');
      return { status: 200, contentType: parts.metrics.contentType, body: await parts.metrics.text() };
    },
  };
}

function mayRead({ token, mode }: MetricsEndpointParts, request: EndpointRequest): boolean {
  if (token !== undefined) return equal(request.headers['authorization'], `Bearer ${token}`);
  const direct = FORWARDING_HEADERS.every((name) => request.headers[name] === undefined);
  return mode === 'development' && direct && isLoopback(request.peerAddress);
}

/** Compares digests, which have one length whatever was sent, in constant time. */
function equal(given: string | string[] | undefined, expected: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return typeof given === 'string' && timingSafeEqual(digest(given), digest(expected));
}

function isLoopback(address: string): boolean {
  return address === '::1' || /^(?:::ffff:)?127\./.test(address);
}
