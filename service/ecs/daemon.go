package ecs

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Daemons run on managed instances, of which there are none. A daemon is kept
// and shown as what it then is: complete everywhere it could run, which is
// nowhere.

const maxDaemonsDescribed = 20

func (e *ECS) daemonARN(account, cluster, name string) string {
	return e.arn(account, "daemon/"+cluster+"/"+name)
}

// daemon finds a daemon by its ARN.
func (e *ECS) daemon(r store.Reader, account string, ref *string) (*state.Daemon, error) {
	a, err := e.mine(account, val(ref), "daemon")
	if err != nil {
		return nil, err
	}
	if len(a.path) != 2 {
		return nil, invalid("Invalid identifier: %s", *ref)
	}
	d, ok := state.Daemons.Get(r, *ref)
	if !ok {
		return nil, &api.DaemonNotFoundException{Message: "Daemon not found."}
	}
	return d, nil
}

// A daemonSpec is what creating and updating a daemon share.
type daemonSpec struct {
	definition    *string
	providers     []string
	configuration *api.DaemonDeploymentConfiguration
	propagate     api.DaemonPropagateTags
	managedTags   *bool
	exec          *bool
}

// check validates what needs no state.
func (s *daemonSpec) check() error {
	if len(s.providers) == 0 {
		return invalid("Capacity provider ARNs cannot be empty.")
	}
	for i, p := range s.providers {
		if slices.Contains(s.providers[:i], p) {
			return invalid("The capacity providers of a daemon cannot contain a duplicate: %s.", p)
		}
	}
	c := s.configuration
	switch {
	case c == nil:
		return nil
	case c.BakeTimeInMinutes != nil && (*c.BakeTimeInMinutes < 0 || *c.BakeTimeInMinutes > 1440):
		return invalid("bakeTimeInMinutes must be between 0 and 1440.")
	case c.Alarms != nil && val(c.Alarms.Enable):
		return unsupported("deploymentConfiguration.alarms")
	}
	return nil
}

// rollOut gives a daemon a new revision and the deployment that brings it to
// the instances. There are none, so it is done.
func (e *ECS) rollOut(tx *store.Tx, d *state.Daemon, s *daemonSpec, cluster *state.Cluster, now time.Time) error {
	for _, ref := range s.providers {
		a, err := e.mine(d.Account, ref, "capacity-provider")
		if err != nil {
			return err
		}
		p, ok := e.provider(tx, d.Account, a.path[0])
		switch {
		case !ok || len(a.path) != 1:
			return client(noProvider)
		case p.Managed == nil:
			return invalid("A daemon can only use capacity providers of managed instances: %s.", ref)
		case p.Cluster != cluster.ARN:
			return invalid("The specified capacity provider '%s' belongs to another cluster.", p.Name)
		}
	}
	td, err := e.daemonDefinition(tx, d.Account, val(s.definition))
	if err != nil {
		return err
	}
	if td.Doc.Status != api.DaemonTaskDefinitionStatusActive {
		return client("DaemonTaskDefinition is inactive")
	}
	if val(s.exec) && td.Doc.TaskRoleArn == nil {
		return invalid("The daemon couldn't be created because a valid taskRoleArn is not being used. Specify a valid task role in your task definition and try again.")
	}
	tail := cluster.Name + "/" + d.Name + "/"
	rev := &state.DaemonRevision{
		ARN: e.arn(d.Account, "daemon-revision/"+tail+e.cfg.NewID()), Account: d.Account, Cluster: d.Cluster, Daemon: d.ARN,
		Definition: td.ARN, PropagateTags: string(cmp.Or(s.propagate, api.DaemonPropagateTagsNone)),
		EnableECSManagedTags: val(s.managedTags), EnableExecuteCommand: val(s.exec), CreatedAt: now,
	}
	for _, c := range td.Doc.ContainerDefinitions {
		rev.Images = append(rev.Images, api.DaemonContainerImage{ContainerName: c.Name, Image: c.Image})
	}
	dep := &state.DaemonDeployment{
		ARN: e.arn(d.Account, "daemon-deployment/"+tail+e.cfg.NewID()), Account: d.Account, Cluster: d.Cluster, Daemon: d.ARN,
		Status: string(api.DaemonDeploymentStatusSuccessful), Source: d.Revision, Target: rev.ARN,
		CapacityProviders: s.providers, Configuration: s.configuration, CreatedAt: now, FinishedAt: now,
	}
	d.CapacityProviders, d.Configuration = s.providers, s.configuration
	d.Revision, d.Deployment, d.UpdatedAt = rev.ARN, dep.ARN, now
	state.DaemonRevisions.Put(tx, rev)
	state.DaemonDeployments.Put(tx, dep)
	state.Daemons.Put(tx, d)
	return nil
}

