/** Configurations of Hyper-V before 2016, which are XML (UTF-16): each value's element says its type. */
import type { XmlElement } from '../../xml.ts';
import type { ConfigNode, ConfigValue } from './node.ts';

/** The element as a configuration node, with what is below it. Values that are not of their type are left out. */
export function configFromXml(element: XmlElement): ConfigNode {
  const type = element.attributes.get('type')?.toLowerCase();
  const value = type === undefined ? undefined : typedValue(type, element.text);
  const children = element.children.map(configFromXml);
  return { name: element.name, ...(value === undefined ? {} : { value }), children };
}

function typedValue(type: string, text: string): ConfigValue | undefined {
  switch (type) {
    case 'string':
      return text;
    case 'integer':
      return /^-?\d{1,20}$/.test(text) ? BigInt(text) : undefined;
    case 'bool':
      return /^true$/i.test(text) ? true : /^false$/i.test(text) ? false : undefined;
    case 'double':
      return Number.isFinite(Number(text)) ? Number(text) : undefined;
    case 'bytes':
      return Buffer.from(text, 'base64');
    default:
      return undefined;
  }
}
