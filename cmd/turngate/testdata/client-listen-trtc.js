// The password is real and does not expire: whoever reads the page can use the relay.
const proxy = {
  websocketProxy: 'wss://proxy.example.com:8443/ws/',
  loggerProxy: 'https://proxy.example.com:9443/logger',
  turnServer: [
    { url: 'proxy.example.com:3478', username: 'turn', credential: 'a password of the test' },
    { url: 'proxy.example.com:3478?transport=tcp', username: 'turn', credential: 'a password of the test' },
    { url: 'turns:proxy.example.com:443?transport=tcp', username: 'turn', credential: 'a password of the test' },
  ],
  iceTransportPolicy: 'relay',
};
// await trtc.enterRoom({ ...yourParameters, proxy });
