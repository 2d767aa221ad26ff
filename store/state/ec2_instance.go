package state

import (
	"time"

	"github.com/berth-run/berth/store"
)

// Instance is an EC2 instance. The API writes what is wanted (Want, Boots);
// control/boot writes State, from what the node has reported.
type Instance struct {
	ID, Account, VPC, Subnet, Zone string
	Reservation                    string // r-…
	Index                          int    // among those of the reservation
	Type                           string // t3.medium
	Image                          string // ami-…
	KeyName                        string
	Profile                        string // ARN of the instance profile
	ProfileAssociation             string // iip-assoc-…
	UserData                       []byte
	Metadata                       InstanceMetadata
	Monitoring                     bool
	KeepFromTermination            bool   // disableApiTermination
	KeepFromStop                   bool   // disableApiStop
	OnShutdown                     string // stop or terminate
	SourceDestCheck                bool
	Spot                           string // sir-…, "" if it is on demand
	ClientToken                    string
	Tags                           []Tag
	LaunchedAt                     time.Time // of the last start
	CreatedAt                      time.Time

	Want  string // running, stopped, terminated
	Boots int    // how often it is to have been booted; start and reboot add one

	State             string // pending, running, shutting-down, terminated, stopping, stopped
	StateCode         string // StateReason, e.g. Client.UserInitiatedShutdown
	StateMessage      string
	TransitionReason  string    // "User initiated (2026-01-02 03:04:05 GMT)"
	EndedAt           time.Time // terminated: the row goes about an hour later
	Node              string    // "" until it is placed
	ReportedState     string    // by the node: running, stopped, gone
	ReportedBoots     int       // the boot that runs, or ran last
	Failure           string    // why the node could not boot it
	ContainerInstance string    // ARN, once its agent has registered
}

// InstanceMetadata are the options of an instance's metadata service.
type InstanceMetadata struct {
	Enabled       bool
	TokenRequired bool // HttpTokens required
	HopLimit      int
	Tags          bool // InstanceMetadataTags
	IPv6          bool
}

// Instances is keyed by id.
var Instances = store.NewTable("ec2-instance", func(i *Instance) string { return i.ID },
	store.Index("account", func(i *Instance) []string { return []string{i.Account} }),
	store.Index("subnet", func(i *Instance) []string { return []string{i.Subnet} }),
	store.Index("vpc", func(i *Instance) []string { return []string{i.VPC} }),
	store.Index("node", func(i *Instance) []string { return some(i.Node) }),
	store.Index("reservation", func(i *Instance) []string { return []string{i.Reservation} }))

// MachineImage is an AMI. Its root is an OCI image, or the one that Berth makes
// itself for the ECS-optimized AMIs.
type MachineImage struct {
	ID, Account  string // Account "" is Amazon's: every account sees it
	Name         string
	Description  string
	Architecture string // x86_64, arm64
	Root         string // reference of an OCI image in the region's registry; "" is Berth's own
	ECS          bool   // an agent runs in it
	Public       bool
	Shared       []string // accounts with launch permission
	Source       string   // ImageId it was copied from, or the instance it was made of
	Tags         []Tag
	CreatedAt    time.Time
	Deprecated   time.Time
}

// MachineImages is keyed by id.
var MachineImages = store.NewTable("ami", func(i *MachineImage) string { return i.ID },
	store.Index("account", func(i *MachineImage) []string { return []string{i.Account} }))

// KeyPair is a public key that instances may be launched with.
type KeyPair struct {
	ID, Account, Name string // key-…
	Type              string // rsa, ed25519
	Fingerprint       string
	Public            string // in authorized_keys format
	Tags              []Tag
	CreatedAt         time.Time
}

// KeyPairs is keyed by account/name.
var KeyPairs = store.NewTable("key", func(k *KeyPair) string { return k.Account + "/" + k.Name },
	store.Index("account", func(k *KeyPair) []string { return []string{k.Account} }))

// LaunchTemplate is a template and its versions are rows of their own.
type LaunchTemplate struct {
	ID, Account, Name string // lt-…
	Default, Latest   int
	CreatedBy         string
	Tags              []Tag
	CreatedAt         time.Time
}

// LaunchTemplates is keyed by id.
var LaunchTemplates = store.NewTable("lt", func(t *LaunchTemplate) string { return t.ID },
	store.Index("account", func(t *LaunchTemplate) []string { return []string{t.Account} }),
	store.Index("name", func(t *LaunchTemplate) []string { return []string{t.Account + "/" + t.Name} }))
