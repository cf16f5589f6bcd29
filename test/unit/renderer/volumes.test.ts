import { describe, expect, it } from 'vitest';
import type { FileSystemInfo, VolumeInfo } from '../../../preload/api.ts';
import { consistencyText, volumeAlarm, volumeCondition, volumeEvidence } from '../../../renderer/logic/volumes.ts';

const volume = (name: string, condition?: FileSystemInfo['condition'], more: Partial<VolumeInfo> = {}): VolumeInfo => ({
  name,
  disk: 0,
  scheme: 'gpt',
  type: 'Linux filesystem',
  typeCode: '',
  start: 0,
  size: 1,
  bootable: false,
  ...(condition === undefined
    ? {}
    : { fileSystem: { type: 'ext4', size: 1, blockSize: 1, condition, evidence: [], features: [] } }),
  ...more,
});
const unread = (name: string, content: string): VolumeInfo =>
  volume(name, undefined, { error: { kind: 'unsupported', message: '', details: { source: name, content } } });

describe('what volumes say', () => {
  it('is silent about clean ones, and names what an unread one holds', () => {
    expect(volumeCondition(volume('sda1', 'clean'))).toBeUndefined();
    expect(volumeCondition(volume('sda1', 'needs-replay'))).toBe('journal needs replay');
    expect(volumeCondition(unread('sda1', 'empty'))).toBe('empty');
    expect(volumeCondition(unread('sda1', 'unknown'))).toBe('content not recognised');
    expect(volumeCondition(unread('sda1', 'recognised'))).toBe('not read yet');
  });
  it('alarms by what it is', () => {
    expect(volumeAlarm(unread('sda1', 'empty'))).toBe('quiet');
    expect(volumeAlarm(unread('sda1', 'unknown'))).toBe('warn');
    expect(volumeAlarm(volume('sda1', 'needs-replay'))).toBe('warn');
    expect(volumeAlarm(volume('sda1', 'errors'))).toBe('bad');
    const damaged = volume('sda1', undefined, { error: { kind: 'corrupt', message: '', details: {} } });
    expect(volumeAlarm(damaged)).toBe('bad');
  });
});

describe('the state of the volumes as evidence', () => {
  it('names each file system and how it was left, and leaves out what has none', () => {
    const volumes = [volume('sda1', 'clean'), unread('sda2', 'empty'), volume('sda3', 'needs-replay')];
    expect(volumeEvidence(volumes)).toEqual(['sda1 ext4 clean', 'sda3 ext4 journal needs replay']);
  });
  it('counts many clean ones and still names those that are not', () => {
    const many = ['a', 'b', 'c', 'd', 'e'].map((letter) => volume(`sd${letter}1`, 'clean'));
    expect(volumeEvidence([...many, volume('sdf1', 'dirty')])).toEqual([
      'sdf1 ext4 not unmounted cleanly',
      '5 file systems clean',
    ]);
  });
  it('stands beside what was recorded, and never raises the level', () => {
    const recorded = { level: 'file-system', evidence: ['quiesced flag set'] } as const;
    expect(consistencyText(recorded, [volume('sda2', 'clean')])).toBe(
      'File-system consistent: quiesced flag set, sda2 ext4 clean.',
    );
    const unknown = { level: 'unknown', evidence: [] } as const;
    expect(consistencyText(unknown, undefined)).toBe('No consistency recorded.');
    expect(consistencyText(unknown, [volume('sda2', 'clean')])).toBe('No consistency recorded: sda2 ext4 clean.');
  });
});
