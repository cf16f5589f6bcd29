/** What the main process says to the engine process, beside the ports it hands over. */
import { z } from 'zod';

export const engineMessageSchema = z.discriminatedUnion('type', [
  /** Comes with one port, over which the engine is to be served. */
  z.strictObject({ type: z.literal('connect') }),
  /** Stop what runs, release everything, exit. */
  z.strictObject({ type: z.literal('close') }),
]);

export type EngineMessage = z.infer<typeof engineMessageSchema>;

/** Milliseconds that the engine process has to close before it is ended. */
export const closeGrace = 5_000;
