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
    document.querySelector('.sky')?.toggleAttribute('data-paused', parts.paused);
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

const dialog = $('confirm');
let session = null;

/** Who is signed in, where the coordinator knows tokens. The buttons stay hidden until it is an operator. */
async function signedIn() {
  const answer = await fetch('/api/v1/session', { credentials: 'same-origin' }).catch(() => null);
  session = answer?.ok ? await answer.json() : null;
  document.querySelectorAll('[data-operator]').forEach(e => { e.hidden = session?.role !== 'operator'; });
  document.querySelectorAll('[data-signed]').forEach(e => { e.hidden = e.dataset.signed === 'in' ? !session : answer?.status !== 401; });
  if ($('signed')) $('signed').textContent = session ? `Signed in as ${session.name} (${session.role}).` : '';
}

async function post(path, body) {
  const headers = { 'content-type': 'application/json', 'x-csrf-token': session?.csrf ?? '' };
  const answer = await fetch(path, { method: 'POST', credentials: 'same-origin', headers, body: JSON.stringify(body) });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error ?? `The coordinator answered ${answer.status}.`);
  return told;
}

const el = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

/** A field of the dialog, and what it says in the call. */
function asked({ name, label, kind }) {
  const input = el('input', { id: `field-${name}`, type: kind === 'secret' ? 'password' : 'text', autocomplete: 'off', required: !kind.endsWith('?') });
  if (kind.startsWith('number')) input.inputMode = 'numeric';
  const value = () => {
    const text = input.value.trim();
    if (kind === 'list') return text.split(/[\s,]+/).filter(Boolean);
    if (!kind.startsWith('number')) return text;
    return text === '' ? undefined : Number(text.replaceAll(/[\s_]/g, ''));
  };
  return { name, value, shown: el('p', {}, el('label', { htmlFor: input.id, textContent: label }), input) };
}

/** Asks first, in a dialog that the keyboard can leave; then does it, and says what came of it. */
function ask(button) {
  const { path, title, words, go, fields } = button.dataset, wanted = JSON.parse(fields).map(asked);
  $('confirm-title').textContent = title;
  $('confirm-words').textContent = words.replaceAll('`', '');
  $('confirm-fields').replaceChildren(...wanted.map(field => field.shown));
  $('confirm-said').textContent = '';
  $('confirm-result').replaceChildren();
  Object.assign($('confirm-go'), { textContent: go, hidden: false, disabled: false });
  $('confirm-form').onsubmit = async event => {
    event.preventDefault();
    $('confirm-go').disabled = true;
    try {
      const told = await post(path, Object.fromEntries(wanted.map(field => [field.name, field.value()])));
      $('confirm-fields').replaceChildren();
      if (told.link) return await showInvite(told.link);
      dialog.close();
      if ($('acted')) $('acted').textContent = told.told ?? '';
      await signedIn();
    } catch (error) {
      $('confirm-said').textContent = error.message;
    } finally {
      $('confirm-go').disabled = false;
    }
  };
  dialog.showModal();
}

async function showInvite(link) {
  const answer = await fetch('/qr', { method: 'POST', body: link });
  const drawn = answer.ok ? new DOMParser().parseFromString(await answer.text(), 'image/svg+xml').documentElement : null;
  $('confirm-result').replaceChildren(...(drawn ? [document.importNode(drawn, true)] : []), el('code', { textContent: link }));
  $('confirm-go').hidden = true;
}

document.addEventListener('click', event => {
  const button = event.target.closest('[data-path]');
  if (button) ask(button);
});
$('confirm-cancel').addEventListener('click', () => dialog.close());
// Nothing that was typed or shown stays behind.
dialog.addEventListener('close', () => ['confirm-fields', 'confirm-result'].forEach(id => $(id).replaceChildren()));

/* ---- begin ---- */

const parts = [...document.querySelectorAll('[data-part]')];
// Whoever reads a table with the keyboard or writes into a field is not disturbed.
setInterval(() => {
  if (document.visibilityState === 'visible') parts.filter(p => !p.contains(document.activeElement)).forEach(p => fill(p).catch(() => {}));
}, 5000);
document.querySelectorAll('form[data-auto] select').forEach(s => s.addEventListener('change', () => s.form.requestSubmit()));
document.querySelectorAll('time[datetime]').forEach(t => { t.textContent = new Date(t.dateTime).toLocaleString(); });
listen();
signedIn();
