package sdk

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// A waiter is one of the SDK's, which share no type.
type waiter[In, Options any] interface {
	Wait(context.Context, *In, time.Duration, ...func(*Options)) error
}

// wait waits as the SDK does, but asks more often than every few seconds. seen
// is told what the waiter makes of each answer.
func wait[In, Options any](ctx context.Context, w waiter[In, Options], in *In, seen func(again bool, err error)) error {
	return w.Wait(ctx, in, patience, func(o *Options) {
		v := reflect.ValueOf(o).Elem()
		v.FieldByName("MinDelay").Set(reflect.ValueOf(20 * time.Millisecond))
		v.FieldByName("MaxDelay").Set(reflect.ValueOf(100 * time.Millisecond))
		judge := v.FieldByName("Retryable")
		model := reflect.ValueOf(judge.Interface())
		judge.Set(reflect.MakeFunc(judge.Type(), func(args []reflect.Value) []reflect.Value {
			out := model.Call(args)
			err, _ := out[1].Interface().(error)
			seen(out[0].Bool(), err)
			return out
		}))
	})
}

func ignore(bool, error) {}

// succeeds demands that what is waited for comes.
func succeeds[In, Options any](t *testing.T, w waiter[In, Options], in *In) {
	t.Helper()
	if err := wait(t.Context(), w, in, ignore); err != nil {
		t.Errorf("%T: %v", w, err)
	}
}

// fails demands that the waiter gives up of itself: because it sees what will
// never do, or because an error is none that it may wait over.
func fails[In, Options any](t *testing.T, w waiter[In, Options], in *In, with string) {
	t.Helper()
	err := wait(t.Context(), w, in, ignore)
	if err == nil || !strings.Contains(err.Error(), with) {
		t.Errorf("%T: %v, want %q", w, err, with)
	}
}

// waits demands that it goes on waiting, whatever it is answered.
func waits[In, Options any](t *testing.T, w waiter[In, Options], in *In) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answers := 0
	err := wait(ctx, w, in, func(again bool, err error) {
		if !again || err != nil {
			t.Errorf("%T: the answer ends it: %v", w, err)
		}
		if answers++; answers == 3 {
			cancel()
		}
	})
	if answers != 3 {
		t.Errorf("%T: ended after %d answers: %v", w, answers, err)
	}
}

// meanwhile demands that what is not yet there is waited for, and that its
// being made ends that.
func meanwhile[In, Options any](t *testing.T, w waiter[In, Options], in *In, create func(context.Context) error) {
	t.Helper()
	waits(t, w, in)
	waited := make(chan error, 1)
	go func() { waited <- wait(t.Context(), w, in, ignore) }()
	if err := create(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("%T: %v", w, err)
	}
}

// failure is what a waiter says of a state that its model calls a failure.
const failure = "waiter state transitioned to Failure"

