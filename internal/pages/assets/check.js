// The check page: opens its link, runs the tests, shows each as a row, and says
// at the top what they come to.

import { begin, askPlan, tellEnd } from './check-api.js';
import { mediaCodes, pageCodes, relayCodes } from './check-codes.js';
import { loadTexts, languageButtons, hasText, t } from './text.js';
import { testCertificate, testPost, testSignaling } from './check-routes.js';
import { Loop, explain } from './check-relay.js';

const $ = (id) => document.getElementById(id);
const groups = ['page', 'signaling', 'logger', 'schedule', 'unified', 'relay', 'video'];

let plan = null;
let planTook = 0; // ms
let rows = []; // { id, group, name: [key, values], state, code, time, facts, cause, advice, ask, values, video, item }
let verdict = null;
let help = false; // that a new link is needed
let running = false;
let started = null;

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

// say changes a text only if it is another: readers of screens tell changes.
function say(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

// show draws everything anew.
function show() {
  showHead();
  $('help').hidden = !help;
  if (help) {
    const command = element('p');
    command.append(element('code', '', 'turngate check-link'));
    $('help').replaceChildren(element('p', '', t('help.how')), command, element('p', '', t('help.then')));
  }
  $('groups').replaceChildren(...groups.filter((g) => of(g).length).map(showGroup));
  $('report').firstElementChild.textContent = t('report');
  say($('text'), running || !rows.length ? '' : report());
}

// showHead draws what is above the rows.
function showHead() {
  document.title = t('title');
  $('verdict').className = `verdict ${verdict.state}`;
  say($('title'), t(verdict.title, verdict.values));
  say($('subtitle'), t(verdict.detail, verdict.values));
  $('sentence').hidden = !verdict.sentence;
  say($('sentence'), verdict.sentence ? t(verdict.sentence) : '');
  $('progress').hidden = !running || !rows.length;
  $('progress').max = Math.max(1, rows.length);
  $('progress').value = done();
  $('paths').hidden = running || !rows.length;
  $('paths').replaceChildren(...($('paths').hidden ? [] : paths().map(showPath)));
  $('actions').hidden = !plan;
  say($('again'), t('again'));
  $('again').disabled = running;
  if (!$('copy').dataset.busy) say($('copy'), t('copy'));
  $('copy').disabled = running || !rows.length;
  say($('number'), plan ? t('number', { id: plan.id }) : '');
  $('report').hidden = running || !rows.length;
}

const of = (group) => rows.filter((r) => r.group === group);
const done = () => rows.filter((r) => r.state !== 'idle' && r.state !== 'run').length;

function marked(state) {
  const mark = element('span', 'mark');
  mark.setAttribute('role', 'img');
  mark.setAttribute('aria-label', t(`state.${state}`));
  return mark;
}

function showPath(path) {
  const item = element('li', path.state);
  item.append(marked(path.state), element('span', '', t(`path.${path.name}`)));
  return item;
}

function showGroup(group) {
  const list = element('ul', 'rows');
  list.append(...of(group).map(showRow));
  const head = element('h2', '', t(`group.${group}`));
  if (hasText(`group.${group}.note`)) head.append(' ', element('small', '', t(`group.${group}.note`)));
  const section = element('section');
  section.append(head, list);
  return section;
}

function showRow(row) {
  const item = element('li', `row ${row.state}`);
  item.id = `row-${row.id}`;
  item.dataset.state = row.state;
  item.append(marked(row.state), element('span', 'name', t(...row.name)), element('span', 'time', row.time ? t(...row.time) : ''));
  if (row.facts || row.code && !row.cause) {
    const facts = element('span', 'facts', factsOf(row));
    item.append(facts, element('span', 'code', row.cause ? '' : row.code ?? ''));
  }
  if (row.cause) {
    const list = element('dl');
    const line = (key, text, className) => list.append(element('dt', '', t(key)), element('dd', className, text));
    line('cause', t(row.cause, row.values));
    line('advice', t(row.advice, row.values));
    line('ask', t(`ask.${row.ask}`), 'ask');
    line('code', row.code, 'code');
    const advice = element('div', 'advice');
    advice.append(list);
    item.append(advice);
  }
  if (row.video) {
    const picture = element('div', 'picture');
    picture.append(row.video);
    item.append(picture);
  }
  row.item = item;
  return item;
}

const factsOf = (row) => (row.facts ? t(...row.facts) : '');

// set changes a row, and nothing else below the head.
function set(row, finding) {
  for (const key of ['time', 'facts', 'details', 'cause', 'advice', 'ask', 'values', 'code']) row[key] = undefined;
  Object.assign(row, finding);
  const before = row.item;
  before.replaceWith(showRow(row));
  if (running) {
    verdict.values = { done: done(), all: rows.length };
    tell(t('live.progress', verdict.values));
  }
  showHead();
}

// tell speaks to readers of screens, of progress now and then only.
let told = 0;
function tell(text, always = false) {
  if (always || Date.now() - told > 4000) {
    told = Date.now();
    say($('live'), text);
  }
}

// layOut makes the rows of the plan.
function layOut() {
  const row = (id, group, name, values) => ({ id, group, name: [name, values], state: 'idle' });
  rows = [row('https', 'page', 'row.https', {}), row('certificate', 'page', 'row.certificate', {})];
  const names = { signaling: 'row.signaling', logger: 'row.logger', schedule: 'row.schedule' };
  plan.routes.forEach((route, i) => {
    if (!(route.kind in names)) return; // of a server that is newer than this page
    rows.push({ ...row(`${route.kind}-${i}`, route.mode || route.kind, names[route.kind], { path: route.name }), route });
  });
  plan.relays.forEach((relay) => {
    const name = { udp: 'row.relay.udp', tcp: 'row.relay.tcp', tls: 'row.relay.tls' }[relay.transport];
    rows.push({ ...row(`relay-${relay.transport}-${relay.port}`, 'relay', name, { port: relay.port }), relay });
  });
  rows.push(row('video', 'video', 'row.video', {}));
}

async function run() {
  if (running) return;
  running = true;
  started = new Date();
  help = false;
  verdict = { state: 'run', title: 'verdict.run', detail: 'verdict.run.begin', values: {} };
  delete document.body.dataset.told;
  showHead();
  tell(t('verdict.run'), true);
  try {
    const asked = performance.now();
    plan = await askPlan();
    planTook = Math.round(performance.now() - asked);
  } catch (error) {
    stop(error);
    return;
  }
  layOut();
  verdict = { ...verdict, detail: 'verdict.run.detail', values: { done: 0, all: rows.length } };
  show();
  const test = async (row, f) => {
    set(row, { state: 'run' });
    try {
      set(row, await f());
    } catch (error) { // ours: nothing of the network ends here
      set(row, { state: 'bad', code: pageCodes.broken, cause: 'internal', advice: 'internal.do', ask: 'admin', values: { text: String(error) } });
    }
  };
  const testRoute = (row) => test(row, () => (row.route.kind === 'signaling' ? testSignaling(plan, row.route) : testPost(plan, row.route)));
  const [https, certificate] = of('page');
  await Promise.all([
    test(https, async () => ({
      state: 'ok', code: pageCodes.https, time: ['ms', { ms: planTook }], facts: ['https.facts', { host: location.host, protocol: plan.protocol, client: plan.client }],
    })),
    test(certificate, () => testCertificate(plan)),
    ...rows.filter((r) => r.route).map(testRoute),
  ]);
  await testRelays(of('relay'), of('video')[0], test);
  demote();
  conclude();
  running = false;
  show();
  tell([$('title'), $('sentence'), $('subtitle')].map((e) => e.textContent).filter(Boolean).join(' '), true);
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
    const codes = relayCodes(row.relay);
    if (!window.RTCPeerConnection) {
      return { state: 'bad', code: codes.noWebRTC, cause: 'noWebRTC', advice: 'noWebRTC.do', ask: 'user', values: {} };
    }
    const loop = new Loop(row.relay, plan);
    const outcome = await loop.run();
    if (!outcome.works) {
      loop.close();
      return { state: 'bad', details: outcome.errors, ...explain(row.relay, outcome, plan.host.replace(/:\d+$/, '')) };
    }
    loops.push({ row, loop });
    return judged(outcome, codes, plan.host.replace(/:\d+$/, ''));
  })));
  const order = ['udp', 'tls', 'tcp'];
  loops.sort((a, b) => order.indexOf(a.row.relay.transport) - order.indexOf(b.row.relay.transport));
  if (!loops.length) {
    set(video, { state: 'bad', code: mediaCodes.blocked, cause: 'video.none', advice: 'video.none.do', ask: 'above', values: {} });
    return;
  }
  const [{ row, loop }] = loops;
  video.video = element('video');
  Object.assign(video.video, { muted: true, playsInline: true, autoplay: true });
  video.video.setAttribute('aria-label', t('row.video'));
  await test(video, async () => {
    const seen = await loop.video(video.video);
    const values = { frames: seen.frames, way: row.name, text: seen.error ?? '' };
    const time = ['ms', { ms: seen.ms }];
    if (seen.frames >= seen.needed) {
      return { state: 'ok', code: mediaCodes.video, time, facts: ['video.facts', values], values };
    }
    const finding = { time, advice: 'video.few.do', ask: 'admin', values };
    return seen.frames
      ? { ...finding, state: 'warn', code: mediaCodes.fewVideo, cause: 'video.few' }
      : { ...finding, state: 'bad', code: mediaCodes.noVideo, cause: 'video.no' };
  });
  keepPicture(video);
  for (const l of loops) l.loop.close();
}

