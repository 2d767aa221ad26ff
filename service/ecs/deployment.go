package ecs

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// deploy starts a deployment of what the service asks for, with a revision that
// says what that is and a service deployment that says what becomes of it. The
// deploy controller finds them and does the rest.
func (e *ECS) deploy(tx *store.Tx, s *state.Service, td *state.TaskDefinition, platform string, now time.Time) {
	id := e.deploymentID()
	record := &state.ServiceDeployment{
		ARN:     strings.Replace(s.ARN, ":service/", ":service-deployment/", 1) + "/" + e.shortID(),
		Account: s.Account, Cluster: s.Cluster, Service: s.ARN,
		Status: state.DeploymentPending, Target: state.RevisionCount{Revision: state.RevisionARN(s.ARN, id)},
		Configuration: s.DeploymentConfiguration, BreakerStatus: string(api.ServiceDeploymentRollbackMonitorsStatusDisabled),
		CreatedAt: now, UpdatedAt: now,
	}
	if c := s.DeploymentConfiguration.DeploymentCircuitBreaker; c != nil && val(c.Enable) {
		record.BreakerStatus = string(api.ServiceDeploymentRollbackMonitorsStatusMonitoring)
	}
	for i := range s.Deployments {
		d := &s.Deployments[i]
		remembered(tx, s, d)
		record.Sources = append(record.Sources, state.RevisionCount{Revision: state.RevisionARN(s.ARN, d.ID)})
		if d.Status == "PRIMARY" {
			d.Status, d.UpdatedAt = statusActive, now
		}
	}
	if s.LastCompleted != nil {
		remembered(tx, s, s.LastCompleted)
	}
	if last, ok := state.ServiceDeployments.Get(tx, s.ServiceDeployment); ok && !last.Finished() {
		n := last.Clone()
		n.Status, n.StoppedAt, n.UpdatedAt = state.DeploymentStopRequested, now, now
		state.ServiceDeployments.Put(tx, n)
	}
	revision := &state.ServiceRevision{
		ARN: record.Target.Revision, Account: s.Account, Cluster: s.Cluster, Service: s.ARN,
		TaskDefinition: s.TaskDefinition, LaunchType: s.LaunchType, CapacityProviderStrategy: s.CapacityProviderStrategy,
		PlatformVersion: platform, PlatformFamily: s.PlatformFamily, Network: s.Network,
		LoadBalancers: s.LoadBalancers, ServiceRegistries: s.ServiceRegistries, ServiceConnect: s.ServiceConnect,
		VolumeConfigurations: s.VolumeConfigurations, CreatedAt: now,
	}
	for i := range td.Doc.ContainerDefinitions {
		c := &td.Doc.ContainerDefinitions[i]
		revision.Images = append(revision.Images, api.ContainerImage{ContainerName: c.Name, Image: c.Image})
	}
	s.Deployments = append([]state.Deployment{{
		ID: id, Status: "PRIMARY", TaskDefinition: s.TaskDefinition, DesiredCount: s.DesiredCount,
		LaunchType: s.LaunchType, CapacityProviderStrategy: s.CapacityProviderStrategy,
		PlatformVersion: platform, PlatformFamily: s.PlatformFamily, Network: s.Network,
		CreatedAt: now, UpdatedAt: now,
		RolloutState: string(api.DeploymentRolloutStateInProgress), RolloutStateReason: "ECS deployment " + id + " in progress.",
	}}, s.Deployments...)
	s.ServiceDeployment = record.ARN
	state.ServiceRevisions.Put(tx, revision)
	state.ServiceDeployments.Put(tx, record)
}

// remembered gives a deployment the revision that it has none of if it was made
// by a version of Berth that kept none: what replaces it names it as its source.
func remembered(tx *store.Tx, s *state.Service, d *state.Deployment) {
	arn := state.RevisionARN(s.ARN, d.ID)
	if state.ServiceRevisions.Has(tx, arn) {
		return
	}
	v := &state.ServiceRevision{
		ARN: arn, Account: s.Account, Cluster: s.Cluster, Service: s.ARN,
		TaskDefinition: d.TaskDefinition, LaunchType: d.LaunchType, CapacityProviderStrategy: d.CapacityProviderStrategy,
		PlatformVersion: d.PlatformVersion, PlatformFamily: d.PlatformFamily, Network: d.Network, CreatedAt: d.CreatedAt,
	}
	if td, ok := state.TaskDefinitions.Get(tx, d.TaskDefinition); ok {
		for i := range td.Doc.ContainerDefinitions {
			c := &td.Doc.ContainerDefinitions[i]
			image := api.ContainerImage{ContainerName: c.Name, Image: c.Image}
			if digest := d.ImageDigests[*c.Name]; digest != "" {
				image.ImageDigest = &digest
			}
			v.Images = append(v.Images, image)
		}
	}
	state.ServiceRevisions.Put(tx, v)
}

