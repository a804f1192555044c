package main

import "math"

// trial is how one rate went.
type trial int

const (
	passed  trial = iota
	lost          // the server lost too much
	limited       // the generator could not do it
)

// search finds the highest rate that passes, to within a share of it: it
// doubles until one does not, and then halves what is between. A rate that does
// not pass has a second chance, because other work on the machine can spoil
// one. ceiling says that the generator and not the server was the limit.
func search(from, most, within float64, try func(rate float64) (trial, error)) (best float64, ceiling bool, err error) {
	attempt := func(rate float64) (bool, error) {
		var t trial
		for range 2 {
			if t, err = try(rate); err != nil || t == passed {
				break
			}
		}
		if t != passed {
			ceiling = t == limited
		}
		return t == passed, err
	}
	bad := math.Inf(1)
	for rate := from; ; {
		ok, err := attempt(rate)
		if err != nil {
			return best, ceiling, err
		}
		if ok {
			best = rate
		} else {
			bad = rate
		}
		switch {
		case best == 0: // not even the first: go down
			if rate /= 2; rate < 1 {
				return 0, ceiling, nil
			}
		case best >= most:
			return best, true, nil
		case math.IsInf(bad, 1):
			rate = min(2*best, most)
		case bad/best <= 1+within:
			return best, ceiling, nil
		default:
			rate = math.Sqrt(best * bad)
		}
	}
}
