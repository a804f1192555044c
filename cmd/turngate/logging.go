package main

import (
	"io"
	stdlog "log"
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/turngate/turngate/config"
)

// newLog returns the log of the process: text on a terminal, JSON otherwise,
// unless the format is fixed. The level can be changed while it is in use.
func newLog(w io.Writer, c config.Log, level *slog.LevelVar) *slog.Logger {
	level.Set(c.Level)
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	f, isFile := w.(*os.File)
	text := c.Format == "text" || c.Format != "json" && isFile && term.IsTerminal(int(f.Fd()))
	if text {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// adoptLibraries sends what libraries write to the standard logger to ours, at
// Debug: net/http quotes there what an upstream sent it unasked.
func adoptLibraries(log *slog.Logger) {
	stdlog.SetFlags(0)
	stdlog.SetOutput(slog.NewLogLogger(log.Handler(), slog.LevelDebug).Writer())
}

// readable writes durations as people do, also in JSON.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
