package peers

import (
	"strings"
	"testing"
)

func TestParseRule(t *testing.T) {
	for in, want := range map[string]string{
		"203.0.113.7":               "203.0.113.7",
		"203.0.113.7/32":            "203.0.113.7",
		"203.0.113.0/24":            "203.0.113.0/24",
		"203.0.113.0/24:8000":       "203.0.113.0/24:8000",
		"203.0.113.0/24:8000-8010":  "203.0.113.0/24:8000-8010",
		"203.0.113.7:8000-8000":     "203.0.113.7:8000",
		"2001:db8::/32":             "2001:db8::/32",
		"2001:db8::7":               "2001:db8::7",
		"[2001:db8::/32]":           "2001:db8::/32",
		"[2001:db8::/32]:8000":      "[2001:db8::/32]:8000",
		"[2001:db8::7]:8000-8010":   "[2001:db8::7]:8000-8010",
		"0.0.0.0/0":                 "0.0.0.0/0",
		"::/0":                      "::/0",
		"[203.0.113.0/24]:1-65535":  "203.0.113.0/24:1-65535",
		"2001:0db8:0000:0000::/32":  "2001:db8::/32",
		"64:ff9b::203.0.113.7":      "64:ff9b::cb00:7107",
		"255.255.255.255:65535":     "255.255.255.255:65535",
		"[::]:1":                    "[::]:1",
		"100.64.0.0/10:50000-65535": "100.64.0.0/10:50000-65535",
	} {
		r, err := ParseRule(in)
		if err != nil {
			t.Errorf("ParseRule(%q): %v", in, err)
			continue
		}
		if got := r.String(); got != want {
			t.Errorf("ParseRule(%q) prints as %q, want %q", in, got, want)
		}
		if again, err := ParseRule(r.String()); err != nil || again != r {
			t.Errorf("ParseRule(%q): %v, %v, want what %q gave", r, again, err, in)
		}
	}
}

func TestParseRuleSaysWhatToWrite(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "write 203.0.113.7",
		"media.example.com":        "names are not looked up",
		"203.0.113.0/33":           "write it as 203.0.113.0/24",
		"203.0.113.0/":             "write it as",
		"203.0.113.7/24":           "write 203.0.113.0/24 for the network",
		"2001:db8::7/32":           "write 2001:db8::/32 for the network",
		"::ffff:10.0.0.0/104":      "write 10.0.0.0/8",
		"::ffff:10.0.0.1":          "write 10.0.0.1/32",
		"fe80::1%eth0":             "zone",
		"203.0.113.0/24:":          "no port behind the colon",
		"203.0.113.0/24:0":         "from 1 to 65535",
		"203.0.113.0/24:65536":     "from 1 to 65535",
		"203.0.113.0/24:-8":        "write 8000 or 8000-8010",
		"203.0.113.0/24:8-":        "write 8000 or 8000-8010",
		"203.0.113.0/24:8010-8000": "swap the two",
		"203.0.113.0/24:http":      "write 8000 or 8000-8010",
		"[2001:db8::/32":           "closing bracket",
		"[2001:db8::/32]8000":      "behind the bracket",
		"[2001:db8::/32]:":         "behind the bracket",
		"10/8":                     "is not a network",
		"010.0.0.1":                "is not an address",
		" 10.0.0.1":                "is not an address",
		"10.0.0.0/8,11.0.0.0/8":    "is not a network",
	} {
		_, err := ParseRule(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseRule(%q): %v, want an error with %q", in, err, want)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8:1-2", "[::1]:2", "::/0", "[", "1:2", "::ffff:1.2.3.4/96"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRule(s)
		if err != nil {
			return
		}
		if again, err := ParseRule(r.String()); err != nil || again != r {
			t.Fatalf("%q became %v, which reads as %v, %v", s, r, again, err)
		}
		if _, err := New(Options{Allow: []Rule{r}, Deny: []Rule{r}}); err != nil {
			t.Fatalf("%q parses, but New says %v", s, err)
		}
	})
}
