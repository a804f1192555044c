package config

import (
	"net/url"
	"time"
)

// Presets are default values for the keys of a route, nothing more: every one
// of them can be overridden in the route.
const (
	PresetTRTC = "trtc"

	// The environments of watchRTC. SDKs before 1.39.1 know the legacy ones.
	PresetWatchRTC              = "watchrtc"
	PresetWatchRTCStaging       = "watchrtc-staging"
	PresetWatchRTCLegacy        = "watchrtc-legacy"
	PresetWatchRTCStagingLegacy = "watchrtc-staging-legacy"

	PresetWsProxy = "wsproxy" // of WebSocket routes only
	PresetQrator  = "qrator"  // of WebSocket routes only
)

var (
	loggerPresets    = []string{PresetTRTC, PresetWatchRTC, PresetWatchRTCStaging, PresetWatchRTCLegacy, PresetWatchRTCStagingLegacy}
	signalingPresets = append(loggerPresets[:len(loggerPresets):len(loggerPresets)], PresetWsProxy, PresetQrator)
)

// watchRTC says where each environment of watchRTC is.
var watchRTC = map[string]string{
	PresetWatchRTC:              "https://watchrtc-server.cyara.com/",
	PresetWatchRTCStaging:       "https://watchrtc.spearline.dev/",
	PresetWatchRTCLegacy:        "https://watchrtc.testrtc.com/",
	PresetWatchRTCStagingLegacy: "https://watchrtc-staging2.testrtc.com/",
}

// IsWatchRTC reports whether a preset is for an environment of watchRTC.
func IsWatchRTC(preset string) bool { return watchRTC[preset] != "" }

// reset gives the route the default values of a preset, or those of a plain
// route when preset is "" or not known.
func (r *Signaling) reset(preset string) {
	*r = Signaling{
		Preset: preset, Balance: "order", XFF: "replace", Identify: true, Answer: "standard", MaxMessage: 16 << 20, KeepCookies: true,
		HealthCheck: "off", HealthInterval: Duration(5 * time.Second), HealthRise: 2, HealthFall: 2,
		Inspection: inspection(),
	}
	switch preset {
	case PresetTRTC:
		r.Path = "/ws/"
		r.Upstream = targets("https://signaling.rtc.qq.com/")
		r.MaxMessage = 1 << 20 // the SDKs send up to 20 kB
		r.KeepCookies = false
		r.Identify = false
	case PresetWatchRTC, PresetWatchRTCStaging, PresetWatchRTCLegacy, PresetWatchRTCStagingLegacy:
		r.Path = "/" + preset
		r.Upstream = targets(watchRTC[preset])
		r.XFF = "append" // the service takes the left-most address for the client
		r.Identify = false
	case PresetWsProxy:
		r.Path = "/"
		r.Mode = ModeHeaders
		r.Identify = false
		r.MaxMessage, r.MaxUpstreamMessage = 64<<20, 64<<20 // the headers say less
	case PresetQrator:
		r.Path = "/"
		r.Answer = "qrator"
		r.Balance = "client_ip"
		r.XFF = "append"
		r.Identify = false
		r.AddHeaders = map[string]HeaderValue{
			"X-Qrator-IP-Source": {NewSecret("{client}")},
			"X-Qrator-RequestID": {NewSecret("{id}")},
		}
	}
}

// reset is like that of Signaling.
func (r *Logger) reset(preset string) {
	*r = Logger{Preset: preset, XFF: "replace", KeepCookies: true,
		MaxBody: 8 << 20, Timeout: Duration(10 * time.Second), SpoolStatus: 200, SpoolAge: Duration(24 * time.Hour)}
	switch preset {
	case PresetTRTC:
		r.Path = "/logger/"
		r.KeepCookies = false
	case PresetWatchRTC, PresetWatchRTCStaging, PresetWatchRTCLegacy, PresetWatchRTCStagingLegacy:
		r.Path = "/" + preset
		r.Upstream = urls(watchRTC[preset])
		r.XFF = "append"
	}
}

// urls parses what this package wrote itself.
func urls(texts ...string) []*url.URL {
	list := make([]*url.URL, len(texts))
	for i, text := range texts {
		u, err := parseURL(text)
		if err != nil {
			panic(err)
		}
		list[i] = u
	}
	return list
}
