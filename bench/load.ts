// The load generator, a program of its own: it is sent one order at a time and answers each with a report. It speaks just
// enough HTTP/1.1 for servers that give `Content-Length`: anything richer would cost more than the servers it measures.
import { connect, type Socket } from 'node:net';
import { signedPriceRequest } from './price-request.ts';

/** What to send and for how long. Comes over the parent's channel, because a request may hold a key. */
export interface LoadOrder {
  readonly port: number;
  /** The whole request, the same bytes every time. */
  readonly request: string;
  /** Signs every request anew instead, since a signature is taken once. */
  readonly signing?: { readonly keyId: string; readonly secretBase64: string } | undefined;
  /** Each has one request under way at any time. */
  readonly connections: number;
  /** Sent before the clock starts, counted only in `statuses`. */
  readonly warmUpMs: number;
  readonly measuredMs: number;
}

export interface LoadReport {
  /** Every answer by its status, those of the warm-up and of the requests still under way at the end included. */
  readonly statuses: Readonly<Record<string, number>>;
  readonly answersPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Share of its core that this program used: near 1 it, not the server, would be what was measured. */
  readonly cpuShare: number;
}

const MS_PER_SECOND = 1_000;
const US_PER_MS = 1_000;
/** Latencies are kept to 0.01 ms, and all from 1 s on as 1 s. */
const BUCKETS_PER_MS = 100;
const BUCKETS = 1_000 * BUCKETS_PER_MS;
/** An answer is some 600 bytes; one that does not fit is a fault of what was asked. */
const ANSWER_BYTES_MAX = 65_536;
/** Answers still missing so long after the last request was sent do not come any more. */
const DRAIN_MAX_MS = 10_000;
const HEAD_END = '\r\n\r\n';
const CONTENT_LENGTH = /\r\ncontent-length: *(\d+)/i;

/** Puts one server under load. Throws when a connection fails, and when answers stay out or cannot be read. */
async function run(order: LoadOrder): Promise<LoadReport> {
  const nextRequest = requestMaker(order);
  const statuses = new Map<string, number>();
  const buckets = new Uint32Array(BUCKETS + 1);
  const sockets = await Promise.all(Array.from({ length: order.connections }, () => open(order.port)));
  const warmUntil = performance.now() + order.warmUpMs;
  const endsAt = warmUntil + order.measuredMs;
  let cpu: NodeJS.CpuUsage | undefined;
  let cpuShare = 0;
  let measured = 0;
  let busy = sockets.length;

  await new Promise<void>((resolve, reject) => {
    const drained = setTimeout(
      () => reject(new Error(`${busy} answers did not come`)),
      endsAt + DRAIN_MAX_MS - performance.now(),
    );
    const fail = (error: Error) => {
      clearTimeout(drained);
      reject(error);
    };
    for (const socket of sockets) {
      let sentAt = performance.now();
      socket.onFailure = fail;
      socket.onAnswer = (status) => {
        const now = performance.now();
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
        if (now >= warmUntil && now < endsAt) {
          cpu ??= process.cpuUsage();
          measured += 1;
          const bucket = Math.min(BUCKETS, Math.floor((now - sentAt) * BUCKETS_PER_MS));
          buckets[bucket] = (buckets[bucket] ?? 0) + 1;
        }
        if (now < endsAt) {
          sentAt = now;
          socket.send(nextRequest());
          return;
        }
        if (busy === sockets.length) {
          const used = process.cpuUsage(cpu);
          cpuShare = (used.user + used.system) / US_PER_MS / order.measuredMs;
        }
        busy -= 1;
        if (busy > 0) return;
        clearTimeout(drained);
        resolve();
      };
      socket.send(nextRequest());
    }
  }).finally(() => {
    for (const socket of sockets) socket.close();
  });
  return {
    statuses: Object.fromEntries(statuses),
    answersPerSecond: (measured / order.measuredMs) * MS_PER_SECOND,
    p50Ms: quantileMs(buckets, measured, 0.5),
    p99Ms: quantileMs(buckets, measured, 0.99),
    cpuShare,
  };
}

function requestMaker({ request, signing }: LoadOrder): () => Buffer {
  if (signing === undefined) {
    const bytes = Buffer.from(request, 'latin1');
    return () => bytes;
  }
  const signer = { keyId: signing.keyId, secret: Buffer.from(signing.secretBase64, 'base64') };
  return () => Buffer.from(signedPriceRequest(signer), 'latin1');
}

interface LoadSocket {
  onAnswer: (status: string) => void;
  onFailure: (error: Error) => void;
  send(request: Buffer): void;
  close(): void;
}

async function open(port: number): Promise<LoadSocket> {
  const buffer = Buffer.allocUnsafe(ANSWER_BYTES_MAX);
  // What of an answer has come, when it did not come whole.
  let held = '';
  let closing = false;
  const socket: Socket = connect({
    host: '127.0.0.1',
    port,
    noDelay: true,
    onread: {
      buffer,
      callback(bytes) {
        held += buffer.toString('latin1', 0, bytes);
        const headEnd = held.indexOf(HEAD_END);
        if (headEnd < 0) return true;
        const length = CONTENT_LENGTH.exec(held)?.[1];
        if (length === undefined) {
          load.onFailure(new Error('an answer has no Content-Length'));
          return false;
        }
        if (held.length < headEnd + HEAD_END.length + Number(length)) return true;
        // "HTTP/1.1 200 OK"
        const status = held.slice(9, 12);
        held = '';
        load.onAnswer(status);
        return true;
      },
    },
  });
  const load: LoadSocket = {
    onAnswer: () => undefined,
    onFailure: () => undefined,
    send: (request) => void socket.write(request),
    close() {
      closing = true;
      socket.destroy();
    },
  };
  await new Promise((resolve, reject) => {
    socket.once('connect', resolve).once('error', reject);
  });
  socket.on('error', (error) => load.onFailure(error));
  socket.on('close', () => {
    if (!closing) load.onFailure(new Error('the server closed a connection'));
  });
  return load;
}

function quantileMs(buckets: Uint32Array, count: number, share: number): number {
  const wanted = Math.ceil(count * share);
  let seen = 0;
  const bucket = buckets.findIndex((inBucket) => {
    seen += inBucket;
    return seen >= wanted;
  });
  return bucket / BUCKETS_PER_MS;
}

/** Only when started as a program. */
if (import.meta.main) {
  process.on('message', (order: LoadOrder) => {
    run(order).then(
      (report) => process.send?.({ report }),
      (error: unknown) => process.send?.({ error: String(error) }),
    );
  });
  process.on('disconnect', () => process.exit(0));
}
