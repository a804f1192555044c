//go:build unix

package main

import (
	"crypto/md5"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/turngate/turngate/internal/testnet/dbserver"
	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

// coturnFile makes an SQLite database as coturn's, with the user gorst (password
// hero) and the secret logen of the realm test.
func coturnFile(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	_, err = db.Exec(fmt.Sprintf(`
		CREATE TABLE turnusers_lt (realm varchar(127) default '', name varchar(512), hmackey char(128), PRIMARY KEY (realm,name));
		CREATE TABLE turn_secret (realm varchar(127) default '', value varchar(256), primary key (realm,value));
		INSERT INTO turnusers_lt VALUES ('test', 'gorst', '%x');
		INSERT INTO turn_secret VALUES ('test', 'logen');`, md5.Sum([]byte("gorst:test:hero"))))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// allocates makes an allocation as a user, and keeps it till the end of the test.
func (g *gate) allocates(t *testing.T, user, password string) (*tc.Client, error) {
	t.Helper()
	ctx := deadline(t)
	c, err := tc.Dial(ctx, "udp", g.turnUDP.String(), tc.Auth{User: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_, err = c.Allocate(ctx)
	return c, err
}

func (g *gate) reloadWith(t *testing.T, extra string) {
	t.Helper()
	g.writeConfig(t, "", "", extra)
	if _, err := g.reload(); err != nil {
		t.Fatal(err)
	}
}

// The life of a site with coturn's database: it is switched on by a reload,
// its users come and go, it breaks, and calls go on.
func TestUsersOfCoturnsDatabase(t *testing.T) {
	g := startGate(t, "")
	file := filepath.Join(g.dir, "turndb")
	db := coturnFile(t, file)
	if _, err := g.allocates(t, "gorst", "hero"); tc.Code(err) != 401 {
		t.Errorf("without a database: got %v, want 401", err)
	}
	with := "\n[[turn.database]]\ndriver = \"sqlite\"\ndsn = \"turndb\"\ncache = \"1ms\"\n"
	g.reloadWith(t, with)
	live, err := g.allocates(t, "gorst", "hero")
	if err != nil {
		t.Fatalf("a user of the database: %v", err)
	}
	for user, password := range map[string]string{"gorst": "wrong", "nobody": "hero"} {
		if _, err := g.allocates(t, user, password); tc.Code(err) != 401 {
			t.Errorf("%s with %s: got %v, want 401", user, password, err)
		}
	}
	source := g.plan.Load().databases[0].source
	g.reloadWith(t, with)
	if g.plan.Load().databases[0].source != source {
		t.Error("a reload opened the database again")
	}

	// A user who is removed makes no allocation any more, and keeps the live one.
	if _, err := db.Exec("DELETE FROM turnusers_lt"); err != nil {
		t.Fatal(err)
	}
	for err = nil; tc.Code(err) != 401; {
		if _, err = g.allocates(t, "gorst", "hero"); err != nil && tc.Code(err) != 401 {
			t.Fatal(err)
		}
	}
	if _, err := live.Refresh(deadline(t), 600); err != nil {
		t.Errorf("the live allocation of a user who was removed: %v", err)
	}

	// A database that breaks is told of, without its dsn.
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	g.reloadWith(t, with+"timeout = \"1s\"\n") // opened anew
	if _, err := g.allocates(t, "gorst", "hero"); tc.Code(err) != 401 {
		t.Errorf("a database that is away: got %v, want 401", err)
	}
	if g.logs.line("user database does not answer", "no such file") == "" {
		t.Error("the log does not say that the database is away")
	}
	if _, err := g.allocates(t, g.user, g.password); err != nil {
		t.Errorf("a user of the file while the database is away: %v", err)
	}
	if _, err := live.Refresh(deadline(t), 600); err != nil {
		t.Errorf("a live allocation while the database is away: %v", err)
	}
}

// A database server that crashes in the middle of everything: calls go on, who
// is new is refused, and is let in when it is back.
func TestADatabaseServerThatCrashes(t *testing.T) {
	hmackey := fmt.Sprintf("%x", md5.Sum([]byte("gorst:test:hero")))
	for driver, open := range map[string]func(*testing.T) (*dbserver.Server, string){
		"redis": func(t *testing.T) (*dbserver.Server, string) {
			s := dbserver.Redis(t)
			c := redis.NewClient(&redis.Options{Addr: s.Addr(), Password: "turn"})
			defer c.Close()
			if err := c.Set(deadline(t), "turn/realm/test/user/gorst/key", hmackey, 0).Err(); err != nil {
				t.Fatal(err)
			}
			return s, fmt.Sprintf("redis://:turn@%s", s.Addr())
		},
		"postgres": func(t *testing.T) (*dbserver.Server, string) {
			s := dbserver.Postgres(t)
			dsn := fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=turn password=turn", s.Port)
			ctx := deadline(t)
			c, err := pgx.Connect(ctx, dsn)
			for err != nil && strings.Contains(err.Error(), "57P03") { // starting up
				c, err = pgx.Connect(ctx, dsn)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(ctx)
			if _, err := c.Exec(ctx, `CREATE TABLE turnusers_lt (realm varchar(127), name varchar(512), hmackey char(128));
				CREATE TABLE turn_secret (realm varchar(127), value varchar(256));
				INSERT INTO turnusers_lt VALUES ('test', 'gorst', '`+hmackey+`')`); err != nil {
				t.Fatal(err)
			}
			return s, dsn
		},
	} {
		t.Run(driver, func(t *testing.T) {
			server, dsn := open(t)
			g := startGate(t, fmt.Sprintf("\n[[turn.database]]\ndriver = %q\ndsn = %q\ncache = \"1ms\"\n", driver, dsn))
			live, err := g.allocates(t, "gorst", "hero")
			if err != nil {
				t.Fatal(err)
			}
			server.Stop()
			if _, err := g.allocates(t, "gorst", "hero"); tc.Code(err) != 401 {
				t.Errorf("without the database: got %v, want 401", err)
			}
			if _, err := g.allocates(t, g.user, g.password); err != nil {
				t.Errorf("a user of the file: %v", err)
			}
			if _, err := live.Refresh(deadline(t), 600); err != nil {
				t.Errorf("the live allocation: %v", err)
			}
			server.Start()
			for err = errNotTried; err != nil; {
				if _, err = g.allocates(t, "gorst", "hero"); err != nil && tc.Code(err) != 401 {
					t.Fatal(err)
				}
			}
			if _, err := live.Refresh(deadline(t), 600); err != nil {
				t.Errorf("the live allocation: %v", err)
			}
			if g.logs.line("user database does not answer") == "" || g.logs.line("user database answers again") == "" {
				t.Error("the log does not say that the database went and came back")
			}
		})
	}
}

var errNotTried = errors.New("not tried yet")

func TestABadDSNStopsAReloadWithoutShowingIt(t *testing.T) {
	g := startGate(t, "")
	g.writeConfig(t, "", "", "\n[[turn.database]]\ndriver = \"postgres\"\ndsn = \"host=a port=hunter2\"\n")
	_, err := g.reload()
	if err == nil || !strings.Contains(err.Error(), "turn.database[0]") || strings.Contains(err.Error()+g.logs.String(), "hunter2") {
		t.Errorf("got %v, want an error that names the key and not the value", err)
	}
	if _, err := g.allocates(t, g.user, g.password); err != nil {
		t.Errorf("after a refused reload: %v", err)
	}
}

// A database that accepts connections and never says a word holds up nobody.
func TestADatabaseThatNeverSaysAWord(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for driver, dsn := range map[string]string{
		"postgres": "host=127.0.0.1 port=%d dbname=coturn user=turn password=hunter2",
		"redis":    "ip=127.0.0.1 port=%d password=hunter2",
	} {
		t.Run(driver, func(t *testing.T) {
			g := startGate(t, fmt.Sprintf("\n[[turn.database]]\ndriver = %q\ndsn = %q\ntimeout = \"1s\"\n",
				driver, fmt.Sprintf(dsn, l.Addr().(*net.TCPAddr).Port)))
			ctx := deadline(t)
			slow, err := tc.Dial(ctx, "udp", g.turnUDP.String(), tc.Auth{User: "gorst", Password: "hero"})
			if err != nil {
				t.Fatal(err)
			}
			defer slow.Close()
			if err := slow.Learn(ctx); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := slow.Allocate(ctx)
				done <- err
			}()
			served := 0
			for waits := true; waits; {
				select {
				case err := <-done:
					waits = false
					if tc.Code(err) != 401 {
						t.Errorf("who waits for the database: got %v, want 401", err)
					}
				default:
					c, err := g.allocates(t, g.user, g.password)
					if err != nil {
						t.Fatalf("another client: %v", err)
					}
					if _, err := c.Refresh(ctx, 0); err != nil {
						t.Fatal(err)
					}
					served++
				}
			}
			if served < 2 {
				t.Errorf("%d others were served while one waited", served)
			}
			if strings.Contains(g.logs.String(), "hunter2") {
				t.Error("the log holds the password of the database")
			}
		})
	}
}

func TestTwoPasswordsWhileOneIsBeingChanged(t *testing.T) {
	g := startGate(t, `
[[turn.user]]
name = "bob"
password = "the new password"
passwords = ["the old password"]
`)
	for password, code := range map[string]int{"the new password": 0, "the old password": 0, "another password": 401} {
		if _, err := g.allocates(t, "bob", password); tc.Code(err) != code {
			t.Errorf("%s: got %v, want %d", password, err, code)
		}
	}
	cred, err := chooseCredential(g.plan.Load().cfg, "bob", 0, g.started)
	if err != nil || cred.password != "the new password" {
		t.Errorf("a client is given %q, %v; want the new password", cred.password, err)
	}
}