// waitFor runs the tests of a service's waiters, each by the waiter's name.
func waitFor(t *testing.T, service string, tests map[string]func(t *testing.T)) {
	var names []string
	for name, test := range tests {
		names = append(names, name+"Waiter")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
	t.Run("complete", func(t *testing.T) { complete(t, service, "Waiter", names) })
}

func TestECSWaiters(t *testing.T) {
	t.Parallel()
	c := w.ecs
	const none = "00000000000000000000000000000000"
	noDeployment := &ecs.DescribeDaemonDeploymentsInput{DaemonDeploymentArns: []string{"arn:aws:ecs:us-east-1:" + w.Account + ":daemon-deployment/default/none/" + none}}
	waitFor(t, "ecs", map[string]func(t *testing.T){
		"TasksRunning": func(t *testing.T) {
			define(t, "waited-running", "term")
			running := ecs.NewTasksRunningWaiter(c)
			tasks := run(t, "waited-running", 1)
			succeeds(t, running, &ecs.DescribeTasksInput{Tasks: tasks})
			fails(t, running, &ecs.DescribeTasksInput{Tasks: []string{none}}, failure)
			fails(t, running, &ecs.DescribeTasksInput{Tasks: append(tasks, none)}, failure)
			stop(t, tasks)
			fails(t, running, &ecs.DescribeTasksInput{Tasks: tasks}, failure)
			fails(t, running, &ecs.DescribeTasksInput{Cluster: new("nowhere"), Tasks: tasks}, "ClusterNotFoundException")
		},
		"TasksStopped": func(t *testing.T) {
			define(t, "waited-stopping", "term")
			define(t, "waited-ending", "exit", "0")
			stopped := ecs.NewTasksStoppedWaiter(c)
			tasks := run(t, "waited-stopping", 1)
			succeeds(t, ecs.NewTasksRunningWaiter(c), &ecs.DescribeTasksInput{Tasks: tasks})
			waits(t, stopped, &ecs.DescribeTasksInput{Tasks: tasks})
			stop(t, tasks)
			succeeds(t, stopped, &ecs.DescribeTasksInput{Tasks: tasks})
			succeeds(t, stopped, &ecs.DescribeTasksInput{Tasks: run(t, "waited-ending", 1)})
		},
		"ServicesStable": func(t *testing.T) {
			define(t, "waited-stable", "term")
			stable := ecs.NewServicesStableWaiter(c)
			in := &ecs.DescribeServicesInput{Services: []string{"waited-stable"}}
			fails(t, stable, in, failure)
			done(t)(c.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: new("waited-stable"), TaskDefinition: new("waited-stable"), DesiredCount: new(int32(1)),
				LaunchType: ecstypes.LaunchTypeFargate, NetworkConfiguration: network()}))
			succeeds(t, stable, in)
			now := must[*ecs.DescribeServicesOutput](t)(c.DescribeServices(t.Context(), in)).Services[0]
			if now.RunningCount != 1 || len(now.Deployments) != 1 {
				t.Errorf("stable with %d tasks and %d deployments", now.RunningCount, len(now.Deployments))
			}
			define(t, "waited-stable", "term")
			done(t)(c.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: new("waited-stable"), TaskDefinition: new("waited-stable")}))
			succeeds(t, stable, in)
			if now := must[*ecs.DescribeServicesOutput](t)(c.DescribeServices(t.Context(), in)).Services[0]; !strings.HasSuffix(*now.Deployments[0].TaskDefinition, ":2") {
				t.Errorf("stable with %s", *now.Deployments[0].TaskDefinition)
			}
			done(t)(c.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: new("waited-stable"), Force: new(true)}))
			fails(t, stable, in, failure) // DRAINING, then INACTIVE
			succeeds(t, ecs.NewServicesInactiveWaiter(c), in)
			fails(t, stable, in, failure)
		},
		"ServicesInactive": func(t *testing.T) {
			define(t, "waited-inactive", "term")
			inactive := ecs.NewServicesInactiveWaiter(c)
			in := &ecs.DescribeServicesInput{Services: []string{"waited-inactive"}}
			fails(t, inactive, in, failure)
			done(t)(c.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: new("waited-inactive"), TaskDefinition: new("waited-inactive"), DesiredCount: new(int32(0)),
				LaunchType: ecstypes.LaunchTypeFargate, NetworkConfiguration: network()}))
			waits(t, inactive, in)
			done(t)(c.DeleteService(t.Context(), &ecs.DeleteServiceInput{Service: new("waited-inactive")}))
			succeeds(t, inactive, in)
		},

		"DaemonActive": func(t *testing.T) {
			daemon, _ := newDaemon(t, "waited-active")
			active := ecs.NewDaemonActiveWaiter(c)
			succeeds(t, active, &ecs.DescribeDaemonInput{DaemonArn: &daemon})
			done(t)(c.DeleteDaemon(t.Context(), &ecs.DeleteDaemonInput{DaemonArn: &daemon}))
			fails(t, active, &ecs.DescribeDaemonInput{DaemonArn: &daemon}, "DaemonNotFoundException")
		},
		"DaemonDeploymentSuccessful": func(t *testing.T) {
			_, deployment := newDaemon(t, "waited-successful")
			successful := ecs.NewDaemonDeploymentSuccessfulWaiter(c)
			succeeds(t, successful, &ecs.DescribeDaemonDeploymentsInput{DaemonDeploymentArns: []string{deployment}})
			fails(t, successful, noDeployment, failure)
		},
		// There are no instances that a deployment would wait for, so that each has
		// succeeded before anything could stop it.
		"DaemonDeploymentStopped": func(t *testing.T) {
			_, deployment := newDaemon(t, "waited-stopped")
			stopped := ecs.NewDaemonDeploymentStoppedWaiter(c)
			waits(t, stopped, &ecs.DescribeDaemonDeploymentsInput{DaemonDeploymentArns: []string{deployment}})
			fails(t, stopped, noDeployment, failure)
		},
		"DaemonTaskDefinitionActive": func(t *testing.T) {
			arn := defineDaemon(t, "waited-daemon-active")
			active := ecs.NewDaemonTaskDefinitionActiveWaiter(c)
			succeeds(t, active, &ecs.DescribeDaemonTaskDefinitionInput{DaemonTaskDefinition: &arn})
			done(t)(c.DeleteDaemonTaskDefinition(t.Context(), &ecs.DeleteDaemonTaskDefinitionInput{DaemonTaskDefinition: &arn}))
			fails(t, active, &ecs.DescribeDaemonTaskDefinitionInput{DaemonTaskDefinition: &arn}, failure)
		},
		"DaemonTaskDefinitionDeleted": func(t *testing.T) {
			arn := defineDaemon(t, "waited-daemon-deleted")
			deleted := ecs.NewDaemonTaskDefinitionDeletedWaiter(c)
			waits(t, deleted, &ecs.DescribeDaemonTaskDefinitionInput{DaemonTaskDefinition: &arn})
			done(t)(c.DeleteDaemonTaskDefinition(t.Context(), &ecs.DeleteDaemonTaskDefinitionInput{DaemonTaskDefinition: &arn}))
			succeeds(t, deleted, &ecs.DescribeDaemonTaskDefinitionInput{DaemonTaskDefinition: &arn})
		},
	})
}

