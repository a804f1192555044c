package doctor

import "slices"

// topics says what codes mean, in their order.
var topics = slices.Concat(accessTopics,
	upstreamTopics("TG-04", "the signaling upstream", "wss", "enterRoom fails with 5501, the socket closes with 1006"),
	[]Topic{
		{"TG-047", Fail, "the upstream can be reached, but not through turngate", "A route refuses the client (origins, clients, sdk_app_ids, limits), or the running turngate has another configuration or other surroundings (proxy variables, DNS) than this check.", "compare the route in the file with what runs (turngate reload), and look at the log", Admin},
		{"TG-048", Warn, "one of several upstreams cannot be used", "The others carry its clients.", "see the cause; turngate status names the state of each", Admin},
		{"TG-049", Skip, "no signaling route was tested", "There is no [[signaling]] route with a fixed upstream, or --local was given.", "", Nobody},
	},
	upstreamTopics("TG-05", "the log upstream", "https", "reports are lost or kept on the disk; calls work all the same"),
	[]Topic{
		{"TG-057", Fail, "the log upstream can be reached, but not through turngate", "A route refuses the request (origins, sdk_app_ids, limits), or the running turngate has another configuration or other surroundings than this check.", "compare the route in the file with what runs (turngate reload), and look at the log", Admin},
		{"TG-058", Warn, "a report is answered without Access-Control-Allow-Origin", "The page cannot read the answer, so the SDK sends the report again and again. The field is the upstream's to send.", "check that the upstream allows the page's origin; on a TRTC route it always does", Vendor},
		{"TG-059", Skip, "no log route was tested", "There is no [[logger]] route, or --local was given.", "", Nobody},
	},
	transportTopics("TG-06", "UDP", "UDP 3478"),
	transportTopics("TG-07", "TCP", "TCP 3478"),
	transportTopics("TG-08", "TLS and TCP on the HTTPS port", "TCP 443"),
	mediaTopics, hostTopics, serviceTopics,
	wssWayTopics, scheduleTopics(), logWayTopics, browserTopics, setupTopics)

// upstreamTopics are what signaling and logs have in common: the causes of
// internal/proxy.
func upstreamTopics(check Code, upstream, scheme, effect string) []Topic {
	return []Topic{
		{check + "0", OK, upstream + " answers", "", "", Nobody},
		{check + "1", Fail, "the name of " + upstream + " cannot be found", "DNS does not answer this host, or does not know the name: company resolvers often know no names of the Internet. Then " + effect + ".", "let this host ask a resolver that knows the name, write its address into upstream.resolve, or go through the company's proxy (upstream.proxy)", Network},
		{check + "2", Fail, "the way to " + upstream + " is blocked", "No answer, a refusal, or no route: the firewall does not let this host out to TCP 443, or the upstream is down. Then " + effect + ".", "allow TCP 443 from this host to the name, or set upstream.proxy", Network},
		{check + "3", Fail, "TLS to " + upstream + " is inspected", "The certificate is issued by an authority that this host does not know: mostly a firewall that opens TLS. The finding names the issuer.", "exempt the name from inspection, or put the issuer's certificate into upstream.ca", CA},
		{check + "4", Fail, "TLS with " + upstream + " fails", "The certificate is for another name or has ended, the clock of this host is wrong, or what answers speaks no TLS.", "check the clock of this host first, then whether something else answers in the upstream's place", Admin},
		{check + "5", Fail, "the company's proxy does not let us through", "The proxy is not reached, wants another login, or refuses the name. The finding says which.", "have this host and the name allowed for CONNECT to port 443, or correct upstream.proxy", CA},
		{check + "6", Fail, upstream + " answers with an error", "It was reached over " + scheme + " and does not serve what is asked: it is down behind its balancer, or the path or Host is wrong.", "check path and host of the route, then ask the operator of the upstream", Vendor},
	}
}

