// How the page talks to the agent: the token from the link, requests, and the status as it changes.

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

/**
 * Calls `heard(status)` at each change, for ever. A stream of events carries them; where none can be had, the status is asked
 * for again and again. `lost(error)` is called while the agent does not answer.
 */
export async function follow(heard, lost) {
  for (;;) {
    try {
      heard(await get('/status'));
      await stream(heard);
    } catch (error) {
      const gone = !(error instanceof Refused) || [401, 403].includes(error.status);
      if (gone) lost(error);
      await pause(gone ? RETRY_MS : POLL_MS);
    }
  }
}

/** Reads events until the stream ends. One that has been silent for long is cut, so that a dead agent is noticed. */
async function stream(heard) {
  const cut = new AbortController();
  let silence = setTimeout(() => cut.abort(), HEALTH_MS);
  try {
    const reader = (await ask('/events', { signal: cut.signal, headers: { Accept: 'text/event-stream' } })).body.getReader();
    const decoder = new TextDecoder();
    let text = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => cut.abort(), HEALTH_MS);
      const events = (text + decoder.decode(value, { stream: true })).replaceAll('\r\n', '\n').split('\n\n');
      text = events.pop();
      for (const event of events) {
        const data = event.split('\n').filter(line => line.startsWith('data:')).map(line => line.slice(5)).join('\n');
        if (data.trim()) heard(JSON.parse(data));
      }
    }
  } catch (error) {
    // Cut for its silence: the status is asked for at once, and says whether the agent is there.
    if (!cut.signal.aborted) throw error;
  } finally {
    clearTimeout(silence);
    cut.abort();
  }
}
