// The check page: opens its link, runs the tests, shows each as a row, and says
// at the top what they come to.

import { begin, askPlan, tellEnd } from './check-api.js';
import { loadTexts, choose, currentLanguage, hasText, t } from './check-text.js';
import { testCertificate, testLogger, testSignaling } from './check-routes.js';
import { Loop, explain } from './check-relay.js';

const $ = (id) => document.getElementById(id);
const groups = ['page', 'signaling', 'logger', 'relay', 'video'];

let plan = null;
let rows = []; // { id, group, name: [key, values], state, ms, facts, cause, advice, ask, values, video }
let verdict = { state: 'run', title: 'verdict.run', detail: 'verdict.run.detail', values: {} };
let help = null; // why there is no test, a key
let running = false;
let started = null;

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

// show draws everything anew; it is small.
function show() {
  document.documentElement.lang = currentLanguage() === 'zh' ? 'zh-CN' : 'en';
  document.title = t('title');
  for (const button of document.querySelectorAll('[data-lang]')) {
    button.setAttribute('aria-pressed', String(button.dataset.lang === currentLanguage()));
  }
  $('verdict').className = `verdict ${verdict.state}`;
  $('title').textContent = t(verdict.title, verdict.values);
  $('subtitle').textContent = t(verdict.detail, verdict.values);
  $('help').hidden = !help;
  if (help) {
    const command = element('p');
    command.append(element('code', '', 'turngate check-link'));
    $('help').replaceChildren(element('p', '', t('help.how')), command, element('p', '', t('help.then')));
  }
  $('actions').hidden = !plan;
  $('again').textContent = t('again');
  $('again').disabled = running;
  if (!$('copy').dataset.busy) $('copy').textContent = t('copy');
  $('copy').disabled = running || !rows.length;
  $('number').textContent = plan ? t('number', { id: plan.id }) : '';
  $('groups').replaceChildren(...groups.filter((g) => rows.some((r) => r.group === g)).map(showGroup));
  $('report').hidden = running || !rows.length;
  $('report').firstElementChild.textContent = t('report');
  $('text').textContent = running || !rows.length ? '' : report();
}

function showGroup(group) {
  const list = element('ul', 'rows');
  list.append(...rows.filter((r) => r.group === group).map(showRow));
  const section = element('section');
  section.append(element('h2', '', t(`group.${group}`)), list);
  return section;
}

function showRow(row) {
  const item = element('li', `row ${row.state}`);
  item.id = `row-${row.id}`;
  item.dataset.state = row.state;
  const mark = element('span', 'mark');
  mark.setAttribute('role', 'img');
  mark.setAttribute('aria-label', t(`state.${row.state}`));
  item.append(mark, element('span', 'name', t(...row.name)),
    element('span', 'time', row.ms === undefined ? '' : t('ms', { ms: row.ms })),
    element('span', 'facts', factsOf(row)));
  if (row.cause) {
    const list = element('dl');
    const line = (key, text, className) => list.append(element('dt', '', t(key)), element('dd', className, text));
    line('cause', t(row.cause, row.values));
    line('advice', t(row.advice, row.values));
    line('ask', t(`ask.${row.ask}`), 'ask');
    const advice = element('div', 'advice');
    advice.append(list);
    item.append(advice);
  }
  if (row.video) {
    const picture = element('div', 'picture');
    picture.append(row.video);
    item.append(picture);
  }
  return item;
}

const factsOf = (row) => (row.facts ? t(...row.facts) : '');

// set changes a row.
function set(row, finding) {
  for (const key of ['ms', 'facts', 'details', 'cause', 'advice', 'ask', 'values']) row[key] = undefined;
  Object.assign(row, finding);
  show();
}

// layOut makes the rows of the plan.
function layOut() {
  const row = (id, group, name, values) => ({ id, group, name: [name, values], state: 'idle' });
  rows = [row('certificate', 'page', 'row.certificate', { host: location.host })];
  plan.routes.forEach((route, i) => {
    rows.push({ ...row(`${route.kind}-${i}`, route.kind, `row.${route.kind}`, { path: route.name }), route });
  });
  plan.relays.forEach((relay) => {
    const name = relay.transport === 'tls' ? 'row.relay.tls' : `row.relay.${relay.transport}`;
    rows.push({ ...row(`relay-${relay.transport}-${relay.port}`, 'relay', name, { port: relay.port }), relay });
  });
  rows.push(row('video', 'video', 'row.video', {}));
}

