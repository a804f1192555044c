package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/internal/admin"
	"github.com/turngate/turngate/turn"
)

// Session is a live session of either kind. Up is from the client.
type Session struct {
	ID        string      `json:"id"`
	Kind      string      `json:"kind"`      // "turn" or "wss"
	Transport string      `json:"transport"` // "udp", "tcp" or "tls"
	Client    string      `json:"client"`
	Server    string      `json:"server,omitempty"` // what the client talks to
	User      string      `json:"user,omitempty"`
	Route     string      `json:"route,omitempty"`
	To        string      `json:"to"` // the upstream, or the relayed addresses
	Peers     []turn.Peer `json:"peers,omitempty"`
	Opened    time.Time   `json:"opened"`
	Expires   time.Time   `json:"expires,omitzero"` // unless refreshed
	BytesUp   uint64      `json:"bytes_up"`
	BytesDown uint64      `json:"bytes_down"`

	// Of inspected WebSockets only: what hooks call it.
	Connection string `json:"connection,omitempty"`

	// Of TURN sessions only. Rates are bytes a second, the mean of the last
	// seconds.
	RateUp      float64 `json:"rate_up,omitempty"`
	RateDown    float64 `json:"rate_down,omitempty"`
	PacketsUp   uint64  `json:"packets_up,omitempty"`
	PacketsDown uint64  `json:"packets_down,omitempty"`
	Dropped     uint64  `json:"dropped,omitempty"`    // no permission, no channel
	OverLimit   uint64  `json:"over_limit,omitempty"` // dropped for a limit of bandwidth
	InKernel    int     `json:"in_kernel,omitempty"`  // channels that the kernel relays
}

// sessionFilter says which sessions are asked for, and in which order. Fields
// that are empty let everything pass.
type sessionFilter struct {
	user, client, kind, transport, sort string
}

// query and sessionQuery write and read a filter as the admin socket has it.
func (f sessionFilter) query() string {
	q := url.Values{}
	for key, value := range map[string]string{
		"user": f.user, "client": f.client, "kind": f.kind, "transport": f.transport, "sort": f.sort,
	} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

func sessionQuery(q url.Values) (f sessionFilter, err error) {
	for key, values := range q {
		field := map[string]*string{
			"user": &f.user, "client": &f.client, "kind": &f.kind, "transport": &f.transport, "sort": &f.sort,
		}[key]
		if field == nil || len(values) != 1 {
			return f, fmt.Errorf("filter %q: use user, client, kind, transport and sort, once each", key)
		}
		*field = values[0]
	}
	return f, f.check()
}

// What a filter may name.
var (
	sessionKinds      = []string{"turn", "wss"}
	sessionTransports = []string{"udp", "tcp", "tls"}
	sessionSorts      = []string{"age", "bytes", "rate", "user", "client"}
)

// sessionOrders are the ways to sort: what is most is first.
var sessionOrders = map[string]func(x, y Session) int{
	"age":    func(x, y Session) int { return x.Opened.Compare(y.Opened) },
	"bytes":  func(x, y Session) int { return cmp.Compare(y.BytesUp+y.BytesDown, x.BytesUp+x.BytesDown) },
	"rate":   func(x, y Session) int { return cmp.Compare(y.RateUp+y.RateDown, x.RateUp+x.RateDown) },
	"user":   func(x, y Session) int { return cmp.Compare(x.User, y.User) },
	"client": func(x, y Session) int { return compareAddresses(x.Client, y.Client) },
}

func (f sessionFilter) check() error {
	if f.client != "" {
		if _, err := parseSource(f.client); err != nil {
			return err
		}
	}
	for _, v := range []struct {
		what, got string
		want      []string
	}{
		{"kind", f.kind, sessionKinds},
		{"transport", f.transport, sessionTransports},
		{"sort", f.sort, sessionSorts},
	} {
		if v.got != "" && !slices.Contains(v.want, v.got) {
			return fmt.Errorf("%s %q: want %s", v.what, v.got, strings.Join(v.want, ", "))
		}
	}
	return nil
}

// parseSource reads an address or a prefix.
func parseSource(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a prefix", s)
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// clientAddr is the address of a client with or without a port.
func clientAddr(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr()
	}
	a, _ := netip.ParseAddr(s)
	return a
}

func compareAddresses(x, y string) int {
	a, aErr := netip.ParseAddrPort(x)
	b, bErr := netip.ParseAddrPort(y)
	if aErr == nil && bErr == nil {
		return a.Compare(b)
	}
	return cmp.Or(clientAddr(x).Compare(clientAddr(y)), cmp.Compare(x, y))
}

func (f sessionFilter) matches(s Session) bool {
	if f.client != "" {
		if p, err := parseSource(f.client); err != nil || !p.Contains(clientAddr(s.Client)) {
			return false
		}
	}
	return (f.user == "" || f.user == s.User) && (f.kind == "" || f.kind == s.Kind) &&
		(f.transport == "" || f.transport == s.Transport)
}

// handleSessions is the sessions page of the admin socket.
func (a *app) handleSessions(r *http.Request) (any, error) {
	f, err := sessionQuery(r.URL.Query())
	if err != nil {
		return nil, &admin.Error{Status: http.StatusBadRequest, Message: err.Error()}
	}
	all := slices.DeleteFunc(a.sessions(), func(s Session) bool { return !f.matches(s) })
	if f.sort != "" {
		slices.SortStableFunc(all, sessionOrders[f.sort])
	}
	return all, nil
}

// sessions lists everything that is live, the oldest first.
func (a *app) sessions() []Session {
	all := []Session{}
	for _, s := range a.turn.Sessions() {
		all = append(all, Session{
			ID: s.ID, Kind: "turn", Transport: string(s.Transport), Client: s.Client.String(), Server: s.Server.String(),
			User: s.User, To: joined(s.Relays), Peers: s.Peers, Opened: s.Created, Expires: s.Expires,
			BytesUp: s.BytesUp, BytesDown: s.BytesDown, RateUp: s.RateUp, RateDown: s.RateDown,
			PacketsUp: s.PacketsUp, PacketsDown: s.PacketsDown, Dropped: s.Dropped, OverLimit: s.OverBudget, InKernel: s.InKernel,
		})
	}
	for _, s := range a.signaling.Sessions() {
		all = append(all, Session{
			ID: wssID(s.ID), Kind: "wss", Transport: "tls", Client: s.Client.String(), Route: s.Route,
			To: s.Upstream, Opened: s.Opened, BytesUp: s.ToUpstream, BytesDown: s.ToClient,
		})
	}
	for _, s := range a.inspect.Sessions() {
		all = append(all, Session{
			ID: inspectedID(s.ID), Kind: "wss", Transport: "tls", Client: s.Client.String(), Route: s.Route, Connection: s.Connection,
			To: s.Upstream, Opened: s.Opened, BytesUp: s.ToUpstream, BytesDown: s.ToClient,
		})
	}
	slices.SortFunc(all, func(x, y Session) int { return x.Opened.Compare(y.Opened) })
	return all
}

func joined(addrs []netip.AddrPort) string {
	var all []string
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, " ")
}