// shortID makes the 21 characters that name a service deployment.
func (e *ECS) shortID() string {
	b, _ := hex.DecodeString(e.cfg.NewID()) // it is 32 hex digits
	return base64.RawURLEncoding.EncodeToString(b)[1:]
}

// counts are the tasks of a deployment or task set.
type counts struct{ running, pending int }

func (c *counts) add(t *state.Task) {
	switch {
	case t.LastStatus == state.Running:
		c.running++
	case isPending(t) && t.DesiredStatus == state.Running:
		c.pending++
	}
}

// tally counts the tasks of a service, by deployment.
func tally(r store.Reader, service string) (all counts, by map[string]counts) {
	by = map[string]counts{}
	for t := range state.Tasks.By(r, "service", service) {
		c := by[t.Deployment]
		c.add(t)
		by[t.Deployment] = c
		all.add(t)
	}
	return all, by
}

// history checks that an ARN names a service deployment or revision of this
// account, and finds the service it belongs to. A deleted service has no history.
func (e *ECS) history(r store.Reader, account, ref, kind string) (*state.Service, error) {
	a, err := e.mine(account, ref, kind)
	if err != nil {
		return nil, err
	}
	if len(a.path) != 3 {
		return nil, invalid("Invalid identifier: %s", ref)
	}
	s, ok := state.Services.Get(r, e.arn(account, "service/"+a.path[0]+"/"+a.path[1]))
	if !ok || s.Status == statusInactive {
		return nil, nil
	}
	return s, nil
}

// serviceDeployment finds a service deployment; nil if there is none.
func (e *ECS) serviceDeployment(r store.Reader, account, ref string) (*state.Service, *state.ServiceDeployment, error) {
	s, err := e.history(r, account, ref, "service-deployment")
	if err != nil || s == nil {
		return nil, nil, err
	}
	d, ok := state.ServiceDeployments.Get(r, ref)
	if !ok || d.CreatedAt.Before(s.CreatedAt) {
		return nil, nil, nil
	}
	return s, d, nil
}

// ListServiceDeployments lists the deployments of a service, newest first.
func (e *ECS) ListServiceDeployments(ctx context.Context, in *api.ListServiceDeploymentsInput) (*api.ListServiceDeploymentsOutput, error) {
	account := e.caller(ctx).Account
	r := e.db.Snapshot()
	_, s, err := e.service(r, account, in.Cluster, in.Service)
	if err != nil {
		return nil, err
	}
	q := query{"ListServiceDeployments", s.ARN}
	for _, st := range in.Status {
		q = append(q, string(st))
	}
	var before, after time.Time
	if c := in.CreatedAt; c != nil {
		before, after = val(c.Before), val(c.After)
		if !before.IsZero() && !after.IsZero() && !after.Before(before) {
			return nil, invalid("The createdAt filter is not valid: 'after' must be earlier than 'before'.")
		}
		q = append(q, "before", before.String(), "after", after.String())
	}
	found := map[string]*state.ServiceDeployment{}
	var keys []string
	for d := range state.ServiceDeployments.By(r, "service", s.ARN) {
		if s.Status == statusInactive || d.CreatedAt.Before(s.CreatedAt) ||
			len(in.Status) > 0 && !slices.Contains(in.Status, api.ServiceDeploymentStatus(d.Status)) ||
			!before.IsZero() && !d.CreatedAt.Before(before) || !after.IsZero() && !d.CreatedAt.After(after) {
			continue
		}
		key := fmt.Sprintf("%019d %s", math.MaxInt64-d.CreatedAt.UnixNano(), d.ARN)
		found[key] = d
		keys = append(keys, key)
	}
	keys, next, err := page(keys, q, in.NextToken, in.MaxResults, 20, 100, e.now())
	if err != nil {
		return nil, err
	}
	out := &api.ListServiceDeploymentsOutput{ServiceDeployments: []api.ServiceDeploymentBrief{}, NextToken: next}
	for _, k := range keys {
		d := found[k]
		out.ServiceDeployments = append(out.ServiceDeployments, api.ServiceDeploymentBrief{
			ServiceDeploymentArn: &d.ARN, ServiceArn: &d.Service, ClusterArn: &d.Cluster,
			StartedAt: at(d.StartedAt), CreatedAt: at(d.CreatedAt), FinishedAt: at(d.FinishedAt),
			TargetServiceRevisionArn: &d.Target.Revision, Status: api.ServiceDeploymentStatus(d.Status), StatusReason: opt(d.StatusReason),
		})
	}
	return out, nil
}

// maxHistory is how many service deployments or revisions one call describes.
const maxHistory = 20

