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

// TRTCInternationalBelow divides the TRTC clouds: an sdkAppId below it belongs
// to the international one, any other to the mainland one.
const TRTCInternationalBelow = 1_400_000_000

// TRTCLogUpstream is where the log reports of a TRTC application go.
func TRTCLogUpstream(sdkAppID uint64) []*url.URL {
	if sdkAppID < TRTCInternationalBelow {
		return urls("https://apisgp.my-imcloud.com/")
	}
	return urls("https://yun.tim.qq.com/")
}

// TRTCScheduleUpstream are the schedulers of a TRTC application, the first to
// be asked first. Clients of the older SDK know the first of each pair too.
func TRTCScheduleUpstream(sdkAppID uint64) []*url.URL {
	if sdkAppID < TRTCInternationalBelow {
		return urls("https://schedule.rtc-web.com/", "https://schedule.rtc-web.io/")
	}
	return urls("https://schedule.cloud-rtc.com/", "https://schedule.cloud-rtc.net/")
}

// reset gives the route the default values of a preset, or those of a plain
// route when preset is "" or not known.
func (r *Signaling) reset(preset string) {
	*r = Signaling{Preset: preset, XFF: "replace", Answer: "standard", KeepCookies: true}
	switch preset {
	case PresetTRTC:
		r.Path = "/ws/"
		r.Upstream = urls("https://signaling.rtc.qq.com/")
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
