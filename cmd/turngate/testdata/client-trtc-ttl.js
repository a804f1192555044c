// The credential is real. It is valid until 2026-11-22T13:00:00Z.
const proxy = {
  websocketProxy: 'wss://proxy.example.com/ws/',
  loggerProxy: 'https://proxy.example.com/logger',
  scheduleProxy: 'proxy.example.com/schedule',
  turnServer: [
    { url: 'proxy.example.com:3478', username: '1795352400:bob', credential: 'lvv3uJhC849KgZ1cRmhhAZdCq58=' },
    { url: 'proxy.example.com:3478?transport=tcp', username: '1795352400:bob', credential: 'lvv3uJhC849KgZ1cRmhhAZdCq58=' },
    { url: 'turns:proxy.example.com:443?transport=tcp', username: '1795352400:bob', credential: 'lvv3uJhC849KgZ1cRmhhAZdCq58=' },
  ],
  iceTransportPolicy: 'relay',
};
// await trtc.enterRoom({ ...yourParameters, proxy });
