package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"
)

// comparison is turngate and coturn side by side: the same load, on the same
// core, in turn.
type comparison struct {
	rig
	base   options // what all loads have in common
	short  bool
	ratio  float64 // at most, of CPU for a packet; 0: that of each case
	round  time.Duration
	rounds int
	log    io.Writer

	servers [2]*process // turngate, coturn
	rows    []*row
	highest [2]float64 // loss-free rate of one flow; 0: not measured
}

// row is one line of the table.
type row struct {
	Case     string     `json:"case"`
	Unit     string     `json:"unit"`
	Turngate float64    `json:"turngate"`
	Coturn   float64    `json:"coturn"`
	Ratio    float64    `json:"ratio"`
	Target   string     `json:"target,omitempty"`
	Passed   *bool      `json:"passed,omitempty"`
	Note     string     `json:"note,omitempty"`
	Steps    []*result  `json:"steps,omitempty"`
	Loss     [2]float64 `json:"loss"`
}

type comparisonCase struct {
	name string
	run  func(*comparison, context.Context) error
}

var comparisons = []comparisonCase{
	{"one", (*comparison).oneFlow},
	{"many", (*comparison).manyFlows},
	{"rate", (*comparison).highestRate},
	{"latency", (*comparison).latencyAtHalf},
	{"memory", (*comparison).memoryOfMany},
}

var errMissed = errors.New("targets missed")

// compare starts both servers, runs the cases and prints a table. A missed
// target is an error, after the table.
func compare(args []string, stdout, stderr io.Writer) error {
	c := &comparison{log: stderr}
	f := flag.NewFlagSet("turnload compare", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&c.turngate, "turngate", "", "binary of turngate")
	f.StringVar(&c.coturn, "coturn", "turnserver", "program of coturn")
	f.StringVar(&c.extra, "turn", "", "further lines for [turn] in turngate's configuration")
	f.IntVar(&c.core, "core", 0, "core of the servers; -1: any")
	f.Float64Var(&c.ratio, "ratio", 0, "the most CPU for a packet, times coturn's, for all cases; 0: each its own")
	f.BoolVar(&c.short, "short", false, "quick feedback: shorter and fewer rounds")
	file := f.String("json", "", "file for all figures")
	commit := f.String("commit", "(of unknown commit)", "what turngate was built from, for the table")
	address := f.String("address", "127.0.0.1", "address of the servers and their relays")
	f.StringVar(&c.namespace, "ns-server", "", "network namespace of the servers")
	f.StringVar(&c.base.clientNS, "ns-client", "", "network namespace of the clients")
	f.StringVar(&c.base.peerNS, "ns-peer", "", "network namespace of the peers")
	f.StringVar(&c.base.cpuOf, "cpu-of", "", "threads to count with the server, as with bench")
	if err := f.Parse(args); err != nil {
		return err
	}
	var err error
	if c.address, err = netip.ParseAddr(*address); err != nil {
		return fmt.Errorf("-address: %w", err)
	}
	if c.coturn, err = exec.LookPath(c.coturn); err != nil {
		return err
	}
	c.clientNS = c.base.clientNS
	c.round, c.rounds = 2*time.Second, 4
	if c.short {
		c.round, c.rounds = 700*time.Millisecond, 2
	}
	if c.dir, err = os.MkdirTemp("", "turnload"); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	failed := c.run(ctx, f.Args())
	fmt.Fprintf(stdout, "turngate %s against coturn %s, %s\n\n", *commit, version(c.coturn, "--version"), time.Now().Format("2 January 2006 15:04"))
	c.print(stdout)
	if *file != "" {
		b, err := json.MarshalIndent(c.rows, "", "  ")
		if err == nil {
			err = os.WriteFile(*file, b, 0o644)
		}
		failed = errors.Join(failed, err)
	}
	if failed == nil && slices.ContainsFunc(c.rows, func(r *row) bool { return r.Passed != nil && !*r.Passed }) {
		return errMissed
	}
	return failed
}

