package throttle

import (
	"strings"
	"sync"
)

// An operation of a service.
type operation struct{ service, name string }

// A rule is the size of a bucket: how many calls at once, and how many more
// each second.
type rule struct{ burst, rate float64 }

// shared are the buckets that several operations share, as AWS documents them.
var shared = map[string][]struct {
	operations  string
	burst, rate float64
}{
	"ecs": {
		{"CreateCluster DeleteCluster PutClusterCapacityProviders UpdateCluster UpdateClusterSettings", 20, 1},
		{"DescribeClusters ListClusters", 50, 20},
		{"RegisterTaskDefinition DeregisterTaskDefinition", 20, 1},
		{"DescribeTaskDefinition ListTaskDefinitions ListTaskDefinitionFamilies", 50, 20},
		{"DeleteTaskDefinitions", 5, 1},
		{"CreateCapacityProvider UpdateCapacityProvider DeleteCapacityProvider", 10, 1},
		{"DescribeCapacityProviders", 50, 20},
		{"TagResource UntagResource", 20, 10},
		{"ListTagsForResource", 50, 20},
		{"PutAccountSetting PutAccountSettingDefault DeleteAccountSetting", 10, 1},
		{"ListAccountSettings", 50, 20},
		{"RunTask StartTask StopTask ExecuteCommand PutAttributes DeleteAttributes DeregisterContainerInstance UpdateContainerAgent UpdateContainerInstancesState", 100, 40},
		{"DescribeTasks ListTasks DescribeContainerInstances ListContainerInstances ListAttributes", 100, 20},
		{"RegisterContainerInstance SubmitTaskStateChange SubmitContainerStateChange SubmitAttachmentStateChanges", 200, 120},
		{"CreateService UpdateService DeleteService", 50, 5},
		{"DescribeServices ListServices", 100, 20},
		{"DescribeServiceDeployments ListServiceDeployments DescribeServiceRevisions", 50, 20},
		{"CreateTaskSet UpdateTaskSet DeleteTaskSet DescribeTaskSets UpdateServicePrimaryTaskSet", 100, 20},
		{"UpdateTaskProtection GetTaskProtection", 200, 80},
		{"ListServicesByNamespace", 10, 1},
	},
}

// single are operations with a bucket of their own. Where AWS says only calls
// per second, the bucket holds those of one second.
var single = map[string]map[string][2]float64{
	"ec2": {
		"CreateTags": {100, 10}, "DeleteTags": {100, 10},
		"RunInstances": {5, 2}, "StartInstances": {5, 2}, "StopInstances": {20, 5}, "TerminateInstances": {100, 5},
	},
	"ecr": {
		"GetAuthorizationToken": {500, 500}, "BatchCheckLayerAvailability": {1000, 1000}, "InitiateLayerUpload": {100, 100},
		"UploadLayerPart": {500, 500}, "CompleteLayerUpload": {100, 100}, "PutImage": {10, 10}, "BatchGetImage": {2000, 2000},
		"GetDownloadUrlForLayer": {3000, 3000},
	},
	"logs": {
		"PutLogEvents": {5000, 5000}, "CreateLogStream": {50, 50}, "CreateLogGroup": {10, 10}, "GetLogEvents": {25, 25},
		"FilterLogEvents": {5, 5}, "DescribeLogGroups": {10, 10}, "DescribeLogStreams": {25, 25},
	},
	"sts": {
		// AWS counts all of these together.
		"AssumeRole": {600, 600}, "GetCallerIdentity": {600, 600}, "GetSessionToken": {600, 600},
	},
	"ssm": {"StartSession": {3, 3}, "GetParameter": {40, 40}, "GetParameters": {40, 40}, "GetParametersByPath": {40, 40}, "PutParameter": {3, 3}},
}

// Operations of which AWS says nothing have a bucket each, of the size that
// EC2 documents for its own.
var (
	otherReads  = [2]float64{100, 20}
	otherWrites = [2]float64{50, 5}
)

// index has the rules of the tables above, and others the ones made as they
// are asked for: both are bounded by the operations that exist.
var (
	index  = map[operation]*rule{}
	others sync.Map
)

func init() {
	for service, groups := range shared {
		for _, g := range groups {
			r := &rule{g.burst, g.rate}
			for op := range strings.FieldsSeq(g.operations) {
				index[operation{service, op}] = r
			}
		}
	}
	for service, ops := range single {
		for op, n := range ops {
			index[operation{service, op}] = &rule{n[0], n[1]}
		}
	}
	all := index[operation{"sts", "AssumeRole"}]
	for op := range single["sts"] {
		index[operation{"sts", op}] = all
	}
}

// find is the rule of an operation.
func find(name operation) *rule {
	if r := index[name]; r != nil {
		return r
	}
	if r, ok := others.Load(name); ok {
		return r.(*rule)
	}
	n := otherWrites
	if reads(name.name) {
		n = otherReads
	}
	r, _ := others.LoadOrStore(name, &rule{n[0], n[1]})
	return r.(*rule)
}
