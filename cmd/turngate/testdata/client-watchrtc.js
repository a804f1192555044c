// watchrtc
watchRTC.init({
  rtcApiKey: 'YOUR_API_KEY',
  rtcRoomId: 'YOUR_ROOM',
  rtcPeerId: 'YOUR_PEER',
  proxyUrl: 'wss://proxy.example.com/watchrtc',
});
// watchrtc-staging
watchRTC.init({
  rtcApiKey: 'staging:YOUR_API_KEY',
  rtcRoomId: 'YOUR_ROOM',
  rtcPeerId: 'YOUR_PEER',
  proxyUrl: 'wss://proxy.example.com/staging',
});
