// Graphs of the status page: lines over the last fifteen minutes.

import { t } from './text.js';

const span = 15 * 60 * 1000; // ms that a graph shows
const svg = 'http://www.w3.org/2000/svg';

export function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

function shape(tag, attributes, text) {
  const e = document.createElementNS(svg, tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  if (text !== undefined) e.textContent = text;
  return e;
}

// points are the values of a series over time. A counter that fell began anew.
function points(samples, name, per) {
  if (!per) return samples.map((s) => ({ at: s.at, value: s.numbers[name] ?? 0 }));
  const out = [];
  for (let i = 1; i < samples.length; i++) {
    const grown = (samples[i].numbers[name] ?? 0) - (samples[i - 1].numbers[name] ?? 0);
    const seconds = (samples[i].at - samples[i - 1].at) / 1000;
    if (seconds > 0) out.push({ at: samples[i].at, value: Math.max(0, grown) / seconds * per });
  }
  return out;
}

// nice is the next round number; half of it is one too.
function nice(n) {
  const size = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 3, 4, 6, 8, 10].map((f) => f * size).find((v) => v >= n);
}

// Graph shows a spec { title, form, per, least, series: [[label, name, per]], numbers }
// whose texts are keys. What is counted is shown as its growth in a time of per
// seconds. Numbers stand beside the lines, and are in no graph.
export class Graph {
  constructor(spec) {
    this.spec = spec;
    this.box = element('article', 'graph');
    this.title = element('h2');
    this.legend = element('ul', 'legend');
    this.picture = shape('svg', { role: 'img', tabindex: 0 });
    this.box.append(this.title, this.legend, this.picture);
    const point = (cursor) => { this.cursor = cursor; this.draw(); };
    this.picture.addEventListener('pointermove', (e) => point(e.offsetX));
    this.picture.addEventListener('pointerleave', () => point(undefined));
    this.picture.addEventListener('blur', () => point(undefined));
    this.picture.addEventListener('keydown', (e) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
      if (!step) return;
      e.preventDefault();
      const width = this.picture.clientWidth;
      point(Math.min(width, Math.max(0, (this.cursor ?? width) + step * width / 60)));
    });
  }

  update(samples, now) {
    this.now = now;
    this.latest = samples.at(-1)?.numbers ?? {};
    this.lines = this.spec.series.map(([label, name, per]) => ({ label, points: points(samples, name, per ?? this.spec.per) }));
    this.draw();
  }

  draw() {
    this.title.textContent = t(this.spec.title);
    if (!this.lines) return;
    const width = this.picture.clientWidth || 320;
    const height = this.picture.clientHeight || 136;
    const bottom = height - 18;
    const top = 8;
    const most = nice(Math.max(this.spec.least ?? 1, ...this.lines.flatMap((l) => l.points.map((p) => p.value))));
    const x = (at) => width - (this.now - at) / span * width;
    const y = (value) => bottom - value / most * (bottom - top);
    const at = this.cursor === undefined ? this.now : this.now - (width - this.cursor) / width * span;
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      parts.push(shape('line', { class: 'grid', x1: 0, x2: width, y1: y(most * share), y2: y(most * share) }));
    }
    for (const minutes of [15, 10, 5, 0]) {
      const anchor = minutes === 15 ? 'start' : minutes ? 'middle' : 'end';
      parts.push(shape('text', { x: width - minutes / 15 * width, y: height - 3, 'text-anchor': anchor }, minutes ? t('ago', { minutes }) : t('now')));
    }
    const entries = this.lines.map((line, i) => {
      const inside = line.points.filter((p) => x(p.at) >= -20);
      if (inside.length > 1) {
        const path = inside.map((p) => `${x(p.at).toFixed(1)},${y(p.value).toFixed(1)}`).join('L');
        parts.push(shape('path', { class: `area c${i}`, d: `M${path}L${x(inside.at(-1).at).toFixed(1)},${bottom}L${x(inside[0].at).toFixed(1)},${bottom}Z` }));
        parts.push(shape('path', { class: `line c${i}`, d: `M${path}` }));
      }
      const near = inside.reduce((best, p) => (!best || Math.abs(p.at - at) < Math.abs(best.at - at) ? p : best), null);
      return this.#entry(`c${i}`, near ? this.spec.form(near.value) : '–', line.label);
    });
    for (const [label, name, form] of this.spec.numbers ?? []) {
      entries.push(this.#entry('plain', name in this.latest ? form(this.latest[name]) : '–', label));
    }
    if (!parts.some((p) => p.classList.contains('line'))) {
      parts.push(shape('text', { class: 'empty', x: width / 2, y: (top + bottom) / 2, 'text-anchor': 'middle' }, t('empty')));
    }
    parts.push(shape('text', { class: 'most', x: 0, y: y(most) + 12 }, this.spec.form(most)));
    if (this.cursor !== undefined) parts.push(shape('line', { class: 'cursor', x1: this.cursor, x2: this.cursor, y1: top, y2: bottom }));
    this.picture.setAttribute('aria-label', `${t(this.spec.title)}: ${entries.map((e) => e.textContent).join(', ')}`);
    this.picture.replaceChildren(...parts);
    this.legend.replaceChildren(...entries);
  }

  #entry(className, value, label) {
    const entry = element('li', className);
    entry.append(element('i'), element('b', '', value), ' ', element('span', '', t(label)));
    return entry;
  }
}
