// The codes of "turngate check" for what the page finds: one table for both.
// "turngate explain TG-061" says more about each. They never change their meaning.

export const pageCodes = {
  ok: 'TG-020', distrusted: 'TG-021', ends: 'TG-025', inspected: 'TG-027',
  https: 'TG-030', silent: 'TG-032', clock: 'TG-152', draining: 'TG-194', broken: 'TG-253',
};

export const routeCodes = {
  signaling: {
    ok: 'TG-040', dns: 'TG-041', blocked: 'TG-042', issuer: 'TG-043', tls: 'TG-044', proxy: 'TG-045', answer: 'TG-046',
    through: 'TG-047', notHere: 'TG-221', notBack: 'TG-222',
  },
  logger: {
    ok: 'TG-050', dns: 'TG-051', blocked: 'TG-052', issuer: 'TG-053', tls: 'TG-054', proxy: 'TG-055', answer: 'TG-056',
    through: 'TG-057', cors: 'TG-058', notHere: 'TG-241', notBack: 'TG-242', spooled: 'TG-196',
  },
  schedule: {
    ok: 'TG-230', dns: 'TG-231', blocked: 'TG-232', issuer: 'TG-233', tls: 'TG-234', proxy: 'TG-235', answer: 'TG-236',
    through: 'TG-237', cors: 'TG-238', notHere: 'TG-237', notBack: 'TG-237',
  },
};

const transportCodes = {
  udp: { ok: 'TG-060', silent: 'TG-061', login: 'TG-063', full: 'TG-064', answer: 'TG-066' },
  tcp: { ok: 'TG-070', silent: 'TG-071', login: 'TG-073', full: 'TG-074', answer: 'TG-076' },
  https: { ok: 'TG-080', silent: 'TG-081', login: 'TG-083', full: 'TG-084', tls: 'TG-085', answer: 'TG-086' },
};

// relayCodes are those of a way to TURN; TLS and plain TCP on the HTTPS port have one check.
export const relayCodes = (relay) => ({
  ...transportCodes[relay.transport === 'udp' ? 'udp' : relay.transport === 'tls' || relay.minor ? 'https' : 'tcp'],
  dead: 'TG-091', loss: 'TG-092', slow: 'TG-094', noWebRTC: 'TG-251', idle: 'TG-252',
});

export const mediaCodes = { blockedUDP: 'TG-210', blocked: 'TG-211', video: 'TG-260', noVideo: 'TG-261', fewVideo: 'TG-262' };
