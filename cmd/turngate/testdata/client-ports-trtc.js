// The password is real and does not expire: whoever reads the page can use the relay.
const proxy = {
  websocketProxy: 'wss://[2001:db8::7]:8443/real/time',
  loggerProxy: 'https://[2001:db8::7]:8443/reports',
  turnServer: [
    { url: '[2001:db8::7]:13478', username: 'o\'neil', credential: 'back\\slash & \u003c/script> "x"' },
    { url: '[2001:db8::7]:13478?transport=tcp', username: 'o\'neil', credential: 'back\\slash & \u003c/script> "x"' },
    { url: 'turns:[2001:db8::7]:8443?transport=tcp', username: 'o\'neil', credential: 'back\\slash & \u003c/script> "x"' },
  ],
  iceTransportPolicy: 'all',
};
// await trtc.enterRoom({ ...yourParameters, proxy });
