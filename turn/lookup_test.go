package turn_test

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
)

// withBook makes the server look users up who are not in its options: alice
// with the password alice, and secret south.
func withBook(b *turn.Book, timeout time.Duration) func(*turn.Options) {
	b.Change(func() {
		b.Users["alice"] = tc.KeyMD5("alice", "example.org", "alice")
		b.Secret = "south"
	})
	return func(o *turn.Options) {
		o.Realm = "example.org"
		o.Databases = []turn.Database{{Name: "book", Source: b, Timeout: timeout}}
	}
}

// as returns a client of a user. Over UDP it repeats requests often.
func (s site) as(t testing.TB, user, password string) *tc.Client {
	t.Helper()
	c, err := tc.Dial(within(t), s.network, s.addr.String(), tc.Auth{User: user, Password: password, SHA256: true},
		tc.TLS(&tls.Config{InsecureSkipVerify: true}), tc.Retransmit(20*time.Millisecond))
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// result is what an Allocate in the background came to.
func (s site) allocateLater(t testing.TB, c *tc.Client) <-chan error {
	t.Helper()
	ctx, done := within(t), make(chan error, 1)
	go func() {
		_, err := c.Allocate(ctx)
		done <- err
	}()
	return done
}

// askedFor returns a channel that is closed when the database is asked.
func askedFor(b *turn.Book, user string) <-chan struct{} {
	c := make(chan struct{})
	b.Change(func() { b.Waiting[user] = c })
	return c
}

// value is the sum of a metric over the labels that are not given.
func value(t testing.TB, s *turn.Server, name string, labels ...string) (sum float64) {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(s.Collectors()...)
	all, err := reg.Gather()
	must(t, err)
	for _, f := range all {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if hasLabels(m, labels) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func hasLabels(m *dto.Metric, labels []string) bool {
	for _, want := range labels {
		found := false
		for _, l := range m.GetLabel() {
			found = found || l.GetName()+"="+l.GetValue() == want
		}
		if !found {
			return false
		}
	}
	return true
}

func TestUsersOfADatabase(t *testing.T) {
	b := turn.NewBook()
	s, addr := start(t, withBook(b, time.Minute))
	cert, _ := testCertificate(t)
	secure := serveStreams(t, s, freeForBoth(t), &tls.Config{Certificates: []tls.Certificate{cert}})
	fresh, expired := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	southUser, southPassword := turn.Credential("south", "bob", fresh)
	northUser, northPassword := turn.Credential("north", "bob", fresh)
	wrongUser, wrongPassword := turn.Credential("west", "bob", fresh)
	lateUser, latePassword := turn.Credential("south", "bob", expired)
	for _, way := range []site{{s, "udp", addr, false}, {s, "tcp", addr, false}, {s, "tls", secure, false}} {
		for _, tt := range []struct {
			name, user, password string
			code                 int
		}{
			{"a user of the database", "alice", "alice", 0},
			{"a user of the options beside it", "turn", "turn", 0},
			{"a secret of the database", southUser, southPassword, 0},
			{"a secret of the options beside it", northUser, northPassword, 0},
			{"a wrong password", "alice", "wrong", 401},
			{"an unknown user", "mallory", "alice", 401},
			{"a user of the options with a wrong password", "turn", "wrong", 401},
			{"a secret that nobody has", wrongUser, wrongPassword, 401},
			{"a credential that has expired", lateUser, latePassword, 401},
			{"a name that is not text", "\xff\x00", "x", 401},
		} {
			t.Run(way.network+" "+tt.name, func(t *testing.T) {
				c := way.as(t, tt.user, tt.password)
				_, err := c.Allocate(within(t))
				if tc.Code(err) != tt.code {
					t.Fatalf("Allocate: %v, want %d", err, tt.code)
				}
				if tt.code != 0 {
					return
				}
				echo := tc.NewEcho(t, "127.0.0.1")
				must(t, c.ChannelBind(within(t), 0x4000, echo.Addr()))
				must(t, c.SendChannel(within(t), 0x4000, []byte("hello")))
				nextData(t, c, "hello", 0x4000, netip.AddrPort{})
				must(t, errOnly(c.Refresh(within(t), 0)))
			})
		}
	}
	if n := b.Count("alice"); n != 1 {
		t.Errorf("the database was asked for alice %d times, want once", n)
	}
}

// A request that waits for a database holds up nobody, is served once however
// often it is repeated, and gets its allocation when the answer is there.
func TestASlowDatabaseHoldsUpNobody(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			b := turn.NewBook()
			s, addr := start(t, withBook(b, time.Minute))
			way := site{s, network, addr, false}
			gate := make(chan struct{})
			b.Change(func() { b.Gate = gate })
			var clients []*tc.Client
			var waiting []<-chan error
			asked := askedFor(b, "alice")
			for range 20 {
				c := way.as(t, "alice", "alice")
				clients = append(clients, c)
				waiting = append(waiting, way.allocateLater(t, c))
			}
			<-asked
			// All others are served meanwhile, and over UDP the requests of
			// those who wait have been repeated.
			serves(t, s, addr)
			for network == "udp" && value(t, s, "turngate_turn_dropped_total", "reason=retransmission") < 20 {
				_, err := site{s, "udp", addr, false}.dial(t).Binding(within(t))
				must(t, err)
			}
			close(gate)
			for i, done := range waiting {
				if err := <-done; err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			}
			if n := b.Count("alice"); n != 1 {
				t.Errorf("20 clients of one user asked %d times, want once", n)
			}
			own := 0
			for _, ses := range s.Sessions() {
				if ses.User == "alice" {
					own++
				}
			}
			if own != 20 {
				t.Errorf("20 clients have %d allocations", own)
			}
			for _, c := range clients {
				must(t, errOnly(c.Refresh(within(t), 0)))
			}
		})
	}
}

