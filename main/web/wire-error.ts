/** Errors as data, for what the shells themselves answer with. */
import type { WireError } from '../../preload/api.ts';
import { EngineError } from '../../preload/rpc.ts';
import { toWireError } from '../engine/errors.ts';

/** Any thrown value as data: errors of the engine as they came over a channel, errors of ours, and faults as `internal`. */
export function wireError(error: unknown): WireError {
  return error instanceof EngineError ? error.toWire() : toWireError(error);
}
