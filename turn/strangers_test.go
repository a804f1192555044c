package turn_test

import (
	"context"
	"testing"
	"time"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
)

func TestAnswersToStrangersHaveABudget(t *testing.T) {
	const asked, perSecond = 1000, 50
	s, addr := start(t, func(o *turn.Options) { o.Limits.UnauthenticatedAnswers = perSecond })
	for _, tt := range []struct {
		name   string
		method uint16
	}{{"Allocate", tc.MethodAllocate}, {"Binding", tc.MethodBinding}} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := tc.Dial(within(t), "udp", addr.String(), tc.Auth{}, tc.Retransmit(0))
			must(t, err)
			defer c.Close()
			began := time.Now()
			for range asked {
				must(t, c.SendRaw(within(t), tc.NewBuilder(tt.method, tc.ClassRequest).Bytes()))
			}
			_, err = c.Stray(within(t))
			must(t, err)
			answers := 1
			for {
				ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
				_, err := c.Stray(ctx)
				cancel()
				if err != nil {
					break
				}
				answers++
			}
			// The burst, the rate, and one in sixteen of the rest with room for chance.
			most := int(perSecond*(1.6+time.Since(began).Seconds())) + asked/16*2
			if answers > most {
				t.Errorf("answers to %d requests: got %d, want 1 to %d", asked, answers, most)
			}
		})
	}
	// A client that can be heard gets its relay all the same, and is not
	// counted from then on.
	c, _ := site{server: s, network: "udp", addr: addr}.allocated(t)
	for range 200 {
		if _, err := c.Binding(within(t)); err != nil {
			t.Fatal(err)
		}
	}
}
