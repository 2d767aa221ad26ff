package ecs

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
	queries "github.com/berth-run/berth/store/state/query"
)

const (
	// zoneAttribute is what the agent reads its availability zone from.
	zoneAttribute  = "ecs.availability-zone"
	typeAttribute  = "ecs.instance-type"
	imageAttribute = "ecs.ami-id"

	noInstance   = "The referenced container instance was not found."
	deregistered = "Container instance deregistration forced by user"
)

// An identity is what an EC2 instance's identity document says of it.
type identity struct {
	InstanceID       string `json:"instanceId"`
	InstanceType     string `json:"instanceType"`
	ImageID          string `json:"imageId"`
	AccountID        string `json:"accountId"`
	Region           string `json:"region"`
	AvailabilityZone string `json:"availabilityZone"`
}

// identify reads an identity document. An agent outside EC2 has none.
func (e *ECS) identify(account, document string) (identity, error) {
	var id identity
	if strings.TrimSpace(document) == "" {
		return id, nil
	}
	if err := json.Unmarshal([]byte(document), &id); err != nil {
		return id, client("The instance identity document is not valid.")
	}
	if id.AccountID != "" && id.AccountID != account || id.Region != "" && id.Region != e.cfg.Region {
		return id, client("The instance identity document is of another account or region.")
	}
	return id, nil
}

// RegisterContainerInstance takes an agent's registration: of a new instance,
// or of one that it was already and names by its ARN.
func (e *ECS) RegisterContainerInstance(ctx context.Context, in *api.RegisterContainerInstanceInput) (*api.RegisterContainerInstanceOutput, error) {
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	account := e.caller(ctx).Account
	id, err := e.identify(account, val(in.InstanceIdentityDocument))
	if err != nil {
		return nil, err
	}
	for i := range in.Attributes {
		if err := checkAttribute(&in.Attributes[i]); err != nil {
			return nil, err
		}
	}
	now := e.now()
	out := &api.RegisterContainerInstanceOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		var old *state.ContainerInstance
		n := state.ContainerInstance{Account: account, Status: statusActive, RegisteredAt: now}
		if ref := val(in.ContainerInstanceArn); ref != "" {
			inst, ok := state.ContainerInstances.Get(tx, ref)
			if !ok || inst.Status == statusInactive {
				return invalid(noInstance)
			}
			if err := e.mayReport(ctx, tx, ref); err != nil {
				return err
			}
			old, n = inst, *inst
			if n.Status != statusDraining {
				n.Status = statusActive
			}
		} else {
			cluster, err := e.activeCluster(tx, account, in.Cluster)
			if err != nil {
				return err
			}
			// An agent that did not hear the answer asks again with the same token.
			if again := sameRegistration(tx, cluster, val(in.ClientToken)); again != nil {
				out.ContainerInstance = new(instanceView(tx, again, true))
				return nil
			}
			if err := roomForInstance(tx, cluster); err != nil {
				return err
			}
			n.Cluster, n.EC2InstanceID = cluster.ARN, id.InstanceID
			n.ARN = e.arn(account, "container-instance/"+cluster.Name+"/"+e.cfg.NewID())
			n.Zone, n.ClientToken = id.AvailabilityZone, val(in.ClientToken)
		}
		host, err := e.ec2Host(tx, account, id, val(in.InstanceIdentityDocument), val(in.InstanceIdentityDocumentSignature))
		if err != nil {
			return err
		}
		if host != nil {
			n.Node = host.Node
			if host.ContainerInstance != n.ARN {
				h := *host
				h.ContainerInstance = n.ARN
				state.Instances.Put(tx, &h)
			}
		}
		if n.Attributes, err = registered(tx, old, &n, in.Attributes, id); err != nil {
			return err
		}
		if host != nil {
			n.Attributes = e.trunk(ctx, tx, host, n.Attributes)
		}
		if len(in.TotalResources) > 0 {
			n.Registered = in.TotalResources
		}
		if v := in.VersionInfo; v != nil {
			n.AgentVersion, n.AgentHash, n.DockerVersion = val(v.AgentVersion), val(v.AgentHash), val(v.DockerVersion)
		}
		if len(tags) > 0 {
			n.Tags = tags
		}
		if old == nil || !sameDocument(&n, old) {
			n.Version++
			state.ContainerInstances.Put(tx, &n)
		}
		out.ContainerInstance = new(instanceView(tx, &n, true))
		return nil
	})
}

