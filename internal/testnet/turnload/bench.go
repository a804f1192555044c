package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"
)

// bench loads one server that runs already.
func bench(args []string, stdout, stderr io.Writer) error {
	o, asJSON, err := parseBench(args, stderr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	l, err := newLoad(ctx, o)
	if err != nil {
		return err
	}
	defer l.close()
	var results []*result
	var best *result
	ceiling := false
	if o.rate > 0 {
		if best, err = l.step(o.rate, o.duration); err != nil {
			return err
		}
		results = append(results, best)
	} else {
		if best, ceiling, err = l.search(ctx, func(r *result) { results = append(results, r) }); err != nil {
			return err
		}
	}
	if asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(map[string]any{
			"server": o.server, "transport": o.transport, "direction": o.direction(), "size": o.size,
			"allocations": o.allocations, "burst": o.burst, "steps": results, "best": best, "generatorLimited": ceiling,
		})
	}
	fmt.Fprintf(stdout, "%v over %s, %s, %d bytes, %d allocations, bursts of %d\n", o.server, o.transport, o.direction(), o.size, o.allocations, o.burst)
	printTable(stdout, results)
	if o.rate == 0 {
		fmt.Fprintf(stdout, "highest rate without loss: %.0f packets a second", best.Rate)
		if ceiling {
			fmt.Fprint(stdout, ", where the generator ends and not the server")
		}
		fmt.Fprintln(stdout)
	}
	return nil
}

// search looks for the highest rate without loss; each step is told to note.
// The result is that of the best step, empty when none was good.
func (l *load) search(ctx context.Context, note func(*result)) (best *result, ceiling bool, err error) {
	best = &result{}
	if _, err := l.step(l.o.from/2, min(l.o.duration, 300*time.Millisecond)); err != nil { // warm
		return best, false, err
	}
	_, ceiling, err = search(l.o.from, l.o.most, l.o.within, func(rate float64) (trial, error) {
		if err := ctx.Err(); err != nil {
			return lost, err
		}
		r, err := l.step(rate, l.o.duration)
		if err != nil {
			return lost, err
		}
		note(r)
		if r.trial() == passed && r.Rate > best.Rate {
			best = r
		}
		return r.trial(), nil
	})
	return best, ceiling, err
}
