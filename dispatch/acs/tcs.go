package acs

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Values of a container's health in a PublishHealthRequest.
const (
	Healthy       = "HEALTHY"
	Unhealthy     = "UNHEALTHY"
	HealthUnknown = "UNKNOWN"
)

// Limits of one PublishMetricsRequest or PublishHealthRequest.
const (
	MaxTasksPerFrame = 10
	MaxFrameBytes    = 1 << 20
)

// Seconds is a time that travels as seconds since the epoch, with a fraction.
type Seconds struct{ time.Time }

// MarshalJSON writes the time with milliseconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(s.UnixMilli())/1000, 'f', -1, 64), nil
}

// UnmarshalJSON reads a number of seconds; null leaves the time as it is.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	f, err := strconv.ParseFloat(string(b), 64)
	// Outside these bounds a time cannot be printed as RFC 3339 any more.
	if err != nil || math.IsNaN(f) || f < -62135596800 || f > 253402300799 {
		return fmt.Errorf("timestamp %q is not a number of seconds", b)
	}
	s.Time = time.UnixMilli(int64(math.Round(f * 1000))).UTC()
	return nil
}

// PublishMetricsRequest carries the metrics of up to ten tasks.
type PublishMetricsRequest struct {
	InstanceMetrics *InstanceMetrics `json:"instanceMetrics,omitempty"`
	Metadata        *MetricsMetadata `json:"metadata"`
	TaskMetrics     []TaskMetric     `json:"taskMetrics"`
	Timestamp       Seconds          `json:"timestamp"`
}

// MetricsMetadata says who publishes and whether more frames follow.
type MetricsMetadata struct {
	Cluster           string `json:"cluster"`
	ContainerInstance string `json:"containerInstance"`
	MessageID         string `json:"messageId"`
	Idle              bool   `json:"idle"`
	Fin               bool   `json:"fin"`
}

// InstanceMetrics are the metrics of the instance itself.
type InstanceMetrics struct {
	Storage *InstanceStorageMetrics `json:"storage,omitempty"`
}

// InstanceStorageMetrics says how full the instance's file systems are, in percent.
type InstanceStorageMetrics struct {
	DataFilesystem float64 `json:"dataFilesystem"`
	OSFilesystem   float64 `json:"osFilesystem"`
}

// TaskMetric has the metrics of a task's containers.
type TaskMetric struct {
	TaskArn                 string                   `json:"taskArn"`
	ClusterArn              string                   `json:"clusterArn,omitempty"`
	TaskDefinitionFamily    string                   `json:"taskDefinitionFamily"`
	TaskDefinitionVersion   string                   `json:"taskDefinitionVersion"`
	ContainerMetrics        []ContainerMetric        `json:"containerMetrics"`
	EphemeralStorageMetrics *EphemeralStorageMetrics `json:"ephemeralStorageMetrics,omitempty"`
}

// EphemeralStorageMetrics says how much of a task's storage is used, in bytes.
type EphemeralStorageMetrics struct {
	BytesUtilized ULongStatsSet `json:"bytesUtilized"`
	BytesReserved ULongStatsSet `json:"bytesReserved"`
}

// ContainerMetric aggregates the samples that were taken of a container since
// the last publication.
type ContainerMetric struct {
	ContainerName   string           `json:"containerName"`
	ContainerArn    string           `json:"containerArn,omitempty"`
	CPUStatsSet     *CWStatsSet      `json:"cpuStatsSet,omitempty"`    // percent of a CPU
	MemoryStatsSet  *CWStatsSet      `json:"memoryStatsSet,omitempty"` // MiB
	NetworkStatsSet *NetworkStatsSet `json:"networkStatsSet,omitempty"`
	StorageStatsSet *StorageStatsSet `json:"storageStatsSet,omitempty"`
	RestartStatsSet *RestartStatsSet `json:"restartStatsSet,omitempty"`
}

// CWStatsSet aggregates samples of a quantity.
type CWStatsSet struct {
	Min         float64 `json:"min"`
	Max         float64 `json:"max"`
	SampleCount int64   `json:"sampleCount"`
	Sum         float64 `json:"sum"`
}

// Add takes a sample in.
func (s *CWStatsSet) Add(v float64) {
	if s.SampleCount == 0 || v < s.Min {
		s.Min = v
	}
	if s.SampleCount == 0 || v > s.Max {
		s.Max = v
	}
	s.SampleCount++
	s.Sum += v
}

// ULongStatsSet aggregates samples of a counter. What does not fit into an
// int64 continues in the overflow fields.
type ULongStatsSet struct {
	Min         int64 `json:"min"`
	OverflowMin int64 `json:"overflowMin,omitempty"`
	Max         int64 `json:"max"`
	OverflowMax int64 `json:"overflowMax,omitempty"`
	SampleCount int64 `json:"sampleCount"`
	Sum         int64 `json:"sum"`
	OverflowSum int64 `json:"overflowSum,omitempty"`
}

