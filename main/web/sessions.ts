/**
 * Who may talk to the browser shell. Its URL carries a token that works once: the first request that shows it is given a
 * session cookie, and the token is spent. Whoever reads the URL later (a process list, a browser's history) gets nothing.
 *
 * Only hashes of secrets are kept and they are compared in constant time.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

/** Unused tokens and browsers at once; the oldest gives way. Far more than a person opens. */
const maxTokens = 16;
const maxSessions = 64;

const digest = (secret: string): Buffer => createHash('sha256').update(secret, 'utf8').digest();
/** 32 random bytes as base64url. */
const newSecret = (): string => randomBytes(32).toString('base64url');

/** Index of the secret's digest, looking at every one whatever is found, -1 when it is not there. */
function findSecret(digests: readonly Buffer[], secret: string): number {
  const wanted = digest(secret);
  let found = -1;
  digests.forEach((candidate, index) => {
    if (timingSafeEqual(candidate, wanted)) found = index;
  });
  return found;
}

export class Sessions {
  /** Cookies know no ports: the name carries it, so that two shells on one computer don't overwrite each other's. */
  readonly cookieName: string;
  readonly #tokens: Buffer[] = [];
  readonly #sessions: Buffer[] = [];

  constructor(port: number) {
    this.cookieName = `chainlift-${port}`;
  }

  /** A new token, good for one exchange. */
  issueToken(): string {
    const token = newSecret();
    this.#tokens.push(digest(token));
    if (this.#tokens.length > maxTokens) this.#tokens.shift();
    return token;
  }

  /** Spends a token. @returns the value of a `Set-Cookie` header, or undefined when the token is unknown or spent. */
  exchange(token: string): string | undefined {
    const index = findSecret(this.#tokens, token);
    if (index < 0) return undefined;
    this.#tokens.splice(index, 1);
    const session = newSecret();
    this.#sessions.push(digest(session));
    if (this.#sessions.length > maxSessions) this.#sessions.shift();
    return `${this.cookieName}=${session}; Path=/; HttpOnly; SameSite=Strict`;
  }

  /** Whether a `Cookie` header holds a session of ours. */
  allows(cookieHeader: string | undefined): boolean {
    if (cookieHeader === undefined) return false;
    for (const part of cookieHeader.split(';')) {
      const equals = part.indexOf('=');
      if (equals < 0 || part.slice(0, equals).trim() !== this.cookieName) continue;
      if (findSecret(this.#sessions, part.slice(equals + 1).trim()) >= 0) return true;
    }
    return false;
  }
}