async function run() {
  if (running) return;
  running = true;
  started = new Date();
  help = null;
  verdict = { state: 'run', title: 'verdict.run', detail: 'verdict.run.detail', values: {} };
  show();
  try {
    plan = await askPlan();
  } catch (error) {
    stop(error);
    return;
  }
  layOut();
  show();
  const test = async (row, f) => {
    set(row, { state: 'run' });
    try {
      set(row, await f());
    } catch (error) { // ours: nothing of the network ends here
      set(row, { state: 'bad', cause: 'internal', advice: 'internal.do', ask: 'admin', values: { text: String(error) } });
    }
  };
  const of = (group) => rows.filter((r) => r.group === group);
  await Promise.all([
    test(of('page')[0], () => testCertificate(plan)),
    ...of('signaling').map((row) => test(row, () => testSignaling(plan, row.route))),
    ...of('logger').map((row) => test(row, () => testLogger(plan, row.route))),
  ]);
  await testRelays(of('relay'), of('video')[0], test);
  conclude();
  running = false;
  show();
  await tellEnd({
    verdict: { ok: 'works', warn: 'warnings', bad: 'fails' }[verdict.state],
    failed: rows.filter((r) => r.state === 'bad').length,
    warned: rows.filter((r) => r.state === 'warn').length,
  });
  document.body.dataset.told = plan.id; // for who drives the page
}

// testRelays tries every way at once, as a blocked one takes long to be known,
// and then sends video through the best.
async function testRelays(ways, video, test) {
  const loops = [];
  await Promise.all(ways.map((row) => test(row, async () => {
    if (!window.RTCPeerConnection) {
      return { state: 'bad', cause: 'noWebRTC', advice: 'noWebRTC.do', ask: 'user', values: {} };
    }
    const loop = new Loop(row.relay, plan);
    const outcome = await loop.run();
    if (!outcome.works) {
      loop.close();
      return { state: 'bad', ms: outcome.candidate?.ms, details: outcome.errors, ...explain(row.relay, outcome, plan.host.replace(/:\d+$/, '')) };
    }
    loops.push({ row, loop });
    const n = outcome.numbers;
    const values = {
      received: n.received, sent: n.sent, loss: n.loss,
      min: round(n.min), avg: round(n.avg), max: round(n.max), jitter: round(n.jitter),
    };
    const finding = { state: 'ok', ms: outcome.candidate.ms, facts: ['relay.facts', values], values };
    return n.loss > 5 ? { ...finding, state: 'warn', cause: 'relay.loss', advice: 'relay.loss.do', ask: 'firewall' } : finding;
  })));
  const order = ['udp', 'tls', 'tcp'];
  loops.sort((a, b) => order.indexOf(a.row.relay.transport) - order.indexOf(b.row.relay.transport));
  if (!loops.length) {
    set(video, { state: 'bad', cause: 'video.none', advice: 'video.none.do', ask: 'above', values: {} });
    return;
  }
  const [{ row, loop }] = loops;
  // A way that does not work matters less when there is another.
  for (const other of ways) {
    if (other.state === 'bad') other.state = 'warn';
  }
  video.video = element('video');
  Object.assign(video.video, { muted: true, playsInline: true, autoplay: true });
  video.video.setAttribute('aria-label', t('row.video'));
  await test(video, async () => {
    const seen = await loop.video(video.video);
    const values = { frames: seen.frames, way: t(...row.name), text: seen.error ?? '' };
    if (seen.frames >= seen.needed) {
      return { state: 'ok', ms: seen.ms, facts: ['video.facts', values], values };
    }
    const finding = { ms: seen.ms, advice: 'video.few.do', ask: 'admin', values };
    return seen.frames ? { ...finding, state: 'warn', cause: 'video.few' } : { ...finding, state: 'bad', cause: 'video.no' };
  });
  keepPicture(video);
  for (const l of loops) l.loop.close();
}

