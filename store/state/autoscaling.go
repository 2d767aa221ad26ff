package state

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/store"
)

// ScalingGroup is an Auto Scaling group. Whoever changes an instance of the
// group changes the group's row as well: so plans and calls that look at all of
// its instances exclude each other.
type ScalingGroup struct {
	ARN, Account, Name string
	Doc                autoscaling.AutoScalingGroup // as it is described, without instances
	Subnets            []string                     // where it launches
	Hooks              []autoscaling.LifecycleHook

	Causes     []string  // why the desired capacity is what it is, for the activities that follow
	Activities int64     // how many there were
	Cooldown   time.Time // no simple scaling before
	RetryAt    time.Time // no launch before, because one has failed
	Failures   int       // of launches, one after another
	Surplus    int       // instances above the desired capacity, while zones are balanced
	Deleting   bool
	Version    int64
}

// ScalingGroups is keyed by account/name.
var ScalingGroups = store.NewTable("asg", func(g *ScalingGroup) string { return ScalingGroupKey(g.Account, g.Name) },
	store.Index("account", func(g *ScalingGroup) []string { return []string{g.Account} }),
	store.Index("arn", func(g *ScalingGroup) []string { return []string{g.ARN} }))

// ScalingGroupKey is the key of a group.
func ScalingGroupKey(account, name string) string { return account + "/" + name }

// ScalingGroupOf finds a group by its ARN.
func ScalingGroupOf(r store.Reader, arn string) (*ScalingGroup, bool) {
	for g := range ScalingGroups.By(r, "arn", arn) {
		return g, true
	}
	return nil, false
}

// Clone is a copy that may be changed, but for what its slices hold.
func (g *ScalingGroup) Clone() *ScalingGroup {
	n := *g
	n.Hooks, n.Causes = slices.Clone(g.Hooks), slices.Clone(g.Causes)
	n.Version++
	return &n
}

// Min, Max and Desired are the bounds of the group and what is wanted.
func (g *ScalingGroup) Min() int     { return number(g.Doc.MinSize) }
func (g *ScalingGroup) Max() int     { return number(g.Doc.MaxSize) }
func (g *ScalingGroup) Desired() int { return number(g.Doc.DesiredCapacity) }

// Suspended reports whether a process of the group is suspended.
func (g *ScalingGroup) Suspended(process string) bool {
	return slices.ContainsFunc(g.Doc.SuspendedProcesses, func(p autoscaling.SuspendedProcess) bool { return str(p.ProcessName) == process })
}

// Want changes the desired capacity and says why.
func (g *ScalingGroup) Want(n int, why string, now time.Time) {
	if n == g.Desired() {
		return
	}
	g.Causes = append(g.Causes, fmt.Sprintf("At %s %s changing the desired capacity from %d to %d.", ScalingTime(now), why, g.Desired(), n))
	g.Doc.DesiredCapacity = new(int32(n))
	g.RetryAt, g.Failures = time.Time{}, 0
}

// ScalingTime is a time as causes say it.
func ScalingTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// Warmup is how long after it is in service an instance of the group counts as warm.
func (g *ScalingGroup) Warmup() time.Duration {
	if w := g.Doc.DefaultInstanceWarmup; w != nil && *w >= 0 {
		return time.Duration(*w) * time.Second
	}
	return time.Duration(number(g.Doc.HealthCheckGracePeriod)) * time.Second
}

// ScalingInstance is an instance of a group, from its launch until it has
// ended, or was detached.
type ScalingInstance struct {
	ID, Account, Group        string // ARN of the group
	Zone, Subnet, Type, Image string
	State                     string // LifecycleState
	Health                    string // Healthy, Unhealthy
	Sick                      string // why it is Unhealthy, in the words of a cause
	Protected                 bool
	Template                  *autoscaling.LaunchTemplateSpecification // the version is a number
	Configuration             string                                   // launch configuration
	LaunchedAt, InServiceAt   time.Time
	Activity                  int64             // the one that is under way, 0: none
	Actions                   []LifecycleAction // those of its state
}

// Leaving reports whether the instance is on its way out.
func (i *ScalingInstance) Leaving() bool {
	return strings.HasPrefix(i.State, "Terminat") || strings.HasPrefix(i.State, "Detach")
}

// Counts reports whether the instance is part of the group's capacity.
func (i *ScalingInstance) Counts() bool {
	return i.State == "InService" || strings.HasPrefix(i.State, "Pending")
}

// Ready reports whether the instance serves and has had time to warm up.
func (i *ScalingInstance) Ready(warmup time.Duration, now time.Time) bool {
	return i.State == "InService" && i.Health == "Healthy" && !i.InServiceAt.Add(warmup).After(now)
}

