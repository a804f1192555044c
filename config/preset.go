package config

import (
	"net/url"
	"time"
)

// Presets are default values for the keys of a route, nothing more: every one
// of them can be overridden in the route.
const (
	PresetTRTC            = "trtc"
	PresetWatchRTC        = "watchrtc"
	PresetWatchRTCStaging = "watchrtc-staging"

	presetWsProxy = "wsproxy" // known, but not available in this version
)

var presets = []string{PresetTRTC, PresetWatchRTC, PresetWatchRTCStaging}

// reset gives the route the default values of a preset, or those of a plain
// route when preset is "" or not known.
func (r *Signaling) reset(preset string) {
	*r = Signaling{Preset: preset, XFF: "replace", Answer: "standard", MaxMessage: 16 << 20, KeepCookies: true}
	switch preset {
	case PresetTRTC:
		r.Path = "/ws/"
		r.Upstream = urls("https://signaling.rtc.qq.com/")
		r.MaxMessage = 1 << 20 // the SDKs send up to 20 kB
		r.KeepCookies = false
	case PresetWatchRTC, PresetWatchRTCStaging:
		r.Path = "/" + preset
		r.Upstream = watchRTC(preset)
		r.XFF = "append" // the service takes the left-most address for the client
	}
}

// reset is like that of Signaling.
func (r *Logger) reset(preset string) {
	*r = Logger{Preset: preset, XFF: "replace", KeepCookies: true,
		MaxBody: 8 << 20, Timeout: Duration(10 * time.Second)}
	switch preset {
	case PresetTRTC:
		r.Path = "/logger/"
		r.KeepCookies = false
	case PresetWatchRTC, PresetWatchRTCStaging:
		r.Path = "/" + preset
		r.Upstream = watchRTC(preset)
		r.XFF = "append"
	}
}

func watchRTC(preset string) []*url.URL {
	if preset == PresetWatchRTCStaging {
		return urls("https://watchrtc.spearline.dev/")
	}
	return urls("https://watchrtc-server.cyara.com/")
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
