// The picture of a day: lamps where it trained, low blocks where it held, and for each of them its reason.

import { el, svg, fill, clock, length, sentence, time } from './words.js';

const HEIGHT = 112, GROUND = 84, TOP = 14;
/** What it did, and what a hold was for. */
const GROUPS = {
  run: { name: 'trained', tall: GROUND - TOP - 6 },
  ready: { name: 'ready, with nothing to train', tall: GROUND - TOP - 6 },
  use: { name: 'held while you used it', tall: 26 },
  owner: { name: 'held by your word or schedule', tall: 16 },
  machine: { name: 'held for the computer’s sake', tall: 36 },
  unknown: { name: 'held because it could not tell', tall: 36 },
};
/** What a part of the day is called where it is told, and in the table. */
const STATES = { run: 'Trained', ready: 'Ready' };
const stateOf = span => STATES[span.group] ?? 'Held';
const groupOf = span => span.cause === 'no_work' ? 'ready' : span.cause ?? span.state;

/** Draws days into a figure's parts. */
export class Day {
  constructor({ picture, caption, legend, table }) {
    Object.assign(this, { picture, caption, legend, table, spans: [], chosen: null });
    new ResizeObserver(() => this.draw()).observe(picture);
    picture.addEventListener('pointermove', event => this.point(event));
    picture.addEventListener('pointerdown', event => this.point(event));
    picture.addEventListener('pointerleave', event => event.pointerType === 'mouse' && this.choose(null));
  }

  /** Shows a day's history; `due` is when a hold is known to end. */
  show(history, { now, due, today }) {
    const [from, to] = [time(history.from), time(history.to)];
    const spans = (history.spans ?? []).map(span => ({ ...span, from: time(span.from), to: time(span.to) ?? now, group: groupOf(span) }))
      .filter(span => span.from && span.to > span.from && span.group !== 'off');
    const same = JSON.stringify([from, to, spans.map(s => [s.from, s.group, s.sentence])]);
    // A span that only grows keeps what is chosen.
    if (same !== this.same) this.chosen = null;
    Object.assign(this, { from, to, now, due, today, spans, same });
    this.draw();
    this.list();
  }

  draw() {
    const width = this.picture.clientWidth;
    if (!this.from || !width) return;
    const focused = this.picture.contains(document.activeElement) ? this.chosen : null;
    const x = at => width * Math.min(1, Math.max(0, (at - this.from) / (this.to - this.from)));
    const drawing = svg('svg', { height: HEIGHT, role: 'group', 'aria-label': `${this.today ? 'Today' : 'The day'} from midnight to midnight. ${this.summary()} Arrow keys go from part to part.` });
    drawing.append(patterns(), this.hours(x, width));
    if (this.today) drawing.append(svg('rect', { class: 'ahead', x: x(this.now), y: TOP, width: width - x(this.now), height: GROUND - TOP, rx: 4 }));
    this.spans.forEach((span, i) => drawing.append(this.span(span, i, x)));
    drawing.append(svg('line', { class: 'ground', x1: 0, x2: width, y1: GROUND + 0.5, y2: GROUND + 0.5 }));
    if (this.today) drawing.append(...this.marks(x, width));
    this.x = x;
    this.picture.replaceChildren(drawing);
    this.caption.textContent = this.words();
    if (focused !== null) drawing.querySelector(`[data-at="${focused}"]`)?.focus();
  }

  span(span, i, x) {
    const { tall } = GROUPS[span.group];
    const left = x(span.from), wide = Math.max(1.5, x(span.to) - left - (x(span.to) - left > 4 ? 1 : 0));
    const part = svg('g', { class: 'span', role: 'img', 'data-at': i, 'aria-label': this.tell(span), tabindex: i === (this.chosen ?? this.spans.length - 1) ? 0 : -1 },
      svg('path', { class: `shape fill-${span.group}`, d: roof(left, GROUND - tall, wide, tall) }));
    part.classList.toggle('chosen', i === this.chosen);
    part.addEventListener('focus', () => this.choose(i));
    part.addEventListener('blur', () => this.choose(null));
    part.addEventListener('keydown', event => {
      const step = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: this.spans.length - 1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      this.picture.querySelector(`[data-at="${Math.min(this.spans.length - 1, Math.max(0, step))}"]`)?.focus();
    });
    return part;
  }

  /** Ticks and figures of the hours; days of 23 and 25 hours come out right, since instants are counted. */
  hours(x, width) {
    const every = width < 520 ? 6 : 3;
    const marks = svg('g', { 'aria-hidden': 'true' });
    for (let at = this.from.getTime(); at <= this.to.getTime(); at += 3600000) {
      const hour = new Date(at).getHours(), last = at >= this.to.getTime();
      const named = hour % every === 0;
      marks.append(svg('line', { class: 'tick', x1: x(at), x2: x(at), y1: GROUND, y2: GROUND + (named ? 7 : 4) }));
      if (named) marks.append(svg('text', { x: x(at), y: GROUND + 22, 'text-anchor': at === this.from.getTime() ? 'start' : last ? 'end' : 'middle' }, last ? '24:00' : `${String(hour).padStart(2, '0')}:00`));
    }
    return marks;
  }

