import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openLayer } from '../../../main/engine/image/formats.ts';
import { describeImageLayer, type ImageSample } from '../../conformance/image-layer.ts';
import { pattern, SECTOR } from '../../support/vmdk-builder.ts';

/** 300 sectors in parts of these many. */
function sample(title: string, names: readonly string[], sectors: readonly number[]): ImageSample {
  return {
    title,
    write(folder) {
      const model = pattern(0, sectors.reduce((sum, count) => sum + count, 0) * SECTOR);
      let at = 0;
      for (const [index, name] of names.entries()) {
        const end = at + sectors[index]! * SECTOR;
        writeFileSync(join(folder, name), model.subarray(at, end));
        at = end;
      }
      return { path: join(folder, names[0]!), model, kinds: [{ offset: 0, length: model.length, kind: 'data' }] };
    },
  };
}

describeImageLayer({
  format: 'raw',
  open: openLayer,
  opaque: true,
  samples: [
    sample('split into numbered parts', ['d.001', 'd.002', 'd.003', 'd.004'], [90, 90, 90, 30]),
    sample('split into lettered parts', ['d.img.aa', 'd.img.ab'], [200, 100]),
  ],
});
