// The password is real and does not expire: whoever reads the page can use the relay.
// const client = TRTC.createClient({ ...yourParameters, iceTransportPolicy: 'relay' });
client.setProxyServer({
  websocketProxy: 'wss://proxy.example.com/ws/',
  loggerProxy: 'https://proxy.example.com/logger',
  scheduleProxy: 'proxy.example.com/schedule',
});
client.setTurnServer([
  { url: 'proxy.example.com:3478', username: 'alice', credential: 'correct horse battery' },
  { url: 'proxy.example.com:3478?transport=tcp', username: 'alice', credential: 'correct horse battery' },
  { url: 'proxy.example.com:443?transport=tcp', username: 'alice', credential: 'correct horse battery' },
]);
