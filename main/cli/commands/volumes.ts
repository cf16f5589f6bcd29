import { type CommonOptions, runCommand, targetOf } from '../context.ts';
import { printable, size } from '../output.ts';
import { printFindings } from './verify.ts';

/** `volumes <source>`: what lies on the disks, and how each file system was left. */
export function volumes(source: string, options: CommonOptions): Promise<void> {
  return runCommand(async ({ engine, out }) => {
    const report = await engine.api.volumes({ target: targetOf(source, options) });
    if (options.json) {
      out.json(report);
      return 0;
    }
    for (const volume of report.volumes) {
      const fs = volume.fileSystem;
      const label = fs?.label ?? volume.label;
      const what = fs === undefined ? (volume.error?.message ?? 'no file system') : `${fs.type}, ${fs.condition}`;
      out.line(
        `${volume.name}  ${size(volume.size)} at ${volume.start}  ${volume.type}${label === undefined ? '' : `  "${printable(label)}"`}  ${printable(what)}`,
      );
      for (const line of fs?.evidence ?? []) out.line(`  ${printable(line)}`);
    }
    printFindings(report.findings, out);
    return 0;
  });
}
