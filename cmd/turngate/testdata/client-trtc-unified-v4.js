client.setProxyServer({
  unifiedProxy: 'proxy.example.com/u',
});