// transportTopics are what the transports of TURN have in common.
func transportTopics(check Code, name, port string) []Topic {
	return []Topic{
		{check + "0", OK, "TURN over " + name + " works", "", "", Nobody},
		{check + "1", Fail, "TURN over " + name + ": no answer", "Packets to the port, or the answers, are dropped: a firewall between here and the server, a cloud security group, or the host's own firewall. Browsers report 701 for the server.", "allow " + port + " from the clients to the server, answers included", Network},
		{check + "2", Fail, "TURN over " + name + ": the port is closed", "The host answers that nobody listens, or a firewall refuses: turngate does not run, or listens on another address.", "start turngate, and compare turn.listen and https.listen with the address that clients use", Admin},
		{check + "3", Fail, "TURN over " + name + ": the credential is refused (401)", "User or password are wrong, a time-limited credential has ended, or the clocks of its maker and of the server differ.", "compare user, password and realm with the configuration; for time-limited ones check both clocks", Admin},
		{check + "4", Fail, "TURN over " + name + ": no capacity (486 or 508)", "486: a quota of the user or the address is full. 508: no relay port is free, or the server is draining.", "raise turn.limits, or widen min_port to max_port; turngate sessions shows who holds relays", Admin},
		{check + "5", Fail, "TURN over " + name + ": TLS fails", "The certificate is not accepted, or a firewall opens TLS and does not understand TURN in it.", "see the finding about the certificate; exempt the server's name from inspection", CA},
		{check + "6", Fail, "TURN over " + name + ": an unexpected answer", "Another program answers on the port, a firewall changes what passes, or the server refuses for a reason that the finding names.", "see who listens on the port; have the firewall let it pass unchanged", Admin},
		{check + "9", Skip, "TURN over " + name + " was not tested", "There is no such listener, or no credential to test with.", "", Nobody},
	}
}

var accessTopics = []Topic{
	{NameOK, OK, "the name leads to this host", "", "", Nobody},
	{NameUnknown, Fail, "the name is not in DNS", "The resolver does not know the domain: it is misspelt, or not entered in the zone that clients ask.", "have an A record for the name entered, with the address that clients reach", Network},
	{NameElsewhere, Warn, "the name leads to another host", "DNS gives addresses that this host does not have and that are not external_ip. Behind NAT or a balancer that is right; then write the address into external_ip.", "correct the A record, or external_ip if this host is behind NAT or a balancer", Network},
	{NameNone, Skip, "there is no name to look up", "domain is empty, so clients use an address. Certificates that browsers trust are hard to get for one.", "", Nobody},
	{NameNoAnswer, Warn, "DNS does not answer", "The resolver of this host cannot be reached or fails.", "check /etc/resolv.conf and that DNS (port 53) is allowed for this host", Network},

	{CertOK, OK, "the certificate is good", "", "", Nobody},
	{CertUntrusted, Fail, "the issuer of the certificate is not trusted", "It is self-signed or of a private CA that this machine does not know. Browsers refuse wss and https silently: the page sees 1006.", "use a certificate of a CA that the clients trust: turngate cert csr, or tls.mode = \"acme\"; or give the clients the CA", CA},
	{CertEnded, Fail, "the certificate is not valid today", "It has ended or not yet begun, or the clock of one side is wrong.", "renew it (turngate cert show, turngate cert renew) and check the clock", Admin},
	{CertWrongName, Fail, "the certificate is for another name", "Browsers compare the alternative names with the name in the URL.", "have one issued for the name that clients use, or have clients use its name", Admin},
	{CertIncomplete, Fail, "the certificate comes without its intermediate", "Some browsers find it by themselves, others and all SDKs do not.", "put the server's certificate and the intermediates into tls.cert, in this order (fullchain.pem)", Admin},
	{CertEndsSoon, Warn, "the certificate ends soon", "", "renew it; turngate serves the new files without a restart", Admin},
	{CertWeak, Warn, "the certificate's key or signature is weak", "An RSA key below 2048 bits or a SHA-1 signature is refused by browsers.", "make a new request (turngate cert csr)", Admin},
	{CertInspected, Fail, "somebody else's certificate is shown for the server", "A firewall between here and the server opens TLS. WebSockets and TURN over TLS often break there. The finding names the issuer.", "exempt the server's name from TLS inspection", Network},
	{CertFiles, Fail, "the certificate files cannot be used", "They are missing, unreadable for the service, or do not belong together. The last good pair is served as long as turngate runs.", "see: turngate cert show, turngate config check", Admin},

	{WebOK, OK, "the HTTPS port answers TLS and HTTP", "", "", Nobody},
	{WebRefused, Fail, "the HTTPS port is closed", "Nobody listens there, or a firewall refuses.", "start turngate; see who may open the port", Admin},
	{WebSilent, Fail, "the HTTPS port does not answer", "Packets are dropped: a firewall in between, a cloud security group, or the address is wrong.", "allow TCP 443 from the clients to the server", Network},
	{WebNoTLS, Fail, "the HTTPS port does not speak TLS", "Another program has the port, or something in between cuts TLS for this name.", "see who has the port (ss -tlnp), and whether a firewall filters by name", Admin},
	{WebForeign, Fail, "something else answers HTTP", "The answer is not turngate's: another web server has the port, or a captive portal or proxy answers.", "see who has the port (ss -tlnp); leave it to turngate", Admin},
	{WebProxy, Fail, "the company's proxy does not lead to the server", "This machine reaches web sites through a proxy (HTTPS_PROXY), and that one does not let it through.", "exempt the server's name from the proxy, or allow it there", Network},
}