// stop stops tasks and waits for their end.
func stop(t *testing.T, tasks []string) {
	t.Helper()
	for _, arn := range tasks {
		done(t)(w.ecs.StopTask(t.Context(), &ecs.StopTaskInput{Task: &arn}))
	}
	succeeds(t, ecs.NewTasksStoppedWaiter(w.ecs), &ecs.DescribeTasksInput{Tasks: tasks})
}

func defineDaemon(t *testing.T, family string) string {
	t.Helper()
	out := must[*ecs.RegisterDaemonTaskDefinitionOutput](t)(w.ecs.RegisterDaemonTaskDefinition(t.Context(), &ecs.RegisterDaemonTaskDefinitionInput{Family: &family,
		ContainerDefinitions: []ecstypes.DaemonContainerDefinition{{Name: new("box"), Image: &w.image, Memory: new(int32(64))}}}))
	return *out.DaemonTaskDefinitionArn
}

// newDaemon makes a daemon on managed instances, of which there are none.
func newDaemon(t *testing.T, name string) (daemon, deployment string) {
	t.Helper()
	ctx := t.Context()
	done(t)(w.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: &name}))
	role := must[*iam.CreateRoleOutput](t)(w.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &name,
		AssumeRolePolicyDocument: new(strings.Replace(trustTasks, `"ecs-tasks.amazonaws.com"`, `["ecs.amazonaws.com","ec2.amazonaws.com"]`, 1))})).Role.Arn
	profile := must[*iam.CreateInstanceProfileOutput](t)(w.iam.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: &name})).InstanceProfile.Arn
	done(t)(w.iam.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: &name, RoleName: &name}))
	provider := must[*ecs.CreateCapacityProviderOutput](t)(w.ecs.CreateCapacityProvider(ctx, &ecs.CreateCapacityProviderInput{Name: &name, Cluster: &name,
		ManagedInstancesProvider: &ecstypes.CreateManagedInstancesProviderConfiguration{InfrastructureRoleArn: role, InstanceLaunchTemplate: &ecstypes.InstanceLaunchTemplate{
			Ec2InstanceProfileArn: profile,
			NetworkConfiguration:  &ecstypes.ManagedInstancesNetworkConfiguration{Subnets: w.subnets[:1], SecurityGroups: []string{w.group}},
		}}})).CapacityProvider.CapacityProviderArn
	made := must[*ecs.CreateDaemonOutput](t)(w.ecs.CreateDaemon(ctx, &ecs.CreateDaemonInput{DaemonName: &name, ClusterArn: &name,
		DaemonTaskDefinitionArn: new(defineDaemon(t, name)), CapacityProviderArns: []string{*provider}}))
	return *made.DaemonArn, *made.DeploymentArn
}

