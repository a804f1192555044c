//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/turngate/turngate/internal/testnet/dbserver"
)

// checkSQL runs the statements on a database with the tables of coturn.
func checkSQL(t *testing.T, b block) {
	s := dbserver.Postgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dsn := fmt.Sprintf("postgres://turn:turn@127.0.0.1:%d/postgres", s.Port)
	db, err := pgx.Connect(ctx, dsn)
	for err != nil && strings.Contains(err.Error(), "57P03") { // starting up
		db, err = pgx.Connect(ctx, dsn)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(ctx)
	const tables = "CREATE TABLE turnusers_lt (realm text, name text, hmackey text); CREATE TABLE turn_secret (realm text, value text);"
	if _, err := db.Exec(ctx, tables+b.Text); err != nil {
		t.Errorf("%s: %v", b, err)
	}
}

// checkRedis gives the commands to Redis, a line each.
func checkRedis(t *testing.T, b block) {
	s := dbserver.Redis(t)
	db := redis.NewClient(&redis.Options{Addr: s.Addr(), Password: "turn"})
	defer db.Close()
	for line := range strings.Lines(b.Text) {
		var words []any
		for _, w := range bytes.Fields([]byte(line)) {
			words = append(words, string(w))
		}
		if err := db.Do(t.Context(), words...).Err(); err != nil {
			t.Errorf("%s: %s: %v", b, line, err)
		}
	}
}
