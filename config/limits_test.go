package config

import "testing"

func TestLimitsOfAnAddressFollowItsConnections(t *testing.T) {
	for _, c := range []struct {
		name, file string
		want       HTTPSLimits
	}{
		{"an empty file has them all", "", base().HTTPS.Limits},
		{"an address without a bound has none", "[https]\nmax_connections_per_address = 0\n", HTTPSLimits{}},
		{"but those that the file sets", "[https]\nmax_connections_per_address = 0\n[https.limits]\nhandshakes_per_second = 7\n",
			HTTPSLimits{HandshakesPerSecond: 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, findings := LoadBytes("turngate.toml", []byte(c.file), machine(nil, nil))
			if cfg == nil {
				t.Fatal(findings)
			}
			if cfg.HTTPS.Limits != c.want {
				t.Errorf("got %+v, want %+v", cfg.HTTPS.Limits, c.want)
			}
		})
	}
}
