package config

import (
	"fmt"
	"slices"
	"strings"
)

// AddUser writes one more [[turn.user]] at the end of a configuration file; all that stands there
// stays as it is. Like [RemoveUser] and [SetPasswords] it does not look whether the outcome is
// right: load it before it is written anywhere.
func AddUser(text []byte, name, password string) []byte {
	s := string(text)
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return []byte(s + "\n[[turn.user]]\nname = " + Quote(name) + "\npassword = " + Quote(EscapeSecret(password)) + "\n")
}

// RemoveUser takes the i-th [[turn.user]] out of a file that loads, from its header to its last key.
func RemoveUser(text []byte, i int) ([]byte, error) {
	u, err := findUser(text, i)
	if err != nil {
		return nil, err
	}
	before, after := u.src[:u.block.from], u.src[u.block.to:]
	if strings.HasSuffix(before, "\n\n") && (after == "" || after[0] == '\n') {
		before = before[:len(before)-1] // the blank line that parted it from what is above
	}
	return []byte(before + after), nil
}

// SetPasswords gives the i-th [[turn.user]] of a file that loads a password and the ones that are
// valid too. All are written as they are: literals, or references as "file:/path".
func SetPasswords(text []byte, i int, password string, old ...string) ([]byte, error) {
	u, err := findUser(text, i)
	if err != nil {
		return nil, err
	}
	// From the end of the file to its beginning, as each change moves what is behind it.
	quoted := make([]string, len(old))
	for i, p := range old {
		quoted[i] = Quote(p)
	}
	list := "[" + strings.Join(quoted, ", ") + "]"
	p, hasPassword := u.values["password"]
	o, hasOld := u.values["passwords"]
	src, behind := u.src, u.values["name"]
	if hasPassword {
		behind = p
	}
	replace := func(at span, by string) { src = src[:at.from] + by + src[at.to:] }
	insert := func(line string) { // behind the line that ends what is there
		end := len(src)
		if n := strings.IndexByte(src[behind.to:], '\n'); n >= 0 {
			end = behind.to + n
		}
		replace(span{end, end}, "\n"+line)
	}
	putOld := func() {
		switch {
		case hasOld:
			replace(o, list)
		case len(old) > 0:
			insert("passwords = " + list)
		}
	}
	putPassword := func() {
		if hasPassword {
			replace(p, Quote(password))
		} else {
			insert("password = " + Quote(password))
		}
	}
	if hasOld && o.from < behind.from {
		putPassword()
		putOld()
	} else {
		putOld()
		putPassword()
	}
	return []byte(src), nil
}

// userBlock is where a [[turn.user]] stands in a file.
type userBlock struct {
	src    string
	block  span            // from its header to the line of its last key
	values map[string]span // of its keys
}

func findUser(text []byte, i int) (userBlock, error) {
	u := userBlock{src: string(text), values: map[string]span{}}
	s := &scanner{src: u.src, lineNo: 1, pos: positions{}, tables: map[string]int{}, values: map[string]span{}}
	if strings.HasPrefix(u.src, "\ufeff") {
		s.at = len("\ufeff")
	}
	s.document()
	path := element("turn.user", i)
	at := slices.IndexFunc(s.headers, func(h header) bool { return h.path == path })
	if at < 0 {
		return u, fmt.Errorf("line %d: the user does not stand in a table [[turn.user]] of its own: change it by hand", s.pos.line(path))
	}
	u.block.from = s.headers[at].from
	for key, value := range s.values {
		if name, ok := strings.CutPrefix(key, path+"."); ok {
			u.values[name] = value
			u.block.to = max(u.block.to, value.to)
		}
	}
	if end := strings.IndexByte(u.src[u.block.to:], '\n'); end >= 0 {
		u.block.to += end + 1
	} else {
		u.block.to = len(u.src)
	}
	return u, nil
}