var mediaTopics = []Topic{
	{LoopOK, OK, "datagrams come back through two relays", "", "", Nobody},
	{LoopDead, Fail, "nothing comes back through the relays", "Allocations are made, but datagrams do not pass: something drops what is no STUN, or the relay does not forward.", "look at turngate_turn_relay_dropped_total and the log; from a client, have the firewall stop inspecting STUN", Admin},
	{LoopLoss, Warn, "datagrams are lost on the way through the relays", "An overloaded host, small UDP buffers, a policed or bad line.", "see the finding about buffers and drops; compare the transports: loss on UDP alone is the network", Network},
	{LoopRefused, Skip, "the loop is not allowed", "turn.peers.relay_to_relay is off, or a rule of turn.peers denies the server's own relays.", "", Nobody},
	{LoopSlow, Warn, "the way through the relays is slow", "A round trip of more than 300 ms leaves little for a conversation.", "look for the detour: VPN, proxy, an overloaded link", Network},

	{RefusesOK, OK, "wrong passwords and forbidden peers are refused", "", "", Nobody},
	{WrongPassword, Fail, "a wrong password is accepted", "What answers is an open relay.", "stop it and see what listens on the port", Admin},
	{OpenPeer, Warn, "relays reach addresses that are not the Internet's", "turn.peers.allow opens them: whoever has a credential reaches these hosts through this one.", "remove the rule, or narrow it to the addresses and ports that are needed", Admin},
	{RefusesOddly, Warn, "a refusal could not be tested", "The server answered something else than 401 or 403.", "see the finding", Admin},

	{EgressOK, OK, "UDP from the relay ports reaches the Internet and comes back", "", "", Nobody},
	{EgressBlocked, Fail, "UDP from the relay ports does not come back", "The firewall on the way out drops UDP from the relay ports, or the answers. wss works, calls have neither sound nor picture. A CONNECT proxy cannot carry UDP.", "allow UDP from this host's relay ports to any address (at least ports 8000, 8080, 8800, 843, 443, 16285), answers included", Network},
	{EgressAddress, Warn, "the Internet sees another address than turngate hands out", "A NAT on the way out changes address or port. Media servers that answer to the address they see still work; others do not.", "write the address that the Internet sees into external_ip as \"public/private\", and have the NAT keep relay ports", Network},
	{EgressUntested, Skip, "whether UDP gets out cannot be told", "Only an answer from outside proves it, and no STUN server was named.", "", Nobody},
	{EgressRefused, Skip, "the peer policy does not allow the STUN server", "turn.peers denies its address or port.", "", Nobody},
}