// CreateDaemon makes a daemon and its first deployment.
func (e *ECS) CreateDaemon(ctx context.Context, in *api.CreateDaemonInput) (*api.CreateDaemonOutput, error) {
	caller := e.caller(ctx)
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	spec := &daemonSpec{in.DaemonTaskDefinitionArn, in.CapacityProviderArns, in.DeploymentConfiguration, in.PropagateTags, in.EnableECSManagedTags, in.EnableExecuteCommand}
	switch {
	case !isName(val(in.DaemonName)):
		return nil, invalid("Daemon name must be 1 to 255 letters, digits, underscores and hyphens.")
	case len(val(in.ClientToken)) > 64:
		return nil, invalid("Client token must be at most 64 characters.")
	}
	if err := spec.check(); err != nil {
		return nil, err
	}
	now := e.now()
	out := &api.CreateDaemonOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		cluster, err := e.activeCluster(tx, caller.Account, in.ClusterArn)
		if err != nil {
			return err
		}
		arn := e.daemonARN(caller.Account, cluster.Name, *in.DaemonName)
		d, ok := state.Daemons.Get(tx, arn)
		if !ok {
			d = &state.Daemon{
				ARN: arn, Account: caller.Account, Cluster: cluster.ARN, Name: *in.DaemonName, Status: statusActive,
				ClientToken: val(in.ClientToken), Tags: tags, CreatedAt: now,
			}
			if err := e.rollOut(tx, d, spec, cluster, now); err != nil {
				return err
			}
		} else if d.ClientToken == "" || d.ClientToken != val(in.ClientToken) || !e.sameDaemon(tx, d, spec, tags) {
			return client("A daemon with the name %s already exists in the cluster.", d.Name)
		}
		out.DaemonArn, out.Status, out.CreatedAt, out.DeploymentArn = &d.ARN, api.DaemonStatus(d.Status), at(d.CreatedAt), &d.Deployment
		return nil
	})
}

// sameDaemon holds if creating the daemon again would change nothing.
func (e *ECS) sameDaemon(r store.Reader, d *state.Daemon, s *daemonSpec, tags []state.Tag) bool {
	rev, ok := state.DaemonRevisions.Get(r, d.Revision)
	td, err := e.daemonDefinition(r, d.Account, val(s.definition))
	return ok && err == nil && td.ARN == rev.Definition && slices.Equal(d.CapacityProviders, s.providers) &&
		sameDocument(d.Configuration, s.configuration) && slices.Equal(d.Tags, tags) &&
		rev.PropagateTags == string(cmp.Or(s.propagate, api.DaemonPropagateTagsNone)) &&
		rev.EnableECSManagedTags == val(s.managedTags) && rev.EnableExecuteCommand == val(s.exec)
}

