#!/usr/bin/env node
'use strict';
/**
 * Starts the command line. Its files are CommonJS with V8's compiled code beside them (made by build-cli.mjs), which saves a
 * third of a listing's time: Node 20 has no compile cache of its own. Compiled code of another version of Node is not taken by V8;
 * then everything is merely compiled as usual. Names hold a digest of the content, so code and cache can't be of two builds.
 */
const { existsSync, readFileSync } = require('node:fs');
const { createRequire, wrap } = require('node:module');
const { dirname, join, resolve } = require('node:path');
const { Script } = require('node:vm');

/** Path -> the module and the script it was made from. */
const loaded = new Map();

/** As `require`, for our own files. */
function load(path) {
  const known = loaded.get(path);
  if (known !== undefined) return known.module.exports;
  const cache = `${path}.cache`;
  const script = new Script(wrap(readFileSync(path, 'utf8')), {
    filename: path,
    cachedData: existsSync(cache) ? readFileSync(cache) : undefined,
  });
  const module = { exports: {} };
  loaded.set(path, { module, script });
  const elsewhere = createRequire(path);
  const requireBeside = (name) => (name.startsWith('.') ? load(resolve(dirname(path), name)) : elsewhere(name));
  script.runInThisContext().call(module.exports, module.exports, requireBeside, module, path, dirname(path));
  return module.exports;
}

module.exports = { loaded, start: () => load(join(__dirname, 'cli', '@ENTRY@')) };
if (require.main === module) module.exports.start();