// wssID and inspectedID keep the ids of the kinds apart.
func wssID(id uint64) string       { return "w" + strconv.FormatUint(id, 10) }
func inspectedID(id uint64) string { return "i" + strconv.FormatUint(id, 10) }

func newSessionsCommand(io streams) *cobra.Command {
	var f sessionFilter
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List the live WebSockets and TURN allocations",
		Args:  usageArgs(cobra.NoArgs),
	}
	r := newRemote(io, cmd)
	cmd.Flags().StringVar(&f.user, "user", "", "of this TURN user only")
	cmd.Flags().StringVar(&f.client, "client", "", "of this client address or prefix only")
	cmd.Flags().StringVar(&f.kind, "kind", "", "turn or wss only")
	cmd.Flags().StringVar(&f.transport, "transport", "", "udp, tcp or tls only")
	cmd.Flags().StringVar(&f.sort, "sort", "", "age, bytes, rate, user or client; oldest first without")
	choices(cmd, "kind", sessionKinds...)
	choices(cmd, "transport", sessionTransports...)
	choices(cmd, "sort", sessionSorts...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.check(); err != nil {
			return usageError{err}
		}
		var all []Session
		return r.ask(cmd, "GET", admin.PathSessions+f.query(), nil, &all, func() { showSessions(io, all) })
	}
	return cmd
}

func showSessions(io streams, all []Session) {
	w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tKIND\tCLIENT\tUSER / ROUTE\tTO\tPEERS\tAGE\tEXPIRES\tUP\tDOWN\tUP/S\tDOWN/S")
	for _, s := range all {
		expires, peers, up, down := "-", "-", "-", "-"
		if s.Kind == "turn" {
			expires = "in " + time.Until(s.Expires).Round(time.Second).String()
			peers = showPeers(s.Peers)
			up, down = amount(s.RateUp), amount(s.RateDown)
		}
		fmt.Fprintf(w, "%s\t%s/%s\t%s\t%q\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, s.Kind, s.Transport, s.Client,
			s.User+s.Route, s.To, peers, time.Since(s.Opened).Round(time.Second), expires,
			amount(float64(s.BytesUp)), amount(float64(s.BytesDown)), up, down)
	}
	w.Flush()
}

// showPeers names one peer and counts the others; --json has all of them.
func showPeers(peers []turn.Peer) string {
	if len(peers) == 0 {
		return "none"
	}
	first := peers[0].Address.String()
	if peers[0].Address.Port() == 0 {
		first = peers[0].Address.Addr().String()
	}
	if len(peers) == 1 {
		return first
	}
	return fmt.Sprintf("%s +%d", first, len(peers)-1)
}

// amount writes an amount as a reader compares it.
func amount(n float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if n < 1000 {
			if unit == "B" || n >= 100 {
				return fmt.Sprintf("%.0f %s", n, unit)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.1f TB", n)
}
