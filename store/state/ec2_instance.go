package state

import (
	"fmt"
	"time"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/store"
)

// Instance is an EC2 instance. The API writes what is wanted (Want, Boots) and
// the state on the way there (pending, stopping, shutting-down), which its own
// answers show; control/boot writes the other states, from what the node has
// reported.
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
	PublicIP                       bool                  // each start gives device 0 a passing public address
	Volume                         string                // vol-… of the root
	RequesterID                    string                // the service that launched it
	VolumeTags                     []Tag                 // of the root
	ProfileAt                      time.Time             // of the association
	Options                        ec2.RunInstancesInput // what is only kept and shown: placement, credits, mappings…

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
	ReportedEnd       string    // by the node: inside or crash, if it stopped by itself
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
	Location     string   // ImageLocation, as it was registered
	OS           string   // of Amazon's: Amazon Linux 2023
	RootDevice   string   // RootDeviceName
	IMDS         string   // v2.0: instances require tokens
	BootMode     string
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
	ClientToken       string
	Tags              []Tag
	CreatedAt         time.Time
}

// LaunchTemplates is keyed by id.
var LaunchTemplates = store.NewTable("lt", func(t *LaunchTemplate) string { return t.ID },
	store.Index("account", func(t *LaunchTemplate) []string { return []string{t.Account} }),
	store.Index("name", func(t *LaunchTemplate) []string { return []string{t.Account + "/" + t.Name} }))

// LaunchTemplateVersion is one version of a launch template; it never changes.
type LaunchTemplateVersion struct {
	Template, Account string
	Number            int
	Description       string
	CreatedBy         string
	ClientToken       string
	Data              ec2.RequestLaunchTemplateData
	CreatedAt         time.Time
}

// LaunchTemplateVersionKey is the key of a version.
func LaunchTemplateVersionKey(template string, number int) string {
	return fmt.Sprintf("%s/%08d", template, number)
}

// LaunchTemplateVersions is keyed by template/number.
var LaunchTemplateVersions = store.NewTable("lt-version", func(v *LaunchTemplateVersion) string {
	return LaunchTemplateVersionKey(v.Template, v.Number)
}, store.Index("template", func(v *LaunchTemplateVersion) []string { return []string{v.Template} }))

// LaunchTemplateName makes a template's name unique in its account.
type LaunchTemplateName struct{ Account, Name, Template string }

// LaunchTemplateNames is keyed by account/name.
var LaunchTemplateNames = store.NewTable("lt-name", func(n *LaunchTemplateName) string { return n.Account + "/" + n.Name })

// Console is what an instance has last written to its console. The node sends
// it when it changes; it goes with the instance.
type Console struct {
	Instance, Account string
	Output            []byte // the last 64 KiB
	At                time.Time
}

// Consoles is keyed by instance.
var Consoles = store.NewTable("console", func(c *Console) string { return c.Instance })

// SpotRequest is a request for Spot instances. There is no spare capacity to
// bid for: it is fulfilled at once, and nothing interrupts it.
type SpotRequest struct {
	ID, Account string // sir-…
	Instance    string
	Type        string // one-time or persistent
	Price       string // as it was asked, "" if it was not
	Launch      ec2.RunInstancesInput
	ValidUntil  time.Time
	Behavior    string // terminate, stop, hibernate: kept
	State       string // active, closed, cancelled
	StatusCode  string
	Tags        []Tag
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// SpotRequests is keyed by id.
var SpotRequests = store.NewTable("sir", func(s *SpotRequest) string { return s.ID },
	store.Index("account", func(s *SpotRequest) []string { return []string{s.Account} }))

// InstanceDefault holds an account's defaults for new instances; "" and 0 are
// those of the image or the region.
type InstanceDefault struct {
	Account      string
	Tokens       string // optional, required
	HopLimit     int
	Endpoint     string // enabled, disabled
	MetadataTags string
	Enforced     string
}

// InstanceDefaults is keyed by account.
var InstanceDefaults = store.NewTable("ec2-defaults", func(d *InstanceDefault) string { return d.Account })

// LaunchToken remembers which reservation a client token made. It goes with the
// account, or when it is a day old.
type LaunchToken struct {
	Account, Token string
	Digest         []byte // of the request: with other parameters the token is refused
	Reservation    string
	At             time.Time
}

// LaunchTokens is keyed by account/token.
var LaunchTokens = store.NewTable("ec2-token", func(t *LaunchToken) string { return t.Account + "/" + t.Token },
	store.Index("account", func(t *LaunchToken) []string { return []string{t.Account} }))