func TestADatabaseThatFailsClosesTheDoor(t *testing.T) {
	const secret = "hunter2"
	for _, tt := range []struct {
		name  string
		fails func(*turn.Book)
	}{
		{"never answers", func(b *turn.Book) { b.Slow = true }},
		{"is down", func(b *turn.Book) { b.Err = errors.New("connection refused") }},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(tt.name+" "+network, func(t *testing.T) {
				b := turn.NewBook()
				var log lockedBuffer
				s, addr := start(t, func(o *turn.Options) {
					withBook(b, 100*time.Millisecond)(o)
					o.Log = slog.New(slog.NewTextHandler(&log, nil))
					o.Limits.AuthFailures, o.Limits.Ban = 1, time.Hour
				})
				way := site{s, network, addr, false}
				live := way.as(t, "alice", "alice")
				if _, err := live.Allocate(within(t)); err != nil {
					t.Fatal(err)
				}
				before := b.Count("alice")
				b.Change(func() { tt.fails(b) })
				for range 3 {
					if _, err := way.as(t, "bob", secret).Allocate(within(t)); tc.Code(err) != 401 {
						t.Errorf("a user who cannot be looked up: %v, want 401", err)
					}
				}
				// What lives goes on, and who is remembered comes in.
				must(t, errOnly(live.Refresh(within(t), 600)))
				must(t, live.CreatePermission(within(t), tc.NewEcho(t, "127.0.0.1").Addr()))
				if _, err := way.as(t, "alice", "alice").Allocate(within(t)); err != nil {
					t.Errorf("a user who is remembered: %v", err)
				}
				if n := b.Count("alice"); n != before {
					t.Errorf("the database was asked for a user with an allocation %d times more", n-before)
				}
				if got := value(t, s, "turngate_turn_auth_failures_total"); got != 0 || len(s.Bans()) != 0 {
					t.Errorf("%v failures and %d bans for what the database failed at, want none", got, len(s.Bans()))
				}
				text := log.String()
				if n := strings.Count(text, "user database does not answer"); n != 1 || strings.Contains(text, secret) {
					t.Errorf("%d log lines about the database, want one without passwords:\n%s", n, text)
				}
				b.Change(func() { b.Slow, b.Err = false, nil; b.Users["bob"] = tc.KeyMD5("bob", "example.org", secret) })
				// A repeated request may have begun a question that is not over.
				for ctx := within(t); ; {
					_, err := way.as(t, "bob", secret).Allocate(ctx)
					if err == nil {
						break
					}
					if tc.Code(err) != 401 {
						t.Fatalf("when it answers again: %v", err)
					}
				}
				if text := log.String(); !strings.Contains(text, "user database answers again") {
					t.Errorf("the log does not say that the database is back:\n%s", text)
				}
			})
		}
	}
}

