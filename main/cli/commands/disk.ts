import { type CommonOptions, followTask, runCommand, sayError, targetOf } from '../context.ts';
import { printable, size } from '../output.ts';

/** `info <source>`: the layers of a disk, leaf first. */
export function info(source: string, options: CommonOptions): Promise<void> {
  return runCommand(async ({ engine, out }) => {
    const disk = await engine.api.info({ target: targetOf(source, options) });
    if (options.json) {
      out.json(disk);
      return 0;
    }
    out.line(
      `disk ${disk.disk} of ${printable(disk.vm)} at ${printable(disk.point)}: ${disk.size} bytes (${size(disk.size)})`,
    );
    for (const layer of disk.layers) {
      const kind = layer.variant === layer.format ? layer.format : `${layer.format} ${layer.variant}`;
      out.line(
        `layer ${layer.index}: ${printable(layer.name)}, ${kind}, holds ${size(layer.allocatedBytes)} in units of ${size(layer.granularity)}`,
      );
      if (layer.id !== undefined) out.line(`  content id ${printable(layer.id)}`);
      if (layer.parent !== undefined) {
        out.line(
          `  parent "${printable(layer.parent.recorded)}"${layer.parent.id === undefined ? '' : ` with content id ${printable(layer.parent.id)}`}`,
        );
      }
      for (const file of layer.files) out.line(`  ${file.role} ${printable(file.name)}, ${file.size} bytes`);
      for (const [key, value] of Object.entries(layer.properties))
        out.line(`  ${printable(key)}: ${printable(String(value))}`);
    }
    return 0;
  });
}

/** `map <source>`: offset, length, what, where; with --json one object a line. */
export function map(source: string, options: CommonOptions): Promise<void> {
  return runCommand(async ({ engine, out }) => {
    for await (const runs of engine.api.map({ target: targetOf(source, options) })) {
      for (const run of runs) {
        if (options.json) out.json(run);
        else {
          const from = run.layer === undefined ? 'no layer' : `layer ${run.layer}`;
          const where = run.file === undefined ? '' : `  ${printable(run.file)} at ${run.position}`;
          out.line(`${run.offset}\t${run.length}\t${run.kind}\t${from}${where}`);
        }
      }
      await out.breathe();
    }
    return 0;
  });
}

/** `hash <source>`: as sha256sum prints it. */
export function hash(source: string, options: CommonOptions): Promise<void> {
  return runCommand(async (context) => {
    const end = await followTask(context, await context.engine.api.hash({ target: targetOf(source, options) }));
    if (end.error !== undefined) {
      sayError(end.error);
      return 1;
    }
    if (end.result?.kind !== 'hash') return 1;
    const { sha256, bytes } = end.result;
    if (options.json) context.out.json({ sha256, bytes });
    else context.out.line(`${sha256}  ${printable(source)}`);
    return 0;
  });
}
