// Tests of TURN: two peer connections of this very page that may use nothing but
// one relay transport. What goes from one to the other crosses the server twice.

import { relayCodes } from './check-codes.js';

const patience = 15000; // ms until the two must have met
const messages = 40;
const needed = 20; // that must come back
const pause = 25; // ms between messages
const grace = 2000; // ms for the last answers

export class Loop {
  // relay is { transport, port, url } of the plan.
  constructor(relay, login) {
    this.relay = relay;
    this.errors = [];
    this.candidates = [];
    const config = {
      iceServers: [{ urls: [relay.url], username: login.username, credential: login.credential }],
      iceTransportPolicy: 'relay',
    };
    this.began = performance.now();
    this.near = new RTCPeerConnection(config);
    this.far = new RTCPeerConnection(config);
    this.gathered = Promise.all([this.#join(this.near, this.far), this.#join(this.far, this.near)]);
  }

  // join passes candidates on, and resolves when there will be no more.
  #join(from, to) {
    from.addEventListener('icecandidateerror', (e) => {
      this.errors.push({ code: e.errorCode, text: e.errorText, url: e.url });
    });
    return new Promise((done) => {
      from.addEventListener('icecandidate', ({ candidate }) => {
        if (!candidate || !candidate.candidate) {
          if (!candidate) done();
          return;
        }
        this.candidates.push({ ms: Math.round(performance.now() - this.began), text: candidate.candidate });
        to.addIceCandidate(candidate).catch(() => {});
      });
    });
  }

  // run connects the two and measures. It never throws.
  async run() {
    try {
      const channel = this.near.createDataChannel('check', { ordered: false, maxRetransmits: 0 });
      channel.binaryType = 'arraybuffer';
      this.far.addEventListener('datachannel', ({ channel: other }) => {
        other.binaryType = 'arraybuffer';
        other.onmessage = ({ data }) => { if (other.readyState === 'open') other.send(data); };
      });
      const opened = new Promise((done) => { channel.onopen = () => done('open'); });
      await this.#negotiate();
      this.end = await Promise.race([
        opened,
        this.gathered.then(() => (this.candidates.length ? new Promise(() => {}) : 'none')),
        new Promise((done) => { setTimeout(() => done('late'), patience); }),
      ]);
      this.ms = Math.round(performance.now() - this.began);
      if (this.end !== 'open') {
        return this.#outcome(null);
      }
      return this.#outcome(await measure(channel));
    } catch (error) {
      this.errors.push({ code: 0, text: String(error), url: this.relay.url });
      return this.#outcome(null);
    }
  }

  async #negotiate() {
    await this.near.setLocalDescription(await this.near.createOffer());
    await this.far.setRemoteDescription(this.near.localDescription);
    await this.far.setLocalDescription(await this.far.createAnswer());
    await this.near.setRemoteDescription(this.far.localDescription);
  }

  #outcome(numbers) {
    return {
      candidate: this.candidates[0] ?? null,
      errors: this.errors,
      end: this.end, // "open", "none" for no candidate, "late"
      numbers,
      works: Boolean(numbers) && numbers.received >= needed,
      ms: this.ms,
    };
  }

  // video sends a moving picture through the same way, shows it in an element,
  // and returns how many frames arrived.
  async video(element, frames = 30, wait = 8000) {
    const picture = new Picture();
    try {
      const [track] = picture.stream.getVideoTracks();
      this.near.addTrack(track, picture.stream);
      const arrived = new Promise((done) => { this.far.addEventListener('track', (e) => done(e.streams[0] ?? new MediaStream([e.track]))); });
      await this.#negotiate();
      element.srcObject = await Promise.race([arrived, new Promise((_, fail) => { setTimeout(() => fail(new Error('no track')), wait); })]);
      element.play().catch(() => {});
      const began = performance.now();
      let count = 0;
      while (count < frames && performance.now() - began < wait) {
        await new Promise((done) => { setTimeout(done, 200); });
        count = await decoded(this.far);
      }
      return { frames: count, needed: frames, ms: Math.round(performance.now() - began) };
    } catch (error) {
      return { frames: 0, needed: frames, ms: 0, error: String(error) };
    } finally {
      picture.stop();
    }
  }

  close() {
    this.near.close();
    this.far.close();
  }
}

async function decoded(connection) {
  let count = 0;
  (await connection.getStats()).forEach((s) => {
    if (s.type === 'inbound-rtp' && s.kind === 'video') count = s.framesDecoded ?? 0;
  });
  return count;
}

