// Command turnload loads TURN servers.
//
//	turnload bench -server ADDR -user U -password P -pid PID ...    one server that runs already: rates, CPU, latency
//	turnload compare -turngate BINARY                              turngate and coturn in turn, a table of ratios
//	turnload FLAGS                                                 the soak: churn at a turngate, then is all given back?
//
// The first works with any TURN server. .ci/compare-turn runs the second,
// .ci/soak the third. docs/measurements.md says how to read the figures.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	var err error
	switch command {
	case "bench":
		err = bench(args[1:], stdout, stderr)
	case "compare":
		err = compare(args[1:], stdout, stderr)
	default:
		err = soak(args)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 2
	case err != nil:
		fmt.Fprintln(stderr, "turnload:", err)
		return 1
	}
	return 0
}
