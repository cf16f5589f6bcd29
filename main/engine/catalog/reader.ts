/** A reader of VM files: what each hypervisor's folder of this one gives to the catalog. */
import type { LayerIndex } from './layers.ts';
import type { VirtualMachine } from './model.ts';
import type { Folder } from './walk.ts';

export interface ScannedMachine {
  readonly vm: VirtualMachine;
  /** Real paths of every file that its points consist of, its own configuration among them. */
  readonly used: ReadonlySet<string>;
  /** A disk of it could be opened. If none could (encrypted, all gone), its folder's images are looked at on their own. */
  readonly opened: boolean;
  /** Folders, besides the one it was found in, that hold nothing but this VM's files: what is left over there is an orphan. */
  readonly folders?: readonly string[];
}

export interface MachineReader {
  readonly origin: VirtualMachine['origin'];
  /**
   * The VMs that files of this folder (or members of this archive) describe. What is broken in one is told in its findings.
   * @param folders every folder of the repository, for VMs whose files lie in several. @throws CancelledError.
   */
  scan(place: Folder, index: LayerIndex, folders: readonly Folder[]): Promise<ScannedMachine[]>;
}
