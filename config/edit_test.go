package config

import (
	"strings"
	"testing"
)

const twoUsers = `# my file
[turn]
min_port = 20000 # low

# of the CRM
[[turn.user]]
  name = "a"   # first
  password = "one-of-a-kind-0" # secret

[[turn.user]] # second
password = """
two-of-a-kind-00"""
passwords = [
  "old", # until June
]
name = 'b'
# of nobody

# of the log
[[logger]]
preset = "trtc"
`

const (
	passwordsOfB = "\"\"\"\ntwo-of-a-kind-00\"\"\"\npasswords = [\n  \"old\", # until June\n]"
	userC        = "\n[[turn.user]]\nname = \"c\"\npassword = \"it's \\\"new\\\"\\\\\"\n"
)

func TestUsersAreChangedInPlace(t *testing.T) {
	remove := func(i int) func([]byte) ([]byte, error) {
		return func(text []byte) ([]byte, error) { return RemoveUser(text, i) }
	}
	set := func(i int, password string, old ...string) func([]byte) ([]byte, error) {
		return func(text []byte) ([]byte, error) { return SetPasswords(text, i, password, old...) }
	}
	add := func(text []byte) ([]byte, error) { return AddUser(text, "c", `it's "new"\`), nil }
	for _, tt := range []struct {
		name, text string
		change     func([]byte) ([]byte, error)
		old, new   string // what of the text becomes what
	}{
		{"added at the end", twoUsers, add, "preset = \"trtc\"\n", "preset = \"trtc\"\n" + userC},
		{"added behind a line without an end", "[turn]", add, "[turn]", "[turn]\n" + userC},
		{"the first removed", twoUsers, remove(0),
			"[[turn.user]]\n  name = \"a\"   # first\n  password = \"one-of-a-kind-0\" # secret\n\n", "\n"},
		{"the second removed", twoUsers, remove(1), "[[turn.user]] # second\npassword = " + passwordsOfB + "\nname = 'b'\n", ""},
		{"the only one removed", "[turn]\n\n[[turn.user]]\nname = \"a\"\npassword = \"p\"", remove(0),
			"\n[[turn.user]]\nname = \"a\"\npassword = \"p\"", ""},
		{"a password and two old ones", twoUsers, set(0, "new", "one", " two "), `"one-of-a-kind-0" # secret`, "\"new\" # secret\npasswords = [\"one\", \" two \"]"},
		{"a password alone", twoUsers, set(0, "new"), `"one-of-a-kind-0"`, `"new"`},
		{"over several lines", twoUsers, set(1, "new", "two"), passwordsOfB, "\"new\"\npasswords = [\"two\"]"},
		{"the old one forgotten", twoUsers, set(1, "new"), passwordsOfB, "\"new\"\npasswords = []"},
		{"passwords before the name", "[[turn.user]]\npasswords = [\"a\"]\nname = \"u\"\n", set(0, "new", "b"),
			"[\"a\"]\nname = \"u\"\n", "[\"b\"]\nname = \"u\"\npassword = \"new\"\n"},
		{"passwords behind the name", "[[turn.user]]\nname = \"u\"\npasswords = [\"a\"]\n", set(0, "new", "b"),
			"name = \"u\"\npasswords = [\"a\"]\n", "name = \"u\"\npassword = \"new\"\npasswords = [\"b\"]\n"},
		{"lines that end as on Windows", "\ufeff[[turn.user]]\r\nname = \"u\"\r\npassword = \"p\"\r\n[https]\r\n", set(0, "new", "p"),
			"\"p\"\r\n", "\"new\"\r\npasswords = [\"p\"]\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Count(tt.text, tt.old) != 1 {
				t.Fatalf("%q does not stand in the text once", tt.old)
			}
			want := strings.Replace(tt.text, tt.old, tt.new, 1)
			got, err := tt.change([]byte(tt.text))
			if err != nil || string(got) != want {
				t.Errorf("%v, got:\n%s\nwant:\n%s", err, got, want)
			}
		})
	}
}

func TestAUserWithoutATableIsLeftToItsAuthor(t *testing.T) {
	text := []byte("[turn]\nuser = [\n  {name = \"a\", password = \"p\"},\n]\n")
	if _, err := RemoveUser(text, 0); err == nil || !strings.HasPrefix(err.Error(), "line 3: ") {
		t.Errorf("removed: %v", err)
	}
	if _, err := SetPasswords(text, 0, "new"); err == nil || !strings.HasPrefix(err.Error(), "line 3: ") {
		t.Errorf("changed: %v", err)
	}
}

// Whatever a file looks like, a change of its users ends in a file that says so, or in an error.
func FuzzUsersInPlace(f *testing.F) {
	f.Add(twoUsers)
	f.Add(Reference)
	f.Add("[[turn.user]]\nname=\"a\"\npassword='''p'''#\n[turn.'limits'] # x")
	f.Fuzz(func(t *testing.T, text string) {
		users := func(text []byte) []User {
			cfg, _ := LoadBytes("", text, Env{})
			if cfg == nil {
				return nil
			}
			return cfg.TURN.User
		}
		list := users([]byte(text))
		for i, u := range list {
			if changed, err := SetPasswords([]byte(text), i, "a new password", "an old one"); err == nil {
				got := users(changed)
				if len(got) != len(list) || got[i].Name != u.Name || got[i].Password.Reveal() != "a new password" || len(got[i].Passwords) != 1 {
					t.Errorf("password of %q in:\n%s\nmade:\n%s", u.Name, text, changed)
				}
			}
			if changed, err := RemoveUser([]byte(text), i); err == nil {
				if got := users(changed); len(got) != len(list)-1 {
					t.Errorf("without %q, %d users in:\n%s\nof:\n%s", u.Name, len(got), changed, text)
				}
			}
		}
	})
}
