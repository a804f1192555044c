// The password is real and does not expire: whoever reads the page can use the relay.
// const client = TRTC.createClient({ ...yourParameters, iceTransportPolicy: 'all' });
client.setProxyServer({
  unifiedProxy: '[2001:db8::7]:8443/one',
});
client.setTurnServer([
  { url: '[2001:db8::7]:13478', username: 'o\'neil', credential: 'back\\slash & \u003c/script> "x"' },
  { url: '[2001:db8::7]:13478?transport=tcp', username: 'o\'neil', credential: 'back\\slash & \u003c/script> "x"' },
  { url: '[2001:db8::7]:8443?transport=tcp', username: 'o\'neil', credential: 'back\\slash & \u003c/script> "x"' },
]);
