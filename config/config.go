// Package config is the configuration file of turngate: every key in one
// documented struct, a strict loader that reports all findings at once, and
// the embedded reference file.
//
// [Load] reads a file, [Default] is what an empty file means. A loaded Config
// is complete: presets, inherited keys and derived values are filled in,
// secrets are resolved, and every value has the type that its user needs. It
// is not changed after loading and may be read by any number of goroutines.
//
// The doc sentence of a key stands in turngate.toml ([Reference]); the struct
// repeats what a programmer must know. The tag "reload" says whether a reload
// applies a changed key (live) or only a restart does; [Changes] tells them
// apart.
package config

import (
	_ "embed"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"time"
)

// Reference is the file that documents every key with its default.
//
//go:embed turngate.toml
var Reference string

// Layouts of a site.
const (
	External = "external" // 2-A: the host stands in front of the company network
	Intranet = "intranet" // 2-B: the host stands inside it
)

// Config is a whole configuration.
type Config struct {
	Layout     string       `toml:"layout" reload:"live" one:"external|intranet"`
	Domain     string       `toml:"domain" reload:"live"`
	ExternalIP []ExternalIP `toml:"external_ip" reload:"live" single:"ok"` // empty: the host's own address
	StateDir   string       `toml:"state_dir" reload:"restart"`            // never empty after loading

	TLS       TLS         `toml:"tls"`
	HTTPS     HTTPS       `toml:"https"`
	TURN      TURN        `toml:"turn"`
	Upstream  Upstream    `toml:"upstream"`
	Signaling []Signaling `toml:"signaling" reload:"live"`
	Logger    []Logger    `toml:"logger" reload:"live"`
	TRTC      TRTC        `toml:"trtc"`
	Check     Check       `toml:"check"`
	Admin     Admin       `toml:"admin"`
	Log       Log         `toml:"log"`
	Drain     Drain       `toml:"drain"`

	file    string
	origins map[string]Origin
}

// HTTPS is the listener for wss, https and TURN over TLS or TCP.
type HTTPS struct {
	Listen                   []ListenAddr   `toml:"listen" reload:"live"`
	TrustedProxies           []netip.Prefix `toml:"trusted_proxies" reload:"live"`
	ProxyProtocol            []netip.Prefix `toml:"proxy_protocol" reload:"live"`              // sources that must send a PROXY header
	MaxConnections           int            `toml:"max_connections" reload:"live"`             // 0: no limit
	MaxConnectionsPerAddress int            `toml:"max_connections_per_address" reload:"live"` // 0: no limit
	HeaderTimeout            Duration       `toml:"header_timeout" reload:"restart"`
	HandshakeTimeout         Duration       `toml:"handshake_timeout" reload:"live"`
	Names                    []string       `toml:"names" reload:"live"` // lower case after loading
	Limits                   HTTPSLimits    `toml:"limits"`
}

// HTTPSLimits bound how much one client address (IPv4, or an IPv6 /64), and one
// user of it, may ask. 0 is no limit.
type HTTPSLimits struct {
	TLSHandshakesPerSecond     int `toml:"tls_handshakes_per_second" reload:"live"`
	RequestsPerSecond          int `toml:"requests_per_second" reload:"live"`
	RequestsPerSecondPerUser   int `toml:"requests_per_second_per_user" reload:"live"`
	HandshakesPerSecond        int `toml:"handshakes_per_second" reload:"live"` // WebSocket
	HandshakesPerMinutePerUser int `toml:"handshakes_per_minute_per_user" reload:"live"`
	WebSocketsPerUser          int `toml:"websockets_per_user" reload:"live"`
}

