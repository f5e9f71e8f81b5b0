// Figures, times and sentences in plain words, and the few lines that make elements. Texts go in as texts, never as markup.

/** An element with attributes (`class`, `for`, …; `on…` are listeners) and children. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  set(made, attributes);
  made.append(...children.flat(Infinity).filter(child => child != null && child !== false));
  return made;
}

const SVG = 'http://www.w3.org/2000/svg';
/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  set(made, attributes);
  made.append(...children.flat(Infinity));
  return made;
}

function set(made, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? '' : value);
  }
}

/** Replaces an element's children only where something changed, so that no selection or focus is lost for nothing. */
export function fill(parent, ...children) {
  const fresh = el('div', {}, ...children);
  if (fresh.innerHTML !== parent.innerHTML) parent.replaceChildren(...fresh.childNodes);
}

/** Sets a text only where it changed: a live region is read out once. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const three = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat();
const scaled = (n, step, units) => {
  let i = 0;
  while (n >= step * 0.9995 && i < units.length - 1) { n /= step; i += 1; }
  return `${three.format(n)}${units[i] && '\u202f' + units[i]}`;
};

/** A count: exact while it is small. */
export const count = n => n == null ? '–' : n < 10000 ? whole.format(n) : scaled(n, 1000, ['', 'k', 'M', 'G', 'T']);
/** Bytes in decimal units, as data plans count them. */
export const bytes = n => n == null ? '–' : scaled(n, 1000, ['B', 'kB', 'MB', 'GB', 'TB']);
/** Energy; owners know it from their bill. */
export const energy = joules => joules == null ? '–' : joules < 360 ? `${three.format(joules)}\u202fJ` : scaled(joules / 3600, 1000, ['Wh', 'kWh', 'MWh']);
/** Memory in binary units, as systems show it. */
export const memory = n => scaled(n, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);

/** A length of time in words. */
export function length(ms) {
  const minutes = Math.round(ms / 60000);
  if (minutes < 1) return 'less than a minute';
  if (minutes < 60) return `${minutes}\u202fmin`;
  const [hours, rest] = [Math.floor(minutes / 60), minutes % 60];
  if (hours >= 48) return `${Math.round(hours / 24)} days`;
  return rest ? `${hours}\u202fh ${rest}\u202fmin` : `${hours}\u202fh`;
}

const clockFormat = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
/** A time of the day. */
export const clock = time => clockFormat.format(time);

/** A coming time: `at 07:00` today, else with its day. */
export function when(time, now = new Date()) {
  const days = Math.round((midnight(time) - midnight(now)) / 86400000);
  const date = { day: 'numeric', month: 'long' }, day = days < 7 ? { weekday: 'long' } : date;
  const name = days === 0 ? '' : days === 1 ? 'tomorrow ' : `on ${time.toLocaleDateString(undefined, day)} `;
  return `${name}at ${clock(time)}`;
}
const midnight = time => new Date(time.getFullYear(), time.getMonth(), time.getDate());

/** The local day as YYYY-MM-DD, `shift` days on. */
export function day(time = new Date(), shift = 0) {
  const d = new Date(time.getFullYear(), time.getMonth(), time.getDate() + shift);
  return `${d.getFullYear()}-${String(d.getMonth() + 1).padStart(2, '0')}-${String(d.getDate()).padStart(2, '0')}`;
}

/** A time as the agent writes it (RFC 3339); `null` for none or nonsense. */
export function time(text) {
  if (!text) return null;
  const parsed = new Date(text);
  return Number.isNaN(parsed.getTime()) ? null : parsed;
}

/** What the agent says, with a full stop. */
export const stopped = text => /[.!?…]$/.test(text) ? text : `${text}.`;

/** The same as a sentence of its own: with a capital too. */
export function sentence(text) {
  const trimmed = (text ?? '').trim();
  return trimmed && stopped(trimmed[0].toUpperCase() + trimmed.slice(1));
}
