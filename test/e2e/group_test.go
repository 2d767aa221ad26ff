package e2e

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// A group launches from a template whose image is Amazon's public parameter,
// over two zones; its instances register themselves, a refresh brings them the
// template's new version, and a capacity provider knows them.
func TestAutoScalingGroup(t *testing.T) {
	t.Parallel()
	w := fresh(t)
	w.profile(t, "ecsInstanceRole", containerInstanceRole)
	script := base64.StdEncoding.EncodeToString([]byte("#!/bin/bash\necho ECS_CLUSTER=default >> /etc/ecs/ecs.config\n"))
	w.aws(t, "ec2", "create-launch-template", "--launch-template-name", "nodes", "--launch-template-data", fmt.Sprintf(
		`{"ImageId":"resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id","InstanceType":"t3.micro","UserData":"%s","IamInstanceProfile":{"Name":"ecsInstanceRole"}}`, script))
	subnets := strings.Fields(w.aws(t, "ec2", "describe-subnets", "--query", "sort_by(Subnets,&AvailabilityZone)[:2].SubnetId", "--output", "text"))
	w.aws(t, "autoscaling", "create-auto-scaling-group", "--auto-scaling-group-name", "nodes", "--min-size", "1", "--max-size", "4", "--desired-capacity", "2",
		"--launch-template", "LaunchTemplateName=nodes,Version=$Latest", "--vpc-zone-identifier", strings.Join(subnets, ","), "--new-instances-protected-from-scale-in")
	group := func(query string) []string {
		return []string{"autoscaling", "describe-auto-scaling-groups", "--auto-scaling-group-names", "nodes", "--query", "AutoScalingGroups[0]." + query}
	}
	w.until(t, "InService InService", group("Instances[].LifecycleState")...)
	zones := []string{"ec2", "describe-subnets", "--subnet-ids", subnets[0], subnets[1], "--query", "sort(Subnets[].AvailabilityZone)", "--output", "text"}
	w.until(t, strings.Join(strings.Fields(w.aws(t, zones...)), " "), group("sort(Instances[].AvailabilityZone)")...)
	w.until(t, "2", "ecs", "describe-clusters", "--query", "clusters[0].registeredContainerInstancesCount")

	arn := w.aws(t, append(group("AutoScalingGroupARN"), "--output", "text")...)
	w.aws(t, "ecs", "create-capacity-provider", "--name", "nodes", "--auto-scaling-group-provider",
		"autoScalingGroupArn="+arn+",managedScaling={status=ENABLED},managedTerminationProtection=ENABLED")
	w.aws(t, "ecs", "put-cluster-capacity-providers", "--cluster", "default", "--capacity-providers", "nodes", "--default-capacity-provider-strategy", "capacityProvider=nodes,weight=1")
	instances := strings.Fields(w.aws(t, "ecs", "list-container-instances", "--query", "containerInstanceArns", "--output", "text"))
	w.until(t, "nodes nodes", append([]string{"ecs", "describe-container-instances", "--query", "containerInstances[].capacityProviderName", "--container-instances"}, instances...)...)
	w.until(t, "False False", group("Instances[].ProtectedFromScaleIn")...) // they have no tasks

	w.aws(t, "ec2", "create-launch-template-version", "--launch-template-name", "nodes", "--source-version", "1", "--launch-template-data", `{"InstanceType":"t3.small"}`)
	w.aws(t, "autoscaling", "start-instance-refresh", "--auto-scaling-group-name", "nodes", "--preferences", "MinHealthyPercentage=50,InstanceWarmup=0")
	w.until(t, "Successful 100", "autoscaling", "describe-instance-refreshes", "--auto-scaling-group-name", "nodes", "--query", "InstanceRefreshes[0].[Status,PercentageComplete]")
	w.until(t, "2 2", group("Instances[].LaunchTemplate.Version")...)
	w.until(t, "2", "ecs", "describe-clusters", "--query", "clusters[0].registeredContainerInstancesCount")

	w.aws(t, "ecs", "put-cluster-capacity-providers", "--cluster", "default", "--capacity-providers", "--default-capacity-provider-strategy")
	w.aws(t, "ecs", "delete-capacity-provider", "--capacity-provider", "nodes")
	w.aws(t, "autoscaling", "delete-auto-scaling-group", "--auto-scaling-group-name", "nodes", "--force-delete")
	w.until(t, "0", "autoscaling", "describe-auto-scaling-groups", "--query", "length(AutoScalingGroups)")
	w.until(t, "terminated", "ec2", "describe-instances", "--query", "Reservations[].Instances[].State.Name|sort(@)|[0]")
}
