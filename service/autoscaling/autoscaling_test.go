package autoscaling

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/control/boot"
	planned "github.com/berth-run/berth/control/group"
	"github.com/berth-run/berth/service/ec2"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const owner = "123456789012"

// bench is a region without machines: what a node would report is done here,
// and the time is what a test says.
type bench struct {
	*testing.T
	*Scaling
	ec2     *ec2.EC2
	ctx     context.Context
	now     time.Time
	subnets map[string]string // by zone
	stuck   bool              // the node boots nothing
}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), subnets: map[string]string{}}
	db := store.OpenMemory()
	t.Cleanup(func() { db.Close() })
	var mu sync.Mutex
	n := 0
	id := func() string {
		mu.Lock()
		defer mu.Unlock()
		n++
		return fmt.Sprintf("%017x%015d", n, 0)
	}
	region := &state.Region{Name: "eu-west-1", Account: owner, ShortID: "aabbcc", PublicPool: netip.MustParsePrefix("198.18.0.0/22"),
		Zones: []state.Zone{{Name: "eu-west-1a", ID: "euw1-az1"}, {Name: "eu-west-1b", ID: "euw1-az2"}, {Name: "eu-west-1c", ID: "euw1-az3"}}}
	clock := func() time.Time { return b.now }
	if err := db.Update(t.Context(), func(tx *store.Tx) error {
		state.Regions.Put(tx, region)
		state.Nodes.Put(tx, &state.Node{Name: "n", CPU: 64 * 1024, Memory: 1 << 20})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := ec2.Bootstrap(t.Context(), db, region, owner, b.now, id); err != nil {
		t.Fatal(err)
	}
	for s := range state.Subnets.All(db.Snapshot()) {
		b.subnets[s.Zone] = s.ID
	}
	b.ctx = auth.WithCaller(t.Context(), &auth.Caller{Account: owner, ARN: "arn:aws:iam::" + owner + ":user/bob"})
	b.Scaling = New(Config{DB: db, Region: "eu-west-1", Now: clock, NewID: id, LinkedRole: func(account, service string) *state.Role {
		return &state.Role{Account: account, Path: "/aws-service-role/" + service + "/", Name: linkedRole, ID: "AROAX"}
	}})
	b.ec2 = ec2.New(ec2.Config{DB: db, Region: "eu-west-1", Account: func(context.Context) string { return owner }, Now: clock, NewID: id})
	image := ""
	for _, i := range state.AmazonImages("eu-west-1") {
		if i.Architecture == "x86_64" && i.ECS && image == "" {
			image = i.ID
		}
	}
	call(b, b.ec2.CreateLaunchTemplate, `{"LaunchTemplateName":"ltx","LaunchTemplateData":{"ImageId":"`+image+`","InstanceType":"t3.micro"}}`)
	return b
}

func call[I, O any](b *bench, op func(context.Context, *I) (*O, error), body string) *O {
	b.Helper()
	in := new(I)
	if err := json.Unmarshal([]byte(body), in); err != nil {
		b.Fatal(err)
	}
	out, err := op(b.ctx, in)
	if err != nil {
		b.Fatalf("%T %s: %v", *in, body, err)
	}
	return out
}

func refuse[I, O any](b *bench, op func(context.Context, *I) (*O, error), body, code, words string) {
	b.Helper()
	in := new(I)
	if err := json.Unmarshal([]byte(body), in); err != nil {
		b.Fatal(err)
	}
	if _, err := op(b.ctx, in); err == nil || wire.Code(err) != code || !strings.Contains(err.Error(), words) {
		b.Errorf("%T %s: %v, want %s: %s", *in, body, err, code, words)
	}
}

// create makes a group over two zones.
func (b *bench) create(more string) {
	b.Helper()
	call(b, b.CreateAutoScalingGroup, `{"AutoScalingGroupName":"g","VPCZoneIdentifier":"`+b.subnets["eu-west-1a"]+","+b.subnets["eu-west-1b"]+`","LaunchTemplate":{"LaunchTemplateName":"ltx","Version":"$Latest"},`+more+`}`)
}

// step plans once, and lets the node do what it is told. It reports whether
// anything changed.
func (b *bench) step(check func()) bool {
	b.Helper()
	changed := false
	for _, c := range []control.Controller{planned.Controller, boot.Controller} {
		p := c.Plan(control.Input{Read: b.DB.Snapshot(), All: true, Now: b.now, NewID: b.NewID})
		if ok, err := control.Apply(b.Context(), b.DB, p); err != nil || !ok {
			b.Fatalf("apply %s: %v %v", c.Name, ok, err)
		}
		changed = changed || len(p.Changes) > 0
		if check != nil {
			check()
		}
	}
	if err := b.DB.Update(b.Context(), func(tx *store.Tx) error {
		for i := range state.Instances.All(tx) {
			n := *i
			switch {
			case i.Want == "running" && i.Node != "" && !b.stuck:
				n.ReportedState, n.ReportedBoots = "running", i.Boots
			case i.Want == "terminated":
				n.ReportedState = "gone"
			case i.Want == "stopped":
				n.ReportedState = "stopped"
			}
			if n.ReportedState != i.ReportedState || n.ReportedBoots != i.ReportedBoots {
				state.Instances.Put(tx, &n)
				changed = true
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	return changed
}

// settle plans until nothing changes.
func (b *bench) settle() {
	b.Helper()
	b.settleWith(nil)
}

func (b *bench) settleWith(check func()) {
	b.Helper()
	for range 200 {
		if !b.step(check) {
			return
		}
	}
	b.Fatal("the plans do not come to rest")
}

// wait lets time pass.
func (b *bench) wait(d time.Duration) {
	b.now = b.now.Add(d)
	b.settle()
}

func (b *bench) group() api.AutoScalingGroup {
	b.Helper()
	out := call(b, b.DescribeAutoScalingGroups, `{"AutoScalingGroupNames":["g"]}`)
	if len(out.AutoScalingGroups) != 1 {
		b.Fatalf("%d groups", len(out.AutoScalingGroups))
	}
	return out.AutoScalingGroups[0]
}

// shows is the group's instances: how many in each state, by zone.
func (b *bench) shows() string {
	b.Helper()
	n := map[string]int{}
	for _, i := range b.group().Instances {
		n[strings.TrimPrefix(*i.AvailabilityZone, "eu-west-1")+" "+string(i.LifecycleState)]++
	}
	var out []string
	for k, c := range n {
		out = append(out, fmt.Sprint(k, " ", c))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (b *bench) want(s string) {
	b.Helper()
	if got := b.shows(); got != s {
		b.Errorf("instances: %s, want %s", got, s)
	}
}

func (b *bench) ids() (out []string) {
	for _, i := range b.group().Instances {
		out = append(out, *i.InstanceId)
	}
	return out
}

// activities are the newest first: status, description and cause.
func (b *bench) activities() (out []string) {
	b.Helper()
	for _, a := range call(b, b.DescribeScalingActivities, `{"AutoScalingGroupName":"g"}`).Activities {
		out = append(out, fmt.Sprintf("%s: %s: %s", a.StatusCode, *a.Description, *a.Cause))
	}
	return out
}

func TestLifeOfAGroup(t *testing.T) {
	b := newBench(t)
	b.create(`"MinSize":1,"MaxSize":4,"DesiredCapacity":2,"Tags":[{"Key":"team","Value":"x","PropagateAtLaunch":true},{"Key":"own","Value":"y"}]`)
	b.step(nil)
	b.want("a Pending 1, b Pending 1")
	b.settle()
	b.want("a InService 1, b InService 1")
	g := b.group()
	if *g.Instances[0].LaunchTemplate.Version != "1" || *g.LaunchTemplate.Version != "$Latest" || *g.DefaultCooldown != 300 || g.TerminationPolicies[0] != "Default" {
		t.Errorf("group %+v", g)
	}
	if _, ok := state.Roles.Get(b.DB.Snapshot(), state.IAMKey(owner, linkedRole)); !ok {
		t.Error("there is no service-linked role")
	}
	m, _ := state.Instances.Get(b.DB.Snapshot(), *g.Instances[0].InstanceId)
	tags := fmt.Sprint(m.Tags)
	if !strings.Contains(tags, "{aws:autoscaling:groupName g}") || !strings.Contains(tags, "{team x}") || strings.Contains(tags, "own") || !strings.Contains(tags, "{aws:ec2launchtemplate:version 1}") {
		t.Errorf("tags %s", tags)
	}
	if m.RequesterID != "autoscaling.amazonaws.com" {
		t.Errorf("requester %q", m.RequesterID)
	}
	want := "Successful: Launching a new EC2 instance: " + m.ID + ": At 2026-11-22T12:00:00Z a user request created an AutoScalingGroup changing the desired capacity from 0 to 2.  At 2026-11-22T12:00:00Z an instance was started in response to a difference between desired and actual capacity, increasing the capacity from "
	if as := b.activities(); len(as) != 2 || !strings.HasPrefix(as[1], want) && !strings.HasPrefix(as[0], want) {
		t.Errorf("activities %q", as)
	}

	call(b, b.SetDesiredCapacity, `{"AutoScalingGroupName":"g","DesiredCapacity":4}`)
	b.settle()
	b.want("a InService 2, b InService 2")
	call(b, b.UpdateAutoScalingGroup, `{"AutoScalingGroupName":"g","MaxSize":3}`)
	b.settle()
	if n := len(b.ids()); n != 3 || *b.group().DesiredCapacity != 3 {
		t.Errorf("%d instances, desired %d", n, *b.group().DesiredCapacity)
	}
	if as := b.activities(); !strings.Contains(as[0], "a user request update of AutoScalingGroup constraints to min: 1, max: 3, desired: 3 changing the desired capacity from 4 to 3.") || !strings.Contains(as[0], "was selected for termination.") {
		t.Errorf("activity %q", as[0])
	}

	// One that somebody ends, and one that is said to be unhealthy, are replaced.
	ids := b.ids()
	call(b, b.ec2.TerminateInstances, `{"InstanceIds":["`+ids[0]+`"]}`)
	call(b, b.SetInstanceHealth, `{"InstanceId":"`+ids[1]+`","HealthStatus":"Unhealthy"}`)
	b.settle()
	if now := b.ids(); len(now) != 3 || slices.Contains(now, ids[0]) || slices.Contains(now, ids[1]) {
		t.Errorf("instances %v after %v", now, ids)
	}
	as := strings.Join(b.activities(), "\n")
	for _, words := range []string{"in response to an EC2 health check indicating it has been terminated or stopped.", "in response to a user health-check."} {
		if !strings.Contains(as, words) {
			t.Errorf("no activity says %s", words)
		}
	}

	refuse(b, b.DeleteAutoScalingGroup, `{"AutoScalingGroupName":"g"}`, "ResourceInUse", "You cannot delete an AutoScalingGroup while there are instances")
	call(b, b.DeleteAutoScalingGroup, `{"AutoScalingGroupName":"g","ForceDelete":true}`)
	if s := b.group().Status; s == nil || *s != "Delete in progress" {
		t.Error("it does not say that it is being deleted")
	}
	b.settle()
	if out := call(b, b.DescribeAutoScalingGroups, `{}`); len(out.AutoScalingGroups) != 0 {
		t.Error("the group is still there")
	}
	for i := range state.Instances.All(b.DB.Snapshot()) {
		if i.State != "terminated" {
			t.Errorf("%s is %s", i.ID, i.State)
		}
	}
	refuse(b, b.UpdateAutoScalingGroup, `{"AutoScalingGroupName":"g"}`, "ValidationError", "AutoScalingGroup name not found - null")
	if out := call(b, b.DescribeScalingActivities, `{"IncludeDeletedGroups":true}`); len(out.Activities) == 0 || *out.Activities[0].AutoScalingGroupState != "Deleted" {
		t.Error("what a deleted group did is forgotten")
	}
	b.wait(43 * 24 * time.Hour)
	for a := range state.ScalingActivities.All(b.DB.Snapshot()) {
		t.Fatalf("an activity is kept for ever: %+v", a)
	}
}

func TestWhatIsRefused(t *testing.T) {
	b := newBench(t)
	b.create(`"MinSize":1,"MaxSize":4`)
	base := `"AutoScalingGroupName":"h","MinSize":1,"MaxSize":1,"VPCZoneIdentifier":"` + b.subnets["eu-west-1a"] + `"`
	lt := `,"LaunchTemplate":{"LaunchTemplateName":"ltx"}`
	for _, x := range []struct{ body, code, words string }{
		{strings.Replace(base, `"h"`, `"g"`, 1) + lt, "AlreadyExists", "AutoScalingGroup by this name already exists - A group with the name g already exists"},
		{base, "ValidationError", "Valid requests must contain either LaunchTemplate"},
		{base + `,"LaunchTemplate":{"LaunchTemplateName":"no"}`, "ValidationError", "does not exist"},
		{base + `,"LaunchTemplate":{"LaunchTemplateName":"ltx","Version":"9"}`, "ValidationError", "Could not find launch template version"},
		{base + lt + `,"DesiredCapacity":5`, "ValidationError", "Desired capacity:5 must be between the specified min size:1 and max size:1"},
		{base + lt + `,"TargetGroupARNs":["arn:aws:elasticloadbalancing:x"]`, "ValidationError", "Elastic Load Balancing"},
		{base + lt + `,"TerminationPolicies":["Mine"]`, "ValidationError", "Mine"},
		{base + lt + `,"MaxInstanceLifetime":5`, "ValidationError", "86400"},
		{base + lt + `,"HealthCheckType":"DNS"`, "ValidationError", "DNS"},
		{`"AutoScalingGroupName":"h","MinSize":1,"MaxSize":1` + lt, "ValidationError", "At least one Availability Zone or VPC Subnet is required."},
		{`"AutoScalingGroupName":"a:b","MinSize":1,"MaxSize":1` + lt, "ValidationError", "a:b"},
	} {
		refuse(b, b.CreateAutoScalingGroup, "{"+x.body+"}", x.code, x.words)
	}
	refuse(b, b.SetDesiredCapacity, `{"AutoScalingGroupName":"g","DesiredCapacity":9}`, "ValidationError", "above max value 4")
	refuse(b, b.PutScalingPolicy, `{"AutoScalingGroupName":"g","PolicyName":"p","PolicyType":"PredictiveScaling"}`, "ValidationError", "PredictiveScaling")
	refuse(b, b.PutWarmPool, `{"AutoScalingGroupName":"g"}`, "ValidationError", "Warm pools")
	refuse(b, b.CancelInstanceRefresh, `{"AutoScalingGroupName":"g"}`, "ActiveInstanceRefreshNotFound", "")
	refuse(b, b.PutScheduledUpdateGroupAction, `{"AutoScalingGroupName":"g","ScheduledActionName":"s","Recurrence":"x","MinSize":1}`, "ValidationError", "recurrence")
	refuse(b, b.DescribeAutoScalingGroups, `{"NextToken":"x"}`, "InvalidNextToken", "")
	other := *b
	other.ctx = auth.WithCaller(b.Context(), &auth.Caller{Account: "210987654321"})
	refuse(&other, b.SetDesiredCapacity, `{"AutoScalingGroupName":"g","DesiredCapacity":2}`, "ValidationError", "not found")
	if out := call(&other, b.DescribeAutoScalingGroups, `{}`); len(out.AutoScalingGroups) != 0 {
		t.Error("another account sees the group")
	}
}

func TestLifecycleHooks(t *testing.T) {
	b := newBench(t)
	b.create(`"MinSize":0,"MaxSize":4,"DesiredCapacity":1,"LifecycleHookSpecificationList":[{"LifecycleHookName":"up","LifecycleTransition":"autoscaling:EC2_INSTANCE_LAUNCHING","HeartbeatTimeout":60},{"LifecycleHookName":"down","LifecycleTransition":"autoscaling:EC2_INSTANCE_TERMINATING","HeartbeatTimeout":60,"DefaultResult":"CONTINUE"}]`)
	b.settle()
	b.want("a Pending:Wait 1")
	id := b.ids()[0]
	b.now = b.now.Add(50 * time.Second)
	call(b, b.RecordLifecycleActionHeartbeat, `{"AutoScalingGroupName":"g","LifecycleHookName":"up","InstanceId":"`+id+`"}`)
	b.wait(50 * time.Second)
	b.want("a Pending:Wait 1")
	call(b, b.CompleteLifecycleAction, `{"AutoScalingGroupName":"g","LifecycleHookName":"up","InstanceId":"`+id+`","LifecycleActionResult":"CONTINUE"}`)
	b.settle()
	b.want("a InService 1")
	refuse(b, b.CompleteLifecycleAction, `{"AutoScalingGroupName":"g","LifecycleHookName":"up","InstanceId":"`+id+`","LifecycleActionResult":"CONTINUE"}`, "ValidationError", "No active Lifecycle Action")

	call(b, b.SetDesiredCapacity, `{"AutoScalingGroupName":"g","DesiredCapacity":0}`)
	b.settle()
	b.want("a Terminating:Wait 1")
	if m, _ := state.Instances.Get(b.DB.Snapshot(), id); m.Want != "running" {
		t.Error("it does not wait for its hook")
	}
	b.wait(61 * time.Second)
	b.want("")

	// A launch whose hook nobody completes is given up, and begun anew.
	call(b, b.SetDesiredCapacity, `{"AutoScalingGroupName":"g","DesiredCapacity":1}`)
	b.settle()
	first := b.ids()[0]
	b.wait(61 * time.Second)
	b.wait(61 * time.Second)
	if slices.Contains(b.ids(), first) {
		t.Error("an abandoned launch is in service")
	}
}

func TestStandbyDetachProtect(t *testing.T) {
	b := newBench(t)
	b.create(`"MinSize":0,"MaxSize":6,"DesiredCapacity":4`)
	b.settle()
	ids := b.ids()
	out := call(b, b.EnterStandby, `{"AutoScalingGroupName":"g","InstanceIds":["`+ids[0]+`"],"ShouldDecrementDesiredCapacity":true}`)
	if len(out.Activities) != 1 || !strings.HasSuffix(*out.Activities[0].Cause, "instance "+ids[0]+" was moved to standby in response to a user request, shrinking the capacity from 4 to 3.") {
		t.Errorf("activity %+v", out.Activities)
	}
	b.settle()
	if n := len(b.ids()); n != 4 {
		t.Errorf("%d instances", n)
	}
	call(b, b.ExitStandby, `{"AutoScalingGroupName":"g","InstanceIds":["`+ids[0]+`"]}`)
	b.settle()
	b.want("a InService 2, b InService 2")
	call(b, b.DetachInstances, `{"AutoScalingGroupName":"g","InstanceIds":["`+ids[1]+`"],"ShouldDecrementDesiredCapacity":true}`)
	b.settle()
	if m, _ := state.Instances.Get(b.DB.Snapshot(), ids[1]); m.Want != "running" || slices.Contains(b.ids(), ids[1]) {
		t.Error("a detached instance runs on outside of its group")
	}
	call(b, b.AttachInstances, `{"AutoScalingGroupName":"g","InstanceIds":["`+ids[1]+`"]}`)
	refuse(b, b.AttachInstances, `{"AutoScalingGroupName":"g","InstanceIds":["`+ids[1]+`"]}`, "ValidationError", "already part of AutoScalingGroup:g")
	call(b, b.SetInstanceProtection, `{"AutoScalingGroupName":"g","InstanceIds":["`+ids[0]+`","`+ids[1]+`"],"ProtectedFromScaleIn":true}`)
	call(b, b.SetDesiredCapacity, `{"AutoScalingGroupName":"g","DesiredCapacity":0}`)
	b.settle()
	if got := b.ids(); len(got) != 2 || !slices.Contains(got, ids[0]) || !slices.Contains(got, ids[1]) {
		t.Errorf("instances %v, protected %v", got, ids[:2])
	}
	term := call(b, b.TerminateInstanceInAutoScalingGroup, `{"InstanceId":"`+ids[0]+`","ShouldDecrementDesiredCapacity":false}`)
	if *term.Activity.Description != "Terminating EC2 instance: "+ids[0] {
		t.Errorf("activity %+v", term.Activity)
	}
	b.settle()
	if got := b.ids(); len(got) != 1 || got[0] != ids[1] {
		t.Errorf("instances %v", got)
	}
}

func TestBalance(t *testing.T) {
	b := newBench(t)
	b.create(`"MinSize":0,"MaxSize":4,"DesiredCapacity":4`)
	b.settle()
	call(b, b.UpdateAutoScalingGroup, `{"AutoScalingGroupName":"g","VPCZoneIdentifier":"`+b.subnets["eu-west-1a"]+","+b.subnets["eu-west-1b"]+","+b.subnets["eu-west-1c"]+`"}`)
	b.settleWith(func() {
		if n := len(b.group().Instances); n > 6 {
			t.Errorf("%d instances of 4", n)
		}
		serve := 0
		for _, i := range b.group().Instances {
			if i.LifecycleState == "InService" {
				serve++
			}
		}
		if serve < 4 {
			t.Errorf("%d serve of 4 while zones are balanced", serve)
		}
	})
	b.want("a InService 1, b InService 2, c InService 1")
	if as := strings.Join(b.activities(), "\n"); !strings.Contains(as, "availability zones eu-west-1a eu-west-1b eu-west-1c had 2 2 0 instances respectively. An instance was launched to aid in balancing the group's zones.") {
		t.Errorf("activities %s", as)
	}
}

func TestLaunchFails(t *testing.T) {
	b := newBench(t)
	b.create(`"MinSize":0,"MaxSize":4,"DesiredCapacity":0`)
	call(b, b.ec2.DeleteLaunchTemplate, `{"LaunchTemplateName":"ltx"}`)
	call(b, b.SetDesiredCapacity, `{"AutoScalingGroupName":"g","DesiredCapacity":1}`)
	b.settle()
	as := b.activities()
	if len(as) != 1 || !strings.HasPrefix(as[0], "Failed: Launching a new EC2 instance.  Status Reason: ") || !strings.Contains(as[0], "Launching EC2 instance failed.") {
		t.Errorf("activities %q", as)
	}
	b.wait(10 * time.Second)
	if n := len(b.activities()); n != 1 {
		t.Errorf("%d attempts within 10 seconds", n)
	}
	b.wait(2 * time.Minute)
	if n := len(b.activities()); n != 2 {
		t.Errorf("%d attempts", n)
	}
}

func TestPoliciesAndSchedules(t *testing.T) {
	b := newBench(t)
	b.create(`"MinSize":1,"MaxSize":8,"DesiredCapacity":2`)
	call(b, b.PutScalingPolicy, `{"AutoScalingGroupName":"g","PolicyName":"simple","AdjustmentType":"ChangeInCapacity","ScalingAdjustment":2,"Cooldown":60}`)
	call(b, b.PutScalingPolicy, `{"AutoScalingGroupName":"g","PolicyName":"step","PolicyType":"StepScaling","AdjustmentType":"PercentChangeInCapacity","MinAdjustmentMagnitude":2,"StepAdjustments":[{"MetricIntervalLowerBound":0,"MetricIntervalUpperBound":10,"ScalingAdjustment":10},{"MetricIntervalLowerBound":10,"ScalingAdjustment":100}]}`)
	call(b, b.ExecutePolicy, `{"AutoScalingGroupName":"g","PolicyName":"simple","HonorCooldown":true}`)
	refuse(b, b.ExecutePolicy, `{"AutoScalingGroupName":"g","PolicyName":"simple","HonorCooldown":true}`, "ScalingActivityInProgress", "cooldown")
	if n := *b.group().DesiredCapacity; n != 4 {
		t.Errorf("desired %d", n)
	}
	call(b, b.ExecutePolicy, `{"AutoScalingGroupName":"g","PolicyName":"step","MetricValue":55,"BreachThreshold":50}`)
	if n := *b.group().DesiredCapacity; n != 6 {
		t.Errorf("desired %d after a step of 10 percent, two at least", n)
	}
	call(b, b.ExecutePolicy, `{"AutoScalingGroupName":"g","PolicyName":"step","MetricValue":65,"BreachThreshold":50}`)
	if n := *b.group().DesiredCapacity; n != 8 {
		t.Errorf("desired %d after a step of 100 percent, the maximum is 8", n)
	}
	call(b, b.PutScheduledUpdateGroupAction, `{"AutoScalingGroupName":"g","ScheduledActionName":"night","Recurrence":"0 20 * * *","MinSize":0,"MaxSize":1,"DesiredCapacity":0}`)
	call(b, b.PutScheduledUpdateGroupAction, `{"AutoScalingGroupName":"g","ScheduledActionName":"once","StartTime":"2026-11-23T06:00:00Z","MaxSize":5,"DesiredCapacity":3}`)
	b.settle()
	if n := len(b.ids()); n != 8 {
		t.Errorf("%d instances", n)
	}
	b.wait(8 * time.Hour)
	if g := b.group(); *g.DesiredCapacity != 0 || *g.MaxSize != 1 || len(g.Instances) != 0 {
		t.Errorf("at 20:00 desired %d, max %d, %d instances", *g.DesiredCapacity, *g.MaxSize, len(g.Instances))
	}
	b.wait(10 * time.Hour)
	if g := b.group(); *g.DesiredCapacity != 3 || *g.MaxSize != 5 || len(g.Instances) != 3 {
		t.Errorf("at 6:00 desired %d, max %d, %d instances", *g.DesiredCapacity, *g.MaxSize, len(g.Instances))
	}
	out := call(b, b.DescribeScheduledActions, `{"AutoScalingGroupName":"g"}`)
	if len(out.ScheduledUpdateGroupActions) != 1 || !out.ScheduledUpdateGroupActions[0].StartTime.Equal(time.Date(2026, 11, 23, 20, 0, 0, 0, time.UTC)) {
		t.Errorf("actions %+v", out.ScheduledUpdateGroupActions)
	}
}

func (b *bench) refresh() api.InstanceRefresh {
	b.Helper()
	return call(b, b.DescribeInstanceRefreshes, `{"AutoScalingGroupName":"g"}`).InstanceRefreshes[0]
}

// newVersion changes the launch template.
func (b *bench) newVersion() {
	b.Helper()
	call(b, b.ec2.CreateLaunchTemplateVersion, `{"LaunchTemplateName":"ltx","SourceVersion":"1","LaunchTemplateData":{"InstanceType":"t3.small"}}`)
}

func (b *bench) versions() string {
	b.Helper()
	n := map[string]int{}
	for _, i := range b.group().Instances {
		n[*i.LaunchTemplate.Version]++
	}
	return fmt.Sprint(n)
}

// While a refresh replaces all instances never fewer serve than it says, and
// what it says of itself is so.
func TestInstanceRefresh(t *testing.T) {
	for _, x := range []struct {
		desired, least, most, floor int
	}{{2, 90, 100, 1}, {4, 50, 100, 2}, {10, 90, 100, 9}, {3, 100, 100, 2}, {3, 100, 110, 3}, {6, 90, 150, 6}, {1, 90, 100, 0}, {5, 0, 100, 0}} {
		b := newBench(t)
		b.create(fmt.Sprintf(`"MinSize":0,"MaxSize":20,"DesiredCapacity":%d`, x.desired))
		b.settle()
		b.newVersion()
		call(b, b.StartInstanceRefresh, fmt.Sprintf(`{"AutoScalingGroupName":"g","Preferences":{"MinHealthyPercentage":%d,"MaxHealthyPercentage":%d,"InstanceWarmup":30}}`, x.least, x.most))
		refuse(b, b.StartInstanceRefresh, `{"AutoScalingGroupName":"g"}`, "InstanceRefreshInProgress", "")
		least, last := x.desired, int32(0)
		check := func() {
			warm, all := 0, 0
			for i := range state.ScalingInstances.All(b.DB.Snapshot()) {
				if i.Counts() {
					all++
				}
				if i.State == "InService" && (*i.Template.Version == "1" || !i.InServiceAt.Add(30*time.Second).After(b.now)) {
					warm++
				}
			}
			if b.refresh().Status != "Successful" { // zones may be balanced afterwards
				least = min(least, warm)
			}
			if ceiling := max(x.desired+1, x.desired*x.most/100); all > ceiling || x.most == 100 && all > x.desired {
				t.Errorf("%+v: %d instances", x, all)
			}
			f := b.refresh()
			if f.PercentageComplete != nil {
				if *f.PercentageComplete < last {
					t.Errorf("%+v: from %d%% to %d%%", x, last, *f.PercentageComplete)
				}
				last = *f.PercentageComplete
				if int(*f.InstancesToUpdate) > x.desired {
					t.Errorf("%+v: %d to update", x, *f.InstancesToUpdate)
				}
			}
		}
		for range 40 {
			b.settleWith(check)
			b.now = b.now.Add(10 * time.Second)
		}
		f := b.refresh()
		if f.Status != "Successful" || *f.PercentageComplete != 100 || *f.InstancesToUpdate != 0 || f.EndTime == nil {
			t.Errorf("%+v: refresh is %s, %v%%", x, f.Status, *f.PercentageComplete)
		}
		if got, want := b.versions(), fmt.Sprintf("map[2:%d]", x.desired); got != want {
			t.Errorf("%+v: versions %s, want %s", x, got, want)
		}
		if least != x.floor {
			t.Errorf("%+v: %d served at least, want %d", x, least, x.floor)
		}
	}
}

func TestRefreshPreferences(t *testing.T) {
	b := newBench(t)
	b.create(`"MinSize":0,"MaxSize":20,"DesiredCapacity":4`)
	b.settle()
	b.newVersion()
	call(b, b.StartInstanceRefresh, `{"AutoScalingGroupName":"g","Preferences":{"MinHealthyPercentage":50,"CheckpointPercentages":[50,100],"CheckpointDelay":600}}`)
	b.settle()
	if f := b.refresh(); *f.PercentageComplete != 50 || f.Status != "InProgress" {
		t.Errorf("at the checkpoint %s %d%%", f.Status, *f.PercentageComplete)
	}
	if v := b.versions(); v != "map[1:2 2:2]" {
		t.Errorf("versions %s", v)
	}
	b.wait(601 * time.Second)
	if f := b.refresh(); f.Status != "Successful" {
		t.Errorf("after the checkpoint %s %d%%", f.Status, *f.PercentageComplete)
	}
	ids := b.ids()
	call(b, b.StartInstanceRefresh, `{"AutoScalingGroupName":"g","Preferences":{"SkipMatching":true}}`)
	b.settle()
	if f := b.refresh(); f.Status != "Successful" || !slices.Equal(ids, b.ids()) {
		t.Errorf("what matches was replaced, %s", f.Status)
	}
	// Protected instances are waited for, an hour.
	call(b, b.SetInstanceProtection, `{"AutoScalingGroupName":"g","InstanceIds":["`+ids[0]+`"],"ProtectedFromScaleIn":true}`)
	b.now = b.now.Add(time.Second)
	call(b, b.StartInstanceRefresh, `{"AutoScalingGroupName":"g","Preferences":{"MinHealthyPercentage":0}}`)
	b.settle()
	if f := b.refresh(); f.Status != "InProgress" || *f.InstancesToUpdate != 1 || !slices.Contains(b.ids(), ids[0]) {
		t.Errorf("with a protected instance %s, %d left", f.Status, *f.InstancesToUpdate)
	}
	b.wait(61 * time.Minute)
	if f := b.refresh(); f.Status != "Failed" || f.StatusReason == nil {
		t.Errorf("after an hour %s", f.Status)
	}
	b.now = b.now.Add(time.Second)
	call(b, b.StartInstanceRefresh, `{"AutoScalingGroupName":"g","Preferences":{"MinHealthyPercentage":0,"ScaleInProtectedInstances":"Refresh"}}`)
	b.settle()
	if f := b.refresh(); f.Status != "Successful" || slices.Contains(b.ids(), ids[0]) {
		t.Errorf("a protected instance is to be replaced: %s", f.Status)
	}
}

func TestRollbackAndCancel(t *testing.T) {
	b := newBench(t)
	b.create(`"MinSize":0,"MaxSize":20,"DesiredCapacity":4`)
	b.settle()
	b.newVersion()
	call(b, b.StartInstanceRefresh, `{"AutoScalingGroupName":"g","Preferences":{"CheckpointPercentages":[25,100]}}`)
	b.settle()
	refuse(b, b.RollbackInstanceRefresh, `{"AutoScalingGroupName":"g"}`, "IrreversibleInstanceRefresh", "no desired configuration")
	call(b, b.CancelInstanceRefresh, `{"AutoScalingGroupName":"g"}`)
	b.settle()
	if f := b.refresh(); f.Status != "Cancelled" || b.versions() != "map[1:3 2:1]" {
		t.Errorf("%s, %s", f.Status, b.versions())
	}
	call(b, b.UpdateAutoScalingGroup, `{"AutoScalingGroupName":"g","LaunchTemplate":{"LaunchTemplateName":"ltx","Version":"1"}}`)
	b.now = b.now.Add(time.Second)
	call(b, b.StartInstanceRefresh, `{"AutoScalingGroupName":"g","Preferences":{"SkipMatching":true,"CheckpointPercentages":[50,100]},"DesiredConfiguration":{"LaunchTemplate":{"LaunchTemplateName":"ltx","Version":"2"}}}`)
	b.settle()
	if v := b.versions(); v != "map[1:1 2:3]" {
		t.Errorf("half way %s", v)
	}
	b.now = b.now.Add(time.Second)
	call(b, b.RollbackInstanceRefresh, `{"AutoScalingGroupName":"g"}`)
	b.settle()
	if f := b.refresh(); f.Status != "RollbackSuccessful" || f.RollbackDetails == nil {
		t.Errorf("rolled back: %s", f.Status)
	}
	if v := b.versions(); v != "map[1:3 2:1]" {
		t.Errorf("rolled back to %s", v)
	}
	b.now = b.now.Add(time.Second)
	call(b, b.StartInstanceRefresh, `{"AutoScalingGroupName":"g","DesiredConfiguration":{"LaunchTemplate":{"LaunchTemplateName":"ltx","Version":"2"}}}`)
	b.settle()
	if g := b.group(); *g.LaunchTemplate.Version != "2" || b.versions() != "map[2:4]" {
		t.Errorf("version %s, instances %s", *g.LaunchTemplate.Version, b.versions())
	}
}

func TestLaunchConfigurationsAndPages(t *testing.T) {
	b := newBench(t)
	image := ""
	for _, i := range state.AmazonImages("eu-west-1") {
		if i.Architecture == "x86_64" {
			image = i.ID
		}
	}
	for n := range 3 {
		call(b, b.CreateLaunchConfiguration, fmt.Sprintf(`{"LaunchConfigurationName":"c%d","ImageId":"%s","InstanceType":"t3.micro","UserData":"aGk="}`, n, image))
	}
	refuse(b, b.CreateLaunchConfiguration, `{"LaunchConfigurationName":"c0","ImageId":"`+image+`","InstanceType":"t3.micro"}`, "AlreadyExists", "c0")
	call(b, b.CreateAutoScalingGroup, `{"AutoScalingGroupName":"g","MinSize":1,"MaxSize":1,"AvailabilityZones":["eu-west-1c"],"LaunchConfigurationName":"c1"}`)
	b.settle()
	b.want("c InService 1")
	if i := b.group().Instances[0]; *i.LaunchConfigurationName != "c1" || i.LaunchTemplate != nil {
		t.Errorf("instance %+v", i)
	}
	refuse(b, b.DeleteLaunchConfiguration, `{"LaunchConfigurationName":"c1"}`, "ResourceInUse", "g")
	call(b, b.DeleteLaunchConfiguration, `{"LaunchConfigurationName":"c0"}`)
	var names []string
	in := &awsDescribe{MaxRecords: new(int32(1))}
	for {
		out, err := b.DescribeLaunchConfigurations(b.ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range out.LaunchConfigurations {
			names = append(names, *c.LaunchConfigurationName)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if fmt.Sprint(names) != "[c1 c2]" {
		t.Errorf("configurations %v", names)
	}
	if l := call(b, b.DescribeAccountLimits, `{}`); *l.MaxNumberOfAutoScalingGroups != 500 || *l.NumberOfAutoScalingGroups != 1 || *l.NumberOfLaunchConfigurations != 2 {
		t.Errorf("limits %+v", l)
	}
}

type awsDescribe = api.DescribeLaunchConfigurationsInput
