package acs

import (
	"errors"
	"fmt"
)

// Names of an exception that the upgrade of a websocket can be refused with.
const (
	InactiveInstanceException = "InactiveInstanceException" // the instance was deregistered
	InvalidInstanceException  = "InvalidInstanceException"
	InvalidClusterException   = "InvalidClusterException"
	AccessDeniedException     = "AccessDeniedException"
	ServerException           = "ServerException"
	BadRequestException       = "BadRequestException"
)

// ConnectionExpired is the text of the close frame with which an agent ends a
// connection that has grown old.
const ConnectionExpired = "ConnectionExpired: Reconnect to continue"

// Values of RoleType in IAMRoleCredentialsMessage.
const (
	RoleTypeApplication = "TaskApplication"
	RoleTypeExecution   = "TaskExecution"
)

// HeartbeatMessage keeps a connection alive. On ACS it has an id and wants a
// HeartbeatAckRequest; on TCS it has none.
type HeartbeatMessage struct {
	MessageID string `json:"messageId,omitempty"`
	Healthy   bool   `json:"healthy"`
}

// HeartbeatAckRequest answers a HeartbeatMessage of ACS.
type HeartbeatAckRequest struct {
	MessageID string `json:"messageId"`
}

// PayloadMessage carries tasks: what to start and what to stop.
type PayloadMessage struct {
	MessageID            string `json:"messageId"`
	ClusterArn           string `json:"clusterArn"`
	ContainerInstanceArn string `json:"containerInstanceArn"`
	Tasks                []Task `json:"tasks"`
	GeneratedAt          int64  `json:"generatedAt"` // epoch ms
	SeqNum               int64  `json:"seqNum"`
	Timeline             int64  `json:"timeline,omitempty"`
}

// Validate reports what a receiver must drop the message for, without an ack.
func (m *PayloadMessage) Validate() error {
	if m.MessageID == "" {
		return missing(m, "messageId")
	}
	return nil
}

// AckRequest acknowledges a message of ACS by its id.
type AckRequest struct {
	Cluster           string `json:"cluster"`
	ContainerInstance string `json:"containerInstance"`
	MessageID         string `json:"messageId"`
}

// NackRequest refuses a message of ACS.
type NackRequest struct {
	Cluster           string `json:"cluster"`
	ContainerInstance string `json:"containerInstance"`
	MessageID         string `json:"messageId"`
	Reason            string `json:"reason"`
}

// IAMRoleCredentials are the credentials of a task's role or execution role.
type IAMRoleCredentials struct {
	CredentialsID   string `json:"credentialsId"`
	RoleArn         string `json:"roleArn"`
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
	SessionToken    string `json:"sessionToken"`
	Expiration      string `json:"expiration"` // RFC 3339
	CredentialScope string `json:"credentialScope,omitempty"`
}

// IAMRoleCredentialsMessage replaces credentials before they expire.
type IAMRoleCredentialsMessage struct {
	MessageID       string              `json:"messageId"`
	TaskArn         string              `json:"taskArn"`
	TaskClusterArn  string              `json:"taskClusterArn,omitempty"`
	RoleType        string              `json:"roleType"`
	RoleCredentials *IAMRoleCredentials `json:"roleCredentials"`
}

// Validate reports what a receiver must drop the message for, without an ack.
func (m *IAMRoleCredentialsMessage) Validate() error {
	switch {
	case m.MessageID == "":
		return missing(m, "messageId")
	case m.TaskArn == "":
		return missing(m, "taskArn")
	case m.RoleType != RoleTypeApplication && m.RoleType != RoleTypeExecution:
		return fmt.Errorf("%s: unknown roleType %q", TypeOf(m), m.RoleType)
	case m.RoleCredentials == nil || m.RoleCredentials.CredentialsID == "":
		return missing(m, "credentialsId")
	}
	return nil
}

// IAMRoleCredentialsAckRequest says that credentials arrived, be it in a
// message of their own or in a payload.
type IAMRoleCredentialsAckRequest struct {
	MessageID     string `json:"messageId"`
	CredentialsID string `json:"credentialsId"`
	Expiration    string `json:"expiration"`
}

// TaskIdentifier names a task and what it should be.
type TaskIdentifier struct {
	TaskArn        string `json:"taskArn"`
	TaskClusterArn string `json:"taskClusterArn"`
	DesiredStatus  string `json:"desiredStatus"`
}

// TaskManifestMessage lists all tasks that should be on the instance.
type TaskManifestMessage struct {
	MessageID            string           `json:"messageId"`
	ClusterArn           string           `json:"clusterArn"`
	ContainerInstanceArn string           `json:"containerInstanceArn"`
	Tasks                []TaskIdentifier `json:"tasks"`
	GeneratedAt          int64            `json:"generatedAt"` // epoch ms
	Timeline             int64            `json:"timeline"`
}

// Validate reports what a receiver must drop the message for, without an ack.
func (m *TaskManifestMessage) Validate() error {
	switch {
	case m.MessageID == "":
		return missing(m, "messageId")
	case m.ClusterArn == "":
		return missing(m, "clusterArn")
	case m.ContainerInstanceArn == "":
		return missing(m, "containerInstanceArn")
	}
	return nil
}

