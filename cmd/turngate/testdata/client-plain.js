// The password is real and does not expire: whoever reads the page can use the relay.
const iceServers = [{
  urls: [
    'turn:proxy.example.com:3478?transport=udp',
    'turn:proxy.example.com:3478?transport=tcp',
    'turns:proxy.example.com:443?transport=tcp',
  ],
  username: 'alice',
  credential: 'correct horse battery',
}];
// const pc = new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' });
