// Package managed holds the policies that AWS itself manages, as far as those
// who use containers name them: name, path, version and document. Among them
// are the policies of service-linked roles, which only AWS attaches.
//
// ReadOnlyAccess lists only the actions of services that Berth knows; the other
// documents are whole. The package must never decide anything with them.
package managed

import (
	"embed"
	"slices"
	"strings"
	"time"
)

// Prefix begins the ARN of every AWS managed policy.
const Prefix = "arn:aws:iam::aws:policy"

// A Policy is one AWS managed policy.
type Policy struct {
	Name, Path string
	Version    string // id of the default version, the only one kept
	Document   string
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// Attachable reports whether users may attach the policy: those of
// service-linked roles are AWS's alone.
func (p *Policy) Attachable() bool { return p.Path != LinkedPath }

// LinkedPath is the path of the policies of service-linked roles.
const LinkedPath = "/aws-service-role/"

// ARN is the policy's ARN.
func (p *Policy) ARN() string { return Prefix + p.Path + p.Name }

//go:embed documents/*.json
var documents embed.FS

var policies = []*Policy{
	define("APIGatewayServiceRolePolicy", "/aws-service-role/", "v9", "2017-10-20T17:23:10Z", "2021-07-12T22:24:40Z"),
	define("AWSAppMeshEnvoyAccess", "/", "v1", "2019-07-03T21:29:37Z", "2019-07-03T21:29:37Z"),
	define("AWSApplicationAutoscalingECSServicePolicy", "/aws-service-role/", "v2", "2017-10-25T23:53:08Z", "2024-10-24T20:05:50Z"),
	define("AWSCertificateManagerFullAccess", "/", "v2", "2016-01-21T17:02:36Z", "2020-08-17T22:18:28Z"),
	define("AWSCertificateManagerReadOnly", "/", "v5", "2016-01-21T17:07:33Z", "2026-03-31T18:57:22Z"),
	define("AWSCloudFormationFullAccess", "/", "v1", "2019-07-26T21:50:35Z", "2019-07-26T21:50:35Z"),
	define("AWSCloudFormationReadOnlyAccess", "/", "v7", "2015-02-06T18:39:49Z", "2026-02-12T18:02:00Z"),
	define("AWSCloudMapDiscoverInstanceAccess", "/", "v2", "2018-11-29T00:02:42Z", "2023-09-20T21:48:09Z"),
	define("AWSCloudMapFullAccess", "/", "v2", "2018-11-28T23:57:31Z", "2020-07-29T19:15:35Z"),
	define("AWSCloudMapReadOnlyAccess", "/", "v2", "2018-11-28T23:45:26Z", "2023-09-20T21:47:45Z"),
	define("AWSCloudMapRegisterInstanceAccess", "/", "v3", "2018-11-29T00:04:57Z", "2023-09-20T21:47:06Z"),
	define("AWSCodeDeployRoleForECS", "/", "v3", "2018-11-27T20:40:57Z", "2019-09-23T22:37:46Z"),
	define("AWSCodeDeployRoleForECSLimited", "/", "v3", "2018-11-27T20:42:42Z", "2019-09-23T22:10:29Z"),
	define("AWSCompromisedKeyQuarantineV2", "/", "v5", "2021-04-21T22:30:59Z", "2024-10-02T16:41:39Z"),
	define("AWSDenyAll", "/", "v2", "2019-05-01T22:36:14Z", "2023-12-18T16:42:05Z"),
	define("AWSEC2SpotServiceRolePolicy", "/aws-service-role/", "v4", "2017-09-18T18:51:54Z", "2018-12-12T00:13:51Z"),
	define("AWSECRPullThroughCache_ServiceRolePolicy", "/aws-service-role/", "v3", "2021-11-26T21:51:09Z", "2025-03-06T21:22:07Z"),
	define("AWSElasticLoadBalancingServiceRolePolicy", "/aws-service-role/", "v14", "2017-09-19T22:19:04Z", "2026-02-12T17:58:08Z"),
	define("AWSFaultInjectionSimulatorECSAccess", "/service-role/", "v9", "2022-10-26T20:37:56Z", "2026-02-12T18:02:55Z"),
	define("AWSKeyManagementServicePowerUser", "/", "v2", "2015-02-06T18:40:40Z", "2017-03-07T00:55:11Z"),
	define("AWSLambdaBasicExecutionRole", "/service-role/", "v1", "2015-04-09T15:03:43Z", "2015-04-09T15:03:43Z"),
	define("AWSLambdaVPCAccessExecutionRole", "/service-role/", "v3", "2016-02-11T23:15:26Z", "2024-01-05T22:38:26Z"),
	define("AWSXRayDaemonWriteAccess", "/", "v2", "2018-08-28T23:00:33Z", "2024-02-13T21:58:30Z"),
	define("AWSXrayFullAccess", "/", "v2", "2016-12-01T18:30:55Z", "2024-04-11T17:07:36Z"),
	define("AWSXrayWriteOnlyAccess", "/", "v2", "2016-12-01T18:19:53Z", "2018-08-28T23:03:04Z"),
	define("AdministratorAccess", "/", "v1", "2015-02-06T18:39:46Z", "2015-02-06T18:39:46Z"),
	define("AmazonAPIGatewayAdministrator", "/", "v1", "2015-07-09T17:34:45Z", "2015-07-09T17:34:45Z"),
	define("AmazonAPIGatewayInvokeFullAccess", "/", "v2", "2015-07-09T17:36:12Z", "2018-12-18T18:25:10Z"),
	define("AmazonAPIGatewayPushToCloudWatchLogs", "/service-role/", "v1", "2015-11-11T23:41:46Z", "2015-11-11T23:41:46Z"),
	define("AmazonDynamoDBFullAccess", "/", "v15", "2015-02-06T18:40:11Z", "2021-01-29T17:38:30Z"),
	define("AmazonDynamoDBReadOnlyAccess", "/", "v15", "2015-02-06T18:40:12Z", "2024-11-18T17:38:15Z"),
	define("AmazonEC2ContainerRegistryFullAccess", "/", "v3", "2015-12-21T17:06:48Z", "2020-12-05T00:04:19Z"),
	define("AmazonEC2ContainerRegistryPowerUser", "/", "v3", "2015-12-21T17:05:33Z", "2019-12-10T20:48:08Z"),
	define("AmazonEC2ContainerRegistryPullOnly", "/", "v1", "2024-10-04T16:58:49Z", "2024-10-04T16:58:49Z"),
	define("AmazonEC2ContainerRegistryReadOnly", "/", "v3", "2015-12-21T17:04:15Z", "2019-12-10T20:56:32Z"),
	define("AmazonEC2ContainerServiceAutoscaleRole", "/service-role/", "v2", "2016-05-12T23:25:44Z", "2018-02-05T19:15:15Z"),
	define("AmazonEC2ContainerServiceEventsRole", "/service-role/", "v3", "2017-05-30T16:51:35Z", "2023-03-06T22:25:12Z"),
	define("AmazonEC2ContainerServiceRole", "/service-role/", "v2", "2015-04-09T16:14:19Z", "2016-08-11T13:08:01Z"),
	define("AmazonEC2ContainerServiceforEC2Role", "/service-role/", "v10", "2015-03-19T18:45:18Z", "2026-02-12T17:59:52Z"),
	define("AmazonEC2FullAccess", "/", "v5", "2015-02-06T18:40:15Z", "2018-11-27T02:16:56Z"),
	define("AmazonEC2ReadOnlyAccess", "/", "v5", "2015-02-06T18:40:17Z", "2026-02-12T18:03:17Z"),
	define("AmazonEC2RoleforSSM", "/service-role/", "v8", "2015-05-29T17:48:35Z", "2019-01-24T19:20:51Z"),
	define("AmazonEC2SpotFleetTaggingRole", "/service-role/", "v5", "2017-06-29T18:19:29Z", "2020-04-23T19:30:49Z"),
	define("AmazonECSComputeServiceRolePolicy", "/aws-service-role/", "v6", "2025-03-24T17:37:06Z", "2026-02-12T17:57:51Z"),
	define("AmazonECSInfrastructureRolePolicyForLoadBalancers", "/", "v6", "2025-07-17T16:37:07Z", "2026-02-12T18:01:05Z"),
	define("AmazonECSInfrastructureRolePolicyForManagedInstances", "/", "v11", "2025-09-26T18:04:07Z", "2026-02-26T18:27:10Z"),
	define("AmazonECSInfrastructureRolePolicyForServiceConnectTransportLayerSecurity", "/service-role/", "v4", "2024-01-19T20:08:36Z", "2026-02-12T18:02:05Z"),
	define("AmazonECSInfrastructureRolePolicyForVolumes", "/service-role/", "v5", "2024-01-10T22:56:41Z", "2026-02-12T18:02:34Z"),
	define("AmazonECSInfrastructureRolePolicyForVpcLattice", "/", "v1", "2024-11-15T20:02:55Z", "2024-11-15T20:02:55Z"),
	define("AmazonECSInfrastructureRoleforExpressGatewayServices", "/service-role/", "v6", "2025-11-12T20:34:08Z", "2026-02-12T18:01:54Z"),
	define("AmazonECSInstanceRolePolicyForManagedInstances", "/", "v3", "2025-09-26T23:49:07Z", "2026-02-12T17:58:24Z"),
	define("AmazonECSServiceRolePolicy", "/aws-service-role/", "v24", "2017-10-14T01:18:58Z", "2026-04-22T23:12:09Z"),
	define("AmazonECSTaskExecutionRolePolicy", "/service-role/", "v1", "2017-11-16T18:48:22Z", "2017-11-16T18:48:22Z"),
	define("AmazonECS_FullAccess", "/", "v21", "2017-11-07T21:36:54Z", "2024-08-13T19:39:37Z"),
	define("AmazonElasticFileSystemClientFullAccess", "/", "v1", "2020-01-13T16:27:00Z", "2020-01-13T16:27:00Z"),
	define("AmazonElasticFileSystemClientReadWriteAccess", "/", "v1", "2020-01-13T16:21:55Z", "2020-01-13T16:21:55Z"),
	define("AmazonEventBridgeFullAccess", "/", "v7", "2019-07-11T14:08:55Z", "2026-02-12T17:58:25Z"),
	define("AmazonEventBridgeReadOnlyAccess", "/", "v6", "2019-07-11T13:59:07Z", "2022-12-01T17:02:48Z"),
	define("AmazonEventBridgeSchedulerFullAccess", "/", "v4", "2022-11-10T18:37:25Z", "2026-02-12T18:03:15Z"),
	define("AmazonPrometheusRemoteWriteAccess", "/", "v1", "2020-12-19T01:04:32Z", "2020-12-19T01:04:32Z"),
	define("AmazonRoute53AutoNamingFullAccess", "/", "v1", "2018-01-18T18:40:41Z", "2018-01-18T18:40:41Z"),
	define("AmazonRoute53FullAccess", "/", "v7", "2015-02-06T18:40:54Z", "2026-02-12T18:00:40Z"),
	define("AmazonRoute53ReadOnlyAccess", "/", "v2", "2015-02-06T18:40:55Z", "2016-11-15T21:15:16Z"),
	define("AmazonS3FullAccess", "/", "v2", "2015-02-06T18:40:58Z", "2021-09-27T20:16:37Z"),
	define("AmazonS3ReadOnlyAccess", "/", "v3", "2015-02-06T18:40:59Z", "2023-08-10T21:31:39Z"),
	define("AmazonSNSFullAccess", "/", "v2", "2015-02-06T18:41:05Z", "2024-09-24T22:32:05Z"),
	define("AmazonSQSFullAccess", "/", "v1", "2015-02-06T18:41:07Z", "2015-02-06T18:41:07Z"),
	define("AmazonSSMAutomationRole", "/service-role/", "v9", "2016-12-05T22:09:55Z", "2026-03-20T17:42:14Z"),
	define("AmazonSSMFullAccess", "/", "v4", "2015-05-29T17:39:47Z", "2019-11-20T20:08:56Z"),
	define("AmazonSSMManagedInstanceCore", "/", "v2", "2019-03-15T17:22:12Z", "2019-05-23T16:54:21Z"),
	define("AmazonSSMPatchAssociation", "/", "v1", "2020-05-13T16:00:42Z", "2020-05-13T16:00:42Z"),
	define("AmazonSSMReadOnlyAccess", "/", "v1", "2015-05-29T17:44:19Z", "2015-05-29T17:44:19Z"),
	define("AmazonVPCFullAccess", "/", "v13", "2015-02-06T18:41:16Z", "2026-02-12T18:00:44Z"),
	define("AmazonVPCReadOnlyAccess", "/", "v12", "2015-02-06T18:41:17Z", "2026-02-12T17:58:19Z"),
	define("AutoScalingConsoleFullAccess", "/", "v2", "2017-01-12T19:43:16Z", "2018-02-06T23:15:36Z"),
	define("AutoScalingFullAccess", "/", "v2", "2017-01-12T19:31:58Z", "2018-02-06T21:59:13Z"),
	define("AutoScalingNotificationAccessRole", "/service-role/", "v1", "2015-02-06T18:41:22Z", "2015-02-06T18:41:22Z"),
	define("AutoScalingReadOnlyAccess", "/", "v1", "2017-01-12T19:39:35Z", "2017-01-12T19:39:35Z"),
	define("AutoScalingServiceRolePolicy", "/aws-service-role/", "v10", "2018-01-08T23:10:55Z", "2025-11-12T18:19:06Z"),
	define("Billing", "/job-function/", "v28", "2016-11-10T17:33:18Z", "2026-04-08T17:12:18Z"),
	define("CloudFormationStackSetsOrgMemberServiceRolePolicy", "/aws-service-role/", "v1", "2019-12-09T23:52:37Z", "2019-12-09T23:52:37Z"),
	define("CloudWatchAgentAdminPolicy", "/", "v2", "2018-03-07T00:52:31Z", "2024-02-05T20:59:57Z"),
	define("CloudWatchAgentServerPolicy", "/", "v3", "2018-03-07T01:06:44Z", "2024-02-06T16:37:37Z"),
	define("CloudWatchEventsFullAccess", "/", "v5", "2016-01-14T18:37:08Z", "2026-02-12T18:00:32Z"),
	define("CloudWatchEventsReadOnlyAccess", "/", "v3", "2016-01-14T18:27:18Z", "2022-12-01T16:29:31Z"),
	define("CloudWatchEventsServiceRolePolicy", "/aws-service-role/", "v1", "2017-11-17T00:42:04Z", "2017-11-17T00:42:04Z"),
	define("CloudWatchFullAccess", "/", "v4", "2015-02-06T18:40:00Z", "2022-11-27T13:23:49Z"),
	define("CloudWatchFullAccessV2", "/", "v15", "2023-08-01T11:32:57Z", "2026-02-12T18:00:06Z"),
	define("CloudWatchLogsFullAccess", "/", "v8", "2015-02-06T18:40:02Z", "2026-02-12T18:00:33Z"),
	define("CloudWatchLogsReadOnlyAccess", "/", "v12", "2015-02-06T18:40:03Z", "2026-02-12T17:59:13Z"),
	define("CloudWatchReadOnlyAccess", "/", "v24", "2015-02-06T18:40:01Z", "2026-02-12T18:01:50Z"),
	define("DatabaseAdministrator", "/job-function/", "v5", "2016-11-10T17:25:43Z", "2026-02-12T18:02:20Z"),
	define("EC2InstanceConnect", "/", "v1", "2019-06-27T18:53:34Z", "2019-06-27T18:53:34Z"),
	define("ECRReplicationServiceRolePolicy", "/aws-service-role/", "v1", "2020-12-04T22:11:28Z", "2020-12-04T22:11:28Z"),
	define("ECRTemplateServiceRolePolicy", "/aws-service-role/", "v1", "2024-06-19T23:11:37Z", "2024-06-19T23:11:37Z"),
	define("ElasticLoadBalancingFullAccess", "/", "v9", "2018-09-20T20:42:07Z", "2026-02-23T18:57:07Z"),
	define("ElasticLoadBalancingReadOnly", "/", "v3", "2018-09-20T20:17:09Z", "2023-11-26T18:15:46Z"),
	define("IAMFullAccess", "/", "v2", "2015-02-06T18:40:38Z", "2019-06-21T19:40:00Z"),
	define("IAMReadOnlyAccess", "/", "v4", "2015-02-06T18:40:39Z", "2018-01-25T19:11:27Z"),
	define("IAMSelfManageServiceSpecificCredentials", "/", "v1", "2016-12-22T17:25:18Z", "2016-12-22T17:25:18Z"),
	define("IAMUserChangePassword", "/", "v5", "2016-11-15T00:25:16Z", "2026-02-12T17:58:57Z"),
	define("IAMUserSSHKeys", "/", "v1", "2015-07-09T17:08:54Z", "2015-07-09T17:08:54Z"),
	define("NetworkAdministrator", "/job-function/", "v15", "2016-11-10T17:31:35Z", "2026-02-12T17:59:36Z"),
	define("PowerUserAccess", "/", "v12", "2015-02-06T18:39:47Z", "2026-02-12T17:59:14Z"),
	define("ReadOnlyAccess", "/", "v182", "2015-02-06T18:39:48Z", "2026-04-03T15:27:12Z"),
	define("ResourceGroupsandTagEditorFullAccess", "/", "v6", "2015-02-06T18:39:53Z", "2023-08-10T13:29:19Z"),
	define("ResourceGroupsandTagEditorReadOnlyAccess", "/", "v3", "2015-02-06T18:39:54Z", "2023-08-10T13:42:58Z"),
	define("SecretsManagerReadWrite", "/", "v5", "2018-04-04T18:05:29Z", "2024-02-22T18:12:06Z"),
	define("SecurityAudit", "/", "v86", "2015-02-06T18:41:01Z", "2026-05-01T03:12:13Z"),
	define("ServiceQuotasFullAccess", "/", "v4", "2019-06-24T15:44:35Z", "2021-02-04T21:29:43Z"),
	define("ServiceQuotasReadOnlyAccess", "/", "v5", "2019-06-24T15:31:06Z", "2026-02-12T18:00:30Z"),
	define("SupportUser", "/job-function/", "v11", "2016-11-10T17:21:53Z", "2026-02-12T18:03:12Z"),
	define("SystemAdministrator", "/job-function/", "v12", "2016-11-10T17:23:56Z", "2026-02-12T18:02:37Z"),
	define("ViewOnlyAccess", "/job-function/", "v45", "2016-11-10T17:20:15Z", "2026-04-22T18:12:21Z"),
}

var byARN = func() map[string]*Policy {
	m := make(map[string]*Policy, len(policies))
	for _, p := range policies {
		m[p.ARN()] = p
	}
	return m
}()

// Find is the policy with the ARN.
func Find(arn string) (*Policy, bool) {
	if !strings.HasPrefix(arn, Prefix) {
		return nil, false
	}
	p, ok := byARN[arn]
	return p, ok
}

// All is every policy, sorted by name.
func All() []*Policy { return slices.Clone(policies) }

// define reads a document that is part of the program; a test covers them all.
func define(name, path, version, created, updated string) *Policy {
	doc, err := documents.ReadFile("documents/" + name + ".json")
	if err != nil {
		panic(err)
	}
	at := func(s string) time.Time {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			panic(err)
		}
		return t
	}
	return &Policy{Name: name, Path: path, Version: version, Document: string(doc), CreatedAt: at(created), UpdatedAt: at(updated)}
}
