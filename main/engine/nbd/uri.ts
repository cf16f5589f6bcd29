/**
 * The URI of an export.
 *
 * Specification: NetworkBlockDevice/nbd, doc/uri.md (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md).
 */
import { isIPv6 } from 'node:net';

/** Where a server is reached: a Unix socket, or TCP on this computer. */
export type ServerAddress = { readonly socket: string } | { readonly host: string; readonly port: number };

/** Percent-encodes all but unreserved characters and slashes. */
function encode(value: string): string {
  return encodeURIComponent(value)
    .replaceAll('%2F', '/')
    .replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** `nbd+unix:///name?socket=/path` or `nbd://127.0.0.1:10809/name`. */
export function exportUri(address: ServerAddress, name: string): string {
  if ('socket' in address) return `nbd+unix:///${encode(name)}?socket=${encode(address.socket)}`;
  const host = isIPv6(address.host) ? `[${address.host}]` : address.host;
  return `nbd://${host}:${address.port}/${encode(name)}`;
}
