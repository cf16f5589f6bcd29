/**
 * XML as other people's programs leave it beside a VM: small, bounded, and hostile. A document becomes plain elements; there
 * are no entities but the five of XML and character numbers, no document type and nothing outside the text is ever looked at.
 */
import { XMLParser, XMLValidator } from 'fast-xml-parser';
import { CorruptError, UnsupportedError } from './errors.ts';
import type { ByteSource } from './storage/byte-source.ts';

/** Elements within elements. VirtualBox itself allows 250 snapshots on one line, each of which is two elements deep. */
const MAX_DEPTH = 1_000;
/**
 * Tags and attributes, comments and instructions of one document: what it costs in memory, about half a kilobyte each, whatever its
 * size. An export of a VM with a hundred snapshots has 100,000.
 */
const MAX_MARKUP = 300_000;
/** Attributes of one element: the parser takes a tag apart at once. */
const MAX_ATTRIBUTES = 4_096;
/** Characters of one tag, and of one stretch of text: both are put together a character at a time. */
const MAX_STRETCH = 2 << 20;

export interface XmlElement {
  /** Without its namespace prefix. */
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly XmlElement[];
  /** Its own text, trimmed. */
  readonly text: string;
}

/**
 * Reads a whole file as XML. @param structure what errors call it: `VirtualBox settings`.
 * @throws CorruptError for more than `limit` bytes and for text that is no XML, UnsupportedError for a document type, IoError.
 */
export async function readXml(file: ByteSource, structure: string, limit: number): Promise<XmlElement> {
  if (file.size > limit) {
    throw new CorruptError(structure, {
      source: file.name,
      position: 0,
      expected: `at most ${limit} bytes`,
      found: `a file of ${file.size} bytes`,
    });
  }
  return parseXml(decodeXml(await file.read(0, file.size)), structure, file.name);
}

/** Text of an XML file: UTF-16 where it begins with a mark that says so, the encoding it declares, UTF-8 otherwise. */
export function decodeXml(bytes: Uint8Array): string {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder('utf-16le').decode(bytes);
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return new TextDecoder('utf-16be').decode(bytes);
  const head = Buffer.from(bytes.subarray(0, 256)).toString('latin1');
  const declared = /^(?:\u00ef\u00bb\u00bf)?<\?xml[^>]*\sencoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']/.exec(head)?.[1];
  // A declaration that could be read one byte at a time is not that of UTF-16, whatever it says.
  if (declared !== undefined && !/^(utf-?8|utf-?16)/i.test(declared)) {
    try {
      return new TextDecoder(declared).decode(bytes);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
  }
  return new TextDecoder('utf-8').decode(bytes);
}

/** The root element of a document. @throws CorruptError, UnsupportedError. */
export function parseXml(text: string, structure: string, source: string): XmlElement {
  if (/<!DOCTYPE|<!ENTITY/i.test(text)) throw new UnsupportedError(`${structure} with a document type`, { source });
  const document = withoutPadding(text);
  if (document.includes('\0'))
    throw new CorruptError(structure, { source, expected: 'XML', found: 'a NUL in its text' });
  checkMarkup(document, structure, source);
  const valid = XMLValidator.validate(document);
  if (valid !== true) {
    const { msg, line } = valid.err;
    throw new CorruptError(structure, { source, expected: 'XML', found: `line ${line}: ${msg.slice(0, 200)}` });
  }
  const roots = elementsOf(parsed(document, structure, source), 0, structure, source).children;
  const [root, ...more] = roots;
  if (root === undefined || more.length > 0) {
    throw new CorruptError(structure, { source, expected: 'one root element', found: `${roots.length}` });
  }
  return root;
}

/** Some writers end a file with the NULs of its last sector. */
function withoutPadding(text: string): string {
  let end = text.length;
  while (end > 0 && text.charCodeAt(end - 1) === 0) end--;
  return text.slice(0, end);
}

/** Stretches that begin and end like this are passed over as one. */
const WHOLES = [
  ['<!--', '-->'],
  ['<![CDATA[', ']]>'],
  ['<?', '?>'],
] as const;

/**
 * Goes over a document once and holds what it would cost against what a document may: a tag of four characters makes half a kilobyte of
 * objects. Whether it is well-formed is not looked at. @throws CorruptError.
 */
function checkMarkup(text: string, structure: string, source: string): void {
  let markup = 0;
  const refuse = (expected: string): CorruptError => new CorruptError(structure, { source, expected, found: 'more' });
  for (let at = 0; at < text.length; ) {
    const open = text.indexOf('<', at);
    const textEnd = open < 0 ? text.length : open;
    if (textEnd - at > MAX_STRETCH) throw refuse(`text of at most ${MAX_STRETCH} characters without a tag`);
    if (open < 0) return;
    const whole = WHOLES.find(([start]) => text.startsWith(start, open));
    if (whole === undefined) {
      const { end, words } = tagAt(text, open);
      if (words > MAX_ATTRIBUTES) throw refuse(`at most ${MAX_ATTRIBUTES} attributes in a tag`);
      markup += words;
      at = end;
    } else {
      const close = text.indexOf(whole[1], open + whole[0].length);
      at = close < 0 ? text.length : close + whole[1].length;
      markup++;
    }
    if (at - open > MAX_STRETCH) throw refuse(`tags of at most ${MAX_STRETCH} characters`);
    if (markup > MAX_MARKUP) throw refuse(`at most ${MAX_MARKUP} tags and attributes`);
  }
}

const [QUOTE, APOSTROPHE, SLASH, EQUALS, GREATER] = [0x22, 0x27, 0x2f, 0x3d, 0x3e];

/** Where the tag that begins at `open` ends, and its words: its name and its attributes. A quoted value is no word. */
function tagAt(text: string, open: number): { end: number; words: number } {
  const stop = Math.min(text.length, open + MAX_STRETCH + 2);
  let words = 1;
  let quote = 0;
  let between = false;
  for (let at = open + 1; at < stop; at++) {
    const code = text.charCodeAt(at);
    if (quote !== 0) {
      // What follows a value without a blank is a word of its own.
      if (code === quote) between = true;
      if (code === quote) quote = 0;
    } else if (code === GREATER) {
      return { end: at + 1, words };
    } else if (code === QUOTE || code === APOSTROPHE) {
      quote = code;
    } else if (code <= 0x20) {
      between = true;
    } else {
      if (between && code !== EQUALS && code !== SLASH) words++;
      between = false;
    }
  }
  return { end: stop, words };
}

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: '',
  removeNSPrefix: true,
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  processEntities: false,
  ignoreDeclaration: true,
  ignorePiTags: true,
  maxNestedTags: MAX_DEPTH,
});

