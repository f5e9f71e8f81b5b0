// A curve on a canvas: axes that may be logarithmic, smoothing, a cursor for mouse and keyboard, zoom, CSV and PNG, and a
// table that says the same to a screen reader. It draws what it is given and asks nobody.

const NICE = [1, 2, 5, 10];
const STEPS_MS = [1e3, 5e3, 15e3, 6e4, 3e5, 9e5, 36e5, 108e5, 216e5, 432e5, 864e5, 1728e5, 6048e5, 2592e6, 7776e6];
const PADDING = { left: 58, right: 14, top: 12, bottom: 30 };
const ROWS_MAX = 60;

export const si = (n, digits = 3) => {
  if (n == null || !Number.isFinite(n)) return '–';
  const size = Math.abs(n);
  const [scale, unit] = size >= 1e12 ? [1e12, ' T'] : size >= 1e9 ? [1e9, ' G'] : size >= 1e6 ? [1e6, ' M'] : size >= 1e3 ? [1e3, ' k'] : [1, ''];
  return `${Number((n / scale).toPrecision(digits))}${unit}`;
};
export const span = s => s == null ? '–' : s < 120 ? `${Number(s.toPrecision(3))} s` : s < 7200 ? `${Math.round(s / 60)} min` : s < 172800 ? `${(s / 3600).toFixed(1)} h` : `${(s / 86400).toFixed(1)} d`;
const clock = (ms, step) => {
  const at = new Date(ms);
  if (step >= 864e5) return at.toLocaleDateString(undefined, { day: 'numeric', month: 'short' });
  return at.toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit', ...(step < 6e4 && { second: '2-digit' }) });
};
const moment = ms => new Date(ms).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });

/** What can stand on the horizontal axis. */
const AXES = {
  tokens: { title: 'tokens', say: n => `${si(n, 4)} tokens`, tick: n => si(n) },
  time: { title: 'time', say: moment, tick: clock },
  version: { title: 'version', say: n => `version ${n}`, tick: n => si(n, 4) },
};

function linearTicks(from, to, about) {
  const rough = (to - from) / Math.max(1, about), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * NICE.find(n => n * power >= rough * 0.999);
  const ticks = [];
  for (let n = Math.ceil(from / step); n * step <= to * (1 + 1e-12) && ticks.length < 50; n++) ticks.push(n * step);
  return ticks;
}

function timeTicks(from, to, about) {
  const step = STEPS_MS.find(ms => (to - from) / ms <= about) ?? STEPS_MS.at(-1) * Math.ceil((to - from) / STEPS_MS.at(-1) / about);
  // Whole hours and days of the reader's own clock.
  const shift = new Date(from).getTimezoneOffset() * 6e4;
  const ticks = [];
  for (let n = Math.ceil((from - shift) / step); n * step + shift <= to; n++) ticks.push(n * step + shift);
  return { ticks, step };
}

function logTicks(from, to, about) {
  const all = [], decades = Math.log10(to / from);
  const parts = decades > about ? [1] : decades * 3 > about ? [1, 3] : [1, 2, 3, 5];
  for (let p = Math.floor(Math.log10(from)); p <= Math.ceil(Math.log10(to)); p++) {
    for (const n of parts) if (n * 10 ** p >= from && n * 10 ** p <= to) all.push(n * 10 ** p);
  }
  return all.length >= 3 ? all : linearTicks(from, to, about);
}

/** An average that forgets, over about `n` points, and is right from its first point on. */
function smoothed(values, n) {
  if (n <= 1) return values;
  const keep = 1 - 1 / n;
  let sum = 0, weight = 0;
  return values.map(v => {
    if (v == null) return null;
    sum = sum * keep + v;
    weight = weight * keep + 1;
    return sum / weight;
  });
}

export class Chart {
  /** `root` is the figure; `say` words a value; `from` takes the curves and gives the points of each line. */
  constructor(root, { say, tick = si, from, floor = null }) {
    Object.assign(this, { root, say, tick, from, floor, lines: [], zoom: null, at: null, drag: null });
    this.title = root.querySelector('h2').textContent;
    this.canvas = root.querySelector('canvas');
    this.readout = root.querySelector('.readout');
    const form = root.querySelector('form');
    form.addEventListener('submit', event => event.preventDefault());
    form.addEventListener('change', () => { this.zoom = null; this.prepare(); });
    form.addEventListener('click', event => this.act(event.target.closest('button')?.dataset.do));
    this.choices = form.elements;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
    this.listen();
  }

  get axis() { return this.choices.x?.value ?? 'tokens'; }
  chosen(name) { return this.choices[name]?.checked ?? false; }

  /** New curves. */
  show(curves) {
    this.curves = curves;
    this.prepare();
  }

