package autoscaling

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
	"github.com/berth-run/berth/store/state/cron"
)

// schedule makes a scheduled action of a request, or says what is wrong with it.
func (s *Scaling) schedule(tx *store.Tx, g *state.ScalingGroup, in *api.PutScheduledUpdateGroupActionInput) error {
	now := s.Now()
	key := g.ARN + "/" + *in.ScheduledActionName
	start := instant(in.StartTime)
	if start == nil {
		start = instant(in.Time)
	}
	d := api.ScheduledUpdateGroupAction{AutoScalingGroupName: new(g.Name), ScheduledActionName: in.ScheduledActionName, StartTime: start, Time: start, EndTime: instant(in.EndTime),
		Recurrence: in.Recurrence, MinSize: in.MinSize, MaxSize: in.MaxSize, DesiredCapacity: in.DesiredCapacity, TimeZone: in.TimeZone,
		ScheduledActionARN: new(fmt.Sprintf("arn:aws:autoscaling:%s:%s:scheduledUpdateGroupAction:%s:autoScalingGroupName/%s:scheduledActionName/%s", s.Region, g.Account, state.UUID(s.NewID()), g.Name, *in.ScheduledActionName))}
	if have, ok := state.ScheduledScalings.Get(tx, key); ok {
		d.ScheduledActionARN = have.Doc.ScheduledActionARN
	} else {
		count := 0
		for range state.ScheduledScalings.Prefix(tx, g.ARN+"/") {
			count++
		}
		if count >= state.Limit(tx, g.Account, "autoscaling/schedules-per-group") {
			return &api.LimitExceededFault{Message: "The limit of scheduled actions of the AutoScalingGroup is reached."}
		}
	}
	zone := time.UTC
	switch {
	case d.MinSize == nil && d.MaxSize == nil && d.DesiredCapacity == nil:
		return invalid("Scheduled action must have at least one of MinSize, MaxSize, or DesiredCapacity")
	case d.Recurrence == nil && start == nil:
		return invalid("Scheduled action must have a start time or a recurrence")
	case in.StartTime != nil && in.Time != nil && !in.StartTime.Equal(*in.Time):
		return invalid("Parameters Time and StartTime are not the same")
	case start != nil && start.Before(now.Truncate(time.Second)):
		return invalid("Given start time is in the past")
	case d.EndTime != nil && d.EndTime.Before(now):
		return invalid("Given end time is in the past")
	case start != nil && d.EndTime != nil && !d.EndTime.After(*start):
		return invalid("Given end time is not after the start time")
	case d.MinSize != nil && d.MaxSize != nil && *d.MinSize > *d.MaxSize:
		return invalid("Max bound, %d, must be greater than or equal to min bound, %d", *d.MaxSize, *d.MinSize)
	case number(d.MinSize) < 0 && number(d.MinSize) != -1, number(d.MaxSize) < -1, number(d.DesiredCapacity) < -1:
		return invalid("Sizes of a scheduled action must not be negative.")
	}
	for _, p := range []**int32{&d.MinSize, &d.MaxSize, &d.DesiredCapacity} {
		if *p != nil && **p == -1 {
			*p = nil // as Terraform says that it does not say
		}
	}
	if d.TimeZone != nil {
		var err error
		if zone, err = time.LoadLocation(*d.TimeZone); err != nil || *d.TimeZone == "Local" {
			return invalid("Invalid time zone: %s", *d.TimeZone)
		}
	}
	row := &state.ScheduledScaling{Group: g.ARN, Account: g.Account, Name: *in.ScheduledActionName, Doc: d}
	if d.Recurrence != nil {
		c, err := cron.Parse(*d.Recurrence)
		if err != nil {
			return invalid("Given recurrence string: %s is invalid", *d.Recurrence)
		}
		from := now
		if start != nil {
			from = start.Add(-time.Second)
		}
		next := c.Next(from, zone)
		if next.IsZero() || d.EndTime != nil && next.After(*d.EndTime) {
			return invalid("Given recurrence string: %s has no date before the end time", *d.Recurrence)
		}
		row.Due = next.UTC()
		if start == nil {
			row.Doc.StartTime, row.Doc.Time = new(row.Due), new(row.Due)
		}
	} else {
		row.Due = *start
	}
	state.ScheduledScalings.Put(tx, row)
	return nil
}

// PutScheduledUpdateGroupAction makes or changes a scheduled action.
func (s *Scaling) PutScheduledUpdateGroupAction(ctx context.Context, in *api.PutScheduledUpdateGroupActionInput) (*api.PutScheduledUpdateGroupActionOutput, error) {
	return &api.PutScheduledUpdateGroupActionOutput{}, s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error { return s.schedule(tx, g, in) })
}