// ScalingInstances is keyed by the instance's id.
var ScalingInstances = store.NewTable("asg-instance", func(i *ScalingInstance) string { return i.ID },
	store.Index("account", func(i *ScalingInstance) []string { return []string{i.Account} }),
	store.Index("group", func(i *ScalingInstance) []string { return []string{i.Group} }))

// LifecycleAction is a hook at work: the instance waits for its result.
type LifecycleAction struct {
	Hook, Token     string
	Timeout         time.Duration // of the heartbeat
	Default         string        // the result if nobody says one in time
	Deadline, Limit time.Time     // of the heartbeat, and at the very latest
	Result          string        // CONTINUE, ABANDON
}

// Transitions that hooks wait in.
const (
	HookLaunching   = "autoscaling:EC2_INSTANCE_LAUNCHING"
	HookTerminating = "autoscaling:EC2_INSTANCE_TERMINATING"
)

// ScalingActivity is something that a group does or did.
type ScalingActivity struct {
	Group, Account string // ARN of the group
	Seq            int64
	Doc            autoscaling.Activity
}

// ScalingActivities is keyed by group/number.
var ScalingActivities = store.NewTable("asg-activity", func(a *ScalingActivity) string { return ScalingActivityKey(a.Group, a.Seq) },
	store.Index("account", func(a *ScalingActivity) []string { return []string{a.Account} }))

// ScalingActivityKey is the key of an activity.
func ScalingActivityKey(group string, seq int64) string { return fmt.Sprintf("%s/%012d", group, seq) }

// NewActivity adds an activity to the group's count; it must be stored with the group.
func (g *ScalingGroup) NewActivity(id, description, cause string, where *ScalingInstance, now time.Time) *ScalingActivity {
	g.Activities++
	a := &ScalingActivity{Group: g.ARN, Account: g.Account, Seq: g.Activities}
	if len(cause) > maxCause {
		cause = cause[:maxCause]
	}
	a.Doc = autoscaling.Activity{ActivityId: new(UUID(id)), AutoScalingGroupName: new(g.Name), AutoScalingGroupARN: new(g.ARN), Description: new(description),
		Cause: new(cause), StartTime: new(now), StatusCode: autoscaling.ScalingActivityStatusCodeInProgress, Progress: new(int32(0)), Details: new("{}")}
	if where != nil {
		d, _ := json.Marshal(struct { // two texts: it always encodes
			Subnet string `json:"Subnet ID,omitempty"`
			Zone   string `json:"Availability Zone"`
		}{where.Subnet, where.Zone})
		a.Doc.Details = new(string(d))
	}
	return a
}

// maxCause is how long AWS's causes may be.
const maxCause = 1023

// Finish ends an activity: a copy of it.
func (a *ScalingActivity) Finish(code autoscaling.ScalingActivityStatusCode, message string, now time.Time) *ScalingActivity {
	n := *a
	n.Doc.StatusCode, n.Doc.EndTime, n.Doc.Progress = code, new(now), new(int32(100))
	if message != "" {
		if len(message) > 255 {
			message = message[:255]
		}
		n.Doc.StatusMessage = new(message)
	}
	return &n
}

// UUID puts dashes into 32 hex digits.
func UUID(hex string) string {
	if len(hex) < 32 {
		hex += strings.Repeat("0", 32-len(hex))
	}
	return hex[:8] + "-" + hex[8:12] + "-" + hex[12:16] + "-" + hex[16:20] + "-" + hex[20:32]
}

// LaunchConfiguration says how instances are launched, without versions.
type LaunchConfiguration struct {
	Account, Name string
	Doc           autoscaling.LaunchConfiguration
}

// LaunchConfigurations is keyed by account/name.
var LaunchConfigurations = store.NewTable("launch-configuration", func(c *LaunchConfiguration) string { return c.Account + "/" + c.Name },
	store.Index("account", func(c *LaunchConfiguration) []string { return []string{c.Account} }))

// ScalingPolicy is a policy of a group.
type ScalingPolicy struct {
	Group, Account, Name string // ARN of the group
	Doc                  autoscaling.ScalingPolicy
}

// ScalingPolicies is keyed by group/name.
var ScalingPolicies = store.NewTable("asg-policy", func(p *ScalingPolicy) string { return p.Group + "/" + p.Name },
	store.Index("account", func(p *ScalingPolicy) []string { return []string{p.Account} }))