  prepare() {
    if (!this.curves) return;
    const over = Number(this.choices.smooth?.value ?? 1), axis = this.axis;
    const drawable = (v, isLog) => v != null && Number.isFinite(v) && (!isLog || v > 0);
    this.lines = this.from(this.curves).map(line => {
      const values = smoothed(line.points.map(p => p.y), over);
      const points = line.points.map((p, i) => ({ ...p, x: p[axis], smooth: values[i] }));
      return { ...line, points: points.filter(p => drawable(p.smooth, this.chosen('logy')) && drawable(p.x, this.chosen('logx') && axis !== 'time')) };
    });
    this.fillTable();
    this.draw();
  }

  /** The part of the plane that is shown. */
  bounds() {
    const all = this.lines.flatMap(line => line.points), isLogX = this.chosen('logx') && this.axis !== 'time', isLogY = this.chosen('logy');
    let [x0, x1] = this.zoom ?? [Math.min(...all.map(p => p.x)), Math.max(...all.map(p => p.x))];
    if (x1 <= x0) [x0, x1] = isLogX ? [x0 / 2, x1 * 2] : [x0 - 0.5, x1 + 0.5];
    const seen = all.filter(p => p.x >= x0 && p.x <= x1);
    const values = (seen.length ? seen : all).flatMap(p => [p.smooth, p.lo ?? p.smooth, p.hi ?? p.smooth]).filter(v => !isLogY || v > 0);
    let y0 = Math.min(...values, this.floor ?? Infinity), y1 = Math.max(...values);
    if (isLogY && y0 <= 0) y0 = Math.min(...values);
    const room = isLogY ? (y1 / y0) ** 0.06 : (y1 - y0 || Math.abs(y1) || 1) * 0.06;
    [y0, y1] = isLogY ? [y0 / room, y1 * room] : [this.floor === 0 ? 0 : y0 - room, y1 + room];
    if (isLogY && y1 <= y0 * 1.0001) [y0, y1] = [y0 / 1.1, y1 * 1.1];
    return { x0, x1, y0, y1, isLogX, isLogY };
  }

  draw() {
    const ratio = devicePixelRatio || 1, width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (!width || !height) return;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.paint(this.canvas.getContext('2d'), width, height, ratio);
  }

  paint(g, width, height, ratio, ground = null) {
    const style = getComputedStyle(this.root), colour = name => style.getPropertyValue(`--${name}`).trim();
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    if (ground) { g.fillStyle = ground; g.fillRect(0, 0, width, height); }
    g.font = `12px ${style.fontFamily}`;
    const all = this.lines.flatMap(line => line.points);
    this.canvas.setAttribute('aria-label', this.summary());
    if (all.length < 2) {
      g.fillStyle = colour('soft');
      g.textAlign = 'center';
      g.fillText(this.root.dataset.empty, width / 2, height / 2, width - 20);
      this.place = null;
      return;
    }
    const { left, right, top, bottom } = PADDING, b = this.bounds();
    const scale = (isLog, from, to, p0, p1) => isLog
      ? v => p0 + (p1 - p0) * Math.log(v / from) / Math.log(to / from)
      : v => p0 + (p1 - p0) * (v - from) / (to - from);
    const x = scale(b.isLogX, b.x0, b.x1, left, width - right), y = scale(b.isLogY, b.y0, b.y1, height - bottom, top);
    this.place = { x, y, b, width, height };

    const aboutX = Math.max(2, Math.floor(width / 110)), aboutY = Math.max(2, Math.floor(height / 55));
    const across = b.isLogY ? logTicks(b.y0, b.y1, aboutY) : linearTicks(b.y0, b.y1, aboutY);
    const { ticks: along, step } = this.axis === 'time' ? timeTicks(b.x0, b.x1, aboutX)
      : { ticks: b.isLogX ? logTicks(b.x0, b.x1, aboutX) : linearTicks(b.x0, b.x1, aboutX) };
    g.strokeStyle = colour('line');
    g.fillStyle = colour('soft');
    g.lineWidth = 1;
    g.textAlign = 'right';
    g.textBaseline = 'middle';
    for (const v of across) {
      const at = Math.round(y(v)) + 0.5;
      g.beginPath(); g.moveTo(left, at); g.lineTo(width - right, at); g.stroke();
      g.fillText(this.tick(v), left - 8, at);
    }
    g.textBaseline = 'top';
    let free = -Infinity;
    for (const v of along) {
      const text = AXES[this.axis].tick(v, step), half = g.measureText(text).width / 2;
      const at = Math.min(Math.max(x(v), half + 2), width - half - 2);
      if (at - half < free) continue;
      free = at + half + 10;
      g.textAlign = 'center';
      g.fillText(text, at, height - bottom + 10);
    }

    g.save();
    g.beginPath(); g.rect(left - 2, top - 2, width - left - right + 4, height - top - bottom + 4); g.clip();
    for (const [i, line] of this.lines.entries()) {
      const ink = colour(line.ink ?? ['curve', 'use', 'machine', 'good'][i % 4]);
      const shown = line.points;
      // How far the values went that one point stands for.
      g.fillStyle = ink;
      g.globalAlpha = 0.16;
      g.beginPath();
      shown.forEach((p, n) => g[n ? 'lineTo' : 'moveTo'](x(p.x), y(p.hi ?? p.smooth)));
      [...shown].reverse().forEach(p => g.lineTo(x(p.x), y(b.isLogY ? Math.max(p.lo ?? p.smooth, b.y0) : p.lo ?? p.smooth)));
      g.fill();
      // What was measured, behind what is smoothed.
      g.strokeStyle = ink;
      g.lineJoin = 'round';
      if (Number(this.choices.smooth?.value ?? 1) > 1) {
        g.globalAlpha = 0.35;
        g.lineWidth = 1;
        this.stroke(g, shown, p => x(p.x), p => y(p.y));
      }
      g.globalAlpha = 1;
      g.lineWidth = 2.25;
      this.stroke(g, shown, p => x(p.x), p => y(p.smooth));
      const last = shown.at(-1);
      if (last) { g.fillStyle = ink; g.beginPath(); g.arc(x(last.x), y(last.smooth), 3.5, 0, 7); g.fill(); }
    }
    g.restore();
    if (this.drag) {
      g.fillStyle = colour('curve');
      g.globalAlpha = 0.14;
      const [from, to] = this.drag;
      g.fillRect(Math.min(from, to), top, Math.abs(to - from), height - top - bottom);
      g.globalAlpha = 1;
    } else if (this.at != null && !ground) {
      this.cursor(g, colour, x, y, height);
    }
  }