// ec2Host is the region's own EC2 instance that a document speaks of, nil if it
// is none. For such a one the signature must be the region's, as sent: with it
// whoever registers shows that it is the instance.
func (e *ECS) ec2Host(r store.Reader, account string, id identity, document, signature string) (*state.Instance, error) {
	host, ok := state.Instances.Get(r, id.InstanceID)
	if !ok {
		return nil, nil
	}
	if host.Account != account || host.State == "terminated" {
		return nil, client("The instance identity document is not valid.")
	}
	key, ok := state.IdentityKeys.Get(r, state.IdentityKeyName)
	if !ok || !key.Signed(document, signature) {
		return nil, client("The signature of the instance identity document is not valid.")
	}
	return host, nil
}

// sameRegistration finds the instance that a registration with the token made.
func sameRegistration(r store.Reader, c *state.Cluster, token string) *state.ContainerInstance {
	if token == "" {
		return nil
	}
	for i := range state.ContainerInstances.By(r, "cluster", c.ARN) {
		if i.ClientToken == token && i.Status != statusInactive {
			return i
		}
	}
	return nil
}

// registered are an instance's attributes after a registration: those sent, in
// their order, what the identity document and the region know, and what users
// have put on the instance before.
func registered(r store.Reader, old, n *state.ContainerInstance, sent []api.Attribute, id identity) ([]api.Attribute, error) {
	out := slices.DeleteFunc(slices.Clone(sent), func(a api.Attribute) bool { return val(a.Name) == zoneAttribute })
	has := func(name string) bool {
		return slices.ContainsFunc(out, func(a api.Attribute) bool { return val(a.Name) == name })
	}
	for _, a := range []struct{ name, value string }{{typeAttribute, id.InstanceType}, {imageAttribute, id.ImageID}} {
		if a.value != "" && !has(a.name) {
			out = append(out, api.Attribute{Name: new(a.name), Value: new(a.value)})
		}
	}
	out = append(out, api.Attribute{Name: new(zoneAttribute), Value: new(zoneOf(r, n))})
	if old == nil {
		return out, nil
	}
	for _, a := range old.Attributes {
		if !isReserved(val(a.Name)) && !has(val(a.Name)) {
			out = append(out, a)
		}
	}
	before, was := old.Attribute(typeAttribute)
	after, is := (&state.ContainerInstance{Attributes: out}).Attribute(typeAttribute)
	if was && is && before != after {
		return nil, client("Container instance type changes are not supported.")
	}
	return out, nil
}

// instance finds a container instance of a request, whatever its status. Those
// of nodes are nobody's to see.
func (e *ECS) instance(r store.Reader, account string, cluster *state.Cluster, ref string) (*state.ContainerInstance, string, error) {
	arn, err := e.instanceARN(account, cluster.Name, ref)
	if err != nil {
		return nil, "", err
	}
	i, ok := state.ContainerInstances.Get(r, arn)
	if !ok || i.Hidden || i.Cluster != cluster.ARN {
		return nil, arn, nil
	}
	return i, arn, nil
}

