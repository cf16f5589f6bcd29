/**
 * The protocol that carries `ChainliftApi` from the engine to a window: calls, and streams with back-pressure and cancel.
 *
 *   engine side   serveApi(api, channel)       -> stop()
 *   window side   connectApi(channel)          -> ChainliftApi
 *   carriers      portChannel(port)            MessagePort of any kind (structured clone)
 *                 jsonChannel(socket)          WebSocket of a browser or of `ws` (JSON text)
 *
 * Attach `serveApi` or `connectApi` in the same turn in which the carrier was obtained: a channel keeps no message for later.
 * The window imports `rpc/client.ts` and `rpc/channels.ts` directly, so that the schemas are not in its bundle.
 */
export { jsonChannel, portChannel } from './rpc/channels.ts';
export { connectApi, EngineError } from './rpc/client.ts';
export type { Channel } from './rpc/protocol.ts';
export { MAX_MESSAGE_CHARACTERS } from './rpc/protocol.ts';
export { serveApi } from './rpc/server.ts';
