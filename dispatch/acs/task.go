package acs

import "encoding/json"

// Statuses of a task or container that travel over the protocol.
const (
	StatusPending = "PENDING"
	StatusRunning = "RUNNING"
	StatusStopped = "STOPPED"
)

// Task is a task as the control plane sends it: a task definition that has
// been compiled for the agent, with everything that is known of the task.
// To stop a task it is enough to send Arn, Family, Version, DesiredStatus and
// an empty list of containers.
type Task struct {
	Arn                      string                    `json:"arn"`
	TaskClusterArn           string                    `json:"taskClusterArn,omitempty"`
	Family                   string                    `json:"family"`
	Version                  string                    `json:"version"`
	DesiredStatus            string                    `json:"desiredStatus"`
	CPU                      float64                   `json:"cpu,omitempty"`    // vCPUs
	Memory                   int64                     `json:"memory,omitempty"` // MiB
	NetworkMode              string                    `json:"networkMode,omitempty"`
	LaunchType               string                    `json:"launchType,omitempty"`
	TaskDefinitionAccountID  string                    `json:"taskDefinitionAccountId,omitempty"`
	ServiceName              string                    `json:"serviceName,omitempty"`
	Group                    string                    `json:"group,omitempty"`
	PidMode                  string                    `json:"pidMode,omitempty"`
	IpcMode                  string                    `json:"ipcMode,omitempty"`
	EnableFaultInjection     bool                      `json:"enableFaultInjection,omitempty"`
	RoleCredentials          *IAMRoleCredentials       `json:"roleCredentials,omitempty"`
	ExecutionRoleCredentials *IAMRoleCredentials       `json:"executionRoleCredentials,omitempty"`
	ElasticNetworkInterfaces []ElasticNetworkInterface `json:"elasticNetworkInterfaces,omitempty"`
	Volumes                  []Volume                  `json:"volumes,omitempty"`
	Containers               []Container               `json:"containers"`
	Associations             []Association             `json:"associations,omitempty"`
	ProxyConfiguration       *ProxyConfiguration       `json:"proxyConfiguration,omitempty"`
	Attachments              []Attachment              `json:"attachments,omitempty"`
	Overrides                string                    `json:"overrides,omitempty"`
	AgentConfiguration       json.RawMessage           `json:"agentConfiguration,omitempty"`
	Zone                     string                    `json:"zone,omitempty"`
}

// Container is one container of a Task.
type Container struct {
	Name                   string                  `json:"name"`
	Image                  string                  `json:"image"`
	Command                []string                `json:"command,omitempty"`
	EntryPoint             []string                `json:"entryPoint,omitempty"`
	Environment            map[string]string       `json:"environment,omitempty"`
	EnvironmentFiles       []EnvironmentFile       `json:"environmentFiles,omitempty"`
	CPU                    int64                   `json:"cpu,omitempty"`    // shares
	Memory                 int64                   `json:"memory,omitempty"` // MiB, hard limit
	Essential              bool                    `json:"essential"`
	Links                  []string                `json:"links,omitempty"`
	PortMappings           []PortMapping           `json:"portMappings,omitempty"`
	MountPoints            []MountPoint            `json:"mountPoints,omitempty"`
	VolumesFrom            []VolumeFrom            `json:"volumesFrom,omitempty"`
	DependsOn              []ContainerDependency   `json:"dependsOn,omitempty"`
	StartTimeout           int64                   `json:"startTimeout,omitempty"` // seconds
	StopTimeout            int64                   `json:"stopTimeout,omitempty"`  // seconds
	RestartPolicy          *RestartPolicy          `json:"restartPolicy,omitempty"`
	Secrets                []Secret                `json:"secrets,omitempty"`
	RegistryAuthentication *RegistryAuthentication `json:"registryAuthentication,omitempty"`
	LogsAuthStrategy       string                  `json:"logsAuthStrategy,omitempty"`
	FirelensConfiguration  *FirelensConfiguration  `json:"firelensConfiguration,omitempty"`
	ManagedAgents          []ManagedAgent          `json:"managedAgents,omitempty"`
	HealthCheckType        string                  `json:"healthCheckType,omitempty"`
	NetworkInterfaceNames  []string                `json:"networkInterfaceNames,omitempty"`
	CredentialSpecs        []string                `json:"credentialSpecs,omitempty"`
	ContainerArn           string                  `json:"containerArn,omitempty"`
	Overrides              string                  `json:"overrides,omitempty"`
	DockerConfig           *DockerConfig           `json:"dockerConfig,omitempty"`
}

