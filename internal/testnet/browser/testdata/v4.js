// A call with trtc-js-sdk (v4), step by step.
'use strict';

const call = (() => {
  const events = [];
  let client, stream;

  function note(type, detail) { events.push({ type, detail: String(detail) }); }

  async function enter({ sdkAppId, userId, userSig, roomId, proxy, turn, policy }) {
    const config = { mode: 'rtc', sdkAppId, userId, userSig };
    if (policy) config.iceTransportPolicy = policy;
    client = TRTC.createClient(config);
    client.on('error', e => note('error', `${e.getCode()} ${e.message}`));
    client.on('client-banned', e => note('kicked', e.reason));
    client.on('connection-state-changed', e => note('connection', `${e.prevState}>${e.state}`));
    if (proxy !== null) client.setProxyServer(proxy);
    if (turn !== null) client.setTurnServer(turn);
    await client.join({ roomId });
  }

  async function publish() {
    stream = TRTC.createStream({ userId: 'camera', audio: false, video: true });
    stream.setVideoProfile('360p');
    await stream.initialize();
    await client.publish(stream);
  }

  async function leave() {
    if (stream) {
      await client.unpublish(stream);
      stream.close();
    }
    await client.leave();
  }

  return { enter, publish, leave, events: () => events };
})();
