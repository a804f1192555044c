// The password is real and does not expire: whoever reads the page can use the relay.
const iceServers = [{
  urls: [
    'turn:192.0.2.1:13478?transport=udp',
    'turn:192.0.2.1:13478?transport=tcp',
    'turns:192.0.2.1:8443?transport=tcp',
  ],
  username: 'o\'neil',
  credential: 'back\\slash & \u003c/script> "x"',
}];
// const pc = new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' });
