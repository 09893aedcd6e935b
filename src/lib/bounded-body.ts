/**
 * The text of a body that comes in pieces, null when it is longer than `bytesMax`: the rest is then not read, and whoever
 * sends it is told so by the stream being closed.
 */
export async function readBounded(body: AsyncIterable<Uint8Array> | null, bytesMax: number): Promise<string | null> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body ?? []) {
    bytes += chunk.byteLength;
    if (bytes > bytesMax) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