// DescribeServiceDeployments shows service deployments.
func (e *ECS) DescribeServiceDeployments(ctx context.Context, in *api.DescribeServiceDeploymentsInput) (*api.DescribeServiceDeploymentsOutput, error) {
	account := e.caller(ctx).Account
	if err := checkRefs("serviceDeploymentArns", in.ServiceDeploymentArns, maxHistory); err != nil {
		return nil, err
	}
	out := &api.DescribeServiceDeploymentsOutput{ServiceDeployments: []api.ServiceDeployment{}, Failures: []api.Failure{}}
	return out, e.view(func(r store.Reader) error {
		for _, ref := range in.ServiceDeploymentArns {
			s, d, err := e.serviceDeployment(r, account, ref)
			if err != nil {
				return err
			}
			if d == nil {
				out.Failures = append(out.Failures, api.Failure{Arn: &ref, Reason: new("MISSING")})
				continue
			}
			out.ServiceDeployments = append(out.ServiceDeployments, serviceDeploymentView(r, s, d))
		}
		return nil
	})
}

// checkRefs refuses an empty list of references, or one that is too long.
func checkRefs(what string, refs []string, most int) error {
	switch {
	case len(refs) == 0:
		return invalid("%s cannot be empty.", what)
	case len(refs) > most:
		return invalid("%s cannot exceed %d elements", what, most)
	}
	return nil
}

func serviceDeploymentView(r store.Reader, s *state.Service, d *state.ServiceDeployment) api.ServiceDeployment {
	_, by := tally(r, s.ARN)
	summary := func(c state.RevisionCount) api.ServiceRevisionSummary {
		if !d.Finished() {
			id := "ecs-svc/" + state.ShortARN(c.Revision)
			c.Requested, c.Running, c.Pending = 0, by[id].running, by[id].pending
			for i := range s.Deployments {
				if s.Deployments[i].ID == id {
					c.Requested = s.Deployments[i].DesiredCount
				}
			}
		}
		return api.ServiceRevisionSummary{Arn: &c.Revision, RequestedTaskCount: num(c.Requested), RunningTaskCount: num(c.Running), PendingTaskCount: num(c.Pending)}
	}
	target := summary(d.Target)
	v := api.ServiceDeployment{
		ServiceDeploymentArn: &d.ARN, ServiceArn: &d.Service, ClusterArn: &d.Cluster,
		CreatedAt: at(d.CreatedAt), StartedAt: at(d.StartedAt), FinishedAt: at(d.FinishedAt), StoppedAt: at(d.StoppedAt), UpdatedAt: at(d.UpdatedAt),
		SourceServiceRevisions: []api.ServiceRevisionSummary{}, TargetServiceRevision: &target,
		Status: api.ServiceDeploymentStatus(d.Status), StatusReason: opt(d.StatusReason),
		DeploymentConfiguration: d.Configuration,
		DeploymentCircuitBreaker: &api.ServiceDeploymentCircuitBreaker{
			Status: api.ServiceDeploymentRollbackMonitorsStatus(d.BreakerStatus), FailureCount: num(d.Failures), Threshold: num(d.Threshold),
		},
		Alarms: &api.ServiceDeploymentAlarms{Status: api.ServiceDeploymentRollbackMonitorsStatusDisabled},
	}
	for _, c := range d.Sources {
		v.SourceServiceRevisions = append(v.SourceServiceRevisions, summary(c))
	}
	if b := d.Rollback; b != nil {
		v.Rollback = &api.Rollback{Reason: &b.Reason, StartedAt: at(b.StartedAt), ServiceRevisionArn: &b.Revision}
	}
	return v
}

// DescribeServiceRevisions shows what services were asked to run.
func (e *ECS) DescribeServiceRevisions(ctx context.Context, in *api.DescribeServiceRevisionsInput) (*api.DescribeServiceRevisionsOutput, error) {
	account := e.caller(ctx).Account
	if err := checkRefs("serviceRevisionArns", in.ServiceRevisionArns, maxHistory); err != nil {
		return nil, err
	}
	out := &api.DescribeServiceRevisionsOutput{ServiceRevisions: []api.ServiceRevision{}, Failures: []api.Failure{}}
	return out, e.view(func(r store.Reader) error {
		for _, ref := range in.ServiceRevisionArns {
			s, err := e.history(r, account, ref, "service-revision")
			if err != nil {
				return err
			}
			v, ok := state.ServiceRevisions.Get(r, ref)
			if s == nil || !ok || v.CreatedAt.Before(s.CreatedAt) {
				out.Failures = append(out.Failures, api.Failure{Arn: &ref, Reason: new("MISSING")})
				continue
			}
			out.ServiceRevisions = append(out.ServiceRevisions, revisionView(v))
		}
		return nil
	})
}

