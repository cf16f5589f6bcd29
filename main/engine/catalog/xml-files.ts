/** XML files among those of a repository: which of them are a hypervisor's. */
import type { Confinement } from '../storage/confinement.ts';
import { decodeXml, readXml, type XmlElement } from '../xml.ts';

/** Larger files are none of a hypervisor's: real ones have some tens of KiB. */
const MAX_XML_BYTES = 8 << 20;
/** What is read of a file to learn its root element: libvirt puts a comment of some lines before it. */
const HEAD_BYTES = 16_384;

/**
 * Reads an XML file of the opened folder. @param structure what errors call it. @throws CorruptError when it is no well-formed XML
 * or larger than any real one, UnsupportedError for a document type, IoError, DeniedError.
 */
export async function readXmlFile(path: string, folder: Confinement, structure: string): Promise<XmlElement> {
  const file = folder.open(path);
  try {
    return await readXml(file, structure, MAX_XML_BYTES);
  } finally {
    await file.close();
  }
}

/** The name of a file's root element, from its first bytes; undefined for what does not begin like XML. @throws IoError, DeniedError. */
export async function rootNameOf(path: string, folder: Confinement): Promise<string | undefined> {
  const file = folder.open(path);
  try {
    const head = decodeXml(await file.read(0, Math.min(HEAD_BYTES, file.size)));
    const rest = head.replace(/^\ufeff/, '').replace(/<!--[\s\S]*?-->|<\?[\s\S]*?\?>/g, '');
    return /^\s*<(?:[\w.-]{1,64}:)?([A-Za-z_][\w.-]{0,64})[\s/>]/.exec(rest)?.[1];
  } finally {
    await file.close();
  }
}
