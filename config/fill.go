package config

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
)

// Origin says where the value of a key came from.
type Origin struct {
	File string `json:"file,omitempty"` // "" when no file gave it
	Line int    `json:"line,omitempty"`
	// Note is "default", "preset trtc", "env NAME", "domain", or a remark on
	// a value from the file.
	Note string `json:"note,omitempty"`
}

func (o Origin) String() string {
	if o.File == "" {
		return o.Note
	}
	s := fmt.Sprintf("%s:%d", o.File, o.Line)
	if o.Note != "" {
		s += ", " + o.Note
	}
	return s
}

// fill completes cfg after decoding: missing routes, keys that a route takes
// from other tables, values derived from others, and the origin of everything.
func fill(cfg *Config, d *decoder) {
	cfg.origins = map[string]Origin{}
	if !d.set["signaling"] {
		cfg.Signaling = make([]Signaling, 1)
		cfg.Signaling[0].reset(PresetTRTC)
	}
	if !d.set["logger"] {
		cfg.Logger = make([]Logger, 1)
		cfg.Logger[0].reset(PresetTRTC)
	}
	fillOrigins(cfg, d)
	for i := range cfg.Signaling {
		r := &cfg.Signaling[i]
		inherit(cfg, d, element("signaling", i), reflect.ValueOf(&r.Reach).Elem())
		inheritLists(cfg, d, element("signaling", i), r.Preset, &r.SDKAppIDs, &r.Origins)
	}
	for i := range cfg.Logger {
		r := &cfg.Logger[i]
		inherit(cfg, d, element("logger", i), reflect.ValueOf(&r.Reach).Elem())
		inheritLists(cfg, d, element("logger", i), r.Preset, &r.SDKAppIDs, &r.Origins)
	}
	derive(cfg, d)
	deriveMode(cfg, d)
}

// fillOrigins notes for each value whether the file, a preset or the default
// gave it.
func fillOrigins(cfg *Config, d *decoder) {
	var plainSignaling Signaling
	var plainLogger Logger
	plainSignaling.reset("")
	plainLogger.reset("")
	walk(reflect.ValueOf(cfg).Elem(), "", byIndex, func(l leaf) {
		o := Origin{Note: "default"}
		switch {
		case d.set[l.key]:
			o = Origin{File: d.file, Line: d.pos.line(l.key)}
			if d.file == "" {
				o = Origin{Note: "start without a file"}
			}
			if s, ok := l.value.Interface().(Secret); ok {
				o.Note = strings.Replace(s.ref(), ":", " ", 1)
			}
		case strings.HasPrefix(l.key, "signaling["):
			o = presetOrigin(l, reflect.ValueOf(cfg.Signaling), "signaling", reflect.ValueOf(plainSignaling))
		case strings.HasPrefix(l.key, "logger["):
			o = presetOrigin(l, reflect.ValueOf(cfg.Logger), "logger", reflect.ValueOf(plainLogger))
		}
		cfg.origins[l.key] = o
	})
}

// presetOrigin tells a value of a route that its preset chose from one that
// every route has.
func presetOrigin(l leaf, routes reflect.Value, list string, unset reflect.Value) Origin {
	for i := range routes.Len() {
		key, within := strings.CutPrefix(l.key, element(list, i)+".")
		if !within {
			continue
		}
		if strings.Contains(key, ".") { // of a table in the route: no preset has one
			break
		}
		preset := routes.Index(i).FieldByName("Preset").String()
		if preset != "" && l.name != "preset" && !reflect.DeepEqual(l.value.Interface(), unset.FieldByIndex(l.index).Interface()) {
			return Origin{Note: "preset " + preset}
		}
	}
	return Origin{Note: "default"}
}

// inherit gives a route the keys of [upstream] that it does not set.
func inherit(cfg *Config, d *decoder, route string, reach reflect.Value) {
	from := reflect.ValueOf(cfg.Upstream)
	for _, f := range fieldsOf(reach.Type()) {
		if key := child(route, f.name); !d.set[key] {
			name := reach.Type().FieldByIndex(f.index).Name
			reach.FieldByIndex(f.index).Set(from.FieldByName(name))
			cfg.origins[key] = cfg.origins[child("upstream", f.name)]
		}
	}
}

// inheritLists gives a route with the preset trtc the allow-lists of [trtc].
func inheritLists(cfg *Config, d *decoder, route, preset string, ids *[]uint64, origins *[]string) {
	if preset != PresetTRTC {
		return
	}
	if key := child(route, "sdk_app_ids"); !d.set[key] {
		*ids = cfg.TRTC.SDKAppIDs
		cfg.origins[key] = cfg.origins["trtc.sdk_app_ids"]
	}
	if key := child(route, "origins"); !d.set[key] {
		*origins = cfg.TRTC.Origins
		cfg.origins[key] = cfg.origins["trtc.origins"]
	}
}

