import type { RestorePoint, VirtualMachine, WireError } from '../../../preload/api.ts';
import { type CommonOptions, followTask, runCommand, sayError } from '../context.ts';
import { type Output, plural, printable, size } from '../output.ts';
import { printFindings } from './verify.ts';

/** `scan <repository>`: VMs with the tree of their points, orphans, findings. */
export function scan(source: string, options: CommonOptions): Promise<void> {
  return runCommand(
    async (context) => {
      const { engine, out } = context;
      const end = await followTask(context, await engine.api.scan({ source }));
      if (end.error !== undefined) {
        sayError(end.error);
        return end.error.kind === 'usage' ? 2 : 1;
      }
      const report = await engine.api.report({ source });
      if (options.json) {
        out.json(report);
        return 0;
      }
      for (const vm of report.vms) printVm(vm, out);
      if (report.vms.length === 0) out.line('No virtual machines and no disk images here');
      if (report.orphans.length > 0) {
        out.line('Files that belong to no point:');
        for (const { file, bytes, reason } of report.orphans)
          out.line(`  ${printable(file)}  ${size(bytes)}  ${printable(reason)}`);
      }
      printFindings(report.findings, out);
      return 0;
      // Asynchronous, so that Ctrl-C and progress get through while a large folder is read.
    },
    { synchronous: false },
  );
}

function printVm(vm: VirtualMachine, out: Output): void {
  const facts = [
    vm.guest,
    vm.cpus === undefined ? undefined : plural(vm.cpus, 'CPU'),
    vm.memoryBytes === undefined ? undefined : size(vm.memoryBytes),
    `in ${vm.folder}`,
  ];
  out.line(`${printable(vm.name)}  (${printable(facts.filter((fact) => fact !== undefined).join(', '))})`);
  const depths = new Map<string, number>();
  for (const point of vm.points) {
    const depth = point.parent === undefined ? 0 : (depths.get(point.parent) ?? 0) + 1;
    depths.set(point.id, depth);
    printPoint(point, Math.min(depth, 12), out);
  }
  printFindings(vm.findings, out);
}

function printPoint(point: RestorePoint, depth: number, out: Output): void {
  const marks = [
    point.current ? 'current' : undefined,
    point.memory ? 'with memory' : undefined,
    point.consistency.level === 'unknown' ? undefined : `${point.consistency.level}-consistent`,
  ].filter((mark) => mark !== undefined);
  const changed = point.changedBytes === undefined ? '' : `  ${size(point.changedBytes)}`;
  const name = printable(point.name);
  const label = name === point.id ? name : `${name}  [${printable(point.id)}]`;
  out.line(
    `${'  '.repeat(depth + 1)}${label}  ${point.created ?? 'no date'}${changed}${marks.length === 0 ? '' : `  ${marks.join(', ')}`}`,
  );
  const indent = '  '.repeat(depth + 2);
  for (const disk of point.disks) {
    const whole = disk.size === undefined ? '' : `, ${size(disk.size)}`;
    const chain =
      disk.error === undefined ? `${plural(disk.chain.length, 'layer')}${whole}` : closedText(disk.error, point);
    out.line(`${indent}disk ${disk.index}: ${printable(disk.file)} (${chain})`);
  }
  const { level, evidence } = point.consistency;
  if (evidence.length > 0) {
    out.line(
      `${indent}${level === 'unknown' ? 'consistency not known' : 'evidence'}: ${printable(evidence.join('; '))}`,
    );
  }
  printFindings(point.findings, out, indent);
}

/** Why a disk can't be opened, where no finding of its point says so. */
function closedText({ message }: WireError, { findings }: RestorePoint): string {
  return findings.some(({ severity }) => severity !== 'note') ? "can't be opened" : printable(message);
}
