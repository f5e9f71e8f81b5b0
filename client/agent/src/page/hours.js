// The hours of the week: a grid to paint, and the same as a line of text for keyboards, screen readers and odd minutes.

import { el } from './words.js';

const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'];
const NAMES = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'];
const MINUTES = 24 * 60;

/** Minutes of a week in which it may train, from the text that the file takes; `null` where the text makes no sense. */
export function parse(text) {
  const week = DAYS.map(() => new Uint8Array(MINUTES));
  if (text.trim().toLowerCase() === 'always') return week.map(day => day.fill(1));
  let days = DAYS.map((_, day) => day), used = true;
  for (const word of text.toLowerCase().split(/[,\s]+/).filter(Boolean)) {
    if (/^\d/.test(word)) {
      const hours = hoursOf(word);
      if (!hours) return null;
      used = true;
      for (const day of days) paint(week, day, ...hours);
    } else {
      // Days hold for all hours that follow them.
      const named = daysOf(word);
      if (!named) return null;
      days = used ? named : [...days, ...named];
      used = false;
    }
  }
  return used ? week : null;
}

/** What crosses midnight belongs to the next morning. */
function paint(week, day, start, end) {
  if (start < end) week[day].fill(1, start, end);
  else {
    week[day].fill(1, start);
    week[(day + 1) % 7].fill(1, 0, end);
  }
}

function daysOf(text) {
  const [first, last] = text.split('-').map(name => DAYS.indexOf(name));
  if (first < 0 || last < 0) return null;
  return Array.from({ length: ((last ?? first) - first + 7) % 7 + 1 }, (_, i) => (first + i) % 7);
}

function hoursOf(text) {
  const found = text.match(/^(\d\d?):(\d\d)-(\d\d?):(\d\d)$/)?.slice(1).map(Number);
  if (!found) return null;
  const [start, end] = [found[0] * 60 + found[1], found[2] * 60 + found[3]];
  return start < MINUTES && end <= MINUTES && start !== end ? [start, end] : null;
}

/** The shortest text that this file writes for such a week: what is alike on neighbouring days is said once. */
export function format(week) {
  const spans = DAYS.map(() => []);
  const all = Uint8Array.from(week.flatMap(day => [...day]));
  if (all.every(on => on)) return 'always';
  for (let at = 0; at < all.length; at++) {
    if (!all[at] || all[(at + all.length - 1) % all.length]) continue;
    let end = at;
    while (all[end % all.length]) end += 1;
    // A span is said with its first day; one that is longer than a day is cut at midnights.
    for (let from = at; from < end;) {
      const day = Math.floor(from / MINUTES), midnight = (day + 1) * MINUTES;
      const to = end <= midnight || (end - from < MINUTES && end - midnight < MINUTES) ? end : midnight;
      spans[day % 7].push(`${hhmm(from % MINUTES)}-${to === midnight ? '24:00' : hhmm(to % MINUTES)}`);
      from = to;
    }
  }
  const lines = spans.map(day => day.sort().join(' '));
  const said = [];
  for (let i = 0; i < 7;) {
    let j = i;
    while (j + 1 < 7 && lines[j + 1] === lines[i]) j += 1;
    if (lines[i]) said.push(`${DAYS[i]}${j > i ? `-${DAYS[j]}` : ''} ${lines[i]}`);
    i = j + 1;
  }
  return said.join(', ');
}

const hhmm = minutes => `${String(Math.floor(minutes / 60)).padStart(2, '0')}:${String(minutes % 60).padStart(2, '0')}`;

