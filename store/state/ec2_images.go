package state

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth/store"
)

// AmazonAccount is the owner that Amazon's own AMIs show.
const AmazonAccount = "591542846629"

// ImageAgentVersion is the version of the ECS agent in Berth's own images.
const ImageAgentVersion = "1.105.1"

// A variant is one of Amazon's AMIs. What AWS builds several images for is one
// root here: Berth's own, made of the machine's programs.
type variant struct {
	path   string // of the parameter below /aws/service/
	name   string // of the image
	os     string
	source string // name of the image that it would be made of
	arch   string
	ecs    bool
	imds   string // v2.0 where AWS demands tokens
	dated  bool   // ECS's: there is a parameter by the image's name, too
}

const ecsImages = "ecs/optimized-ami/"

var variants = []variant{
	{path: ecsImages + "amazon-linux-2023/recommended", name: "al2023-ami-ecs-hvm-2023.0.20260112-kernel-6.1-x86_64", os: "Amazon Linux 2023", source: "al2023-ami-minimal-2023.10.20260105.0-kernel-6.1-x86_64", arch: "x86_64", ecs: true, imds: "v2.0", dated: true},
	{path: ecsImages + "amazon-linux-2023/arm64/recommended", name: "al2023-ami-ecs-hvm-2023.0.20260112-kernel-6.1-arm64", os: "Amazon Linux 2023 (arm64)", source: "al2023-ami-minimal-2023.10.20260105.0-kernel-6.1-arm64", arch: "arm64", ecs: true, imds: "v2.0", dated: true},
	{path: ecsImages + "amazon-linux-2023/gpu/recommended", name: "al2023-ami-ecs-gpu-hvm-2023.0.20260112-kernel-6.1-x86_64-ebs", os: "Amazon Linux 2023 (GPU)", source: "al2023-ami-minimal-2023.10.20260105.0-kernel-6.1-x86_64", arch: "x86_64", ecs: true, imds: "v2.0", dated: true},
	{path: ecsImages + "amazon-linux-2023/neuron/recommended", name: "al2023-ami-ecs-neuron-hvm-2023.0.20260112-kernel-6.1-x86_64", os: "Amazon Linux 2023 (Neuron)", source: "al2023-ami-minimal-2023.10.20260105.0-kernel-6.1-x86_64", arch: "x86_64", ecs: true, imds: "v2.0", dated: true},
	{path: ecsImages + "amazon-linux-2023/inf/recommended", name: "al2023-ami-ecs-inf-hvm-2023.0.20260112-kernel-6.1-x86_64", os: "Amazon Linux 2023 (Inferentia)", source: "al2023-ami-minimal-2023.10.20260105.0-kernel-6.1-x86_64", arch: "x86_64", ecs: true, imds: "v2.0", dated: true},
	{path: ecsImages + "amazon-linux-2/recommended", name: "amzn2-ami-ecs-hvm-2.0.20260112-x86_64-ebs", os: "Amazon Linux 2", source: "amzn2-ami-minimal-hvm-2.0.20260105.0-x86_64-ebs", arch: "x86_64", ecs: true, dated: true},
	{path: ecsImages + "amazon-linux-2/arm64/recommended", name: "amzn2-ami-ecs-hvm-2.0.20260112-arm64-ebs", os: "Amazon Linux 2 (arm64)", source: "amzn2-ami-minimal-hvm-2.0.20260105.0-arm64-ebs", arch: "arm64", ecs: true, dated: true},
	{path: ecsImages + "amazon-linux-2/gpu/recommended", name: "amzn2-ami-ecs-gpu-hvm-2.0.20260112-x86_64-ebs", os: "Amazon Linux 2 (GPU)", source: "amzn2-ami-minimal-hvm-2.0.20260105.0-x86_64-ebs", arch: "x86_64", ecs: true, dated: true},
	{path: ecsImages + "amazon-linux-2/inf/recommended", name: "amzn2-ami-ecs-inf-hvm-2.0.20260112-x86_64-ebs", os: "Amazon Linux 2 (Inferentia)", source: "amzn2-ami-minimal-hvm-2.0.20260105.0-x86_64-ebs", arch: "x86_64", ecs: true, dated: true},
	{path: ecsImages + "amazon-linux-2/kernel-5.10/recommended", name: "amzn2-ami-ecs-kernel-5.10-hvm-2.0.20260112-x86_64-ebs", os: "Amazon Linux 2", source: "amzn2-ami-minimal-hvm-2.0.20260105.0-x86_64-ebs", arch: "x86_64", ecs: true, dated: true},
	{path: ecsImages + "amazon-linux-2/kernel-5.10/arm64/recommended", name: "amzn2-ami-ecs-kernel-5.10-hvm-2.0.20260112-arm64-ebs", os: "Amazon Linux 2 (arm64)", source: "amzn2-ami-minimal-hvm-2.0.20260105.0-arm64-ebs", arch: "arm64", ecs: true, dated: true},
	{path: ecsImages + "amazon-linux/recommended", name: "amzn-ami-2018.03.20231218-amazon-ecs-optimized", os: "Amazon Linux", source: "amzn-ami-minimal-hvm-2018.03.0.20231218.0-x86_64-ebs", arch: "x86_64", ecs: true, dated: true},

	{path: "ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64", name: "al2023-ami-2023.10.20260105.0-kernel-6.1-x86_64", os: "Amazon Linux 2023", arch: "x86_64", imds: "v2.0"},
	{path: "ami-amazon-linux-latest/al2023-ami-kernel-default-arm64", name: "al2023-ami-2023.10.20260105.0-kernel-6.1-arm64", os: "Amazon Linux 2023", arch: "arm64", imds: "v2.0"},
	{path: "ami-amazon-linux-latest/al2023-ami-minimal-kernel-default-x86_64", name: "al2023-ami-minimal-2023.10.20260105.0-kernel-6.1-x86_64", os: "Amazon Linux 2023", arch: "x86_64", imds: "v2.0"},
	{path: "ami-amazon-linux-latest/amzn2-ami-hvm-x86_64-gp2", name: "amzn2-ami-hvm-2.0.20260105.0-x86_64-gp2", os: "Amazon Linux 2", arch: "x86_64"},
	{path: "ami-amazon-linux-latest/amzn2-ami-hvm-arm64-gp2", name: "amzn2-ami-hvm-2.0.20260105.0-arm64-gp2", os: "Amazon Linux 2", arch: "arm64"},
	{path: "ami-amazon-linux-latest/amzn2-ami-kernel-5.10-hvm-x86_64-gp2", name: "amzn2-ami-kernel-5.10-hvm-2.0.20260105.0-x86_64-gp2", os: "Amazon Linux 2", arch: "x86_64"},
	{path: "ami-amazon-linux-latest/amzn2-ami-kernel-5.10-hvm-arm64-gp2", name: "amzn2-ami-kernel-5.10-hvm-2.0.20260105.0-arm64-gp2", os: "Amazon Linux 2", arch: "arm64"},
}

