// A call with trtc-sdk-v5, step by step.
'use strict';

const call = (() => {
  const events = [];
  let trtc, published = false;

  function note(type, detail) { events.push({ type, detail: String(detail) }); }

  async function enter({ sdkAppId, userId, userSig, roomId, proxy }) {
    trtc = TRTC.create();
    trtc.on(TRTC.EVENT.ERROR, e => note('error', `${e.code}/${e.extraCode} ${e.message}`));
    trtc.on(TRTC.EVENT.KICKED_OUT, e => note('kicked', e.reason));
    trtc.on(TRTC.EVENT.CONNECTION_STATE_CHANGED, e => note('connection', `${e.prevState}>${e.state}`));
    trtc.on(TRTC.EVENT.PUBLISH_STATE_CHANGED, e => note('publish', `${e.mediaType}:${e.state}`));
    const params = { sdkAppId, userId, userSig, roomId, scene: 'rtc' };
    if (proxy !== null) params.proxy = proxy;
    await trtc.enterRoom(params);
  }

  async function publish() {
    await trtc.startLocalVideo({ view: 'camera', option: { profile: '360p' } });
    published = true;
  }

  async function leave() {
    if (published) await trtc.stopLocalVideo();
    await trtc.exitRoom();
    trtc.destroy();
  }

  return { enter, publish, leave, events: () => events };
})();