/** The widget. Cells are painted with pointer or keyboard; the text is saved when the painting ends. */
export function hoursField(row, id, described, save) {
  let week = DAYS.map(() => new Uint8Array(MINUTES)), painting = null;
  const input = el('input', { type: 'text', id, spellcheck: 'false', autocapitalize: 'off', 'aria-describedby': described, onchange: () => save(input.value) });
  const cells = DAYS.map((_, day) => Array.from({ length: 24 }, (_, hour) => {
    const cell = el('div', { class: 'cell', role: 'checkbox', tabindex: day || hour ? -1 : 0, 'data-day': day, 'data-hour': hour });
    cell.style.setProperty('--day', day + 2);
    cell.style.setProperty('--hour', hour + 2);
    return cell;
  }));
  const grid = el('div', { class: 'week', role: 'group', 'aria-label': `${row.label}: hours of the week. Arrow keys move, space changes an hour.` },
    NAMES.map((name, day) => placed(el('span', { class: 'day-name', 'aria-hidden': 'true' }, name.slice(0, 3)), '--day', day + 2)),
    [0, 3, 6, 9, 12, 15, 18, 21].map(hour => placed(el('span', { class: 'hour-name', 'aria-hidden': 'true' }, String(hour).padStart(2, '0')), '--hour', hour + 2)),
    cells);

  const minutes = (day, hour) => week[day].subarray(hour * 60, hour * 60 + 60);
  const draw = () => cells.forEach((hours, day) => hours.forEach((cell, hour) => {
    const part = minutes(day, hour), on = part.reduce((sum, minute) => sum + minute, 0);
    const first = part.indexOf(1), last = part.lastIndexOf(1) + 1;
    cell.classList.toggle('part', on > 0 && on < 60);
    cell.style.setProperty('--from', `${(Math.max(first, 0) / 60 * 100).toFixed(1)}%`);
    cell.style.setProperty('--to', `${(last / 60 * 100).toFixed(1)}%`);
    cell.setAttribute('aria-checked', on === 60 ? 'true' : on ? 'mixed' : 'false');
    cell.setAttribute('aria-label', `${NAMES[day]}, ${hhmm(hour * 60)} to ${hhmm(hour * 60 + 60)}`);
  }));
  const brush = cell => {
    if (!cell?.dataset?.hour || painting === null) return;
    minutes(Number(cell.dataset.day), Number(cell.dataset.hour)).fill(painting);
    draw();
  };
  const isOn = cell => cell.getAttribute('aria-checked') !== 'false';
  const finish = () => {
    if (painting === null) return;
    painting = null;
    input.value = format(week);
    save(input.value);
  };
  const focus = cell => {
    cells.flat().forEach(other => { other.tabIndex = other === cell ? 0 : -1; });
    cell.focus();
  };
  grid.addEventListener('pointerdown', event => {
    const cell = event.target.closest('.cell');
    if (!cell || event.button !== 0) return;
    event.preventDefault();
    focus(cell);
    painting = isOn(cell) ? 0 : 1;
    brush(cell);
  });
  grid.addEventListener('pointermove', event => painting !== null && brush(document.elementFromPoint(event.clientX, event.clientY)));
  addEventListener('pointerup', finish);
  addEventListener('pointercancel', finish);
  grid.addEventListener('keydown', event => {
    const cell = event.target.closest('.cell');
    if (!cell) return;
    const [day, hour] = [Number(cell.dataset.day), Number(cell.dataset.hour)];
    // On a narrow screen the week lies on its side.
    const tall = cells[0][1].offsetTop > cells[0][0].offsetTop;
    const along = { ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? 0, across = { ArrowDown: 1, ArrowUp: -1 }[event.key] ?? 0;
    const [days, hours] = tall ? [along, across] : [across, along];
    if (days || hours) {
      event.preventDefault();
      focus(cells[Math.min(6, Math.max(0, day + days))][Math.min(23, Math.max(0, hour + hours))]);
    } else if (event.key === ' ' || event.key === 'Enter') {
      event.preventDefault();
      painting = isOn(cell) ? 0 : 1;
      brush(cell);
      finish();
    }
  });
  return {
    element: el('div', { class: 'hours' }, grid, el('label', { class: 'exactly', for: id }, 'The same in words', input)),
    group: true,
    show: value => {
      input.value = value;
      week = parse(value) ?? week;
      draw();
    },
  };
}

function placed(element, name, value) {
  element.style.setProperty(name, value);
  return element;
}
