import { Tab, TabList, TabPanel, Tabs } from 'react-aria-components';
import type { ExportInfo, RestorePoint, Target, VirtualMachine } from '../../../preload/api.ts';
import type { Row } from '../../logic/rows.ts';
import { DetailsPanel } from './details-panel.tsx';
import { MountPanel } from './mount-panel.tsx';
import { PointPanel } from './point-panel.tsx';
import { PreviewPanel } from './preview-panel.tsx';
import { SelectionPanel } from './selection-panel.tsx';

export type InspectorTab = 'details' | 'preview' | 'mount';

interface Props {
  readonly tab: InspectorTab;
  readonly onTab: (tab: InspectorTab) => void;
  readonly target: Target;
  readonly vm: VirtualMachine;
  readonly point: RestorePoint;
  readonly selected: readonly Row[];
  readonly exports: readonly ExportInfo[];
  /** Disk of the volume that is shown. */
  readonly disk: number;
}

/** The right pane: what the selection is, what it holds, and how the point is mounted. */
export function Inspector({ tab, onTab, target, vm, point, selected, exports, disk }: Props) {
  const only = selected.length === 1 ? selected[0] : undefined;
  const depth = point.disks.find((one) => one.index === disk)?.chain.length;
  return (
    <aside className="inspector" aria-label="Inspector">
      <Tabs selectedKey={tab} onSelectionChange={(key) => onTab(key as InspectorTab)} className="tabs">
        <TabList aria-label="Inspector" className="tab-list">
          <Tab id="details" className="tab">
            Details
          </Tab>
          <Tab id="preview" className="tab">
            Preview
          </Tab>
          <Tab id="mount" className="tab">
            Mount
          </Tab>
        </TabList>
        <TabPanel id="details" className="tab-panel">
          {only !== undefined ? (
            <DetailsPanel key={only.entry.path} target={target} vm={vm.name} point={point} row={only} depth={depth} />
          ) : selected.length > 1 ? (
            <SelectionPanel selected={selected} />
          ) : (
            <PointPanel point={point} target={target} vm={vm} />
          )}
        </TabPanel>
        <TabPanel id="preview" className="tab-panel">
          <PreviewPanel target={target} row={only} many={selected.length > 1} />
        </TabPanel>
        <TabPanel id="mount" className="tab-panel">
          <MountPanel target={target} point={point} exports={exports} />
        </TabPanel>
      </Tabs>
    </aside>
  );
}
