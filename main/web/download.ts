/**
 * A guest file's content as an HTTP download. The content is hostile: it is always an attachment, never sniffed and, should a
 * browser render it all the same, sandboxed without scripts.
 *
 * A short file must never look complete: the length is announced from the file's own metadata, and when the content ends
 * early, is longer, or fails midway, the connection is destroyed, which every browser reports as a failed download.
 */
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ChainliftApi, ErrorKind, Target, WireError } from '../../preload/api.ts';
import { REQUEST_SCHEMAS } from '../../preload/schemas.ts';
import { CorruptError, UsageError } from '../engine/errors.ts';
import { contentDisposition } from './content-disposition.ts';
import { wireError } from './wire-error.ts';

const statuses: Readonly<Record<ErrorKind, number>> = {
  io: 502,
  unsupported: 501,
  corrupt: 502,
  'not-found': 404,
  'missing-parent': 502,
  'needs-key': 423,
  cancelled: 503,
  denied: 403,
  usage: 400,
  internal: 500,
};

/** Answers with an error as JSON and the HTTP status of its kind. Headers must not have been sent. */
export function sendError(response: ServerResponse, error: WireError): void {
  const body = Buffer.from(JSON.stringify({ error }));
  response.writeHead(statuses[error.kind], {
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': body.length,
  });
  response.end(body);
}

/** @throws UsageError when the query is not `target=<JSON>&path=<guest path>`. */
function parseQuery(query: URLSearchParams): { target: Target; path: string } {
  let target: unknown;
  try {
    target = JSON.parse(query.get('target') ?? '');
  } catch {
    throw new UsageError('The address of a download names its target as JSON');
  }
  const checked = REQUEST_SCHEMAS.read.safeParse({ target, path: query.get('path') });
  if (!checked.success) {
    const issue = checked.error.issues[0];
    throw new UsageError(
      `The address of a download: ${issue?.path.join('.') ?? ''} ${issue?.message ?? 'is not valid'}`,
    );
  }
  return checked.data as { target: Target; path: string };
}

/**
 * Serves `GET` or `HEAD /download?target=<JSON>&path=<guest path>`. Returns when the answer has been given, the client has
 * gone, or the connection was destroyed because the content failed.
 */
export async function serveDownload(
  api: ChainliftApi,
  request: IncomingMessage,
  response: ServerResponse,
  query: URLSearchParams,
): Promise<void> {
  let chunks: AsyncIterator<Uint8Array> | undefined;
  const gone = new AbortController();
  response.once('close', () => {
    gone.abort();
    // Also while the next chunk is being waited for: the work behind the stream stops with its consumer.
    void stop(chunks);
  });
  try {
    const { target, path } = parseQuery(query);
    const entry = await api.stat({ target, path });
    if (entry.kind !== 'file') throw new UsageError(`${path} is not a file; only files can be downloaded`, { path });
    if (entry.size === undefined) throw new UsageError(`${path} has no known size`, { path });
    const { size } = entry;
    const headers = {
      'Content-Type': 'application/octet-stream',
      'Content-Length': size,
      'Content-Disposition': contentDisposition(entry.name),
      'Content-Security-Policy': "default-src 'none'; sandbox",
      'Accept-Ranges': 'none',
    };
    if (gone.signal.aborted) return;
    if (request.method === 'HEAD') {
      response.writeHead(200, headers).end();
      return;
    }
    chunks = api.read({ target, path })[Symbol.asyncIterator]();
    // Headers are sent only with the first bytes, so that a file that can't be read at all gets an answer that says why.
    let sent = 0;
    for (let step = await chunks.next(); step.done !== true; step = await chunks.next()) {
      if (gone.signal.aborted) return;
      sent += step.value.length;
      if (sent > size) throw wrongLength(path, size, sent);
      if (!response.headersSent) response.writeHead(200, headers);
      if (!response.write(step.value)) await once(response, 'drain', { signal: gone.signal });
    }
    if (sent !== size) throw wrongLength(path, size, sent);
    if (!response.headersSent) response.writeHead(200, headers);
    response.end();
  } catch (error) {
    if (gone.signal.aborted) return;
    if (response.headersSent) request.socket.resetAndDestroy();
    else sendError(response, wireError(error));
  } finally {
    await stop(chunks);
  }
}

/** Stops a stream whose consumer is gone. Whoever could be told that stopping it failed is gone too; the engine has its own record. */
async function stop(chunks: AsyncIterator<Uint8Array> | undefined): Promise<void> {
  await chunks?.return?.().then(undefined, () => undefined);
}

function wrongLength(path: string, expected: number, found: number): CorruptError {
  return new CorruptError('Content', { source: path, expected: `${expected} bytes`, found: `${found} bytes` });
}