// judged is the finding about a way that works.
function judged(outcome, codes, host) {
  const n = outcome.numbers;
  const values = {
    host, received: n.received, sent: n.sent, loss: n.loss, relay: outcome.candidate.ms,
    min: round(n.min), avg: round(n.avg), max: round(n.max), jitter: round(n.jitter),
  };
  const finding = { state: 'ok', code: codes.ok, time: ['relay.rtt', values], facts: ['relay.facts', values], values };
  if (n.loss > 5) return { ...finding, state: 'warn', code: codes.loss, cause: 'relay.loss', advice: 'relay.loss.do', ask: 'firewall' };
  if (n.avg > 300) return { ...finding, state: 'warn', code: codes.slow, cause: 'relay.slow', advice: 'relay.slow.do', ask: 'firewall' };
  return finding;
}

// keepPicture leaves the last frame on the page when the connections are closed.
function keepPicture(row) {
  const canvas = element('canvas');
  canvas.width = 320;
  canvas.height = 180;
  canvas.getContext('2d').drawImage(row.video, 0, 0, canvas.width, canvas.height);
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', t('row.video'));
  row.video = row.state === 'bad' ? undefined : canvas;
}

const round = (ms) => (ms < 10 ? ms.toFixed(1) : Math.round(ms));

// demote makes warnings of what matters less because another way works.
function demote() {
  const works = (group) => of(group).some((r) => r.state === 'ok' || r.state === 'warn' && r.facts);
  const demoted = [
    ...(works('relay') ? of('relay') : []),
    ...(works('signaling') ? [...of('schedule'), ...of('unified')] : []),
  ];
  for (const row of demoted) {
    if (row.state === 'bad') row.state = 'warn';
  }
}

