package main

import (
	_ "embed"
	"strings"
)

// A service says what to generate and where the model leaves a choice.
type service struct {
	pkg   string // Go package under aws/, and the folder of the model
	title string // for comments and the texts of errors
	// signing is the name in the credential scope, where the model has none
	// that differs from the endpoint prefix.
	signing string
	// style names the wire.Style that words the service's validation errors.
	style string
	// operations is the list to generate; nil means all. The others of the
	// model stay known by name, so that calling one is told apart from a typo.
	operations []string
	// extra adds members that the public model does not have.
	extra []extraMember
	// status corrects the HTTP status of errors.
	status map[string]int
}

// An extraMember is a small patch on the model.
type extraMember struct {
	shape, member string
	target        string // shape name in the model
}

//go:embed ec2_operations.txt
var ec2Operations string

var services = []service{
	{pkg: "ecs", title: "Amazon ECS", style: "StyleECS", extra: []extraMember{
		// The agent reads and sends these; the SDKs' model does not have them.
		{"DiscoverPollEndpointRequest", "zoneId", "String"},
		{"DiscoverPollEndpointResponse", "systemLogsEndpoint", "String"},
		{"RegisterContainerInstanceRequest", "clientToken", "String"},
	}, status: map[string]int{
		// As the newer models in the SDKs and ECS's page of common errors say.
		"AccessDeniedException": 403,
	}},
	{pkg: "ecr", title: "Amazon ECR", style: "StyleECR"},
	{pkg: "iam", title: "AWS IAM", style: "StyleQuery"},
	{pkg: "sts", title: "AWS STS", style: "StyleQuery"},
	{pkg: "ec2", title: "Amazon EC2", style: "StyleEC2", operations: strings.Fields(ec2Operations)},
	{pkg: "logs", title: "Amazon CloudWatch Logs", style: "StyleLogs"},
	{pkg: "autoscaling", title: "Amazon EC2 Auto Scaling", style: "StyleQuery"},
	{pkg: "ssm", title: "AWS Systems Manager", style: "StyleSSM"},
}

// maxEnum is the number of values from which an enum is left open: no
// constants and no check, only the type. It concerns EC2's InstanceType, whose
// thousand values are data of the service and not of its protocol.
const maxEnum = 300