  stroke(g, points, x, y) {
    g.beginPath();
    points.forEach((p, n) => g[n ? 'lineTo' : 'moveTo'](x(p), y(p)));
    g.stroke();
  }

  cursor(g, colour, x, y, height) {
    const { top, bottom } = PADDING, first = this.lines[0]?.points[this.at];
    if (!first) return;
    g.strokeStyle = colour('soft');
    g.setLineDash([3, 3]);
    g.beginPath(); g.moveTo(x(first.x), top); g.lineTo(x(first.x), height - bottom); g.stroke();
    g.setLineDash([]);
    for (const line of this.lines) {
      const p = line.points[Math.min(this.at, line.points.length - 1)];
      g.fillStyle = colour('card');
      g.strokeStyle = colour(line.ink ?? 'curve');
      g.lineWidth = 2.5;
      g.beginPath(); g.arc(x(p.x), y(p.smooth), 4.5, 0, 7); g.fill(); g.stroke();
    }
  }

  /** What a screen reader says of the picture. */
  summary() {
    const points = this.lines[0]?.points ?? [];
    if (points.length < 2) return `${this.title}. ${this.root.dataset.empty}`;
    const [first, last] = [points[0], points.at(-1)];
    return `${this.title}: from ${this.say(first.smooth)} at ${AXES[this.axis].say(first.x)} to ${this.say(last.smooth)} at ${AXES[this.axis].say(last.x)}. Arrow keys read point by point.`;
  }

  words(at) {
    const p = this.lines[0].points[at];
    const values = this.lines.map(line => {
      const q = line.points[Math.min(at, line.points.length - 1)];
      const range = q.hi > q.lo ? ` (${this.say(q.lo)} to ${this.say(q.hi)})` : '';
      return `${this.lines.length > 1 ? `${line.name} ` : ''}${this.say(q.smooth)}${range}`;
    });
    return `${values.join(', ')} at ${p.tokens == null ? AXES[this.axis].say(p.x) : `${AXES.tokens.say(p.tokens)}, version ${p.version}, ${moment(p.time)}`}`;
  }

  point(at) {
    this.at = at;
    this.readout.textContent = at == null ? this.readout.dataset.idle : this.words(at);
    this.draw();
  }

  nearest(px) {
    const points = this.lines[0]?.points ?? [];
    let best = null, least = Infinity;
    points.forEach((p, i) => {
      const far = Math.abs(this.place.x(p.x) - px);
      if (far < least) [best, least] = [i, far];
    });
    return best;
  }

  /** The value of the horizontal axis at a pixel. */
  under(px) {
    const { b, width } = this.place, share = Math.min(1, Math.max(0, (px - PADDING.left) / (width - PADDING.left - PADDING.right)));
    return b.isLogX ? b.x0 * (b.x1 / b.x0) ** share : b.x0 + (b.x1 - b.x0) * share;
  }

