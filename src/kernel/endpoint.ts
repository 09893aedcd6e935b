import type { Principal } from './context.ts';

/**
 * A plain HTTP endpoint: what is not an operation (health, metrics, later webhooks) and therefore stands outside
 * `invoke`. It never costs anything and is never a tool.
 */
export interface Endpoint {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly summary: string;
  answer(request: EndpointRequest): EndpointAnswer | Promise<EndpointAnswer>;
}

export interface EndpointRequest {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** The caller's address, forwarding headers believed only from TRUSTED_PROXIES. */
  readonly ipAddress: string;
  /** Address of the peer of the connection itself. */
  readonly peerAddress: string;
  /** The raw body, read at most once. Rejects with an AppError where it is too large or cut short. */
  body(): Buffer | Promise<Buffer>;
  /** The caller when a valid credential came along; null when none came or it is not valid. */
  principal(): Promise<Principal | null>;
}

export interface EndpointAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}
