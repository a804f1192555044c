// Package proxy holds what the two reverse proxies of turngate share: the
// routing of raw request targets, the header policy, the client's address
// behind trusted proxies, and the way to an upstream (addresses, TLS, failover).
//
// It knows neither rooms nor configuration. Nothing in it ever chooses an
// upstream from request data: a caller that has to (the TRTC one-parameter mode)
// checks the name against a [HostList] first.
//
// # Targets
//
// Request paths are never decoded, cleaned or redirected. [SplitTarget] refuses
// what two servers could read in two ways, [Router] finds the route on the raw
// bytes, [Join] puts the remainder behind the upstream's path with exactly one
// slash, and the query travels byte for byte. The TRTC SDK posts reports to
// "/logger//v5/..." and signs users with '*' in the query: a server that cleans
// or re-encodes loses both.
//
// # Upstreams
//
// A [Dialer] reaches names: fixed addresses, DNS asked anew with a cache of
// seconds, the last good addresses while DNS is down, every address tried. TLS
// always verifies chain and name. A [Pool] is a list of upstreams in order of
// preference with passive health. An [Outbound] is the company's proxy on the way. Errors are of type [*Error] and name the
// class of the cause, so that a log line says whether DNS, a firewall or a TLS
// inspection stands in the way.
package proxy
