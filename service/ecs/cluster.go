package ecs

import (
	"context"
	"fmt"
	"slices"
	"time"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Bootstrap makes what a new region has: the cluster `default`.
func (e *ECS) Bootstrap(ctx context.Context) error {
	now := e.now()
	err := e.update(ctx, func(tx *store.Tx) error {
		e.Furnish(tx, e.cfg.Account, now)
		return nil
	})
	if err != nil {
		return fmt.Errorf("create the default cluster: %w", err)
	}
	return nil
}

// Furnish makes what a new account has, as a part of the transaction that makes the account.
func (e *ECS) Furnish(tx *store.Tx, account string, now time.Time) {
	arn := e.arn(account, "cluster/"+DefaultCluster)
	if state.Clusters.Has(tx, arn) {
		return
	}
	state.Clusters.Put(tx, &state.Cluster{
		ARN: arn, Account: account, Name: DefaultCluster, Status: statusActive,
		Settings: clusterSettings(tx, account, ""), CreatedAt: now,
	})
}

// clusterSettings are the settings of a cluster that asks for none.
func clusterSettings(r store.Reader, account, principal string) []api.ClusterSetting {
	return []api.ClusterSetting{{
		Name:  api.ClusterSettingNameContainerInsights,
		Value: new(effective(r, account, principal, string(api.SettingNameContainerInsights)).value),
	}}
}

func checkClusterSettings(settings []api.ClusterSetting) error {
	for _, s := range settings {
		if s.Name != api.ClusterSettingNameContainerInsights {
			return invalid("Invalid cluster setting name: %s", s.Name)
		}
		if !slices.Contains([]string{"enabled", "disabled", "enhanced"}, val(s.Value)) {
			return invalid("Invalid value for containerInsights: %s. Valid values: enhanced, enabled, disabled", val(s.Value))
		}
	}
	return nil
}

// CreateCluster makes a cluster. Creating one that exists returns it unchanged.
func (e *ECS) CreateCluster(ctx context.Context, in *api.CreateClusterInput) (*api.CreateClusterOutput, error) {
	caller := e.caller(ctx)
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	if in.ClusterName != nil && !isName(*in.ClusterName) {
		return nil, invalid("Cluster name contains invalid characters.")
	}
	key, err := e.clusterARN(caller.Account, in.ClusterName)
	if err != nil {
		return nil, err
	}
	if err := checkClusterSettings(in.Settings); err != nil {
		return nil, err
	}
	if err := checkStrategy(in.DefaultCapacityProviderStrategy); err != nil {
		return nil, err
	}
	if in.ServiceConnectDefaults != nil {
		return nil, unsupported("serviceConnectDefaults")
	}
	now := e.now()
	out := &api.CreateClusterOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		c, ok := state.Clusters.Get(tx, key)
		if !ok || c.Status == statusInactive {
			c = &state.Cluster{
				ARN: key, Account: caller.Account, Name: state.ShortARN(key), Status: statusActive,
				Settings: in.Settings, Configuration: in.Configuration, Tags: tags, CreatedAt: now,
			}
			if len(c.Settings) == 0 {
				c.Settings = clusterSettings(tx, caller.Account, caller.PrincipalARN())
			}
			if err := roomForCluster(tx, caller.Account); err != nil {
				return err
			}
			if len(in.CapacityProviders) > 0 || len(in.DefaultCapacityProviderStrategy) > 0 {
				if err := e.associate(tx, c, in.CapacityProviders, in.DefaultCapacityProviderStrategy); err != nil {
					return err
				}
			}
			state.Clusters.Put(tx, c)
		}
		out.Cluster = clusterView(tx, c, everyField)
		return nil
	})
}