  /** Where the day has got to, and when a hold ends. */
  marks(x, width) {
    const here = x(this.now);
    const label = (at, text) => svg('text', { x: Math.min(width - 2, Math.max(2, at)), y: 10, 'text-anchor': at < 40 ? 'start' : at > width - 40 ? 'end' : 'middle', 'aria-hidden': 'true' }, text);
    const drawn = [svg('line', { class: 'needle', x1: here, x2: here, y1: TOP, y2: GROUND + 4 }), label(here, 'now')];
    if (this.due && this.due > this.now && this.due < this.to) {
      const then = x(this.due);
      drawn.push(svg('line', { class: 'due', x1: then, x2: then, y1: TOP, y2: GROUND }));
      if (then - here > 48) drawn.push(label(then, clock(this.due)));
    }
    return drawn;
  }

  point(event) {
    if (!this.x || !this.spans.length) return;
    const at = event.clientX - this.picture.getBoundingClientRect().left;
    // Parts thinner than a pointer can hit count from a few pixels away.
    const distance = span => Math.max(this.x(span.from) - at, at - this.x(span.to), 0);
    const nearest = this.spans.reduce((best, span, i) => distance(span) < distance(this.spans[best]) ? i : best, 0);
    this.choose(distance(this.spans[nearest]) <= 4 ? nearest : null);
  }

  choose(i) {
    this.chosen = i;
    this.picture.querySelectorAll('.span').forEach(part => part.classList.toggle('chosen', Number(part.dataset.at) === i));
    this.caption.textContent = this.words();
  }

  words() { return this.chosen === null || !this.spans[this.chosen] ? this.summary() : this.tell(this.spans[this.chosen]); }

  tell(span) {
    const what = stateOf(span);
    const why = sentence(span.sentence);
    return `${clock(span.from)} to ${clock(span.to)}, ${length(span.to - span.from)}. ${what}${why ? `: ${why[0].toLowerCase()}${why.slice(1)}` : '.'}`;
  }

  summary() {
    if (!this.spans.length) return this.today ? 'Nothing is known of today yet.' : 'Nightjar did not run on this day.';
    const sum = test => this.spans.filter(test).reduce((all, span) => all + (span.to - span.from), 0);
    const of = name => sum(s => stateOf(s) === name);
    const told = (words, ms) => `${words} for ${ms ? length(ms) : 'no time'}`;
    const parts = [told('Trained', of('Trained')), of('Ready') && told('ready', of('Ready')), told('held', of('Held'))];
    return `${parts.filter(Boolean).join(', ')}${this.today ? ' so far' : ''}.`;
  }

  /** The legend of what is there, and the same day as a table. */
  list() {
    const present = Object.keys(GROUPS).filter(group => this.spans.some(span => span.group === group));
    fill(this.legend, present.map(group => el('li', {}, swatch(group), GROUPS[group].name)));
    const rows = this.spans.map(span => el('tr', {}, el('td', {}, `${clock(span.from)} – ${clock(span.to)}`), el('td', {}, stateOf(span).toLowerCase()), el('td', {}, sentence(span.sentence))));
    fill(this.table, rows.length ? el('table', {}, el('thead', {}, el('tr', {}, ['Time', 'State', 'Why'].map(name => el('th', { scope: 'col' }, name)))), el('tbody', {}, rows)) : el('p', {}, this.summary()));
  }
}

/** A block that stands on the ground, with its upper corners rounded. */
function roof(x, y, w, h) {
  const r = Math.min(3, w / 2);
  return `M${x} ${y + h}V${y + r}Q${x} ${y} ${x + r} ${y}H${x + w - r}Q${x + w} ${y} ${x + w} ${y + r}V${y + h}Z`;
}

/** Fills that differ in grain as well as in colour. */
function patterns() {
  const pattern = (name, grain, size) => svg('pattern', { id: `pattern-${name}`, width: size, height: size, patternUnits: 'userSpaceOnUse' },
    svg('rect', { class: `ink-${name}`, width: size, height: size }), grain);
  return svg('defs', {},
    svg('linearGradient', { id: 'lamp', x1: 0, y1: 0, x2: 0, y2: 1 }, svg('stop', { class: 'lamp-1', offset: 0 }), svg('stop', { class: 'lamp-2', offset: 1 })),
    pattern('use', svg('path', { class: 'grain', d: 'M-1 7L7 -1' }), 6),
    pattern('machine', svg('path', { class: 'grain', d: 'M0 2.5H5' }), 5),
    pattern('unknown', svg('circle', { class: 'grain-dot', cx: 2.5, cy: 2.5, r: 1 }), 5));
}

const swatch = group => svg('svg', { viewBox: '0 0 14 14', 'aria-hidden': 'true' }, svg('rect', { class: `fill-${group}`, width: 14, height: 14 }));
