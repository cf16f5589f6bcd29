import { useState } from 'react';
import { Checkbox, Radio, RadioGroup } from 'react-aria-components';
import type { OverwritePolicy, Target, WireError } from '../../../preload/api.ts';
import { useServices } from '../../context.ts';
import { plural } from '../../logic/format.ts';
import { nameOf } from '../../logic/paths.ts';
import { useAbout } from '../../queries.ts';
import { asWire } from '../../words.ts';
import { Button } from '../ui/button.tsx';
import { DialogBox } from '../ui/dialog.tsx';
import { ErrorNote } from '../ui/error-note.tsx';
import { FolderDialog } from './folder-dialog.tsx';

interface Props {
  readonly target: Target;
  readonly point: string;
  readonly paths: readonly string[];
  readonly onClose: () => void;
}

const POLICIES: readonly { readonly id: OverwritePolicy; readonly title: string; readonly note: string }[] = [
  { id: 'refuse', title: 'Leave it and report it', note: 'nothing here is touched' },
  { id: 'rename', title: 'Keep both', note: 'the copy gets another name' },
  { id: 'replace', title: 'Replace it', note: 'the file here is lost' },
  { id: 'skip', title: 'Skip it', note: 'it is counted, not reported' },
];
const LAST = 'chainlift.destination';

/** Where to copy the selection, and what to do with what is there already. */
export function CopyDialog({ target, point, paths, onClose }: Props) {
  const { api, shell } = useServices();
  const about = useAbout();
  const [destination, setDestination] = useState(() => localStorage.getItem(LAST) ?? undefined);
  const [overwrite, setOverwrite] = useState<OverwritePolicy>('refuse');
  const [verify, setVerify] = useState(true);
  const [choosing, setChoosing] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<WireError>();
  const folder = destination ?? about.data?.home ?? '';
  const what = paths.length === 1 ? `“${nameOf(paths[0] ?? '')}”` : plural(paths.length, 'item');

  const choose = async () => {
    if (shell.chooseFolder === undefined) return setChoosing(true);
    try {
      const chosen = await shell.chooseFolder('copy-to');
      if (chosen !== undefined) setDestination(chosen);
    } catch (thrown) {
      setError(asWire(thrown));
    }
  };
  const start = async () => {
    setBusy(true);
    setError(undefined);
    try {
      await api.copy({ target, paths, destination: folder, recursive: true, verify, overwrite });
      localStorage.setItem(LAST, folder);
      onClose();
    } catch (thrown) {
      setError(asWire(thrown));
      setBusy(false);
    }
  };

  return (
    <DialogBox
      title={`Copy ${what} to…`}
      onClose={onClose}
      footer={
        <>
          <span className="dialog-note">As of {point}</span>
          <Button onPress={onClose}>Cancel</Button>
          <Button look="primary" isDisabled={busy || folder === ''} onPress={() => void start()}>
            Copy
          </Button>
        </>
      }
    >
      <div className="form">
        <label className="form-label" htmlFor="copy-destination">
          Folder on this computer
        </label>
        <div className="field-row">
          <input
            id="copy-destination"
            className="field"
            value={folder}
            spellCheck={false}
            autoComplete="off"
            onChange={(event) => setDestination(event.target.value)}
          />
          <Button onPress={() => void choose()}>Choose…</Button>
        </div>
        <RadioGroup
          className="radios"
          aria-label="When something of that name is there already"
          value={overwrite}
          onChange={(value) => setOverwrite(value as OverwritePolicy)}
        >
          <span className="form-label">When something of that name is there already</span>
          {POLICIES.map((policy) => (
            <Radio key={policy.id} value={policy.id} className="radio">
              {policy.title} <span className="quiet">{policy.note}</span>
            </Radio>
          ))}
        </RadioGroup>
        <Checkbox className="checkbox" isSelected={verify} onChange={setVerify}>
          <span className="box" aria-hidden="true" />
          Read every copied file back and compare its SHA-256
        </Checkbox>
        {error !== undefined && <ErrorNote error={error} look="inline" />}
      </div>
      {choosing && (
        <FolderDialog
          purpose="copy-to"
          start={folder === '' ? undefined : folder}
          onChoose={(path) => {
            setDestination(path);
            setChoosing(false);
          }}
          onClose={() => setChoosing(false)}
        />
      )}
    </DialogBox>
  );
}
