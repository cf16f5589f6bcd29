/**
 * Partition types in words. MBR bytes as Linux's fdisk and the list of Andries Brouwer name them
 * (https://www.win.tue.nl/~aeb/partitions/partition_types-1.html); GPT GUIDs from the UEFI specification, the UAPI Group's
 * Discoverable Partitions Specification, and the systems that registered theirs.
 */

const mbrTypes: Readonly<Record<number, string>> = {
  0: 'Empty',
  1: 'FAT12',
  4: 'FAT16 (below 32 MB)',
  5: 'Extended',
  6: 'FAT16',
  7: 'NTFS or exFAT',
  11: 'FAT32',
  12: 'FAT32 (LBA)',
  14: 'FAT16 (LBA)',
  15: 'Extended (LBA)',
  17: 'Hidden FAT12',
  18: 'Manufacturer diagnostics',
  20: 'Hidden FAT16 (below 32 MB)',
  22: 'Hidden FAT16',
  23: 'Hidden NTFS or exFAT',
  27: 'Hidden FAT32',
  28: 'Hidden FAT32 (LBA)',
  30: 'Hidden FAT16 (LBA)',
  39: 'Windows recovery environment',
  66: 'Windows dynamic disk (LDM)',
  77: 'QNX 4.x',
  99: 'GNU Hurd or System V',
  101: 'NetWare 386',
  129: 'Minix',
  130: 'Linux swap',
  131: 'Linux filesystem',
  132: 'Hibernation',
  133: 'Linux extended',
  134: 'NTFS volume set',
  135: 'NTFS volume set',
  136: 'Linux plaintext',
  142: 'Linux LVM',
  160: 'Laptop hibernation',
  165: 'FreeBSD',
  166: 'OpenBSD',
  168: 'Darwin UFS',
  169: 'NetBSD',
  171: 'Darwin boot',
  175: 'Apple HFS/HFS+',
  190: 'Solaris boot',
  191: 'Solaris',
  218: 'Non-file-system data',
  234: 'Linux extended boot',
  235: 'BeOS',
  238: 'GPT protective',
  239: 'EFI System',
  251: 'VMware VMFS',
  252: 'VMware core dump',
  253: 'Linux RAID',
  254: 'LANstep',
  255: 'Xenix bad block table',
};

