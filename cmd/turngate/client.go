package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/turn"
)

// site is what a client must know to reach us.
type site struct {
	cfg   *config.Config
	host  string // name or address, IPv6 in brackets
	https uint16
	turn  uint16 // 0: no listener of its own
}

// newSite finds out what clients call us: host if it is given, the domain, or
// the first address that TURN hands out.
func newSite(cfg *config.Config, host string) (site, error) {
	host = cmp.Or(host, cfg.Domain)
	if host == "" {
		if addresses := relayAddresses(cfg.ExternalIP); len(addresses) > 0 {
			host = addresses[0].External.String()
		}
	}
	if host == "" || strings.ContainsAny(host, "/?#@ '\\") {
		return site{}, usageError{fmt.Errorf("%q is not a host; say --host NAME", host)}
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() {
		host = "[" + host + "]"
	}
	return site{cfg, host, firstPort(cfg.HTTPS.Listen), firstPort(cfg.TURN.Listen)}, nil
}

func firstPort(list []config.ListenAddr) uint16 {
	i := slices.IndexFunc(list, func(l config.ListenAddr) bool { return l.Port != 0 })
	if i < 0 {
		return 0
	}
	return list[i].Port
}

// at is the site as it is reached by the listeners of a route; without any it is the whole.
func (s site) at(own []config.ListenAddr) site {
	if len(own) > 0 {
		s.https = firstPort(own)
	}
	return s
}

// web is the authority of https and wss URLs: without the port if it is 443.
func (s site) web() string {
	if s.https == 443 || s.https == 0 {
		return s.host
	}
	return s.hostPort(s.https)
}

func (s site) hostPort(port uint16) string {
	return net.JoinHostPort(strings.Trim(s.host, "[]"), strconv.Itoa(int(port)))
}

// relays are the TURN URLs: UDP and TCP on the TURN port, TLS on the HTTPS port.
func (s site) relays() []string {
	var list []string
	if s.turn != 0 {
		list = append(list, "turn:"+s.hostPort(s.turn)+"?transport=udp", "turn:"+s.hostPort(s.turn)+"?transport=tcp")
	}
	if s.https != 0 {
		list = append(list, "turns:"+s.hostPort(s.https)+"?transport=tcp")
	}
	return list
}

// credential is a TURN login; expires is zero for a lasting one.
type credential struct {
	username, password string
	expires            time.Time
}

// timeLimited makes a credential that any server with the same secret accepts
// until now+ttl: the TURN REST API form "expiry:user" with its HMAC-SHA1.
func timeLimited(cfg *config.Config, user string, ttl time.Duration, now time.Time) (credential, error) {
	switch {
	case len(cfg.TURN.Secrets) == 0:
		return credential{}, errors.New("time-limited credentials need turn.secrets in the configuration, and it is empty")
	case ttl < time.Second:
		return credential{}, fmt.Errorf("a lifetime of %s is too short", ttl)
	case user == "" || len(user) > 400 || strings.ContainsFunc(user, unicode.IsControl):
		return credential{}, fmt.Errorf("%q cannot be a user name", user)
	}
	expires := now.Add(ttl).Truncate(time.Second)
	name, password := turn.Credential(cfg.TURN.Secrets[0].Reveal(), user, expires)
	return credential{name, password, expires.UTC()}, nil
}

// chooseCredential takes the named user, or the first one; without a user of
// that name, or with a lifetime, it makes a time-limited credential.
func chooseCredential(cfg *config.Config, user string, ttl time.Duration, now time.Time) (credential, error) {
	i := slices.IndexFunc(cfg.TURN.User, func(u config.User) bool { return user == "" || u.Name == user })
	switch {
	case i >= 0 && ttl == 0:
		u := cfg.TURN.User[i]
		return credential{username: u.Name, password: u.All()[0].Reveal()}, nil
	case len(cfg.TURN.Secrets) == 0 && ttl == 0 && user != "":
		return credential{}, fmt.Errorf("the configuration has no user %q, and no turn.secrets for a time-limited credential", user)
	case len(cfg.TURN.Secrets) == 0 && ttl == 0:
		return credential{}, errors.New("the configuration has neither [[turn.user]] nor turn.secrets")
	}
	return timeLimited(cfg, cmp.Or(user, "client"), cmp.Or(ttl, time.Duration(cfg.TURN.CredentialTTL)), now)
}

// clientOptions are the flags of the client commands.
type clientOptions struct {
	host, user  string
	ttl         time.Duration
	v4, unified bool
}

func newClientCommand(s streams) *cobra.Command { return clientCommand(s, time.Now) }

// clientCommand takes the clock, so that tests know the expiry.
func clientCommand(s streams, now func() time.Time) *cobra.Command {
	var opt clientOptions
	cmd := &cobra.Command{
		Use:   "client",
		Short: "Print the JavaScript that makes a web client use this server",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	add := func(use, short string, print func(site, clientOptions, time.Time) (string, error)) *cobra.Command {
		sub := &cobra.Command{
			Use:   use,
			Short: short,
			Args:  usageArgs(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := loadConfig(s, cmd, nil)
				if err != nil {
					return err
				}
				st, err := newSite(cfg, opt.host)
				if err != nil {
					return err
				}
				text, err := print(st, opt, now())
				if err != nil {
					return err
				}
				switch mode, _ := certMode(cfg); mode {
				case config.TLSSelfSigned:
					fmt.Fprintln(s.err, "turngate: the certificate is self-signed: wss, https and turns work only where browsers trust it")
				case config.TLSCA:
					fmt.Fprintln(s.err, "turngate: the certificate is of this host's own CA: wss, https and turns work only where browsers trust that (turngate cert ca)")
				}
				_, err = io.WriteString(s.out, text)
				return err
			},
		}
		configFlag(sub)
		sub.Flags().StringVar(&opt.host, "host", "", "name or address that clients use (default: the domain, else the external address)")
		cmd.AddCommand(sub)
		return sub
	}
	login := func(sub *cobra.Command) {
		sub.Flags().StringVar(&opt.user, "user", "", "TURN user (default: the first one)")
		sub.Flags().DurationVar(&opt.ttl, "ttl", 0, "make a time-limited credential, valid this long")
	}
	trtc := add("trtc", "For the TRTC Web SDK", trtcSnippet)
	login(trtc)
	trtc.Flags().BoolVar(&opt.v4, "v4", false, "for trtc-js-sdk (version 4)")
	trtc.Flags().BoolVar(&opt.unified, "unified", false, "the form with one parameter")
	add("watchrtc", "For the watchRTC SDK", watchRTCSnippet)
	login(add("plain", "For RTCPeerConnection itself", plainSnippet))
	return cmd
}

func trtcSnippet(s site, opt clientOptions, now time.Time) (string, error) {
	if !s.cfg.UsesTRTC() {
		return "", errors.New(`no route has preset "trtc"; add [[signaling]] and [[logger]] with it`)
	}
	if opt.unified {
		return trtcUnified(s, opt, now)
	}
	cred, err := chooseCredential(s.cfg, opt.user, opt.ttl, now)
	if err != nil {
		return "", err
	}
	urls, err := trtcURLs(s)
	if err != nil {
		return "", err
	}
	return warning(cred) + trtcForm(s, urls, &cred, opt.v4), nil
}

// trtcForm puts parameters into the words of an SDK version, with TURN servers
// if there is a credential for them. The policy counts only beside these; in
// version 4 it belongs to the client.
func trtcForm(s site, params string, cred *credential, v4 bool) string {
	policy := s.cfg.TRTC.ICETransportPolicy
	if v4 {
		text := "client.setProxyServer({\n" + params + "});\n"
		if cred != nil {
			text += "client.setTurnServer([\n" + trtcServers(s, *cred, true, "  ") + "]);\n"
			if policy != "" {
				text = "// const client = TRTC.createClient({ ...yourParameters, iceTransportPolicy: " + js(policy) + " });\n" + text
			}
		}
		return text
	}
	if cred != nil {
		params += "  turnServer: [\n" + trtcServers(s, *cred, false, "    ") + "  ],\n"
		if policy != "" {
			params += "  iceTransportPolicy: " + js(policy) + ",\n"
		}
	}
	return "const proxy = {\n" + params + "};\n// await trtc.enterRoom({ ...yourParameters, proxy });\n"
}

// trtcURLs are the lines for signaling, logs and scheduler. The SDK puts its
// own path behind loggerProxy and scheduleProxy, so they end without a slash;
// scheduleProxy must have no scheme.
func trtcURLs(s site) (string, error) {
	i := slices.IndexFunc(s.cfg.Signaling, func(r config.Signaling) bool { return r.Preset == config.PresetTRTC })
	if i < 0 {
		return "", errors.New(`no [[signaling]] route has preset "trtc"; add one, or use --unified`)
	}
	text := fmt.Sprintf("  websocketProxy: %s,\n", js("wss://"+s.at(s.cfg.Signaling[i].Listen).web()+s.cfg.Signaling[i].Path))
	if i := slices.IndexFunc(s.cfg.Logger, func(r config.Logger) bool { return r.Preset == config.PresetTRTC }); i >= 0 {
		text += fmt.Sprintf("  loggerProxy: %s,\n", js("https://"+s.at(s.cfg.Logger[i].Listen).web()+trimSlash(s.cfg.Logger[i].Path)))
	}
	if p := s.cfg.TRTC.Schedule; p != "" {
		text += fmt.Sprintf("  scheduleProxy: %s,\n", js(s.web()+trimSlash(p)))
	}
	return text, nil
}

// trtcServers are the entries of turnServer. The SDK puts "turn:" before a URL
// that has no scheme; version 4 does so always and cannot say "turns:", so it
// gets plain TCP on the HTTPS port.
func trtcServers(s site, cred credential, v4 bool, indent string) string {
	var b strings.Builder
	for _, u := range s.relays() {
		if v4 {
			u = strings.TrimPrefix(u, "turns:")
		}
		u = strings.TrimSuffix(strings.TrimPrefix(u, "turn:"), "?transport=udp")
		fmt.Fprintf(&b, "%s{ url: %s, username: %s, credential: %s },\n", indent, js(u), js(cred.username), js(cred.password))
	}
	return b.String()
}

// trtcUnified is the form with one parameter: the scheduler's answer brings
// the TURN servers, unless the configuration says otherwise.
func trtcUnified(s site, opt clientOptions, now time.Time) (string, error) {
	if s.cfg.TRTC.Unified == "" {
		return "", errors.New("trtc.unified is empty in the configuration")
	}
	params := fmt.Sprintf("  unifiedProxy: %s,\n", js(s.web()+trimSlash(s.cfg.TRTC.Unified)))
	if s.cfg.TRTC.InjectTURN {
		return trtcForm(s, params, nil, opt.v4), nil
	}
	cred, err := chooseCredential(s.cfg, opt.user, opt.ttl, now)
	if err != nil {
		return "", err
	}
	return warning(cred) + trtcForm(s, params, &cred, opt.v4), nil
}

// watchRTCEnvironments are the presets with what the SDK puts before the key, and
// what a reader should know.
var watchRTCEnvironments = []struct{ preset, key, about string }{
	{config.PresetWatchRTC, "", "production"},
	{config.PresetWatchRTCStaging, "staging:", "staging"},
	{config.PresetWatchRTCLegacy, "", "production of SDKs before 1.39.1"},
	{config.PresetWatchRTCStagingLegacy, "staging:", "staging of SDKs before 1.39.1"},
}

// watchRTCSnippet names the route of each environment. The SDK spells the
// parameter proxyUrl and puts nothing between it and its query.
func watchRTCSnippet(s site, _ clientOptions, _ time.Time) (string, error) {
	var b strings.Builder
	for _, e := range watchRTCEnvironments {
		for _, r := range s.cfg.Signaling {
			if r.Preset == e.preset {
				fmt.Fprintf(&b, "// %s: %s\nwatchRTC.init({\n  rtcApiKey: %s,\n  rtcRoomId: 'YOUR_ROOM',\n  rtcPeerId: 'YOUR_PEER',\n  proxyUrl: %s,\n});\n",
					e.preset, e.about, js(e.key+"YOUR_API_KEY"), js("wss://"+s.at(r.Listen).web()+trimSlash(r.Path)))
			}
		}
	}
	if b.Len() == 0 {
		return "", errors.New(`no route has preset "watchrtc"; add [[signaling]] with it`)
	}
	return b.String(), nil
}

func plainSnippet(s site, opt clientOptions, now time.Time) (string, error) {
	cred, err := chooseCredential(s.cfg, opt.user, opt.ttl, now)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(warning(cred) + "const iceServers = [{\n  urls: [\n")
	for _, u := range s.relays() {
		fmt.Fprintf(&b, "    %s,\n", js(u))
	}
	fmt.Fprintf(&b, "  ],\n  username: %s,\n  credential: %s,\n}];\n", js(cred.username), js(cred.password))
	b.WriteString("// const pc = new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' });\n")
	return b.String(), nil
}

// warning stands above every password that is printed.
func warning(cred credential) string {
	if !cred.expires.IsZero() {
		return "// The credential is real. It is valid until " + cred.expires.Format(time.RFC3339) + ".\n"
	}
	return "// The password is real and does not expire: whoever reads the page can use the relay.\n"
}

func trimSlash(path string) string { return strings.TrimRight(path, "/") }

// js is s as a JavaScript string that can stand in a script element too.
func js(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		switch {
		case r == '\'' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case unicode.IsControl(r) || r == '<' || r == '\u2028' || r == '\u2029':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

func newCredentialCommand(s streams) *cobra.Command { return credentialCommand(s, time.Now) }

func credentialCommand(s streams, now func() time.Time) *cobra.Command {
	var host string
	var ttl time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "credential USER",
		Short: "Make a time-limited TURN credential",
		Long: `Makes a time-limited TURN credential for a user, signed with the first of
turn.secrets. The server need not know the user. With --json it prints what a
TURN REST API answers.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(s, cmd, nil)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("ttl") {
				ttl = time.Duration(cfg.TURN.CredentialTTL)
			}
			at := now()
			cred, err := timeLimited(cfg, args[0], ttl, at)
			if err != nil {
				return err
			}
			if !asJSON {
				_, err := fmt.Fprintf(s.out, "username    %s\ncredential  %s\nexpires     %s\n", cred.username, cred.password, cred.expires.Format(time.RFC3339))
				return err
			}
			answer := struct {
				Username string   `json:"username"`
				Password string   `json:"password"`
				TTL      int64    `json:"ttl"`
				URIs     []string `json:"uris,omitempty"`
			}{cred.username, cred.password, int64(ttl / time.Second), nil}
			if st, err := newSite(cfg, host); err == nil {
				answer.URIs = st.relays()
			}
			enc := json.NewEncoder(s.out)
			enc.SetEscapeHTML(false)
			return enc.Encode(answer)
		},
	}
	configFlag(cmd)
	cmd.Flags().StringVar(&host, "host", "", "name or address for the URIs of --json (default: the domain, else the external address)")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long it is valid (default: turn.credential_ttl)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, as a TURN REST API answers")
	return cmd
}
