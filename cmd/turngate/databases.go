package main

import (
	"fmt"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/userdb"
)

// database is an open user database and what it was opened with.
type database struct {
	driver, dsn string
	timeout     time.Duration
	source      userdb.Source
}

// databases opens the user databases of a configuration, which connect when
// they are asked. Those that run already are taken over with their
// connections, so that a reload is not felt.
func (a *app) databases(cfg *config.Config) (all []database, opts []turn.Database, err error) {
	var running []database
	if p := a.plan.Load(); p != nil {
		running = p.databases
	}
	drivers := make(map[string]int)
	for _, c := range cfg.TURN.Database {
		drivers[c.Driver]++
	}
	for i, c := range cfg.TURN.Database {
		db := database{driver: c.Driver, dsn: c.DSN.Reveal(), timeout: time.Duration(c.Timeout)}
		for _, have := range running {
			if have.driver == db.driver && have.dsn == db.dsn && have.timeout == db.timeout {
				db.source = have.source
			}
		}
		if db.source == nil {
			if db.source, err = userdb.Open(db.driver, db.dsn, db.timeout); err != nil {
				return nil, nil, fmt.Errorf("turn.database[%d]: %w", i, err)
			}
		}
		name := db.driver
		if drivers[name] > 1 {
			name += " " + c.Realm
		}
		all = append(all, db)
		opts = append(opts, turn.Database{Name: name, Realm: c.Realm, Source: db.source, Timeout: db.timeout, Cache: time.Duration(c.Cache)})
	}
	return all, opts, nil
}