// ImagesSince is when Amazon's images here were made.
var ImagesSince = time.Date(2026, 1, 12, 18, 0, 0, 0, time.UTC)

// PublicParameter is a parameter that every account may read.
type PublicParameter struct {
	Name     string // /aws/service/…
	Value    string
	DataType string // text, aws:ec2:image
}

type catalogue struct {
	images     []*MachineImage // by id
	parameters []PublicParameter
}

var catalogues sync.Map // by region

func amazon(region string) *catalogue {
	if c, ok := catalogues.Load(region); ok {
		return c.(*catalogue)
	}
	c := &catalogue{}
	for _, v := range variants {
		sum := sha256.Sum256([]byte(region + "/" + v.name))
		i := &MachineImage{ID: "ami-0" + hex.EncodeToString(sum[:])[:16], Name: v.name, Architecture: v.arch, ECS: v.ecs, Public: true,
			Location: "amazon/" + v.name, OS: v.os, RootDevice: "/dev/xvda", IMDS: v.imds, BootMode: "uefi-preferred", CreatedAt: ImagesSince}
		if v.arch == "arm64" {
			i.BootMode = "uefi"
		}
		i.Description = v.os + " AMI; its root is Berth's own, made of the machine's programs"
		if v.ecs {
			i.Description = v.os + " ECS-optimized AMI; its root is Berth's own, made of the machine's programs"
		}
		c.images = append(c.images, i)
		c.parameters = append(c.parameters, v.parameters(i)...)
	}
	slices.SortFunc(c.images, func(a, b *MachineImage) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(c.parameters, func(a, b PublicParameter) int { return strings.Compare(a.Name, b.Name) })
	had, _ := catalogues.LoadOrStore(region, c)
	return had.(*catalogue)
}

func (v variant) parameters(i *MachineImage) (out []PublicParameter) {
	name := "/aws/service/" + v.path
	if !v.ecs {
		return []PublicParameter{{name, i.ID, "aws:ec2:image"}}
	}
	doc, _ := json.Marshal(struct { // of texts and a number: it always encodes
		Version int    `json:"schema_version"`
		Name    string `json:"image_name"`
		ID      string `json:"image_id"`
		OS      string `json:"os"`
		Runtime string `json:"ecs_runtime_version"`
		Agent   string `json:"ecs_agent_version"`
		Source  string `json:"source_image_name"`
	}{1, v.name, i.ID, v.os, "containerd", ImageAgentVersion, v.source})
	for _, base := range []string{name, strings.TrimSuffix(name, "recommended") + v.name} {
		out = append(out, PublicParameter{base, string(doc), "text"},
			PublicParameter{base + "/ecs_agent_version", ImageAgentVersion, "text"},
			PublicParameter{base + "/ecs_runtime_version", "containerd", "text"},
			PublicParameter{base + "/image_id", i.ID, "aws:ec2:image"},
			PublicParameter{base + "/image_name", v.name, "text"},
			PublicParameter{base + "/os", v.os, "text"},
			PublicParameter{base + "/schema_version", "1", "text"},
			PublicParameter{base + "/source_image_name", v.source, "text"})
	}
	return out
}

// AmazonImages are Amazon's own AMIs in a region, by id.
func AmazonImages(region string) []*MachineImage { return amazon(region).images }

// PublicParameters are the parameters of Amazon's own AMIs, by name.
func PublicParameters(region string) []PublicParameter { return amazon(region).parameters }

// PublicParameterValue is the value of one of them.
func PublicParameterValue(region, name string) (PublicParameter, bool) {
	ps := PublicParameters(region)
	i, ok := slices.BinarySearchFunc(ps, name, func(p PublicParameter, name string) int { return strings.Compare(p.Name, name) })
	if !ok {
		return PublicParameter{}, false
	}
	return ps[i], true
}

// ImageOf is the AMI of that id, Amazon's or registered here, whoever may see it.
func ImageOf(r store.Reader, id string) (*MachineImage, bool) {
	if i, ok := MachineImages.Get(r, id); ok {
		return i, true
	}
	region, ok := Regions.Get(r, RegionKey)
	if !ok {
		return nil, false
	}
	images := AmazonImages(region.Name)
	at, ok := slices.BinarySearchFunc(images, id, func(i *MachineImage, id string) int { return strings.Compare(i.ID, id) })
	if !ok {
		return nil, false
	}
	return images[at], true
}

// For reports whether an account may see and launch the image.
func (i *MachineImage) For(account string) bool {
	return i.Account == "" || i.Account == account || i.Public || slices.Contains(i.Shared, account)
}

// RootImage is the reference of a registered image's root, with its digest.
func RootImage(account, region, repository, digest string) string {
	return fmt.Sprintf("%s.dkr.ecr.%s.amazonaws.com/%s@%s", account, region, repository, digest)
}
