package entry

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/internal/proxy"
)

// balance is how a route chooses among its upstreams.
type balance struct {
	order proxy.Balance
	query string // the parameter whose value is the key; "": the client's address
}

// parseBalance reads the word of a configuration:
//
//	order              as they are listed; "" too
//	client_ip          one and the same for a client address (IPv6: /64)
//	query:NAME         one and the same for a value of a query parameter
//	least_connections  the one with the fewest for its weight
func parseBalance(s string) (balance, error) {
	switch name, isQuery := strings.CutPrefix(s, "query:"); {
	case s == "" || s == "order":
		return balance{order: proxy.InOrder}, nil
	case s == "client_ip":
		return balance{order: proxy.ByKey}, nil
	case s == "least_connections":
		return balance{order: proxy.LeastConnections}, nil
	case isQuery && name != "":
		return balance{proxy.ByKey, name}, nil
	}
	return balance{}, fmt.Errorf(`balance %q: want "order", "client_ip", "query:NAME" or "least_connections"`, s)
}

// Search begins the search for the upstream of a handshake.
func (g *Gate) Search(r *http.Request, query string) *proxy.Search {
	return g.Pool.Search(g.balance.key(r, query, g.Headers.Trust))
}

// key is what a request is spread by. A parameter that is missing, empty or there twice
// says nothing; then the address does.
func (b balance) key(r *http.Request, query string, trust proxy.Trust) string {
	if b.order != proxy.ByKey {
		return ""
	}
	if b.query != "" {
		if value, n := proxy.QueryValue(query, b.query); n == 1 && value != "" {
			return "query " + value
		}
	}
	return limit.Source(trust.Client(r)).String()
}
