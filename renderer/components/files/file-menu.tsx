import { useRef } from 'react';
import { Menu, MenuItem, Popover, Separator } from 'react-aria-components';

export interface MenuAction {
  readonly id: string;
  readonly title: string;
  readonly run: () => void;
  readonly disabled?: boolean;
  readonly keys?: string;
}

interface Props {
  readonly at: { readonly x: number; readonly y: number };
  /** Groups, with a line between them. */
  readonly groups: readonly (readonly MenuAction[])[];
  readonly onClose: () => void;
}

/** The context menu, where the pointer is. */
export function FileMenu({ at, groups, onClose }: Props) {
  const anchor = useRef<HTMLSpanElement>(null);
  const filled = groups.filter((group) => group.length > 0);
  return (
    <>
      <span ref={anchor} className="menu-anchor" style={{ left: at.x, top: at.y }} />
      <Popover
        className="popover"
        triggerRef={anchor}
        isOpen
        placement="bottom start"
        offset={2}
        onOpenChange={(open) => !open && onClose()}
      >
        <Menu className="menu" aria-label="Actions for the selection" autoFocus="first" onClose={onClose}>
          {filled.flatMap((group, index) => [
            ...(index === 0 ? [] : [<Separator key={`line-${group[0]?.id}`} className="menu-line" />]),
            ...group.map((action) => (
              <MenuItem
                key={action.id}
                id={action.id}
                className="menu-item"
                textValue={action.title}
                isDisabled={action.disabled === true}
                onAction={action.run}
              >
                <span>{action.title}</span>
                {action.keys !== undefined && <kbd>{action.keys}</kbd>}
              </MenuItem>
            )),
          ])}
        </Menu>
      </Popover>
    </>
  );
}
