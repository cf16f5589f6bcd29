import { exactSize, plural, size } from '../../logic/format.ts';
import type { Row } from '../../logic/rows.ts';
import { Facts } from './facts.tsx';

/** Several entries at once: how many of what, and how much. */
export function SelectionPanel({ selected }: { readonly selected: readonly Row[] }) {
  const there = selected.filter((row) => !row.gone);
  const files = there.filter((row) => row.entry.kind === 'file');
  const folders = there.filter((row) => row.entry.kind === 'directory');
  const gone = selected.length - there.length;
  const bytes = files.reduce((sum, row) => sum + (row.entry.size ?? 0), 0);
  const damaged = selected.filter((row) => row.entry.error !== undefined).length;
  return (
    <>
      <header className="panel-head">
        <h3>{plural(selected.length, 'item')} selected</h3>
      </header>
      <Facts
        facts={[
          { label: 'Files', value: plural(files.length, 'file') },
          { label: 'Folders', value: plural(folders.length, 'folder') },
          {
            label: 'Size',
            value: (
              <>
                {size(bytes)}
                <small className="figure">
                  {exactSize(bytes)}
                  {folders.length > 0 ? ', without what is in the folders' : ''}
                </small>
              </>
            ),
          },
          gone === 0 ? undefined : { label: 'Gone', value: `${plural(gone, 'item')} of the point before` },
          damaged === 0 ? undefined : { label: 'Damaged', value: plural(damaged, 'item') },
        ]}
      />
    </>
  );
}
