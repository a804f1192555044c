package main

import (
	"net/http"
	"slices"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/signaling/inspect"
)

// inspectOptions translates the routes that look into messages. Such a route and
// a log route may share a path as any signaling route.
func (a *app) inspectOptions(cfg *config.Config, d dialers) (inspect.Options, error) {
	o := inspect.Options{Log: a.log}
	logs := a.logPlaces(cfg)
	for _, r := range cfg.Signaling {
		if r.Mode == config.ModeTunnel {
			continue
		}
		route, err := inspectRoute(cfg, r, d)
		if err != nil {
			return o, err
		}
		route.Plain = logs[trimSlash(proxy.RouteName(route.Listen, route.Path))]
		o.Routes = append(o.Routes, route)
	}
	return o, nil
}

func inspectRoute(cfg *config.Config, r config.Signaling, d dialers) (inspect.Route, error) {
	common, err := entryRoute(cfg, r, d)
	route := inspect.Route{
		Route: common,
		Settings: inspect.Settings{
			IdleTimeout:          time.Duration(r.IdleTimeout),
			IdleInbound:          r.IdleCounts == "inbound",
			MaxMessage:           int64(r.MaxMessage),
			MaxUpstreamMessage:   int64(r.MaxUpstreamMessage),
			ValidateUTF8:         r.ValidateUTF8,
			ValidateUpstreamUTF8: r.ValidateUTF8,
			Compress:             r.Compress,
		},
		Inbound:  hook(r.Hook.Inbound),
		Outbound: hook(r.Hook.Outbound),
	}
	if err != nil {
		return route, err
	}
	if r.Mode == config.ModeHeaders {
		route.ByHeaders = &inspect.ByHeaders{
			Trusted:     r.TrustedPeers,
			Strip:       r.Untrusted == "strip",
			Targets:     r.Targets,
			Concurrency: r.WebhookPoolSize,
		}
	}
	// A hook stands in the site's own network: the way out is not the way to it.
	near := r.Reach.Reach
	near.Proxy, near.NoProxy = config.Secret{}, nil
	route.HookDialer, err = d.get(near)
	return route, err
}

// hook translates a hook; one without URL is none.
func hook(h config.Hook) *inspect.Hook {
	if h.URL == "" {
		return nil
	}
	o := &inspect.Hook{
		URL:           h.URL,
		Method:        h.Method,
		Headers:       make(http.Header),
		Timeout:       time.Duration(h.Timeout),
		OnError:       h.OnError,
		InFlight:      h.InFlight,
		Concurrency:   h.Concurrency,
		Binary:        h.Binary,
		Rewrite:       h.Rewrite,
		MaxAnswer:     int64(h.MaxAnswer),
		BatchMessages: h.BatchMessages,
		BatchDelay:    time.Duration(h.BatchDelay),
	}
	for name, value := range h.Headers {
		o.Headers.Set(name, value.Reveal())
	}
	for id, secret := range h.Keys {
		o.Keys = append(o.Keys, inspect.Key{ID: id, Secret: []byte(secret.Reveal())})
	}
	slices.SortFunc(o.Keys, func(x, y inspect.Key) int { // a map has no order
		if x.ID < y.ID {
			return -1
		}
		return 1
	})
	return o
}