// LogsAuthExecutionRole as a container's LogsAuthStrategy makes the log driver
// use the execution role's credentials.
const LogsAuthExecutionRole = "ExecutionRole"

// HealthCheckDocker as a container's HealthCheckType makes the agent report
// the health that the check of the container's Config gives.
const HealthCheckDocker = "docker"

// EnvironmentFile is a file of variables in S3.
type EnvironmentFile struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// PortMapping maps a container's port to the instance's. HostPort 0 is dynamic.
type PortMapping struct {
	ContainerPort      int64  `json:"containerPort,omitempty"`
	HostPort           int64  `json:"hostPort"`
	Protocol           string `json:"protocol,omitempty"` // tcp, udp
	ContainerPortRange string `json:"containerPortRange,omitempty"`
	Name               string `json:"name,omitempty"`
	AppProtocol        string `json:"appProtocol,omitempty"`
}

// MountPoint mounts a volume of the task.
type MountPoint struct {
	SourceVolume  string `json:"sourceVolume"`
	ContainerPath string `json:"containerPath"`
	ReadOnly      bool   `json:"readOnly"`
}

// VolumeFrom takes over all mounts of another container.
type VolumeFrom struct {
	SourceContainer string `json:"sourceContainer"`
	ReadOnly        bool   `json:"readOnly"`
}

// Conditions of a ContainerDependency.
const (
	ConditionStart    = "START"
	ConditionComplete = "COMPLETE"
	ConditionSuccess  = "SUCCESS"
	ConditionHealthy  = "HEALTHY"
)

// ContainerDependency holds a container back until another meets a condition.
type ContainerDependency struct {
	ContainerName string `json:"containerName"`
	Condition     string `json:"condition"`
}

// RestartPolicy makes the agent restart a container in place.
type RestartPolicy struct {
	Enabled              bool    `json:"enabled"`
	IgnoredExitCodes     []int64 `json:"ignoredExitCodes,omitempty"`
	RestartAttemptPeriod int64   `json:"restartAttemptPeriod,omitempty"` // seconds
}

// Secret is a value that the agent fetches with the execution role.
type Secret struct {
	Name          string `json:"name"`
	ValueFrom     string `json:"valueFrom"`
	Region        string `json:"region,omitempty"`
	Provider      string `json:"provider,omitempty"` // ssm, asm
	Type          string `json:"type,omitempty"`     // ENVIRONMENT_VARIABLE, MOUNT_POINT, BOOTSTRAP
	Target        string `json:"target,omitempty"`   // CONTAINER, LOG_DRIVER
	ContainerPath string `json:"containerPath,omitempty"`
}

// RegistryAuthentication says how the image is paid for at its registry.
type RegistryAuthentication struct {
	Type        string       `json:"type"` // ecr, asm
	ECRAuthData *ECRAuthData `json:"ecrAuthData,omitempty"`
	ASMAuthData *ASMAuthData `json:"asmAuthData,omitempty"`
}

// ECRAuthData is the registry whose token is to be fetched.
type ECRAuthData struct {
	RegistryID       string `json:"registryId"`
	Region           string `json:"region,omitempty"`
	EndpointOverride string `json:"endpointOverride,omitempty"`
	UseExecutionRole bool   `json:"useExecutionRole"`
}

// ASMAuthData is the secret that holds a registry's user name and password.
type ASMAuthData struct {
	CredentialsParameter string `json:"credentialsParameter"`
	Region               string `json:"region,omitempty"`
}

// FirelensConfiguration makes a container the log router of its task.
type FirelensConfiguration struct {
	Type    string            `json:"type"` // fluentd, fluentbit
	Options map[string]string `json:"options,omitempty"`
}

// ManagedAgent is a helper that the agent runs inside a container.
type ManagedAgent struct {
	Name       string            `json:"name"`
	Properties map[string]string `json:"properties,omitempty"`
}

// Volume is a volume of the task.
type Volume struct {
	Name                      string                     `json:"name"`
	Type                      string                     `json:"type,omitempty"` // host, docker, efs
	Host                      *HostVolume                `json:"host,omitempty"`
	DockerVolumeConfiguration *DockerVolumeConfiguration `json:"dockerVolumeConfiguration,omitempty"`
	EFSVolumeConfiguration    *EFSVolumeConfiguration    `json:"efsVolumeConfiguration,omitempty"`
}

