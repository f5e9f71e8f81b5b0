// The page: what it sees and what its owner wants, told to the device in the worker; and how the device stands, in words.

import { sentence } from './words.js';

const part = id => document.getElementById(id);
const worker = new Worker('worker.js', { type: 'module' });
const tell = told => worker.postMessage(JSON.stringify(told));
let view = null;

// ---------------------------------------------------------------- what it sees

let charger = 'unknown';
const see = () => tell({ tells: 'seen', is_visible: !document.hidden, charger });

async function watchBattery() {
  if (!navigator.getBattery) return;
  const battery = await navigator.getBattery();
  const look = () => { charger = battery.charging ? 'plugged' : 'unplugged'; see(); };
  battery.addEventListener('chargingchange', look);
  look();
}

// The screen stays on while it trains. A browser lets go of this whenever the page is hidden.
let lock = null;
async function keepAwake() {
  const wanted = view?.is_wanted && !document.hidden;
  if (!wanted) { await lock?.release(); lock = null; return; }
  if (lock || !navigator.wakeLock) return;
  try {
    lock = await navigator.wakeLock.request('screen');
    lock.addEventListener('release', () => { lock = null; });
  } catch { lock = null; }
}

document.addEventListener('visibilitychange', () => { see(); keepAwake(); });
// A page that is frozen or put away is hidden too, where that is not said first.
addEventListener('pagehide', () => tell({ tells: 'seen', is_visible: false, charger }));
addEventListener('pageshow', see);

// ---------------------------------------------------------------- what its owner wants

/** The invite in the page's address, which no server sees; then it is taken out, so that no history keeps it. */
function invited() {
  const link = decodeURIComponent(location.hash.slice(1));
  if (!link.startsWith('nightjar:')) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return link;
}
const invitation = invited();

const join = (link, name) => { tell({ tells: 'join', link, name }); navigator.storage?.persist?.(); };
part('join').addEventListener('submit', event => {
  event.preventDefault();
  join(part('invite').value || invitation || '', part('device-name').value.trim());
});
part('start').addEventListener('click', () => tell({ tells: 'train', is_wanted: true }));
part('stop').addEventListener('click', () => tell({ tells: 'train', is_wanted: false }));
part('plug').addEventListener('click', () => {
  const morning = new Date();
  if (morning.getHours() >= 8) morning.setDate(morning.getDate() + 1);
  morning.setHours(8, 0, 0, 0);
  tell({ tells: 'plugged', until: view?.plugged_until > Date.now() ? null : morning.getTime() });
});
part('leave').addEventListener('click', () => {
  if (confirm('Leave this run? What was trained and not sent yet is given back.')) tell({ tells: 'leave' });
});
part('dim').addEventListener('click', () => { part('night').hidden = false; document.documentElement.requestFullscreen?.().catch(() => {}); });
part('night').addEventListener('click', () => { part('night').hidden = true; if (document.fullscreenElement) document.exitFullscreen(); });

// ---------------------------------------------------------------- how it stands

const say = (id, words) => { const at = part(id); if (at.textContent !== words) at.textContent = words; };
const tokens = count => `${count.toLocaleString('en')} tokens`;
const clock = ms => new Date(ms).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });

function state({ run, is_wanted, waits_for, session, out }) {
  if (!run) return ['not_joined', 'Not in a run', 'Lend this device to a model that many train together.'];
  if (out) return ['needs_you', 'It needs you', sentence(out)];
  if (!is_wanted) return ['paused', 'Stopped', 'Press Start, and leave this page in front.'];
  if (session.working) return ['training', 'Training', 'It trains. Leave this page in front, and the screen on.'];
  return [session.online ? 'holding' : 'offline', session.online ? 'Waiting' : 'Not connected', sentence(waits_for ?? session.doing)];
}

function show(next) {
  view = next;
  const { run, about, device, out, is_wanted, plugged_until, session, log } = view;
  const [name, word, words] = state(view);
  document.body.dataset.state = name;
  say('state', word);
  say('sentence', words);
  say('next', name === 'training' || !run || words === sentence(session.doing) ? '' : sentence(session.doing));
  const notices = [!run && out, !run && !invitation && 'You need an invite: a link that the people of a run give you.', session.trouble].filter(Boolean);
  part('notices').replaceChildren(...notices.map(text => Object.assign(document.createElement('p'), { textContent: sentence(text) })));
  say('whose', run ?? '');
  part('join').hidden = Boolean(run);
  part('invite').parentElement.hidden = Boolean(invitation) && !out;
  part('actions').hidden = !run || name === 'needs_you';
  part('start').hidden = is_wanted;
  part('stop').hidden = part('dim').hidden = !is_wanted;
  const isPromised = plugged_until > Date.now();
  part('plug').hidden = !is_wanted || charger !== 'unknown';
  say('plug', isPromised ? `On its charger until ${clock(plugged_until)} (take that back)` : 'It is on its charger until 8 in the morning');
  part('leave').hidden = !run;
  say('today', tokens(view.tokens_today));
  say('total', `${tokens(view.tokens)}, ${session.totals.merged} of ${session.totals.leases} deliveries merged`);
  const { steps, loss } = session.training;
  say('lease', session.lease === null ? 'nothing is leased' : `step ${steps} of ${session.lease_steps}${steps ? `, loss ${loss.toFixed(3)}` : ''}`);
  part('progress').value = session.lease_steps ? steps / session.lease_steps : 0;
  say('about', about);
  say('lines', log.join('\n'));
  say('device', `This device is ${device}.`);
  keepAwake();
}

function broken(words) {
  document.body.dataset.state = 'gone';
  say('state', 'It cannot start');
  say('sentence', sentence(words || 'this browser cannot load the page’s program'));
}

worker.onmessage = ({ data }) => {
  const told = JSON.parse(data);
  if (told.broken) broken(told.broken); else show(told);
};
worker.onerror = error => broken(error.message);

see();
watchBattery().catch(() => {});
// Kept by the browser, so that the page opens without a network too.
navigator.serviceWorker?.register('service-worker.js', { type: 'module' }).catch(() => {});