// TURN is the relay.
type TURN struct {
	Listen        []ListenAddr      `toml:"listen" reload:"live"` // UDP and TCP each
	ProxyProtocol []netip.Prefix    `toml:"proxy_protocol" reload:"live"`
	Realm         string            `toml:"realm" reload:"live"`  // never empty after loading
	Realms        map[string]string `toml:"realms" reload:"live"` // by listener, as it is written in a list of listeners
	MinPort       uint16            `toml:"min_port" reload:"live"`
	MaxPort       uint16            `toml:"max_port" reload:"live"`
	Alternates    []FixedAddr       `toml:"alternates" reload:"live"` // port 0: 3478
	Offload       string            `toml:"offload" reload:"live" one:"auto|off|native|generic"`
	// OffloadInterfaces are those that Offload is for; empty: found.
	OffloadInterfaces []string   `toml:"offload_interfaces" reload:"live"`
	Secrets           []Secret   `toml:"secrets" reload:"live"` // the first one signs, all are accepted
	Mobility          bool       `toml:"mobility" reload:"live"`
	StrictExpiry      bool       `toml:"strict_expiry" reload:"live"`
	CredentialTTL     Duration   `toml:"credential_ttl" reload:"live"`
	User              []User     `toml:"user" reload:"live"`
	Database          []Database `toml:"database" reload:"live"`
	API               API        `toml:"api"`
	Peers             Peers      `toml:"peers"`
	Limits            Limits     `toml:"limits"`
	Egress            Egress     `toml:"egress"`
}

// User is a long-term credential.
type User struct {
	Name     string `toml:"name" reload:"live"`
	Password Secret `toml:"password" reload:"live"`
	// Passwords are valid too, while one is being changed.
	Passwords []Secret `toml:"passwords" reload:"live"`
}

// All returns every password of a user, at least one in a loaded Config. The
// first one is what a client is given.
func (u User) All() []Secret {
	if u.Password.IsEmpty() {
		return u.Passwords
	}
	return append([]Secret{u.Password}, u.Passwords...)
}

// Database is a database in coturn's schema, with users and secrets of a realm.
type Database struct {
	Realm   string   `toml:"realm" reload:"live"` // never empty after loading, and of no other database
	Driver  string   `toml:"driver" reload:"live" one:"sqlite|postgres|redis"`
	DSN     Secret   `toml:"dsn" reload:"live"`
	Timeout Duration `toml:"timeout" reload:"live"` // of one lookup
	Cache   Duration `toml:"cache" reload:"live"`   // how long an answer counts
}

// reset is what a table with no keys means.
func (d *Database) reset(string) {
	*d = Database{Timeout: Duration(2 * time.Second), Cache: Duration(time.Minute)}
}

// API hands out time-limited credentials over HTTPS to pages with a token.
type API struct {
	Path    string   `toml:"path" reload:"live"` // empty: no route
	Tokens  []Secret `toml:"tokens" reload:"live"`
	Origins []string `toml:"origins" reload:"live"` // empty: no page of another origin
	TTL     Duration `toml:"ttl" reload:"live"`
	Rate    int      `toml:"rate" reload:"live"` // requests a second from one address; 0: no limit
}

// Peers is the policy on top of the built-in deny table. Allow comes first,
// then Deny, then the table.
type Peers struct {
	Allow        []PeerRule  `toml:"allow" reload:"live"`
	Deny         []PeerRule  `toml:"deny" reload:"live"`
	RelayToRelay bool        `toml:"relay_to_relay" reload:"live"`
	Ports        []PortRange `toml:"ports" reload:"live"` // empty: any
}

// Limits bound what one client and all clients can hold. 0 is no limit.
type Limits struct {
	Allocations              int      `toml:"allocations" reload:"live"`
	AllocationsPerUser       int      `toml:"allocations_per_user" reload:"live"`
	AllocationsPerAddress    int      `toml:"allocations_per_address" reload:"live"`
	PermissionsPerAllocation int      `toml:"permissions_per_allocation" reload:"live"`
	ChannelsPerAllocation    int      `toml:"channels_per_allocation" reload:"live"`
	ConnectionsPerAddress    int      `toml:"connections_per_address" reload:"live"`
	UnauthenticatedAnswers   int      `toml:"unauthenticated_answers" reload:"live"`
	FirstMessage             Duration `toml:"first_message" reload:"live"`
	AuthFailures             int      `toml:"auth_failures" reload:"live"` // a minute
	Ban                      Duration `toml:"ban" reload:"live"`

	// Payload a second, each direction on its own.
	BytesPerSecondPerAllocation Size `toml:"bytes_per_second_per_allocation" reload:"live"`
	BytesPerSecondPerUser       Size `toml:"bytes_per_second_per_user" reload:"live"`
	BytesPerSecondTotal         Size `toml:"bytes_per_second_total" reload:"live"`
}

