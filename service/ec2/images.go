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

func noImage(id string) error {
	if !strings.HasPrefix(id, "ami-") {
		return bad("InvalidAMIID.Malformed", "Invalid id: \"%s\" (expecting \"ami-...\")", id)
	}
	return bad("InvalidAMIID.NotFound", "The image id '[%s]' does not exist", id)
}

// image is an image that the account may see.
func image(r store.Reader, account, id string) (*state.MachineImage, error) {
	i, ok := state.ImageOf(r, id)
	if !ok || !i.For(account) {
		return nil, noImage(id)
	}
	return i, nil
}

// agentTag on an image that is registered says that an ECS agent runs beside
// its instances, as it does beside those of Amazon's ECS-optimized ones.
const agentTag = "berth:ecs-agent"

// RegisterImage makes an AMI of an OCI image in the region's registry, which
// ImageLocation names: <account>.dkr.ecr.<region>.amazonaws.com/repository, and
// a tag or digest. The AMI keeps to the digest that is there now. The tag
// berth:ecs-agent=true makes it one beside whose instances an ECS agent runs.
func (e *EC2) RegisterImage(ctx context.Context, in *api.RegisterImageInput) (*api.RegisterImageOutput, error) {
	account := e.Account(ctx)
	if err := imageName(in.Name); err != nil {
		return nil, err
	}
	tags, err := tagsFor("image", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	if wire.Value(in.ImageLocation) == "" {
		return nil, bad("UnsupportedOperation", "Images are not made of snapshots here. ImageLocation must name an image in this region's registry.")
	}
	i := &state.MachineImage{ID: e.id("ami"), Account: account, Name: *in.Name, Description: wire.Value(in.Description), Location: *in.ImageLocation,
		Architecture: "x86_64", RootDevice: wire.Value(in.RootDeviceName), IMDS: string(in.ImdsSupport), BootMode: string(in.BootMode),
		Tags: tags, CreatedAt: e.Now()}
	if in.Architecture != "" {
		i.Architecture = string(in.Architecture)
	}
	if i.Architecture != "x86_64" && i.Architecture != "arm64" {
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter architecture is invalid. Here it is x86_64 or arm64.", i.Architecture)
	}
	if i.RootDevice == "" {
		i.RootDevice = "/dev/xvda"
	}
	i.ECS = slices.Contains(tags, state.Tag{Key: agentTag, Value: "true"})
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		root, err := e.root(tx, account, i.Location)
		if err != nil {
			return err
		}
		if err := imageFits(tx, account, i.Name); err != nil {
			return err
		}
		next := *i
		next.Root = root
		state.MachineImages.Put(tx, &next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.RegisterImageOutput{ImageId: new(i.ID)}, nil
}

func imageName(name *string) error {
	n := wire.Value(name)
	if n == "" {
		return bad("MissingParameter", "The request must contain the parameter Name")
	}
	if len(n) < 3 || len(n) > 128 || strings.ContainsFunc(n, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("()[] ./-'@_", c)
	}) {
		return bad("InvalidAMIName.Malformed", "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '.', '-', '/' and '_'")
	}
	return nil
}

func imageFits(tx *store.Tx, account, name string) error {
	n := 0
	for other := range state.MachineImages.By(tx, "account", account) {
		if n++; other.Name == name {
			return bad("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", name, other.ID)
		}
	}
	if n >= state.Limit(tx, account, "ec2/images") {
		return bad("AMIQuotaExceeded", "The maximum number of AMIs has been reached.")
	}
	return nil
}

// location are the parts of an image's place in a registry.
type location struct{ account, region, repository, tag, digest string }

// parseLocation reads the reference of an image in a registry of ECR's.
func parseLocation(s string) (l location, ok bool) {
	host, rest, ok := strings.Cut(s, "/")
	name, _, _ := strings.Cut(host, ":")
	parts := strings.Split(name, ".")
	if !ok || len(parts) < 5 || !state.IsAccountID(parts[0]) || parts[1] != "dkr" || parts[2] != "ecr" || rest == "" {
		return l, false
	}
	l.account, l.region = parts[0], parts[3]
	rest, l.digest, _ = strings.Cut(rest, "@")
	l.repository, l.tag, _ = strings.Cut(rest, ":")
	if l.tag == "" {
		l.tag = "latest"
	}
	return l, l.repository != "" && (l.digest == "" || strings.HasPrefix(l.digest, "sha256:"))
}

// root is the reference, by digest, of the image that a location names.
func (e *EC2) root(r store.Reader, account, where string) (string, error) {
	l, ok := parseLocation(where)
	if !ok {
		return "", bad("InvalidAMIAttributeItemValue", "Invalid attribute item value \"%s\" for imageLocation: it must be an image in this region's registry, <account>.dkr.ecr.%s.amazonaws.com/repository:tag.", where, e.Region)
	}
	absent := bad("InvalidManifest", "There is no image '%s' in the registry of account %s in %s.", where, account, e.Region)
	if l.account != account || l.region != e.Region {
		return "", absent
	}
	repository := state.RepositoryKey(l.account, l.repository)
	if l.digest == "" {
		t, ok := state.ImageTags.Get(r, state.ImageTagKey(repository, l.tag))
		if !ok {
			return "", absent
		}
		l.digest = t.Digest
	}
	i, ok := state.Images.Get(r, state.ImageKey(repository, l.digest))
	if !ok || i.Archived() {
		return "", absent
	}
	return state.RootImage(l.account, l.region, l.repository, l.digest), nil
}

// CopyImage makes an image of its own of one that the account may launch.
func (e *EC2) CopyImage(ctx context.Context, in *api.CopyImageInput) (*api.CopyImageOutput, error) {
	account := e.Account(ctx)
	if err := imageName(in.Name); err != nil {
		return nil, err
	}
	switch {
	case wire.Value(in.SourceRegion) == "":
		return nil, bad("MissingParameter", "The request must contain the parameter SourceRegion")
	case *in.SourceRegion != e.Region:
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter sourceRegion is invalid. There is only the region %s.", *in.SourceRegion, e.Region)
	case wire.Value(in.Encrypted) || in.KmsKeyId != nil:
		return nil, bad("UnsupportedOperation", "Roots of instances are not encrypted here.")
	}
	tags, err := tagsFor("image", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	id := e.id("ami")
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		from, err := image(tx, account, wire.Value(in.SourceImageId))
		if err != nil {
			return err
		}
		if err := imageFits(tx, account, *in.Name); err != nil {
			return err
		}
		next := *from
		next.ID, next.Account, next.Name, next.Source, next.CreatedAt = id, account, *in.Name, from.ID, e.Now()
		next.Public, next.Shared, next.Tags = false, nil, tags
		next.Location = account + "/" + *in.Name
		if in.Description != nil {
			next.Description = *in.Description
		}
		if wire.Value(in.CopyImageTags) && from.Account == account {
			for _, t := range from.Tags {
				if !slices.ContainsFunc(next.Tags, func(have state.Tag) bool { return have.Key == t.Key }) {
					next.Tags = setTag(next.Tags, t.Key, t.Value)
				}
			}
		}
		state.MachineImages.Put(tx, &next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CopyImageOutput{ImageId: new(id)}, nil
}

// CreateImage is refused: an instance's root stays on its node.
func (e *EC2) CreateImage(context.Context, *api.CreateImageInput) (*api.CreateImageOutput, error) {
	return nil, bad("UnsupportedOperation", "Images are not made of instances here. Build an OCI image, push it to this region's registry, and register it with RegisterImage.")
}

// DeregisterImage removes an image; its instances run on.
func (e *EC2) DeregisterImage(ctx context.Context, in *api.DeregisterImageInput) (*api.DeregisterImageOutput, error) {
	return &api.DeregisterImageOutput{Return: new(true)}, e.DB.Update(ctx, func(tx *store.Tx) error {
		i, err := e.ownImage(tx, ctx, wire.Value(in.ImageId))
		if err != nil {
			return err
		}
		state.MachineImages.Delete(tx, i.ID)
		return nil
	})
}

// ownImage is an image of the caller's, which it may change.
func (e *EC2) ownImage(r store.Reader, ctx context.Context, id string) (*state.MachineImage, error) {
	i, err := image(r, e.Account(ctx), id)
	if err != nil {
		return nil, err
	}
	if i.Account != e.Account(ctx) {
		return nil, bad("AuthFailure", "Not authorized for image:%s", id)
	}
	return i, nil
}

// DescribeImages lists the images that the account may see.
func (e *EC2) DescribeImages(ctx context.Context, in *api.DescribeImagesInput) (*api.DescribeImagesOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	rows := slices.Clone(state.AmazonImages(e.Region))
	for i := range state.MachineImages.All(snap) {
		if i.For(account) {
			rows = append(rows, i)
		}
	}
	rows = slices.DeleteFunc(rows, func(i *state.MachineImage) bool {
		owned := len(in.Owners) == 0 || slices.ContainsFunc(in.Owners, func(o string) bool {
			return o == imageOwner(i) || o == "self" && i.Account == account || o == "amazon" && i.Account == ""
		})
		executable := len(in.ExecutableUsers) == 0 || slices.ContainsFunc(in.ExecutableUsers, func(u string) bool {
			return u == "all" && i.Public || u == "self" && slices.Contains(i.Shared, account) || slices.Contains(i.Shared, u)
		})
		hidden := !i.Deprecated.IsZero() && i.Deprecated.Before(e.Now()) && !wire.Value(in.IncludeDeprecated) && i.Account != account
		return !owned || !executable || hidden
	})
	slices.SortFunc(rows, func(a, b *state.MachineImage) int { return strings.Compare(a.ID, b.ID) })
	mapped := func(of func(api.BlockDeviceMapping) []string) func(*state.MachineImage) []string {
		return func(i *state.MachineImage) []string { return each(imageMappings(i), of) }
	}
	fixed := func(v string) func(*state.MachineImage) []string {
		return func(*state.MachineImage) []string { return one(v) }
	}
	out, next, err := list(request{in.ImageIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.MachineImage, api.Image]{
		name: "images", rows: slices.Values(rows),
		id:      func(i *state.MachineImage) string { return i.ID },
		missing: noImage,
		tags: func(i *state.MachineImage) []state.Tag {
			if i.Account != account {
				return nil // tags are their owner's
			}
			return i.Tags
		},
		filters: filters[*state.MachineImage]{
			"architecture": func(i *state.MachineImage) []string { return one(i.Architecture) },
			"block-device-mapping.delete-on-termination": fixed("true"),
			"block-device-mapping.device-name":           mapped(func(m api.BlockDeviceMapping) []string { return one(wire.Value(m.DeviceName)) }),
			"block-device-mapping.snapshot-id":           fixed(""),
			"block-device-mapping.volume-size":           mapped(func(m api.BlockDeviceMapping) []string { return number(int(*m.Ebs.VolumeSize)) }),
			"block-device-mapping.volume-type":           mapped(func(m api.BlockDeviceMapping) []string { return one(string(m.Ebs.VolumeType)) }),
			"block-device-mapping.encrypted":             fixed("false"),
			"creation-date":                              func(i *state.MachineImage) []string { return instant(i.CreatedAt) },
			"description":                                func(i *state.MachineImage) []string { return one(i.Description) },
			"ena-support":                                fixed("true"),
			"free-tier-eligible":                         fixed("false"),
			"hypervisor":                                 fixed("xen"),
			"image-allowed":                              fixed("true"),
			"image-id":                                   func(i *state.MachineImage) []string { return one(i.ID) },
			"image-type":                                 fixed("machine"),
			"imds-support":                               func(i *state.MachineImage) []string { return one(i.IMDS) },
			"is-public":                                  func(i *state.MachineImage) []string { return flag(i.Public) },
			"kernel-id":                                  fixed(""),
			"manifest-location":                          func(i *state.MachineImage) []string { return one(i.Location) },
			"name":                                       func(i *state.MachineImage) []string { return one(i.Name) },
			"owner-alias": func(i *state.MachineImage) []string {
				if i.Account == "" {
					return one("amazon")
				}
				return nil
			},
			"owner-id":             func(i *state.MachineImage) []string { return one(imageOwner(i)) },
			"platform":             fixed(""),
			"product-code":         fixed(""),
			"product-code.type":    fixed(""),
			"ramdisk-id":           fixed(""),
			"root-device-name":     func(i *state.MachineImage) []string { return one(i.RootDevice) },
			"root-device-type":     fixed("ebs"),
			"source-image-id":      func(i *state.MachineImage) []string { return one(i.Source) },
			"source-image-region":  func(i *state.MachineImage) []string { return one(sourceRegion(i, e.Region)) },
			"source-instance-id":   fixed(""),
			"state":                fixed("available"),
			"state-reason-code":    fixed(""),
			"state-reason-message": fixed(""),
			"sriov-net-support":    fixed("simple"),
			"virtualization-type":  fixed("hvm"),
		},
		view: func(i *state.MachineImage) api.Image { return e.imageView(i, account) },
	})
	return &api.DescribeImagesOutput{Images: out, NextToken: next}, err
}

func imageOwner(i *state.MachineImage) string {
	if i.Account == "" {
		return state.AmazonAccount
	}
	return i.Account
}

func sourceRegion(i *state.MachineImage, region string) string {
	if i.Source == "" {
		return ""
	}
	return region
}

// rootSize is the size in GiB that the root of an image is shown with.
func rootSize(i *state.MachineImage) int32 {
	if i.ECS {
		return 30
	}
	return 8
}

func imageMappings(i *state.MachineImage) []api.BlockDeviceMapping {
	return []api.BlockDeviceMapping{{DeviceName: new(i.RootDevice), Ebs: &api.EbsBlockDevice{DeleteOnTermination: new(true), VolumeSize: new(rootSize(i)),
		VolumeType: "gp3", Iops: new(int32(3000)), Throughput: new(int32(125)), Encrypted: new(false)}}}
}

func (e *EC2) imageView(i *state.MachineImage, account string) api.Image {
	out := api.Image{ImageId: new(i.ID), Name: new(i.Name), Description: optional(i.Description), ImageLocation: new(i.Location), OwnerId: new(imageOwner(i)),
		Architecture: api.ArchitectureValues(i.Architecture), State: "available", Public: new(i.Public), ImageType: "machine", CreationDate: new(instant(i.CreatedAt)[0]),
		PlatformDetails: new("Linux/UNIX"), UsageOperation: new("RunInstances"), EnaSupport: new(true), Hypervisor: "xen", VirtualizationType: "hvm",
		RootDeviceName: new(i.RootDevice), RootDeviceType: "ebs", SriovNetSupport: new("simple"), BlockDeviceMappings: imageMappings(i),
		BootMode: api.BootModeValues(i.BootMode), ImdsSupport: api.ImdsSupportValues(i.IMDS), SourceImageId: optional(i.Source), SourceImageRegion: optional(sourceRegion(i, e.Region))}
	if i.Account == "" {
		out.ImageOwnerAlias = new("amazon")
	}
	if !i.Deprecated.IsZero() {
		out.DeprecationTime = new(instant(i.Deprecated)[0])
	}
	if i.Account == account {
		out.Tags = tagsView(i.Tags)
		out.DeregistrationProtection = new("disabled")
	}
	return out
}

// DescribeImageAttribute answers one attribute of an image of the caller's, or
// one of those that everyone may see.
func (e *EC2) DescribeImageAttribute(ctx context.Context, in *api.DescribeImageAttributeInput) (*api.DescribeImageAttributeOutput, error) {
	i, err := e.ownImage(e.DB.Snapshot(), ctx, wire.Value(in.ImageId))
	if err != nil {
		return nil, err
	}
	out := &api.DescribeImageAttributeOutput{ImageId: new(i.ID)}
	value := func(v string) *api.AttributeValue { return &api.AttributeValue{Value: optional(v)} }
	switch in.Attribute {
	case "description":
		out.Description = value(i.Description)
	case "launchPermission":
		out.LaunchPermissions = []api.LaunchPermission{}
		if i.Public {
			out.LaunchPermissions = append(out.LaunchPermissions, api.LaunchPermission{Group: "all"})
		}
		for _, a := range i.Shared {
			out.LaunchPermissions = append(out.LaunchPermissions, api.LaunchPermission{UserId: new(a)})
		}
	case "blockDeviceMapping":
		out.BlockDeviceMappings = imageMappings(i)
	case "productCodes":
		out.ProductCodes = []api.ProductCode{}
	case "kernel":
		out.KernelId = value("")
	case "ramdisk":
		out.RamdiskId = value("")
	case "sriovNetSupport":
		out.SriovNetSupport = value("simple")
	case "bootMode":
		out.BootMode = value(i.BootMode)
	case "tpmSupport":
		out.TpmSupport = value("")
	case "uefiData":
		out.UefiData = value("")
	case "lastLaunchedTime":
		out.LastLaunchedTime = value("")
	case "imdsSupport":
		out.ImdsSupport = value(i.IMDS)
	case "deregistrationProtection":
		out.DeregistrationProtection = value("disabled")
	default:
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. Unknown image attribute.", in.Attribute)
	}
	return out, nil
}

// ModifyImageAttribute changes the description or the launch permissions of an image.
func (e *EC2) ModifyImageAttribute(ctx context.Context, in *api.ModifyImageAttributeInput) (*api.ModifyImageAttributeOutput, error) {
	var add, remove []api.LaunchPermission
	permissions := false
	switch attribute := wire.Value(in.Attribute); {
	case len(in.OrganizationArns)+len(in.OrganizationalUnitArns) > 0:
		return nil, bad("UnsupportedOperation", "Images are not shared with organizations here.")
	case in.LaunchPermission != nil:
		add, remove, permissions = in.LaunchPermission.Add, in.LaunchPermission.Remove, true
	case attribute == "launchPermission" || len(in.UserIds)+len(in.UserGroups) > 0:
		permissions = true
		var all []api.LaunchPermission
		for _, u := range in.UserIds {
			all = append(all, api.LaunchPermission{UserId: new(u)})
		}
		for _, g := range in.UserGroups {
			all = append(all, api.LaunchPermission{Group: api.PermissionGroup(g)})
		}
		switch in.OperationType {
		case "add":
			add = all
		case "remove":
			remove = all
		default:
			return nil, bad("InvalidParameterCombination", "The parameter OperationType must be specified.")
		}
	case in.Description == nil && in.ImdsSupport == nil && attribute != "description" && attribute != "imdsSupport":
		return nil, bad("InvalidParameterCombination", "No attributes specified.")
	}
	for _, p := range slices.Concat(add, remove) {
		switch {
		case p.OrganizationArn != nil || p.OrganizationalUnitArn != nil:
			return nil, bad("UnsupportedOperation", "Images are not shared with organizations here.")
		case p.Group == "" && !state.IsAccountID(wire.Value(p.UserId)):
			return nil, bad("InvalidAMIAttributeItemValue", "Invalid attribute item value \"%s\" for userId item type.", wire.Value(p.UserId))
		case p.Group != "" && p.Group != "all":
			return nil, bad("InvalidAMIAttributeItemValue", "Invalid attribute item value \"%s\" for userGroup item type.", p.Group)
		}
	}
	return &api.ModifyImageAttributeOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		i, err := e.ownImage(tx, ctx, wire.Value(in.ImageId))
		if err != nil {
			return err
		}
		next := *i
		next.Shared = slices.Clone(i.Shared)
		for _, p := range add {
			if p.Group == "all" {
				next.Public = true
			} else if !slices.Contains(next.Shared, *p.UserId) {
				next.Shared = append(next.Shared, *p.UserId)
			}
		}
		for _, p := range remove {
			if p.Group == "all" {
				next.Public = false
			} else {
				next.Shared = slices.DeleteFunc(next.Shared, func(a string) bool { return a == *p.UserId })
			}
		}
		if !permissions {
			if in.Description != nil {
				next.Description = wire.Value(in.Description.Value)
			}
			if in.ImdsSupport != nil {
				next.IMDS = wire.Value(in.ImdsSupport.Value)
			}
			switch wire.Value(in.Attribute) {
			case "description":
				next.Description = wire.Value(in.Value)
			case "imdsSupport":
				next.IMDS = wire.Value(in.Value)
			}
			if next.IMDS != "" && next.IMDS != "v2.0" {
				return bad("InvalidParameterValue", "Value (%s) for parameter imdsSupport is invalid.", next.IMDS)
			}
		}
		state.MachineImages.Put(tx, &next)
		return nil
	})
}

// ResetImageAttribute takes all launch permissions away.
func (e *EC2) ResetImageAttribute(ctx context.Context, in *api.ResetImageAttributeInput) (*api.ResetImageAttributeOutput, error) {
	if in.Attribute != "launchPermission" {
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. Only launchPermission can be reset.", in.Attribute)
	}
	return &api.ResetImageAttributeOutput{}, e.DB.Update(ctx, func(tx *store.Tx) error {
		i, err := e.ownImage(tx, ctx, wire.Value(in.ImageId))
		if err != nil {
			return err
		}
		next := *i
		next.Public, next.Shared = false, nil
		state.MachineImages.Put(tx, &next)
		return nil
	})
}
