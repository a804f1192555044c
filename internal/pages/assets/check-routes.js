// Tests of the certificate, of WebSockets and of log reports. Each returns a
// finding: { state, code, time, facts, cause, advice, ask, values } in keys of the texts.

import { askResult } from './check-api.js';
import { pageCodes, routeCodes } from './check-codes.js';

const patience = 15000; // ms, of one request

let lastProbe = Math.floor(Math.random() * 1e6) * 1000;

// mark makes the address of a route that tells our API what became of it.
function mark(plan, route, scheme) {
  const n = ++lastProbe;
  const glue = route.path.includes('?') ? '&' : '?';
  return { n, url: `${scheme}://${location.host}${route.path}${glue}${plan.parameter}=${plan.probeKey}.${n}` };
}

export async function testCertificate(plan) {
  const cert = plan.certificate;
  const values = { issuer: cert?.issuer ?? '', host: location.host, names: cert?.names.join(' ') ?? '', days: '' };
  if (cert) {
    values.days = Math.floor((Date.parse(cert.notAfter) - Date.parse(plan.now)) / 86400000);
  }
  const facts = cert ? ['certificate.facts', values] : null;
  const time = cert ? ['days', values] : undefined;
  const clock = Math.abs(Date.now() - Date.parse(plan.now)) / 1000;
  if (await isDistrusted()) {
    return { state: 'bad', code: pageCodes.distrusted, time, facts, cause: cert?.selfSigned ? 'certificate.selfSigned' : 'certificate.distrusted', advice: 'certificate.trust.do', ask: 'certificate', values };
  }
  const browser = performance.getEntriesByType('navigation')[0]?.nextHopProtocol;
  if (browser && plan.protocol && browser !== plan.protocol) {
    return { state: 'warn', code: pageCodes.inspected, time, facts, cause: 'certificate.inspected', advice: 'certificate.inspected.do', ask: 'firewall', values: { ...values, browser, here: plan.protocol } };
  }
  if (cert && values.days < 14) {
    return { state: 'warn', code: pageCodes.ends, time, facts, cause: 'certificate.ends', advice: 'certificate.ends.do', ask: 'certificate', values };
  }
  if (clock > 120) {
    return { state: 'warn', code: pageCodes.clock, time, facts, cause: 'clock', advice: 'clock.do', ask: 'admin', values: { ...values, seconds: Math.round(clock) } };
  }
  return { state: 'ok', code: pageCodes.ok, time, facts, values };
}

// isDistrusted finds out whether the browser shows this page only because
// somebody clicked a warning away: then it refuses a service worker.
async function isDistrusted() {
  const workers = navigator.serviceWorker;
  if (!workers) {
    return false; // private windows of some browsers: not to be known
  }
  const base = document.body.dataset.base;
  try {
    const registration = await Promise.race([
      workers.register(`${base}/check-worker.js`, { scope: `${base}/worker/` }),
      new Promise((done) => { setTimeout(done, 5000); }),
    ]);
    await registration?.unregister();
    return false;
  } catch (error) {
    return /ssl|certificate/i.test(error.message);
  }
}

export async function testSignaling(plan, route) {
  const codes = routeCodes.signaling;
  const { n, url } = mark(plan, route, 'wss');
  const began = performance.now();
  const opened = await openWebSocket(url);
  const time = ['ms', { ms: Math.round(performance.now() - began) }];
  const values = valuesOf(route);
  let result;
  try {
    result = await askResult(n);
  } catch {
    if (opened) {
      return { state: 'ok', code: codes.ok, time, facts: ['signaling.open', values], values };
    }
    return { state: 'bad', code: pageCodes.silent, time, cause: 'unreachable', advice: 'unreachable.do', ask: 'firewall', values };
  }
  values.upstream = result.upstream || values.upstream;
  values.status = result.status;
  if (opened) {
    return { state: 'ok', code: codes.ok, time, facts: ['signaling.open', values], values };
  }
  if (!result.arrived) {
    return { state: 'bad', code: codes.notHere, time, cause: 'signaling.blocked', advice: 'signaling.blocked.do', ask: 'firewall', values };
  }
  if (result.status === 101) {
    return { state: 'bad', code: codes.notBack, time, cause: 'signaling.lost', advice: 'signaling.blocked.do', ask: 'firewall', values };
  }
  const failed = judge(result, values, codes);
  if (failed) {
    return { time, ...failed };
  }
  return { state: 'ok', code: codes.ok, time, facts: ['signaling.refused', values], values };
}

const valuesOf = (route) => ({ host: location.host, upstream: (route.upstreams ?? []).join(', '), path: route.name });

function openWebSocket(url) {
  return new Promise((done) => {
    let socket;
    try {
      socket = new WebSocket(url);
    } catch {
      done(false);
      return;
    }
    const end = (opened) => {
      clearTimeout(late);
      socket.onopen = socket.onerror = socket.onclose = null;
      socket.close();
      done(opened);
    };
    const late = setTimeout(() => end(false), patience);
    socket.onopen = () => end(true);
    socket.onerror = () => end(false);
    socket.onclose = () => end(false);
  });
}

