package config

import (
	"fmt"
	"strings"
	"time"
)

// Drivers of [[turn.database]].
const (
	DriverSQLite   = "sqlite"
	DriverPostgres = "postgres"
	DriverRedis    = "redis"
)

// maxPasswords bounds what one request of a user is tried with.
const maxPasswords = 4

func (c *checker) password(key, user string, s Secret) {
	switch p := s.Reveal(); {
	case strings.ContainsFunc(p, isControl):
		c.err(key, "has a control character in it", "use letters, digits and punctuation")
	case WeakPassword(user, p):
		c.warn(key, "is weak: whoever guesses it can use the relay", `choose a random one, for example from "openssl rand -base64 18"`)
	}
}

// databases checks what can be known without asking one. No finding shows the
// dsn, which holds a password.
func (c *checker) databases() {
	seen := map[string]int{}
	for i, db := range c.cfg.TURN.Database {
		at := element("turn.database", i)
		dsn, realm := child(at, "dsn"), child(at, "realm")
		text := db.DSN.Reveal()
		switch {
		case db.Driver == "" && !c.faulty(child(at, "driver")):
			c.err(child(at, "driver"), "the database has no driver", `write "sqlite", "postgres" or "redis"`)
		case text == "" && !c.faulty(dsn):
			c.err(dsn, "the database has no dsn", "write where it is")
		case strings.ContainsFunc(text, isControl) && db.Driver == DriverSQLite:
			c.err(dsn, "has a control character in it", `write the path of the database alone: "file:/path" is a file that holds the path`)
		case strings.ContainsFunc(text, isControl):
			c.err(dsn, "has a control character in it", "write it on one line")
		case db.Driver == DriverRedis && !strings.Contains(text, "://") && !strings.Contains(text, "=") && text != "":
			c.err(dsn, "is not a connection string", `write "redis://:password@host:6379/2", or "ip=host dbname=2 password=..."`)
		case db.Driver == DriverPostgres && !strings.Contains(text, "://") && !strings.Contains(text, "=") && text != "":
			c.err(dsn, "is not a connection string", `write "host=... dbname=... user=... password=...", or a postgres:// URL`)
		}
		if len(db.Realm) > 127 {
			c.err(realm, "is longer than 127 bytes", "use the realm that the users were made for")
		}
		if first, twice := seen[db.Realm]; twice {
			c.err(at, fmt.Sprintf("the realm %q has a database on line %d already", db.Realm, first), "keep one database for a realm")
		}
		seen[db.Realm] = c.pos.line(at)
		if !c.told(db.Realm) && c.set[realm] {
			c.warn(realm, fmt.Sprintf("clients are told the realm %q, so nobody is looked up in %q", c.cfg.TURN.Realm, db.Realm), "give both the same value, or a listener this realm in turn.realms")
		}
		if limit := Duration(30 * time.Second); db.Timeout > limit {
			c.warn(child(at, "timeout"), fmt.Sprintf("clients give up before %s are over", db.Timeout), `write "2s"`)
		}
	}
}

// minToken is the shortest token: whoever guesses it gets credentials.
const minToken = 16

func (c *checker) api() {
	a := c.cfg.TURN.API
	c.originList("turn.api.origins", a.Origins)
	for i, s := range a.Tokens {
		switch key, text := element("turn.api.tokens", i), s.Reveal(); {
		case len(text) < minToken:
			c.err(key, fmt.Sprintf("is shorter than %d characters: it can be guessed", minToken), `choose a random one, for example from "openssl rand -hex 32"`)
		case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
			c.err(key, "has a character that cannot stand in a header", "use letters and digits")
		}
	}
	switch {
	case a.Path != "" && len(a.Tokens) == 0 && !c.faulty("turn.api.tokens"):
		c.err("turn.api.tokens", "is empty: nobody can use turn.api.path", `write tokens = ["..."] with a random value of "openssl rand -hex 32"`)
	case a.Path == "" && len(a.Tokens) > 0:
		c.warn("turn.api.tokens", "counts only beside turn.api.path", `write path = "/ice"`)
	}
	if a.Path != "" && a.TTL > 0 && a.TTL < Duration(time.Minute) {
		c.warn("turn.api.ttl", fmt.Sprintf("a credential of %s may end before the page uses it", a.TTL), `write "1h"`)
	}
}

// told reports whether clients of some listener are told the realm.
func (c *checker) told(realm string) bool {
	if realm == c.cfg.TURN.Realm {
		return true
	}
	for _, r := range c.cfg.TURN.Realms {
		if r == realm {
			return true
		}
	}
	return false
}
