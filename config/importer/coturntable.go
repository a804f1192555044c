package importer

// takes says whether an option has a value.
type takes int

const (
	takesFlag  takes = iota
	takesValue       // needed
	takesMaybe       // possible
)

// coturnOption is what becomes of an option of coturn.
type coturnOption struct {
	takes takes
	// do carries the option over. Without it the rest is the remark; without
	// that too turngate does the same by itself.
	do       func(*turnSite, coturnSetting)
	weight   Weight
	why, fix string
}

// coturnShort spells out the letters of the command line.
var coturnShort = map[string]string{
	"d": "listening-device", "p": "listening-port", "L": "listening-ip", "i": "relay-device", "E": "relay-ip", "X": "external-ip",
	"m": "relay-threads", "v": "verbose", "V": "Verbose", "o": "daemon", "f": "fingerprint", "a": "lt-cred-mech", "z": "no-auth",
	"u": "user", "r": "realm", "q": "user-quota", "Q": "total-quota", "s": "max-bps", "B": "bps-capacity", "c": "config-file",
	"b": "userdb", "e": "psql-userdb", "M": "mysql-userdb", "N": "redis-userdb", "O": "redis-statsdb", "n": "no-config",
	"l": "log-file", "S": "stun-only", "C": "rest-api-separator", "K": "keep-address-family", "A": "allocation-default-address-family",
	"h": "help",
	// Other spellings.
	"db": "userdb", "sql-userdb": "psql-userdb", "prod": "no-software-attribute", "rest-api-separator-symbol": "rest-api-separator",
	"no-sslv2": "no-tlsv1", "no-sslv3": "no-tlsv1", "ca-file": "CA-file",
}

