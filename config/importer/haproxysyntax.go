package importer

var haproxySections = []string{"global", "defaults", "frontend", "backend", "listen", "resolvers", "peers", "userlist", "cache", "mailers", "program", "http-errors", "ring", "fcgi-app", "log-forward", "crt-list", "crt-store", "traces"}

func (s *site) haproxyFile(src Source) error { return nil }
