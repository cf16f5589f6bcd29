import { describe, expect, it } from 'vitest';
import { Sessions } from '../../../main/web/sessions.ts';

const pair = (setCookie: string | undefined): string => setCookie?.split(';')[0] ?? '';

describe('sessions of the browser shell', () => {
  it('spends a token once and knows the browser afterwards', () => {
    const sessions = new Sessions(4711);
    const token = sessions.issueToken();
    expect(Buffer.from(token, 'base64url').length).toBe(32);
    const cookie = sessions.exchange(token);
    expect(cookie).toMatch(/^chainlift-4711=[A-Za-z0-9_-]{43}; Path=\/; HttpOnly; SameSite=Strict$/);
    expect(sessions.exchange(token)).toBeUndefined();
    expect(sessions.allows(pair(cookie))).toBe(true);
    expect(sessions.allows(`a=b; ${pair(cookie)}; c`)).toBe(true);
  });

  it('refuses what it did not issue', () => {
    const sessions = new Sessions(4711);
    const token = sessions.issueToken();
    const cookie = pair(sessions.exchange(token));
    expect(sessions.exchange('')).toBeUndefined();
    expect(sessions.exchange(`${token}x`)).toBeUndefined();
    expect(sessions.allows(undefined)).toBe(false);
    expect(sessions.allows('')).toBe(false);
    expect(sessions.allows('chainlift-4711')).toBe(false);
    expect(sessions.allows('chainlift-4711=')).toBe(false);
    expect(sessions.allows(`chainlift-4711=${token}`)).toBe(false);
    expect(sessions.allows(cookie.replace('4711', '4712'))).toBe(false);
    expect(sessions.allows(cookie.slice(0, -1))).toBe(false);
    expect(new Sessions(4711).allows(cookie)).toBe(false);
  });

  it('keeps a bounded number of tokens and browsers, the newest', () => {
    const sessions = new Sessions(1);
    const tokens = Array.from({ length: 17 }, () => sessions.issueToken());
    expect(sessions.exchange(tokens[0] ?? '')).toBeUndefined();
    const cookies = [pair(sessions.exchange(tokens[1] ?? ''))];
    for (let i = 0; i < 64; i++) cookies.push(pair(sessions.exchange(sessions.issueToken())));
    expect(sessions.allows(cookies[0])).toBe(false);
    expect(sessions.allows(cookies[1])).toBe(true);
    expect(sessions.allows(cookies.at(-1))).toBe(true);
  });
});