// DeregisterContainerInstance forgets an instance. Forced, it takes the tasks
// along, as far as ECS is concerned: their containers run on where no agent
// stops them.
func (e *ECS) DeregisterContainerInstance(ctx context.Context, in *api.DeregisterContainerInstanceInput) (*api.DeregisterContainerInstanceOutput, error) {
	account := e.caller(ctx).Account
	now := e.now()
	out := &api.DeregisterContainerInstanceOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		cluster, err := e.cluster(tx, account, in.Cluster)
		if err != nil {
			return err
		}
		i, _, err := e.instance(tx, account, cluster, val(in.ContainerInstance))
		if err != nil {
			return err
		}
		if i == nil || i.Status == statusInactive {
			return invalid(noInstance)
		}
		// What is placed on the instance while this transaction looks makes it look again.
		state.Tasks.Guard(tx, e.arn(account, "task/"+cluster.Name+"/"))
		for t := range state.Tasks.By(tx, "instance", i.ARN) {
			if t.LastStatus == state.Stopped {
				continue
			}
			if !val(in.Force) {
				return invalid("Found running tasks on the instance.")
			}
			t = t.Clone()
			t.WantStop(string(api.TaskStopCodeUserInitiated), deregistered, now)
			put(tx, t, report{status: state.Stopped}, now)
		}
		n := *i
		n.Status, n.DeregisteredAt = statusInactive, now
		n.Version++
		state.ContainerInstances.Put(tx, &n)
		out.ContainerInstance = new(instanceView(tx, &n, true))
		return nil
	})
}

// maxInstances is how many instances one request may change.
const maxInstances = 10

// UpdateContainerInstancesState makes instances take tasks, or drain.
func (e *ECS) UpdateContainerInstancesState(ctx context.Context, in *api.UpdateContainerInstancesStateInput) (*api.UpdateContainerInstancesStateOutput, error) {
	account := e.caller(ctx).Account
	status := string(in.Status)
	switch {
	case status != statusActive && status != statusDraining:
		return nil, invalid("Container instance status should be one of [ACTIVE, DRAINING]")
	case len(in.ContainerInstances) == 0:
		return nil, invalid("Container instances cannot be empty.")
	case len(in.ContainerInstances) > maxInstances:
		return nil, invalid("instanceIds can have at most %d items.", maxInstances)
	}
	out := &api.UpdateContainerInstancesStateOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		out.ContainerInstances, out.Failures = []api.ContainerInstance{}, []api.Failure{}
		cluster, err := e.cluster(tx, account, in.Cluster)
		if err != nil {
			return err
		}
		for _, ref := range in.ContainerInstances {
			i, arn, err := e.instance(tx, account, cluster, ref)
			if err != nil {
				return err
			}
			switch {
			case i == nil:
				out.Failures = append(out.Failures, api.Failure{Arn: &arn, Reason: new("MISSING")})
				continue
			case i.Status == statusInactive:
				out.Failures = append(out.Failures, api.Failure{Arn: &arn, Reason: new(statusInactive)})
				continue
			case i.Status != status:
				n := *i
				n.Status = status
				n.Version++
				state.ContainerInstances.Put(tx, &n)
				i = &n
			}
			out.ContainerInstances = append(out.ContainerInstances, instanceView(tx, i, true))
		}
		return nil
	})
}

// UpdateContainerAgent would update an agent. There is never another version
// to update it to: Berth's agent comes with the machine's binary, and
// Amazon's with its packages.
func (e *ECS) UpdateContainerAgent(ctx context.Context, in *api.UpdateContainerAgentInput) (*api.UpdateContainerAgentOutput, error) {
	account := e.caller(ctx).Account
	r := e.db.Snapshot()
	cluster, err := e.cluster(r, account, in.Cluster)
	if err != nil {
		return nil, err
	}
	i, _, err := e.instance(r, account, cluster, val(in.ContainerInstance))
	switch {
	case err != nil:
		return nil, err
	case i == nil || i.Status == statusInactive:
		return nil, invalid(noInstance)
	case i.AgentVersion == "":
		return nil, &api.MissingVersionException{Message: "Amazon ECS is unable to determine the current version of the Amazon ECS container agent on the container instance."}
	}
	return nil, &api.NoUpdateAvailableException{Message: "There is no update available for this container agent."}
}

