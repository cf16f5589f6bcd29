/** The application menu. */
import type { MenuItemConstructorOptions } from 'electron';

export interface MenuActions {
  readonly openFolder: () => void;
}

/** The menu of each system. `development` adds what reloads and inspects the page. */
export function menuTemplate(
  platform: NodeJS.Platform,
  development: boolean,
  actions: MenuActions,
): MenuItemConstructorOptions[] {
  const mac = platform === 'darwin';
  const open: MenuItemConstructorOptions = {
    id: 'open-folder',
    label: 'Open Folder…',
    accelerator: 'CmdOrCtrl+O',
    click: () => actions.openFolder(),
  };
  const recent: MenuItemConstructorOptions = {
    label: 'Open Recent',
    role: 'recentDocuments',
    submenu: [{ label: 'Clear Menu', role: 'clearRecentDocuments' }],
  };
  const view: MenuItemConstructorOptions[] = [
    ...(development
      ? ([{ role: 'reload' }, { role: 'toggleDevTools' }, { type: 'separator' }] satisfies MenuItemConstructorOptions[])
      : []),
    { role: 'resetZoom' },
    { role: 'zoomIn' },
    { role: 'zoomOut' },
    { type: 'separator' },
    { role: 'togglefullscreen' },
  ];
  return [
    ...(mac ? ([{ role: 'appMenu' }] satisfies MenuItemConstructorOptions[]) : []),
    {
      label: '&File',
      submenu: mac
        ? [open, recent, { type: 'separator' }, { role: 'close' }]
        : [open, { type: 'separator' }, { role: 'quit' }],
    },
    { role: 'editMenu' },
    { label: '&View', submenu: view },
    { role: 'windowMenu' },
    ...(mac ? [] : ([{ label: '&Help', submenu: [{ role: 'about' }] }] satisfies MenuItemConstructorOptions[])),
  ];
}
