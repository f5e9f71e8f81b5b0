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

/** A button for something that the agent offers to do. */
const button = offer => el('button', { type: 'button', class: 'quiet', 'data-deed': offer.deed, 'data-key': offer.key }, offer.words);

/** What waits for the owner besides, each with its button. */
const notices = standing => standing.notices.map(({ sentence: words, offer }) => el('p', {}, sentence(words), offer && [' ', button(offer)]));

function show(s) {
  const first = status === null || heardAt === null;
  status = s;
  heardAt = Date.now();
  const { standing } = s;
  document.body.dataset.state = standing.state;
  live('');
  say($('whose'), s.name ? `on ${s.name}` : '');
  say($('state'), standing.word);
  say($('sentence'), sentence(standing.headline));
  say($('next'), next(s));
  document.title = `${standing.word} · Nightjar`;
  fill($('notices'), notices(standing));
  buttons(s);
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

/** What there is to know besides, and what comes next, where that can be known. */
const next = s => [s.standing.detail, coming(s)].filter(Boolean).join(' ');

function coming(s) {
  const { state } = s.standing, now = new Date(), until = time(s.why.until), ahead = until && until > now;
  if (state === 'paused') {
    if (ahead) return `It goes on ${when(until)}, in ${length(until - now)}.`;
    const end = s.override?.kind === 'pause' ? time(s.override.until) : null;
    return end ? `The pause ends ${when(end)}; then it goes on as soon as nothing else is in its way.` : '';
  }
  if (state === 'holding') return ahead ? `It may go on ${when(until)}, in ${length(until - now)}.` : '';
  if (ahead) return `It tries again ${when(until)}, in ${length(until - now)}.`;
  const forced = s.override?.kind === 'run_now' ? time(s.override.until) : null;
  return forced ? `You asked it to run; your preferences decide again ${when(forced)}.` : '';
}

function buttons(s) {
  const { state, offers } = s.standing, paused = state === 'paused', overridden = paused || s.override?.kind === 'run_now';
  $('actions').hidden = !s.run;
  $('join').hidden = Boolean(s.run);
  $('resume').hidden = !overridden;
  say($('resume'), paused ? 'Resume' : 'Back to my preferences');
  $('pauses').hidden = paused;
  if (paused) other(false);
  $('run-now').hidden = state !== 'holding' || overridden;
  $('morning').title = when(morning());
  // These two have their places already.
  fill($('offers'), offers.filter(({ deed }) => !['resume', 'join'].includes(deed)).map(button));
}

/** The next morning that is at least two hours away. */
function morning(now = new Date()) {
  const at = new Date(now.getFullYear(), now.getMonth(), now.getDate(), MORNING);
  if (at - now < 2 * HOUR_S * 1000) at.setDate(at.getDate() + 1);
  return at;
}

/** Does what a button says, and says that it was done or why not; whether it was. */
async function act(path, done) {
  try {
    await post(path);
    show(await get('/status'));
    say($('acted'), done);
    setTimeout(() => $('acted').textContent === done && say($('acted'), ''), 6000);
    return true;
  } catch (error) {
    say($('acted'), error instanceof Refused ? sentence(error.message) : 'Nightjar does not answer.');
    return false;
  }
}

$('pauses').addEventListener('click', event => {
  const length = event.target.dataset?.pause;
  const seconds = { hour: HOUR_S, morning: Math.round((morning() - Date.now()) / 1000) }[length];
  if (length) act(seconds ? `/pause?seconds=${seconds}` : '/pause', 'Paused.').then(() => $('resume').hidden || $('resume').focus());
});

/** Shows the field for a time in the owner's own words, or puts it away. */
function other(open) {
  $('pause-form').hidden = !open;
  $('pause-other').setAttribute('aria-expanded', String(open));
  if (open) $('pause-words').focus();
}
$('pause-other').addEventListener('click', () => other($('pause-form').hidden));
$('pause-form').addEventListener('submit', async event => {
  event.preventDefault();
  if (!await act(`/pause?words=${encodeURIComponent($('pause-words').value)}`, 'Paused.')) return $('pause-words').focus();
  $('pause-words').value = '';
  other(false);
  $('resume').focus();
});
$('resume').addEventListener('click', () => act('/resume', 'Your preferences decide again.').then(() => $('pauses').querySelector('button').focus()));
$('run-now').addEventListener('click', () => act(`/run-now?seconds=${HOUR_S}`, 'It runs for an hour, unless the computer gets too warm or too full.'));

joining($('join'), async ({ run, coordinator_answers: answers }) => {
  show(await get('/status'));
  say($('acted'), answers ? `Joined “${run}”.` : `Joined “${run}”. Its coordinator does not answer now; Nightjar keeps trying.`);
  $('pauses').querySelector('button').focus();
});

/** What the buttons do that the agent offers. */
const DEEDS = {
  retry: () => act('/retry', 'It tries again.'),
  leave: () => confirm('Leave the run? Work that is not delivered yet is given back.') && act('/leave', 'It leaves the run.'),
  preferences: key => preferences.open(key),
};
for (const place of ['notices', 'offers']) $(place).addEventListener('click', event => DEEDS[event.target.dataset?.deed]?.(event.target.dataset.key));

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

/** Whether this page hears from the agent; while it does, there is nothing to say of that. */
function live(words) {
  $('live').hidden = !words;
  say($('live-words'), words);
}

/** Says clearly that what is shown is old, or that this page was never let in. */
function lost(error) {
  const refused = error instanceof Refused;
  if (refused) return lock('This page’s key no longer fits.', 'Nightjar was started anew. “Open the page” in the menu of its icon opens a page that fits, and so does “nightjar open” in a terminal.');
  document.body.dataset.state = 'gone';
  document.title = 'No answer · Nightjar';
  live('page not connected');
  say($('state'), 'No answer');
  say($('sentence'), 'Nightjar does not answer; it has probably stopped.');
  say($('next'), `${heardAt ? `Last heard at ${clock(heardAt)}; what you see below is from then. ` : ''}It starts with your session where it is installed so; “nightjar run” starts it in a terminal.`);
  $('actions').hidden = $('join').hidden = true;
  fill($('notices'));
  fill($('offers'));
}

function lock(words, then) {
  document.body.dataset.state = 'locked';
  document.title = 'Locked · Nightjar';
  live('page locked');
  say($('state'), 'Locked');
  say($('sentence'), words);
  say($('next'), then);
  $('actions').hidden = $('join').hidden = true;
  fill($('notices'));
  fill($('offers'));
}

// Another link from `nightjar open` in the same tab.
addEventListener('hashchange', async () => isKey(location.hash) && await takeToken() && location.reload());
document.addEventListener('visibilitychange', () => { if (!document.hidden && status) { preferences.load(); drawDay(); } });
setInterval(() => {
  if (document.hidden || !status || document.body.dataset.state === 'gone') return;
  say($('next'), next(status));
  if (Date.now() - asked > 60000) drawDay();
  readLog();
}, 15000);

if (await takeToken()) follow(show, lost);
else lock('This page was opened without its key.', '“Open the page” in the menu of Nightjar’s icon opens it with its key, and so does “nightjar open” in a terminal.');
