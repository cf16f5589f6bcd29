import { useQuery, useQueryClient } from '@tanstack/react-query';
import { ChevronRight, Ellipsis, FolderOpen } from 'lucide-react';
import { Menu, MenuItem, MenuTrigger, Popover } from 'react-aria-components';
import type { RepositoryReport, VirtualMachine } from '../../preload/api.ts';
import { useServices } from '../context.ts';
import { plural } from '../logic/format.ts';
import { findingCounts, healthOf, repositoryFindings, vmHealth, vmOrphans, vmSummary } from '../logic/health.ts';
import { hostName } from '../logic/paths.ts';
import { useRecent, useScanOptions } from '../queries.ts';
import { asWire, shortWords } from '../words.ts';
import { Button, IconButton } from './ui/button.tsx';
import { HealthDot, Skeleton } from './ui/small.tsx';

export interface RepositoriesProps {
  /** Sources opened in this window, which are shown with their VMs. */
  readonly opened: readonly string[];
  readonly active: { readonly source: string | undefined; readonly vm: string | undefined };
  readonly onOpen: (source: string) => void;
  readonly onVm: (source: string, vm: VirtualMachine) => void;
  readonly onClose: (source: string) => void;
  readonly onFindings: (report: RepositoryReport) => void;
  readonly onRescan: (source: string) => void;
  readonly onVerify: (source: string) => void;
  readonly onOpenFolder: () => void;
}

export const vmKey = (vm: VirtualMachine): string => `${vm.folder}\n${vm.name}`;

/** The left pane: repositories of this computer, each with its VMs. */
export function Repositories(props: RepositoriesProps) {
  const recent = useRecent();
  const names = new Map((recent.data ?? []).map((one) => [one.path, one.name]));
  const sources = [...props.opened, ...[...names.keys()].filter((path) => !props.opened.includes(path))];
  return (
    <nav className="repositories" aria-label="Repositories">
      <h2 className="pane-heading">This computer</h2>
      {recent.isPending && sources.length === 0 && <Skeleton lines={3} label="Reading recent repositories" />}
      <ul className="plain-list">
        {sources.map((source) => (
          <Repository key={source} source={source} name={names.get(source) ?? hostName(source)} {...props} />
        ))}
      </ul>
      <div className="repositories-foot">
        <Button look="quiet" small onPress={props.onOpenFolder}>
          <FolderOpen size={14} aria-hidden="true" />
          Open a folder…
        </Button>
      </div>
    </nav>
  );
}

function Repository({
  source,
  name,
  ...props
}: RepositoriesProps & { readonly source: string; readonly name: string }) {
  const open = props.opened.includes(source);
  const scanOptions = useScanOptions();
  const scan = useQuery({ ...scanOptions(source), enabled: open });
  const report = open ? scan.data : undefined;
  const forget = useForget(props.onClose);
  return (
    <li className="repository">
      <div className="repository-head">
        <button
          type="button"
          className="repository-name"
          aria-expanded={open}
          title={source}
          aria-current={props.active.source === source && props.active.vm === undefined ? 'true' : undefined}
          onClick={() => props.onOpen(source)}
        >
          <ChevronRight size={13} className={open ? 'chevron open' : 'chevron'} aria-hidden="true" />
          <span>{report?.name ?? name}</span>
        </button>
        <MenuTrigger>
          <IconButton label={`Actions for ${name}`} icon={Ellipsis} />
          <Popover className="popover" placement="bottom end">
            <Menu className="menu" aria-label={`Actions for ${name}`}>
              <MenuItem className="menu-item" onAction={() => (open ? props.onRescan(source) : props.onOpen(source))}>
                {open ? 'Scan again' : 'Open'}
              </MenuItem>
              {report !== undefined && (
                <MenuItem className="menu-item" onAction={() => props.onFindings(report)}>
                  Findings and orphans…
                </MenuItem>
              )}
              {report !== undefined && (
                <MenuItem className="menu-item" onAction={() => props.onVerify(source)}>
                  Verify everything in it
                </MenuItem>
              )}
              <MenuItem className="menu-item" onAction={() => forget(source)}>
                Remove from this list
              </MenuItem>
            </Menu>
          </Popover>
        </MenuTrigger>
      </div>
      {open && scan.isPending && <Skeleton lines={2} label={`Reading ${name}`} />}
      {open && scan.isFetching && !scan.isPending && (
        <p className="repository-busy quiet" role="status">
          Reading it again…
        </p>
      )}
      {open && scan.isError && <p className="repository-problem">{shortWords(asWire(scan.error))}</p>}
      {report !== undefined && <RepositoryContent report={report} {...props} />}
    </li>
  );
}

function RepositoryContent({ report, ...props }: RepositoriesProps & { readonly report: RepositoryReport }) {
  const findings = repositoryFindings(report);
  const counts = findingCounts(findings);
  const orphans = report.orphans.length;
  const said = [counts, orphans === 0 ? undefined : plural(orphans, 'orphaned file')].filter(
    (part) => part !== undefined,
  );
  return (
    <>
      <ul className="plain-list">
        {report.vms.map((vm) => {
          const left = vmOrphans(report, vm).length;
          const health = vmHealth(vm);
          const active = props.active.source === report.source && props.active.vm === vmKey(vm);
          return (
            <li key={vmKey(vm)}>
              <button
                type="button"
                className={active ? 'vm active' : 'vm'}
                aria-current={active ? 'true' : undefined}
                onClick={() => props.onVm(report.source, vm)}
              >
                <HealthDot health={health === 'good' && left > 0 ? 'note' : health} />
                <span className="vm-name">{vm.name}</span>
                <small>{vmSummary(vm, left)}</small>
              </button>
            </li>
          );
        })}
      </ul>
      {said.length > 0 && (
        <button type="button" className="vm findings-link" onClick={() => props.onFindings(report)}>
          <HealthDot health={orphans > 0 && healthOf(findings) === 'good' ? 'note' : healthOf(findings)} />
          <span className="vm-name">{said.join(', ')}</span>
        </button>
      )}
    </>
  );
}

/** Takes a repository off the list, here and in what the engine remembers. */
function useForget(onClose: (source: string) => void): (source: string) => void {
  const { api } = useServices();
  const client = useQueryClient();
  return (source) => {
    onClose(source);
    // A lost connection has its banner; the list then shows it again, as it is.
    api.forget({ path: source }).then(
      () => client.invalidateQueries({ queryKey: ['recent'] }),
      () => undefined,
    );
  };
}
