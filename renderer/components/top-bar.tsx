import { Monitor, Moon, ShieldCheck, Sun } from 'lucide-react';
import { Menu, MenuItem, MenuTrigger, Popover } from 'react-aria-components';
import type { Theme } from '../hooks/use-theme.ts';
import { IconButton } from './ui/button.tsx';
import { Brand } from './ui/small.tsx';

interface Props {
  readonly repository: { readonly name: string; readonly path: string } | undefined;
  readonly vm: string | undefined;
  readonly theme: Theme;
  readonly onTheme: (theme: Theme) => void;
}

const THEMES: readonly { readonly id: Theme; readonly title: string }[] = [
  { id: 'system', title: 'As the system' },
  { id: 'light', title: 'Light' },
  { id: 'dark', title: 'Dark' },
];
const ICONS = { system: Monitor, light: Sun, dark: Moon };

export function TopBar({ repository, vm, theme, onTheme }: Props) {
  return (
    <header className="top">
      <Brand />
      {repository !== undefined && (
        <span className="top-crumb" title={repository.path}>
          <span>{repository.name}</span>
          {vm !== undefined && (
            <>
              <span aria-hidden="true">›</span>
              <b>{vm}</b>
            </>
          )}
        </span>
      )}
      <span className="badge" title="Backups are opened read-only; nothing here can change them">
        <ShieldCheck size={13} aria-hidden="true" />
        Read-only
      </span>
      <MenuTrigger>
        <IconButton label="Theme" icon={ICONS[theme]} />
        <Popover className="popover" placement="bottom end">
          <Menu
            className="menu"
            aria-label="Theme"
            selectionMode="single"
            disallowEmptySelection
            selectedKeys={[theme]}
            onAction={(key) => onTheme(key as Theme)}
          >
            {THEMES.map((one) => (
              <MenuItem key={one.id} id={one.id} className="menu-item">
                {one.title}
              </MenuItem>
            ))}
          </Menu>
        </Popover>
      </MenuTrigger>
    </header>
  );
}
