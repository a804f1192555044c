package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/internal/admin"
)

// CheckLinkRequest asks for a link to the check page.
type CheckLinkRequest struct {
	Host    string `json:"host,omitempty"` // what clients use; empty: found
	Seconds int64  `json:"seconds"`        // how long it may wait to be opened
}

// CheckLink is a link that works once.
type CheckLink struct {
	URL     string    `json:"url"`
	Expires time.Time `json:"expires"`
}

const (
	checkLinkLife = 15 * time.Minute
	maxLinkLife   = 24 * time.Hour
)

func (a *app) handleCheckLink(r *http.Request) (any, error) {
	var in CheckLinkRequest
	if err := admin.Read(r, &in); err != nil {
		return nil, err
	}
	link, err := a.checkLink(in.Host, time.Duration(in.Seconds)*time.Second)
	if err != nil {
		return nil, &admin.Error{Status: http.StatusBadRequest, Message: err.Error()}
	}
	return link, nil
}

// checkLink makes a link for the configuration that runs.
func (a *app) checkLink(host string, life time.Duration) (CheckLink, error) {
	p := a.plan.Load()
	if p.check == nil {
		return CheckLink{}, fmt.Errorf("check.path is empty in the configuration: there is no check page")
	}
	if life < time.Second || life > maxLinkLife {
		return CheckLink{}, fmt.Errorf("a link can live from 1s to %s, not %s", maxLinkLife, life)
	}
	st, err := newSite(p.cfg, host)
	if err != nil {
		return CheckLink{}, err
	}
	token, expires := a.checks.tickets.Issue(life)
	// In the fragment: browsers send it to nobody, and it is in no log.
	return CheckLink{URL: "https://" + st.web() + p.check.path + "#" + token, Expires: expires.Truncate(time.Second)}, nil
}

func newCheckLinkCommand(io streams) *cobra.Command {
	var host string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "check-link",
		Short: "Make a one-time link to the page on which a user sees whether everything works",
		Long: `Makes a link to the check page of the running turngate. Open it in a browser
where the users are: the page tries the certificate, WebSockets, log reports and
TURN over each transport from there, and says what is wrong and whom to ask. The
link works once; the page that it opened can repeat the test for half an hour.`,
		Args: usageArgs(cobra.NoArgs),
	}
	r := newRemote(io, cmd)
	cmd.Flags().StringVar(&host, "host", "", "name or address that clients use (default: the domain, else the external address)")
	cmd.Flags().DurationVar(&ttl, "ttl", checkLinkLife, "how long the link may wait to be opened, 24h at most")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if ttl < time.Second || ttl > maxLinkLife {
			return usageError{fmt.Errorf("--ttl is from 1s to %s", maxLinkLife)}
		}
		var link CheckLink
		return r.ask(cmd, "POST", admin.PathCheck, CheckLinkRequest{host, int64(ttl / time.Second)}, &link, func() {
			fmt.Fprintln(io.out, link.URL)
			fmt.Fprintf(io.err, "works once, until %s; open it in a browser where the users are\n", link.Expires.Local().Format(time.DateTime))
		})
	}
	return cmd
}