// Egress bounds what waits for a TCP or TLS client that reads slowly.
type Egress struct {
	Queue Duration `toml:"queue" reload:"live"`
	Bytes Size     `toml:"bytes" reload:"live"`
}

// Upstream is how upstreams are reached. In a loaded Config that of each route
// is complete: what a route does not say comes from [upstream].
type Upstream struct {
	Reach
	HandshakeTimeout Duration `toml:"handshake_timeout" reload:"live"` // WebSocket routes only
}

// Reach is the part of Upstream that every kind of route has.
type Reach struct {
	CA          string               `toml:"ca" reload:"live"`
	Proxy       Secret               `toml:"proxy" reload:"live"`    // URL, [ProxyFromEnv], or empty: none
	NoProxy     []string             `toml:"no_proxy" reload:"live"` // as in NO_PROXY
	Resolve     map[string]FixedAddr `toml:"resolve" reload:"live"`
	DialTimeout Duration             `toml:"dial_timeout" reload:"live"`
	TLSTimeout  Duration             `toml:"tls_timeout" reload:"live"`
}

// ProxyFromEnv as Reach.Proxy means the variables HTTPS_PROXY, HTTP_PROXY,
// ALL_PROXY and NO_PROXY.
const ProxyFromEnv = "env"

// Signaling is a WebSocket route.
type Signaling struct {
	Path     string       `toml:"path" reload:"live"`   // with and without the final slash is the same route
	Listen   []ListenAddr `toml:"listen" reload:"live"` // empty: those of [https]
	Preset   string       `toml:"preset" reload:"live"`
	Upstream []Target     `toml:"upstream" reload:"live"`
	Balance  string       `toml:"balance" reload:"live"` // "order", "client_ip", "query:NAME" or "least_connections"

	HealthCheck    string   `toml:"health_check" reload:"live" one:"off|connect|websocket"`
	HealthInterval Duration `toml:"health_interval" reload:"live"`
	HealthRise     int      `toml:"health_rise" reload:"live"`
	HealthFall     int      `toml:"health_fall" reload:"live"`
	HealthPath     string   `toml:"health_path" reload:"live"` // empty: the upstream's own

	XFF        string                 `toml:"xff" reload:"live" one:"replace|append"`
	Identify   bool                   `toml:"identify" reload:"live"`
	AddHeaders map[string]HeaderValue `toml:"add_headers" reload:"live"`
	Answer     string                 `toml:"answer" reload:"live" one:"standard|qrator"`
	Silent     []string               `toml:"silent" reload:"live" one:"clients|limit|errors"`

	Clients                  []netip.Prefix `toml:"clients" reload:"live"`                     // empty: everybody
	MaxConnectionsPerAddress int            `toml:"max_connections_per_address" reload:"live"` // 0: no limit

	Origins         []string `toml:"origins" reload:"live"`
	SDKAppIDs       []uint64 `toml:"sdk_app_ids" reload:"live"`
	IdleTimeout     Duration `toml:"idle_timeout" reload:"live"` // 0: never
	MaxMessage      Size     `toml:"max_message" reload:"live"`  // 0: no limit
	KeepCookies     bool     `toml:"keep_cookies" reload:"live"` // Cookie and Authorization
	KeepUnderscores bool     `toml:"keep_underscores" reload:"live"`
	Inspection               // its keys stand in the route's own table
	Reach           Upstream // its keys too
}

