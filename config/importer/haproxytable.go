package importer

import "strings"

// haproxyTable holds the lines that have no meaning of their own for turngate,
// by their first word or their first two.
var haproxyTable = func() map[string]known {
	m := map[string]known{}
	put := func(w Weight, why, fix, names string) {
		for n := range strings.SplitSeq(names, ",") {
			m[strings.Join(strings.Fields(n), " ")] = known{w, why, fix}
		}
	}
	put(-1, "", "", `mode, option http-server-close, option httpclose, option http-keep-alive, option dontlognull, option redispatch, option http-use-htx,
		option forwardfor, option http-no-delay, option tcp-smart-accept, option tcp-smart-connect, option clitcpka, option srvtcpka, option tcpka, description, daemon,
		acl, retries, http-reuse, option prefer-last-server, timeout http-request, http-request redirect, redirect, ca-base, crt-base`)
	put(NotNeeded, "turngate sizes itself", "", `maxconn, nbproc, nbthread, cpu-map, ulimit-n, numa-cpu-mapping, fullconn, backlog, thread-groups, busy-polling, noepoll`)
	put(NotNeeded, "the unit file of the service says it", "", "user, group, uid, gid, chroot, pidfile, node, master-worker, setenv, presetenv, hard-stop-after, grace, unix-bind, set-dumpable, localpeer, insecure-fork-wanted, zero-warning")
	put(NotNeeded, `"turngate status", "sessions" and "kick" ask the running server over its own socket`, "", "stats, stats socket, stats timeout, server-state-base, server-state-file, load-server-state-from-file")
	put(NotNeeded, "turngate logs to standard error, which systemd keeps", "", "log, log-tag, log-send-hostname, option tcplog, option httplog, option dontlog-normal, option log-health-checks, option log-separate-errors, option logasap, log-format, log-format-sd, error-log-format, unique-id-format, unique-id-header, capture, http-request capture")
	put(NotNeeded, "turngate chooses what TLS uses", "", `ssl-default-bind-ciphers, ssl-default-bind-ciphersuites, ssl-default-bind-options, ssl-default-server-ciphers, ssl-default-server-ciphersuites,
		ssl-default-server-options, ssl-dh-param-file, ssl-default-bind-curves, ssl-server-verify, ssl-load-extra-files, issuers-chain-path`)
	put(NotNeeded, "turngate has no pages for errors", "", "errorfile, errorloc, errorloc302, errorloc303, errorfiles, http-error")
	put(NotNeeded, "header_timeout, handshake_timeout and the timeouts of a route bound it", "", "timeout client, timeout server, timeout connect, timeout check, timeout queue, timeout http-keep-alive, timeout client-fin, timeout server-fin, timeout tarpit, timeout tunnel")
	put(NotNeeded, "no route is made of it", "", "bind, server, default-server, balance, default_backend, use_backend, stick-table, stick, http-check, option httpchk, option tcp-check, tcp-check, option ssl-hello-chk, hash-type, hash-balance-factor, option allbackups, cookie, hash-key")
	put(NotNeeded, "a limit counts by itself", "", "http-request track-sc0, http-request track-sc1, http-request track-sc2, tcp-request connection, tcp-request inspect-delay, tcp-request content, http-request sc-inc-gpc0, http-request sc-inc-gpc1")
	put(NotNeeded, "turngate compresses nothing: upstreams may", "", "compression, filter compression")
	put(NotNeeded, "no variable is needed", "", "http-request set-var, http-request unset-var, http-response set-var")
	put(Lost, "turngate adds no headers to answers", "let the upstream send it", "http-response set-header, http-response add-header, http-after-response, rspadd, http-after-response set-header, http-after-response add-header")
	put(Changed, "answers of the upstream pass with their headers", "", "http-response del-header, rspdel, rspidel, http-response replace-header")
	put(Changed, "what a client claims in forwarding headers is dropped by itself, and other headers pass", "", "http-request del-header, reqdel, reqidel")
	put(Lost, "turngate has no answers of its own to choose", "for health checks it answers /healthz and /readyz", "http-request return, monitor-uri, monitor, monitor-net")
	put(Lost, "turngate does not rewrite requests", "", "reqrep, reqirep, http-request replace-header, http-request replace-value, http-request set-method, http-request set-query, http-request replace-path, http-request set-path, http-request set-uri, http-request replace-uri")
	put(Lost, "turngate runs no programs", "", "lua-load, lua-prepend-path, http-request lua, filter spoe, external-check, program")
	return m
}()
