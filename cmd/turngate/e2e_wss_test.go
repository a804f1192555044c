package main

import (
	"testing"
	"time"
)

// await returns the first log line that contains every word, once it is there.
func (l *logBuffer) await(t testing.TB, words ...string) string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if line := l.line(words...); line != "" {
			return line
		}
	}
	t.Fatalf("no log line with %q:\n%s", words, l)
	return ""
}
