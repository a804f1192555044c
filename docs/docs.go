// Package docs holds the manual: the documents of this folder, as "turngate
// help" shows them.
package docs

import "embed"

// Files are the documents, by their names in this folder.
//
//go:embed *.md
var Files embed.FS
