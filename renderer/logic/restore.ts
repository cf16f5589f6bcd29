/** What a restored disk is called, until somebody says otherwise. Pure. */

/** Characters that some file system refuses, and those that would make a folder of a name. */
const UNFIT = /[<>:"/\\|?*\p{Cc}]+/gu;

/** `web01 before-upgrade sda`, fit to be a file's name anywhere, without an ending. */
export function imageNameFor(vm: string, point: string, disk: number): string {
  const parts = [vm, point, disk === 0 ? undefined : `disk ${disk}`].filter((part) => part !== undefined);
  const name = parts
    .map((part) => part.replaceAll(UNFIT, ' ').replaceAll(/\s+/g, ' ').trim())
    .filter((part) => part !== '')
    .join(' ');
  return (
    name
      .replace(/^\.+/, '')
      .replace(/[. ]+$/, '')
      .slice(0, 120) || 'disk'
  );
}

const ENDINGS = /\.(qcow2|vmdk|vhdx|img|raw)$/i;

/** The name with this ending in place of another image's. */
export function withEnding(name: string, ending: string): string {
  if (name === '') return '';
  return `${name.replace(ENDINGS, '')}${ending}`;
}
