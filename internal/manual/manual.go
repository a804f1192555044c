// Package manual reads documents in Markdown: it finds what somebody asks for,
// renders it for a terminal, and hands out blocks and links to whoever tests
// them.
package manual

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// Manual is a set of pages. It is not changed after Read.
type Manual struct {
	pages []*Page
}

// Page is one document.
type Page struct {
	Name  string // file name without .md
	Title string // its first heading
	Lead  string // its first paragraph, in one line

	src      []byte
	nodes    []ast.Node // the blocks of the document in order
	sections []Section
}

// Section is a heading with all that follows it up to the next heading of its
// level or a higher one. The first section of a page is the whole page.
type Section struct {
	Page   *Page
	Title  string
	Anchor string // as in links: "#what-runs" without "#"
	Level  int

	from, to int // indices of Page.nodes
}

// Read parses every .md file at the top of the file system, in the order of
// their names.
func Read(files fs.FS) (*Manual, error) {
	names, err := fs.Glob(files, "*.md")
	if err != nil {
		return nil, err
	}
	m := &Manual{}
	for _, name := range names {
		src, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		p, err := Parse(strings.TrimSuffix(name, ".md"), src)
		if err != nil {
			return nil, err
		}
		m.pages = append(m.pages, p)
	}
	return m, nil
}

// Parse reads one document. It begins with a heading.
func Parse(name string, src []byte) (*Page, error) {
	md := goldmark.New(goldmark.WithExtensions(extension.Table))
	p := &Page{Name: name, src: src}
	anchors := map[string]int{}
	for n := md.Parser().Parse(text.NewReader(src)).FirstChild(); n != nil; n = n.NextSibling() {
		if h, ok := n.(*ast.Heading); ok {
			p.closeSections(h.Level)
			title := p.plain(h)
			p.sections = append(p.sections, Section{Page: p, Title: title, Anchor: anchor(title, anchors), Level: h.Level, from: len(p.nodes), to: -1})
		} else if para, ok := n.(*ast.Paragraph); ok && p.Lead == "" {
			p.Lead = p.plain(para)
		}
		p.nodes = append(p.nodes, n)
	}
	p.closeSections(0)
	if len(p.sections) == 0 || p.sections[0].from != 0 || p.sections[0].to != len(p.nodes) {
		return nil, fmt.Errorf("%s: a document begins with its title, the one heading of the highest level", name)
	}
	p.Title = p.sections[0].Title
	return p, nil
}

// closeSections ends the sections that a heading of this level ends.
func (p *Page) closeSections(level int) {
	for i := range p.sections {
		if s := &p.sections[i]; s.to < 0 && s.Level >= level {
			s.to = len(p.nodes)
		}
	}
}

// anchor makes of a heading what GitHub makes of it; the second of its name
// gets a number.
func anchor(title string, seen map[string]int) string {
	a := strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
			return unicode.ToLower(r)
		case r == ' ':
			return '-'
		}
		return -1
	}, title)
	n := seen[a]
	seen[a]++
	if n > 0 {
		return fmt.Sprintf("%s-%d", a, n)
	}
	return a
}

// Pages are all pages in the order of their names.
func (m *Manual) Pages() []*Page { return slices.Clone(m.pages) }

// Page returns the page of this name, or nil.
func (m *Manual) Page(name string) *Page {
	i := slices.IndexFunc(m.pages, func(p *Page) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return m.pages[i]
}

// Sections are the sections of a page in order, the whole page first.
func (p *Page) Sections() []Section { return slices.Clone(p.sections) }

// Whole is the section that is the whole page.
func (p *Page) Whole() Section { return p.sections[0] }

// Address is how the section is asked for: "operations", "operations#reload".
func (s Section) Address() string {
	if s.from == 0 {
		return s.Page.Name
	}
	return s.Page.Name + "#" + s.Anchor
}

// Block is a piece of code as it stands in a document.
type Block struct {
	Page *Page
	Line int    // of its first line, from 1
	Info string // what stands behind the fence: a language and words; "" of indented code
	Text string
}

// Blocks are the pieces of code of a page in order, also those in lists.
func (p *Page) Blocks() []Block {
	var list []Block
	p.walk(func(n ast.Node) {
		var info string
		switch n := n.(type) {
		case *ast.FencedCodeBlock:
			if n.Info != nil {
				info = string(n.Info.Value(p.src))
			}
		case *ast.CodeBlock:
		default:
			return
		}
		list = append(list, Block{p, p.line(n), info, p.lines(n)})
	})
	return list
}

// Link is a link of a document, as it is written.
type Link struct {
	Page   *Page
	Line   int // of the paragraph it stands in
	Target string
}

// Links are the links and images of a page in order.
func (p *Page) Links() []Link {
	var list []Link
	p.walk(func(n ast.Node) {
		var target string
		switch n := n.(type) {
		case *ast.Link:
			target = string(n.Destination)
		case *ast.Image:
			target = string(n.Destination)
		default:
			return
		}
		block := n
		for block.Type() == ast.TypeInline {
			block = block.Parent()
		}
		list = append(list, Link{p, p.line(block), target})
	})
	return list
}

// walk calls f for every node of the page, parents first.
func (p *Page) walk(f func(ast.Node)) {
	for _, n := range p.nodes {
		// It ends early for an error only, and f has none.
		_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
			if entering {
				f(n)
			}
			return ast.WalkContinue, nil
		})
	}
}

// line is the line in which a block begins, 0 if the parser does not say.
func (p *Page) line(n ast.Node) int {
	if n.Lines() == nil || n.Lines().Len() == 0 {
		return 0
	}
	return 1 + strings.Count(string(p.src[:n.Lines().At(0).Start]), "\n")
}

// lines is the source of a block.
func (p *Page) lines(n ast.Node) string {
	var b strings.Builder
	for _, l := range n.Lines().Sliced(0, n.Lines().Len()) {
		b.Write(l.Value(p.src))
	}
	return b.String()
}