// Add takes a sample in.
func (s *ULongStatsSet) Add(v uint64) {
	n, over := split(v)
	if s.SampleCount == 0 || v < join(s.Min, s.OverflowMin) {
		s.Min, s.OverflowMin = n, over
	}
	if s.SampleCount == 0 || v > join(s.Max, s.OverflowMax) {
		s.Max, s.OverflowMax = n, over
	}
	s.SampleCount++
	s.Sum, s.OverflowSum = split(join(s.Sum, s.OverflowSum) + v)
}

func split(v uint64) (n, over int64) {
	if v > math.MaxInt64 {
		return math.MaxInt64, int64(v - math.MaxInt64)
	}
	return int64(v), 0
}

func join(n, over int64) uint64 { return uint64(n) + uint64(over) }

// NetworkStatsSet has the counters of a task's network, and their rates.
type NetworkStatsSet struct {
	RxBytes          *ULongStatsSet `json:"rxBytes,omitempty"`
	RxBytesPerSecond *CWStatsSet    `json:"rxBytesPerSecond,omitempty"`
	RxDropped        *ULongStatsSet `json:"rxDropped,omitempty"`
	RxErrors         *ULongStatsSet `json:"rxErrors,omitempty"`
	RxPackets        *ULongStatsSet `json:"rxPackets,omitempty"`
	TxBytes          *ULongStatsSet `json:"txBytes,omitempty"`
	TxBytesPerSecond *CWStatsSet    `json:"txBytesPerSecond,omitempty"`
	TxDropped        *ULongStatsSet `json:"txDropped,omitempty"`
	TxErrors         *ULongStatsSet `json:"txErrors,omitempty"`
	TxPackets        *ULongStatsSet `json:"txPackets,omitempty"`
}

// StorageStatsSet has the bytes a container read and wrote.
type StorageStatsSet struct {
	ReadSizeBytes  *ULongStatsSet `json:"readSizeBytes,omitempty"`
	WriteSizeBytes *ULongStatsSet `json:"writeSizeBytes,omitempty"`
}

// RestartStatsSet says how often a container was restarted in place since the
// last publication.
type RestartStatsSet struct {
	RestartCount int64 `json:"restartCount"`
}

// PublishHealthRequest carries the health of containers that have a check.
type PublishHealthRequest struct {
	Metadata  *HealthMetadata `json:"metadata"`
	Tasks     []TaskHealth    `json:"tasks"`
	Timestamp Seconds         `json:"timestamp"`
}

// HealthMetadata says who publishes and whether more frames follow.
type HealthMetadata struct {
	Cluster           string `json:"cluster"`
	ContainerInstance string `json:"containerInstance"`
	MessageID         string `json:"messageId"`
	Fin               bool   `json:"fin"`
}

// TaskHealth has the health of a task's containers.
type TaskHealth struct {
	TaskArn               string            `json:"taskArn"`
	ClusterArn            string            `json:"clusterArn,omitempty"`
	TaskDefinitionFamily  string            `json:"taskDefinitionFamily"`
	TaskDefinitionVersion string            `json:"taskDefinitionVersion"`
	Containers            []ContainerHealth `json:"containers"`
}

// ContainerHealth is what a container's check said last.
type ContainerHealth struct {
	ContainerName string  `json:"containerName"`
	HealthStatus  string  `json:"healthStatus"`
	StatusSince   Seconds `json:"statusSince"`
	StatusMessage string  `json:"statusMessage,omitempty"`
}

// PublishInstanceStatusRequest says how the instance's own parts are.
type PublishInstanceStatusRequest struct {
	Metadata  *InstanceStatusMetadata `json:"metadata"`
	Statuses  []InstanceStatus        `json:"statuses"`
	Timestamp Seconds                 `json:"timestamp"`
}

// InstanceStatusMetadata says who publishes.
type InstanceStatusMetadata struct {
	Cluster           string `json:"cluster"`
	ContainerInstance string `json:"containerInstance"`
	RequestID         string `json:"requestId"`
}

// InstanceStatus is the status of a part of the instance.
type InstanceStatus struct {
	Type             string  `json:"type"`   // ContainerRuntime
	Status           string  `json:"status"` // OK, IMPAIRED, INSUFFICIENT_DATA, INITIALIZING
	LastUpdated      Seconds `json:"lastUpdated"`
	LastStatusChange Seconds `json:"lastStatusChange"`
	StatusReason     string  `json:"statusReason,omitempty"`
}

// AckPublishMetric acknowledges a PublishMetricsRequest.
type AckPublishMetric struct {
	Message string `json:"message"`
}

// AckPublishHealth acknowledges a PublishHealthRequest.
type AckPublishHealth struct {
	Message string `json:"message"`
}

// AckPublishInstanceStatus acknowledges a PublishInstanceStatusRequest.
type AckPublishInstanceStatus struct {
	Message string `json:"message"`
}

// StopTelemetrySessionMessage asks the agent to stop publishing.
type StopTelemetrySessionMessage struct {
	Message string `json:"message"`
}

func (*PublishMetricsRequest) isMessage()        {}
func (*PublishHealthRequest) isMessage()         {}
func (*PublishInstanceStatusRequest) isMessage() {}
func (*AckPublishMetric) isMessage()             {}
func (*AckPublishHealth) isMessage()             {}
func (*AckPublishInstanceStatus) isMessage()     {}
func (*StopTelemetrySessionMessage) isMessage()  {}
