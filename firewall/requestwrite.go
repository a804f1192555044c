package firewall

import (
	"encoding/csv"
	"fmt"
	"html/template"
	"io"
	"strings"
)

// Formats of a request.
func Formats() []string { return []string{"md", "csv", "html"} }

// Write writes a request as "md", "csv" or "html".
func (r *Request) Write(to io.Writer, format string) error {
	switch format {
	case "md":
		return r.markdown(to)
	case "csv":
		return r.csv(to)
	case "html":
		return page.Execute(to, r)
	}
	return fmt.Errorf("format %q is none of %s", format, strings.Join(Formats(), ", "))
}

var columns = []string{"no", "direction", "source", "destination", "ports", "protocol", "reason", "need"}

// Heads are the labels of the columns.
func (r *Request) Heads() []string {
	var all []string
	for _, c := range columns {
		all = append(all, r.Labels[c])
	}
	return all
}

// Cells are a row with its number.
func (r *Request) Cells(no int, row Row) []string {
	return []string{fmt.Sprint(no), row.Direction, row.Source, row.Destination, row.Ports, row.Protocol, row.Reason, r.Labels[row.Need]}
}

// Table is a part of a request, ready to print.
type Table struct {
	Title string
	Rows  [][]string
}

// Tables are the two parts, numbered through.
func (r *Request) Tables() []Table {
	var all []Table
	no := 0
	for _, part := range []struct {
		key  string
		rows []Row
	}{{"in", r.In}, {"out", r.Out}} {
		t := Table{Title: r.Labels[part.key]}
		for _, row := range part.rows {
			no++
			t.Rows = append(t.Rows, r.Cells(no, row))
		}
		all = append(all, t)
	}
	return all
}

func (r *Request) markdown(to io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", r.Title)
	for _, p := range r.Intro {
		fmt.Fprintf(&b, "%s\n\n", p)
	}
	line := func(cells []string) {
		b.WriteString("|")
		for _, c := range cells {
			b.WriteString(" " + strings.NewReplacer("|", `\|`, "*", `\*`, "\n", " ").Replace(c) + " |")
		}
		b.WriteString("\n")
	}
	for _, t := range r.Tables() {
		fmt.Fprintf(&b, "## %s\n\n", t.Title)
		line(r.Heads())
		b.WriteString("|" + strings.Repeat(" --- |", len(columns)) + "\n")
		for _, row := range t.Rows {
			line(row)
		}
		b.WriteString("\n")
	}
	for _, list := range []struct {
		title string
		items []string
	}{{r.Labels["not"], r.NotOpen}, {r.Labels["notes"], r.Notes}} {
		fmt.Fprintf(&b, "## %s\n\n", list.title)
		for _, i := range list.items {
			fmt.Fprintf(&b, "- %s\n", i)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(to, strings.TrimSuffix(b.String(), "\n"))
	return err
}

// csv has the rows alone, for a spreadsheet or a ticket system. It begins with a
// byte order mark: without it Excel takes the text for another encoding.
func (r *Request) csv(to io.Writer) error {
	if _, err := io.WriteString(to, "\ufeff"); err != nil {
		return err
	}
	c := csv.NewWriter(to)
	c.UseCRLF = true // RFC 4180
	if err := c.Write(r.Heads()); err != nil {
		return err
	}
	for _, t := range r.Tables() {
		for _, row := range t.Rows {
			for i, cell := range row {
				if strings.HasPrefix(cell, "=") || strings.HasPrefix(cell, "+") || strings.HasPrefix(cell, "-") || strings.HasPrefix(cell, "@") {
					row[i] = "'" + cell // a spreadsheet would calculate
				}
			}
			if err := c.Write(row); err != nil {
				return err
			}
		}
	}
	c.Flush()
	return c.Error()
}

// page stands alone: no script, nothing from elsewhere.
var page = template.Must(template.New("request").Parse(`<!doctype html>
<html lang="{{.Lang}}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{.Title}}</title>
<style>
@page { size: A4 landscape; margin: 14mm }
body { font: 15px/1.45 system-ui, "Segoe UI", Roboto, "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; color: #1a1a1a; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6em; margin: 0 0 .6em }
h2 { font-size: 1.15em; margin: 1.6em 0 .5em; break-after: avoid }
p { max-width: 60rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .9em }
th, td { border: 1px solid #9aa4ad; padding: .35em .55em; text-align: left; vertical-align: top }
th { background: #e9eef2; white-space: nowrap }
td:nth-child(1), td:nth-child(2), td:nth-child(6), td:nth-child(8) { white-space: nowrap }
td:nth-child(3), td:nth-child(4), td:nth-child(5) { overflow-wrap: anywhere; min-width: 6em }
td:nth-child(4) { min-width: 16em }
tr { break-inside: avoid }
thead { display: table-header-group }
.sign { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1.5em; margin-top: 3em; break-inside: avoid }
.sign div { border-top: 1px solid #1a1a1a; padding-top: .3em; font-size: .85em }
@media print { body { font-size: 10.5pt; margin: 0; max-width: none; padding: 0 } .scroll { overflow: visible } th { print-color-adjust: exact; -webkit-print-color-adjust: exact } }
</style>
</head>
<body>
<h1>{{.Title}}</h1>
{{range .Intro}}<p>{{.}}</p>
{{end}}{{$heads := .Heads}}{{range .Tables}}<h2>{{.Title}}</h2>
<div class="scroll"><table>
<thead><tr>{{range $heads}}<th>{{.}}</th>{{end}}</tr></thead>
<tbody>
{{range .Rows}}<tr>{{range .}}<td>{{.}}</td>{{end}}</tr>
{{end}}</tbody>
</table></div>
{{end}}<h2>{{index .Labels "not"}}</h2>
<ul>
{{range .NotOpen}}<li>{{.}}</li>
{{end}}</ul>
<h2>{{index .Labels "notes"}}</h2>
<ul>
{{range .Notes}}<li>{{.}}</li>
{{end}}</ul>
<div class="sign"><div>{{index .Labels "by"}}</div><div>{{index .Labels "date"}}</div><div>{{index .Labels "approved"}}</div><div>{{index .Labels "until"}}</div></div>
</body>
</html>
`))