func revisionView(v *state.ServiceRevision) api.ServiceRevision {
	return api.ServiceRevision{
		ServiceRevisionArn: &v.ARN, ServiceArn: &v.Service, ClusterArn: &v.Cluster, TaskDefinition: &v.TaskDefinition,
		CapacityProviderStrategy: v.CapacityProviderStrategy, LaunchType: api.LaunchType(v.LaunchType),
		PlatformVersion: opt(v.PlatformVersion), PlatformFamily: opt(v.PlatformFamily),
		LoadBalancers: list(v.LoadBalancers), ServiceRegistries: list(v.ServiceRegistries), NetworkConfiguration: v.Network,
		ContainerImages: list(v.Images), GuardDutyEnabled: new(false),
		ServiceConnectConfiguration: v.ServiceConnect, VolumeConfigurations: list(v.VolumeConfigurations),
		VpcLatticeConfigurations: list(v.VpcLattice), CreatedAt: at(v.CreatedAt),
	}
}

// StopServiceDeployment asks for a deployment to stop: to go back to what ran
// before, or (ABORT) to leave things as they are. The deploy controller does it.
func (e *ECS) StopServiceDeployment(ctx context.Context, in *api.StopServiceDeploymentInput) (*api.StopServiceDeploymentOutput, error) {
	account := e.caller(ctx).Account
	arn := val(in.ServiceDeploymentArn)
	now := e.now()
	return &api.StopServiceDeploymentOutput{ServiceDeploymentArn: &arn}, e.update(ctx, func(tx *store.Tx) error {
		s, d, err := e.serviceDeployment(tx, account, arn)
		if err != nil {
			return err
		}
		conflict := func(message string) error {
			return &api.ConflictException{Message: message, ResourceIds: []string{arn}}
		}
		switch {
		case d == nil:
			return &api.ServiceDeploymentNotFoundException{Message: "Service deployment not found."}
		case d.Finished():
			return conflict("The service deployment cannot be stopped because it is in the " + d.Status + " state.")
		case d.Status != state.DeploymentPending && d.Status != state.DeploymentInProgress:
			return nil // it stops or goes back already, and goes on with that
		}
		n := d.Clone()
		n.UpdatedAt, n.StoppedAt = now, now
		if in.StopType == api.StopServiceDeploymentStopTypeAbort {
			n.Status = state.DeploymentStopRequested
		} else {
			if s.LastCompleted == nil || len(s.Deployments) == 0 || s.LastCompleted.ID == s.Deployments[0].ID {
				return conflict("The service deployment cannot be rolled back because there is no service revision to roll back to.")
			}
			n.Status = state.DeploymentRollbackRequested
		}
		state.ServiceDeployments.Put(tx, n)
		return nil
	})
}

// ContinueServiceDeployment answers a lifecycle hook that pauses a deployment.
// Services with such hooks are refused, so none is ever paused.
func (e *ECS) ContinueServiceDeployment(ctx context.Context, in *api.ContinueServiceDeploymentInput) (*api.ContinueServiceDeploymentOutput, error) {
	account := e.caller(ctx).Account
	return nil, e.view(func(r store.Reader) error {
		_, d, err := e.serviceDeployment(r, account, val(in.ServiceDeploymentArn))
		switch {
		case err != nil:
			return err
		case d == nil:
			return &api.ServiceDeploymentNotFoundException{Message: "Service deployment not found."}
		}
		return invalid("The service deployment has no lifecycle hook %s that awaits an action.", val(in.HookId))
	})
}

// ListServicesByNamespace lists the services of a Cloud Map namespace. There is
// no Cloud Map yet and so no namespace that one could be in.
func (e *ECS) ListServicesByNamespace(_ context.Context, in *api.ListServicesByNamespaceInput) (*api.ListServicesByNamespaceOutput, error) {
	if err := checkNamespace(val(in.Namespace)); err != nil {
		return nil, err
	}
	if n := in.MaxResults; n != nil && (*n < 1 || *n > 100) {
		return nil, invalid("maxResults must be between 1 and 100.")
	}
	return nil, &api.NamespaceNotFoundException{Message: "The specified namespace was not found."}
}

// checkNamespace validates the name or ARN of a Cloud Map namespace.
func checkNamespace(ref string) error {
	if ref == "" || len(ref) > 1024 {
		return invalid("Namespace must be 1 to 1024 characters.")
	}
	if !isARN(ref) {
		return nil
	}
	parts := strings.SplitN(ref, ":", 6)
	if len(parts) != 6 || parts[2] != "servicediscovery" || !strings.HasPrefix(parts[5], "namespace/") || parts[5] == "namespace/" {
		return invalid("Invalid namespace ARN: %s", ref)
	}
	return nil
}
