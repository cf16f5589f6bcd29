import type { DragEvent } from 'react';
import type { DragOutcome, ShellApi, Target } from '../../../preload/api.ts';
import type { Row } from '../../logic/rows.ts';

/**
 * Begins a drag of rows out of the window. Electron stages the files and hands the drag to the system; a browser knows one file at a
 * time, as an address that Chromium downloads where it is dropped (`DownloadURL`).
 * @returns what comes of it, where the shell drags; undefined where the page's own drag goes on, or there is nothing to drag.
 */
export function beginDrag(
  event: DragEvent,
  shell: ShellApi,
  target: Target,
  rows: readonly Row[],
  grabbed: Row,
): Promise<DragOutcome> | undefined {
  const paths = rows.filter((row) => !row.gone).map((row) => row.entry.path);
  if (shell.startDrag !== undefined) {
    // The system's own drag replaces the page's.
    event.preventDefault();
    return shell.startDrag(target, paths);
  }
  if (shell.downloadUrl === undefined || grabbed.entry.kind !== 'file') {
    event.preventDefault();
    return undefined;
  }
  const url = shell.downloadUrl(target, grabbed.entry.path);
  // A colon ends a field of DownloadURL, and a line break the whole.
  const name = grabbed.entry.name.replace(/[:\r\n]/g, '_');
  event.dataTransfer.effectAllowed = 'copy';
  event.dataTransfer.setData('DownloadURL', `application/octet-stream:${name}:${url}`);
  event.dataTransfer.setData('text/uri-list', url);
  return undefined;
}

/** Lets the browser download files, one after the other. */
export function download(shell: ShellApi, target: Target, rows: readonly Row[]): void {
  for (const row of rows) {
    if (row.gone || row.entry.kind !== 'file' || shell.downloadUrl === undefined) continue;
    const link = document.createElement('a');
    link.href = shell.downloadUrl(target, row.entry.path);
    link.download = row.entry.name;
    link.hidden = true;
    document.body.append(link);
    link.click();
    link.remove();
  }
}
