// Puts the page together: hears how the agent stands, and shows it.

import { follow, get, getText, isKey, post, Refused, takeToken } from './api.js';
import { Day } from './day.js';
import { joining } from './join.js';
import { Preferences } from './preferences.js';
import { figures, project, safety, sensors } from './cards.js';
import { clock, day, fill, el, length, say, sentence, stopped, time, when } from './words.js';

const $ = id => document.getElementById(id);
const HOUR_S = 3600;
/** When a morning starts for who pauses until then. */
const MORNING = 7;
const picture = new Day({ picture: $('picture'), caption: $('caption'), legend: $('legend'), table: $('day-table').querySelector('.scroll') });
const preferences = new Preferences($('preferences'));
let status = null, shown = 0, heardAt = null, asked = 0, told = '';

const STATES = { run: 'Training', wait: 'Ready', hold: 'Holding', paused: 'Paused', stranger: 'Not part of a run' };

function stateOf(s) {
  if (!s.run) return 'stranger';
  if (s.why.kind === 'paused') return 'paused';
  if (!s.why.allowed) return 'hold';
  return s.session.working ? 'run' : 'wait';
}

/** What goes wrong and waits for the owner. */
function troubles(s) {
  const left = s.worker.left_alone;
  return [
    s.config_error && el('p', {}, `${sentence(s.config_error)} The last good preferences stay in force.`),
    s.session.trouble && left.length === 0 && el('p', {}, sentence(s.session.trouble)),
    s.override?.kept === false && el('p', {}, 'Your word holds until Nightjar ends; the disk does not take it, so the next start will not know it.'),
    left.map(one => el('p', {}, `${one.device} is left alone: ${stopped(one.reason)}`)),
    left.length > 0 && el('button', { type: 'button', id: 'retry' }, 'Try again'),
  ];
}

function show(s) {
  const first = status === null || heardAt === null;
  status = s;
  heardAt = Date.now();
  const state = stateOf(s);
  document.body.dataset.state = state === 'wait' ? 'run' : state;
  live('yes', 'live');
  say($('whose'), s.name ? `on ${s.name}` : '');
  say($('state'), STATES[state]);
  // What would change it stands right below, so that half of the sentence is left out.
  say($('sentence'), sentence(state === 'stranger' ? s.why.reason.split(';')[0] : s.why.reason));
  say($('next'), next(s, state));
  document.title = `${STATES[state]} · Nightjar`;
  fill($('notices'), troubles(s));
  buttons(s, state);
  fill($('figures-body'), figures(s));
  fill($('project-body'), project(s));
  fill($('sensors'), sensors(s));
  fill($('safety'), safety(s));
  say($('imprint'), [s.device && `Device ${s.device}`, s.version && `Nightjar ${s.version}`].filter(Boolean).join(' · '));
  const why = JSON.stringify([s.why.allowed, s.why.kind, s.why.reason, s.why.until]);
  if (first || why !== told) preferences.load();
  if (first || why !== told || Date.now() - asked > 60000) drawDay();
  told = why;
}

/** What comes next, where that can be known. */
function next(s, state) {
  const until = time(s.why.until), now = new Date();
  if (state === 'stranger') return 'The people of a run give you an invite: a link that you paste here.';
  if (state === 'paused') {
    if (until) return `It goes on ${when(until)}, in ${length(until - now)}.`;
    const end = s.override?.kind === 'pause' ? time(s.override.until) : null;
    return end ? `The pause ends ${when(end)}; then it goes on as soon as nothing else is in its way.` : 'It stays so until you resume.';
  }
  if (state === 'hold') return until && until > now ? `It may go on ${when(until)}, in ${length(until - now)}.` : opening(s.why.kind);
  if (until && until > now) return `It tries again ${when(until)}, in ${length(until - now)}.`;
  const forced = s.override?.kind === 'run_now' ? time(s.override.until) : null;
  return forced ? `You asked it to run; your preferences decide again ${when(forced)}.` : '';
}

/** What ends a hold whose end nobody knows. */
function opening(kind) {
  if (kind === 'off') return 'It stays so until you change your preferences.';
  return kind?.startsWith('unknown') ? 'It goes on once it can tell, or once you waive that.' : 'It goes on by itself once that is over.';
}

function buttons(s, state) {
  $('actions').hidden = state === 'stranger';
  $('join').hidden = state !== 'stranger';
  const overridden = state === 'paused' || s.override?.kind === 'run_now';
  $('resume').hidden = !overridden;
  say($('resume'), state === 'paused' ? 'Resume' : 'Back to my preferences');
  $('pauses').hidden = state === 'paused';
  $('run-now').hidden = state === 'run' || state === 'wait' || overridden;
  $('morning').title = when(morning());
}

/** The next morning that is at least two hours away. */
function morning(now = new Date()) {
  const at = new Date(now.getFullYear(), now.getMonth(), now.getDate(), MORNING);
  if (at - now < 2 * HOUR_S * 1000) at.setDate(at.getDate() + 1);
  return at;
}

