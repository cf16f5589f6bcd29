/**
 * The configuration of a Hyper-V VM as a tree of named values, whatever it was kept in: an XML file (until 2012 R2) or the binary
 * store of later versions. Both have the same names in the same places.
 */

export type ConfigValue = string | bigint | number | boolean | Uint8Array;

export interface ConfigNode {
  readonly name: string;
  /** Undefined for a node, and for a value that was too large to be read. */
  readonly value?: ConfigValue;
  /** In the order in which they were written; names may occur more than once. */
  readonly children: readonly ConfigNode[];
}

/** The node at a path of names below `node`; upper and lower case do not differ. */
export function at(node: ConfigNode | undefined, ...names: readonly string[]): ConfigNode | undefined {
  let found = node;
  for (const name of names) {
    const wanted = name.toLowerCase();
    found = found?.children.find((child) => child.name.toLowerCase() === wanted);
  }
  return found;
}

/** The text at a path; undefined where there is none or it is empty. */
export function textAt(node: ConfigNode | undefined, ...names: readonly string[]): string | undefined {
  const value = at(node, ...names)?.value;
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** The whole number at a path, where it lies within bounds. */
export function integerAt(
  node: ConfigNode | undefined,
  names: readonly string[],
  least: number,
  most: number,
): number | undefined {
  const value = at(node, ...names)?.value;
  if (typeof value !== 'bigint' || value < BigInt(least) || value > BigInt(most)) return undefined;
  return Number(value);
}

/** The yes or no at a path. */
export function flagAt(node: ConfigNode | undefined, ...names: readonly string[]): boolean | undefined {
  const value = at(node, ...names)?.value;
  return typeof value === 'boolean' ? value : undefined;
}

/** Every value below a node, itself included, with the name it has. */
export function* valuesBelow(node: ConfigNode | undefined): Generator<ConfigNode> {
  const stack = node === undefined ? [] : [node];
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    if (next.value !== undefined) yield next;
    for (let index = next.children.length - 1; index >= 0; index--) stack.push(next.children[index]!);
  }
}
