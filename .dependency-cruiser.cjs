/**
 * The layering of the house, checked by machine: data flows storage -> image -> chain -> volume -> filesystem -> restore, and
 * imports point the other way. Each engine folder lists what it may stand on; everything else is forbidden.
 */
const engine = '^main/engine/';
/** Folder -> engine folders it may import. Files directly in main/engine (errors, binary) are open to all. */
const standsOn = {
  storage: [],
  task: [],
  image: ['storage'],
  chain: ['storage', 'image'],
  volume: ['storage'],
  filesystem: ['storage'],
  catalog: ['storage', 'image', 'chain'],
  restore: ['storage', 'chain', 'volume', 'filesystem', 'task'],
  nbd: ['storage', 'chain', 'task'],
  demo: ['storage'],
  convert: ['storage', 'image', 'chain', 'task'],
  service: [
    'storage',
    'image',
    'chain',
    'volume',
    'filesystem',
    'catalog',
    'restore',
    'nbd',
    'task',
    'demo',
    'convert',
  ],
};

const layers = Object.entries(standsOn).map(([folder, below]) => ({
  name: `engine-${folder}-stands-on`,
  comment: `main/engine/${folder} may import only: ${['errors', 'binary', ...below].join(', ')}`,
  severity: 'error',
  from: { path: `${engine}${folder}/` },
  to: { path: `${engine}[^/]+/`, pathNot: `${engine}(${[folder, ...below].join('|')})/` },
}));

module.exports = {
  forbidden: [
    ...layers,
    {
      name: 'engine-is-pure-node',
      comment:
        'The engine never imports Electron, a shell or the window; of the contract its service takes types only.',
      severity: 'error',
      from: { path: engine },
      to: { path: '(^|/)node_modules/(electron|react|react-dom|ws|commander)/|^main/(electron|web|cli)/|^renderer/' },
    },
    {
      name: 'engine-service-implements-contract',
      comment: 'Only the service knows the contract; the layers below it have their own types.',
      severity: 'error',
      from: { path: engine, pathNot: `${engine}service/` },
      to: { path: '^preload/' },
    },
    {
      name: 'shells-stand-on-the-service',
      comment: 'Shells reach the engine through its service only.',
      severity: 'error',
      from: { path: '^main/(electron|web|cli)/' },
      to: { path: engine, pathNot: `${engine}(service|demo)/|${engine}(errors|binary|version)\\.ts$` },
    },
    {
      name: 'window-knows-only-the-contract',
      comment: 'The renderer imports the contract and nothing that runs in Node.',
      severity: 'error',
      from: { path: '^renderer/' },
      to: { path: '^main/|(^|/)node_modules/electron/' },
    },
    {
      name: 'contract-knows-nobody',
      severity: 'error',
      from: { path: '^preload/' },
      to: { path: '^(main|renderer)/' },
    },
    {
      name: 'no-cycles',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    { name: 'no-unresolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.node.json' },
    enhancedResolveOptions: {
      extensions: ['.ts', '.tsx', '.js', '.mjs', '.json'],
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
    },
  },
};
