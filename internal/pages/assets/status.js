// The status page: asks /data every few seconds, and draws it.

import { Graph, element } from './status-graph.js';
import { hasText, languageButtons, loadTexts, t, tag } from './text.js';

const $ = (id) => document.getElementById(id);

const short = (n) => (n < 10 && n > 0 ? String(Math.round(n * 10) / 10) : String(Math.round(n)));
const count = (n) => (n >= 10000 ? `${(n / 1000).toFixed(n < 100000 ? 1 : 0)}k` : short(n));
const percent = (n) => `${short(n)} %`;
const inUnits = (units, n) => {
  let i = 0;
  for (; n >= 999.5 && i < units.length - 1; i++) n /= 1000;
  return `${short(n)} ${units[i]}`;
};
const bits = (bytesPerSecond) => inUnits(['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s'], bytesPerSecond * 8);
const bytes = (n) => inUnits(['B', 'kB', 'MB', 'GB'], n);

const graphs = [
  { title: 'graph.connections', form: count, least: 4, series: [['series.tcp', 'connections'], ['series.websockets', 'websockets']] },
  { title: 'graph.allocations', form: count, least: 4, series: [['series.allocations', 'allocations']] },
  { title: 'graph.relay', form: bits, least: 1000, per: 1, series: [['series.fromClients', 'relay_up'], ['series.toClients', 'relay_down']] },
  { title: 'graph.signaling', form: bits, least: 1000, per: 1, series: [['series.toUpstreams', 'web_up'], ['series.toClients', 'web_down']] },
  { title: 'graph.reports', form: count, least: 4, series: [['series.reports', 'reports', 60], ['series.spool', 'spool']] },
  { title: 'graph.errors', form: count, least: 4, per: 60, series: [['series.upstreamFailures', 'upstream_failures'], ['series.turnRefusals', 'turn_refusals'], ['series.wrongPasswords', 'wrong_passwords']] },
  { title: 'graph.limits', form: count, least: 4, series: [['series.limitHits', 'limit_hits', 60], ['series.bans', 'bans']] },
  { title: 'graph.load', form: percent, least: 10, per: 100, series: [['series.processor', 'cpu']], numbers: [['series.memory', 'memory', bytes]] },
];

// table makes a table of rows, each a list of texts or of [text, class]. Columns
// that are empty in every row are left out.
function table(title, head, rows) {
  const text = (cell) => (Array.isArray(cell) ? cell[0] : cell);
  const shown = head.map((_, i) => rows.some((r) => text(r[i])));
  const kept = (list) => list.filter((_, i) => shown[i]);
  const t = element('table');
  // What a narrow screen shows as blocks is a table all the same.
  t.setAttribute('role', 'table');
  const line = (cells) => {
    const row = element('tr');
    row.setAttribute('role', 'row');
    row.append(...cells);
    return row;
  };
  const cell = (kind, role, className, value, label) => {
    const e = element(kind, className, value);
    e.setAttribute('role', role);
    if (label) e.dataset.label = label;
    return e;
  };
  const labels = kept(head);
  if (labels.some(Boolean)) t.append(line(labels.map((h) => cell('th', 'columnheader', '', h))));
  t.append(...rows.map((r) => line(kept(r).map((c, i) => cell('td', 'cell', Array.isArray(c) ? c[1] : '', text(c), labels[i])))));
  const box = element('article', 'table');
  box.append(element('h2', '', title), t);
  return box;
}

const zero = (text) => !text || text.startsWith('0001');
const when = (text) => (zero(text) ? '' : new Date(text).toLocaleString(tag()));
const daysLeft = (c, now) => Math.floor((Date.parse(c.not_after) - now) / 86400000);
const namesOf = (c) => (c.names ?? []).join(' ');

// certificates is a card of bars: what is left of each certificate's life.
function certificates(status, now) {
  const box = element('article', 'graph');
  box.append(element('h2', '', t('certificates')));
  const list = status.certificates ?? [];
  if (!list.length) box.append(element('p', 'soft', t('certificates.none')));
  for (const c of list) {
    const days = daysLeft(c, now);
    const life = Math.max(1, Date.parse(c.not_after) - Date.parse(c.not_before));
    const left = Math.min(1, Math.max(0, (Date.parse(c.not_after) - now) / life));
    const entry = element('div', `certificate ${days < 3 ? 'bad' : days < 14 ? 'warn' : 'ok'}`);
    const head = element('p', 'left');
    head.append(element('b', '', days < 0 ? t('certificate.ended') : t('certificate.days', { days })), ' ', element('span', '', namesOf(c)));
    const bar = element('progress');
    bar.max = 1;
    bar.value = left;
    bar.setAttribute('aria-label', `${namesOf(c)}: ${head.firstChild.textContent}`);
    const until = new Date(c.not_after).toLocaleDateString(tag(), { dateStyle: 'medium' });
    entry.append(head, bar, element('p', 'soft', t('certificate.until', { date: until, issuer: c.issuer })));
    for (const text of [c.error, ...(c.warnings ?? [])].filter(Boolean)) entry.append(element('p', 'warn', text));
    box.append(entry);
  }
  return box;
}

