// Command wsload measures a wss proxy: memory of idle connections, CPU and
// latency of small messages, CPU of new connections, log reports a second, and
// for turngate also reloads, big messages and readers that stop.
//
// It is the clients and the upstream at once, with TLS towards both sides, and
// runs on one core; the proxies run on another one. Cases that compare go round
// the proxies in turn, several times, so that a change of the machine's speed
// meets all of them.
//
//	wsload -turngate BINARY                       turngate, nginx and HAProxy, a table of ratios
//	wsload -drive HOST:PORT -pid PID CASE...      one proxy that runs already; its upstream is -upstream
//
// It is run by .ci/compare.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// options are the sizes of the cases.
type options struct {
	dir       string // for files of the proxies
	turngate  string // binary
	upstream  string // host:port of ours
	core      int    // of the proxies; negative: not pinned
	idle      int    // connections of the memory case
	many      int    // connections of the case that one process holds them
	conns     int    // connections of the message case
	rate      int    // messages a second
	size      int    // bytes of a message
	round     time.Duration
	rounds    int
	handshake int // new connections in a round
	reloads   int
}

// cases in the order they run.
var cases = []struct {
	name string
	run  func(*bench) error
}{
	{"idle", (*bench).idleCase},
	{"many", (*bench).manyCase},
	{"messages", (*bench).messagesCase},
	{"connects", (*bench).connectsCase},
	{"reports", (*bench).reportsCase},
	{"reloads", (*bench).reloadsCase},
	{"big", (*bench).bigCase},
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("wsload: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// errMissed says that a target was missed; the table shows which.
var errMissed = errors.New("targets missed")

func run() error {
	var o options
	var drive, only, proxies string
	var pid int
	flag.StringVar(&o.turngate, "turngate", "", "binary of turngate to start and compare")
	flag.StringVar(&drive, "drive", "", "host:port of a proxy that runs already")
	flag.IntVar(&pid, "pid", 0, "its process")
	flag.StringVar(&o.upstream, "upstream", "127.0.0.1:0", "where our upstream listens")
	flag.StringVar(&only, "cases", "", "cases, separated by commas; empty: all")
	flag.StringVar(&proxies, "proxies", "turngate,nginx,nginx-careful,haproxy", "proxies to start")
	flag.IntVar(&o.core, "core", runtime.NumCPU()-1, "core of the proxies; -1: any")
	flag.IntVar(&o.idle, "idle", 2000, "connections of the case idle")
	flag.IntVar(&o.many, "many", 10000, "connections of the case many")
	flag.IntVar(&o.conns, "conns", 500, "connections of the case messages")
	flag.IntVar(&o.rate, "rate", 4000, "messages a second; each comes back as an echo")
	flag.IntVar(&o.size, "size", 200, "bytes of a message")
	flag.DurationVar(&o.round, "round", time.Second, "length of a round")
	flag.IntVar(&o.rounds, "rounds", 8, "rounds of the cases that compare")
	flag.IntVar(&o.handshake, "handshakes", 250, "new connections in a round")
	flag.IntVar(&o.reloads, "reloads", 100, "reloads")
	flag.Parse()
	if (o.turngate == "") == (drive == "") {
		return errors.New("one of -turngate and -drive is needed")
	}
	o.many = min(o.many, mostConnections())
	dir, err := os.MkdirTemp("", "wsload")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.dir = dir

	b, err := newBench(o)
	if err != nil {
		return err
	}
	defer b.close()
	if drive != "" {
		b.fixed = &proxy{name: drive, addr: drive, pid: pid}
	} else if err := b.choose(strings.Split(proxies, ",")); err != nil {
		return err
	}
	var failed error
	wanted := flag.Args()
	if only != "" {
		wanted = append(wanted, strings.Split(only, ",")...)
	}
	for _, c := range cases {
		if len(wanted) > 0 && !slices.Contains(wanted, c.name) {
			continue
		}
		began := time.Now()
		err := c.run(b)
		if err != nil { // the other cases still tell something
			failed = fmt.Errorf("%s: %w", c.name, err)
			log.Print(failed)
		}
		log.Printf("%s: %.0f s", c.name, time.Since(began).Seconds())
	}
	b.print(os.Stdout)
	if failed == nil && b.missed() {
		return errMissed
	}
	return failed
}
