import { useState } from 'react';
import { Checkbox, Radio, RadioGroup } from 'react-aria-components';
import type { ConvertRequest, Target, WireError } from '../../../preload/api.ts';
import { useServices } from '../../context.ts';
import { size } from '../../logic/format.ts';
import { hostJoin } from '../../logic/paths.ts';
import { imageNameFor, withEnding } from '../../logic/restore.ts';
import { useAbout } from '../../queries.ts';
import { asWire } from '../../words.ts';
import { diskName } from '../history/point-header.tsx';
import { Button } from '../ui/button.tsx';
import { DialogBox } from '../ui/dialog.tsx';
import { ErrorNote } from '../ui/error-note.tsx';
import { FolderDialog } from './folder-dialog.tsx';

interface Props {
  /** With the disk in it. */
  readonly target: Target & { readonly disk: number };
  readonly vm: string;
  readonly point: string;
  /** Virtual size, where it is known. */
  readonly bytes: number | undefined;
  readonly onClose: () => void;
}

interface Format {
  readonly id: string;
  readonly title: string;
  readonly note: string;
  readonly format: ConvertRequest['format'];
  readonly variant?: string;
  readonly ending: string;
}

const FORMATS: readonly Format[] = [
  { id: 'qcow2', title: 'QCOW2', note: 'QEMU, libvirt, Proxmox', format: 'qcow2', ending: '.qcow2' },
  {
    id: 'sparse',
    title: 'VMDK',
    note: 'VMware Workstation, sparse',
    format: 'vmdk',
    variant: 'monolithicSparse',
    ending: '.vmdk',
  },
  {
    id: 'flat',
    title: 'VMDK, flat',
    note: 'as ESXi keeps it, two files',
    format: 'vmdk',
    variant: 'monolithicFlat',
    ending: '.vmdk',
  },
  {
    id: 'stream',
    title: 'VMDK, stream-optimized',
    note: 'compressed, to upload or for an OVA',
    format: 'vmdk',
    variant: 'streamOptimized',
    ending: '.vmdk',
  },
  { id: 'vhdx', title: 'VHDX', note: 'Hyper-V', format: 'vhdx', ending: '.vhdx' },
  { id: 'raw', title: 'Raw', note: 'every program and every disk', format: 'raw', ending: '.img' },
];
const LAST_FOLDER = 'chainlift.restore-folder';
const LAST_FORMAT = 'chainlift.restore-format';

/** A whole disk of a point as a new image. */
export function RestoreDialog({ target, vm, point, bytes, onClose }: Props) {
  const { api, shell } = useServices();
  const about = useAbout();
  const [chosenFolder, setFolder] = useState(() => localStorage.getItem(LAST_FOLDER) ?? undefined);
  const [formatId, setFormatId] = useState(() => localStorage.getItem(LAST_FORMAT) ?? 'qcow2');
  const format = FORMATS.find((one) => one.id === formatId) ?? FORMATS[0]!;
  const [typedName, setName] = useState<string>();
  const [verify, setVerify] = useState(true);
  const [replace, setReplace] = useState(false);
  const [choosing, setChoosing] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<WireError>();
  const folder = chosenFolder ?? about.data?.home ?? '';
  const name = withEnding(typedName ?? imageNameFor(vm, point, target.disk), format.ending);

  const choose = async () => {
    if (shell.chooseFolder === undefined) return setChoosing(true);
    try {
      const chosen = await shell.chooseFolder('copy-to');
      if (chosen !== undefined) setFolder(chosen);
    } catch (thrown) {
      setError(asWire(thrown));
    }
  };
  const start = async () => {
    setBusy(true);
    setError(undefined);
    try {
      await api.convert({
        target,
        destination: hostJoin(folder, name),
        format: format.format,
        ...(format.variant === undefined ? {} : { variant: format.variant }),
        verify,
        overwrite: replace ? 'replace' : 'refuse',
        resume: true,
      });
      localStorage.setItem(LAST_FOLDER, folder);
      localStorage.setItem(LAST_FORMAT, format.id);
      onClose();
    } catch (thrown) {
      setError(asWire(thrown));
      setBusy(false);
    }
  };

  return (
    <DialogBox
      title={`Restore disk ${diskName(target.disk)}`}
      onClose={onClose}
      footer={
        <>
          <span className="dialog-note">
            As of {point}
            {bytes === undefined ? '' : `, ${size(bytes)}, zeros take no room`}
          </span>
          <Button onPress={onClose}>Cancel</Button>
          <Button look="primary" isDisabled={busy || folder === '' || name === ''} onPress={() => void start()}>
            Restore
          </Button>
        </>
      }
    >
      <div className="form">
        <RadioGroup className="radios" aria-label="Format" value={format.id} onChange={setFormatId}>
          <span className="form-label">Format of the new image</span>
          {FORMATS.map((one) => (
            <Radio key={one.id} value={one.id} className="radio">
              {one.title} <span className="quiet">{one.note}</span>
            </Radio>
          ))}
        </RadioGroup>
        <label className="form-label" htmlFor="restore-folder">
          Folder on this computer
        </label>
        <div className="field-row">
          <input
            id="restore-folder"
            className="field"
            value={folder}
            spellCheck={false}
            autoComplete="off"
            onChange={(event) => setFolder(event.target.value)}
          />
          <Button onPress={() => void choose()}>Choose…</Button>
        </div>
        <label className="form-label" htmlFor="restore-name">
          Name
        </label>
        <input
          id="restore-name"
          className="field"
          value={name}
          spellCheck={false}
          autoComplete="off"
          onChange={(event) => setName(event.target.value)}
        />
        <Checkbox className="checkbox" isSelected={verify} onChange={setVerify}>
          <span className="box" aria-hidden="true" />
          Read the new image back and compare it with the point
        </Checkbox>
        <Checkbox className="checkbox" isSelected={replace} onChange={setReplace}>
          <span className="box" aria-hidden="true" />
          Replace a file of that name
        </Checkbox>
        <p className="quiet">
          What is interrupted is kept: the same restore goes on where it was. The backup is only read.
        </p>
        {error !== undefined && <ErrorNote error={error} look="inline" />}
      </div>
      {choosing && (
        <FolderDialog
          purpose="copy-to"
          start={folder === '' ? undefined : folder}
          onChoose={(path) => {
            setFolder(path);
            setChoosing(false);
          }}
          onClose={() => setChoosing(false)}
        />
      )}
    </DialogBox>
  );
}