// TaskStopVerificationMessage asks whether tasks that the manifest lacks are
// really to be stopped. MessageID is the manifest's.
type TaskStopVerificationMessage struct {
	MessageID      string           `json:"messageId"`
	StopCandidates []TaskIdentifier `json:"stopCandidates"`
}

// TaskStopVerificationAck confirms stop candidates. MessageID is the manifest's.
type TaskStopVerificationAck struct {
	MessageID   string           `json:"messageId"`
	GeneratedAt int64            `json:"generatedAt"`
	StopTasks   []TaskIdentifier `json:"stopTasks"`
}

// AttachTaskNetworkInterfacesMessage announces interfaces that will appear for a task.
type AttachTaskNetworkInterfacesMessage struct {
	MessageID                string                    `json:"messageId"`
	ClusterArn               string                    `json:"clusterArn"`
	ContainerInstanceArn     string                    `json:"containerInstanceArn"`
	TaskArn                  string                    `json:"taskArn"`
	TaskClusterArn           string                    `json:"taskClusterArn,omitempty"`
	WaitTimeoutMs            int64                     `json:"waitTimeoutMs"`
	ElasticNetworkInterfaces []ElasticNetworkInterface `json:"elasticNetworkInterfaces"`
	GeneratedAt              int64                     `json:"generatedAt,omitempty"`
}

// Validate reports what a receiver must drop the message for, without an ack.
func (m *AttachTaskNetworkInterfacesMessage) Validate() error {
	switch {
	case m.MessageID == "":
		return missing(m, "messageId")
	case m.ClusterArn == "":
		return missing(m, "clusterArn")
	case m.ContainerInstanceArn == "":
		return missing(m, "containerInstanceArn")
	case m.TaskArn == "":
		return missing(m, "taskArn")
	case m.WaitTimeoutMs <= 0:
		return missing(m, "waitTimeoutMs")
	case len(m.ElasticNetworkInterfaces) == 0:
		return missing(m, "elasticNetworkInterfaces")
	}
	return nil
}

// AttachInstanceNetworkInterfacesMessage announces interfaces of the instance.
type AttachInstanceNetworkInterfacesMessage struct {
	MessageID                string                    `json:"messageId"`
	ClusterArn               string                    `json:"clusterArn"`
	ContainerInstanceArn     string                    `json:"containerInstanceArn"`
	WaitTimeoutMs            int64                     `json:"waitTimeoutMs"`
	ElasticNetworkInterfaces []ElasticNetworkInterface `json:"elasticNetworkInterfaces"`
	GeneratedAt              int64                     `json:"generatedAt,omitempty"`
}

// ConfirmAttachmentMessage asks the agent to confirm that an attachment, such
// as a volume, has appeared.
type ConfirmAttachmentMessage struct {
	MessageID            string      `json:"messageId"`
	ClusterArn           string      `json:"clusterArn"`
	ContainerInstanceArn string      `json:"containerInstanceArn"`
	TaskArn              string      `json:"taskArn,omitempty"`
	TaskClusterArn       string      `json:"taskClusterArn,omitempty"`
	WaitTimeoutMs        int64       `json:"waitTimeoutMs,omitempty"`
	Attachment           *Attachment `json:"attachment"`
	GeneratedAt          int64       `json:"generatedAt,omitempty"`
}

// UpdateInfo says where a new agent is.
type UpdateInfo struct {
	Location  string `json:"location"`
	Signature string `json:"signature"`
}

// StageUpdateMessage asks the agent to fetch a new version of itself.
type StageUpdateMessage struct {
	MessageID            string      `json:"messageId"`
	ClusterArn           string      `json:"clusterArn"`
	ContainerInstanceArn string      `json:"containerInstanceArn"`
	UpdateInfo           *UpdateInfo `json:"updateInfo"`
}

// PerformUpdateMessage asks the agent to become the version it fetched.
type PerformUpdateMessage struct {
	MessageID            string      `json:"messageId"`
	ClusterArn           string      `json:"clusterArn"`
	ContainerInstanceArn string      `json:"containerInstanceArn"`
	UpdateInfo           *UpdateInfo `json:"updateInfo"`
}

// CloseMessage says why the server is about to close the connection.
type CloseMessage struct {
	Message string `json:"message"`
}

// ErrorMessage says what the server could not do.
type ErrorMessage struct {
	Message string `json:"message"`
}

func (*HeartbeatMessage) isMessage()                       {}
func (*HeartbeatAckRequest) isMessage()                    {}
func (*PayloadMessage) isMessage()                         {}
func (*AckRequest) isMessage()                             {}
func (*NackRequest) isMessage()                            {}
func (*IAMRoleCredentialsMessage) isMessage()              {}
func (*IAMRoleCredentialsAckRequest) isMessage()           {}
func (*TaskManifestMessage) isMessage()                    {}
func (*TaskStopVerificationMessage) isMessage()            {}
func (*TaskStopVerificationAck) isMessage()                {}
func (*AttachTaskNetworkInterfacesMessage) isMessage()     {}
func (*AttachInstanceNetworkInterfacesMessage) isMessage() {}
func (*ConfirmAttachmentMessage) isMessage()               {}
func (*StageUpdateMessage) isMessage()                     {}
func (*PerformUpdateMessage) isMessage()                   {}
func (*CloseMessage) isMessage()                           {}
func (*ErrorMessage) isMessage()                           {}

func missing(m Message, field string) error {
	return errors.New(TypeOf(m) + ": " + field + " is missing")
}