// Logger is a route for log reports: plain HTTP requests.
type Logger struct {
	Path        string       `toml:"path" reload:"live"`
	Listen      []ListenAddr `toml:"listen" reload:"live"` // empty: those of [https]
	Preset      string       `toml:"preset" reload:"live"`
	Upstream    []*url.URL   `toml:"upstream" reload:"live"` // empty with preset trtc: by sdkappid
	XFF         string       `toml:"xff" reload:"live" one:"replace|append"`
	Origins     []string     `toml:"origins" reload:"live"`
	SDKAppIDs   []uint64     `toml:"sdk_app_ids" reload:"live"`
	MaxBody     Size         `toml:"max_body" reload:"live"`
	Timeout     Duration     `toml:"timeout" reload:"live"`
	KeepCookies bool         `toml:"keep_cookies" reload:"live"`
	Spool       Size         `toml:"spool" reload:"live"`        // 0: none
	SpoolStatus int          `toml:"spool_status" reload:"live"` // 2xx
	SpoolAge    Duration     `toml:"spool_age" reload:"live"`
	Reach       Reach
}

// TRTC is the scheduler route and the one-parameter mode. It counts only
// beside a route with preset trtc, see [Config.UsesTRTC].
type TRTC struct {
	Schedule           string     `toml:"schedule" reload:"live"` // path; empty: no route
	Unified            string     `toml:"unified" reload:"live"`  // path; empty: no route
	SignalDomains      []string   `toml:"signal_domains" reload:"live"`
	SDKAppIDs          []uint64   `toml:"sdk_app_ids" reload:"live"`
	Origins            []string   `toml:"origins" reload:"live"`
	InjectTURN         bool       `toml:"inject_turn" reload:"live"`
	ICETransportPolicy string     `toml:"ice_transport_policy" reload:"live" one:"relay|all|"`
	ScheduleUpstream   []*url.URL `toml:"schedule_upstream" reload:"live"` // empty: by sdkAppId
}

// Check is the page on which users see whether everything works from where they
// are. It does nothing without a link of "turngate check-link".
type Check struct {
	Path string `toml:"path" reload:"live"` // empty: no page
}

// Admin is how the running server is asked.
type Admin struct {
	Socket  string     `toml:"socket" reload:"restart"` // never empty after loading
	Metrics ListenAddr `toml:"metrics" reload:"live"`
	Status  ListenAddr `toml:"status" reload:"live"` // zero: no status page; loopback
}

// Log is the server's own log.
type Log struct {
	Level  slog.Level `toml:"level" reload:"live"`
	Format string     `toml:"format" reload:"restart" one:"auto|text|json"`
	Access string     `toml:"access" reload:"live"` // empty: none; "stdout"; a file
}

// AccessStdout is the value of log.access for standard output.
const AccessStdout = "stdout"

// Drain is what happens to live sessions when the server is asked to stop.
type Drain struct {
	WebSockets Duration `toml:"websockets" reload:"live"` // closes are spread over this time
	TURN       Duration `toml:"turn" reload:"live"`       // allocations are served at most this long
}

// Default is what an empty file means on this machine.
func Default() *Config {
	cfg, _ := LoadBytes("", nil, Machine())
	return cfg
}

// UsesTRTC reports whether a route has the preset trtc, and so whether the
// table TRTC counts.
func (c *Config) UsesTRTC() bool {
	return slices.ContainsFunc(c.Signaling, func(r Signaling) bool { return r.Preset == PresetTRTC }) ||
		slices.ContainsFunc(c.Logger, func(r Logger) bool { return r.Preset == PresetTRTC })
}

// LogRoutes are the routes for plain HTTP requests: those of [[logger]], and one for
// each watchRTC route of [[signaling]] whose path has none, because that SDK sends
// its HTTPS requests to the address of its WebSocket.
func (c *Config) LogRoutes() []Logger {
	routes := slices.Clone(c.Logger)
	for _, s := range c.WatchRTCAlone() {
		var l Logger
		l.reset(s.Preset)
		l.Path, l.Listen, l.Upstream = s.Path, s.Listen, nil
		for _, u := range URLs(s.Upstream) { // what differs in sni alone is one here
			if !slices.ContainsFunc(l.Upstream, func(had *url.URL) bool { return *had == *u }) {
				l.Upstream = append(l.Upstream, u)
			}
		}
		l.XFF, l.Origins, l.KeepCookies, l.Reach = s.XFF, s.Origins, s.KeepCookies, s.Reach.Reach
		routes = append(routes, l)
	}
	return routes
}