// coturnOptions are all options of coturn 4.6, and later ones that are known.
var coturnOptions = func() map[string]coturnOption {
	remark := func(t takes, w Weight, why, fix string) coturnOption {
		return coturnOption{takes: t, weight: w, why: why, fix: fix}
	}
	native := func(t takes) coturnOption { return coturnOption{takes: t, weight: -1} }
	do := func(t takes, f func(*turnSite, coturnSetting)) coturnOption {
		return coturnOption{takes: t, do: f}
	}
	not := func(t takes, why string) coturnOption { return remark(t, NotNeeded, why, "") }
	const (
		noNAT     = "turngate answers no NAT behaviour discovery (RFC 5780)"
		crypto    = "turngate chooses what TLS uses"
		tlsTwelve = "turngate serves TLS 1.2 and later"
		cli       = `"turngate status", "sessions" and "kick" ask the running server over its own socket`
		service   = "the unit file of the service says it"
		journal   = "turngate logs to standard error, which systemd keeps"
		oneLog    = "one log, with its own time stamps"
		fixed     = "the times of RFC 8656 hold"
	)
	return map[string]coturnOption{
		// Where it listens.
		"listening-port":     do(takesValue, (*turnSite).setPort),
		"tls-listening-port": do(takesValue, (*turnSite).setTLSPort),
		"listening-ip":       do(takesValue, (*turnSite).addListening),
		"aux-server":         do(takesValue, (*turnSite).addAux),
		"no-udp":             do(takesFlag, func(t *turnSite, o coturnSetting) { t.noUDP = o }),
		"no-tcp": do(takesFlag, func(t *turnSite, o coturnSetting) {
			t.changed(o.pos, o.name, "a listener of TURN serves TCP too", "refuse it in the firewall if it must be")
		}),
		"no-tls":                            do(takesFlag, func(t *turnSite, o coturnSetting) { t.noTLS = true }),
		"no-dtls":                           do(takesFlag, func(t *turnSite, o coturnSetting) { t.noDTLS = true }),
		"alt-listening-port":                remark(takesValue, Lost, noNAT, "browsers do not ask for it"),
		"alt-tls-listening-port":            remark(takesValue, Lost, noNAT, "browsers do not ask for it"),
		"no-rfc5780":                        native(takesFlag),
		"rfc5780":                           remark(takesFlag, Lost, noNAT, "browsers do not ask for it"),
		"tcp-proxy-port":                    remark(takesValue, Lost, "turngate wants to know which balancers send a PROXY header", "add the port to turn.listen and the balancers to turn.proxy_protocol"),
		"listening-device":                  remark(takesValue, Lost, "turngate listens on addresses, not on devices", "write the address of the device in turn.listen"),
		"relay-device":                      remark(takesValue, Lost, "turngate relays from addresses, not from devices", "write the address of the device in external_ip"),
		"udp-self-balance":                  not(takesFlag, "turngate spreads UDP over the cores by itself"),
		"relay-threads":                     not(takesValue, "turngate uses all cores"),
		"cpus":                              not(takesValue, "turngate uses all cores"),
		"sock-buf-size":                     not(takesValue, "turngate sizes the buffers of its sockets"),
		"udp-recvmmsg":                      not(takesFlag, "turngate receives batches by itself"),
		"multiplex-peer":                    remark(takesFlag, Lost, "every relay has a port of its own", ""),
		"no-stun":                           remark(takesFlag, Changed, "turngate answers STUN Binding requests", ""),
		"stun-only":                         do(takesFlag, func(t *turnSite, o coturnSetting) { t.stunOnly = o }),
		"drain":                             not(takesFlag, `"turngate drain" does it`),
		"relay-ip":                          do(takesValue, (*turnSite).addRelay),
		"external-ip":                       do(takesValue, (*turnSite).addExternal),
		"min-port":                          do(takesValue, func(t *turnSite, o coturnSetting) { t.minPort = o }),
		"max-port":                          do(takesValue, func(t *turnSite, o coturnSetting) { t.maxPort = o }),
		"no-udp-relay":                      remark(takesFlag, Lost, "turngate relays UDP and nothing else", ""),
		"no-tcp-relay":                      native(takesFlag),
		"allocation-default-address-family": do(takesValue, (*turnSite).family),
		"keep-address-family":               remark(takesFlag, Changed, "a client that does not say which family it wants gets an IPv4 relay (RFC 8656)", ""),

		// Who may use it.
		"lt-cred-mech":             do(takesFlag, func(t *turnSite, o coturnSetting) { t.longTerm = o }),
		"no-auth":                  do(takesFlag, func(t *turnSite, o coturnSetting) { t.noAuth = o }),
		"use-auth-secret":          do(takesFlag, func(t *turnSite, o coturnSetting) { t.useSecret = o }),
		"static-auth-secret":       do(takesValue, func(t *turnSite, o coturnSetting) { t.secrets = append(t.secrets, o) }),
		"user":                     do(takesValue, func(t *turnSite, o coturnSetting) { t.users = append(t.users, o) }),
		"realm":                    do(takesValue, func(t *turnSite, o coturnSetting) { t.realm = o }),
		"userdb":                   do(takesValue, func(t *turnSite, o coturnSetting) { t.addDatabase("sqlite", o) }),
		"psql-userdb":              do(takesValue, func(t *turnSite, o coturnSetting) { t.addDatabase("postgres", o) }),
		"redis-userdb":             do(takesValue, func(t *turnSite, o coturnSetting) { t.addDatabase("redis", o) }),
		"mysql-userdb":             do(takesValue, (*turnSite).otherDatabase),
		"mongo-userdb":             do(takesValue, (*turnSite).otherDatabase),
		"secret-key-file":          remark(takesValue, Lost, "it belongs to a MySQL database", ""),
		"rest-api-separator":       do(takesValue, (*turnSite).separator),
		"oauth":                    remark(takesFlag, Lost, "turngate has no OAuth (RFC 7635)", "use time-limited credentials: turn.secrets"),
		"server-name":              remark(takesValue, Lost, "it belongs to OAuth, which turngate does not have", ""),
		"secure-stun":              remark(takesFlag, Changed, "STUN Binding requests are answered without a credential, at a bounded rate", ""),
		"check-origin-consistency": not(takesFlag, "browsers send no ORIGIN in STUN"),
		"stale-nonce":              not(takesMaybe, "nonces of turngate always end"),
		"no-auth-pings":            not(takesFlag, "databases are asked only for users"),
		"no-dynamic-ip-list":       not(takesFlag, "peers are allowed and denied in the file alone"),
		"no-dynamic-realms":        not(takesFlag, "realms stand in the file alone"),

		// Whom it relays to.
		"allowed-peer-ip":      do(takesValue, func(t *turnSite, o coturnSetting) { t.addPeers("allow", o) }),
		"denied-peer-ip":       do(takesValue, func(t *turnSite, o coturnSetting) { t.addPeers("deny", o) }),
		"no-multicast-peers":   native(takesFlag),
		"no-loopback-peers":    native(takesFlag),
		"allow-loopback-peers": do(takesFlag, (*turnSite).loopback),
		"server-relay":         remark(takesFlag, Lost, "packets of peers without a permission are never passed", ""),

		// How much.
		"total-quota":             do(takesValue, func(t *turnSite, o coturnSetting) { t.limit("allocations", o, false) }),
		"user-quota":              do(takesValue, func(t *turnSite, o coturnSetting) { t.limit("allocations_per_user", o, false) }),
		"max-bps":                 do(takesValue, func(t *turnSite, o coturnSetting) { t.limit("bytes_per_second_per_allocation", o, true) }),
		"bps-capacity":            do(takesValue, func(t *turnSite, o coturnSetting) { t.limit("bytes_per_second_total", o, true) }),
		"max-allocate-lifetime":   remark(takesValue, Changed, "an allocation lives as RFC 8656 says, an hour at most, and is refreshed", ""),
		"max-allocate-timeout":    not(takesValue, "turn.limits.first_message bounds it"),
		"channel-lifetime":        remark(takesValue, Changed, fixed, ""),
		"permission-lifetime":     remark(takesValue, Changed, fixed, ""),
		"mobility":                do(takesFlag, func(t *turnSite, o coturnSetting) { t.site.draft.in("turn").put("mobility", true, o.pos, "") }),
		"alternate-server":        do(takesValue, (*turnSite).addAlternate),
		"tls-alternate-server":    do(takesValue, (*turnSite).addAlternate),
		"federation-listening-ip": remark(takesValue, Lost, "turngate has no federation", ""),

		// TLS.
		"cert":               do(takesValue, func(t *turnSite, o coturnSetting) { t.cert = o }),
		"pkey":               do(takesValue, func(t *turnSite, o coturnSetting) { t.key = o }),
		"pkey-pwd":           remark(takesValue, Lost, "turngate reads no key that is encrypted", "decrypt it: openssl pkey -in KEY -out KEY.plain, mode 0600"),
		"CA-file":            remark(takesValue, Lost, "turngate asks clients for no certificate", ""),
		"cipher-list":        not(takesValue, crypto),
		"cipher":             not(takesValue, crypto),
		"tls13-ciphersuites": not(takesValue, crypto),
		"ec-curve-name":      not(takesValue, crypto),
		"dh566":              not(takesFlag, crypto),
		"dh1066":             not(takesFlag, crypto),
		"dh2066":             not(takesFlag, crypto),
		"dh-file":            not(takesValue, crypto),
		"raw-public-keys":    remark(takesFlag, Lost, "certificates are what turngate knows", ""),
		"no-tlsv1":           native(takesFlag),
		"no-tlsv1_1":         native(takesFlag),
		"no-tlsv1_2":         remark(takesFlag, Changed, tlsTwelve, ""),
		"no-tlsv1_3":         remark(takesFlag, Changed, tlsTwelve, ""),
		"tlsv1":              remark(takesFlag, Changed, tlsTwelve, ""),
		"tlsv1_1":            remark(takesFlag, Changed, tlsTwelve, ""),
		"acme-redirect":      remark(takesValue, Changed, "turngate orders certificates itself", `write mode = "acme" in [tls]`),

		// Log and operation.
		"verbose":                           native(takesFlag),
		"Verbose":                           do(takesFlag, func(t *turnSite, o coturnSetting) { t.site.draft.in("log").put("level", "debug", o.pos, "") }),
		"log-file":                          do(takesValue, (*turnSite).logFile),
		"no-stdout-log":                     not(takesFlag, journal),
		"syslog":                            not(takesFlag, journal),
		"syslog-facility":                   not(takesValue, journal),
		"simple-log":                        not(takesFlag, oneLog),
		"new-log-timestamp":                 not(takesFlag, oneLog),
		"new-log-timestamp-format":          not(takesValue, oneLog),
		"log-binding":                       not(takesFlag, "what strangers send is counted in the metrics"),
		"log-min-version":                   not(takesFlag, oneLog),
		"fingerprint":                       native(takesFlag),
		"no-software-attribute":             native(takesFlag),
		"software-attribute":                remark(takesFlag, Changed, "turngate does not tell strangers its version", ""),
		"no-stun-backward-compatibility":    native(takesFlag),
		"stun-backward-compatibility":       remark(takesFlag, Lost, "turngate speaks STUN with the magic cookie only (RFC 8489)", ""),
		"response-origin-only-with-rfc5780": native(takesFlag),
		"respond-http-unsupported":          not(takesFlag, "turngate answers https on the same port"),
		"no-http":                           not(takesFlag, "turngate answers https on the same port"),
		"include-reason-string":             native(takesFlag),
		"prometheus":                        do(takesFlag, func(t *turnSite, o coturnSetting) { t.metrics = o }),
		"prometheus-port":                   do(takesValue, func(t *turnSite, o coturnSetting) { t.metricsPort = o }),
		"prometheus-address":                do(takesValue, func(t *turnSite, o coturnSetting) { t.metricsAddr = o }),
		"prometheus-path":                   remark(takesValue, Changed, "metrics are at /metrics", ""),
		"prometheus-username-labels":        remark(takesFlag, Lost, "users stand in no metric: there is one series for each", `"turngate sessions --json" has them`),
		"redis-statsdb":                     remark(takesValue, Lost, "no statistics are written to Redis", `use the metrics (admin.metrics) or "turngate sessions --json"`),
		"no-cli":                            native(takesFlag),
		"cli":                               not(takesFlag, cli),
		"cli-ip":                            not(takesValue, cli),
		"cli-port":                          not(takesValue, cli),
		"cli-password":                      not(takesValue, cli),
		"cli-max-output-sessions":           not(takesValue, cli),
		"web-admin":                         remark(takesFlag, Lost, "users are not edited in a page", cli),
		"web-admin-ip":                      remark(takesValue, Lost, "users are not edited in a page", ""),
		"web-admin-port":                    remark(takesValue, Lost, "users are not edited in a page", ""),
		"web-admin-listen-on-workers":       remark(takesFlag, Lost, "users are not edited in a page", ""),
		"pidfile":                           not(takesValue, service),
		"proc-user":                         not(takesValue, service),
		"proc-group":                        not(takesValue, service),
		"daemon":                            native(takesFlag),
		"ne":                                not(takesValue, "it is an inner matter of coturn"),
		"no-config":                         native(takesFlag),
		"config-file":                       do(takesValue, (*turnSite).otherFile),
		"version":                           native(takesFlag),
		"help":                              native(takesFlag),
	}
}()