// UpdateDaemon gives a daemon a new revision. What is not named stays.
func (e *ECS) UpdateDaemon(ctx context.Context, in *api.UpdateDaemonInput) (*api.UpdateDaemonOutput, error) {
	account := e.caller(ctx).Account
	now := e.now()
	given := daemonSpec{in.DaemonTaskDefinitionArn, in.CapacityProviderArns, in.DeploymentConfiguration, in.PropagateTags, in.EnableECSManagedTags, in.EnableExecuteCommand}
	if err := given.check(); err != nil {
		return nil, err
	}
	out := &api.UpdateDaemonOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		have, err := e.daemon(tx, account, in.DaemonArn)
		if err != nil {
			return err
		}
		cluster, err := e.activeCluster(tx, account, &have.Cluster)
		if err != nil {
			return err
		}
		d, spec := *have, given
		if rev, ok := state.DaemonRevisions.Get(tx, d.Revision); ok {
			spec.configuration = first(spec.configuration, d.Configuration)
			spec.propagate = cmp.Or(spec.propagate, api.DaemonPropagateTags(rev.PropagateTags))
			spec.managedTags = first(spec.managedTags, &rev.EnableECSManagedTags)
			spec.exec = first(spec.exec, &rev.EnableExecuteCommand)
		}
		if err := e.rollOut(tx, &d, &spec, cluster, now); err != nil {
			return err
		}
		e.sweepDefinitions(tx, account, now)
		out.DaemonArn, out.Status, out.CreatedAt, out.UpdatedAt, out.DeploymentArn = &d.ARN, api.DaemonStatus(d.Status), at(d.CreatedAt), at(d.UpdatedAt), &d.Deployment
		return nil
	})
}

// DeleteDaemon forgets a daemon. It has no tasks to wait for.
func (e *ECS) DeleteDaemon(ctx context.Context, in *api.DeleteDaemonInput) (*api.DeleteDaemonOutput, error) {
	account := e.caller(ctx).Account
	now := e.now()
	out := &api.DeleteDaemonOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		d, err := e.daemon(tx, account, in.DaemonArn)
		if err != nil {
			return err
		}
		var revisions, deployments []string
		for r := range state.DaemonRevisions.By(tx, "daemon", d.ARN) {
			revisions = append(revisions, r.ARN)
		}
		for p := range state.DaemonDeployments.By(tx, "daemon", d.ARN) {
			deployments = append(deployments, p.ARN)
		}
		for _, arn := range revisions {
			state.DaemonRevisions.Delete(tx, arn)
		}
		for _, arn := range deployments {
			state.DaemonDeployments.Delete(tx, arn)
		}
		state.Daemons.Delete(tx, d.ARN)
		e.sweepDefinitions(tx, account, now)
		out.DaemonArn, out.Status, out.CreatedAt, out.UpdatedAt, out.DeploymentArn = &d.ARN, api.DaemonStatusDeleteInProgress, at(d.CreatedAt), at(now), &d.Deployment
		return nil
	})
}

// DescribeDaemon shows a daemon and how many of its tasks run.
func (e *ECS) DescribeDaemon(ctx context.Context, in *api.DescribeDaemonInput) (*api.DescribeDaemonOutput, error) {
	d, err := e.daemon(e.db.Snapshot(), e.caller(ctx).Account, in.DaemonArn)
	if err != nil {
		return nil, err
	}
	rev := api.DaemonRevisionDetail{Arn: &d.Revision, CapacityProviders: []api.DaemonCapacityProvider{}, TotalRunningCount: num(0)}
	for i := range d.CapacityProviders {
		rev.CapacityProviders = append(rev.CapacityProviders, api.DaemonCapacityProvider{Arn: &d.CapacityProviders[i], RunningCount: num(0)})
	}
	return &api.DescribeDaemonOutput{Daemon: &api.DaemonDetail{
		DaemonArn: &d.ARN, ClusterArn: &d.Cluster, Status: api.DaemonStatus(d.Status), CurrentRevisions: []api.DaemonRevisionDetail{rev},
		DeploymentArn: &d.Deployment, CreatedAt: at(d.CreatedAt), UpdatedAt: at(d.UpdatedAt),
	}}, nil
}