var hostTopics = []Topic{
	{RangeOK, OK, "the relay range is free for relays", "", "", Nobody},
	{RangeOverlap, Warn, "the relay range overlaps the ports that the system gives to programs", "Other programs then take relay ports at any time.", "reserve the range: sysctl -w net.ipv4.ip_local_reserved_ports=MIN-MAX, and in /etc/sysctl.d", Admin},
	{RangeFew, Warn, "few relay ports are free", "Each relay needs one; at none clients get 508.", "widen turn.min_port to turn.max_port", Admin},
	{RangeTaken, Warn, "other programs hold ports of the relay range", "turngate takes others; the firewall rule for the range covers theirs too.", "move the programs, or the range", Admin},

	{FirewallOK, OK, "the ports are open on this host", "", "", Nobody},
	{FirewallNotOpen, Fail, "nobody listens on a port of the configuration", "turngate does not run, runs with another file, or has not been reloaded.", "systemctl start turngate, or turngate reload", Admin},
	{FirewallTaken, Fail, "another program holds a port of the configuration", "turngate cannot start there.", "stop the program, or give turngate another port", Admin},
	{FirewallBlocks, Fail, "the firewall of this host does not let clients in", "", "turngate firewall apply, or open the ports: firewall-cmd --add-port", Admin},
	{FirewallUnknown, Skip, "the firewall of this host could not be read", "Reading its rules needs root.", "", Nobody},
	{SELinuxOK, OK, "SELinux stops nothing", "", "", Nobody},
	{SELinuxDenied, Fail, "SELinux denies turngate something", "", "see: ausearch -m avc -c turngate; install the package's policy, or restorecon the files", Admin},
	{SELinuxUnknown, Skip, "the log of SELinux could not be read", "Reading it needs root.", "", Nobody},
	{ClockOK, OK, "the clock is right", "", "", Nobody},
	{ClockUnsynced, Warn, "the clock is not synchronised", "Time-limited credentials and certificates need the time. In a container the clock is the host's.", "run chrony: systemctl enable --now chronyd", Admin},
	{ClockOff, Fail, "the clock is wrong", "Time-limited credentials are refused (401), certificates look ended.", "set the clock: chronyc makestep", Admin},
	{ClockUnknown, Skip, "the clock could not be examined", "", "", Nobody},
	{LimitsOK, OK, "the limits of the system suffice", "", "", Nobody},
	{LimitsFiles, Warn, "the limit of open files is low", "Each connection and each relay needs one; each WebSocket two.", "LimitNOFILE=1048576 in the unit, as in the one of the package", Admin},
	{LimitsBuffers, Warn, "UDP buffers are small", "Bursts of video are lost before turngate sees them.", "sysctl -w net.core.rmem_max=8388608 net.core.wmem_max=8388608, and in /etc/sysctl.d", Admin},
	{LimitsConntrack, Warn, "the table of connections is nearly full", "At the limit the kernel drops new ones: \"nf_conntrack: table full\".", "raise net.netfilter.nf_conntrack_max, or exempt the relay range (notrack)", Admin},
	{LimitsDrops, Warn, "the kernel has dropped datagrams for full buffers", "The counter is the system's, since it started.", "raise the buffers; if it goes on growing, the host is too slow for the load", Admin},
	{LimitsUnknown, Skip, "limits could not be read", "", "", Nobody},
}

