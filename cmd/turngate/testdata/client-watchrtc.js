// watchrtc: production
watchRTC.init({
  rtcApiKey: 'YOUR_API_KEY',
  rtcRoomId: 'YOUR_ROOM',
  rtcPeerId: 'YOUR_PEER',
  proxyUrl: 'wss://proxy.example.com/watchrtc',
});
// watchrtc-staging: staging
watchRTC.init({
  rtcApiKey: 'staging:YOUR_API_KEY',
  rtcRoomId: 'YOUR_ROOM',
  rtcPeerId: 'YOUR_PEER',
  proxyUrl: 'wss://proxy.example.com/staging',
});
// watchrtc-legacy: production of SDKs before 1.39.1
watchRTC.init({
  rtcApiKey: 'YOUR_API_KEY',
  rtcRoomId: 'YOUR_ROOM',
  rtcPeerId: 'YOUR_PEER',
  proxyUrl: 'wss://proxy.example.com/watchrtc-legacy',
});
// watchrtc-staging-legacy: staging of SDKs before 1.39.1
watchRTC.init({
  rtcApiKey: 'staging:YOUR_API_KEY',
  rtcRoomId: 'YOUR_ROOM',
  rtcPeerId: 'YOUR_PEER',
  proxyUrl: 'wss://proxy.example.com/watchrtc-staging-legacy',
});
