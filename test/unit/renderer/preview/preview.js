/** The real window on the fake engine, through the real protocol: `npx vite --config test/unit/renderer/preview/vite.config.js`. */
import { createElement } from 'react';
import { createRoot } from 'react-dom/client';
import { portChannel } from '../../../../preload/rpc/channels.ts';
import { connectApi } from '../../../../preload/rpc/client.ts';
import { serveApi } from '../../../../preload/rpc/server.ts';
import { Root } from '../../../../renderer/root.tsx';
import '../../../../renderer/styles/index.css';
import { fakeApi } from '../fake-api.ts';

const query = new URLSearchParams(location.search);
const api = fakeApi({ empty: query.has('empty') });
const openCarrier = async () => ({
  shell: {
    kind: 'browser',
    platform: 'linux',
    initialSource: query.has('empty') ? undefined : '/srv/backups/esx-02',
    downloadUrl: (_target, path) => `${location.origin}/download${path}`,
  },
  connect: async () => {
    const { port1, port2 } = new MessageChannel();
    serveApi(api, portChannel(port2));
    const channel = portChannel(port1);
    const lost = new Promise((resolve) => channel.onClose(resolve));
    window.cutConnection = () => channel.close();
    return { api: connectApi(channel), lost };
  },
});
createRoot(document.getElementById('root')).render(createElement(Root, { openCarrier }));