// cause is why an upstream is down, in words where there are some.
const cause = (u) => (hasText(`cause.${u.cause}`) ? t(`cause.${u.cause}`) : u.cause ?? '');

const upstreams = (status) => status.upstreams.map((u) => [
  u.route, u.upstream, [t(u.state), { up: 'ok', down: 'bad' }[u.state] ?? ''], u.backup ? t('backup') : String(u.weight),
  [String(u.connections), 'number'], when(u.since), cause(u),
]);

// problems are lines of the log: time, level, and all the rest.
const problems = (status) => status.problems.map((line) => {
  const { time, level, msg, ...rest } = line;
  const more = Object.entries(rest).map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  return [when(time), [level ?? '', level === 'ERROR' ? 'number bad' : 'number warn'], [msg, ...more].join(' ')];
});

// notes are what an operator should look at.
function notes(status, now) {
  const list = [];
  if (status.draining) list.push(t('note.draining'));
  if (status.last_reload?.error) list.push(t('note.reload', status.last_reload));
  for (const c of status.certificates ?? []) {
    const days = daysLeft(c, now);
    if (days < 14) list.push(t(days < 0 ? 'note.ended' : 'note.ends', { names: namesOf(c), days }));
    if (c.error) list.push(t('note.certificate', c));
  }
  for (const o of status.acme ?? []) if (o.error) list.push(t('note.acme', o));
  for (const u of status.upstreams ?? []) if (u.state === 'down') list.push(t('note.upstream', { ...u, cause: cause(u) }));
  return list;
}

function uptime(ms) {
  const minutes = Math.floor(ms / 60000);
  if (minutes < 60) return t('span.minutes', { n: minutes });
  return minutes < 48 * 60 ? t('span.hours', { n: Math.floor(minutes / 60) }) : t('span.days', { n: Math.floor(minutes / 1440) });
}

function setState(state, text) {
  $('state').className = `state ${state}`;
  if ($('state').textContent !== text) $('state').textContent = text; // it is spoken
}

let last = null; // what was answered last
let silent = null; // since when there is no answer

function show() {
  document.title = t('title');
  $('graphs').setAttribute('aria-label', t('graphs'));
  document.body.classList.toggle('old', Boolean(silent));
  if (!last) {
    setState(silent ? 'bad' : '', silent ? t('state.silent', { time: silent.toLocaleTimeString(tag()) }) : t('state.connecting'));
    for (const g of drawn) g.update([], Date.now());
    return;
  }
  const { status, samples } = last;
  const now = Date.parse(last.now);
  $('about').textContent = [
    t('about.version', status), t('about.layout', status), t('about.up', { span: uptime(now - Date.parse(status.started)) }),
    t('about.pid', status), status.config_file, t('about.ports', { ports: status.free_ports }),
  ].filter(Boolean).join(' · ');
  const list = notes(status, now);
  $('notes').hidden = !list.length;
  $('notes').replaceChildren(...list.map((n) => element('li', '', n)));
  if (silent) setState('bad', t('state.silent', { time: silent.toLocaleTimeString(tag()) }));
  else if (status.draining) setState('warn', t('state.draining'));
  else setState(list.length ? 'warn' : 'ok', t(list.length ? 'state.look' : 'state.running'));
  for (const g of drawn) g.update(samples, now);
  const card = certificates(status, now);
  $('certificates')?.remove();
  card.id = 'certificates';
  $('graphs').append(card);
  const offload = status.offload ?? {};
  const tables = [];
  if (status.upstreams?.length) {
    tables.push(table(t('upstreams'), ['route', 'upstream', 'state', 'weight', 'connections', 'since', 'cause'].map((c) => t(`upstream.${c}`)), upstreams(status)));
  }
  tables.push(table(t('listeners'), ['', ''], [
    ...(status.listeners ?? []).map((l) => { const [kind, ...rest] = l.split(' '); return [kind, rest.join(' ')]; }),
    [t('kernel'), [offload.mode, ...(offload.interfaces ?? []), offload.why].filter(Boolean).join(', ')],
  ]));
  if (status.problems?.length) tables.push(table(t('problems'), ['time', 'level', 'text'].map((c) => t(`problem.${c}`)), problems(status)));
  $('tables').replaceChildren(...tables);
}

const drawn = graphs.map((spec) => new Graph(spec));

async function poll() {
  let every = 5000;
  try {
    const response = await fetch('/data', { cache: 'no-store', signal: AbortSignal.timeout(10000) });
    if (!response.ok) throw new Error(String(response.status));
    last = await response.json();
    every = last.every;
    silent = null;
  } catch {
    silent ??= new Date();
  }
  show();
  setTimeout(poll, every);
}

async function main() {
  await loadTexts('/status-texts.json');
  $('graphs').append(...drawn.map((g) => g.box));
  languageButtons(show);
  addEventListener('resize', () => drawn.forEach((g) => g.draw()));
  show();
  await poll();
}

main().catch((error) => { $('state').textContent = String(error); });