// ListDaemons lists the daemons of a cluster.
func (e *ECS) ListDaemons(ctx context.Context, in *api.ListDaemonsInput) (*api.ListDaemonsOutput, error) {
	account := e.caller(ctx).Account
	r := e.db.Snapshot()
	cluster, err := e.cluster(r, account, in.ClusterArn)
	if err != nil {
		return nil, err
	}
	var arns []string
	for d := range state.Daemons.By(r, "cluster", cluster.ARN) {
		if len(in.CapacityProviderArns) == 0 || slices.ContainsFunc(d.CapacityProviders, func(p string) bool { return slices.Contains(in.CapacityProviderArns, p) }) {
			arns = append(arns, d.ARN)
		}
	}
	q := append(query{"ListDaemons", cluster.ARN}, in.CapacityProviderArns...)
	arns, next, err := page(arns, q, in.NextToken, in.MaxResults, 100, 100, e.now())
	if err != nil {
		return nil, err
	}
	out := &api.ListDaemonsOutput{DaemonSummariesList: []api.DaemonSummary{}, NextToken: next}
	for _, arn := range arns {
		if d, ok := state.Daemons.Get(r, arn); ok {
			out.DaemonSummariesList = append(out.DaemonSummariesList, api.DaemonSummary{
				DaemonArn: &d.ARN, Status: api.DaemonStatus(d.Status), CreatedAt: at(d.CreatedAt), UpdatedAt: at(d.UpdatedAt),
			})
		}
	}
	return out, nil
}

// ofDaemon checks a reference to a revision or a deployment of a daemon.
func (e *ECS) ofDaemon(caller *auth.Caller, kind, ref string) error {
	a, err := e.mine(caller.Account, ref, kind)
	if err == nil && len(a.path) != 3 {
		err = invalid("Invalid identifier: %s", ref)
	}
	return err
}

// DescribeDaemonRevisions shows revisions by ARN.
func (e *ECS) DescribeDaemonRevisions(ctx context.Context, in *api.DescribeDaemonRevisionsInput) (*api.DescribeDaemonRevisionsOutput, error) {
	if n := len(in.DaemonRevisionArns); n == 0 || n > maxDaemonsDescribed {
		return nil, invalid("The number of daemon revisions must be between 1 and %d.", maxDaemonsDescribed)
	}
	out := &api.DescribeDaemonRevisionsOutput{DaemonRevisions: []api.DaemonRevision{}, Failures: []api.Failure{}}
	r := e.db.Snapshot()
	for _, arn := range in.DaemonRevisionArns {
		if err := e.ofDaemon(e.caller(ctx), "daemon-revision", arn); err != nil {
			return nil, err
		}
		v, ok := state.DaemonRevisions.Get(r, arn)
		if !ok {
			out.Failures = append(out.Failures, api.Failure{Arn: &arn, Reason: new("MISSING")})
			continue
		}
		out.DaemonRevisions = append(out.DaemonRevisions, api.DaemonRevision{
			DaemonRevisionArn: &v.ARN, ClusterArn: &v.Cluster, DaemonArn: &v.Daemon, DaemonTaskDefinitionArn: &v.Definition,
			CreatedAt: at(v.CreatedAt), ContainerImages: list(v.Images), PropagateTags: api.DaemonPropagateTags(v.PropagateTags),
			EnableECSManagedTags: &v.EnableECSManagedTags, EnableExecuteCommand: &v.EnableExecuteCommand,
		})
	}
	return out, nil
}