// Answers, and the password of a user, change with a reload; calls do not.
func TestReconfigureSwapsDatabases(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			first, second := turn.NewBook(), turn.NewBook()
			var o turn.Options
			s, addr := start(t, func(now *turn.Options) {
				withBook(first, time.Minute)(now)
				o = *now
			})
			way := site{s, network, addr, false}
			live := way.as(t, "alice", "alice")
			if _, err := live.Allocate(within(t)); err != nil {
				t.Fatal(err)
			}

			// The same database keeps what it knows.
			o.Secrets = nil
			must(t, s.Reconfigure(o))
			if _, err := way.as(t, "alice", "alice").Allocate(within(t)); err != nil || first.Count("alice") != 1 {
				t.Errorf("after a reload: %v, asked %d times; want success without another question", err, first.Count("alice"))
			}

			// Another one answers for those who wait, too.
			first.Change(func() { first.Slow = true })
			second.Change(func() { second.Users["bob"] = tc.KeyMD5("bob", "example.org", "bob") })
			asked := askedFor(first, "bob")
			waiting := way.allocateLater(t, way.as(t, "bob", "bob"))
			<-asked
			o.Databases = []turn.Database{{Name: "second", Source: second}}
			must(t, s.Reconfigure(o))
			if err := <-waiting; err != nil {
				t.Errorf("who waited for the database that was taken away: %v", err)
			}
			if _, err := way.as(t, "alice", "alice").Allocate(within(t)); tc.Code(err) != 401 {
				t.Errorf("a user of the former database: %v, want 401", err)
			}
			must(t, errOnly(live.Refresh(within(t), 600)))
			must(t, s.Close())
			second.Change(func() {
				if !second.Closed {
					t.Error("Close left a database open")
				}
			})
			first.Change(func() {
				if !first.Closed {
					t.Error("the database that was taken away was left open")
				}
			})
		})
	}
}

func TestAServerWithRequestsThatWaitCloses(t *testing.T) {
	b := turn.NewBook()
	s, addr := start(t, withBook(b, time.Minute))
	b.Change(func() { b.Slow = true })
	for _, network := range []string{"udp", "tcp"} {
		way := site{s, network, addr, false}
		asked := askedFor(b, network)
		done := way.allocateLater(t, way.as(t, network, "x"))
		defer func() { _ = done }()
		<-asked
	}
	must(t, s.Close())
	if n := s.Allocations(); n != 0 {
		t.Errorf("%d allocations are left", n)
	}
}

func TestBadDatabasesAreRefused(t *testing.T) {
	var o turn.Options
	s, addr := start(t, func(now *turn.Options) { o = *now })
	for name, dbs := range map[string][]turn.Database{
		"no source":         {{Name: "a"}},
		"two for one realm": {{Name: "a", Source: turn.NewBook()}, {Name: "b", Realm: o.Realm, Source: turn.NewBook()}},
	} {
		bad := o
		bad.Databases = dbs
		if err := s.Reconfigure(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	serves(t, s, addr)
}
