package group

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store/state"
)

// backoff is how long a group waits after launches have failed.
func backoff(failures int) time.Duration {
	return min(30*time.Second<<min(failures, 10), 10*time.Minute)
}

// scale launches and ends instances until there are as many as wanted.
func (w *work) scale() {
	active := w.active()
	waiting := 0
	for _, r := range active {
		if r.now.State != inService {
			waiting++
		}
	}
	if w.g.Surplus > 0 && waiting == 0 {
		w.g.Surplus = 0
		w.touch()
	}
	desired := w.g.Desired()
	margin := w.g.Surplus + w.extra()
	switch missing := desired + margin - len(active); {
	case missing > 0 && !w.g.Suspended("Launch"):
		for range missing {
			if !w.more(len(active), desired) {
				return
			}
			active = w.active()
		}
	case missing < 0 && !w.g.Suspended("Terminate"):
		for range -missing {
			if !w.fewer(len(w.active())) {
				return
			}
		}
	}
	if len(w.active()) == desired+margin && len(w.g.Causes) > 0 {
		w.g.Causes = nil // what they have led to has begun
		w.touch()
	}
	if margin == 0 && waiting == 0 && len(w.active()) == desired && w.refresh == nil {
		w.balance()
	}
}

// more launches one instance; false if there can be none now.
func (w *work) more(have, desired int) bool {
	if w.g.RetryAt.After(w.in.Now) {
		w.WakeAt(w.g.RetryAt)
		return false
	}
	cause := fmt.Sprintf("At %s an instance was started in response to a difference between desired and actual capacity, increasing the capacity from %d to %d.", w.at(), have, max(desired, have+1))
	return w.launch(w.because(cause), w.zones())
}

// zones are those in which the group launches, the one with the fewest instances first.
func (w *work) zones() []string {
	count := w.count()
	var out []string
	for _, id := range w.g.Subnets {
		if s, ok := state.Subnets.Get(w.in.Read, id); ok && !slices.Contains(out, s.Zone) {
			out = append(out, s.Zone)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return count[a] - count[b] })
	return out
}

// count is how many instances the group has in each zone.
func (w *work) count() map[string]int {
	n := map[string]int{}
	for _, r := range w.active() {
		n[r.now.Zone]++
	}
	return n
}

// launch launches one instance in the first zone that takes it. Where none
// does, the activity says why, and the group waits.
func (w *work) launch(cause string, zones []string) bool {
	if w.launched >= batch {
		w.WakeAt(w.in.Now)
		return false
	}
	ways, err := w.g.Launches(w.in.Read, w.configuration())
	if err == nil && len(zones) == 0 {
		err = errors.New("the subnets of the group do not exist")
	}
	for _, zone := range zones {
		if err != nil && ways == nil {
			break
		}
		for _, subnet := range w.subnets(zone) {
			for _, way := range ways {
				var made *state.Launched
				made, err = w.try(way, subnet)
				if err != nil {
					continue
				}
				w.made(made, way, cause)
				return true
			}
		}
		if d := w.g.Doc.AvailabilityZoneDistribution; d != nil && d.CapacityDistributionStrategy == "balanced-only" {
			break
		}
	}
	w.g.Failures++
	w.g.RetryAt = w.in.Now.Add(backoff(w.g.Failures))
	w.WakeAt(w.g.RetryAt)
	message := text(err) + " Launching EC2 instance failed."
	seq := w.activity("Launching a new EC2 instance.  Status Reason: "+message, cause, nil)
	w.fresh[seq] = w.fresh[seq].Finish(autoscaling.ScalingActivityStatusCodeFailed, message, w.in.Now)
	return false
}

func text(err error) string {
	if e, ok := errors.AsType[*wire.APIError](err); ok {
		return e.Message
	}
	return err.Error()
}

// subnets are the group's of a zone, the one with the fewest instances first.
func (w *work) subnets(zone string) []string {
	count := map[string]int{}
	for _, r := range w.active() {
		count[r.now.Subnet]++
	}
	var out []string
	for _, id := range w.g.Subnets {
		if s, ok := state.Subnets.Get(w.in.Read, id); ok && s.Zone == zone {
			out = append(out, id)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return count[a] - count[b] })
	return out
}

// linked is the RequesterId that instances of groups show.
const linked = "autoscaling.amazonaws.com"

