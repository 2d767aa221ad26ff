// Package autoscaling answers the API of Amazon EC2 Auto Scaling: groups,
// launch configurations, hooks, policies, schedules and refreshes. It
// validates, writes one transaction, and answers. What groups then do, launch
// and end instances above all, package control/group decides; this package must
// never make an instance of EC2.
package autoscaling

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Config is what the service needs.
type Config struct {
	DB     *store.DB
	Region string
	Now    func() time.Time
	NewID  func() string // 32 hex digits
	// LinkedRole makes the service-linked role of a service in an account.
	LinkedRole func(account, service string) *state.Role
}

// Scaling implements the API.
type Scaling struct {
	api.Unimplemented
	Config
}

// New returns the service.
func New(c Config) *Scaling { return &Scaling{Config: c} }

var _ api.Handler = (*Scaling)(nil)

// Stored lists the request fields that are kept and shown but not acted upon,
// by operation and field, each with what that means.
var Stored = map[string]string{
	"CreateAutoScalingGroup.CapacityRebalance":                                              "kept and shown; nothing interrupts Spot instances here",
	"CreateAutoScalingGroup.MixedInstancesPolicy.InstancesDistribution":                     "kept and shown; all instances are on demand, of the first override that has capacity",
	"CreateAutoScalingGroup.MixedInstancesPolicy.LaunchTemplate.Overrides.WeightedCapacity": "kept and shown; every instance counts as one",
	"CreateAutoScalingGroup.Context":                                                        "kept and shown",
	"CreateAutoScalingGroup.DesiredCapacityType":                                            "kept and shown; capacity is counted in instances",
	"CreateAutoScalingGroup.InstanceMaintenancePolicy":                                      "its percentages are the defaults of refreshes; unhealthy instances are ended before others are launched",
	"CreateAutoScalingGroup.AvailabilityZoneImpairmentPolicy":                               "kept and shown; there are no zonal shifts",
	"CreateAutoScalingGroup.CapacityReservationSpecification":                               "kept and shown; there are no Capacity Reservations",
	"CreateAutoScalingGroup.InstanceLifecyclePolicy":                                        "kept and shown; instances whose hooks are abandoned end",
	"CreateAutoScalingGroup.HealthCheckType":                                                "EC2 is acted upon; there are no load balancers yet whose health could count, and no volumes",
	"PutScalingPolicy.TargetTrackingConfiguration":                                          "kept and shown; there are no metrics yet to act upon",
	"PutScalingPolicy.MetricAggregationType":                                                "kept and shown; there are no metrics yet to act upon",
	"PutScalingPolicy.EstimatedInstanceWarmup":                                              "kept and shown; capacity is counted when it is wanted",
	"EnableMetricsCollection.Metrics":                                                       "kept and shown; there is no CloudWatch yet to publish to",
	"PutLifecycleHook.NotificationMetadata":                                                 "kept and shown; nobody is notified",
	"StartInstanceRefresh.Preferences.AlarmSpecification":                                   "kept and shown; there are no alarms yet",
}

func invalid(format string, args ...any) error {
	return wire.NewError(http.StatusBadRequest, "ValidationError", fmt.Sprintf(format, args...))
}

// absent refuses by name what needs a service that is not here.
func absent(what string) error {
	return invalid("%s not supported here.", what)
}

func account(ctx context.Context) string { return auth.FromContext(ctx).Account }

func str(p *string) string { return wire.Value(p) }

func number(p *int32) int { return int(wire.Value(p)) }

// group finds a group of the account.
func group(r store.Reader, account string, name *string) (*state.ScalingGroup, error) {
	g, ok := state.ScalingGroups.Get(r, state.ScalingGroupKey(account, str(name)))
	if !ok {
		return nil, invalid("AutoScalingGroup name not found - null")
	}
	return g, nil
}

// change changes a group, and what else f puts, in one transaction.
func (s *Scaling) change(ctx context.Context, name *string, f func(tx *store.Tx, g *state.ScalingGroup) error) error {
	return s.DB.Update(ctx, func(tx *store.Tx) error {
		have, err := group(tx, account(ctx), name)
		if err != nil {
			return err
		}
		if have.Deleting {
			return &api.ResourceContentionFault{Message: "The AutoScalingGroup " + have.Name + " is pending delete."}
		}
		g := have.Clone()
		if err := f(tx, g); err != nil {
			return err
		}
		state.ScalingGroups.Put(tx, g)
		return nil
	})
}

// members are the instances of a group, by id.
func members(r store.Reader, g *state.ScalingGroup) []*state.ScalingInstance {
	return slices.SortedFunc(state.ScalingInstances.By(r, "group", g.ARN), func(a, b *state.ScalingInstance) int { return cmp.Compare(a.ID, b.ID) })
}

// member is an instance of a group, to be changed.
func member(r store.Reader, g *state.ScalingGroup, id string) (*state.ScalingInstance, error) {
	i, ok := state.ScalingInstances.Get(r, id)
	if !ok || i.Group != g.ARN {
		return nil, invalid("Instance %s is not part of Auto Scaling group %s.", id, g.Name)
	}
	n := *i
	n.Actions = slices.Clone(i.Actions)
	return &n, nil
}

// pages is one page of rows, which are in the order of their keys.
func pages[T any](s *Scaling, q page.Query, rows []T, key func(T) string, token *string, max *int32, usual, most int) ([]T, *string, error) {
	size := usual
	if max != nil {
		if size = int(*max); size < 1 || size > most {
			return nil, nil, invalid("The specified value for MaxRecords is not valid. It must be from 1 to %d.", most)
		}
	}
	if token != nil {
		after, err := page.Decode(q, *token, s.Now())
		if errors.Is(err, page.ErrExpired) {
			return nil, nil, &api.InvalidNextToken{Message: "The token is expired."}
		} else if err != nil {
			return nil, nil, &api.InvalidNextToken{Message: "The token is invalid."}
		}
		at, found := slices.BinarySearchFunc(rows, after, func(x T, k string) int { return cmp.Compare(key(x), k) })
		if found {
			at++
		}
		rows = rows[at:]
	}
	if len(rows) <= size {
		return rows, nil, nil
	}
	return rows[:size], new(page.Encode(q, key(rows[size-1]), s.Now())), nil
}

// orEmpty is a list that is shown even if it is empty.
func orEmpty[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
