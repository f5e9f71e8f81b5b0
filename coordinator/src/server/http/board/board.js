// The lab's dashboard: figures come as server-sent events, ready to be shown; curves are fetched when there is a new
// version; tables are fetched again now and then. Every text of a device was escaped where the page is made.

import { Chart, si, span } from '/assets/chart.js';

const $ = id => document.getElementById(id);

/* ---- what is shown, kept up to date ---- */

/** Puts new content in place, and the keyboard back to where it was. */
function replace(element, html) {
  if (element.innerHTML === html) return;
  const held = element.contains(document.activeElement) ? document.activeElement : null;
  const name = held && (held.id ? `#${CSS.escape(held.id)}` : held.getAttribute('href') && `[href="${CSS.escape(held.getAttribute('href'))}"]`);
  const opened = [...element.querySelectorAll('details')].map(d => d.open);
  element.innerHTML = html;
  element.querySelectorAll('details').forEach((d, i) => { d.open = opened[i] ?? d.open; });
  if (name) element.querySelector(name)?.focus({ preventScroll: true });
}

async function fill(element) {
  const answer = await fetch(element.dataset.part, { cache: 'no-store', credentials: 'same-origin' });
  if (answer.ok) replace(element, await answer.text());
}

function live(word, state) {
  $('live-words').textContent = word;
  $('live').dataset.state = state;
}

function listen() {
  const events = new EventSource('/events');
  events.addEventListener('figures', event => {
    const parts = JSON.parse(event.data);
    for (const [id, html] of Object.entries(parts.html)) if ($(id)) replace($(id), html);
    document.body.dataset.state = parts.state;
    live('live', 'live');
    if (parts.curves !== listen.curves) { listen.curves = parts.curves; drawSoon(); }
  });
  events.onerror = () => live('no answer; asking again', 'gone');
}

/* ---- curves ---- */

const speed = versions => versions.map((v, i) => {
  const before = versions[i - 1], s = before && (v.wall - before.wall) / 1e3;
  return { ...place(v), y: s > 0 ? (v.tokens - before.tokens) / s : null };
});
const place = p => ({ version: p.version, tokens: p.tokens, time: p.wall });
const CHARTS = {
  loss: {
    say: v => `${v.toFixed(4)} nats a byte`, tick: v => v.toPrecision(3),
    from: c => [{ name: 'held-out', points: c.losses.map(l => ({ ...place(l), y: l.loss, lo: l.loss_min, hi: l.loss_max })) }],
  },
  speed: { say: v => `${si(v)} tokens a second`, floor: 0, from: c => [{ name: 'merged', points: speed(c.versions) }] },
  round: {
    say: span, tick: v => span(v), floor: 0,
    from: c => [{
      name: 'round', ink: 'use',
      points: c.versions.map(v => ({ ...place(v), y: v.round_ms == null ? null : v.round_ms / v.versions / 1e3, lo: v.round_ms_min / 1e3, hi: v.round_ms_max / 1e3 })),
    }],
  },
  agreement: {
    say: v => `${(v * 100).toFixed(1)} %`, tick: v => `${Number((v * 100).toPrecision(3))} %`, floor: 0,
    from: c => [{ name: 'agreement', ink: 'machine', points: c.versions.map(v => ({ ...place(v), y: v.agreement, lo: v.agreement_min, hi: v.agreement_max })) }],
  },
};
const charts = [...document.querySelectorAll('[data-chart]')].map(root => new Chart(root, CHARTS[root.dataset.chart]));

/** At most every two seconds, however fast versions come. */
let due = null;
function drawSoon() {
  if (due || !charts.length) return;
  due = setTimeout(() => { due = null; }, 2000);
  draw();
}
async function draw() {
  const answer = await fetch('/api/curves', { cache: 'no-store' });
  if (!answer.ok) return;
  const curves = await answer.json();
  charts.forEach(chart => chart.show(curves));
}

/* ---- what an operator may do ---- */

const confirming = $('confirm');
let session = null;

/** Who is signed in, where signing in is built; the buttons stay hidden until it is an operator. */
async function signIn() {
  const answer = await fetch('/api/v1/session', { credentials: 'same-origin' }).catch(() => null);
  session = answer?.ok && answer.headers.get('content-type')?.startsWith('application/json') ? await answer.json() : null;
  document.querySelectorAll('[data-operator]').forEach(e => { e.hidden = session?.role !== 'operator'; });
}

async function post(path, body) {
  const headers = { 'content-type': 'application/json', 'x-csrf-token': session?.csrf ?? '' };
  const answer = await fetch(path, { method: 'POST', credentials: 'same-origin', headers, body: JSON.stringify(body ?? {}) });
  const text = await answer.text();
  let told = {};
  try { told = JSON.parse(text); } catch { told = { error: text }; }
  if (!answer.ok) throw new Error(told.error?.message ?? told.error ?? told.message ?? `the coordinator answered ${answer.status}`);
  return told;
}

/** Asks first, in a dialog that the keyboard can leave, then does it and says what came of it. */
function ask(button) {
  const { path, title, words, field, done } = button.dataset;
  $('confirm-title').textContent = title;
  $('confirm-words').textContent = words;
  $('confirm-field').hidden = !field;
  $('confirm-label').textContent = button.dataset.label ?? '';
  $('confirm-input').value = '';
  $('confirm-said').textContent = '';
  $('confirm-result').replaceChildren();
  const go = $('confirm-go');
  go.textContent = button.dataset.go ?? title;
  go.hidden = false;
  go.onclick = async () => {
    const body = field ? { [field]: field === 'token_budget' ? Number($('confirm-input').value) : $('confirm-input').value } : {};
    try {
      const told = await post(path, body);
      if (path.endsWith('/invites')) return await showInvite(told);
      confirming.close();
      $('acted').textContent = done;
    } catch (error) {
      $('confirm-said').textContent = error.message;
    }
  };
  confirming.showModal();
}

async function showInvite(told) {
  const link = told.invite ?? told.link, answer = await fetch('/qr', { method: 'POST', body: link });
  const drawn = answer.ok ? new DOMParser().parseFromString(await answer.text(), 'image/svg+xml').documentElement : null;
  const words = document.createElement('code');
  words.textContent = link;
  $('confirm-result').replaceChildren(...(drawn ? [document.importNode(drawn, true)] : []), words);
  $('confirm-go').hidden = true;
}

document.addEventListener('click', event => {
  const button = event.target.closest('[data-path]');
  if (button) ask(button);
});
$('confirm-cancel')?.addEventListener('click', () => confirming.close());

/* ---- begin ---- */

const parts = [...document.querySelectorAll('[data-part]')];
// Whoever reads a table with the keyboard or writes into a field is not disturbed.
setInterval(() => {
  if (document.visibilityState === 'visible') parts.filter(p => !p.contains(document.activeElement)).forEach(p => fill(p).catch(() => {}));
}, 5000);
document.querySelectorAll('form[data-auto] select').forEach(s => s.addEventListener('change', () => s.form.requestSubmit()));
document.querySelectorAll('time[datetime]').forEach(t => { t.textContent = new Date(t.dateTime).toLocaleString(); });
listen();
signIn();
