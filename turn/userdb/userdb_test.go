//go:build unix

package userdb

import (
	"bytes"
	"context"
	"crypto/md5"
	"database/sql"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/turngate/turngate/internal/testnet/dbserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The tables that we read, as coturn's turndb/schema.sql has them.
const schema = `
CREATE TABLE turnusers_lt (
    realm varchar(127) default '',
    name varchar(512),
    hmackey char(128),
    PRIMARY KEY (realm,name)
);
CREATE TABLE turn_secret (
    realm varchar(127) default '',
    value varchar(256),
    primary key (realm,value)
);`

func hmackey(user, realm, password string) string {
	sum := md5.Sum([]byte(user + ":" + realm + ":" + password))
	return hex.EncodeToString(sum[:])
}

// database is one kind of database with the users of the tests in it.
type database struct {
	dsn   string
	other []string                        // further forms of the dsn
	exec  func(t *testing.T, name string) // "remove gorst" and the like
	stop  func()                          // crashes it; nil for a file
	start func()                          // starts it again
}

const (
	removeGorst  = "remove gorst"
	removeSecret = "remove secret"
)

var gorst = hmackey("gorst", "north.gov", "hero")

func TestTheKeyIsCoturns(t *testing.T) {
	if gorst != "7da2270ccfa49786e0115366d3a3d14d" { // of coturn's schema.userdb.redis
		t.Errorf("got %s", gorst)
	}
}

func insert() []string {
	return []string{
		"INSERT INTO turnusers_lt VALUES ('north.gov', 'gorst', '" + gorst + "')",
		"INSERT INTO turnusers_lt VALUES ('crinna.org', 'gorst', '" + hmackey("gorst", "crinna.org", "other") + "')",
		"INSERT INTO turnusers_lt VALUES ('north.gov', 'void', NULL)",
		"INSERT INTO turnusers_lt VALUES ('north.gov', 'bad', 'hunter2')",
		"INSERT INTO turnusers_lt VALUES ('north.gov', 'zoë o''neil', '" + hmackey("zoë o'neil", "north.gov", "x") + "')",
		"INSERT INTO turn_secret VALUES ('north.gov', 'logen')",
		"INSERT INTO turn_secret VALUES ('north.gov', 'bloody9')",
		"INSERT INTO turn_secret VALUES ('crinna.org', 'library')",
	}
}

var statements = map[string]string{
	removeGorst:  "DELETE FROM turnusers_lt WHERE name = 'gorst' AND realm = 'north.gov'",
	removeSecret: "DELETE FROM turn_secret WHERE value = 'logen'",
}

func sqliteDatabase(t *testing.T) database {
	// A name that an URL would take apart.
	path := filepath.Join(t.TempDir(), "turn db?mode=rwc#%41.sqlite")
	run := func(t *testing.T, text string) {
		t.Helper()
		db, err := sql.Open("sqlite", "file:"+strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(text); err != nil {
			t.Fatal(err)
		}
	}
	run(t, schema+strings.Join(insert(), ";"))
	return database{dsn: path, exec: func(t *testing.T, name string) { run(t, statements[name]) }}
}

func postgresDatabase(t *testing.T) database {
	s := dbserver.Postgres(t)
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d dbname=coturn user=turn password=turn connect_timeout=30", s.Port)
	run := func(t *testing.T, dbname, text string) {
		t.Helper()
		ctx := within(t)
		c, err := pgx.Connect(ctx, strings.Replace(dsn, "coturn", dbname, 1))
		for err != nil && strings.Contains(err.Error(), "57P03") { // starting up
			c, err = pgx.Connect(ctx, strings.Replace(dsn, "coturn", dbname, 1))
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		if _, err := c.Exec(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "postgres", "CREATE DATABASE coturn")
	run(t, "coturn", schema+strings.Join(insert(), ";"))
	return database{
		dsn:   dsn,
		other: []string{fmt.Sprintf("postgresql://turn:turn@127.0.0.1:%d/coturn?sslmode=disable", s.Port)},
		exec:  func(t *testing.T, name string) { run(t, "coturn", statements[name]) },
		stop:  s.Stop, start: s.Start,
	}
}

func redisDatabase(t *testing.T) database {
	s := dbserver.Redis(t)
	run := func(t *testing.T, commands ...[]any) {
		t.Helper()
		c := redis.NewClient(&redis.Options{Addr: s.Addr(), Password: "turn", DB: 2})
		defer c.Close()
		for _, cmd := range commands {
			if err := c.Do(within(t), cmd...).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(t,
		[]any{"set", "turn/realm/north.gov/user/gorst/key", gorst},
		[]any{"set", "turn/realm/crinna.org/user/gorst/key", hmackey("gorst", "crinna.org", "other")},
		[]any{"set", "turn/realm/north.gov/user/void/key", ""},
		[]any{"set", "turn/realm/north.gov/user/bad/key", "hunter2"},
		[]any{"set", "turn/realm/north.gov/user/zoë o'neil/key", hmackey("zoë o'neil", "north.gov", "x")},
		[]any{"sadd", "turn/realm/north.gov/secret", "logen", "bloody9"},
		[]any{"sadd", "turn/realm/crinna.org/secret", "library"},
	)
	changes := map[string][]any{
		removeGorst:  {"del", "turn/realm/north.gov/user/gorst/key"},
		removeSecret: {"srem", "turn/realm/north.gov/secret", "logen"},
	}
	return database{
		dsn:   fmt.Sprintf("ip=127.0.0.1 dbname=2 password=turn port=%d connect_timeout=30", s.Port),
		other: []string{fmt.Sprintf("redis://:turn@127.0.0.1:%d/2", s.Port)},
		exec:  func(t *testing.T, name string) { run(t, changes[name]) },
		stop:  s.Stop, start: s.Start,
	}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func open(t *testing.T, driver, dsn string) Source {
	t.Helper()
	s, err := Open(driver, dsn, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var drivers = map[string]func(*testing.T) database{SQLite: sqliteDatabase, Postgres: postgresDatabase, Redis: redisDatabase}

func TestUsersAndSecretsInCoturnsSchema(t *testing.T) {
	for driver, start := range drivers {
		t.Run(driver, func(t *testing.T) {
			db := start(t)
			for _, dsn := range append(db.other, db.dsn) {
				s := open(t, driver, dsn)
				for _, tt := range []struct{ name, user, realm, want string }{
					{"a user", "gorst", "north.gov", gorst},
					{"the same name in another realm", "gorst", "crinna.org", hmackey("gorst", "crinna.org", "other")},
					{"a name that is no word", "zoë o'neil", "north.gov", hmackey("zoë o'neil", "north.gov", "x")},
					{"a name nobody has", "mallory", "north.gov", ""},
					{"a realm that is not there", "gorst", "nowhere", ""},
					{"a user without a key", "void", "north.gov", ""},
					{"SQL", "x' OR '1'='1", "north.gov", ""},
					{"a pattern", "%", "north.gov", ""},
					{"a name that is not text", "\xff\xfe", "north.gov", ""},
					{"a name with a NUL", "gorst\x00", "north.gov", ""},
					{"a name longer than any", strings.Repeat("g", 600), "north.gov", ""},
					{"no name", "", "north.gov", ""},
				} {
					keys, err := s.Keys(within(t), tt.realm, tt.user)
					want, _ := hex.DecodeString(tt.want)
					if err != nil || tt.want == "" && len(keys) != 0 || tt.want != "" && (len(keys) != 1 || !bytes.Equal(keys[0], want)) {
						t.Errorf("%s: got %x, %v; want %q", tt.name, keys, err, tt.want)
					}
				}
				if keys, err := s.Keys(within(t), "north.gov", "bad"); err == nil || keys != nil || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("a key that is none: got %v, %v; want an error that does not show it", keys, err)
				}
				for realm, want := range map[string][]string{"north.gov": {"bloody9", "logen"}, "crinna.org": {"library"}, "nowhere": nil} {
					secrets, err := s.Secrets(within(t), realm)
					slices.Sort(secrets)
					if err != nil || !slices.Equal(secrets, want) {
						t.Errorf("secrets of %s: got %q, %v; want %q", realm, secrets, err, want)
					}
				}
			}
			s := open(t, driver, db.dsn)
			if keys, err := s.Keys(within(t), "north.gov", "gorst"); len(keys) != 1 || err != nil {
				t.Fatal(keys, err)
			}
			db.exec(t, removeGorst)
			db.exec(t, removeSecret)
			if keys, err := s.Keys(within(t), "north.gov", "gorst"); len(keys) != 0 || err != nil {
				t.Errorf("a user who was removed: got %d keys, %v", len(keys), err)
			}
			if secrets, err := s.Secrets(within(t), "north.gov"); len(secrets) != 1 || err != nil {
				t.Errorf("after one was removed: got %q, %v", secrets, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if _, err := s.Keys(within(t), "north.gov", "gorst"); err == nil {
				t.Error("a question after Close: no error")
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close again: %v", err)
			}
		})
	}
}

func TestADatabaseThatCrashesAndComesBack(t *testing.T) {
	for _, driver := range []string{Postgres, Redis} {
		t.Run(driver, func(t *testing.T) {
			db := drivers[driver](t)
			s := open(t, driver, db.dsn)
			ask := func() error {
				keys, err := s.Keys(within(t), "north.gov", "gorst")
				if err == nil && len(keys) != 1 {
					err = fmt.Errorf("%d keys", len(keys))
				}
				return err
			}
			if err := ask(); err != nil {
				t.Fatal(err)
			}
			db.stop()
			for range 3 {
				if err := ask(); err == nil || strings.Contains(err.Error(), "password=turn") {
					t.Errorf("without a database: got %v", err)
				}
			}
			db.start()
			ctx := within(t)
			for err := ask(); err != nil; err = ask() {
				if ctx.Err() != nil {
					t.Fatalf("it is back, and not asked: %v", err)
				}
			}
		})
	}
}

// A database that accepts connections and says nothing is given up when the
// context ends.
func TestADatabaseThatNeverAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for driver, dsn := range map[string]string{
		Postgres: fmt.Sprintf("host=127.0.0.1 port=%d dbname=coturn user=turn password=hunter2", port),
		Redis:    fmt.Sprintf("ip=127.0.0.1 port=%d password=hunter2", port),
	} {
		t.Run(driver, func(t *testing.T) {
			s, err := Open(driver, dsn, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			late, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := s.Keys(late, "r", "u"); err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want an error without the password", err)
			}
			stopped, stop := context.WithCancel(t.Context())
			done := make(chan error)
			go func() {
				_, err := s.Secrets(stopped, "r")
				done <- err
			}()
			stop()
			if err := <-done; err == nil {
				t.Error("a question whose context was cancelled: no error")
			}
		})
	}
}

func TestAnSQLiteFileIsOnlyRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.sqlite")
	s := open(t, SQLite, path)
	if _, err := s.Keys(within(t), "r", "u"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a file that is not there: got %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file was made")
	}
	if err := os.WriteFile(path, []byte("this is not a database at all, but long enough to be looked at"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Keys(within(t), "r", "u"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that is no database: got %v, want an error that names it", err)
	}
	db := sqliteDatabase(t)
	s2 := open(t, SQLite, db.dsn).(*sqlite)
	inner, err := s2.db.get()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inner.Exec("DELETE FROM turn_secret"); err == nil {
		t.Error("the database can be written to")
	}
}

func TestPostgresIsOnlyRead(t *testing.T) {
	db := postgresDatabase(t)
	p := open(t, Postgres, db.dsn).(*postgres)
	pool, err := p.pool.get()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(within(t), "DELETE FROM turn_secret"); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("the database can be written to: %v", err)
	}
}

func TestOpenExplainsABadDSN(t *testing.T) {
	for _, tt := range []struct{ name, driver, dsn, want string }{
		{"another driver", "mysql", "hunter2", `driver "mysql"`},
		{"nothing", SQLite, "", "empty"},
		{"two lines", Redis, "redis://hunter2\n", "control character"},
		{"an URL for sqlite", SQLite, "file:///hunter2", "path of the file alone"},
		{"a port that is none", Postgres, "host=a port=hunter2", "not a connection string"},
		{"a broken URL", Postgres, "postgres://u:hunter2@[a/x", "not a connection string"},
		{"a broken URL for redis", Redis, "redis://u:hunter2@a:b:c/x", "not a URL"},
		{"an unknown word", Redis, "ip=1.2.3.4 pasword=hunter2", `"pasword"`},
		{"a word without a value", Redis, "ip=1.2.3.4 hunter2", "word without ="},
		{"a dbname that is no number", Redis, "dbname=hunter2", `"dbname"`},
		{"a port out of range", Redis, "port=99999", "wrong port"},
		{"a CA that is not there", Redis, "tls=1 ca=/does/not/exist", "/does/not/exist"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(tt.driver, tt.dsn, time.Second)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want %q and not the secret", err, tt.want)
			}
		})
	}
}

func TestCoturnsRedisWords(t *testing.T) {
	o, err := redisOptions("host=db.example.com p=6380 db=3 username=u passwd=p timeout=9 tls=true sni=x.example.com verify=none")
	if err != nil {
		t.Fatal(err)
	}
	if o.Addr != "db.example.com:6380" || o.DB != 3 || o.Username != "u" || o.Password != "p" ||
		o.TLSConfig == nil || o.TLSConfig.ServerName != "x.example.com" || !o.TLSConfig.InsecureSkipVerify {
		t.Errorf("got %+v", o)
	}
	if o, err = redisOptions("password=p"); err != nil || o.Addr != "127.0.0.1:6379" || o.TLSConfig != nil {
		t.Errorf("defaults: got %+v, %v", o, err)
	}
}