var serviceTopics = []Topic{
	{CredentialOK, OK, "the configuration is good", "", "", Nobody},
	{CredentialWeak, Fail, "a TURN password is one that is tried first", "Whoever guesses it uses the relay.", "choose a random one: openssl rand -base64 18", Admin},
	{ConfigErrors, Fail, "the configuration file has errors", "turngate does not start with it and refuses to reload it.", "turngate config check", Admin},
	{ConfigWarnings, Warn, "the configuration file deserves a look", "", "turngate config check", Admin},
	{CredentialMissing, Skip, "there is no TURN credential to test with", "Users are in a database only, or the file of the secret is not readable for this user.", "", Nobody},
	{VersionOK, OK, "version", "", "", Nobody},
	{VersionOld, Warn, "another version runs than is installed", "The package was updated and the service not restarted.", "systemctl restart turngate; calls end with the drain", Admin},
	{VersionHole, Warn, "a part of this program has a known hole", "The list of advisories is built in, as old as the program, and compared with the modules that it was built from.", "install a newer turngate", Admin},

	{ServiceOK, OK, "turngate runs", "", "", Nobody},
	{ServiceDown, Fail, "turngate does not run", "", "systemctl start turngate; journalctl -u turngate says why it ended", Admin},
	{ServiceLocked, Skip, "the running turngate does not talk to this user", "The admin socket belongs to its user and group.", "", Nobody},
	{ServiceReload, Warn, "the last reload was refused", "The configuration before is in use, and would not be after a restart.", "correct the file (turngate config check) and reload", Admin},
	{ServiceDraining, Warn, "turngate is stopping", "It takes no new work and ends with the last session.", "wait, or start it again", Admin},
	{ServiceUpstream, Warn, "turngate has taken an upstream out", "Clients, or its own checks, could not use it.", "see the finding about the upstream", Admin},
	{ServiceSpool, Warn, "log reports wait on the disk", "The log upstream is away, or was until a moment ago.", "see the finding about the log upstream", Admin},
	{ServiceRenewal, Warn, "the certificate cannot be renewed", "The ACME server refuses or is not reached. The one in use is served until it ends.", "see: turngate cert show", Admin},
	{ServiceBans, Warn, "addresses are not answered after wrong credentials", "Guessing, or many clients with an old password behind one NAT.", "see: turngate bans", Admin},
	{CheckUnfinished, Warn, "a check did not end", "It was given up at the time limit.", "raise --timeout, or look at what is slow", Admin},
	{KernelPathOK, OK, "the kernel packet path is in use", "", "", Nobody},
	{KernelPathOff, Skip, "the kernel packet path is not in use", "Media is relayed all the same, with more load.", "", Nobody},
	{KernelPathFailed, Warn, "the kernel packet path is wanted and not in use", "The kernel, the driver or the rights do not allow it. Media is relayed all the same.", "see the finding; turn.offload = \"auto\" takes it where it works", Admin},
	{BlockedUDP, Warn, "UDP is blocked between this client and the server", "Media goes over TCP or TLS: it works, with more delay when packets are lost.", "allow UDP 3478 from the clients to the server, answers included", Network},
	{BlockedMedia, Fail, "no way for media between this client and the server", "The server answers over HTTPS, so it runs; UDP, TCP and TLS for TURN are blocked on the way.", "allow UDP 3478, or at least TCP 443 without inspection, from the clients to the server", Network},
}

var wssWayTopics = []Topic{
	{WssNotHere, Fail, "the WebSocket handshake does not reach the server", "HTTPS reaches it from the same place, so something on the way stops WebSockets: a web proxy that drops the header Upgrade, or TLS inspection. enterRoom fails with 5501.", "allow WebSocket (the HTTP header Upgrade) to the server's name in the web proxy or firewall, and exempt it from TLS inspection", Network},
	{WssNotBack, Fail, "the answer to a WebSocket handshake does not come back", "The upstream accepted, and something between the server and the client keeps the answer.", "allow WebSocket (the HTTP header Upgrade) to the server's name in the web proxy or firewall, and exempt it from TLS inspection", Network},
}

var logWayTopics = []Topic{
	{LogNotHere, Fail, "a log report does not reach the server", "HTTPS reaches it from the same place, so something on the way stops HTTP POST.", "allow HTTP POST to the server's name in the web proxy or firewall", Network},
	{LogNotBack, Fail, "the answer to a log report does not come back", "The upstream took the report, and something between the server and the client keeps the answer; the SDK sends it again.", "allow HTTP POST to the server's name in the web proxy or firewall", Network},
}