// DescribeDaemonDeployments shows deployments by ARN.
func (e *ECS) DescribeDaemonDeployments(ctx context.Context, in *api.DescribeDaemonDeploymentsInput) (*api.DescribeDaemonDeploymentsOutput, error) {
	if n := len(in.DaemonDeploymentArns); n == 0 || n > maxDaemonsDescribed {
		return nil, invalid("The number of daemon deployments must be between 1 and %d.", maxDaemonsDescribed)
	}
	out := &api.DescribeDaemonDeploymentsOutput{DaemonDeployments: []api.DaemonDeployment{}, Failures: []api.Failure{}}
	r := e.db.Snapshot()
	for _, arn := range in.DaemonDeploymentArns {
		if err := e.ofDaemon(e.caller(ctx), "daemon-deployment", arn); err != nil {
			return nil, err
		}
		d, ok := state.DaemonDeployments.Get(r, arn)
		if !ok {
			out.Failures = append(out.Failures, api.Failure{Arn: &arn, Reason: new("MISSING")})
			continue
		}
		detail := func(rev string) api.DaemonDeploymentRevisionDetail {
			v := api.DaemonDeploymentRevisionDetail{Arn: &rev, CapacityProviders: []api.DaemonDeploymentCapacityProvider{},
				TotalRunningInstanceCount: num(0), TotalDrainingInstanceCount: num(0)}
			for i := range d.CapacityProviders {
				v.CapacityProviders = append(v.CapacityProviders, api.DaemonDeploymentCapacityProvider{
					Arn: &d.CapacityProviders[i], RunningInstanceCount: num(0), DrainingInstanceCount: num(0)})
			}
			return v
		}
		v := api.DaemonDeployment{
			DaemonDeploymentArn: &d.ARN, ClusterArn: &d.Cluster, Status: api.DaemonDeploymentStatus(d.Status),
			TargetDaemonRevision: new(detail(d.Target)), SourceDaemonRevisions: []api.DaemonDeploymentRevisionDetail{},
			DeploymentConfiguration: d.Configuration, CreatedAt: at(d.CreatedAt), StartedAt: at(d.CreatedAt), FinishedAt: at(d.FinishedAt),
		}
		if d.Source != "" {
			v.SourceDaemonRevisions = append(v.SourceDaemonRevisions, detail(d.Source))
		}
		out.DaemonDeployments = append(out.DaemonDeployments, v)
	}
	return out, nil
}

// ListDaemonDeployments lists the deployments of a daemon, newest first.
func (e *ECS) ListDaemonDeployments(ctx context.Context, in *api.ListDaemonDeploymentsInput) (*api.ListDaemonDeploymentsOutput, error) {
	r := e.db.Snapshot()
	d, err := e.daemon(r, e.caller(ctx).Account, in.DaemonArn)
	if err != nil {
		return nil, err
	}
	q := query{"ListDaemonDeployments", d.ARN}
	for _, s := range in.Status {
		q = append(q, string(s))
	}
	within := func(time.Time) bool { return true }
	if c := in.CreatedAt; c != nil {
		q = append(q, "created", val(c.After).String(), val(c.Before).String())
		within = func(t time.Time) bool {
			return (c.After == nil || t.After(*c.After)) && (c.Before == nil || t.Before(*c.Before))
		}
	}
	found := map[string]*state.DaemonDeployment{}
	var keys []string
	for p := range state.DaemonDeployments.By(r, "daemon", d.ARN) {
		if within(p.CreatedAt) && (len(in.Status) == 0 || slices.Contains(in.Status, api.DaemonDeploymentStatus(p.Status))) {
			key := invert(p.CreatedAt.UTC().Format("2006-01-02T15:04:05.000")) + p.ARN
			found[key] = p
			keys = append(keys, key)
		}
	}
	keys, next, err := page(keys, q, in.NextToken, in.MaxResults, 100, 100, e.now())
	if err != nil {
		return nil, err
	}
	out := &api.ListDaemonDeploymentsOutput{DaemonDeployments: []api.DaemonDeploymentSummary{}, NextToken: next}
	for _, k := range keys {
		p := found[k]
		out.DaemonDeployments = append(out.DaemonDeployments, api.DaemonDeploymentSummary{
			DaemonDeploymentArn: &p.ARN, DaemonArn: &p.Daemon, ClusterArn: &p.Cluster, Status: api.DaemonDeploymentStatus(p.Status),
			TargetDaemonRevisionArn: &p.Target, CreatedAt: at(p.CreatedAt), StartedAt: at(p.CreatedAt), FinishedAt: at(p.FinishedAt),
		})
	}
	return out, nil
}