// paths tells the signaling path from that of media, which the SDK's error 5501
// does not.
function paths() {
  const order = ['ok', 'warn', 'bad'];
  const worst = (list) => order[Math.max(0, ...list.map((r) => order.indexOf(r.state)))];
  const all = (...names) => names.flatMap(of);
  const distrusted = of('page').some((r) => r.state === 'bad');
  return [
    { name: 'signaling', list: all('signaling', 'schedule', 'unified') },
    { name: 'logger', list: of('logger') },
    { name: 'media', list: all('relay', 'video') },
  ].filter((p) => p.list.length).map((p) => ({ name: p.name, state: distrusted && p.name !== 'media' ? 'bad' : worst(p.list) }));
}

function conclude() {
  const bad = rows.filter((r) => r.state === 'bad').length;
  const warn = rows.filter((r) => r.state === 'warn').length;
  const udp = rows.some((r) => r.relay?.transport === 'udp' && !r.relay.minor && r.state === 'warn' && !r.facts);
  const values = { bad, warn, host: plan.host };
  if (bad) verdict = { state: 'bad', title: 'verdict.bad', sentence: sentence(), detail: bad > 1 ? 'verdict.bad.many' : 'verdict.bad.one', values };
  else if (udp) verdict = { state: 'warn', title: 'verdict.warn', detail: 'verdict.warn.udp', code: mediaCodes.blockedUDP, values };
  else if (warn) verdict = { state: 'warn', title: 'verdict.warn', detail: warn > 1 ? 'verdict.warn.many' : 'verdict.warn.one', values };
  else verdict = { state: 'ok', title: 'verdict.ok', detail: 'verdict.ok.detail', values };
}

function sentence() {
  const state = Object.fromEntries(paths().map((p) => [p.name, p.state]));
  const dead = (name) => state[name] === 'bad';
  if (dead('signaling') && !of('signaling').some((r) => r.state === 'bad') && of('page').some((r) => r.state === 'bad')) return 'sentence.certificate';
  if (dead('signaling')) {
    if (dead('media')) return 'sentence.both';
    return of('signaling').some((r) => r.state === 'ok') ? 'sentence.signalingPart' : 'sentence.signaling';
  }
  if (dead('media')) return state.signaling ? 'sentence.media' : 'sentence.mediaOnly';
  return 'sentence.logger';
}

