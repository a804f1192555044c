package importer

import (
	"slices"
	"strings"
)

// test is one thing that a condition asks.
type test struct {
	kind   string // "path", "host", "ws", "src", "true", "rate" or "" for what is not known
	values []string
	not    bool
	what   string // the criterion, for remarks
}

// conjunction are tests that must all hold.
type conjunction []test

// acls are the named conditions of a section. Several lines of one name are
// alternatives.
func acls(s *section) map[string][]test {
	m := map[string][]test{}
	for _, l := range s.all("acl") {
		if len(l.words) >= 3 {
			m[l.words[1]] = append(m[l.words[1]], criterion(l.words[2:]))
		}
	}
	return m
}

// criterion reads "path_beg -i /ws /x".
func criterion(words []string) test {
	name := words[0]
	t := test{what: name}
	base, _, _ := strings.Cut(name, ",") // converters
	if rest, ok := strings.CutSuffix(name, ",lower"); ok {
		base = rest
	} else if base != name {
		return t
	}
	match := ""
	values := words[1:]
	for len(values) > 0 && strings.HasPrefix(values[0], "-") && values[0] != "--" {
		switch values[0] {
		case "-m":
			if len(values) < 2 {
				return t
			}
			match = values[1]
			values = values[1:]
		case "-f", "-M", "-u":
			return t // values of a file
		}
		values = values[1:]
	}
	if len(values) > 0 && values[0] == "--" {
		values = values[1:]
	}
	t.values = values
	switch lower := strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(base, "req."), "req_")); {
	case base == "path_beg" || base == "path_dir" || base == "path" || base == "url_beg" || base == "pathq" && match == "beg":
		if match == "" || match == "beg" || match == "dir" || match == "str" {
			t.kind = "path"
		}
	case (lower == "hdr(host)" || base == "ssl_fc_sni" || base == "req.ssl_sni" || base == "req_ssl_sni" || lower == "hdr(host,1)" || lower == "fhdr(host)") && (match == "" || match == "str"):
		t.kind = "host"
	case (lower == "hdr_dom(host)" || lower == "hdr_end(host)") && (match == ""):
		t.kind = "host"
		for i, v := range t.values {
			if strings.HasPrefix(v, ".") {
				t.values[i] = "*" + v
			}
		}
	case lower == "hdr(upgrade)" && slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, "websocket") }),
		lower == "hdr(connection)" && slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, "upgrade") }),
		lower == "hdr_cnt(sec-websocket-key)", lower == "hdr(sec-websocket-key)" && match == "found", lower == "hdr(sec-websocket-version)":
		t.kind = "ws"
	case base == "src":
		t.kind = "src"
	case base == "ssl_fc" || base == "always_true" || base == "dst_port" || base == "TRUE" || base == "HTTP" || base == "fc_mux":
		t.kind = "true"
	case strings.Contains(base, "_rate") || strings.Contains(base, "conn_cur"):
		t.kind = "rate"
	}
	return t
}

// condition reads what stands behind "if" or "unless": alternatives of tests.
func condition(words []string, named map[string][]test) []conjunction {
	if len(words) == 0 {
		return []conjunction{nil}
	}
	unless := words[0] == "unless"
	if words[0] != "if" && !unless {
		return []conjunction{{test{what: words[0]}}}
	}
	all := []conjunction{nil}
	not := false
	add := func(alternatives []test) {
		last := all[len(all)-1]
		for i := range alternatives {
			if not {
				alternatives[i].not = !alternatives[i].not
			}
		}
		not = false
		one, same := alternatives[0], true
		for _, a := range alternatives[1:] {
			same = same && a.kind == one.kind && a.kind != "rate" && a.not == one.not
			one.values = slices.Concat(one.values, a.values)
		}
		if !same {
			one = test{what: one.what, not: one.not}
			for _, a := range alternatives {
				if a.kind == "" {
					one.what = a.what
				}
			}
		}
		all[len(all)-1] = append(last, one)
	}
	for i := 1; i < len(words) && len(all) < 200; i++ {
		w := words[i]
		for strings.HasPrefix(w, "!") {
			not, w = !not, w[1:]
		}
		switch w {
		case "":
		case "or", "||":
			all = append(all, nil)
		case "and", "&&":
		case "{":
			end := i + 1
			for end < len(words) && words[end] != "}" {
				end++
			}
			if end > i+1 {
				add([]test{criterion(slices.Clone(words[i+1 : end]))})
			}
			i = end
		case "TRUE", "HTTP", "METH_GET":
			add([]test{{kind: "true", what: w}})
		default:
			if tests := named[w]; len(tests) > 0 {
				add(slices.Clone(tests))
			} else {
				add([]test{{what: w}})
			}
		}
	}
	if unless {
		if len(all) != 1 || len(all[0]) != 1 {
			return []conjunction{{test{what: "unless", not: true}}}
		}
		all[0][0].not = !all[0][0].not
	}
	return all
}

// ifPart is the condition of a line: from "if" or "unless" on.
func ifPart(words []string) (before, cond []string) {
	for i, w := range words {
		if w == "if" || w == "unless" {
			return words[:i], words[i:]
		}
	}
	return words, nil
}
