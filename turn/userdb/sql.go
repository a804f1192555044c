package userdb

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// The questions, with the placeholders that both databases understand.
const (
	keyQuery    = "SELECT hmackey FROM turnusers_lt WHERE name = $1 AND realm = $2"
	secretQuery = "SELECT value FROM turn_secret WHERE realm = $1"
)

// sqlite is a database file. Its directory may be read-only for us.
type sqlite struct {
	path string
	db   lazily[*sql.DB]
}

func newSQLite(path string, timeout time.Duration) (Source, error) {
	if strings.Contains(path, "://") || strings.HasPrefix(path, "file:") {
		return nil, fmt.Errorf("the dsn of %s is the path of the file alone", SQLite)
	}
	pragmas := url.Values{
		"mode": {"ro"}, // never makes the file
		"_pragma": {
			"busy_timeout(" + strconv.FormatInt(timeout.Milliseconds(), 10) + ")",
			"query_only(1)",
		},
	}
	name := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: pragmas.Encode()}
	return &sqlite{path, lazily[*sql.DB]{make: func() (*sql.DB, error) {
		db, err := sql.Open("sqlite", name.String())
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(maxConns)
		db.SetMaxIdleConns(maxConns)
		db.SetConnMaxLifetime(connLifetime)
		return db, nil
	}}}, nil
}

func (s *sqlite) Keys(ctx context.Context, realm, user string) ([][]byte, error) {
	if !askable(user) {
		return nil, nil
	}
	values, err := s.query(ctx, 1, keyQuery, user, realm)
	if err != nil {
		return nil, err
	}
	return decodeKeys(values)
}

func (s *sqlite) Secrets(ctx context.Context, realm string) ([]string, error) {
	return s.query(ctx, maxSecrets, secretQuery, realm)
}

func (s *sqlite) query(ctx context.Context, most int, query string, args ...any) ([]string, error) {
	db, err := s.db.get()
	if err != nil {
		return nil, err
	}
	values, err := collect(ctx, db, most, query, args...)
	if err == nil || ctx.Err() != nil {
		return values, timedOut(ctx, err)
	}
	// SQLite's own words for it are "unable to open database file".
	if _, statErr := os.Stat(s.path); statErr != nil {
		return nil, statErr
	}
	return nil, fmt.Errorf("%s: %w", s.path, err)
}

func (s *sqlite) Close() error {
	if db, made := s.db.close(); made {
		return db.Close()
	}
	return nil
}

// collect returns the first column of a query, at most so many rows. NULL and
// empty values are no values.
func collect(ctx context.Context, db *sql.DB, most int, query string, args ...any) ([]string, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var values []string
	for len(values) < most && rows.Next() {
		var v sql.NullString
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		if v.String != "" {
			values = append(values, v.String)
		}
	}
	return values, rows.Err()
}

func decodeKeys(values []string) ([][]byte, error) {
	var keys [][]byte
	for _, v := range values {
		key, err := decodeKey(v)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}
