// The quiet part of the page: figures, project, sensors, and how the worker is kept in. From a status to elements.

import { bytes, count, el, energy, memory, sentence } from './words.js';

/** What was given, today and in all. */
export function figures(s) {
  const [today, all] = [s.today, s.totals];
  const rows = [
    ['Tokens trained', 'pieces of words it learned from', t => count(t.tokens)],
    ['Deltas accepted', 'finished pieces of work that count in the model', t => count(t.merged)],
    ['Energy', source(s.energy_source, all.energy_measured), t => `${t.energy_measured ? '' : '≈\u202f'}${energy(t.energy_joules)}`],
    ['Sent', 'to the coordinator', t => bytes(t.bytes_up)],
    ['Received', 'weights and text', t => bytes(t.bytes_down)],
  ];
  return el('table', { class: 'figures' },
    el('thead', {}, el('tr', {}, el('td', {}), el('th', { scope: 'col' }, 'today'), el('th', { scope: 'col' }, 'in all'))),
    el('tbody', {}, rows.map(([name, small, figure]) =>
      el('tr', {}, el('th', { scope: 'row' }, name, el('small', {}, small)), el('td', {}, figure(today)), el('td', {}, figure(all))))));
}

/** Where the energy's figure comes from; an estimate is called one. */
function source(words, measured) {
  if (measured) return words ? `measured: ${words}` : 'measured';
  return words?.includes('estimate') ? words : `an estimate${words ? `: ${words}` : ''}`;
}

/** Where to turn. Only what leads to the web becomes a link, which opens where the owner clicks it and knows nothing of this page. */
const contact = text => /^https:[/]{2}/.test(text) ? el('a', { href: text, target: '_blank', rel: 'noopener noreferrer' }, text) : text;

/** What the run is, who runs it, and how far the lease at hand is. */
export function project(s) {
  const { run } = s;
  if (!run) return el('p', { class: 'none' }, 'None yet. A run is one model that many computers train together; you join with an invite from the people who run it.');
  const { session } = s, { training } = session;
  const share = session.lease_steps ? Math.min(1, training.steps / session.lease_steps) : null;
  const facts = [
    run.operator && ['Run by', run.operator.name],
    run.operator?.contact && ['Contact', contact(run.operator.contact)],
    ['Connection', session.online ? 'connected' : 'not connected now'],
    ['Weights here', session.version == null ? 'none yet' : `version ${session.version}`],
  ].filter(Boolean);
  return el('div', { class: 'project' },
    el('p', { class: 'name' }, run.name),
    el('p', { class: run.sentence ? 'words' : 'none' }, run.sentence ? sentence(run.sentence) : run.told ? 'Its people have written nothing about it.' : 'What its people write about it comes with the first connection.'),
    el('dl', { class: 'facts' }, facts.map(([name, value]) => [el('dt', {}, name), el('dd', {}, value)])),
    share !== null && el('progress', { max: 1, value: share, 'aria-label': 'the piece of work at hand' }),
    share !== null && el('p', { class: 'under' }, `The piece of work at hand: step ${training.steps} of ${session.lease_steps}${training.loss ? `, loss ${training.loss.toFixed(3)}` : ''}.`));
}

/** Each sensor's value, or that it is unknown, and where it comes from. */
export function sensors(s) {
  if (!s.sensors.length) return el('p', { class: 'none' }, 'Nothing was read yet.');
  return el('ul', { class: 'list' }, s.sensors.map(sensor => el('li', {},
    el('span', { class: 'what' }, sentence(sensor.name).replace(/\.$/, '')),
    sensor.unknown ? el('span', { class: 'value cannot' }, `Can’t tell: ${sensor.unknown}`) : el('span', { class: 'value' }, String(sensor.value)),
    sensor.source && el('small', {}, sensor.source))));
}

/** What the worker may take now, and what keeps it in. */
export function safety(s) {
  const { limits, worker } = s;
  const facts = [];
  if (s.profile) facts.push(['Profile', s.profile === 'away' ? 'away: nobody is at the computer' : 'in use: you are at the computer']);
  if (limits) {
    facts.push(['May take', `${Math.round(limits.duty * 100)}\u202f% of the time, ${limits.threads} ${limits.threads === 1 ? 'thread' : 'threads'}`]);
    if (s.slowed) facts.push(['Slowed', s.slowed]);
    facts.push(['Memory', limits.memory_bytes == null ? 'no cap of its own' : `at most ${memory(limits.memory_bytes)}`]);
  }
  if (worker.device) facts.push(['Trains on', worker.device]);
  if (worker.crashes) facts.push(['Crashes', String(worker.crashes)]);
  const notes = s.sandbox;
  return [
    facts.length > 0 && el('dl', { class: 'facts' }, facts.map(([name, value]) => [el('dt', {}, name), el('dd', {}, value)])),
    notes.length ? el('ul', { class: 'notes' }, notes.map(note => el('li', {}, sentence(note)))) : el('p', { class: 'none' }, 'Nothing is reported before the first training.'),
  ];
}
