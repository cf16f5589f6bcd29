import type { LayerShare } from '../../../preload/api.ts';
import { size } from '../../logic/format.ts';
import { layerName } from '../files/file-row.tsx';

const HUES = 4;

/**
 * The hue of a layer. It counts from the base, so that a layer keeps its hue at every point that is made of it. `depth` is the
 * number of layers of the chain, where it is known.
 */
export function hueOf(layer: number | undefined, depth: number | undefined): string {
  if (layer === undefined) return 'hue-none';
  return `hue-${(depth !== undefined && layer < depth ? depth - 1 - layer : layer) % HUES}`;
}

interface Props {
  readonly shares: readonly LayerShare[];
  readonly vm: string;
  readonly depth: number | undefined;
}

/** Which layers hold the bytes, as one bar and its key. */
export function LayersBar({ shares, vm, depth }: Props) {
  const total = shares.reduce((sum, share) => sum + share.bytes, 0);
  if (total === 0) return <p className="quiet">It has no bytes of its own.</p>;
  return (
    <>
      <div className="layers-bar" role="img" aria-label={shares.map((s) => `${s.name} ${size(s.bytes)}`).join(', ')}>
        {shares.map((share) => (
          <span
            key={`${share.layer}${share.name}`}
            className={hueOf(share.layer, depth)}
            style={{ flexGrow: share.bytes / total }}
          />
        ))}
      </div>
      <ul className="layers-key plain-list">
        {shares.map((share) => (
          <li key={`${share.layer}${share.name}`} title={share.name}>
            <span className={`swatch ${hueOf(share.layer, depth)}`} aria-hidden="true" />
            {layerName(share.name, vm)} <span className="quiet figure">{size(share.bytes)}</span>
          </li>
        ))}
      </ul>
    </>
  );
}