func TestIAMWaiters(t *testing.T) {
	t.Parallel()
	c := w.iam
	name := new("waited")
	waitFor(t, "iam", map[string]func(t *testing.T){
		"RoleExists": func(t *testing.T) {
			exists, in := iam.NewRoleExistsWaiter(c), &iam.GetRoleInput{RoleName: name}
			meanwhile(t, exists, in, func(ctx context.Context) error {
				_, err := c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: new(trustTasks)})
				return err
			})
		},
		"UserExists": func(t *testing.T) {
			exists, in := iam.NewUserExistsWaiter(c), &iam.GetUserInput{UserName: name}
			meanwhile(t, exists, in, func(ctx context.Context) error {
				_, err := c.CreateUser(ctx, &iam.CreateUserInput{UserName: name})
				return err
			})
		},
		"PolicyExists": func(t *testing.T) {
			exists, in := iam.NewPolicyExistsWaiter(c), &iam.GetPolicyInput{PolicyArn: new("arn:aws:iam::" + w.Account + ":policy/waited")}
			meanwhile(t, exists, in, func(ctx context.Context) error {
				_, err := c.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: name, PolicyDocument: new(allowNothing)})
				return err
			})
		},
		"InstanceProfileExists": func(t *testing.T) {
			exists, in := iam.NewInstanceProfileExistsWaiter(c), &iam.GetInstanceProfileInput{InstanceProfileName: name}
			meanwhile(t, exists, in, func(ctx context.Context) error {
				_, err := c.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: name})
				return err
			})
		},
	})
}

func TestECRWaiters(t *testing.T) {
	t.Parallel()
	c, box := w.ecr, new("box")
	waitFor(t, "ecr", map[string]func(t *testing.T){
		"LifecyclePolicyPreviewComplete": func(t *testing.T) {
			complete, in := ecr.NewLifecyclePolicyPreviewCompleteWaiter(c), &ecr.GetLifecyclePolicyPreviewInput{RepositoryName: box}
			fails(t, complete, in, "LifecyclePolicyPreviewNotFoundException")
			done(t)(c.StartLifecyclePolicyPreview(t.Context(), &ecr.StartLifecyclePolicyPreviewInput{RepositoryName: box, LifecyclePolicyText: new(onlyOne)}))
			succeeds(t, complete, in)
		},
		// Nothing scans; who waits for a scan is told at once.
		"ImageScanComplete": func(t *testing.T) {
			fails(t, ecr.NewImageScanCompleteWaiter(c), &ecr.DescribeImageScanFindingsInput{RepositoryName: box, ImageId: &ecrtypes.ImageIdentifier{ImageTag: new("1")}}, "ScanNotFoundException")
		},
	})
}