// DeleteCluster makes an empty cluster INACTIVE.
func (e *ECS) DeleteCluster(ctx context.Context, in *api.DeleteClusterInput) (*api.DeleteClusterOutput, error) {
	caller := e.caller(ctx)
	out := &api.DeleteClusterOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		c, err := e.cluster(tx, caller.Account, in.Cluster)
		if err != nil {
			return err
		}
		// What RunTask, CreateService and agents put below the cluster while
		// this transaction looks makes it look again.
		state.Tasks.Guard(tx, e.arn(caller.Account, "task/"+c.Name+"/"))
		state.Services.Guard(tx, e.arn(caller.Account, "service/"+c.Name+"/"))
		state.ContainerInstances.Guard(tx, e.arn(caller.Account, "container-instance/"+c.Name+"/"))
		tx.Guard(capacityGuard(caller.Account))
		for i := range state.ContainerInstances.By(tx, "cluster", c.ARN) {
			if !i.Hidden && i.Status != statusInactive {
				return &api.ClusterContainsContainerInstancesException{Message: "The Cluster cannot be deleted while Container Instances are active or draining."}
			}
		}
		for p := range state.CapacityProviders.By(tx, "account", caller.Account) {
			if p.Cluster == c.ARN {
				return &api.ClusterContainsCapacityProviderException{Message: "The Cluster cannot be deleted while Capacity Providers are active."}
			}
		}
		for s := range state.Services.By(tx, "cluster", c.ARN) {
			if s.Status != statusInactive {
				return &api.ClusterContainsServicesException{Message: "The Cluster cannot be deleted while Services are active."}
			}
		}
		for t := range state.Tasks.By(tx, "cluster", c.ARN) {
			if t.LastStatus != state.Stopped {
				return &api.ClusterContainsTasksException{Message: "The Cluster cannot be deleted while Tasks are active."}
			}
		}
		n := *c
		n.Status = statusInactive
		n.CapacityProviders, n.DefaultCapacityProviderStrategy, n.AttachmentsStatus = nil, nil, ""
		state.Clusters.Put(tx, &n)
		out.Cluster = clusterView(tx, &n, everyField)
		return nil
	})
}

// UpdateCluster changes what it is given and leaves the rest.
func (e *ECS) UpdateCluster(ctx context.Context, in *api.UpdateClusterInput) (*api.UpdateClusterOutput, error) {
	if err := checkClusterSettings(in.Settings); err != nil {
		return nil, err
	}
	if in.ServiceConnectDefaults != nil {
		return nil, unsupported("serviceConnectDefaults")
	}
	out := &api.UpdateClusterOutput{}
	err := e.changeCluster(ctx, in.Cluster, func(r store.Reader, c *state.Cluster) {
		if in.Settings != nil {
			c.Settings = in.Settings
		}
		if in.Configuration != nil {
			c.Configuration = in.Configuration
		}
		out.Cluster = clusterView(r, c, everyField)
	})
	return out, err
}

// UpdateClusterSettings changes the settings of a cluster.
func (e *ECS) UpdateClusterSettings(ctx context.Context, in *api.UpdateClusterSettingsInput) (*api.UpdateClusterSettingsOutput, error) {
	if err := checkClusterSettings(in.Settings); err != nil {
		return nil, err
	}
	out := &api.UpdateClusterSettingsOutput{}
	err := e.changeCluster(ctx, in.Cluster, func(r store.Reader, c *state.Cluster) {
		c.Settings = in.Settings
		out.Cluster = clusterView(r, c, everyField)
	})
	return out, err
}

func (e *ECS) changeCluster(ctx context.Context, ref *string, change func(store.Reader, *state.Cluster)) error {
	caller := e.caller(ctx)
	return e.update(ctx, func(tx *store.Tx) error {
		c, err := e.activeCluster(tx, caller.Account, ref)
		if err != nil {
			return err
		}
		n := *c
		change(tx, &n)
		state.Clusters.Put(tx, &n)
		return nil
	})
}

// DescribeClusters shows clusters by name or ARN; without any, the default one.
func (e *ECS) DescribeClusters(ctx context.Context, in *api.DescribeClustersInput) (*api.DescribeClustersOutput, error) {
	account := e.caller(ctx).Account
	refs := in.Clusters
	if len(refs) == 0 {
		refs = []string{DefaultCluster}
	}
	if len(refs) > 100 {
		return nil, invalid("Clusters cannot exceed 100 elements")
	}
	out := &api.DescribeClustersOutput{Clusters: []api.Cluster{}, Failures: []api.Failure{}}
	return out, e.view(func(r store.Reader) error {
		for _, ref := range refs {
			key, err := e.clusterARN(account, &ref)
			if err != nil {
				return err
			}
			if c, ok := state.Clusters.Get(r, key); ok {
				out.Clusters = append(out.Clusters, *clusterView(r, c, in.Include))
			} else {
				out.Failures = append(out.Failures, api.Failure{Arn: &key, Reason: new("MISSING")})
			}
		}
		return nil
	})
}

