package manual

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/yuin/goldmark/ast"
	east "github.com/yuin/goldmark/extension/ast"
)

type node = ast.Node

// Style says how a section is rendered.
type Style struct {
	Width int  // columns of the terminal; 0: 80
	Bold  bool // headings and code by escape sequences; otherwise in plain signs
	// Link returns what stands in brackets behind the text of a link, for its
	// target; nil or "": nothing.
	Link func(target string) string
}

// Write renders a section.
func (s Section) Write(w io.Writer, style Style) error {
	if style.Width <= 0 {
		style.Width = 80
	}
	r := renderer{page: s.Page, style: style}
	for _, n := range s.Page.nodes[s.from:s.to] {
		r.block(n, "", "")
	}
	_, err := io.WriteString(w, strings.TrimLeft(r.out.String(), "\n"))
	return err
}

type renderer struct {
	page  *Page
	style Style
	out   strings.Builder
	tight bool // no empty line before the next block
}

// block writes a block; first stands before its first line, indent before all
// others.
func (r *renderer) block(n node, first, indent string) {
	if !r.tight {
		r.out.WriteByte('\n')
	}
	r.tight = false
	switch n := n.(type) {
	case *ast.Heading:
		lines := wrap(r.page.inline(n, Style{}), r.style.Width-columns(indent))
		under := 0
		for i, line := range lines {
			under = max(under, columns(line))
			lines[i] = r.style.strong(line)
		}
		if n.Level <= 2 && !r.style.Bold {
			lines = append(lines, strings.Repeat(map[int]string{1: "=", 2: "-"}[n.Level], under))
		}
		r.put(first, indent, lines...)
	case *ast.FencedCodeBlock, *ast.CodeBlock:
		for line := range strings.Lines(r.page.lines(n)) {
			r.out.WriteString(strings.TrimRight(first+"    "+line, " \n") + "\n")
			first = indent
		}
	case *ast.List:
		r.list(n, first, indent)
	case *ast.Blockquote:
		r.children(n, first+"| ", indent+"| ")
	case *east.Table:
		r.table(n, first, indent)
	case *ast.ThematicBreak:
		r.put(first, indent, strings.Repeat("-", 20))
	case *ast.HTMLBlock: // a comment
		r.tight = true
	default:
		r.put(first, indent, wrap(r.page.inline(n, r.style), r.style.Width-columns(indent))...)
	}
}

func (r *renderer) children(n node, first, indent string) {
	r.tight = true
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if l, ok := c.(*ast.List); ok && l.IsTight {
			r.tight = true
		}
		r.block(c, first, indent)
		first = indent
	}
	r.tight = false
}

func (r *renderer) list(l *ast.List, first, indent string) {
	number := l.Start
	for item := l.FirstChild(); item != nil; item = item.NextSibling() {
		mark := "- "
		if l.IsOrdered() {
			mark = fmt.Sprintf("%d. ", number)
			number++
		}
		if item != l.FirstChild() && !l.IsTight {
			r.out.WriteByte('\n')
		}
		r.children(item, first+mark, indent+strings.Repeat(" ", len(mark)))
		first = indent
	}
}

// put writes lines.
func (r *renderer) put(first, indent string, lines ...string) {
	for _, line := range lines {
		r.out.WriteString(strings.TrimRight(first+line, " ") + "\n")
		first = indent
	}
}

const bold, plain = "\x1b[1m", "\x1b[0m"

func (s Style) strong(text string) string {
	if !s.Bold || text == "" {
		return text
	}
	return bold + text + plain
}

func (s Style) code(text string) string {
	if !s.Bold {
		return "`" + text + "`"
	}
	return s.strong(text)
}

// plain is the text of a block in one line, without any mark.
func (p *Page) plain(n node) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := n.(*ast.Text); ok && entering {
			b.Write(t.Value(p.src))
			if t.SoftLineBreak() || t.HardLineBreak() {
				b.WriteByte(' ')
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// content is all text of a block, code and link targets included.
func (p *Page) content(n node) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch {
		case !entering:
		case n.Kind() == ast.KindFencedCodeBlock || n.Kind() == ast.KindCodeBlock:
			b.WriteString(p.lines(n))
		case n.Kind() == ast.KindText:
			b.Write(n.(*ast.Text).Value(p.src))
			if n.(*ast.Text).SoftLineBreak() {
				b.WriteByte(' ')
			}
		case n.Type() == ast.TypeBlock:
			b.WriteByte('\n')
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// inline renders what stands in a block, in one line.
func (p *Page) inline(n node, style Style) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		switch c := c.(type) {
		case *ast.Text:
			b.Write(c.Value(p.src))
			// Scripts without blanks have none at the end of a line either.
			if last, _ := utf8.DecodeLastRuneInString(b.String()); (c.SoftLineBreak() || c.HardLineBreak()) && !wide(last) {
				b.WriteByte(' ')
			}
		case *ast.String:
			b.Write(c.Value)
		case *ast.CodeSpan:
			b.WriteString(style.code(p.inline(c, Style{})))
		case *ast.Emphasis:
			if c.Level > 1 {
				b.WriteString(style.strong(p.inline(c, Style{Link: style.Link})))
			} else {
				b.WriteString(p.inline(c, style))
			}
		case *ast.Link:
			shown, where := p.inline(c, style), ""
			if style.Link != nil {
				where = style.Link(string(c.Destination))
			}
			switch {
			case where == "" || where == shown:
				b.WriteString(shown)
			case strings.HasSuffix(shown, ".md"): // a name of no use where there are no files
				b.WriteString(style.code(where))
			default:
				b.WriteString(shown + " (" + where + ")")
			}
		case *ast.AutoLink:
			b.Write(c.URL(p.src))
		default:
			b.WriteString(p.inline(c, style))
		}
	}
	return b.String()
}