// keepPicture leaves the last frame on the page when the connections are closed.
function keepPicture(row) {
  const canvas = element('canvas');
  canvas.width = 320;
  canvas.height = 180;
  canvas.getContext('2d').drawImage(row.video, 0, 0, canvas.width, canvas.height);
  row.video = row.state === 'bad' ? undefined : canvas;
  show();
}

const round = (ms) => (ms < 10 ? ms.toFixed(1) : Math.round(ms));

function conclude() {
  const bad = rows.filter((r) => r.state === 'bad').length;
  const warn = rows.filter((r) => r.state === 'warn').length;
  const udp = rows.some((r) => r.relay?.transport === 'udp' && !r.relay.minor && r.state === 'warn' && !r.facts);
  const values = { bad, warn, host: plan.host };
  if (bad) verdict = { state: 'bad', title: 'verdict.bad', detail: bad > 1 ? 'verdict.bad.many' : 'verdict.bad.one', values };
  else if (udp) verdict = { state: 'warn', title: 'verdict.warn', detail: 'verdict.warn.udp', values };
  else if (warn) verdict = { state: 'warn', title: 'verdict.warn', detail: warn > 1 ? 'verdict.warn.many' : 'verdict.warn.one', values };
  else verdict = { state: 'ok', title: 'verdict.ok', detail: 'verdict.ok.detail', values };
}

// stop says why nothing is tested.
function stop(error) {
  running = false;
  const key = `link.${error.code}`;
  const needsLink = ['none', 'unknown', 'used', 'expired', 'over'].includes(error.code);
  verdict = {
    state: needsLink ? 'warn' : 'bad',
    title: needsLink ? 'link.title' : 'stopped.title',
    detail: hasText(key) ? key : 'stopped.detail',
    values: { code: error.code, host: location.host },
  };
  help = needsLink;
  if (needsLink) {
    plan = null;
    rows = [];
  }
  show();
}

// report is everything as plain text, for a mail or a ticket.
function report() {
  const lines = [
    `${t('report.head')} ${plan.id}`,
    `${t(verdict.title, verdict.values)}. ${t(verdict.detail, verdict.values)}`,
    '',
    `${t('report.time')}: ${started.toISOString()}`,
    `${t('report.host')}: ${location.host} (${plan.layout}, turngate ${plan.version})`,
    `${t('report.client')}: ${plan.client}`,
    `${t('report.browser')}: ${navigator.userAgent}`,
  ];
  for (const group of groups) {
    const list = rows.filter((r) => r.group === group);
    if (!list.length) continue;
    lines.push('', t(`group.${group}`));
    for (const row of list) {
      lines.push(`[${t(`state.${row.state}`)}] ${t(...row.name)}${row.ms === undefined ? '' : `, ${t('ms', { ms: row.ms })}`}`);
      if (factsOf(row)) lines.push(`    ${factsOf(row)}`);
      for (const e of new Set((row.details ?? []).map((d) => `    ${d.code} ${d.text} ${d.url}`))) lines.push(e);
      if (row.cause) {
        lines.push(`    ${t('cause')}: ${t(row.cause, row.values)}`, `    ${t('advice')}: ${t(row.advice, row.values)}`, `    ${t('ask')}: ${t(`ask.${row.ask}`)}`);
      }
    }
  }
  return lines.join('\n') + '\n';
}

async function copy() {
  const button = $('copy');
  let done = true;
  try {
    await navigator.clipboard.writeText(report());
  } catch { // not allowed: the user copies what is shown
    done = false;
    $('report').open = true;
    getSelection().selectAllChildren($('text'));
  }
  button.dataset.busy = 'yes';
  button.textContent = t(done ? 'copied' : 'selected');
  setTimeout(() => { delete button.dataset.busy; show(); }, 2500);
}

async function main() {
  await loadTexts(`${document.body.dataset.base}/check-texts.json`);
  for (const button of document.querySelectorAll('[data-lang]')) {
    button.addEventListener('click', () => { choose(button.dataset.lang); show(); });
  }
  $('again').addEventListener('click', run);
  $('copy').addEventListener('click', copy);
  // Another link, opened in this tab.
  addEventListener('hashchange', () => { if (location.hash.length > 1 && !running) open(); });
  await open();
}

async function open() {
  show();
  try {
    await begin();
  } catch (error) {
    stop(error);
    return;
  }
  await run();
}

main();
