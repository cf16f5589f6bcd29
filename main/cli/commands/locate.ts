import { resolve } from 'node:path';
import { UsageError } from '../../engine/errors.ts';
import { runCommand } from '../context.ts';
import { printable } from '../output.ts';
import { printFindings } from './verify.ts';

/** `locate <source> <image> [parent]`: says where the parent of an image is, or with --forget that nobody knows any more. */
export function locate(
  source: string,
  child: string,
  parent: string | undefined,
  options: { readonly json?: boolean; readonly forget?: boolean },
): Promise<void> {
  return runCommand(async ({ engine, out }) => {
    const path = resolve(source);
    if (options.forget === true) {
      if (parent !== undefined) throw new UsageError('With --forget there is no parent to name');
      await engine.api.forgetParent({ source: path, child });
      if (options.json) out.json({ child, forgotten: true });
      return 0;
    }
    if (parent === undefined) throw new UsageError('Where is the parent? Name its file, or use --forget');
    const located = await engine.api.locateParent({ source: path, child, parent: resolve(parent) });
    if (options.json) {
      out.json(located);
      return 0;
    }
    const proof = located.proved
      ? 'it has the identity that is recorded'
      : 'the format records no identity, so nothing proves that it is the right one';
    out.line(`${printable(located.parent)} is the parent of ${printable(located.child)}: ${proof}`);
    printFindings(located.findings, out);
    return 0;
  });
}