// WatchRTCAlone are the watchRTC routes of [[signaling]] whose path has no [[logger]], in
// the order in which LogRoutes has a route for each behind those of the file.
func (c *Config) WatchRTCAlone() []Signaling {
	var alone []Signaling
	for _, s := range c.Signaling {
		taken := slices.ContainsFunc(c.Logger, func(l Logger) bool { return trim(l.Path) == trim(s.Path) && Meet(l.Listen, s.Listen) })
		if IsWatchRTC(s.Preset) && !taken {
			alone = append(alone, s)
		}
	}
	return alone
}

// RouteListeners are the listeners that routes have for themselves, each once.
func (c *Config) RouteListeners() []ListenAddr {
	var all []ListenAddr
	add := func(list []ListenAddr) {
		for _, l := range list {
			if !slices.Contains(all, l) {
				all = append(all, l)
			}
		}
	}
	for _, r := range c.Signaling {
		add(r.Listen)
	}
	for _, r := range c.Logger {
		add(r.Listen)
	}
	return all
}

// Meet reports whether two routes with these listeners answer at the same place.
func Meet(a, b []ListenAddr) bool {
	return len(a) == 0 && len(b) == 0 || slices.ContainsFunc(a, func(l ListenAddr) bool { return slices.Contains(b, l) })
}

// File is the name of the file that was loaded, or "".
func (c *Config) File() string { return c.file }

// base is the configuration before anything was read, derived or inherited.
func base() *Config {
	seconds := func(n int) Duration { return Duration(time.Duration(n) * time.Second) }
	return &Config{
		Layout: External,
		TLS: TLS{
			Mode: TLSAuto,
			ACME: ACME{Challenges: []string{ChallengeTLS}, HTTPListen: Listen(netip.Addr{}, 80)},
		},
		HTTPS: HTTPS{
			Listen:                   []ListenAddr{Listen(netip.Addr{}, 443)},
			MaxConnections:           20000,
			MaxConnectionsPerAddress: 2000,
			HeaderTimeout:            seconds(10),
			HandshakeTimeout:         seconds(10),
			Limits: HTTPSLimits{
				TLSHandshakesPerSecond:     1000,
				RequestsPerSecond:          1000,
				RequestsPerSecondPerUser:   50,
				HandshakesPerSecond:        200,
				HandshakesPerMinutePerUser: 20,
				WebSocketsPerUser:          50,
			},
		},
		TURN: TURN{
			Listen:        []ListenAddr{Listen(netip.Addr{}, 3478)},
			MinPort:       20000,
			MaxPort:       29999,
			Offload:       "auto",
			CredentialTTL: seconds(12 * 3600),
			API:           API{TTL: seconds(3600), Rate: 20},
			Peers:         Peers{RelayToRelay: true},
			Limits: Limits{
				Allocations:              10000,
				AllocationsPerUser:       8000,
				AllocationsPerAddress:    8000,
				PermissionsPerAllocation: 128,
				ChannelsPerAllocation:    256,
				ConnectionsPerAddress:    2000,
				UnauthenticatedAnswers:   50,
				FirstMessage:             seconds(10),
				AuthFailures:             100,
				Ban:                      seconds(600),
			},
			Egress: Egress{Queue: Duration(300 * time.Millisecond), Bytes: 512 << 10},
		},
		Upstream: Upstream{Reach{DialTimeout: seconds(3), TLSTimeout: seconds(5)}, seconds(5)},
		TRTC: TRTC{
			Schedule: "/schedule/",
			Unified:  "/u/",
			SignalDomains: []string{"*.rtc.qq.com", "*.rtc.qcloud.com", "*.rtc.tencentcloud.com",
				"*.cloud-rtc.com", "*.cloud-rtc.net", "*.rtc-web.com", "*.rtc-web.io"},
			InjectTURN:         true,
			ICETransportPolicy: "relay",
		},
		Check: Check{Path: "/check"},
		Log:   Log{Level: slog.LevelInfo, Format: "auto"},
		Drain: Drain{WebSockets: seconds(30), TURN: seconds(600)},
	}
}
