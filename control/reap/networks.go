package reap

import (
	"time"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// How long peering connections that ended stay visible, as in AWS.
const (
	keepPeering = 2 * time.Hour
	keepRefused = 48 * time.Hour // rejected, or not accepted in time
)

// Networks forgets peering connections that ended.
var Networks = control.Controller{
	Name:  "networks",
	Reads: []store.AnyTable{state.Peerings},
	Plan:  PlanNetworks,
}

// PlanNetworks deletes what ended long ago, and wakes for what does later.
func PlanNetworks(in control.Input) (p control.Plan) {
	for x := range state.Peerings.All(in.Read) {
		end := x.EndedAt.Add(keepPeering)
		switch x.Status {
		case "active":
			continue
		case "pending-acceptance":
			end = x.CreatedAt.Add(state.PeeringLife).Add(keepRefused)
		case "rejected":
			end = x.EndedAt.Add(keepRefused)
		}
		if end.After(in.Now) || len(p.Changes) >= batch {
			p.WakeAt(end)
			continue
		}
		control.Delete(&p, state.Peerings, x.ID, x)
	}
	return p
}
