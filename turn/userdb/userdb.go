// Package userdb reads TURN users from the databases that coturn keeps them
// in, so that a site with one needs no migration. It reads and never writes.
//
// In SQL those are the tables turnusers_lt (realm, name, hmackey) and
// turn_secret (realm, value) of coturn's turndb/schema.sql. In Redis they are
// the strings turn/realm/REALM/user/NAME/key and the sets
// turn/realm/REALM/secret of its turndb/schema.userdb.redis. A key is the hex
// of MD5(name:realm:password), RFC 8489 section 9.2.2; a secret is one of the
// TURN REST API.
//
// No error of this package holds a password, a key or a connection string.
package userdb

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Source is a database of users. Its methods are safe for concurrent use.
// Nothing is connected before the first question; a connection that is lost
// is replaced by the next question.
type Source interface {
	// Keys returns the long-term keys of a user of a realm, none when there
	// is no such user. It returns soon after ctx ends.
	Keys(ctx context.Context, realm, user string) ([][]byte, error)
	// Secrets returns the secrets of a realm for time-limited credentials, as
	// Keys does.
	Secrets(ctx context.Context, realm string) ([]string, error)
	// Close ends the connections. Later questions fail.
	Close() error
}

// Drivers of databases.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
	Redis    = "redis"
)

// Open checks the connection string and returns a source that connects when it
// is asked. timeout bounds each statement at the server, beside the context of
// a question, and the making of a connection.
func Open(driver, dsn string, timeout time.Duration) (Source, error) {
	switch {
	case dsn == "":
		return nil, errors.New("the dsn is empty")
	case strings.ContainsFunc(dsn, func(r rune) bool { return r < ' ' }):
		return nil, errors.New("the dsn has a control character in it")
	case timeout <= 0:
		return nil, errors.New("the timeout is not more than zero")
	}
	switch driver {
	case SQLite:
		return newSQLite(dsn, timeout)
	case Postgres:
		return newPostgres(dsn, timeout)
	case Redis:
		return newRedis(dsn, timeout)
	}
	return nil, fmt.Errorf("driver %q: want %s, %s or %s", driver, SQLite, Postgres, Redis)
}

const (
	// maxConns are the connections to one database: its answers are cached,
	// and a database that is slow is not helped by more.
	maxConns = 8
	// connLifetime replaces connections, so that a database that moved, or an
	// SQLite file that was replaced, is noticed.
	connLifetime = time.Minute
	// maxSecrets bounds what one request is tried with.
	maxSecrets = 32
	// maxName is the longest name that coturn's schema holds.
	maxName = 512
)

var errClosed = errors.New("the database is closed")

// askable reports whether a database can hold a user of this name: strangers
// choose it, and PostgreSQL refuses text that is not UTF-8 or has a NUL, which
// would look like a fault of the database.
func askable(user string) bool {
	return user != "" && len(user) <= maxName && utf8.ValidString(user) && !strings.ContainsRune(user, 0)
}

// keySize is the length of a key: MD5 (RFC 8489 section 9.2.2).
const keySize = 16

// decodeKey reads an hmackey. The columns of coturn's schema are wider than an
// MD5 key, and char(n) comes with spaces behind it.
func decodeKey(text string) ([]byte, error) {
	key, err := hex.DecodeString(strings.TrimRight(text, " "))
	if err != nil || len(key) != keySize {
		return nil, errors.New("an hmackey is not the 32 hex digits of MD5(name:realm:password)")
	}
	return key, nil
}

// timedOut makes the end of a context readable.
func timedOut(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errors.New("no answer in time")
	}
	return err
}