// ScheduledScaling is a scheduled action of a group.
type ScheduledScaling struct {
	Group, Account, Name string // ARN of the group
	Doc                  autoscaling.ScheduledUpdateGroupAction
	Due                  time.Time // when it happens next; zero: never again
}

// ScheduledScalings is keyed by group/name.
var ScheduledScalings = store.NewTable("asg-schedule", func(s *ScheduledScaling) string { return s.Group + "/" + s.Name },
	store.Index("account", func(s *ScheduledScaling) []string { return []string{s.Account} }))

// InstanceRefresh replaces the instances of a group.
type InstanceRefresh struct {
	ID, Account, Group string // ARN of the group
	Doc                autoscaling.InstanceRefresh
	Before             autoscaling.DesiredConfiguration // the group's, to go back to
	BeforeLC           string                           // its launch configuration, if it had one
	Begun              bool                             // what follows is known
	Replace            []string                         // instances that are to go
	Total              int                              // how many they were
	Checkpoint         int                              // how many of the checkpoints are behind
	ResumeAt           time.Time                        // the pause at a checkpoint, or the baking, ends
	Progress           time.Time                        // when something last went forward
	WaitTransitions    bool                             // of a cancellation
	Launched           time.Time                        // instances launched from then on are its own
}

// Active reports whether the refresh is under way.
func (f *InstanceRefresh) Active() bool {
	switch f.Doc.Status {
	case "Pending", "InProgress", "Baking", "Cancelling", "RollbackInProgress":
		return true
	}
	return false
}

// InstanceRefreshes is keyed by id.
var InstanceRefreshes = store.NewTable("asg-refresh", func(f *InstanceRefresh) string { return f.ID },
	store.Index("account", func(f *InstanceRefresh) []string { return []string{f.Account} }),
	store.Index("group", func(f *InstanceRefresh) []string { return []string{f.Group} }))

// ActiveRefresh is the refresh of a group that is under way, nil if none is.
func ActiveRefresh(r store.Reader, group string) *InstanceRefresh {
	for f := range InstanceRefreshes.By(r, "group", group) {
		if f.Active() {
			return f
		}
	}
	return nil
}

// ScalingLaunch is one way to launch an instance of a group.
type ScalingLaunch struct {
	In            *ec2.RunInstancesInput
	Template      *autoscaling.LaunchTemplateSpecification // its version is a number
	Configuration string
}

// Launches are the ways in which the group launches instances, the preferred
// one first: its own, or those of the configuration that a refresh brings.
func (g *ScalingGroup) Launches(r store.Reader, over *autoscaling.DesiredConfiguration) ([]ScalingLaunch, error) {
	template, mixed, lc := g.Doc.LaunchTemplate, g.Doc.MixedInstancesPolicy, str(g.Doc.LaunchConfigurationName)
	if over != nil && (over.LaunchTemplate != nil || over.MixedInstancesPolicy != nil) {
		template, mixed, lc = over.LaunchTemplate, over.MixedInstancesPolicy, ""
	}
	switch {
	case lc != "":
		c, ok := LaunchConfigurations.Get(r, g.Account+"/"+lc)
		if !ok {
			return nil, refuse("ValidationError", "Launch configuration name not found - Launch configuration with name: %s does not exist", lc)
		}
		return []ScalingLaunch{{In: c.run(), Configuration: lc}}, nil
	case mixed != nil && mixed.LaunchTemplate != nil:
		return mixedLaunches(r, g.Account, mixed)
	}
	l, err := templateLaunch(r, g.Account, template, nil)
	if err != nil {
		return nil, err
	}
	return []ScalingLaunch{l}, nil
}

