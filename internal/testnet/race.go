//go:build race

package testnet

// Race says that the race detector watches this process: it is slow then, and
// its memory says nothing.
const Race = true