const gptTypes: Readonly<Record<string, string>> = {
  'C12A7328-F81F-11D2-BA4B-00A0C93EC93B': 'EFI System',
  '024DEE41-33E7-11D3-9D69-0008C781F39F': 'MBR partition scheme',
  '21686148-6449-6E6F-744E-656564454649': 'BIOS boot',
  'BC13C2FF-59E6-4262-A352-B275FD6F7172': 'Linux extended boot',
  'E3C9E316-0B5C-4DB8-817D-F92DF00215AE': 'Microsoft reserved',
  'EBD0A0A2-B9E5-4433-87C0-68B6B72699C7': 'Microsoft basic data',
  '5808C8AA-7E8F-42E0-85D2-E1E90434CFB3': 'Microsoft LDM metadata',
  'AF9B60A0-1431-4F62-BC68-3311714A69AD': 'Microsoft LDM data',
  'DE94BBA4-06D1-4D40-A16A-BFD50179D6AC': 'Windows recovery environment',
  'E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D': 'Microsoft Storage Spaces',
  '558D43C5-A1AC-43C0-AAC8-D1472B2923D1': 'Microsoft storage replica',
  '37AFFC90-EF7D-4E96-91C3-2D7AE055B174': 'IBM General Parallel File System',
  '0FC63DAF-8483-4772-8E79-3D69D8477DE4': 'Linux filesystem',
  'A19D880F-05FC-4D3B-A006-743F0F84911E': 'Linux RAID',
  '44479540-F297-41B2-9AF7-D131D5F0458A': 'Linux root (x86)',
  '4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709': 'Linux root (x86-64)',
  '69DAD710-2CE4-4E3C-B16C-21A1D49ABED3': 'Linux root (ARM)',
  'B921B045-1DF0-41C3-AF44-4C6F280D3FAE': 'Linux root (ARM64)',
  '72EC70A6-CF74-40E6-BD49-4BDA08E8F224': 'Linux root (RISC-V 64)',
  '8484680C-9521-48C6-9C11-B0720656F69E': 'Linux /usr (x86-64)',
  '2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5': 'Linux root verity (x86-64)',
  '77FF5F63-E7B6-4633-ACF4-1565B864C0E6': 'Linux /usr verity (x86-64)',
  '0657FD6D-A4AB-43C4-84E5-0933C84B4F4F': 'Linux swap',
  'E6D6D379-F507-44C2-A23C-238F2A3DF928': 'Linux LVM',
  '933AC7E1-2EB4-4F13-B844-0E14E2AEF915': 'Linux home',
  '3B8F8425-20E0-4F3B-907F-1A25A76F98E8': 'Linux server data',
  '4D21B016-B534-45C2-A9FB-5C16E091FD2D': 'Linux variable data',
  '7EC6F557-3BC5-4ACA-B293-16EF5DF639D1': 'Linux temporary data',
  '773F91EF-66D4-49B5-BD83-D683BF40AD16': 'Linux user home',
  '7FFEC5C9-2D00-49B7-8941-3EA10A5586B7': 'Linux plain dm-crypt',
  'CA7D7CCB-63ED-4C53-861C-1742536059CC': 'Linux LUKS',
  '8DA63339-0007-60C0-C436-083AC8230908': 'Linux reserved',
  '83BD6B9D-7F41-11DC-BE0B-001560B84F0F': 'FreeBSD boot',
  '516E7CB4-6ECF-11D6-8FF8-00022D09712B': 'FreeBSD data',
  '516E7CB5-6ECF-11D6-8FF8-00022D09712B': 'FreeBSD swap',
  '516E7CB6-6ECF-11D6-8FF8-00022D09712B': 'FreeBSD UFS',
  '516E7CB8-6ECF-11D6-8FF8-00022D09712B': 'FreeBSD Vinum',
  '516E7CBA-6ECF-11D6-8FF8-00022D09712B': 'FreeBSD ZFS',
  '48465300-0000-11AA-AA11-00306543ECAC': 'Apple HFS/HFS+',
  '7C3457EF-0000-11AA-AA11-00306543ECAC': 'Apple APFS',
  '55465300-0000-11AA-AA11-00306543ECAC': 'Apple UFS',
  '426F6F74-0000-11AA-AA11-00306543ECAC': 'Apple boot',
  '53746F72-6167-11AA-AA11-00306543ECAC': 'Apple Core Storage',
  '52414944-0000-11AA-AA11-00306543ECAC': 'Apple RAID',
  '6A898CC3-1DD2-11B2-99A6-080020736631': 'Solaris /usr or Apple ZFS',
  '6A85CF4D-1DD2-11B2-99A6-080020736631': 'Solaris root',
  '824CC7A0-36A8-11E3-890A-952519AD3F61': 'OpenBSD data',
  '49F48D5A-B10E-11DC-B99B-0019D1879648': 'NetBSD LFS',
  '49F48D32-B10E-11DC-B99B-0019D1879648': 'NetBSD swap',
  'AA31E02A-400F-11DB-9590-000C2911D1B8': 'VMware VMFS',
  '9D275380-40AD-11DB-BF97-000C2911D1B8': 'VMware core dump',
  '9198EFFC-31C0-11DB-8F78-000C2911D1B8': 'VMware reserved',
  '4EB2EA39-7855-4790-A79E-FAE495E21F8D': 'VMware VMFS-L (OSDATA)',
  'FE3A2A5D-4F32-41A7-B725-ACCC3285A309': 'ChromeOS kernel',
  '3CB8E202-3B7E-47DD-8A3C-7FF2A13CFCEC': 'ChromeOS root',
  '4FBD7E29-9D25-41B8-AFD0-062C0CEFF05D': 'Ceph OSD',
  '45B0969E-9B03-4F30-B4C6-B4B80CEFF106': 'Ceph journal',
};

/** Extended partitions: containers of logical ones, in their DOS, Windows 95 and Linux variants. */
export function isExtended(type: number): boolean {
  return type === 0x05 || type === 0x0f || type === 0x85;
}

export const gptProtective = 0xee;

/** `0x83`. */
export function mbrTypeCode(type: number): string {
  return `0x${type.toString(16).padStart(2, '0')}`;
}

/** An MBR type byte in words, its code where it is not known. */
export function mbrTypeName(type: number): string {
  return mbrTypes[type] ?? mbrTypeCode(type);
}

/** A GPT type GUID (upper case) in words, the GUID itself where it is not known. */
export function gptTypeName(guid: string): string {
  return gptTypes[guid] ?? guid;
}