// mixedLaunches are the overrides of a mixed instances policy in their order.
func mixedLaunches(r store.Reader, account string, m *autoscaling.MixedInstancesPolicy) ([]ScalingLaunch, error) {
	base := m.LaunchTemplate.LaunchTemplateSpecification
	if len(m.LaunchTemplate.Overrides) == 0 {
		l, err := templateLaunch(r, account, base, nil)
		return []ScalingLaunch{l}, err
	}
	var out []ScalingLaunch
	for i := range m.LaunchTemplate.Overrides {
		o := &m.LaunchTemplate.Overrides[i]
		l, err := templateLaunch(r, account, cmp.Or(o.LaunchTemplateSpecification, base), o)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// templateLaunch is a launch by a template, with the version as it is now.
func templateLaunch(r store.Reader, account string, s *autoscaling.LaunchTemplateSpecification, o *autoscaling.LaunchTemplateOverrides) (l ScalingLaunch, err error) {
	if s == nil {
		return l, refuse("ValidationError", "Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.")
	}
	spec := &ec2.LaunchTemplateSpecification{LaunchTemplateId: s.LaunchTemplateId, Version: s.Version}
	if s.LaunchTemplateId == nil {
		spec.LaunchTemplateName = s.LaunchTemplateName
	}
	t, v, err := FindTemplate(r, account, spec)
	if err != nil {
		return l, err
	}
	l.Template = &autoscaling.LaunchTemplateSpecification{LaunchTemplateId: new(t.ID), LaunchTemplateName: new(t.Name), Version: new(strconv.Itoa(v.Number))}
	l.In = &ec2.RunInstancesInput{LaunchTemplate: &ec2.LaunchTemplateSpecification{LaunchTemplateId: new(t.ID), Version: l.Template.Version}}
	if o != nil {
		l.In.InstanceType = ec2.InstanceType(str(o.InstanceType))
		l.In.ImageId = o.ImageId
	}
	return l, nil
}

// run is the request that a launch configuration stands for.
func (c *LaunchConfiguration) run() *ec2.RunInstancesInput {
	d := &c.Doc
	in := &ec2.RunInstancesInput{ImageId: d.ImageId, InstanceType: ec2.InstanceType(str(d.InstanceType)), UserData: d.UserData, EbsOptimized: d.EbsOptimized}
	if str(d.KeyName) != "" {
		in.KeyName = d.KeyName
	}
	if p := str(d.IamInstanceProfile); strings.HasPrefix(p, "arn:") {
		in.IamInstanceProfile = &ec2.IamInstanceProfileSpecification{Arn: &p}
	} else if p != "" {
		in.IamInstanceProfile = &ec2.IamInstanceProfileSpecification{Name: &p}
	}
	if d.AssociatePublicIpAddress != nil {
		in.NetworkInterfaces = []ec2.InstanceNetworkInterfaceSpecification{{DeviceIndex: new(int32(0)), AssociatePublicIpAddress: d.AssociatePublicIpAddress, Groups: d.SecurityGroups}}
	} else {
		in.SecurityGroupIds = d.SecurityGroups
	}
	if m := d.InstanceMonitoring; m != nil {
		in.Monitoring = &ec2.RunInstancesMonitoringEnabled{Enabled: m.Enabled}
	}
	if m := d.MetadataOptions; m != nil {
		in.MetadataOptions = &ec2.InstanceMetadataOptionsRequest{HttpTokens: ec2.HttpTokensState(m.HttpTokens), HttpEndpoint: ec2.InstanceMetadataEndpointState(m.HttpEndpoint), HttpPutResponseHopLimit: m.HttpPutResponseHopLimit}
	}
	if str(d.SpotPrice) != "" {
		in.InstanceMarketOptions = &ec2.InstanceMarketOptionsRequest{MarketType: "spot", SpotOptions: &ec2.SpotMarketOptions{MaxPrice: d.SpotPrice}}
	}
	if t := str(d.PlacementTenancy); t != "" {
		in.Placement = &ec2.Placement{Tenancy: ec2.Tenancy(t)}
	}
	for _, m := range d.BlockDeviceMappings {
		n := ec2.BlockDeviceMapping{DeviceName: m.DeviceName, VirtualName: m.VirtualName}
		if e := m.Ebs; e != nil {
			n.Ebs = &ec2.EbsBlockDevice{SnapshotId: e.SnapshotId, VolumeSize: e.VolumeSize, VolumeType: ec2.VolumeType(str(e.VolumeType)), DeleteOnTermination: e.DeleteOnTermination,
				Iops: e.Iops, Encrypted: e.Encrypted, Throughput: e.Throughput}
		}
		in.BlockDeviceMappings = append(in.BlockDeviceMappings, n)
	}
	return in
}

// Matches reports whether an instance is as this launch would make it.
func (l *ScalingLaunch) Matches(i *ScalingInstance, kind string) bool {
	if l.Template == nil || i.Template == nil {
		return l.Configuration != "" && l.Configuration == i.Configuration
	}
	if str(l.Template.LaunchTemplateId) != str(i.Template.LaunchTemplateId) || str(l.Template.Version) != str(i.Template.Version) {
		return false
	}
	return kind == "" || kind == i.Type
}

// End wants the instance terminated on behalf of a group.
func (i *Instance) End(now time.Time) *Instance {
	n := *i
	if n.Want == InstanceTerminated {
		return i
	}
	n.Want, n.State = InstanceTerminated, "shutting-down"
	n.TransitionReason = "User initiated (" + now.UTC().Format("2006-01-02 15:04:05") + " GMT)"
	n.StateCode, n.StateMessage = "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown"
	return &n
}