// ListContainerInstances lists the instances of a cluster that are not gone.
func (e *ECS) ListContainerInstances(ctx context.Context, in *api.ListContainerInstancesInput) (*api.ListContainerInstancesOutput, error) {
	account := e.caller(ctx).Account
	var filter *queries.Expr
	if s := val(in.Filter); s != "" {
		var err error
		if filter, err = queries.Parse(s); err != nil {
			return nil, badExpression(err)
		}
	}
	r := e.db.Snapshot()
	cluster, err := e.cluster(r, account, in.Cluster)
	if err != nil {
		return nil, err
	}
	var arns []string
	for i := range state.ContainerInstances.By(r, "cluster", cluster.ARN) {
		if !i.Hidden && i.Status != statusInactive && (in.Status == "" || i.Status == string(in.Status)) &&
			(filter == nil || filter.Match(i.Query(r))) {
			arns = append(arns, i.ARN)
		}
	}
	q := query{"ListContainerInstances", cluster.ARN, string(in.Status), val(in.Filter)}
	arns, next, err := page(arns, q, in.NextToken, in.MaxResults, 100, 100, e.now())
	return &api.ListContainerInstancesOutput{ContainerInstanceArns: list(arns), NextToken: next}, err
}

func badExpression(err error) error { return invalid("Invalid expression: %v.", err) }

// DescribeContainerInstances shows instances, also those that are INACTIVE for a while.
func (e *ECS) DescribeContainerInstances(ctx context.Context, in *api.DescribeContainerInstancesInput) (*api.DescribeContainerInstancesOutput, error) {
	account := e.caller(ctx).Account
	switch {
	case len(in.ContainerInstances) == 0:
		return nil, invalid("Container instances cannot be empty.")
	case len(in.ContainerInstances) > maxDescribed:
		return nil, invalid("Container instances cannot exceed %d elements", maxDescribed)
	}
	out := &api.DescribeContainerInstancesOutput{ContainerInstances: []api.ContainerInstance{}, Failures: []api.Failure{}}
	return out, e.view(func(r store.Reader) error {
		cluster, err := e.cluster(r, account, in.Cluster)
		if err != nil {
			return err
		}
		for _, ref := range in.ContainerInstances {
			i, arn, err := e.instance(r, account, cluster, ref)
			if err != nil {
				return err
			}
			if i == nil {
				out.Failures = append(out.Failures, api.Failure{Arn: &arn, Reason: new("MISSING")})
				continue
			}
			v := instanceView(r, i, slices.Contains(in.Include, api.ContainerInstanceFieldTags))
			if slices.Contains(in.Include, api.ContainerInstanceFieldContainerInstanceHealth) {
				// Agents' own checks of their machine are not taken yet.
				v.HealthStatus = &api.ContainerInstanceHealthStatus{
					OverallStatus: api.InstanceHealthCheckStateInsufficientData, Details: []api.InstanceHealthCheckResult{},
				}
			}
			out.ContainerInstances = append(out.ContainerInstances, v)
		}
		return nil
	})
}

func instanceView(r store.Reader, i *state.ContainerInstance, tags bool) api.ContainerInstance {
	v := api.ContainerInstance{
		ContainerInstanceArn: &i.ARN, Ec2InstanceId: opt(i.EC2InstanceID), Version: new(i.Claimed(r)), CapacityProviderName: opt(i.CapacityProvider),
		VersionInfo:         &api.VersionInfo{AgentVersion: opt(i.AgentVersion), AgentHash: opt(i.AgentHash), DockerVersion: opt(i.DockerVersion)},
		RegisteredResources: list(i.Registered), RemainingResources: list(i.Remaining(r)),
		Status: &i.Status, AgentConnected: &i.AgentConnected,
		Attributes: list(i.Attributes), RegisteredAt: at(i.RegisteredAt),
		Attachments: []api.Attachment{}, Tags: []api.Tag{},
	}
	if tags {
		v.Tags = tagView(i.Tags)
	}
	running, pending := 0, 0
	for t := range state.Tasks.By(r, "instance", i.ARN) {
		switch {
		case t.LastStatus == state.Running:
			running++
		case isPending(t):
			pending++
		}
	}
	v.RunningTasksCount, v.PendingTasksCount = num(running), num(pending)
	return v
}
