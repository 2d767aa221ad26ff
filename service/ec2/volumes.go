package ec2

import (
	"context"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// A volume is the root of an instance as EC2 shows it: the writable snapshot
// that its node keeps for it. Size, type and the like are what was asked, and
// nothing enforces them; it is never encrypted.
type volume struct {
	size, iops, throughput int32
	kind                   api.VolumeType
	remove                 bool
	snapshot               string
}

func noVolume(id string) error {
	return bad("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
}

func rootDevice(r store.Reader, i *state.Instance) string {
	if m, ok := state.ImageOf(r, i.Image); ok {
		return m.RootDevice
	}
	return "/dev/xvda"
}

func rootVolume(r store.Reader, i *state.Instance) volume {
	v := volume{size: 8, kind: "gp3", remove: true}
	if m, ok := state.ImageOf(r, i.Image); ok {
		v.size = rootSize(m)
	}
	root := rootDevice(r, i)
	for _, m := range i.Options.BlockDeviceMappings {
		if wire.Value(m.DeviceName) != root || m.Ebs == nil {
			continue
		}
		if m.Ebs.VolumeSize != nil {
			v.size = *m.Ebs.VolumeSize
		}
		if m.Ebs.VolumeType != "" {
			v.kind = m.Ebs.VolumeType
		}
		v.iops, v.throughput = wire.Value(m.Ebs.Iops), wire.Value(m.Ebs.Throughput)
		v.remove = m.Ebs.DeleteOnTermination == nil || *m.Ebs.DeleteOnTermination
	}
	switch {
	case v.iops != 0:
	case v.kind == "gp3":
		v.iops = 3000
	case v.kind == "gp2":
		v.iops = min(max(3*v.size, 100), 16000)
	}
	if v.kind == "gp3" && v.throughput == 0 {
		v.throughput = 125
	}
	return v
}

// DescribeVolumes lists the roots of instances. There are no other volumes.
func (e *EC2) DescribeVolumes(ctx context.Context, in *api.DescribeVolumesInput) (*api.DescribeVolumesOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	rows := slices.SortedFunc(func(yield func(*state.Instance) bool) {
		for i := range state.Instances.By(snap, "account", account) {
			if i.State != "terminated" && i.Volume != "" && !yield(i) {
				return
			}
		}
	}, func(a, b *state.Instance) int { return strings.Compare(a.Volume, b.Volume) })
	zones := zoneIDs(snap)
	fixed := func(v ...string) func(*state.Instance) []string { return func(*state.Instance) []string { return v } }
	out, next, err := list(request{in.VolumeIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.Instance, api.Volume]{
		name: "volumes", rows: slices.Values(rows),
		id:      func(i *state.Instance) string { return i.Volume },
		missing: noVolume,
		tags:    func(i *state.Instance) []state.Tag { return i.VolumeTags },
		filters: filters[*state.Instance]{
			"attachment.attach-time":           func(i *state.Instance) []string { return instant(i.CreatedAt) },
			"attachment.delete-on-termination": func(i *state.Instance) []string { return flag(rootVolume(snap, i).remove) },
			"attachment.device":                func(i *state.Instance) []string { return one(rootDevice(snap, i)) },
			"attachment.instance-id":           func(i *state.Instance) []string { return one(i.ID) },
			"attachment.status":                fixed("attached"),
			"availability-zone":                func(i *state.Instance) []string { return one(i.Zone) },
			"availability-zone-id":             func(i *state.Instance) []string { return one(zones[i.Zone]) },
			"create-time":                      func(i *state.Instance) []string { return instant(i.CreatedAt) },
			"encrypted":                        fixed("false"),
			"fast-restored":                    fixed("false"),
			"multi-attach-enabled":             fixed("false"),
			"operator.managed":                 fixed("false"),
			"operator.principal":               fixed(),
			"size":                             func(i *state.Instance) []string { return number(int(rootVolume(snap, i).size)) },
			"snapshot-id":                      fixed(),
			"status":                           fixed("in-use"),
			"volume-id":                        func(i *state.Instance) []string { return one(i.Volume) },
			"volume-type":                      func(i *state.Instance) []string { return one(string(rootVolume(snap, i).kind)) },
		},
		view: func(i *state.Instance) api.Volume {
			v := rootVolume(snap, i)
			out := api.Volume{VolumeId: new(i.Volume), Size: new(v.size), VolumeType: v.kind, AvailabilityZone: new(i.Zone), AvailabilityZoneId: optional(zones[i.Zone]),
				State: "in-use", CreateTime: new(i.CreatedAt), Encrypted: new(false), MultiAttachEnabled: new(false), SnapshotId: new(""), Tags: tagsView(i.VolumeTags),
				Attachments: []api.VolumeAttachment{{VolumeId: new(i.Volume), InstanceId: new(i.ID), Device: new(rootDevice(snap, i)), State: "attached", AttachTime: new(i.CreatedAt), DeleteOnTermination: new(v.remove)}}}
			if v.iops > 0 {
				out.Iops = new(v.iops)
			}
			if v.throughput > 0 {
				out.Throughput = new(v.throughput)
			}
			return out
		},
	})
	return &api.DescribeVolumesOutput{Volumes: out, NextToken: next}, err
}

// GetEbsEncryptionByDefault answers no: nothing here encrypts roots.
func (e *EC2) GetEbsEncryptionByDefault(context.Context, *api.GetEbsEncryptionByDefaultInput) (*api.GetEbsEncryptionByDefaultOutput, error) {
	return &api.GetEbsEncryptionByDefaultOutput{EbsEncryptionByDefault: new(false)}, nil
}

// EnableEbsEncryptionByDefault is refused, for the same reason.
func (e *EC2) EnableEbsEncryptionByDefault(context.Context, *api.EnableEbsEncryptionByDefaultInput) (*api.EnableEbsEncryptionByDefaultOutput, error) {
	return nil, bad("UnsupportedOperation", "Roots of instances are not encrypted here.")
}

// DisableEbsEncryptionByDefault finds it disabled.
func (e *EC2) DisableEbsEncryptionByDefault(context.Context, *api.DisableEbsEncryptionByDefaultInput) (*api.DisableEbsEncryptionByDefaultOutput, error) {
	return &api.DisableEbsEncryptionByDefaultOutput{EbsEncryptionByDefault: new(false)}, nil
}
