import { ArrowUp, Folder, HardDrive } from 'lucide-react';
import { type FormEvent, useEffect, useRef, useState } from 'react';
import { ListBox, ListBoxItem } from 'react-aria-components';
import { hostJoin, hostName, hostParent } from '../../logic/paths.ts';
import { useBrowse } from '../../queries.ts';
import { asWire } from '../../words.ts';
import { Button, IconButton } from '../ui/button.tsx';
import { DialogBox } from '../ui/dialog.tsx';
import { ErrorNote } from '../ui/error-note.tsx';
import { Skeleton } from '../ui/small.tsx';

interface Props {
  /** `locate`: a file is wanted. */
  readonly purpose: 'open' | 'copy-to' | 'locate';
  readonly start?: string | undefined;
  readonly onChoose: (path: string) => void;
  readonly onClose: () => void;
}

const TITLES = { open: 'Open a backup', 'copy-to': 'Copy to a folder', locate: 'Choose an image' } as const;

/** The folder dialog of shells that have none of their own. Opens folders and, to open a backup, single images and archives. */
export function FolderDialog({ purpose, start, onChoose, onClose }: Props) {
  const [wanted, setWanted] = useState(start);
  const listing = useBrowse(wanted);
  const [typed, setTyped] = useState(start ?? '');
  const [chosen, setChosen] = useState<string>();
  const editing = useRef(false);
  const shown = listing.data;
  useEffect(() => {
    // A listing that comes late does not take away what is being typed.
    if (shown !== undefined && !editing.current) setTyped(shown.path);
    setChosen(undefined);
  }, [shown]);
  const images = purpose === 'copy-to' ? [] : (shown?.images ?? []);
  const result = chosen ?? typed;
  // From a folder that can't be read the way up must stay open.
  const parent = listing.isError ? hostParent(typed) : shown?.parent;
  const visit = (path: string | undefined) => {
    editing.current = false;
    setWanted(path);
  };
  const go = (event: FormEvent) => {
    event.preventDefault();
    // The form's Enter enters what was typed; when that is where we are, it is the choice.
    if (typed === shown?.path && purpose !== 'locate') onChoose(typed);
    // A file is typed in full or pasted: what is no folder can't be entered.
    else if (purpose === 'locate' && /\.[^./\\]+$/.test(typed)) onChoose(typed);
    else visit(typed);
  };
  const pathOf = (key: string) => hostJoin(shown?.path ?? '/', key.slice(key.indexOf(':') + 1));
  const act = (key: string) => {
    if (key.startsWith('folder:')) visit(pathOf(key));
    else onChoose(pathOf(key));
  };
  return (
    <DialogBox
      title={TITLES[purpose]}
      onClose={onClose}
      footer={
        <>
          <span className="dialog-note" title={result}>
            {result}
          </span>
          <Button onPress={onClose}>Cancel</Button>
          <Button
            look="primary"
            isDisabled={result === '' || listing.isError || (purpose === 'locate' && chosen === undefined)}
            onPress={() => onChoose(result)}
          >
            {`${purpose === 'open' ? 'Open' : 'Choose'} ${chosen === undefined ? (purpose === 'locate' ? 'an image' : 'this folder') : `“${hostName(chosen)}”`}`}
          </Button>
        </>
      }
    >
      <form className="browse-bar" onSubmit={go}>
        <IconButton
          label="Parent folder"
          icon={ArrowUp}
          isDisabled={parent === undefined}
          onPress={() => visit(parent)}
        />
        <input
          aria-label="Path"
          className="field"
          value={typed}
          spellCheck={false}
          autoComplete="off"
          onChange={(event) => {
            editing.current = true;
            setTyped(event.target.value);
          }}
        />
      </form>
      {listing.isError ? (
        <ErrorNote error={asWire(listing.error)} look="inline" onRetry={() => void listing.refetch()} />
      ) : shown === undefined ? (
        <Skeleton lines={6} label="Reading the folder" />
      ) : (
        <ListBox
          key={shown.path}
          aria-label={`Folders in ${shown.path}`}
          className="browse-list"
          selectionMode="single"
          selectionBehavior="replace"
          escapeKeyBehavior="none"
          onSelectionChange={(keys) => {
            const [key] = keys === 'all' ? [] : [...keys];
            setChosen(key === undefined ? undefined : pathOf(String(key)));
          }}
          onAction={(key) => act(String(key))}
          renderEmptyState={() => <p className="quiet browse-empty">No folders are in here.</p>}
        >
          {[
            ...shown.folders.map((name) => (
              <ListBoxItem key={`folder:${name}`} id={`folder:${name}`} textValue={name} className="browse-item">
                <Folder size={15} strokeWidth={1.5} aria-hidden="true" />
                {name}
              </ListBoxItem>
            )),
            ...images.map((name) => (
              <ListBoxItem key={`image:${name}`} id={`image:${name}`} textValue={name} className="browse-item">
                <HardDrive size={15} strokeWidth={1.5} aria-hidden="true" />
                {name}
              </ListBoxItem>
            )),
          ]}
        </ListBox>
      )}
    </DialogBox>
  );
}