func (w *work) try(way state.ScalingLaunch, subnet string) (*state.Launched, error) {
	in := *way.In
	in.MinCount, in.MaxCount = new(int32(1)), new(int32(1))
	tags := []state.Tag{{Key: "aws:autoscaling:groupName", Value: w.g.Name}}
	for _, t := range w.g.Doc.Tags {
		if t.PropagateAtLaunch != nil && *t.PropagateAtLaunch {
			tags = append(tags, state.Tag{Key: *t.Key, Value: wire.Value(t.Value)})
		}
	}
	if p := wire.Value(w.g.Doc.PlacementGroup); p != "" {
		pl := ec2.Placement{}
		if in.Placement != nil {
			pl = *in.Placement
		}
		pl.GroupName = new(p)
		in.Placement = &pl
	}
	region, ok := state.Regions.Get(w.in.Read, state.RegionKey)
	if !ok {
		return nil, errors.New("there is no region")
	}
	made, err := state.Launch{Region: region.Name, Account: w.g.Account, In: &in, Subnet: subnet, Tags: tags, ServiceLinked: linked, NewID: w.in.NewID, Now: w.in.Now,
		Addresses: w.addresses, Besides: w.besides[w.g.Account]}.Plan(w.in.Read)
	if err != nil {
		return nil, err
	}
	for _, e := range made.Interfaces {
		if _, exists := state.NetworkInterfaces.Get(w.in.Read, e.ID); exists {
			return nil, errors.New("A launch template of an Auto Scaling group cannot name a network interface.")
		}
	}
	return made, nil
}

// made adds the rows of a new instance.
func (w *work) made(l *state.Launched, way state.ScalingLaunch, cause string) {
	w.launched++
	w.besides[w.g.Account]++
	m := l.Instances[0]
	control.Put(w.Plan, state.Instances, m.ID, nil, m)
	for _, e := range l.Interfaces {
		control.Put(w.Plan, state.NetworkInterfaces, e.ID, nil, e)
		// Neither a subnet nor a group can go while an interface comes to carry it: who deletes one guards the interfaces.
		if s, ok := state.Subnets.Get(w.in.Read, e.Subnet); ok {
			control.Require(w.Plan, state.Subnets, s.ID, s)
		}
		for _, id := range e.Groups {
			if g, ok := state.SecurityGroups.Get(w.in.Read, id); ok {
				control.Require(w.Plan, state.SecurityGroups, id, g)
			}
		}
	}
	for _, a := range l.Leases {
		control.Put(w.Plan, state.AddressLeases, state.LeaseKey(a.Scope, a.Address), nil, a)
	}
	for _, s := range l.Spots {
		control.Put(w.Plan, state.SpotRequests, s.ID, nil, s)
	}
	i := &state.ScalingInstance{ID: m.ID, Account: w.g.Account, Group: w.g.ARN, Zone: m.Zone, Subnet: m.Subnet, Type: m.Type, Image: m.Image, State: pending, Health: healthy,
		Protected: wire.Value(w.g.Doc.NewInstancesProtectedFromScaleIn), Template: way.Template, Configuration: way.Configuration, LaunchedAt: w.in.Now}
	i.Activity = w.activity("Launching a new EC2 instance: "+m.ID, cause, i)
	a := *w.fresh[i.Activity]
	a.Doc.StatusCode, a.Doc.Progress = autoscaling.ScalingActivityStatusCodePreInService, new(int32(30))
	w.fresh[a.Seq] = &a
	w.rows = append(w.rows, &row{now: i, machine: m})
}

// fewer ends one instance; false if none may be ended.
func (w *work) fewer(have int) bool {
	r := w.victim()
	if r == nil {
		return false
	}
	w.retire(r, fmt.Sprintf("At %s an instance was taken out of service in response to a difference between desired and actual capacity, shrinking the capacity from %d to %d.  At %s instance %s was selected for termination.",
		w.at(), have, have-1, w.at(), r.now.ID))
	return true
}