// BatchPutScheduledUpdateGroupAction makes several, and answers those that cannot be made.
func (s *Scaling) BatchPutScheduledUpdateGroupAction(ctx context.Context, in *api.BatchPutScheduledUpdateGroupActionInput) (*api.BatchPutScheduledUpdateGroupActionOutput, error) {
	if len(in.ScheduledUpdateGroupActions) > 50 {
		return nil, invalid("At most 50 scheduled actions can be put at once.")
	}
	out := &api.BatchPutScheduledUpdateGroupActionOutput{}
	return out, s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error {
		out.FailedScheduledUpdateGroupActions = []api.FailedScheduledUpdateGroupActionRequest{}
		for _, a := range in.ScheduledUpdateGroupActions {
			err := s.schedule(tx, g, &api.PutScheduledUpdateGroupActionInput{ScheduledActionName: a.ScheduledActionName, StartTime: a.StartTime, EndTime: a.EndTime, Recurrence: a.Recurrence,
				MinSize: a.MinSize, MaxSize: a.MaxSize, DesiredCapacity: a.DesiredCapacity, TimeZone: a.TimeZone})
			if err != nil {
				out.FailedScheduledUpdateGroupActions = append(out.FailedScheduledUpdateGroupActions, failed(a.ScheduledActionName, err))
			}
		}
		return nil
	})
}

func failed(name *string, err error) api.FailedScheduledUpdateGroupActionRequest {
	code := "InternalFailure"
	if e, ok := err.(interface{ ErrorCode() string }); ok {
		code = e.ErrorCode()
	}
	return api.FailedScheduledUpdateGroupActionRequest{ScheduledActionName: name, ErrorCode: &code, ErrorMessage: new(words(err))}
}

func unschedule(tx *store.Tx, g *state.ScalingGroup, name string) error {
	if !state.ScheduledScalings.Has(tx, g.ARN+"/"+name) {
		return invalid("Scheduled action name not found - null")
	}
	state.ScheduledScalings.Delete(tx, g.ARN+"/"+name)
	return nil
}

// DeleteScheduledAction takes a scheduled action away.
func (s *Scaling) DeleteScheduledAction(ctx context.Context, in *api.DeleteScheduledActionInput) (*api.DeleteScheduledActionOutput, error) {
	return &api.DeleteScheduledActionOutput{}, s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error { return unschedule(tx, g, *in.ScheduledActionName) })
}

// BatchDeleteScheduledAction takes several away, and answers those that are not there.
func (s *Scaling) BatchDeleteScheduledAction(ctx context.Context, in *api.BatchDeleteScheduledActionInput) (*api.BatchDeleteScheduledActionOutput, error) {
	out := &api.BatchDeleteScheduledActionOutput{}
	return out, s.change(ctx, in.AutoScalingGroupName, func(tx *store.Tx, g *state.ScalingGroup) error {
		out.FailedScheduledActions = []api.FailedScheduledUpdateGroupActionRequest{}
		for _, name := range in.ScheduledActionNames {
			if err := unschedule(tx, g, name); err != nil {
				out.FailedScheduledActions = append(out.FailedScheduledActions, failed(&name, err))
			}
		}
		return nil
	})
}

// DescribeScheduledActions lists scheduled actions.
func (s *Scaling) DescribeScheduledActions(ctx context.Context, in *api.DescribeScheduledActionsInput) (*api.DescribeScheduledActionsOutput, error) {
	r, me := s.DB.Snapshot(), account(ctx)
	if in.AutoScalingGroupName != nil {
		if _, err := group(r, me, in.AutoScalingGroupName); err != nil {
			return nil, err
		}
	}
	key := func(x *state.ScheduledScaling) string { return x.Name + "/" + *x.Doc.AutoScalingGroupName }
	var rows []*state.ScheduledScaling
	for x := range state.ScheduledScalings.By(r, "account", me) {
		switch {
		case in.AutoScalingGroupName != nil && *x.Doc.AutoScalingGroupName != *in.AutoScalingGroupName,
			len(in.ScheduledActionNames) > 0 && !slices.Contains(in.ScheduledActionNames, x.Name) && !slices.Contains(in.ScheduledActionNames, *x.Doc.ScheduledActionARN),
			in.StartTime != nil && x.Due.Before(*in.StartTime), in.EndTime != nil && x.Due.After(*in.EndTime):
		default:
			rows = append(rows, x)
		}
	}
	slices.SortFunc(rows, func(a, b *state.ScheduledScaling) int { return strings.Compare(key(a), key(b)) })
	q := page.Query{"schedules", me, str(in.AutoScalingGroupName), fmt.Sprint(in.ScheduledActionNames, in.StartTime, in.EndTime)}
	rows, next, err := pages(s, q, rows, key, in.NextToken, in.MaxRecords, 50, 100)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeScheduledActionsOutput{ScheduledUpdateGroupActions: []api.ScheduledUpdateGroupAction{}, NextToken: next}
	for _, x := range rows {
		out.ScheduledUpdateGroupActions = append(out.ScheduledUpdateGroupActions, x.Doc)
	}
	return out, nil
}