// measure sends messages, small and large in turn, and times their answers.
async function measure(channel) {
  const sent = new Map();
  const times = [];
  let complete;
  const all = new Promise((done) => { complete = done; });
  channel.onmessage = ({ data }) => {
    const n = new DataView(data).getUint32(0);
    if (!sent.has(n)) return;
    times.push(performance.now() - sent.get(n));
    sent.delete(n);
    if (times.length === messages) complete();
  };
  for (let n = 0; n < messages && channel.readyState === 'open'; n++) {
    const message = new ArrayBuffer(n % 2 ? 1000 : 120);
    new DataView(message).setUint32(0, n);
    sent.set(n, performance.now());
    channel.send(message);
    await new Promise((done) => { setTimeout(done, pause); });
  }
  await Promise.race([all, new Promise((done) => { setTimeout(done, grace); })]);
  const changes = times.slice(1).map((ms, i) => Math.abs(ms - times[i]));
  return {
    sent: messages,
    received: times.length,
    loss: Math.round((1 - times.length / messages) * 1000) / 10, // percent
    min: times.length ? Math.min(...times) : 0,
    avg: mean(times),
    max: times.length ? Math.max(...times) : 0,
    jitter: mean(changes),
  };
}

const mean = (list) => (list.length ? list.reduce((a, b) => a + b, 0) / list.length : 0);

// Picture is a moving picture that needs no camera.
class Picture {
  constructor() {
    const canvas = document.createElement('canvas');
    canvas.width = 320;
    canvas.height = 180;
    const pen = canvas.getContext('2d');
    let n = 0;
    const draw = () => {
      n++;
      const sky = pen.createLinearGradient(0, 0, 320, 180);
      sky.addColorStop(0, `hsl(${(n * 3) % 360} 70% 45%)`);
      sky.addColorStop(1, `hsl(${(n * 3 + 80) % 360} 70% 30%)`);
      pen.fillStyle = sky;
      pen.fillRect(0, 0, 320, 180);
      pen.fillStyle = '#fff';
      pen.beginPath();
      pen.arc(160 + 110 * Math.cos(n / 12), 90 + 50 * Math.sin(n / 8), 22, 0, 7);
      pen.fill();
      pen.font = 'bold 20px sans-serif';
      pen.fillText(String(n), 14, 166);
    };
    draw();
    this.stream = canvas.captureStream(20);
    this.timer = setInterval(draw, 50);
  }

  stop() {
    clearInterval(this.timer);
    this.stream.getTracks().forEach((track) => track.stop());
  }
}

// explain says why a way to the relay does not work, in keys of the texts.
export function explain(relay, outcome, host) {
  const error = worst(outcome.errors);
  const codes = relayCodes(relay);
  const values = {
    host, port: relay.port, transport: relay.transport.toUpperCase(), protocol: relay.transport === 'udp' ? 'UDP' : 'TCP',
    code: error, text: outcome.errors.find((e) => e.code === error)?.text ?? '',
  };
  const say = (code, cause, advice, ask) => ({ code, cause, advice, ask, values });
  if (outcome.candidate) {
    return outcome.numbers
      ? say(codes.loss, 'relay.loss', 'relay.loss.do', 'firewall')
      : say(codes.dead, 'relay.loop', 'relay.loop.do', 'admin');
  }
  if (!outcome.errors.length && 'onicecandidateerror' in RTCPeerConnection.prototype && outcome.end === 'none') {
    return say(codes.idle, 'relay.nothing', 'relay.nothing.do', 'user');
  }
  switch (error) {
    case 401: return say(codes.login, 'relay.401', 'relay.401.do', 'admin');
    case 403: return say(codes.answer, 'relay.403', 'relay.403.do', 'admin');
    case 437: return say(codes.answer, 'relay.437', 'relay.437.do', 'user');
    case 438: return say(codes.login, 'relay.438', 'relay.438.do', 'user');
    case 486: return say(codes.full, 'relay.486', 'relay.486.do', 'admin');
    case 508: case 300: return say(codes.full, 'relay.508', 'relay.508.do', 'admin');
    case 0: case 701: break;
    default: return say(codes.answer, 'relay.other', 'relay.other.do', 'admin');
  }
  if (relay.transport === 'tls') return say(codes.tls, 'relay.701.tls', 'relay.701.tls.do', 'firewallCertificate');
  if (relay.transport === 'udp') return say(codes.silent, 'relay.701.udp', 'relay.701.udp.do', 'firewall');
  if (relay.minor) return say(codes.silent, 'relay.701.minor', 'relay.701.minor.do', 'firewall');
  return say(codes.silent, 'relay.701.tcp', 'relay.701.tcp.do', 'firewall');
}

// worst is the code that says most: an answer of the server tells more than
// that there was none.
function worst(errors) {
  const codes = errors.map((e) => e.code).filter(Boolean);
  return codes.find((c) => c !== 701) ?? codes[0] ?? 0;
}
