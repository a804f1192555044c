// What every test page offers: the peer connections it made, and a pair of
// them over given ICE servers.
'use strict';

const turngate = (() => {
  // Every RTCPeerConnection of the page, also those inside an SDK.
  const connections = [];
  const Native = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Native {
    constructor(...args) {
      super(...args);
      this.gathered = [];
      this.iceErrors = [];
      this.addEventListener('icecandidate', e => {
        if (e.candidate && e.candidate.candidate) this.gathered.push(e.candidate.candidate);
      });
      this.addEventListener('icecandidateerror', e =>
        this.iceErrors.push({ url: e.url || '', errorCode: e.errorCode, errorText: e.errorText || '' }));
      connections.push(this);
    }
  };

  const tick = ms => new Promise(done => setTimeout(done, ms));

  async function until(what, test) {
    for (;;) {
      const value = await test();
      if (value) return value;
      await tick(50);
    }
  }

  // side describes a connection by its candidate pair in use.
  async function side(pc) {
    const stats = await pc.getStats();
    const out = { gathered: pc.gathered, errors: pc.iceErrors, local: {}, remote: {}, bytesSent: 0, bytesReceived: 0 };
    for (const s of stats.values()) {
      if (s.type !== 'transport' || !s.selectedCandidatePairId) continue;
      const pair = stats.get(s.selectedCandidatePairId);
      out.local = candidate(stats.get(pair.localCandidateId));
      out.remote = candidate(stats.get(pair.remoteCandidateId));
      out.bytesSent = pair.bytesSent;
      out.bytesReceived = pair.bytesReceived;
    }
    return out;
  }

  function candidate(c) {
    return c ? {
      candidateType: c.candidateType, protocol: c.protocol, relayProtocol: c.relayProtocol || '',
      url: c.url || '', address: c.address || c.ip || '', port: c.port,
    } : {};
  }

  function trickle(pc, peer) {
    pc.onicecandidate = e => {
      if (e.candidate && e.candidate.candidate) peer.addIceCandidate(e.candidate).catch(err => console.error('addIceCandidate', err));
    };
  }

  function describe(pc) {
    return `${pc.connectionState}/${pc.iceConnectionState}/${pc.iceGatheringState}, ` +
      `candidates ${JSON.stringify(pc.gathered)}, errors ${JSON.stringify(pc.iceErrors)}`;
  }

  async function connectPair(iceServers, policy, want) {
    const config = { iceServers, iceTransportPolicy: policy };
    const a = new RTCPeerConnection(config), b = new RTCPeerConnection(config);
    const failed = new Promise((_, reject) => {
      for (const pc of [a, b]) {
        pc.onconnectionstatechange = () => {
          if (pc.connectionState === 'failed') reject(new Error(`connection failed: a ${describe(a)}; b ${describe(b)}`));
        };
      }
    });
    // Relay without a single candidate never fails in Chromium: it stays "new".
    const nothing = (async () => {
      await until('gathering', () => a.iceGatheringState === 'complete' && b.iceGatheringState === 'complete');
      if (a.gathered.length && b.gathered.length) return new Promise(() => {});
      throw new Error(`no candidate: a ${describe(a)}; b ${describe(b)}`);
    })();
    // An error of the page says more than a deadline of the test.
    const late = tick(want.milliseconds).then(() => {
      throw new Error(`not within ${want.milliseconds} ms: a ${describe(a)}; b ${describe(b)}`);
    });
    try {
      return await Promise.race([run(a, b, want), failed, nothing, late]);
    } finally {
      a.close();
      b.close();
    }
  }

  async function run(a, b, want) {
    trickle(a, b);
    trickle(b, a);
    const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 320, height: 240, frameRate: 30 } });
    for (const track of camera.getTracks()) a.addTrack(track, camera);

    const video = document.createElement('video');
    video.muted = true;
    video.autoplay = true;
    b.ontrack = e => { video.srcObject = e.streams[0]; video.play().catch(() => {}); };
    b.ondatachannel = e => { e.channel.binaryType = 'arraybuffer'; e.channel.onmessage = m => e.channel.send(m.data); };

    const channel = a.createDataChannel('echo');
    channel.binaryType = 'arraybuffer';
    const echoed = echo(channel, want.echoBytes);

    await a.setLocalDescription();
    await b.setRemoteDescription(a.localDescription);
    await b.setLocalDescription();
    await a.setRemoteDescription(b.localDescription);

    const echoBytes = await echoed;
    const framesDecoded = await until('video', async () => {
      for (const s of (await b.getStats()).values()) {
        if (s.type === 'inbound-rtp' && s.kind === 'video' && s.framesDecoded >= want.frames) return s.framesDecoded;
      }
      return 0;
    });
    const result = { a: await side(a), b: await side(b), echoBytes, framesDecoded };
    for (const track of camera.getTracks()) track.stop();
    return result;
  }

  // echo sends blocks of random bytes and compares what comes back.
  function echo(channel, total) {
    return new Promise((resolve, reject) => {
      const sent = [];
      let out = 0, back = 0;
      const next = () => {
        if (out >= total) return;
        const block = crypto.getRandomValues(new Uint8Array(Math.min(16384, total - out)));
        out += block.length;
        sent.push(block);
        channel.send(block);
      };
      channel.onopen = () => { for (let i = 0; i < 8; i++) next(); };
      channel.onerror = e => reject(new Error('data channel: ' + e.error));
      channel.onmessage = e => {
        const got = new Uint8Array(e.data), want = sent.shift();
        if (got.length !== want.length || got.some((v, i) => v !== want[i])) reject(new Error(`echo differs at byte ${back}`));
        back += got.length;
        if (back === total) resolve(back);
        else next();
      };
    });
  }

  async function gather(iceServers, policy) {
    const pc = new RTCPeerConnection({ iceServers, iceTransportPolicy: policy });
    pc.createDataChannel('none');
    await pc.setLocalDescription();
    await until('gathering', () => pc.iceGatheringState === 'complete');
    const out = await side(pc);
    pc.close();
    return out;
  }

  async function describeAll() {
    const out = [];
    for (const pc of connections) {
      const config = pc.getConfiguration();
      out.push({
        state: pc.connectionState,
        policy: config.iceTransportPolicy,
        urls: config.iceServers.flatMap(s => s.urls),
        side: await side(pc),
      });
    }
    return out;
  }

  function setCookie(cookie) { document.cookie = cookie; }

  return { connections, describeAll, setCookie, side, connectPair, gather, until, tick };
})();
