package autoscaling

import (
	"context"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// PutLifecycleHook makes instances wait, or changes for how long.
func (s *Scaling) PutLifecycleHook(ctx context.Context, in *api.PutLifecycleHookInput) (*api.PutLifecycleHookOutput, error) {
	return &api.PutLifecycleHookOutput{}, s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error {
		if err := putHook(g, in); err != nil {
			return err
		}
		if limit := state.Limit(tx, g.Account, "autoscaling/hooks-per-group"); len(g.Hooks) > limit {
			return &api.LimitExceededFault{Message: "The limit of lifecycle hooks of the AutoScalingGroup is reached."}
		}
		return nil
	})
}

func putHook(g *state.ScalingGroup, in *api.PutLifecycleHookInput) error {
	if str(in.NotificationTargetARN) != "" || str(in.RoleARN) != "" {
		return absent("NotificationTargetARN and RoleARN: queues and topics are")
	}
	at := slices.IndexFunc(g.Hooks, func(h api.LifecycleHook) bool { return *h.LifecycleHookName == *in.LifecycleHookName })
	h := api.LifecycleHook{LifecycleHookName: in.LifecycleHookName, AutoScalingGroupName: new(g.Name), HeartbeatTimeout: new(int32(3600)), DefaultResult: new("ABANDON")}
	if at >= 0 {
		h = g.Hooks[at]
	}
	set(&h.LifecycleTransition, in.LifecycleTransition)
	set(&h.HeartbeatTimeout, in.HeartbeatTimeout)
	set(&h.DefaultResult, in.DefaultResult)
	set(&h.NotificationMetadata, in.NotificationMetadata)
	switch {
	case h.LifecycleTransition == nil:
		return invalid("LifecycleTransition is required for a new lifecycle hook.")
	case !slices.Contains(hookTypes, *h.LifecycleTransition):
		return invalid("Invalid lifecycle transition %s: it must be one of %s", *h.LifecycleTransition, strings.Join(hookTypes, ", "))
	case *h.HeartbeatTimeout < 30 || *h.HeartbeatTimeout > 7200:
		return invalid("The heartbeat timeout %d is invalid: it must be from 30 to 7200 seconds.", *h.HeartbeatTimeout)
	case *h.DefaultResult != "CONTINUE" && *h.DefaultResult != "ABANDON":
		return invalid("The default result %s is invalid: it must be CONTINUE or ABANDON.", *h.DefaultResult)
	}
	h.GlobalTimeout = new(min(int32(48*3600), 100**h.HeartbeatTimeout))
	if at >= 0 {
		g.Hooks[at] = h
	} else {
		g.Hooks = append(g.Hooks, h)
	}
	return nil
}

var hookTypes = []string{state.HookLaunching, state.HookTerminating}

// DeleteLifecycleHook takes a hook away. What waits for it goes on.
func (s *Scaling) DeleteLifecycleHook(ctx context.Context, in *api.DeleteLifecycleHookInput) (*api.DeleteLifecycleHookOutput, error) {
	return &api.DeleteLifecycleHookOutput{}, s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error {
		had := len(g.Hooks)
		result := "ABANDON"
		g.Hooks = slices.DeleteFunc(g.Hooks, func(h api.LifecycleHook) bool {
			if *h.LifecycleHookName != *in.LifecycleHookName {
				return false
			}
			if *h.LifecycleTransition == state.HookTerminating {
				result = "CONTINUE"
			}
			return true
		})
		if len(g.Hooks) == had {
			return invalid("No Lifecycle Hook found: %s", *in.LifecycleHookName)
		}
		// AWS abandons what launches and continues what terminates.
		for _, have := range members(tx, g) {
			i, err := member(tx, g, have.ID)
			if err != nil {
				return err
			}
			changed := false
			for k := range i.Actions {
				if i.Actions[k].Hook == *in.LifecycleHookName && i.Actions[k].Result == "" {
					i.Actions[k].Result, changed = result, true
				}
			}
			if changed {
				put(tx, i)
			}
		}
		return nil
	})
}

// DescribeLifecycleHooks lists the hooks of a group.
func (s *Scaling) DescribeLifecycleHooks(ctx context.Context, in *api.DescribeLifecycleHooksInput) (*api.DescribeLifecycleHooksOutput, error) {
	g, err := group(s.DB.Snapshot(), account(ctx), in.AutoScalingGroupName)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeLifecycleHooksOutput{LifecycleHooks: []api.LifecycleHook{}}
	for _, h := range g.Hooks {
		if len(in.LifecycleHookNames) == 0 || slices.Contains(in.LifecycleHookNames, *h.LifecycleHookName) {
			out.LifecycleHooks = append(out.LifecycleHooks, h)
		}
	}
	slices.SortFunc(out.LifecycleHooks, func(a, b api.LifecycleHook) int { return strings.Compare(*a.LifecycleHookName, *b.LifecycleHookName) })
	return out, nil
}

// DescribeLifecycleHookTypes lists in which transitions hooks can wait.
func (s *Scaling) DescribeLifecycleHookTypes(context.Context, *api.DescribeLifecycleHookTypesInput) (*api.DescribeLifecycleHookTypesOutput, error) {
	return &api.DescribeLifecycleHookTypesOutput{LifecycleHookTypes: hookTypes}, nil
}

// action finds a lifecycle action, by its token or by the instance.
func (s *Scaling) action(ctx context.Context, name, hook, token, instance *string, f func(a *state.LifecycleAction)) error {
	return s.change(ctx, name, func(tx *store.Tx, g *state.ScalingGroup) error {
		for _, have := range members(tx, g) {
			if instance != nil && have.ID != *instance {
				continue
			}
			i, err := member(tx, g, have.ID)
			if err != nil {
				return err
			}
			for k := range i.Actions {
				a := &i.Actions[k]
				if a.Hook != str(hook) || a.Result != "" || token != nil && a.Token != *token || token == nil && instance == nil {
					continue
				}
				f(a)
				put(tx, i)
				return nil
			}
		}
		if token != nil {
			return invalid("No active Lifecycle Action found with token %s", *token)
		}
		return invalid("No active Lifecycle Action found with instance ID %s", str(instance))
	})
}

// CompleteLifecycleAction says how a hook's work has ended.
func (s *Scaling) CompleteLifecycleAction(ctx context.Context, in *api.CompleteLifecycleActionInput) (*api.CompleteLifecycleActionOutput, error) {
	result := *in.LifecycleActionResult
	if result != "CONTINUE" && result != "ABANDON" {
		return nil, invalid("LifecycleActionResult must be CONTINUE or ABANDON, not %s.", result)
	}
	return &api.CompleteLifecycleActionOutput{}, s.action(ctx, in.AutoScalingGroupName, in.LifecycleHookName, in.LifecycleActionToken, in.InstanceId, func(a *state.LifecycleAction) { a.Result = result })
}

// RecordLifecycleActionHeartbeat gives a hook's work more time.
func (s *Scaling) RecordLifecycleActionHeartbeat(ctx context.Context, in *api.RecordLifecycleActionHeartbeatInput) (*api.RecordLifecycleActionHeartbeatOutput, error) {
	return &api.RecordLifecycleActionHeartbeatOutput{}, s.action(ctx, in.AutoScalingGroupName, in.LifecycleHookName, in.LifecycleActionToken, in.InstanceId, func(a *state.LifecycleAction) {
		a.Deadline = s.Now().Add(a.Timeout)
	})
}

// instant is a time that a request gives, to the second.
func instant(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.UTC().Truncate(time.Second))
}