// HostVolume is a folder of the instance; without a path one is made that
// lives as long as the task.
type HostVolume struct {
	SourcePath string `json:"sourcePath,omitempty"`
}

// DockerVolumeConfiguration is a volume of the instance's volume driver.
type DockerVolumeConfiguration struct {
	Scope         string            `json:"scope,omitempty"` // task, shared
	Autoprovision bool              `json:"autoprovision,omitempty"`
	Driver        string            `json:"driver,omitempty"`
	DriverOpts    map[string]string `json:"driverOpts,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
}

// EFSVolumeConfiguration is a file system of EFS.
type EFSVolumeConfiguration struct {
	FileSystemID          string            `json:"fileSystemId"`
	RootDirectory         string            `json:"rootDirectory,omitempty"`
	TransitEncryption     string            `json:"transitEncryption,omitempty"`
	TransitEncryptionPort int64             `json:"transitEncryptionPort,omitempty"`
	AuthorizationConfig   *EFSAuthorization `json:"authorizationConfig,omitempty"`
}

// EFSAuthorization says who mounts a file system of EFS.
type EFSAuthorization struct {
	AccessPointID string `json:"accessPointId,omitempty"`
	Iam           string `json:"iam,omitempty"`
}

// Association binds a device to containers.
type Association struct {
	Type       string              `json:"type"`
	Name       string              `json:"name"`
	Content    *AssociationContent `json:"content,omitempty"`
	Containers []string            `json:"containers,omitempty"`
}

// AssociationContent is what containers can read of an Association.
type AssociationContent struct {
	Value    string `json:"value"`
	Encoding string `json:"encoding"`
}

// ProxyConfiguration puts a proxy container in front of the others.
type ProxyConfiguration struct {
	Type          string            `json:"type"`
	ContainerName string            `json:"containerName"`
	Properties    map[string]string `json:"properties,omitempty"`
}

// Attachment is a volume or another resource of a task.
type Attachment struct {
	AttachmentArn        string               `json:"attachmentArn"`
	AttachmentType       string               `json:"attachmentType,omitempty"`
	AttachmentProperties []AttachmentProperty `json:"attachmentProperties,omitempty"`
}

// AttachmentProperty is a named value of an Attachment.
type AttachmentProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// ElasticNetworkInterface is a task's interface in its VPC.
type ElasticNetworkInterface struct {
	AttachmentArn                string                 `json:"attachmentArn,omitempty"`
	EC2ID                        string                 `json:"ec2Id"`
	MacAddress                   string                 `json:"macAddress"`
	IPv4Addresses                []IPv4Address          `json:"ipv4Addresses"`
	IPv6Addresses                []IPv6Address          `json:"ipv6Addresses,omitempty"`
	SubnetGatewayIPv4Address     string                 `json:"subnetGatewayIpv4Address,omitempty"` // with the prefix length: 10.0.1.1/24
	SubnetGatewayIPv6Address     string                 `json:"subnetGatewayIpv6Address,omitempty"`
	DomainNameServers            []string               `json:"domainNameServers,omitempty"`
	DomainName                   []string               `json:"domainName,omitempty"`
	PrivateDNSName               string                 `json:"privateDnsName,omitempty"`
	Index                        int64                  `json:"index"`
	Name                         string                 `json:"name,omitempty"`
	InterfaceAssociationProtocol string                 `json:"interfaceAssociationProtocol,omitempty"`
	InterfaceVlanProperties      *InterfaceVlanProperty `json:"interfaceVlanProperties,omitempty"`
}

// IPv4Address is an address of an interface.
type IPv4Address struct {
	Primary        bool   `json:"primary"`
	PrivateAddress string `json:"privateAddress"`
}

// IPv6Address is an address of an interface.
type IPv6Address struct {
	Primary bool   `json:"primary"`
	Address string `json:"address"`
}

// InterfaceVlanProperty places an interface on a trunk.
type InterfaceVlanProperty struct {
	VlanID                   string `json:"vlanId"`
	TrunkInterfaceMacAddress string `json:"trunkInterfaceMacAddress"`
}

// PrimaryIPv4 gives the interface's primary private address, "" if it has none.
func (e *ElasticNetworkInterface) PrimaryIPv4() string {
	for _, a := range e.IPv4Addresses {
		if a.Primary {
			return a.PrivateAddress
		}
	}
	if len(e.IPv4Addresses) > 0 {
		return e.IPv4Addresses[0].PrivateAddress
	}
	return ""
}