// stop says why nothing is tested.
function stop(error) {
  running = false;
  const code = error.code ?? 'page';
  const needsLink = ['none', 'unknown', 'used', 'expired', 'over'].includes(code);
  verdict = {
    state: needsLink ? 'warn' : 'bad',
    title: needsLink ? 'link.title' : 'stopped.title',
    detail: hasText(`link.${code}`) ? `link.${code}` : 'stopped.detail',
    values: { code: error.code ?? String(error), host: location.host },
  };
  help = needsLink;
  if (needsLink) {
    plan = null;
    rows = [];
  }
  show();
  tell(`${$('title').textContent}. ${$('subtitle').textContent}`, true);
}

// report is everything as plain text, for a mail or a ticket.
function report() {
  const lines = [
    `${t('report.head')} ${plan.id}`,
    [t(verdict.title, verdict.values), verdict.code ?? ''].filter(Boolean).join(' '),
    ...[verdict.sentence, verdict.detail].filter(Boolean).map((key) => t(key, verdict.values)),
    '',
    ...paths().map((p) => `${t(`path.${p.name}`)}: ${t(`state.${p.state}`)}`),
    '',
    `${t('report.time')}: ${started.toISOString()}`,
    `${t('report.host')}: ${location.host} (${plan.layout}, turngate ${plan.version})`,
    `${t('report.client')}: ${plan.client}`,
    `${t('report.browser')}: ${navigator.userAgent}`,
  ];
  for (const group of groups.filter((g) => of(g).length)) {
    lines.push('', t(`group.${group}`), ...of(group).flatMap(reportRow));
  }
  return lines.join('\n') + '\n';
}

function reportRow(row) {
  const lines = [`[${t(`state.${row.state}`)}] ${row.code ?? ''} ${t(...row.name)}${row.time ? `, ${t(...row.time)}` : ''}`];
  if (row.facts) lines.push(`    ${factsOf(row)}`);
  lines.push(...new Set((row.details ?? []).map((d) => `    ${d.code} ${d.text} ${d.url}`)));
  if (row.cause) {
    lines.push(`    ${t('cause')}: ${t(row.cause, row.values)}`, `    ${t('advice')}: ${t(row.advice, row.values)}`, `    ${t('ask')}: ${t(`ask.${row.ask}`)}`);
  }
  return lines;
}

// copy takes the first way that is allowed; at the end the user copies what is
// shown and selected.
async function copy() {
  const button = $('copy');
  let said = 'copied';
  if (!await toClipboard(report())) {
    $('report').open = true;
    $('text').focus();
    getSelection().selectAllChildren($('text'));
    said = matchMedia('(pointer: coarse)').matches ? 'selected.touch' : /Mac/.test(navigator.platform) ? 'selected.mac' : 'selected';
  }
  button.dataset.busy = 'yes';
  say(button, t(said));
  tell(t(said), true);
  setTimeout(() => { delete button.dataset.busy; say(button, t('copy')); }, 3000);
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { /* not allowed, or not there: the old way needs no permission */ }
  const field = element('textarea', 'unseen');
  field.value = text;
  field.readOnly = true;
  document.body.append(field);
  field.select();
  let copied = false;
  try {
    copied = document.execCommand('copy');
  } catch { /* nor that */ }
  field.remove();
  $('copy').focus();
  return copied;
}

async function main() {
  if (document.prerendering) { // a link counts once, and nobody looks yet
    await new Promise((shown) => { document.addEventListener('prerenderingchange', shown, { once: true }); });
  }
  await loadTexts(`${document.body.dataset.base}/check-texts.json`);
  languageButtons(show);
  $('again').addEventListener('click', run);
  $('copy').addEventListener('click', copy);
  // Another link, opened in this tab.
  addEventListener('hashchange', () => { if (location.hash.length > 1 && !running) open(); });
  await open();
}

async function open() {
  verdict = { state: 'run', title: 'verdict.run', detail: 'verdict.run.begin', values: {} };
  show();
  try {
    await begin();
  } catch (error) {
    stop(error);
    return;
  }
  await run();
}

main().catch((error) => { // without the texts there is nothing to show it with
  $('title').textContent = 'This page did not load. 页面未能加载。';
  $('subtitle').textContent = `Please reload it. 请刷新页面。 (${error})`;
  $('verdict').className = 'verdict bad';
});
