const proxy = {
  unifiedProxy: 'proxy.example.com/u',
};
// await trtc.enterRoom({ ...yourParameters, proxy });