// ListClusters lists the active clusters.
func (e *ECS) ListClusters(ctx context.Context, in *api.ListClustersInput) (*api.ListClustersOutput, error) {
	account := e.caller(ctx).Account
	var arns []string
	for c := range state.Clusters.By(e.db.Snapshot(), "account", account) {
		if c.Status == statusActive {
			arns = append(arns, c.ARN)
		}
	}
	arns, next, err := page(arns, query{"ListClusters", account}, in.NextToken, in.MaxResults, 100, 100, e.now())
	return &api.ListClustersOutput{ClusterArns: list(arns), NextToken: next}, err
}

var (
	everyField      = []api.ClusterField{api.ClusterFieldConfigurations, api.ClusterFieldSettings, api.ClusterFieldTags}
	withAttachments = append(slices.Clone(everyField), api.ClusterFieldAttachments)
)

func clusterView(r store.Reader, c *state.Cluster, include []api.ClusterField) *api.Cluster {
	v := &api.Cluster{
		ClusterArn: &c.ARN, ClusterName: &c.Name, Status: &c.Status,
		Statistics: []api.KeyValuePair{}, Tags: []api.Tag{}, Settings: []api.ClusterSetting{},
		CapacityProviders:               list(c.CapacityProviders),
		DefaultCapacityProviderStrategy: list(c.DefaultCapacityProviderStrategy),
		ServiceConnectDefaults:          c.ServiceConnectDefaults,
	}
	var instances, services int
	tasks := map[string]int{} // by launch type and running or pending
	for i := range state.ContainerInstances.By(r, "cluster", c.ARN) {
		if !i.Hidden && i.Status != statusInactive {
			instances++
		}
	}
	byStatus := map[string]int{}
	for s := range state.Services.By(r, "cluster", c.ARN) {
		if s.Status == statusActive {
			services++
		}
		byStatus[s.Status+state.LaunchOf(s.LaunchType, s.CapacityProviderStrategy)]++
	}
	for t := range state.Tasks.By(r, "cluster", c.ARN) {
		switch {
		case t.LastStatus == state.Running:
			tasks["running"]++
			tasks["running"+t.LaunchType]++
		case isPending(t):
			tasks["pending"]++
			tasks["pending"+t.LaunchType]++
		}
	}
	v.RegisteredContainerInstancesCount, v.ActiveServicesCount = num(instances), num(services)
	v.RunningTasksCount, v.PendingTasksCount = num(tasks["running"]), num(tasks["pending"])
	for _, f := range include {
		switch f {
		case api.ClusterFieldConfigurations:
			v.Configuration = c.Configuration
		case api.ClusterFieldSettings:
			v.Settings = list(c.Settings)
		case api.ClusterFieldTags:
			v.Tags = tagView(c.Tags)
		case api.ClusterFieldStatistics:
			for _, l := range []struct{ name, launch string }{{"EC2", "EC2"}, {"Fargate", "FARGATE"}, {"External", "EXTERNAL"}} {
				for _, s := range []struct {
					name string
					n    int
				}{
					{"running" + l.name + "TasksCount", tasks["running"+l.launch]},
					{"pending" + l.name + "TasksCount", tasks["pending"+l.launch]},
					{"active" + l.name + "ServiceCount", byStatus[statusActive+l.launch]},
					{"draining" + l.name + "ServiceCount", byStatus[statusDraining+l.launch]},
				} {
					v.Statistics = append(v.Statistics, api.KeyValuePair{Name: &s.name, Value: new(fmt.Sprint(s.n))})
				}
			}
		case api.ClusterFieldAttachments:
			v.Attachments, v.AttachmentsStatus = []api.Attachment{}, opt(c.AttachmentsStatus)
		}
	}
	return v
}

// isPending holds for a task on its way to RUNNING.
func isPending(t *state.Task) bool {
	return t.LastStatus == state.Provisioning || t.LastStatus == state.Pending || t.LastStatus == state.Activating
}