/** Does what a button says, and says that it was done or why not. */
async function act(path, done) {
  try {
    await post(path);
    show(await get('/status'));
    say($('acted'), done);
    setTimeout(() => $('acted').textContent === done && say($('acted'), ''), 6000);
  } catch (error) {
    say($('acted'), error instanceof Refused ? sentence(error.message) : 'Nightjar does not answer.');
  }
}

$('pauses').addEventListener('click', event => {
  const length = event.target.dataset?.pause;
  const seconds = { hour: HOUR_S, morning: Math.round((morning() - Date.now()) / 1000) }[length];
  if (length) act(seconds ? `/pause?seconds=${seconds}` : '/pause', 'Paused.').then(() => $('resume').hidden || $('resume').focus());
});
$('resume').addEventListener('click', () => act('/resume', 'Your preferences decide again.').then(() => $('pauses').querySelector('button').focus()));
$('run-now').addEventListener('click', () => act(`/run-now?seconds=${HOUR_S}`, 'It runs for an hour, unless the computer gets too warm or too full.'));

joining($('join'), async ({ run, coordinator_answers: answers }) => {
  show(await get('/status'));
  say($('acted'), answers ? `Joined “${run}”.` : `Joined “${run}”. Its coordinator does not answer now; Nightjar keeps trying.`);
  $('pauses').querySelector('button').focus();
});

$('notices').addEventListener('click', event => event.target.id === 'retry' && act('/retry', 'It tries again.'));

async function drawDay() {
  asked = Date.now();
  const now = new Date();
  say($('day-title'), shown === 0 ? 'Today' : shown === -1 ? 'Yesterday' : new Date(now.getFullYear(), now.getMonth(), now.getDate() + shown).toLocaleDateString(undefined, { weekday: 'long', day: 'numeric', month: 'long' }));
  $('day-on').disabled = shown === 0;
  try {
    const history = await get(`/history?day=${day(now, shown)}`);
    const held = status && !status.why.allowed ? time(status.why.until) : null;
    picture.show(history, { now, due: shown === 0 ? held : null, today: shown === 0 });
  } catch (error) {
    if (error instanceof Refused) say($('caption'), sentence(error.message));
  }
}
$('day-back').addEventListener('click', () => { shown -= 1; drawDay(); });
$('day-on').addEventListener('click', () => { shown = Math.min(0, shown + 1); drawDay(); });

async function readLog() {
  if (!$('log').open) return;
  try {
    const lines = await getText('/log?lines=200');
    const end = $('log-lines').scrollTop + $('log-lines').clientHeight >= $('log-lines').scrollHeight - 8;
    say($('log-lines'), lines.trim() || 'Nothing was written yet.');
    if (end) $('log-lines').scrollTop = $('log-lines').scrollHeight;
  } catch (error) {
    say($('log-lines'), error instanceof Refused ? sentence(error.message) : 'Nightjar does not answer.');
  }
}
$('log').addEventListener('toggle', readLog);

function live(state, words) {
  $('live').dataset.live = state;
  say($('live-words'), words);
}

/** Says clearly that what is shown is old, or that this page was never let in. */
function lost(error) {
  const refused = error instanceof Refused;
  if (refused) return lock('This page’s key no longer fits.', 'Nightjar was started anew. Run “nightjar open” for a page that fits.');
  document.body.dataset.state = 'gone';
  document.title = 'No answer · Nightjar';
  live('no', 'no answer');
  say($('state'), 'No answer');
  say($('sentence'), 'Nightjar does not answer; it has probably stopped.');
  say($('next'), `${heardAt ? `Last heard at ${clock(heardAt)}; what you see below is from then. ` : ''}Start it with “nightjar run”, then open this page with “nightjar open”.`);
  $('actions').hidden = $('join').hidden = true;
  fill($('notices'));
}

function lock(words, then) {
  document.body.dataset.state = 'locked';
  document.title = 'Locked · Nightjar';
  live('no', 'locked');
  say($('state'), 'Locked');
  say($('sentence'), words);
  say($('next'), then);
  $('actions').hidden = $('join').hidden = true;
  fill($('notices'));
}

// Another link from `nightjar open` in the same tab.
addEventListener('hashchange', async () => isKey(location.hash) && await takeToken() && location.reload());
document.addEventListener('visibilitychange', () => { if (!document.hidden && status) { preferences.load(); drawDay(); } });
setInterval(() => {
  if (document.hidden || !status || document.body.dataset.state === 'gone') return;
  say($('next'), next(status, stateOf(status)));
  if (Date.now() - asked > 60000) drawDay();
  readLog();
}, 15000);

if (await takeToken()) follow(show, lost);
else lock('This page was opened without its key.', 'Run “nightjar open” in a terminal; it opens the page with the key in its link.');
