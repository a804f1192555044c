package userdb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// postgres is a pool of connections to PostgreSQL.
type postgres struct{ pool lazily[*pgxpool.Pool] }

func newPostgres(dsn string, timeout time.Duration) (Source, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		// The parser's own words quote the string, and what it takes for the
		// password in it is a guess.
		return nil, errors.New(`the dsn is not a connection string of PostgreSQL: want "host=db dbname=coturn user=turn password=..." ` +
			`or "postgres://turn:password@db/coturn", with special characters of a URL percent-encoded`)
	}
	cfg.MaxConns = maxConns
	cfg.MinConns = 0
	cfg.MaxConnLifetime = connLifetime
	cfg.MaxConnIdleTime = connLifetime
	cfg.ConnConfig.ConnectTimeout = timeout
	// No prepared statements: they would not survive a pooler in between.
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	for name, value := range map[string]string{
		"application_name":              "turngate",
		"default_transaction_read_only": "on",
		"statement_timeout":             strconv.FormatInt(timeout.Milliseconds(), 10),
	} {
		if _, given := cfg.ConnConfig.RuntimeParams[name]; !given {
			cfg.ConnConfig.RuntimeParams[name] = value
		}
	}
	return &postgres{lazily[*pgxpool.Pool]{make: func() (*pgxpool.Pool, error) {
		return pgxpool.NewWithConfig(context.Background(), cfg)
	}}}, nil
}

func (p *postgres) Keys(ctx context.Context, realm, user string) ([][]byte, error) {
	if !askable(user) {
		return nil, nil
	}
	values, err := p.query(ctx, 1, keyQuery, user, realm)
	if err != nil {
		return nil, err
	}
	return decodeKeys(values)
}

func (p *postgres) Secrets(ctx context.Context, realm string) ([]string, error) {
	return p.query(ctx, maxSecrets, secretQuery, realm)
}

func (p *postgres) query(ctx context.Context, most int, query string, args ...any) ([]string, error) {
	pool, err := p.pool.get()
	if err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, query, args...)
	if err != nil {
		return nil, readable(ctx, err)
	}
	defer rows.Close()
	var values []string
	for len(values) < most && rows.Next() {
		var v *string
		if err := rows.Scan(&v); err != nil {
			return nil, readable(ctx, err)
		}
		if v != nil && *v != "" {
			values = append(values, *v)
		}
	}
	rows.Close()
	return values, readable(ctx, rows.Err())
}

// readable keeps of an error what an operator needs. What the server says may
// quote the statement with its values.
func readable(ctx context.Context, err error) error {
	var said *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &said):
		return fmt.Errorf("%s: %s (SQLSTATE %s)", said.Severity, said.Message, said.Code)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return timedOut(ctx, err)
	case errors.As(err, &connect):
		return fmt.Errorf("connect to %s: %w", connect.Config.Host, errors.Unwrap(connect))
	}
	return err
}

func (p *postgres) Close() error {
	if pool, made := p.pool.close(); made {
		pool.Close()
	}
	return nil
}
