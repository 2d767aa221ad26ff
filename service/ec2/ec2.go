// Package ec2 answers the EC2 API: networks, security groups and what
// describes them. It validates, writes one transaction, and answers; the
// nodes' fabric makes it true. It must never touch a kernel.
package ec2

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Config is what the service needs.
type Config struct {
	DB      *store.DB
	Region  string
	Account func(context.Context) string // the caller's account
	Now     func() time.Time
	NewID   func() string // 32 hex digits
	// Assumable says whether a role lets an AWS service take it; nil: it is seen when the role is used.
	Assumable func(role *state.Role, service string) bool
}

// EC2 implements the API.
type EC2 struct {
	api.Unimplemented
	Config
}

// Stored lists the request fields that are kept and shown but not acted upon,
// by operation and field, each with what that means.
var Stored = map[string]string{
	"RunInstances.BlockDeviceMappings":                                "size, type, IOPS and encryption of the root are kept and size and type shown; nothing enforces them, roots are not encrypted, and no other volume is attached",
	"RunInstances.EbsOptimized":                                       "kept and shown",
	"RunInstances.Monitoring":                                         "kept and shown; there are no metrics of instances",
	"RunInstances.CreditSpecification":                                "kept and shown; a burstable instance is not throttled",
	"RunInstances.CpuOptions":                                         "kept and shown",
	"RunInstances.Placement":                                          "the zone counts; group, partition, affinity and dedicated tenancy are kept and shown",
	"RunInstances.InstanceMarketOptions":                              "a Spot Instance is called so; nothing is bid for and nothing interrupts it, and a persistent request does not launch again",
	"RunInstances.MaintenanceOptions":                                 "kept and shown",
	"RunInstances.LicenseSpecifications":                              "kept and shown",
	"RunInstances.CapacityReservationSpecification":                   "the preference is kept and shown; there are no reservations",
	"RunInstances.PrivateDnsNameOptions":                              "kept and shown; instances are named by their addresses",
	"RunInstances.NetworkPerformanceOptions":                          "kept and shown",
	"RunInstances.AdditionalInfo":                                     "accepted",
	"StopInstances.Force":                                             "accepted; an instance that does not end is ended anyway",
	"StopInstances.SkipOsShutdown":                                    "accepted; an instance is always asked to end first",
	"TerminateInstances.Force":                                        "accepted; an instance that does not end is ended anyway",
	"MonitorInstances.InstanceIds":                                    "kept and shown; there are no metrics of instances",
	"RequestSpotInstances.SpotPrice":                                  "kept and shown; nothing is bid for",
	"RegisterImage.BlockDeviceMappings":                               "accepted; the root is the OCI image",
	"RegisterImage.BootMode":                                          "kept and shown; instances are not booted by firmware",
	"CreateVpc.InstanceTenancy":                                       "kept and shown; instances share the machine whatever it says",
	"ModifyVpcAttribute.EnableNetworkAddressUsageMetrics":             "kept and shown; there are no metrics of address usage",
	"ModifySubnetAttribute.PrivateDnsHostnameTypeOnLaunch":            "kept and shown; names are those of addresses",
	"ModifySubnetAttribute.EnableResourceNameDnsARecordOnLaunch":      "kept and shown; there are no records of resource names",
	"ModifySubnetAttribute.EnableResourceNameDnsAAAARecordOnLaunch":   "kept and shown; there are no records of resource names",
	"CreateDhcpOptions.DhcpConfigurations":                            "kept and shown; a task's or instance's resolver is always that of its VPC",
	"ModifyAddressAttribute.DomainName":                               "kept and shown; no reverse record is made",
	"CreateNatGateway.SecondaryAllocationIds":                         "the addresses are the gateway's; it translates to its primary one",
	"CreateNatGateway.SecondaryPrivateIpAddresses":                    "the addresses are the gateway's; it translates to its primary one",
	"CreateNatGateway.SecondaryPrivateIpAddressCount":                 "the addresses are the gateway's; it translates to its primary one",
	"AssociateNatGatewayAddress.AllocationIds":                        "the addresses are the gateway's; it translates to its primary one",
	"AssignPrivateNatGatewayAddress.PrivateIpAddresses":               "the addresses are the gateway's; it translates to its primary one",
	"UnassignPrivateNatGatewayAddress.MaxDrainDurationSeconds":        "addresses go at once: only the primary one has connections",
	"DisassociateNatGatewayAddress.MaxDrainDurationSeconds":           "addresses go at once: only the primary one has connections",
	"CreateFlowLogs.MaxAggregationInterval":                           "kept and shown; records are of one minute, as those of AWS's Nitro machines",
	"CreateVpcEndpoint.PolicyDocument":                                "kept and shown; what goes through an endpoint is decided by the caller's own policies",
	"ModifyVpcEndpoint.PolicyDocument":                                "kept and shown, as that of CreateVpcEndpoint",
	"CreateNetworkInterface.ConnectionTrackingSpecification":          "kept and shown; connections are tracked with the kernel's own idle times",
	"ModifyNetworkInterfaceAttribute.ConnectionTrackingSpecification": "kept and shown; connections are tracked with the kernel's own idle times",
}

