// The status page: asks /data every few seconds, and draws it.

const span = 15 * 60 * 1000; // ms that a graph shows
const svg = 'http://www.w3.org/2000/svg';
const $ = (id) => document.getElementById(id);

const count = (n) => (n >= 10000 ? `${(n / 1000).toFixed(1)}k` : String(Math.round(n * 10) / 10));
function bits(bytesPerSecond) {
  let n = bytesPerSecond * 8;
  for (const unit of ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s']) {
    if (n < 1000 || unit === 'Gbit/s') return `${n < 10 && n > 0 ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1000;
  }
  return '';
}

// A graph shows series of samples; those that are counted are shown as their
// growth in a second, or in a minute.
const graphs = [
  { title: 'Connections', form: count, series: [['TCP connections', 'connections'], ['WebSockets', 'websockets']] },
  { title: 'TURN allocations', form: count, series: [['allocations', 'allocations']] },
  { title: 'Relayed media', form: bits, per: 1, series: [['from clients', 'relay_up'], ['to clients', 'relay_down']] },
  { title: 'Signaling', form: bits, per: 1, series: [['to upstreams', 'web_up'], ['to clients', 'web_down']] },
  { title: 'Errors per minute', form: count, per: 60, series: [['upstream failures', 'upstream_failures'], ['TURN refusals', 'turn_refusals'], ['wrong passwords', 'wrong_passwords']] },
  { title: 'Limits and bans', form: count, series: [['limit hits per minute', 'limit_hits', 60], ['banned addresses', 'bans'], ['reports in the spool', 'spool']] },
];

function element(tag, className, text) {
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

// nice is the next round number.
function nice(n) {
  const size = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((f) => f * size).find((v) => v >= n);
}

class Graph {
  constructor(spec) {
    this.spec = spec;
    this.box = element('article', 'graph');
    this.legend = element('ul', 'legend');
    this.picture = shape('svg', { role: 'img' });
    this.box.append(element('h2', '', spec.title), this.legend, this.picture);
    this.picture.addEventListener('pointermove', (e) => { this.cursor = e.offsetX; this.draw(); });
    this.picture.addEventListener('pointerleave', () => { this.cursor = undefined; this.draw(); });
  }

  update(samples, now) {
    this.now = now;
    this.lines = this.spec.series.map(([label, name, per]) => ({ label, points: points(samples, name, per ?? this.spec.per) }));
    this.draw();
  }

  draw() {
    if (!this.lines) return;
    const width = this.picture.clientWidth || 320;
    const height = this.picture.clientHeight || 136;
    const bottom = height - 18;
    const top = 8;
    const most = nice(Math.max(1, ...this.lines.flatMap((l) => l.points.map((p) => p.value))));
    const x = (at) => width - (this.now - at) / span * width;
    const y = (value) => bottom - value / most * (bottom - top);
    const at = this.cursor === undefined ? this.now : this.now - (width - this.cursor) / width * span;
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      parts.push(shape('line', { class: 'grid', x1: 0, x2: width, y1: y(most * share), y2: y(most * share) }));
    }
    parts.push(shape('text', { x: 0, y: y(most) + 12 }, this.spec.form(most)));
    for (const minutes of [15, 10, 5, 0]) {
      const anchor = minutes === 15 ? 'start' : minutes ? 'middle' : 'end';
      parts.push(shape('text', { x: width - minutes / 15 * width, y: height - 3, 'text-anchor': anchor }, minutes ? `-${minutes} min` : 'now'));
    }
    const entries = this.lines.map((line, i) => {
      const inside = line.points.filter((p) => x(p.at) >= -20);
      if (inside.length > 1) {
        const path = inside.map((p) => `${x(p.at).toFixed(1)},${y(p.value).toFixed(1)}`).join('L');
        parts.push(shape('path', { class: `area c${i}`, d: `M${path}L${x(inside.at(-1).at).toFixed(1)},${bottom}L${x(inside[0].at).toFixed(1)},${bottom}Z` }));
        parts.push(shape('path', { class: `line c${i}`, d: `M${path}` }));
      }
      const near = inside.reduce((best, p) => (!best || Math.abs(p.at - at) < Math.abs(best.at - at) ? p : best), null);
      const entry = element('li', `c${i}`);
      entry.append(element('i'), element('b', '', near ? this.spec.form(near.value) : '–'), element('span', '', line.label));
      return entry;
    });
    if (this.cursor !== undefined) parts.push(shape('line', { class: 'cursor', x1: this.cursor, x2: this.cursor, y1: top, y2: bottom }));
    this.picture.setAttribute('aria-label', `${this.spec.title}: ${entries.map((e) => e.textContent).join(', ')}`);
    this.picture.replaceChildren(...parts);
    this.legend.replaceChildren(...entries);
  }
}

// table makes a table of rows, each a list of texts or of [text, class].
function table(title, head, rows) {
  const box = element('article', 'table');
  const t = element('table');
  const first = element('tr');
  first.append(...head.map((h) => element('th', '', h)));
  t.append(first, ...rows.map((cells) => {
    const row = element('tr');
    row.append(...cells.map((c) => (Array.isArray(c) ? element('td', c[1], c[0]) : element('td', '', c))));
    return row;
  }));
  box.append(element('h2', '', title), t);
  return box;
}

const when = (text) => (text && !text.startsWith('0001') ? new Date(text).toLocaleString() : '');

function certificates(status, now) {
  return (status.certificates ?? []).map((c) => {
    const days = Math.floor((Date.parse(c.not_after) - now) / 86400000);
    return [(c.names ?? []).join(' '), c.issuer, [`${days} days`, `number ${days < 3 ? 'bad' : days < 14 ? 'warn' : 'ok'}`], when(c.not_after), c.error ?? (c.warnings ?? []).join('; ')];
  });
}

function upstreams(status) {
  return (status.upstreams ?? []).map((u) => [
    u.route, u.upstream, [u.state, { up: 'ok', down: 'bad' }[u.state] ?? ''], u.backup ? 'backup' : String(u.weight), [String(u.connections), 'number'], when(u.since), u.cause ?? '',
  ]);
}

// notes are what an operator should look at.
function notes(status, now) {
  const list = [];
  if (status.draining) list.push('This host is draining: it takes no new work.');
  if (status.last_reload?.error) list.push(`The last reload was refused: ${status.last_reload.error}`);
  for (const c of status.certificates ?? []) {
    const days = Math.floor((Date.parse(c.not_after) - now) / 86400000);
    if (days < 14) list.push(`The certificate of ${(c.names ?? []).join(' ')} ends in ${days} days.`);
    if (c.error) list.push(`Certificate: ${c.error}`);
  }
  for (const o of status.acme ?? []) if (o.error) list.push(`ACME, ${o.name}: ${o.error}; ${o.fix ?? ''}`);
  for (const u of status.upstreams ?? []) if (u.state === 'down') list.push(`${u.upstream} of ${u.route} is down: ${u.cause ?? ''}`);
  return list;
}

function show(data) {
  const { status, samples } = data;
  const now = Date.parse(data.now);
  const hours = (now - Date.parse(status.started)) / 3600000;
  const up = hours < 1 ? `${Math.floor(hours * 60)} min` : hours < 48 ? `${Math.floor(hours)} h` : `${Math.floor(hours / 24)} days`;
  $('about').textContent = [`turngate ${status.version}`, `layout ${status.layout}`, `up ${up}`, `pid ${status.pid}`, status.config_file, `${status.free_ports} relay ports free`].filter(Boolean).join(' · ');
  const list = notes(status, now);
  $('notes').hidden = !list.length;
  $('notes').replaceChildren(...list.map((n) => element('li', '', n)));
  $('state').className = `state ${list.length ? 'warn' : 'ok'}`;
  $('state').textContent = status.draining ? 'draining' : list.length ? 'look at this' : 'running';
  for (const g of drawn) g.update(samples, now);
  const tables = [table('Certificates', ['names', 'issuer', 'left', 'until', ''], certificates(status, now))];
  if (status.upstreams?.length) tables.push(table('Upstreams', ['route', 'upstream', 'state', 'weight', 'connections', 'since', 'cause'], upstreams(status)));
  const offload = status.offload ?? {};
  tables.push(table('Listeners', ['', ''], [
    ...(status.listeners ?? []).map((l) => { const [kind, ...rest] = l.split(' '); return [kind, rest.join(' ')]; }),
    ['kernel path', [offload.mode, ...(offload.interfaces ?? []), offload.why].filter(Boolean).join(', ')],
  ]));
  $('tables').replaceChildren(...tables);
}

const drawn = graphs.map((spec) => new Graph(spec));
$('graphs').append(...drawn.map((g) => g.box));
addEventListener('resize', () => drawn.forEach((g) => g.draw()));

async function poll() {
  let every = 5000;
  try {
    const response = await fetch('/data', { cache: 'no-store', signal: AbortSignal.timeout(10000) });
    if (!response.ok) throw new Error(String(response.status));
    const data = await response.json();
    every = data.every;
    show(data);
  } catch {
    $('state').className = 'state bad';
    $('state').textContent = 'no answer';
  }
  setTimeout(poll, every);
}

poll();
