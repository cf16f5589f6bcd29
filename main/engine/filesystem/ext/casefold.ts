/**
 * Names in casefold directories (https://docs.kernel.org/filesystems/ext4/overview.html#case-insensitive-file-name-lookups): equal when
 * their canonical decompositions are equal after case folding (Unicode NFDICF).
 *
 * JavaScript has no case folding of its own; upper case taken to lower case by single characters comes to the same for all but
 * a handful of letters (Cherokee, the dotless i), and without the special rule for a sigma at the end of a word.
 */
export function foldCase(name: string): string {
  if (/^[\x20-\x7e]*$/.test(name)) return name.toLowerCase();
  let folded = '';
  for (const char of name
    .normalize('NFD')
    .replace(/\p{Default_Ignorable_Code_Point}/gu, '')
    .toUpperCase()) {
    folded += char.toLowerCase();
  }
  return folded.normalize('NFD');
}
