docker run -d --network=host --name turn \
  coturn/coturn:4.6 -n --log-file=stdout --min-port=49160 --max-port=49200 \
  --external-ip='$(detect-external-ip)' -u guest:'pass word' -a -r example.org --realm=example.org