function parsed(text: string, structure: string, source: string): unknown {
  try {
    return parser.parse(text);
  } catch (error) {
    // The library has no errors of its own: whatever it throws is its answer to this text.
    const found = error instanceof Error ? error.message.slice(0, 200) : 'something else';
    throw new CorruptError(structure, { source, expected: `XML of at most ${MAX_DEPTH} levels`, found });
  }
}

const ATTRIBUTES = ':@';
const TEXT = '#text';

/** The library's ordered lists as elements: each entry is an object with one key, its name, beside that of its attributes. */
function elementsOf(
  list: unknown,
  depth: number,
  structure: string,
  source: string,
): { children: XmlElement[]; text: string } {
  if (depth > MAX_DEPTH + 2) {
    throw new CorruptError(structure, { source, expected: `at most ${MAX_DEPTH} levels`, found: 'more' });
  }
  const children: XmlElement[] = [];
  let text = '';
  for (const entry of Array.isArray(list) ? (list as readonly Record<string, unknown>[]) : []) {
    for (const [name, value] of Object.entries(entry)) {
      if (name === ATTRIBUTES) continue;
      if (name === TEXT) {
        text += unescaped(String(value));
        continue;
      }
      const inside = elementsOf(value, depth + 1, structure, source);
      children.push({
        name,
        attributes: attributesOf(entry[ATTRIBUTES]),
        children: inside.children,
        text: inside.text,
      });
    }
  }
  return { children, text: text.trim() };
}

const NO_ATTRIBUTES: ReadonlyMap<string, string> = new Map();

function attributesOf(raw: unknown): ReadonlyMap<string, string> {
  // Most elements have none.
  if (raw === undefined) return NO_ATTRIBUTES;
  const attributes = new Map<string, string>();
  for (const [key, value] of Object.entries(raw as Record<string, unknown>)) {
    attributes.set(key, unescaped(String(value)));
  }
  return attributes;
}

const NAMED: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

/** Undoes the five entities of XML and character numbers; anything else after `&` stays as it stands. */
function unescaped(text: string): string {
  if (!text.includes('&')) return text;
  return text.replace(/&(?:#(\d{1,7})|#x([0-9a-fA-F]{1,6})|([a-z]{2,4}));/g, (whole, decimal, hex, name) => {
    if (name !== undefined) return NAMED[name as string] ?? whole;
    const code = decimal === undefined ? Number.parseInt(hex as string, 16) : Number(decimal);
    return code > 0 && code <= 0x10_ffff && !(code >= 0xd800 && code <= 0xdfff) ? String.fromCodePoint(code) : '\ufffd';
  });
}

/** The first child of this name. */
export function childOf(element: XmlElement | undefined, name: string): XmlElement | undefined {
  return element?.children.find((child) => child.name === name);
}

/** Every child of this name, in order. */
export function childrenOf(element: XmlElement | undefined, name: string): XmlElement[] {
  return element?.children.filter((child) => child.name === name) ?? [];
}

/** The element reached by these names one after the other. */
export function descend(element: XmlElement | undefined, ...names: readonly string[]): XmlElement | undefined {
  return names.reduce<XmlElement | undefined>(childOf, element);
}

/** The text of the child of this name; undefined where it is absent or empty. */
export function childText(element: XmlElement | undefined, name: string): string | undefined {
  return childOf(element, name)?.text || undefined;
}

/** An attribute, trimmed; undefined where it is absent or empty. */
export function attribute(element: XmlElement | undefined, name: string): string | undefined {
  return element?.attributes.get(name)?.trim() || undefined;
}
