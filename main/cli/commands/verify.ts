import type { Finding } from '../../../preload/api.ts';
import { type CommonOptions, followTask, runCommand, sayError, targetOf } from '../context.ts';
import { type Output, plural, printable } from '../output.ts';

/** Findings, worst first. */
export function printFindings(findings: readonly Finding[], out: Output, indent = ''): void {
  const order = { damaged: 0, suspicious: 1, note: 2 };
  for (const finding of [...findings].sort((a, b) => order[a.severity] - order[b.severity])) {
    const where = [
      finding.source,
      finding.structure,
      finding.position === undefined ? undefined : `byte ${finding.position}`,
    ].filter((part) => part !== undefined);
    out.line(
      `${indent}${finding.severity}: ${printable(finding.message)}${where.length === 0 ? '' : `  (${printable(where.join(', '))})`}`,
    );
    if (finding.remedy !== undefined) out.line(`${indent}  ${printable(finding.remedy)}`);
  }
}

/** `verify <source>`: exit 1 when anything is damaged or suspicious. Notes alone are no reason to fail. */
export function verify(source: string, options: CommonOptions): Promise<void> {
  return runCommand(
    async (context) => {
      const { engine, out } = context;
      const end = await followTask(context, await engine.api.verify({ target: targetOf(source, options) }));
      if (end.error !== undefined) {
        sayError(end.error);
        return 1;
      }
      if (end.result?.kind !== 'verify') return 1;
      const { findings, disksChecked } = end.result;
      const bad = findings.filter((finding) => finding.severity !== 'note');
      if (options.json) out.json({ findings, disksChecked, ok: bad.length === 0 });
      else {
        printFindings(findings, out);
        out.line(
          `${plural(disksChecked, 'chain')} checked, ${bad.length === 0 ? 'nothing wrong' : plural(bad.length, 'finding')}`,
        );
      }
      return bad.length === 0 ? 0 : 1;
    },
    { synchronous: false },
  );
}