// What is said about a POST, by the kind of its route.
const postTexts = {
  logger: {
    ok: 'logger.ok', blocked: 'logger.blocked', lost: 'logger.lost', blockedDo: 'logger.blocked.do', cors: 'logger.cors', corsDo: 'logger.cors.do',
  },
  schedule: {
    ok: 'schedule.ok', blocked: 'schedule.blocked', lost: 'schedule.lost', blockedDo: 'logger.blocked.do', cors: 'schedule.cors', corsDo: 'schedule.cors.do',
  },
};

// bodyFor is what an SDK posts, without a login.
function bodyFor(route) {
  if (route.kind === 'logger') return { body: '{}', headers: { 'Content-Type': 'text/plain' } };
  const body = new FormData();
  body.append('userId', 'turngate-check');
  body.append('sdkAppId', String(route.appId));
  body.append('userSig', 'none');
  return { body };
}

// testPost tests a log report, or a request to the scheduler.
export async function testPost(plan, route) {
  const codes = routeCodes[route.kind];
  const texts = postTexts[route.kind];
  const { n, url } = mark(plan, route, 'https');
  const values = valuesOf(route);
  const began = performance.now();
  let response = null;
  try {
    response = await fetch(url, {
      method: 'POST', ...bodyFor(route), cache: 'no-store', credentials: 'omit', redirect: 'manual', signal: AbortSignal.timeout(patience),
    });
  } catch { /* the API says what became of it */ }
  const time = ['ms', { ms: Math.round(performance.now() - began) }];
  let result;
  try {
    result = await askResult(n);
  } catch {
    return { state: 'bad', code: pageCodes.silent, time, cause: 'unreachable', advice: 'unreachable.do', ask: 'firewall', values };
  }
  values.upstream = result.upstream || values.upstream;
  values.status = result.status || response?.status;
  if (!result.arrived) {
    return { state: 'bad', code: codes.notHere, time, cause: texts.blocked, advice: texts.blockedDo, ask: 'firewall', values };
  }
  if (result.outcome === 'spooled') {
    return { state: 'warn', code: codes.spooled, time, cause: 'logger.spooled', advice: 'upstream.do', ask: 'admin', values };
  }
  const failed = judge(result, values, codes);
  if (failed) {
    return { time, ...failed };
  }
  if (!response) {
    return { state: 'bad', code: codes.notBack, time, cause: texts.lost, advice: texts.blockedDo, ask: 'firewall', values };
  }
  const allowed = response.headers.get('Access-Control-Allow-Origin');
  if (allowed !== '*' && allowed !== (route.origin || location.origin)) {
    return { state: 'warn', code: codes.cors, time, cause: texts.cors, advice: texts.corsDo, ask: 'admin', values };
  }
  return { state: 'ok', code: codes.ok, time, facts: [texts.ok, values], values };
}

// causeCodes are the codes of a cause that this host gives.
const causeCodes = {
  dns: 'dns', tls_issuer: 'issuer', tls_name: 'tls', tls_expired: 'tls', tls: 'tls', proxy: 'proxy', proxy_auth: 'proxy', answer: 'answer',
};

// judge says what is wrong with a request that reached this host; nothing, if
// its upstream answered. It has been reached whatever it said.
function judge(result, values, codes) {
  const outcome = result.outcome || '';
  const [, cause] = /^upstream_(\w+)$/.exec(outcome) || [];
  if (!result.ended) {
    return { state: 'bad', code: codes.blocked, cause: 'upstream.timeout', advice: 'upstream.do', ask: 'adminFirewall', values };
  }
  if (cause) {
    const own = ['tls_issuer', 'tls_name', 'tls_expired', 'tls', 'answer', 'local'].includes(cause);
    const advice = { tls_issuer: 'upstream.tls_issuer.do', proxy: 'upstream.proxy.do', proxy_auth: 'upstream.proxy.do', dns: 'upstream.dns.do' }[cause];
    return { state: 'bad', code: codes[causeCodes[cause] ?? 'blocked'], cause: `upstream.${cause}`, advice: advice || (own ? 'upstream.own.do' : 'upstream.do'), ask: own ? 'admin' : 'adminFirewall', values };
  }
  if (outcome) {
    const known = { forbidden_client: 'route.client', draining: 'route.draining', no_upstream: 'route.none' }[outcome];
    const limit = outcome.startsWith('limit');
    return { state: limit ? 'warn' : 'bad', code: outcome === 'draining' ? pageCodes.draining : codes.through, cause: known || (limit ? 'route.limit' : 'route.refused'), advice: 'route.do', ask: 'admin', values: { ...values, outcome } };
  }
  if (result.status >= 500) {
    return { state: 'warn', code: codes.answer, cause: 'upstream.status', advice: 'upstream.status.do', ask: 'admin', values };
  }
  return null;
}
