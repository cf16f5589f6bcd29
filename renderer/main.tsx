import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { browserCarrier, type Carrier, electronCarrier } from './carrier.ts';
import { Root } from './root.tsx';
import './styles/index.css';

const openCarrier = async (): Promise<Carrier> =>
  window.chainlift === undefined ? browserCarrier() : electronCarrier(window.chainlift);

const root = document.getElementById('root');
if (root === null) throw new Error('index.html has no element for the window');
createRoot(root).render(
  <StrictMode>
    <Root openCarrier={openCarrier} />
  </StrictMode>,
);