// victim is the instance that goes first: one that does not serve yet, or else
// of the zone with the most that has one without protection, the one that the
// group's policies choose.
func (w *work) victim() *row {
	count := w.count()
	var all []*row
	for _, r := range w.active() {
		if !r.now.Protected {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return nil
	}
	most := 0
	for _, r := range all {
		most = max(most, count[r.now.Zone])
	}
	all = slices.DeleteFunc(all, func(r *row) bool { return count[r.now.Zone] < most })
	if starting := slices.DeleteFunc(slices.Clone(all), func(r *row) bool { return r.now.State == inService }); len(starting) > 0 {
		all = starting
	}
	policies := w.g.Doc.TerminationPolicies
	if len(policies) == 0 {
		policies = []string{"Default"}
	}
	var rules []func(a, b *row) int
	for _, p := range policies {
		rules = append(rules, w.policy(p)...)
	}
	return slices.MinFunc(all, func(a, b *row) int {
		for _, rule := range rules {
			if c := rule(a, b); c != 0 {
				return c
			}
		}
		return strings.Compare(a.now.ID, b.now.ID)
	})
}

// policy is a termination policy as orders, of which each settles what the ones before left open.
func (w *work) policy(name string) []func(a, b *row) int {
	oldest := func(a, b *row) int { return a.now.LaunchedAt.Compare(b.now.LaunchedAt) }
	// Launch configurations are older than templates are.
	configuration := func(a, b *row) int { return w.configured(a).Compare(w.configured(b)) }
	template := func(a, b *row) int {
		return cmp.Or(w.templated(a).Compare(w.templated(b)), version(a)-version(b))
	}
	hour := func(a, b *row) int { return cmp.Compare(w.toNextHour(a), w.toNextHour(b)) }
	switch name {
	case "OldestInstance":
		return []func(a, b *row) int{oldest}
	case "NewestInstance":
		return []func(a, b *row) int{func(a, b *row) int { return oldest(b, a) }}
	case "OldestLaunchConfiguration":
		return []func(a, b *row) int{configuration}
	case "OldestLaunchTemplate":
		return []func(a, b *row) int{template}
	case "ClosestToNextInstanceHour":
		return []func(a, b *row) int{hour}
	case "Default":
		return []func(a, b *row) int{configuration, template, hour}
	}
	return nil // AllocationStrategy: there is one price for all
}

// never is later than any time that a row has.
var never = time.Unix(1<<40, 0)

// configured is when the launch configuration of an instance was made. Those
// that are gone are the oldest; what has none comes last.
func (w *work) configured(r *row) time.Time {
	if r.now.Configuration == "" {
		return never
	}
	if c, ok := state.LaunchConfigurations.Get(w.in.Read, w.g.Account+"/"+r.now.Configuration); ok && c.Doc.CreatedTime != nil {
		return *c.Doc.CreatedTime
	}
	return time.Time{}
}

// templated is when the launch template of an instance was made.
func (w *work) templated(r *row) time.Time {
	if r.now.Template == nil {
		return time.Time{}
	}
	if t, ok := state.LaunchTemplates.Get(w.in.Read, wire.Value(r.now.Template.LaunchTemplateId)); ok {
		return t.CreatedAt
	}
	return time.Time{}
}

func version(r *row) int {
	n := 0
	if r.now.Template != nil {
		fmt.Sscan(wire.Value(r.now.Template.Version), &n)
	}
	return n
}

func (w *work) toNextHour(r *row) time.Duration {
	return time.Hour - w.in.Now.Sub(r.now.LaunchedAt)%time.Hour
}

// balance launches an instance in a zone that has too few; one of the zone that
// has too many goes when it serves.
func (w *work) balance() {
	zones := w.zones()
	if len(zones) < 2 || w.g.Suspended("AZRebalance") || w.g.Suspended("Launch") || w.g.Suspended("Terminate") || w.g.RetryAt.After(w.in.Now) {
		return
	}
	count := w.count()
	few, many := zones[0], zones[len(zones)-1]
	if count[many]-count[few] < 2 {
		return
	}
	// Nobody may go from where all are protected.
	if !slices.ContainsFunc(w.active(), func(r *row) bool { return !r.now.Protected && r.now.Zone == many }) {
		return
	}
	slices.Sort(zones)
	var have []string
	for _, z := range zones {
		have = append(have, fmt.Sprint(count[z]))
	}
	cause := fmt.Sprintf("At %s availability zones %s had %s instances respectively. An instance was launched to aid in balancing the group's zones.", w.at(), strings.Join(zones, " "), strings.Join(have, " "))
	if w.launch(cause, []string{few}) {
		w.g.Surplus = 1
		w.touch()
	}
}