// New returns the service.
func New(c Config) *EC2 { return &EC2{Config: c} }

var _ api.Handler = (*EC2)(nil)

func bad(code, format string, args ...any) error {
	return wire.NewError(http.StatusBadRequest, code, fmt.Sprintf(format, args...))
}

func (e *EC2) arn(account, kind, id string) *string {
	return new(fmt.Sprintf("arn:aws:ec2:%s:%s:%s/%s", e.Region, account, kind, id))
}

func (e *EC2) id(prefix string) string { return prefix + "-" + e.NewID()[:17] }

func tagsView(ts []state.Tag) []api.Tag {
	var out []api.Tag
	for _, t := range ts {
		out = append(out, api.Tag{Key: new(t.Key), Value: new(t.Value)})
	}
	return out
}

// tagsFor takes the tags of a new resource of a type from a request's specifications.
func tagsFor(kind api.ResourceType, specs []api.TagSpecification) ([]state.Tag, error) {
	var out []state.Tag
	for _, s := range specs {
		if s.ResourceType != kind {
			return nil, bad("InvalidParameterValue", "The resource type '%s' is not valid for this call; it must be '%s'.", s.ResourceType, kind)
		}
		for _, t := range s.Tags {
			if err := checkTag(t); err != nil {
				return nil, err
			}
			out = setTag(out, wire.Value(t.Key), wire.Value(t.Value))
		}
	}
	if len(out) > 50 {
		return nil, bad("TagLimitExceeded", "The maximum number of tags for this resource has been reached.")
	}
	return out, nil
}

func checkTag(t api.Tag) error {
	key := wire.Value(t.Key)
	switch {
	case key == "":
		return bad("MissingParameter", "The request must contain the parameter Tag.Key")
	case len(key) > 127:
		return bad("InvalidParameterValue", "Tag key exceeds the maximum length of 127 characters")
	case len(wire.Value(t.Value)) > 255:
		return bad("InvalidParameterValue", "Tag value exceeds the maximum length of 255 characters")
	case strings.HasPrefix(strings.ToLower(key), "aws:"):
		return bad("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
	}
	return nil
}

func setTag(ts []state.Tag, key, value string) []state.Tag {
	ts = slices.Clone(ts)
	for i := range ts {
		if ts[i].Key == key {
			ts[i].Value = value
			return ts
		}
	}
	return append(ts, state.Tag{Key: key, Value: value})
}

// mine keeps the rows of the caller's account.
func mine[T any](rows iter.Seq[*T], account string, of func(*T) string) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for r := range rows {
			if of(r) == account && !yield(r) {
				return
			}
		}
	}
}

// unsupported refuses by name what there is not.
func unsupported(what string) error {
	return bad("UnsupportedOperation", "%s is not supported.", what)
}

// malformed says that an id is not of its kind.
func malformed(code, prefix, id string) error {
	if strings.HasPrefix(id, prefix+"-") {
		return nil
	}
	return bad(code+".Malformed", "Invalid id: \"%s\" (expecting \"%s-...\")", id, prefix)
}
