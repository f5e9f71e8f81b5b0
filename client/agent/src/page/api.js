// How the page talks to the agent: the token from the link, requests, and the status as it changes, which one tab hears for all.

const KEY = 'nightjar-token', TICKET = 'once-';
const HEALTH_MS = 20000, POLL_MS = 3000, RETRY_MS = 1500;

/**
 * Moves the token from the link's fragment to this tab's storage, so that no history keeps it; whether there is one. A link
 * that `nightjar open` gave a browser has a ticket instead, for which the agent gives the token.
 */
export async function takeToken() {
  const { hash } = location, fragment = hash.slice(1);
  if (isKey(hash)) history.replaceState(null, '', location.pathname);
  if (fragment.startsWith(TICKET)) {
    const answer = await fetch('/enter', { method: 'POST', body: fragment.slice(TICKET.length), cache: 'no-store' }).catch(() => null);
    if (answer?.ok) sessionStorage.setItem(KEY, await answer.text());
    // A ticket that was used already is no harm where the token has been got for it.
  } else if (isKey(hash)) {
    sessionStorage.setItem(KEY, fragment);
  }
  return sessionStorage.getItem(KEY) !== null;
}

/** Whether a link's fragment lets one in. */
export const isKey = hash => /^#[0-9a-zA-Z_-]{24,}$/.test(hash);

/** What the agent answered instead of what was asked: its own sentence. */
export class Refused extends Error {
  constructor(status, sentence) { super(sentence); this.status = status; }
}

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ''}`, ...options.headers };
  const answer = await fetch(path, { cache: 'no-store', ...options, headers });
  if (answer.ok) return answer;
  throw new Refused(answer.status, (await answer.text()).trim().split('\n')[0] || `Nightjar refused (${answer.status})`);
}

export const get = async path => (await ask(path)).json();
export const getText = async path => (await ask(path)).text();
export const post = (path, body) => ask(path, body === undefined ? { method: 'POST' }
  : { method: 'POST', body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } });

const pause = ms => new Promise(done => setTimeout(done, ms));
const shown = () => new Promise(done => {
  const look = () => { if (!document.hidden) { document.removeEventListener('visibilitychange', look); done(); } };
  document.addEventListener('visibilitychange', look);
  look();
});

/**
 * Calls `heard(status)` at each change, for ever, while the page can be seen. A browser has few connections to one place, and a
 * stream holds one for good: so one tab hears the stream for all of them, and none that is hidden. Where tabs cannot agree on
 * one, or there is no stream, each asks again and again. `lost(error)` is called while the agent does not answer.
 */
export async function follow(heard, lost) {
  const name = await shared();
  for (;;) {
    await shown();
    try {
      heard(await get('/status'));
      if (name) await hear(name, heard);
      else await pause(POLL_MS);
    } catch (error) {
      const gone = !(error instanceof Refused) || [401, 403].includes(error.status);
      if (gone) lost(error);
      await pause(gone ? RETRY_MS : POLL_MS);
    }
  }
}

/** What tabs with the same key agree by: its digest, so that one whose key fits no longer hears nothing. */
async function shared() {
  if (!navigator.locks || !globalThis.BroadcastChannel || !crypto.subtle) return null;
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(sessionStorage.getItem(KEY) ?? ''));
  return `nightjar-${[...new Uint8Array(digest).slice(0, 8)].map(byte => byte.toString(16).padStart(2, '0')).join('')}`;
}

/** Hears news from the tab that has the stream, or has it itself; until this one is hidden, or has heard nothing for long. */
async function hear(name, heard) {
  const over = new AbortController(), channel = new BroadcastChannel(name);
  let silence, cut = false;
  const end = () => { cut = true; over.abort(); };
  const hide = () => document.hidden && end();
  const listen = () => { clearTimeout(silence); silence = setTimeout(end, HEALTH_MS); };
  channel.onmessage = ({ data }) => { listen(); if (data) heard(data); };
  document.addEventListener('visibilitychange', hide);
  listen();
  try {
    await navigator.locks.request(name, { signal: over.signal }, async () => {
      channel.onmessage = null;
      await stream(status => { if (status) heard(status); channel.postMessage(status); }, over.signal, listen);
    });
  } catch (error) {
    // The status is asked for at once, and says whether the agent is there.
    if (!cut) throw error;
  } finally {
    over.abort();
    clearTimeout(silence);
    document.removeEventListener('visibilitychange', hide);
    channel.close();
  }
}

/** Reads events until the stream ends or is cut: `told(status)`, or `told(null)` for a sign of life. */
async function stream(told, signal, alive) {
  const reader = (await ask('/events', { signal, headers: { Accept: 'text/event-stream' } })).body.getReader();
  const decoder = new TextDecoder();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    const events = (text + decoder.decode(value, { stream: true })).replaceAll('\r\n', '\n').split('\n\n');
    text = events.pop();
    for (const event of events) {
      const data = event.split('\n').filter(line => line.startsWith('data:')).map(line => line.slice(5)).join('\n');
      told(data.trim() ? JSON.parse(data) : null);
    }
  }
}
