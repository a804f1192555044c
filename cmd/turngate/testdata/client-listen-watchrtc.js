// watchrtc: production
watchRTC.init({
  rtcApiKey: 'YOUR_API_KEY',
  rtcRoomId: 'YOUR_ROOM',
  rtcPeerId: 'YOUR_PEER',
  proxyUrl: 'wss://proxy.example.com:8443/watchrtc',
});