// derive fills what an empty key stands for, and makes paths start at the
// directory of the file.
func derive(cfg *Config, d *decoder) {
	if cfg.TURN.Realm == "" {
		cfg.TURN.Realm = "turngate"
		if cfg.Domain != "" {
			cfg.TURN.Realm = cfg.Domain
			cfg.origins["turn.realm"] = Origin{Note: "domain"}
		}
	}
	if h := &cfg.HTTPS; h.MaxConnectionsPerAddress == 0 {
		// Whoever lets one address hold any number lets it open them too.
		for key, n := range map[string]*int{
			"tls_handshakes_per_second":      &h.Limits.TLSHandshakesPerSecond,
			"requests_per_second":            &h.Limits.RequestsPerSecond,
			"requests_per_second_per_user":   &h.Limits.RequestsPerSecondPerUser,
			"handshakes_per_second":          &h.Limits.HandshakesPerSecond,
			"handshakes_per_minute_per_user": &h.Limits.HandshakesPerMinutePerUser,
			"websockets_per_user":            &h.Limits.WebSocketsPerUser,
		} {
			if key = child("https.limits", key); !d.set[key] {
				*n, cfg.origins[key] = 0, Origin{Note: "https.max_connections_per_address"}
			}
		}
	}
	for i, name := range cfg.HTTPS.Names {
		cfg.HTTPS.Names[i] = strings.ToLower(name)
	}
	if cfg.Log.Access != AccessStdout {
		cfg.Log.Access = under(d.dir, cfg.Log.Access)
	}
	for i := range cfg.TURN.Database {
		db := &cfg.TURN.Database[i]
		if db.Realm == "" {
			db.Realm = cfg.TURN.Realm
			cfg.origins[child(element("turn.database", i), "realm")] = Origin{Note: "turn.realm"}
		}
		if path := db.DSN.Reveal(); db.Driver == DriverSQLite && path != "" {
			db.DSN = newSecret(under(d.dir, path), db.DSN.ref(), "")
		}
	}
	paths := []*string{&cfg.StateDir, &cfg.TLS.TicketKeys, &cfg.TLS.ACME.CARoot, &cfg.Upstream.CA, &cfg.Admin.Socket}
	for _, list := range [][]string{cfg.TLS.Cert, cfg.TLS.Key} {
		for i := range list {
			paths = append(paths, &list[i])
		}
	}
	for i := range cfg.Signaling {
		paths = append(paths, &cfg.Signaling[i].Reach.CA)
	}
	for i := range cfg.Logger {
		paths = append(paths, &cfg.Logger[i].Reach.CA)
	}
	for _, p := range paths {
		*p = under(d.dir, *p)
	}
	if cfg.StateDir == "" {
		cfg.StateDir, cfg.origins["state_dir"] = stateDir(d.env)
	}
	if cfg.Admin.Socket == "" {
		cfg.Admin.Socket, cfg.origins["admin.socket"] = socket(d.env, cfg.StateDir)
	}
}

// stateDir is where a service of this kind keeps its state: what the service
// manager says, else the custom of the system or of the user.
func stateDir(env Env) (string, Origin) {
	if dirs, ok := env.lookup("STATE_DIRECTORY"); ok && filepath.IsAbs(dirs) {
		dir, _, _ := strings.Cut(dirs, ":")
		return dir, Origin{Note: "env STATE_DIRECTORY"}
	}
	if env.Root {
		return "/var/lib/turngate", Origin{Note: "default"}
	}
	if dir, ok := env.lookup("XDG_STATE_HOME"); ok && filepath.IsAbs(dir) {
		return filepath.Join(dir, "turngate"), Origin{Note: "env XDG_STATE_HOME"}
	}
	home, _ := env.lookup("HOME")
	return filepath.Join(home, ".local/state/turngate"), Origin{Note: "default"}
}

func socket(env Env, stateDir string) (string, Origin) {
	if dirs, ok := env.lookup("RUNTIME_DIRECTORY"); ok && filepath.IsAbs(dirs) {
		dir, _, _ := strings.Cut(dirs, ":")
		return filepath.Join(dir, "admin.sock"), Origin{Note: "env RUNTIME_DIRECTORY"}
	}
	if env.Root {
		return "/run/turngate/admin.sock", Origin{Note: "default"}
	}
	return filepath.Join(stateDir, "admin.sock"), Origin{Note: "default"}
}