  listen() {
    const canvas = this.canvas;
    this.readout.dataset.idle = this.readout.textContent;
    canvas.addEventListener('pointermove', event => {
      if (!this.place) return;
      if (this.drag) { this.drag[1] = event.offsetX; this.draw(); } else this.point(this.nearest(event.offsetX));
    });
    canvas.addEventListener('pointerleave', () => { if (!this.drag && document.activeElement !== canvas) this.point(null); });
    canvas.addEventListener('pointerdown', event => {
      if (!this.place || event.button !== 0 || event.pointerType === 'touch') return;
      canvas.setPointerCapture(event.pointerId);
      this.drag = [event.offsetX, event.offsetX];
    });
    const drop = () => {
      const [from, to] = this.drag ?? [0, 0];
      this.drag = null;
      if (this.place && Math.abs(to - from) > 8) this.zoom = [this.under(Math.min(from, to)), this.under(Math.max(from, to))];
      this.draw();
    };
    canvas.addEventListener('pointerup', drop);
    canvas.addEventListener('pointercancel', () => { this.drag = null; this.draw(); });
    canvas.addEventListener('dblclick', () => this.act('all'));
    canvas.addEventListener('focus', () => { if (this.place && this.at == null) this.point(this.lines[0].points.length - 1); });
    canvas.addEventListener('blur', () => this.point(null));
    canvas.addEventListener('keydown', event => {
      const last = (this.lines[0]?.points.length ?? 0) - 1, at = this.at ?? last, stride = event.shiftKey ? 10 : 1;
      const to = { ArrowLeft: at - stride, ArrowRight: at + stride, Home: 0, End: last }[event.key];
      const act = { '+': 'in', '=': 'in', '-': 'out', 0: 'all', Escape: 'all' }[event.key];
      if (last < 1 || (to == null && !act)) return;
      event.preventDefault();
      if (act) this.act(act); else this.point(Math.min(last, Math.max(0, to)));
    });
  }

  act(what) {
    if (what === 'csv') return this.save(new Blob([this.csv()], { type: 'text/csv' }), 'csv');
    if (what === 'png') return this.png();
    if (!this.place || !what) return;
    const { left, right } = PADDING, { width } = this.place, points = this.lines[0].points;
    if (what === 'all') this.zoom = null;
    else {
      const held = points[this.at]?.x, middle = held == null ? (left + width - right) / 2 : this.place.x(held);
      const reach = (width - left - right) * (what === 'in' ? 0.25 : 1);
      this.zoom = [this.under(middle - reach), this.under(middle + reach)];
      if (what === 'out') this.zoom = this.wider();
    }
    this.draw();
  }

  /** Twice as much as is shown, and all where that is all there is. */
  wider() {
    const { b } = this.place, all = this.lines[0].points, [from, to] = [all[0].x, all.at(-1).x];
    const half = b.isLogX ? Math.sqrt(b.x1 / b.x0) : (b.x1 - b.x0) / 2;
    const [x0, x1] = b.isLogX ? [b.x0 / half, b.x1 * half] : [b.x0 - half, b.x1 + half];
    return x0 <= from && x1 >= to ? null : [Math.max(from, x0), Math.min(to, x1)];
  }

  csv() {
    const head = 'line,version,tokens,unix_ms,value,least,greatest\n';
    const cell = v => v == null ? '' : /[",\n]/.test(v) ? `"${String(v).replaceAll('"', '""')}"` : v;
    const rows = this.from(this.curves ?? { losses: [], versions: [] }).flatMap(line => line.points.map(p =>
      [line.name, p.version, p.tokens, p.time, p.y, p.lo ?? p.y, p.hi ?? p.y].map(cell).join(',')));
    return head + rows.join('\n') + '\n';
  }

  png() {
    const picture = document.createElement('canvas'), [width, height, ratio] = [1000, 480, 2];
    [picture.width, picture.height] = [width * ratio, height * ratio];
    const kept = this.place;
    this.paint(picture.getContext('2d'), width, height, ratio, getComputedStyle(this.root).getPropertyValue('--card').trim());
    this.place = kept;
    picture.toBlob(blob => this.save(blob, 'png'));
  }

  save(blob, kind) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = `${this.root.dataset.chart}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  /** The newest points, and of the others as many as one likes to hear. */
  fillTable() {
    const body = this.root.querySelector('tbody');
    if (!body) return;
    const stride = Math.max(1, Math.ceil((this.lines[0]?.points.length ?? 0) / ROWS_MAX));
    const rows = this.lines.flatMap(line => line.points.filter((_, i) => (line.points.length - 1 - i) % stride === 0).map(p => {
      const row = document.createElement('tr');
      for (const text of [this.lines.length > 1 ? `${line.name}, ${p.version}` : p.version, si(p.tokens, 4), moment(p.time), this.say(p.y)]) {
        const cell = document.createElement('td');
        cell.textContent = text;
        row.append(cell);
      }
      return row;
    }));
    body.replaceChildren(...rows.reverse());
  }
}
