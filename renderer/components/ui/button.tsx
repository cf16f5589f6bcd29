import type { LucideIcon } from 'lucide-react';
import type { ReactNode } from 'react';
import { Button as AriaButton, type ButtonProps as AriaButtonProps } from 'react-aria-components';

interface ButtonProps extends Omit<AriaButtonProps, 'children' | 'className'> {
  readonly children: ReactNode;
  /** `primary` is the big decision of a dialog; `quiet` has no border. */
  readonly look?: 'plain' | 'primary' | 'quiet' | 'danger';
  readonly small?: boolean;
}

export function Button({ look = 'plain', small = false, children, ...rest }: ButtonProps) {
  return (
    <AriaButton {...rest} className={`button ${look}${small ? ' small' : ''}`}>
      {children}
    </AriaButton>
  );
}

interface IconButtonProps extends Omit<AriaButtonProps, 'children' | 'className'> {
  readonly label: string;
  readonly icon: LucideIcon;
}

export function IconButton({ label, icon: Icon, ...rest }: IconButtonProps) {
  return (
    <AriaButton {...rest} aria-label={label} className="icon-button">
      <Icon size={15} strokeWidth={1.75} aria-hidden="true" />
    </AriaButton>
  );
}
