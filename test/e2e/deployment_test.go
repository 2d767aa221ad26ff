package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/test/lab"
)

// rollout waits until the service's newest deployment has a status.
func (s *service) rollout(arn *string, status ecs.ServiceDeploymentStatus) (now ecs.ServiceDeployment) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), patience)
	defer cancel()
	err := lab.Until(ctx, func(context.Context) (bool, error) {
		now = call[ecs.DescribeServiceDeploymentsOutput](s.t, s.w, lab.ECS, "DescribeServiceDeployments",
			&ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{*arn}}).ServiceDeployments[0]
		return now.Status == status, nil
	})
	if err != nil {
		s.t.Fatalf("waiting until the deployment is %s: %v\n%s", status, err, show(now))
	}
	return now
}

// A deployment that does not get anywhere is stopped by hand: the service goes
// back to what ran before, which has run all the time.
func TestStopServiceDeployment(t *testing.T) {
	t.Parallel()
	w := shared
	s := w.serve(t, &ecs.CreateServiceInput{TaskDefinition: new(w.define(t, boxes(w.box("web", "serve", "80")))), DesiredCount: new(int32(1))})
	first := s.steady()
	ran := s.tasks()
	done := s.rollout(first.CurrentServiceDeployment, ecs.ServiceDeploymentStatusSuccessful)
	revision := call[ecs.DescribeServiceRevisionsOutput](t, w, lab.ECS, "DescribeServiceRevisions",
		&ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{*done.TargetServiceRevision.Arn}}).ServiceRevisions[0]
	if len(revision.ContainerImages) != 1 || !strings.HasPrefix(value(revision.ContainerImages[0].ImageDigest), "sha256:") || *revision.TaskDefinition != *first.TaskDefinition {
		t.Errorf("revision: %s", show(revision))
	}
	refused(t, w.Root, lab.ECS, "StopServiceDeployment", &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: first.CurrentServiceDeployment},
		"ConflictException", "The service deployment cannot be stopped because it is in the SUCCESSFUL state.")

	bad := w.box("web", "serve", "80")
	bad.Image = new(w.RegistryHost() + "/box:none")
	s.update(&ecs.UpdateServiceInput{TaskDefinition: new(w.define(t, boxes(bad)))})
	stuck := s.describe()
	s.rollout(stuck.CurrentServiceDeployment, ecs.ServiceDeploymentStatusInProgress)
	call[ecs.StopServiceDeploymentOutput](t, w, lab.ECS, "StopServiceDeployment",
		&ecs.StopServiceDeploymentInput{ServiceDeploymentArn: stuck.CurrentServiceDeployment, StopType: ecs.StopServiceDeploymentStopTypeRollback})
	back := s.rollout(stuck.CurrentServiceDeployment, ecs.ServiceDeploymentStatusRollbackSuccessful)
	if back.Rollback == nil || *back.Rollback.ServiceRevisionArn != *revision.ServiceRevisionArn {
		t.Errorf("rollback: %s", show(back))
	}
	if now := s.describe(); *now.TaskDefinition != *first.TaskDefinition || *now.RunningCount != 1 {
		t.Errorf("after the rollback: %s", show(now))
	}
	if after := s.tasks(); len(after) != 1 || *after[0].TaskArn != *ran[0].TaskArn {
		t.Errorf("the task that ran was replaced: %s", show(after))
	}
}

// Somebody else deploys: sets of tasks that grow, serve, wait for a task that is
// protected, and go.
func TestTaskSets(t *testing.T) {
	t.Parallel()
	w := shared
	name := family(t)
	definition := w.define(t, boxes(w.box("web", "serve", "80")))
	call[ecs.CreateServiceOutput](t, w, lab.ECS, "CreateService", &ecs.CreateServiceInput{ServiceName: &name, DesiredCount: new(int32(2)),
		DeploymentController: &ecs.DeploymentController{Type: ecs.DeploymentControllerTypeExternal}})
	s := &service{t: t, w: w, name: name}
	t.Cleanup(s.delete)
	cluster := new("default")
	set := call[ecs.CreateTaskSetOutput](t, w, lab.ECS, "CreateTaskSet", &ecs.CreateTaskSetInput{Cluster: cluster, Service: &name, TaskDefinition: &definition,
		LaunchType: ecs.LaunchTypeFargate, NetworkConfiguration: w.network(), Scale: &ecs.Scale{Value: new(50.0), Unit: ecs.ScaleUnitPercent}}).TaskSet
	call[ecs.UpdateServicePrimaryTaskSetOutput](t, w, lab.ECS, "UpdateServicePrimaryTaskSet", &ecs.UpdateServicePrimaryTaskSetInput{Cluster: cluster, Service: &name, PrimaryTaskSet: set.Id})
	now := s.until("the set is steady", func(now ecs.Service) bool {
		return len(now.TaskSets) == 1 && now.TaskSets[0].StabilityStatus == ecs.StabilityStatusSteadyState
	})
	if got := now.TaskSets[0]; *got.RunningCount != 1 || *got.ComputedDesiredCount != 1 || *got.Status != "PRIMARY" || *now.TaskDefinition != definition {
		t.Errorf("service: %s", show(now))
	}
	task := s.tasks()[0]
	if *task.StartedBy != *set.Id {
		t.Errorf("started by %s, the set is %s", *task.StartedBy, *set.Id)
	}

	protect := func(on bool) {
		out := call[ecs.UpdateTaskProtectionOutput](t, w, lab.ECS, "UpdateTaskProtection", &ecs.UpdateTaskProtectionInput{Cluster: cluster, Tasks: []string{*task.TaskArn}, ProtectionEnabled: &on})
		if len(out.ProtectedTasks) != 1 || *out.ProtectedTasks[0].ProtectionEnabled != on {
			t.Errorf("protection: %s", show(out))
		}
	}
	protect(true)
	call[ecs.UpdateTaskSetOutput](t, w, lab.ECS, "UpdateTaskSet", &ecs.UpdateTaskSetInput{Cluster: cluster, Service: &name, TaskSet: set.TaskSetArn, Scale: &ecs.Scale{Value: new(0.0), Unit: ecs.ScaleUnitPercent}})
	blocked := "(service " + name + ") was unable to reach steady state because (taskSet " + *set.Id + ") was unable to scale in due to (reason 1 tasks under protection)"
	now = s.until("the set waits for its task", func(now ecs.Service) bool {
		return slices.ContainsFunc(now.Events, func(e ecs.ServiceEvent) bool { return *e.Message == blocked })
	})
	if *now.RunningCount != 1 {
		t.Errorf("the protected task is gone: %s", show(now))
	}
	protect(false)
	s.until("no task runs", func(now ecs.Service) bool { return *now.RunningCount == 0 })
	call[ecs.DeleteTaskSetOutput](t, w, lab.ECS, "DeleteTaskSet", &ecs.DeleteTaskSetInput{Cluster: cluster, Service: &name, TaskSet: set.Id})
	s.until("the set is gone", func(now ecs.Service) bool { return len(now.TaskSets) == 0 })
}
