package manual

import (
	"strings"
	"unicode"

	east "github.com/yuin/goldmark/extension/ast"
)

// wrap breaks a text at blanks, and between the signs of scripts that have
// none, into lines of at most width columns. A longer word gets a line of its
// own.
func wrap(text string, width int) []string {
	width = max(width, 20)
	var lines []string
	line, used, blank := "", 0, false
	for _, word := range words(text) {
		if word == " " {
			blank = true
			continue
		}
		n := columns(word)
		gap := 0
		if blank && line != "" {
			gap = 1
		}
		if line != "" && used+gap+n > width {
			lines = append(lines, line)
			line, used, gap = "", 0, 0
		}
		line += strings.Repeat(" ", gap) + word
		used += gap + n
		blank = false
	}
	if line == "" && len(lines) > 0 {
		return lines
	}
	return append(lines, line)
}

// closing are signs that do not begin a line.
const closing = "，。、；：）」”,.;:)!?"

// words cuts a text into pieces between which a line may end; blanks are " ".
// Escape sequences of a piece in bold are opened and closed in each piece, so
// that a line can be padded and cut.
func words(text string) []string {
	var list []string
	word, inBold := "", false
	end := func() {
		if word != "" && word != bold {
			if inBold {
				word += plain
			}
			list = append(list, word)
		}
		word = ""
		if inBold {
			word = bold
		}
	}
	for rest := text; rest != ""; {
		if after, ok := strings.CutPrefix(rest, bold); ok {
			rest, inBold, word = after, true, word+bold
			continue
		}
		if after, ok := strings.CutPrefix(rest, plain); ok {
			rest, inBold = after, false
			if strings.HasSuffix(word, bold) {
				word = strings.TrimSuffix(word, bold)
			} else {
				word += plain
			}
			continue
		}
		for _, r := range rest {
			rest = rest[len(string(r)):]
			switch {
			case r == ' ':
				end()
				list = append(list, " ")
			case wide(r) && !strings.ContainsRune(closing, r):
				end()
				word += string(r)
				if next := []rune(rest); len(next) == 0 || !strings.ContainsRune(closing, next[0]) {
					end()
				}
			default:
				word += string(r)
			}
			break
		}
	}
	end()
	return list
}

// wide reports whether a terminal gives the sign two columns.
func wide(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana) ||
		r >= 0x3000 && r <= 0x303F || r >= 0xFF01 && r <= 0xFF60
}

// columns is the width of a text on a terminal.
func columns(s string) int {
	n := 0
	for _, r := range strings.NewReplacer(bold, "", plain, "").Replace(s) {
		n++
		if wide(r) {
			n++
		}
	}
	return n
}

// table writes columns side by side, or, where the terminal is too narrow for
// that, one row below the other.
func (r *renderer) table(t *east.Table, first, indent string) {
	var rows [][]string
	for row := t.FirstChild(); row != nil; row = row.NextSibling() {
		var cells []string
		for cell := row.FirstChild(); cell != nil; cell = cell.NextSibling() {
			cells = append(cells, r.page.inline(cell, r.style))
		}
		rows = append(rows, cells)
	}
	head, rows := rows[0], rows[1:]
	widths, fits := layout(append([][]string{head}, rows...), r.style.Width-columns(indent))
	if !fits {
		for i, row := range rows {
			if i > 0 {
				r.out.WriteByte('\n')
			}
			for c, cell := range row {
				lead := "    "
				switch {
				case cell == "":
					continue
				case c == 0:
					lead = ""
				case head[c] != "":
					cell = head[c] + ": " + cell
				}
				r.put(first+lead, indent+lead, wrap(cell, r.style.Width-columns(indent+lead))...)
				first = indent
			}
		}
		return
	}
	if strings.Join(head, "") != "" {
		for c := range head {
			head[c] = r.style.strong(head[c])
		}
		r.row(head, widths, first, indent)
		first = indent
		var line []string
		for _, w := range widths {
			line = append(line, strings.Repeat("-", w))
		}
		r.put(first, indent, strings.Join(line, "  "))
	}
	for _, row := range rows {
		r.row(row, widths, first, indent)
		first = indent
	}
}

// layout gives each column its width: what it needs if that fits, else a fair
// share. It does not fit when a column would break ordinary words.
func layout(rows [][]string, width int) ([]int, bool) {
	need, least := make([]int, len(rows[0])), make([]int, len(rows[0]))
	for _, row := range rows {
		for c, cell := range row {
			need[c] = max(need[c], columns(cell))
			for _, w := range words(cell) {
				least[c] = max(least[c], columns(w))
			}
		}
	}
	total := 2 * (len(need) - 1)
	for _, n := range need {
		total += n
	}
	for ; total > width; total-- {
		widest, most := -1, 0
		for c, n := range need {
			if n > max(least[c], 12) && n > most {
				widest, most = c, n
			}
		}
		if widest < 0 {
			return nil, false
		}
		need[widest]--
	}
	return need, true
}

func (r *renderer) row(cells []string, widths []int, first, indent string) {
	wrapped := make([][]string, len(cells))
	height := 1
	for c, cell := range cells {
		wrapped[c] = wrap(cell, widths[c])
		height = max(height, len(wrapped[c]))
	}
	for line := range height {
		out := first
		for c := range cells {
			part := ""
			if line < len(wrapped[c]) {
				part = wrapped[c][line]
			}
			out += part + strings.Repeat(" ", max(0, widths[c]-columns(part))+2)
		}
		r.put(out, "", "")
		first = indent
	}
}
