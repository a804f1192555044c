package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Languages of a request.
func Languages() []string { return []string{"en", "zh"} }

// How much a row of a request is needed.
const (
	Needed      = "needed"
	Recommended = "recommended" // it works without, worse
	Optional    = "optional"
)

// A Row asks for one kind of traffic.
type Row struct {
	Direction   string `json:"direction"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Ports       string `json:"ports"` // destination ports; the source's in Source when they matter
	Protocol    string `json:"protocol"`
	Reason      string `json:"reason"`
	Need        string `json:"need"`
}

// A Request is the sheet for the people who look after the firewalls.
type Request struct {
	Lang    string
	Title   string
	Intro   []string
	In, Out []Row
	Notes   []string
	NotOpen []string
	Labels  map[string]string
}

// trtcMedia are the ports of the TRTC cloud's media servers (UDP), as its published
// allow-list for web clients has them in November 2026.
var trtcMedia = []Ports{{443, 443}, {843, 843}, {8000, 8000}, {8080, 8080}, {8800, 8800}, {16285, 16285}}

// mediaPorts are where relays send to, nil for any port.
func (p *Plan) mediaPorts() []Ports {
	if len(p.PeerPorts) > 0 {
		return p.PeerPorts
	}
	if p.TRTC {
		return trtcMedia
	}
	return nil
}

// writer fills a request in one language.
type writer struct {
	*Plan
	zh bool
	r  *Request
}

// t chooses between the languages.
func (w *writer) t(en, zh string) string {
	if w.zh {
		return zh
	}
	return en
}

// Request writes the sheet in a language, "en" or "zh".
func (p *Plan) Request(lang string) (*Request, error) {
	if !slices.Contains(Languages(), lang) {
		return nil, fmt.Errorf("language %q is none of %s", lang, strings.Join(Languages(), ", "))
	}
	w := &writer{Plan: p, zh: lang == "zh", r: &Request{Lang: lang}}
	w.head()
	w.inbound()
	w.outbound()
	w.notes()
	return w.r, nil
}

// host is what the sheet calls this host.
func (w *writer) host() string {
	var at []string
	for _, a := range w.Addresses {
		if a.Public.IsUnspecified() || !a.Public.IsValid() {
			continue
		}
		s := a.Public.String()
		if a.Private.IsValid() && a.Private != a.Public && !a.Private.IsUnspecified() {
			s += w.t(" (inside: ", "(内部地址:") + a.Private.String() + w.t(")", ")")
		}
		at = append(at, s)
	}
	list := strings.Join(at, ", ")
	switch {
	case w.Host == "":
		return cmp.Or(list, w.t("this host", "本主机"))
	case list == "":
		return w.Host
	}
	return w.Host + " = " + list
}

func prefixes(list []netip.Prefix) string {
	var all []string
	for _, p := range list {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

func (w *writer) clients() string {
	name := w.t("client PCs", "客户端电脑")
	if len(w.Clients) > 0 {
		return name + ": " + prefixes(w.Clients)
	}
	if w.Layout == External {
		return name + w.t(" (the company network, also after its NAT)", "(公司网络,含其 NAT 出口地址)")
	}
	return name + w.t(" (the company network)", "(公司网络)")
}

func (w *writer) row(list *[]Row, direction, source, destination, ports, proto, need, reason string) {
	r := Row{direction, source, destination, ports, proto, reason, need}
	if !slices.Contains(*list, r) {
		*list = append(*list, r)
	}
}

func (w *writer) head() {
	r := w.r
	r.Title = w.t("Firewall request for turngate", "turngate 防火墙开通申请")
	host := w.host()
	if host == w.t("this host", "本主机") {
		host = "turngate"
	}
	r.Intro = append(r.Intro, w.t(
		"turngate lets web browsers inside the company network take part in audio and video calls of a cloud service. It is one host. Browsers talk to this host only, and this host alone talks to the Internet for them.",
		"turngate 让公司网络内的浏览器能够使用云端的音视频通话服务。它只是一台主机:浏览器只与这台主机通信,只有这台主机代表它们访问互联网。"))
	if w.Layout == External {
		r.Intro = append(r.Intro, fmt.Sprintf(w.t(
			"Layout 2-A: the host %s stands outside the company network (DMZ or public network). The firewall between the company network and this host must let the rows \"to the host\" out; a firewall in front of the host must let them in, and the rows \"from the host\" out.",
			"部署方式 2-A:主机 %s 位于公司网络之外(DMZ 或公网)。公司网络与该主机之间的防火墙须放行“到主机”各行(出方向);主机前的防火墙须放行这些行(入方向)以及“从主机发出”各行(出方向)。"), host))
	} else {
		r.Intro = append(r.Intro, fmt.Sprintf(w.t(
			"Layout 2-B: the host %s stands inside the company network. Only firewalls between client networks and this host need the rows \"to the host\"; the firewall towards the Internet needs the rows \"from the host\" and nothing else. Nothing from the Internet needs to reach the host.",
			"部署方式 2-B:主机 %s 位于公司网络内部。只有客户端网段与该主机之间的防火墙需要“到主机”各行;面向互联网的防火墙只需要“从主机发出”各行。互联网无需主动访问该主机。"), host))
		if slices.ContainsFunc(w.Listeners, func(l Listener) bool { return l.Role == RoleACME }) {
			last := len(r.Intro) - 1
			r.Intro[last] = strings.Replace(r.Intro[last], w.t(" Nothing from the Internet needs to reach the host.", "互联网无需主动访问该主机。"), "", 1)
		}
	}
	r.Intro = append(r.Intro, w.t(
		"All firewalls on the way are taken to be stateful: they let in the answers to what they let out, also for UDP. Rows name the side that sends the first packet as the source.",
		"假定沿途防火墙均为有状态防火墙:对放行的请求(包括 UDP)自动放行其应答。各行的“源”是首先发包的一方。"))
	r.Labels = map[string]string{
		"in": w.t("To the host", "到主机"), "out": w.t("From the host", "从主机发出"),
		"no": w.t("No.", "序号"), "direction": w.t("Direction", "方向"), "source": w.t("Source", "源"), "destination": w.t("Destination", "目的"),
		"ports": w.t("Port", "端口"), "protocol": w.t("Protocol", "协议"), "reason": w.t("Reason", "用途"), "need": w.t("Needed?", "是否必需"),
		Needed: w.t("needed", "必需"), Recommended: w.t("recommended", "建议"), Optional: w.t("optional", "可选"),
		"notes": w.t("Notes", "说明"), "not": w.t("What need not be opened", "无需开通的内容"),
		"by": w.t("Requested by", "申请人"), "date": w.t("Date", "日期"), "approved": w.t("Approved by", "审批人"), "until": w.t("Done on", "完成日期"),
	}
}

func (w *writer) inbound() {
	in, udp := w.t("in", "入"), false
	for _, l := range w.Listeners {
		if l.Port == 0 || l.Addr.IsLoopback() {
			continue
		}
		to := w.host()
		if l.Addr.IsValid() && !l.Addr.IsUnspecified() {
			to = l.Addr.Unmap().String()
			for _, a := range w.Addresses {
				if a.Private == l.Addr.Unmap() || a.Public == l.Addr.Unmap() {
					to = w.host()
				}
			}
		}
		port, proto := fmt.Sprint(l.Port), strings.ToUpper(l.Proto)
		switch l.Role {
		case RoleHTTPS:
			w.row(&w.r.In, in, w.clients(), to, port, proto, Needed, w.t(
				"Signaling (WebSocket over TLS) and log reports of the calls (HTTPS); also media over TLS or TCP (TURN) where UDP does not pass",
				"通话信令(基于 TLS 的 WebSocket)与日志上报(HTTPS);UDP 不通时也承载 TLS/TCP 媒体(TURN)"))
		case RoleRoutes:
			w.row(&w.r.In, in, w.clients(), to, port, proto, Needed, w.t(
				"Signaling (WebSocket over TLS) or log reports (HTTPS) of some services, which have this port for themselves",
				"部分服务的信令(基于 TLS 的 WebSocket)或日志上报(HTTPS)专用端口"))
		case RoleTURN:
			if l.Proto == "udp" {
				need := Needed
				if udp { // another one is a way out for networks that know its port only
					need = Recommended
				}
				udp = true
				w.row(&w.r.In, in, w.clients(), to, port, proto, need, w.t("Audio and video (TURN, RFC 8656): the way with the best quality", "音视频媒体(TURN,RFC 8656):质量最好的通道"))
			} else {
				w.row(&w.r.In, in, w.clients(), to, port, proto, Recommended, w.t("Audio and video over TCP (TURN) where UDP does not pass", "UDP 不通时经 TCP 传输音视频(TURN)"))
			}
		case RoleACME:
			w.row(&w.r.In, in, w.t("Internet, any address", "互联网任意地址"), to, port, proto, Needed, w.t(
				"The certificate authority checks that the name leads here (ACME http-01); it does so from addresses it does not publish", "证书机构验证域名归属(ACME http-01),其源地址不公开"))
		case RoleMetrics:
			from := w.t("monitoring server", "监控服务器")
			if len(w.Monitor) > 0 {
				from += ": " + prefixes(w.Monitor)
			}
			w.row(&w.r.In, in, from, to, port, proto, Optional, w.t("Figures for monitoring (Prometheus)", "监控指标(Prometheus)"))
		}
	}
	for _, u := range w.Upstreams {
		if u.Purpose == ForACME && w.Layout == External {
			w.acmeIn(in)
		}
	}
	for _, o := range w.Others {
		w.row(&w.r.In, in, w.clients(), o.Addr().String(), fmt.Sprint(o.Port()), "UDP, TCP", Recommended, w.t(
			"Another TURN server that clients are sent to when this one is full or being serviced", "本机满载或维护时客户端被引导到的另一台 TURN 服务器"))
	}
	if w.RelayIn == RelayOpen {
		w.row(&w.r.In, in, w.t("media servers, any address", "媒体服务器,任意地址"), w.host(), w.Relay.String(), "UDP", Needed, w.t(
			"Media of peers that send before they were sent to", "由对端首先发出的媒体数据"))
	}
}

// acmeIn is for tls-alpn-01, which comes to the HTTPS port.
func (w *writer) acmeIn(in string) {
	if slices.ContainsFunc(w.Listeners, func(l Listener) bool { return l.Role == RoleACME }) {
		return
	}
	w.row(&w.r.In, in, w.t("Internet, any address", "互联网任意地址"), w.host(), "443", "TCP", Needed, w.t(
		"The certificate authority checks that the name leads here (ACME tls-alpn-01); it does so from addresses it does not publish", "证书机构验证域名归属(ACME tls-alpn-01),其源地址不公开"))
}

func (w *writer) outbound() {
	out := w.t("out", "出")
	from := w.source()
	asked := make(map[string]bool)
	for _, u := range w.Upstreams {
		port := fmt.Sprint(u.Port)
		if u.Port == 0 {
			port = w.t("any", "任意")
		}
		if u.Via != "" || asked[u.Host+" "+port] {
			continue
		}
		asked[u.Host+" "+port] = true
		reason, need := w.purpose(u)
		// Servers that are asked for alike share a row.
		i := slices.IndexFunc(w.r.Out, func(r Row) bool { return r.Ports == port && r.Reason == reason })
		if i >= 0 {
			w.r.Out[i].Destination += ", " + u.Host
			continue
		}
		w.row(&w.r.Out, out, from, u.Host, port, "TCP", need, reason)
	}
	via := make(map[string][]string)
	var order []string
	for _, u := range w.Upstreams {
		if u.Via == "" {
			continue
		}
		if via[u.Via] == nil {
			order = append(order, u.Via)
		}
		if name := fmt.Sprintf("%s:%d", u.Host, u.Port); !slices.Contains(via[u.Via], name) {
			via[u.Via] = append(via[u.Via], name)
		}
	}
	for _, v := range order {
		host, port := v, ""
		if i := strings.LastIndexByte(v, ':'); i >= 0 {
			host, port = strings.Trim(v[:i], "[]"), v[i+1:]
		}
		w.row(&w.r.Out, out, from, host, port, "TCP", Needed, fmt.Sprintf(w.t(
			"The company's proxy, which must allow CONNECT to: %s", "公司代理服务器,须允许 CONNECT 到:%s"), strings.Join(via[v], ", ")))
	}
	ports, any := w.mediaPorts(), w.t("any", "任意")
	text := any
	if len(ports) > 0 {
		var all []string
		for _, p := range ports {
			all = append(all, p.String())
		}
		text = strings.Join(all, ", ")
	}
	whom, why := w.t("media servers: any address", "媒体服务器:任意地址"), w.t("Audio and video between this host and the media servers", "本主机与媒体服务器之间的音视频")
	if w.TRTC {
		why = w.t("Audio and video between this host and the media servers of the TRTC cloud. Their addresses change and no list of them is published: the ports are the limit. No proxy can carry this",
			"本主机与 TRTC 云媒体服务器之间的音视频。服务器地址会变化且未公布列表,因此以端口为限。代理服务器无法承载此流量")
	}
	w.row(&w.r.Out, out, fmt.Sprintf(w.t("%s, source ports %s", "%s,源端口 %s"), from, w.Relay), whom, text, "UDP", Needed, why)
	for _, o := range w.OwnPeers {
		w.row(&w.r.Out, out, fmt.Sprintf(w.t("%s, source ports %s", "%s,源端口 %s"), from, w.Relay), o.Prefix.String(), cmp.Or(o.portsText(), any), "UDP", Needed, w.t("A media server on the own network", "自有网络内的媒体服务器"))
	}
	dns := w.t("the DNS servers of this host", "本主机的 DNS 服务器")
	if len(w.Resolvers) > 0 {
		var all []string
		for _, a := range w.Resolvers {
			all = append(all, a.String())
		}
		dns = strings.Join(all, ", ")
	}
	w.row(&w.r.Out, out, from, dns, "53", "UDP, TCP", Needed, w.t("Names of the upstreams", "解析上游域名"))
	w.row(&w.r.Out, out, from, w.t("the time servers of this host", "本主机的时间服务器"), "123", "UDP", Needed, w.t(
		"Time (NTP): credentials and certificates are valid for a time", "时间同步(NTP):凭证与证书均有时效"))
}

// web is the authority of the host's URLs.
func (w *writer) web() string {
	host := w.Host
	if host == "" {
		host = "HOST"
	}
	for _, l := range w.Listeners {
		if l.Role == RoleHTTPS && l.Port != 0 {
			if l.Port != 443 {
				host += fmt.Sprintf(":%d", l.Port)
			}
			break
		}
	}
	return host
}

func (p Peer) portsText() string {
	if p.Ports == (Ports{}) {
		return ""
	}
	return p.Ports.String()
}

// source is this host as others see it when it connects.
func (w *writer) source() string {
	var all []string
	for _, a := range w.Addresses {
		own := a.Private
		if !own.IsValid() || own.IsUnspecified() {
			own = a.Public
		}
		if own.IsValid() && !own.IsUnspecified() {
			all = append(all, own.String())
		}
	}
	return cmp.Or(strings.Join(all, ", "), w.t("this host", "本主机"))
}

func (w *writer) purpose(u Upstream) (reason, need string) {
	switch u.Purpose {
	case ForSignaling:
		return w.t("Signaling of the calls (WebSocket over TLS)", "通话信令(基于 TLS 的 WebSocket)"), Needed
	case ForLogs:
		return w.t("Log reports of the calls (HTTPS)", "通话日志上报(HTTPS)"), Recommended
	case ForStatistics:
		return w.t("Statistics of the calls for watchRTC (WebSocket over TLS, and HTTPS)", "watchRTC 通话统计(基于 TLS 的 WebSocket 与 HTTPS)"), Recommended
	case ForScheduler:
		return w.t("The scheduler, which tells a client its servers (HTTPS)", "调度服务,为客户端分配服务器(HTTPS)"), Needed
	case ForUnified:
		return w.t("Signaling and scheduling: the scheduler names servers of these domains, and the names change", "信令与调度:调度服务会返回这些域下的服务器,名称会变化"), Needed
	case ForACME:
		return w.t("Certificates (ACME)", "申请证书(ACME)"), Needed
	case ForHook:
		return w.t("The service that inspects messages", "消息检查服务"), Needed
	case ForDatabase:
		return w.t("The database of TURN users", "TURN 用户数据库"), Needed
	}
	return u.Purpose, Needed
}

func (w *writer) notes() {
	r := w.r
	wild := slices.ContainsFunc(w.Upstreams, func(u Upstream) bool { return strings.HasPrefix(u.Host, "*.") && u.Via == "" })
	if wild {
		r.Notes = append(r.Notes, w.t("A firewall that cannot match names may allow TCP 443 to any address, from this one host only.",
			"若防火墙不支持按域名放行,可仅对本主机放行到任意地址的 TCP 443。"))
	}
	r.Notes = append(r.Notes,
		w.t("TLS to these names must not be inspected with a certificate that this host does not trust; if it is, tell the administrator of the host the certificate authority (key upstream.ca).",
			"若对这些域名做 TLS 解密检查,请把检查所用的 CA 证书提供给主机管理员(配置项 upstream.ca)。"),
		w.t("UDP sessions should be kept for at least 60 seconds without traffic, and \"UDP flood\" limits must leave room: a video call is about 2 Mbit/s and 200 packets a second in each direction.",
			"UDP 会话空闲超时应不少于 60 秒;“UDP flood”限速须留足余量:一路视频通话每方向约 2 Mbit/s、每秒约 200 包。"),
		fmt.Sprintf(w.t("To try it: \"turngate check\" on the host, and \"turngate check --from-client https://%s/\" with the same program on a client PC.",
			"验证方法:在主机上运行 turngate check,并在客户端电脑上用同一程序运行 turngate check --from-client https://%s/。"), w.web()))
	if w.RelayIn != RelayOpen {
		r.NotOpen = append(r.NotOpen, fmt.Sprintf(w.t(
			"UDP %s from the Internet to the host: the host always sends the first packet to a media server, and a stateful firewall lets the answers in. Only a firewall without connection tracking needs it open.",
			"互联网到主机的 UDP %s:总是主机先向媒体服务器发包,有状态防火墙会自动放行应答。只有无连接跟踪的防火墙才需要开通。"), w.Relay))
	}
	r.NotOpen = append(r.NotOpen,
		w.t("Anything from client PCs to the Internet for these calls: clients need this host and no other. Rules of before for the cloud's addresses or for UDP from clients can go.",
			"客户端电脑为通话而访问互联网:客户端只需访问本主机。此前为云端地址或客户端 UDP 开通的规则可以删除。"),
		fmt.Sprintf(w.t("UDP %s between client PCs and the host: these ports are for the other side. Clients use the ports of the table \"%s\".",
			"客户端电脑与主机之间的 UDP %s:这些端口仅用于另一侧,客户端只使用表“%s”中的端口。"), w.Relay, r.Labels["in"]),
		w.t("TCP and UDP 5349, TCP 8687 and TCP 80 (unless it stands in a table above), and any application-level gateway (SIP ALG and the like).",
			"TCP/UDP 5349、TCP 8687、TCP 80(除非上表列出),以及任何应用层网关(如 SIP ALG)。"))
	if w.Layout == Intranet {
		r.NotOpen = append(r.NotOpen, w.t("Port forwarding or a public address for the host.", "主机的端口映射或公网地址。"))
	}
	if w.TRTC {
		r.NotOpen = append(r.NotOpen, w.t("TCP to media servers: relays send UDP only.", "到媒体服务器的 TCP:中继只使用 UDP。"))
	}
}
