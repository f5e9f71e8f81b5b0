// The worker of the page: it loads the device and passes on what the page tells.

import init, { run, tell } from './nightjar_web.js';

// What is told before the device hears waits here.
let waiting = [];
const pass = text => { try { tell(text); } catch (error) { console.error(error); } };
onmessage = ({ data }) => { if (waiting) waiting.push(data); else pass(data); };

try {
  await init({ module_or_path: 'nightjar_web_bg.wasm' });
  await run(() => { for (const text of waiting) pass(text); waiting = null; });
} catch (error) {
  postMessage(JSON.stringify({ broken: error.message ?? String(error) }));
}