// scheduleTopics are warnings: clients with websocketProxy join without a
// scheduler. Where a configuration has no other way, the check makes them worse.
func scheduleTopics() []Topic {
	list := append(upstreamTopics("TG-23", "the scheduler", "https", "enterRoom fails for pages with scheduleProxy or unifiedProxy; those with websocketProxy work"),
		Topic{ScheduleThrough, Warn, "the scheduler can be reached, but not through turngate", "A route refuses the client (trtc.origins, trtc.sdk_app_ids, limits), or the running turngate has another configuration or other surroundings than this check.", "compare [trtc] in the file with what runs (turngate reload), and look at the log", Admin},
		Topic{ScheduleCORS, Warn, "the scheduler's answer comes without Access-Control-Allow-Origin", "The page cannot read it, so enterRoom fails for pages with scheduleProxy or unifiedProxy.", "check that trtc.schedule_upstream is a scheduler of the SDK; those allow every page", Admin},
		Topic{ScheduleUntested, Skip, "no scheduler was tested", "No route has the preset trtc, trtc.schedule and trtc.unified are empty, or --local was given.", "", Nobody},
	)
	for i := range list {
		list[i].Status = min(list[i].Status, Warn)
	}
	return list
}

// browserTopics are findings of the check page alone.
var browserTopics = []Topic{
	{BrowserNoWebRTC, Fail, "the browser has no WebRTC", "It is too old, or a company policy has switched WebRTC off.", "use a current Chrome, Edge, Firefox or Safari, and look at its policies", Admin},
	{BrowserIdle, Fail, "the browser does not try to reach the TURN server", "This PC has no default route, or a policy keeps WebRTC from the network (WebRtcIPHandling, WebRtcUdpPortRange).", "try another browser, and look at the policies of this one", Admin},
	{PageBroken, Fail, "the check page has an error of its own", "", "try another browser, and send the report to the administrator", Admin},
	{VideoOK, OK, "a test picture comes back through the relays", "", "", Nobody},
	{VideoDead, Fail, "no test picture comes back through the relays", "Messages pass and video does not: something drops larger or faster packets, or the PC cannot encode.", "check again with other programs closed; look for a rate limit on the way", Admin},
	{VideoFew, Warn, "few frames of the test picture come back", "The line or the PC is overloaded.", "check again with other programs closed; look for a rate limit on the way", Admin},
}

// setupTopics are what "turngate setup" stumbles over.
var setupTopics = []Topic{
	{SetupNotRoot, Fail, "setup needs root", "It writes below /etc, opens the host's firewall and starts a service.", "run it with sudo; turngate setup --dry-run shows what it would do without", Admin},
	{SetupOwnFile, Fail, "the configuration is somebody's own", "setup replaces only the file that a package brings, or its own. This one says something else than the command line.", "edit the file and run turngate reload, or have setup write a new one and keep this beside it: --replace", Admin},
	{SetupMissing, Fail, "turngate is not installed on this host", "The user, the directories or the unit of the service are missing; packages bring them.", "install the package, or run scripts/turn.sh from the archive", Admin},
	{SetupAddress, Fail, "the address of this host cannot be told", "No interface has an address that fits the layout, and DNS does not tell one.", "name it: --external-ip ADDRESS, or --external-ip PUBLIC/PRIVATE behind NAT", Admin},
	{SetupCertificate, Fail, "the certificate cannot be used", "Clients would refuse it, or it and its key do not belong together.", "see the finding; without --cert setup makes a request for your CA", CA},
	{SetupStart, Fail, "the service does not start", "What setup had changed was put back.", "see what the service said, above; journalctl -u turngate", Admin},
	{SetupTerms, Warn, "no certificate is ordered: nobody has agreed to the CA's terms", "Let's Encrypt issues certificates to those who agree to its subscriber agreement (https://letsencrypt.org/repository/). Without a terminal, --yes says so.", "turngate setup DOMAIN --yes, which agrees to them; or --cert and --key", Admin},
	{SetupStep, Fail, "a step of setup failed", "What had been changed before it was put back.", "see the finding, and run setup again", Admin},
	{SetupBusy, Fail, "another setup is under way on this host", "", "wait for it; it is gone when its process is", Admin},
}