func (c *comparison) run(ctx context.Context, wanted []string) error {
	for _, w := range wanted {
		if !slices.ContainsFunc(comparisons, func(x comparisonCase) bool { return x.name == w }) {
			return fmt.Errorf("%q: no such case", w)
		}
	}
	if err := c.startBoth(ctx); err != nil {
		return err
	}
	defer c.stopBoth()
	var failed error
	for _, x := range comparisons {
		if len(wanted) > 0 && !slices.Contains(wanted, x.name) {
			continue
		}
		began := time.Now()
		if err := x.run(c, ctx); err != nil { // the other cases still tell something
			failed = errors.Join(failed, fmt.Errorf("%s: %w", x.name, err))
		}
		fmt.Fprintf(c.log, "%s: %.0f s\n", x.name, time.Since(began).Seconds())
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return failed
}

func (c *comparison) startBoth(ctx context.Context) (err error) {
	if c.servers[0], err = c.startTurngate(ctx); err != nil {
		return err
	}
	if c.servers[1], err = c.startCoturn(ctx); err != nil {
		c.servers[0].stop()
	}
	return err
}

func (c *comparison) stopBoth() {
	for _, p := range c.servers {
		p.stop()
	}
}

// loads makes the same load at both servers.
func (c *comparison) loads(ctx context.Context, o options) (l [2]*load, err error) {
	for i, p := range c.servers {
		o.server, o.pid, o.auth = p.addr, p.pid(), credential
		o.transport, o.tick, o.cpuOf, o.clientNS, o.peerNS = "udp", 100*time.Microsecond, c.base.cpuOf, c.base.clientNS, c.base.peerNS
		if c.address.IsLoopback() && c.address.Is4() {
			o.clientNet, o.peerNet = netip.MustParsePrefix("127.1.0.0/16"), netip.MustParsePrefix("127.2.0.0/16")
		}
		if l[i], err = newLoad(ctx, o); err != nil {
			closeAll(l)
			return l, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return l, nil
}

func closeAll(loads [2]*load) {
	for _, l := range loads {
		if l != nil {
			l.close()
		}
	}
}

// alternate runs rounds at one rate, turngate and coturn in turn. The first of
// them is thrown away.
func (c *comparison) alternate(ctx context.Context, o options, rounds int, d time.Duration) (steps [2][]*result, err error) {
	loads, err := c.loads(ctx, o)
	if err != nil {
		return steps, err
	}
	defer closeAll(loads)
	for n := range rounds + 1 {
		for i, l := range loads {
			if err := ctx.Err(); err != nil {
				return steps, err
			}
			r, err := l.step(o.rate, d)
			if err != nil {
				return steps, err
			}
			r.Name = c.servers[i].name
			if n > 0 {
				steps[i] = append(steps[i], r)
			}
		}
	}
	return steps, nil
}

// target is the ratio of CPU to be met.
func (c *comparison) target(ratio float64) float64 {
	if c.ratio > 0 {
		return c.ratio
	}
	return ratio
}

// oneFlow is what a single stream of video costs.
func (c *comparison) oneFlow(ctx context.Context) error {
	for _, size := range []int{1000, 120} {
		for _, up := range []bool{true, false} {
			o := options{size: size, allocations: 1, burst: 30, rate: 30000, up: up, down: !up}
			steps, err := c.alternate(ctx, o, c.rounds, c.round)
			if err != nil {
				return err
			}
			c.add(fmt.Sprintf("one flow, 30,000 packets/s in bursts of 30, %d B, %s", size, o.direction()), "us/packet", steps, costOf, c.target(0.7), false)
		}
	}
	return nil
}

// manyFlows is what many small calls cost.
func (c *comparison) manyFlows(ctx context.Context) error {
	for _, up := range []bool{true, false} {
		o := options{size: 120, allocations: 500, burst: 1, rate: 25000, up: up, down: !up}
		steps, err := c.alternate(ctx, o, c.rounds, c.round)
		if err != nil {
			return err
		}
		c.add(fmt.Sprintf("500 allocations of 50 packets/s, 120 B, %s", o.direction()), "us/packet", steps, costOf, c.target(1.0), false)
	}
	return nil
}

// highestRate is what one core can do. Packets arrive one by one. In the case
// with a target they may leave as a network card with tx-udp-segmentation takes
// them; without that the load's own core is at its end before turngate's.
func (c *comparison) highestRate(ctx context.Context) error {
	for _, x := range []struct {
		name   string
		o      options
		target float64
	}{
		{"highest loss-free rate, one flow in bursts of 30, 1000 B, up", options{size: 1000, allocations: 1, burst: 30, up: true, gro: true}, 1.5},
		{"the same without segmentation offload", options{size: 1000, allocations: 1, burst: 30, up: true}, 0},
		{"highest loss-free rate, 500 allocations, 120 B, up", options{size: 120, allocations: 500, burst: 1, up: true}, 0},
	} {
		x.o.from, x.o.most, x.o.within, x.o.duration = 40000, 2e6, 0.05, time.Second
		times := 2
		if c.short {
			x.o.within, x.o.duration, times = 0.1, 300*time.Millisecond, 1
			if x.target == 0 {
				break
			}
		}
		best, note, err := c.searchBoth(ctx, x.o, times)
		if err != nil {
			return err
		}
		if x.target > 0 {
			c.highest = [2]float64{best[0].Rate, best[1].Rate}
		}
		c.add(x.name, "packets/s", [2][]*result{{best[0]}, {best[1]}}, func(r *result) float64 { return r.Rate }, x.target, true).Note = note
	}
	return nil
}

// searchBoth returns the best that each of them did, and says whose end the
// generator's was.
func (c *comparison) searchBoth(ctx context.Context, o options, times int) (best [2]*result, note string, err error) {
	loads, err := c.loads(ctx, o)
	if err != nil {
		return best, "", err
	}
	defer closeAll(loads)
	var ceilings [2]bool
	for range times {
		for i, l := range loads {
			r, ceiling, err := l.search(ctx, func(*result) {})
			if err != nil {
				return best, "", err
			}
			if best[i] == nil || r.Rate > best[i].Rate {
				best[i], ceilings[i] = r, ceiling
			}
		}
	}
	var whose []string
	for i, p := range c.servers {
		if ceilings[i] {
			whose = append(whose, p.name)
		}
	}
	if len(whose) > 0 {
		note = "the generator's limit with " + strings.Join(whose, " and ")
	}
	return best, note, nil
}

// latencyAtHalf is how long packets take at a rate that coturn bears well.
func (c *comparison) latencyAtHalf(ctx context.Context) error {
	if c.highest[1] == 0 {
		return errors.New("coturn's highest rate was not measured: run the case rate as well")
	}
	o := options{size: 1000, allocations: 1, burst: 30, rate: c.highest[1] / 2, up: true}
	steps, err := c.alternate(ctx, o, 2*c.rounds, c.round/2)
	if err != nil {
		return err
	}
	for i, s := range steps { // where the generator did not get its core, neither did the server
		onTime := slices.DeleteFunc(slices.Clone(s), func(r *result) bool { return r.Late.P99 > 500 })
		if len(onTime) >= 2 {
			steps[i] = onTime
		}
	}
	name := fmt.Sprintf("at half of coturn's highest rate (%.0f packets/s): ", o.rate)
	c.add(name+"p50", "us", steps, func(r *result) float64 { return r.Latency.P50 }, 0, false)
	c.add(name+"p99", "us", steps, func(r *result) float64 { return r.Latency.P99 }, 1.0, false)
	return nil
}

// memoryOfMany is what servers that just started hold with many allocations.
func (c *comparison) memoryOfMany(ctx context.Context) error {
	old := c.servers
	if err := c.startBoth(ctx); err != nil {
		c.servers = old
		return err
	}
	defer func() {
		c.stopBoth()
		c.servers = old
	}()
	const limit = 64
	o := options{size: 120, allocations: 2000, burst: 1, rate: 4000, up: true, down: true}
	loads, err := c.loads(ctx, o)
	if err != nil {
		return err
	}
	defer closeAll(loads)
	var steps [2][]*result
	for i, l := range loads {
		r, err := l.step(o.rate, c.round)
		if err != nil {
			return err
		}
		steps[i] = append(steps[i], r)
	}
	row := c.add("2,000 allocations with a channel each: resident memory", "MiB", steps, func(r *result) float64 { return float64(r.Resident) / (1 << 20) }, 0, false)
	passed := row.Turngate > 0 && row.Turngate <= limit
	row.Target, row.Passed = fmt.Sprintf("at most %d MiB", limit), &passed
	return nil
}

// costOf is all CPU for a packet, the threads of -cpu-of included.
func costOf(r *result) float64 { return r.CPU.Server + r.CPU.Threads }

// add makes a line of the medians. The target is a ratio, 0 for none; more says
// that more is better.
func (c *comparison) add(name, unit string, steps [2][]*result, figure func(*result) float64, target float64, more bool) *row {
	r := &row{Case: name, Unit: unit, Steps: append(slices.Clone(steps[0]), steps[1]...)}
	r.Turngate, r.Coturn = median(steps[0], figure), median(steps[1], figure)
	loss := func(x *result) float64 { return x.LossShare }
	r.Loss = [2]float64{median(steps[0], loss), median(steps[1], loss)}
	if r.Coturn > 0 {
		r.Ratio = r.Turngate / r.Coturn
	}
	if target > 0 {
		passed := r.Ratio > 0 && r.Ratio <= target
		r.Target = fmt.Sprintf("at most %g", target)
		if more {
			passed, r.Target = r.Ratio >= target, fmt.Sprintf("at least %g", target)
		}
		// Little CPU for packets that are then lost is no merit.
		if r.Loss[0] > max(lossFree, 2*r.Loss[1]) {
			passed, r.Note = false, "turngate lost too much"
		}
		r.Passed = &passed
	}
	c.rows = append(c.rows, r)
	fmt.Fprintf(c.log, "%s: turngate %s, coturn %s\n", name, number(r.Turngate), number(r.Coturn))
	printTable(c.log, r.Steps)
	return r
}

func median(steps []*result, figure func(*result) float64) float64 {
	v := make([]float64, 0, len(steps))
	for _, s := range steps {
		v = append(v, figure(s))
	}
	slices.Sort(v)
	n := len(v)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

// print prints the table, in the form of docs/measurements.md.
func (c *comparison) print(w io.Writer) {
	fmt.Fprintln(w, "| | unit | turngate | coturn | ratio | target | | lost by turngate, coturn |")
	fmt.Fprintln(w, "| --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, r := range c.rows {
		verdict := ""
		if r.Passed != nil {
			verdict = "missed"
			if *r.Passed {
				verdict = "met"
			}
		}
		if r.Note != "" {
			verdict = strings.TrimPrefix(verdict+"; "+r.Note, "; ")
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %.2f | %s | %s | %.3f %%, %.3f %% |\n",
			r.Case, r.Unit, number(r.Turngate), number(r.Coturn), r.Ratio, r.Target, verdict, 100*r.Loss[0], 100*r.Loss[1])
	}
}

func number(f float64) string {
	if f >= 100 {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.2f", f)
}
