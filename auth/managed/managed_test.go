package managed

import (
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/auth/policy"
)

func TestDocuments(t *testing.T) {
	files, err := documents.ReadDir("documents")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(policies) {
		t.Errorf("%d documents, %d policies", len(files), len(policies))
	}
	for _, p := range All() {
		if _, err := policy.Parse(p.Document, policy.Identity); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if found, ok := Find(p.ARN()); !ok || found != p {
			t.Errorf("%s is not found by its ARN", p.ARN())
		}
	}
	if !slices.IsSortedFunc(policies, func(a, b *Policy) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not sorted")
	}
}

// The policies that walk-throughs of ECS, CDK and Terraform modules name.
func TestNamedPolicies(t *testing.T) {
	for _, name := range []string{
		"AmazonECS_FullAccess", "service-role/AmazonECSTaskExecutionRolePolicy", "service-role/AmazonEC2ContainerServiceforEC2Role",
		"service-role/AmazonEC2ContainerServiceRole", "service-role/AmazonEC2ContainerServiceAutoscaleRole", "service-role/AmazonEC2ContainerServiceEventsRole",
		"service-role/AmazonECSInfrastructureRolePolicyForVolumes", "AmazonECSInfrastructureRolePolicyForLoadBalancers",
		"service-role/AmazonECSInfrastructureRolePolicyForServiceConnectTransportLayerSecurity", "AmazonECSInfrastructureRolePolicyForManagedInstances",
		"service-role/AmazonECSInfrastructureRoleforExpressGatewayServices", "AmazonECSInstanceRolePolicyForManagedInstances",
		"aws-service-role/AmazonECSServiceRolePolicy", "AWSCodeDeployRoleForECS", "AWSCodeDeployRoleForECSLimited",
		"AmazonEC2ContainerRegistryReadOnly", "AmazonEC2ContainerRegistryPowerUser", "AmazonEC2ContainerRegistryFullAccess", "AmazonEC2ContainerRegistryPullOnly",
		"AmazonSSMManagedInstanceCore", "service-role/AmazonEC2RoleforSSM", "CloudWatchLogsFullAccess", "CloudWatchFullAccess", "CloudWatchAgentServerPolicy",
		"AutoScalingFullAccess", "ElasticLoadBalancingFullAccess", "AmazonVPCFullAccess", "AmazonEC2FullAccess", "IAMFullAccess", "IAMUserChangePassword",
		"PowerUserAccess", "ReadOnlyAccess", "job-function/ViewOnlyAccess", "SecurityAudit", "AdministratorAccess", "SecretsManagerReadWrite",
		"AWSCloudFormationFullAccess", "AWSXRayDaemonWriteAccess", "AmazonS3ReadOnlyAccess", "service-role/AWSLambdaBasicExecutionRole",
	} {
		p, ok := Find(Prefix + "/" + name)
		if !ok {
			t.Errorf("there is no %s", name)
			continue
		}
		if p.Attachable() == strings.HasPrefix(name, "aws-service-role/") {
			t.Errorf("%s attachable: %v", name, p.Attachable())
		}
	}
}
