// A call that watchRTC watches.
'use strict';

const watch = (() => {
  const states = [];
  let a, b;

  function init(config) {
    watchRTC.init(config);
    if (watchRTC.addStateListener) watchRTC.addStateListener(s => states.push(s.connectionStatus));
  }

  // A pair of peer connections whose signalling state changes is all that the SDK
  // waits for; whether media flows is not its business.
  async function call() {
    a = new RTCPeerConnection();
    b = new RTCPeerConnection();
    const camera = await navigator.mediaDevices.getUserMedia({ video: true });
    for (const track of camera.getTracks()) a.addTrack(track, camera);
    await a.setLocalDescription(await a.createOffer());
    await b.setRemoteDescription(a.localDescription);
    await b.setLocalDescription(await b.createAnswer());
    await a.setRemoteDescription(b.localDescription);
  }

  function rate(stars, comment) { watchRTC.setUserRating(stars, comment); }
  function keys(k) { watchRTC.addKeys(k); }
  function event(e) { watchRTC.addEvent(e); }

  async function noCamera() {
    try {
      await navigator.mediaDevices.getUserMedia({ video: { deviceId: { exact: 'there is none' } } });
    } catch (e) {
      return e.name;
    }
    return 'it worked';
  }

  return { init, call, rate, keys, event, noCamera, states: () => states };
})();
