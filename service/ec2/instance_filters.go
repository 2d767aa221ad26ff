package ec2

import (
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// instanceFilters are those of DescribeInstances.
func (e *EC2) instanceFilters(r store.Reader) filters[*state.Instance] {
	view := func(f func(api.Instance) []string) func(*state.Instance) []string {
		return func(i *state.Instance) []string { return f(e.instanceView(r, i)) }
	}
	text := func(f func(api.Instance) *string) func(*state.Instance) []string {
		return view(func(v api.Instance) []string { return one(wire.Value(f(v))) })
	}
	nic := func(f func(*state.NetworkInterface) []string) func(*state.Instance) []string {
		return func(i *state.Instance) []string { return each(devices(r, i.ID), f) }
	}
	seen := func(f func(api.InstanceNetworkInterface) []string) func(*state.Instance) []string {
		return view(func(v api.Instance) []string { return each(v.NetworkInterfaces, f) })
	}
	fixed := func(v ...string) func(*state.Instance) []string {
		return func(*state.Instance) []string { return v }
	}
	names := func(v []api.GroupIdentifier) []string {
		return each(v, func(g api.GroupIdentifier) []string { return one(wire.Value(g.GroupName)) })
	}
	ids := func(v []api.GroupIdentifier) []string {
		return each(v, func(g api.GroupIdentifier) []string { return one(wire.Value(g.GroupId)) })
	}
	when := func(f func(api.Instance) *time.Time) func(*state.Instance) []string {
		return view(func(v api.Instance) []string { return instant(wire.Value(f(v))) })
	}
	mapping := func(f func(*state.Instance) []string) func(*state.Instance) []string {
		return func(i *state.Instance) []string {
			if i.State == "terminated" {
				return nil
			}
			return f(i)
		}
	}
	privates := seen(func(n api.InstanceNetworkInterface) []string {
		return each(n.PrivateIpAddresses, func(a api.InstancePrivateIpAddress) []string { return one(wire.Value(a.PrivateIpAddress)) })
	})
	return filters[*state.Instance]{
		"affinity":                                   text(func(v api.Instance) *string { return v.Placement.Affinity }),
		"architecture":                               view(func(v api.Instance) []string { return one(string(v.Architecture)) }),
		"availability-zone":                          func(i *state.Instance) []string { return one(i.Zone) },
		"availability-zone-id":                       text(func(v api.Instance) *string { return v.Placement.AvailabilityZoneId }),
		"block-device-mapping.attach-time":           mapping(func(i *state.Instance) []string { return instant(i.CreatedAt) }),
		"block-device-mapping.delete-on-termination": mapping(func(i *state.Instance) []string { return flag(rootVolume(r, i).remove) }),
		"block-device-mapping.device-name":           mapping(func(i *state.Instance) []string { return one(rootDevice(r, i)) }),
		"block-device-mapping.status":                mapping(fixed("attached")),
		"block-device-mapping.volume-id":             mapping(func(i *state.Instance) []string { return one(i.Volume) }),
		"boot-mode":                                  view(func(v api.Instance) []string { return one(string(v.BootMode)) }),
		"capacity-reservation-id":                    fixed(),
		"capacity-reservation-specification.capacity-reservation-preference": view(func(v api.Instance) []string {
			return one(string(v.CapacityReservationSpecification.CapacityReservationPreference))
		}),
		"client-token":                        func(i *state.Instance) []string { return one(i.ClientToken) },
		"current-instance-boot-mode":          view(func(v api.Instance) []string { return one(string(v.CurrentInstanceBootMode)) }),
		"dns-name":                            text(func(v api.Instance) *string { return v.PublicDnsName }),
		"ebs-optimized":                       view(func(v api.Instance) []string { return flag(wire.Value(v.EbsOptimized)) }),
		"ena-support":                         fixed("true"),
		"enclave-options.enabled":             fixed("false"),
		"hibernation-options.configured":      fixed("false"),
		"host-id":                             fixed(),
		"hypervisor":                          fixed("xen"),
		"iam-instance-profile.arn":            func(i *state.Instance) []string { return one(i.Profile) },
		"iam-instance-profile.id":             view(func(v api.Instance) []string { return profileID(v) }),
		"iam-instance-profile.name":           func(i *state.Instance) []string { return one(i.Profile[strings.LastIndexByte(i.Profile, '/')+1:]) },
		"image-id":                            func(i *state.Instance) []string { return one(i.Image) },
		"instance-id":                         func(i *state.Instance) []string { return one(i.ID) },
		"instance-lifecycle":                  view(func(v api.Instance) []string { return one(string(v.InstanceLifecycle)) }),
		"instance-state-code":                 func(i *state.Instance) []string { return number(int(stateCodes[i.State])) },
		"instance-state-name":                 func(i *state.Instance) []string { return one(i.State) },
		"instance-type":                       func(i *state.Instance) []string { return one(i.Type) },
		"instance.group-id":                   view(func(v api.Instance) []string { return ids(v.SecurityGroups) }),
		"instance.group-name":                 view(func(v api.Instance) []string { return names(v.SecurityGroups) }),
		"group-id":                            view(func(v api.Instance) []string { return ids(v.SecurityGroups) }),
		"group-name":                          view(func(v api.Instance) []string { return names(v.SecurityGroups) }),
		"ip-address":                          text(func(v api.Instance) *string { return v.PublicIpAddress }),
		"ipv6-address":                        nic(func(n *state.NetworkInterface) []string { return each(n.IPv6, address) }),
		"kernel-id":                           fixed(),
		"key-name":                            func(i *state.Instance) []string { return one(i.KeyName) },
		"launch-index":                        func(i *state.Instance) []string { return number(i.Index) },
		"launch-time":                         func(i *state.Instance) []string { return instant(i.LaunchedAt) },
		"maintenance-options.auto-recovery":   view(func(v api.Instance) []string { return one(string(v.MaintenanceOptions.AutoRecovery)) }),
		"metadata-options.http-endpoint":      view(func(v api.Instance) []string { return one(string(v.MetadataOptions.HttpEndpoint)) }),
		"metadata-options.http-protocol-ipv4": fixed("enabled"),
		"metadata-options.http-protocol-ipv6": view(func(v api.Instance) []string { return one(string(v.MetadataOptions.HttpProtocolIpv6)) }),
		"metadata-options.http-put-response-hop-limit": func(i *state.Instance) []string { return number(i.Metadata.HopLimit) },
		"metadata-options.http-tokens":                 view(func(v api.Instance) []string { return one(string(v.MetadataOptions.HttpTokens)) }),
		"metadata-options.instance-metadata-tags":      view(func(v api.Instance) []string { return one(string(v.MetadataOptions.InstanceMetadataTags)) }),
		"metadata-options.state":                       fixed("applied"),
		"monitoring-state":                             func(i *state.Instance) []string { return one(string(monitoring(i))) },
		"network-interface.addresses.association.allocation-id": nic(func(n *state.NetworkInterface) []string {
			return append(one(n.Allocation), each(n.Secondary, func(s state.SecondaryAddress) []string { return one(s.Allocation) })...)
		}),
		"network-interface.addresses.association.ip-owner-id": seen(func(n api.InstanceNetworkInterface) []string {
			return each(n.PrivateIpAddresses, func(a api.InstancePrivateIpAddress) []string { return associationText(a.Association, true) })
		}),
		"network-interface.addresses.association.public-ip": seen(func(n api.InstanceNetworkInterface) []string {
			return each(n.PrivateIpAddresses, func(a api.InstancePrivateIpAddress) []string { return associationText(a.Association, false) })
		}),
		"network-interface.addresses.primary":            seen(func(n api.InstanceNetworkInterface) []string { return flag(true) }),
		"network-interface.addresses.private-ip-address": privates,
		"network-interface.association.allocation-id":    nic(func(n *state.NetworkInterface) []string { return one(n.Allocation) }),
		"network-interface.association.ip-owner-id":      seen(func(n api.InstanceNetworkInterface) []string { return associationText(n.Association, true) }),
		"network-interface.association.public-ip":        nic(func(n *state.NetworkInterface) []string { return address(n.Public) }),
		"network-interface.association.public-dns-name": seen(func(n api.InstanceNetworkInterface) []string {
			if n.Association == nil {
				return nil
			}
			return one(wire.Value(n.Association.PublicDnsName))
		}),
		"network-interface.attachment.attach-time":           nic(func(n *state.NetworkInterface) []string { return instant(n.Attachment.AttachedAt) }),
		"network-interface.attachment.attachment-id":         nic(func(n *state.NetworkInterface) []string { return one(n.AttachmentID) }),
		"network-interface.attachment.delete-on-termination": nic(func(n *state.NetworkInterface) []string { return flag(n.Attachment.DeleteOnTermination) }),
		"network-interface.attachment.device-index":          nic(func(n *state.NetworkInterface) []string { return number(n.Attachment.Device) }),
		"network-interface.attachment.instance-id":           nic(func(n *state.NetworkInterface) []string { return one(n.Attachment.Instance) }),
		"network-interface.attachment.instance-owner-id":     nic(func(n *state.NetworkInterface) []string { return one(n.Account) }),
		"network-interface.attachment.status":                seen(func(n api.InstanceNetworkInterface) []string { return one(string(n.Attachment.Status)) }),
		"network-interface.availability-zone":                nic(func(n *state.NetworkInterface) []string { return one(n.Zone) }),
		"network-interface.description":                      nic(func(n *state.NetworkInterface) []string { return one(n.Description) }),
		"network-interface.group-id":                         nic(func(n *state.NetworkInterface) []string { return n.Groups }),
		"network-interface.group-name":                       seen(func(n api.InstanceNetworkInterface) []string { return names(n.Groups) }),
		"network-interface.ipv6-addresses.ipv6-address":      nic(func(n *state.NetworkInterface) []string { return each(n.IPv6, address) }),
		"network-interface.mac-address":                      nic(func(n *state.NetworkInterface) []string { return one(n.MAC) }),
		"network-interface.network-interface-id":             nic(func(n *state.NetworkInterface) []string { return one(n.ID) }),
		"network-interface.owner-id":                         nic(func(n *state.NetworkInterface) []string { return one(n.Account) }),
		"network-interface.private-dns-name":                 nic(func(n *state.NetworkInterface) []string { return one(n.PrivateDNSName) }),
		"network-interface.private-ip-address":               nic(func(n *state.NetworkInterface) []string { return address(n.Address) }),
		"network-interface.requester-id":                     fixed(),
		"network-interface.requester-managed":                nic(func(n *state.NetworkInterface) []string { return flag(n.RequesterManaged) }),
		"network-interface.source-dest-check":                nic(func(n *state.NetworkInterface) []string { return flag(n.SourceDestCheck) }),
		"network-interface.status":                           nic(func(*state.NetworkInterface) []string { return one("in-use") }),
		"network-interface.subnet-id":                        nic(func(n *state.NetworkInterface) []string { return one(n.Subnet) }),
		"network-interface.tag-key": nic(func(n *state.NetworkInterface) []string {
			return each(n.Tags, func(t state.Tag) []string { return one(t.Key) })
		}),
		"network-interface.tag-value": nic(func(n *state.NetworkInterface) []string {
			return each(n.Tags, func(t state.Tag) []string { return one(t.Value) })
		}),
		"network-interface.vpc-id":               nic(func(n *state.NetworkInterface) []string { return one(n.VPC) }),
		"operator.managed":                       fixed("false"),
		"outpost-arn":                            fixed(),
		"owner-id":                               func(i *state.Instance) []string { return one(i.Account) },
		"placement-group-name":                   text(func(v api.Instance) *string { return v.Placement.GroupName }),
		"placement-partition-number":             view(func(v api.Instance) []string { return partition(v) }),
		"platform":                               fixed(),
		"platform-details":                       fixed("Linux/UNIX"),
		"private-dns-name":                       text(func(v api.Instance) *string { return v.PrivateDnsName }),
		"private-dns-name-options.hostname-type": view(func(v api.Instance) []string { return hostname(v) }),
		"private-dns-name-options.enable-resource-name-dns-a-record": view(func(v api.Instance) []string {
			return resourceName(v, func(o *api.PrivateDnsNameOptionsResponse) *bool { return o.EnableResourceNameDnsARecord })
		}),
		"private-dns-name-options.enable-resource-name-dns-aaaa-record": view(func(v api.Instance) []string {
			return resourceName(v, func(o *api.PrivateDnsNameOptionsResponse) *bool { return o.EnableResourceNameDnsAAAARecord })
		}),
		"private-ip-address":          privates,
		"product-code":                fixed(),
		"product-code.type":           fixed(),
		"ramdisk-id":                  fixed(),
		"reason":                      func(i *state.Instance) []string { return one(i.TransitionReason) },
		"requester-id":                func(i *state.Instance) []string { return one(i.RequesterID) },
		"reservation-id":              func(i *state.Instance) []string { return one(i.Reservation) },
		"root-device-name":            func(i *state.Instance) []string { return one(rootDevice(r, i)) },
		"root-device-type":            fixed("ebs"),
		"source-dest-check":           view(func(v api.Instance) []string { return flag(wire.Value(v.SourceDestCheck)) }),
		"spot-instance-request-id":    func(i *state.Instance) []string { return one(i.Spot) },
		"state-reason-code":           func(i *state.Instance) []string { return one(i.StateCode) },
		"state-reason-message":        func(i *state.Instance) []string { return one(i.StateMessage) },
		"subnet-id":                   text(func(v api.Instance) *string { return v.SubnetId }),
		"tenancy":                     view(func(v api.Instance) []string { return one(string(v.Placement.Tenancy)) }),
		"tpm-support":                 fixed(),
		"usage-operation":             fixed("RunInstances"),
		"usage-operation-update-time": when(func(v api.Instance) *time.Time { return v.UsageOperationUpdateTime }),
		"virtualization-type":         fixed("hvm"),
		"vpc-id":                      text(func(v api.Instance) *string { return v.VpcId }),
	}
}

func profileID(v api.Instance) []string {
	if v.IamInstanceProfile == nil {
		return nil
	}
	return one(wire.Value(v.IamInstanceProfile.Id))
}

func partition(v api.Instance) []string {
	if v.Placement.PartitionNumber == nil {
		return nil
	}
	return number(int(*v.Placement.PartitionNumber))
}

func hostname(v api.Instance) []string {
	if v.PrivateDnsNameOptions == nil {
		return nil
	}
	return one(string(v.PrivateDnsNameOptions.HostnameType))
}

func resourceName(v api.Instance, of func(*api.PrivateDnsNameOptionsResponse) *bool) []string {
	if v.PrivateDnsNameOptions == nil {
		return nil
	}
	return flag(wire.Value(of(v.PrivateDnsNameOptions)))
}

func associationText(a *api.InstanceNetworkInterfaceAssociation, owner bool) []string {
	switch {
	case a == nil:
		return nil
	case owner:
		return one(wire.Value(a.IpOwnerId))
	}
	return one(wire.Value(a.PublicIp))
}
