import { useState } from 'react';
import { Radio, RadioGroup } from 'react-aria-components';
import type { FindingAction, LocatedParent, WireError } from '../../../preload/api.ts';
import { useServices } from '../../context.ts';
import { hostJoin, hostName, imageName } from '../../logic/paths.ts';
import { asWire } from '../../words.ts';
import { Facts } from '../inspector/facts.tsx';
import { Button } from '../ui/button.tsx';
import { DialogBox } from '../ui/dialog.tsx';
import { ErrorNote } from '../ui/error-note.tsx';
import { FindingList } from './finding-list.tsx';
import { FolderDialog } from './folder-dialog.tsx';

interface Props {
  /** The repository, or the image opened by itself. */
  readonly source: string;
  /** The folder that the names of images are relative to. */
  readonly root: string;
  readonly action: FindingAction;
  readonly onClose: () => void;
  /** The chain can be read anew. */
  readonly onLocated: () => void;
}

/** Where is the parent of this image now? What is answered is checked before it is used. */
export function LocateDialog({ source, root, action, onClose, onLocated }: Props) {
  const { api, shell } = useServices();
  const candidates = (action.candidates ?? []).map((name) => hostJoin(root, name));
  const [path, setPath] = useState(candidates[0] ?? '');
  const [choosing, setChoosing] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<WireError>();
  const [located, setLocated] = useState<LocatedParent>();

  const choose = async () => {
    if (shell.chooseFolder === undefined) return setChoosing(true);
    try {
      const chosen = await shell.chooseFolder('locate');
      if (chosen !== undefined) setPath(chosen);
    } catch (thrown) {
      setError(asWire(thrown));
    }
  };
  const use = async () => {
    setBusy(true);
    setError(undefined);
    try {
      setLocated(await api.locateParent({ source, child: action.child, parent: path }));
      onLocated();
    } catch (thrown) {
      setError(asWire(thrown));
    }
    setBusy(false);
  };

  return (
    <DialogBox
      title={`Where is the parent of “${imageName(action.child)}”?`}
      onClose={onClose}
      footer={
        located === undefined ? (
          <>
            <span className="dialog-note">Nothing is moved or changed</span>
            <Button onPress={onClose}>Cancel</Button>
            <Button look="primary" isDisabled={busy || path === ''} onPress={() => void use()}>
              Use this file
            </Button>
          </>
        ) : (
          <Button look="primary" onPress={onClose}>
            Close
          </Button>
        )
      }
    >
      {located === undefined ? (
        <div className="form">
          <Facts
            facts={[
              { label: 'Image', value: action.child },
              { label: 'Recorded', value: action.recorded },
              action.expectedId === undefined
                ? { label: 'Identity', value: 'None recorded: the right file can’t be proved' }
                : { label: 'Identity', value: <code>{action.expectedId}</code> },
            ]}
          />
          {candidates.length > 0 && (
            <RadioGroup
              className="radios"
              aria-label="Images here with this identity"
              value={path}
              onChange={(value) => setPath(value)}
            >
              <span className="form-label">Images here with this identity</span>
              {(action.candidates ?? []).map((name, index) => (
                <Radio key={name} value={candidates[index] ?? name} className="radio">
                  {name}
                </Radio>
              ))}
            </RadioGroup>
          )}
          <label className="form-label" htmlFor="parent-path">
            File on this computer
          </label>
          <div className="field-row">
            <input
              id="parent-path"
              className="field"
              value={path}
              spellCheck={false}
              autoComplete="off"
              onChange={(event) => setPath(event.target.value)}
            />
            <Button onPress={() => void choose()}>Choose…</Button>
          </div>
          {error !== undefined && <ErrorNote error={error} look="inline" />}
        </div>
      ) : (
        <>
          <p className="callout" role="status">
            {located.proved
              ? `“${hostName(located.parent)}” has the identity that “${imageName(located.child)}” records. It is used from now on.`
              : `“${hostName(located.parent)}” is used from now on. The format records no identity, so nothing proves that it is the right file: look at what the point holds before you trust it.`}
          </p>
          {located.findings.length > 0 && <FindingList findings={located.findings} />}
        </>
      )}
      {choosing && (
        <FolderDialog
          purpose="locate"
          start={path === '' ? root : undefined}
          onChoose={(chosen) => {
            setPath(chosen);
            setChoosing(false);
          }}
          onClose={() => setChoosing(false)}
        />
      )}
    </DialogBox>
  );
}
