// Package pages holds what turngate shows in a browser: the check page, which a
// user opens inside the company network to see whether everything works from
// there, and the status page, which an operator opens on the host itself.
//
// Both are static files, embedded, without a build step and without anything
// from elsewhere; what they show comes from a small API beside each.
//
//	assets/      the files
//	static.go    serves them, and says what a browser may do with them
//	tickets.go   one-time links to the check page, and the sessions they open
//	probe.go     what became of a request that the check page made on a route
//	check.go     the check page and its API
//	recorder.go  the last fifteen minutes in numbers
//	status.go    the status page and its API
package pages
