package ec2

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/store/state"
)

// DescribeAvailabilityZones lists the region's zones.
func (e *EC2) DescribeAvailabilityZones(_ context.Context, in *api.DescribeAvailabilityZonesInput) (*api.DescribeAvailabilityZonesOutput, error) {
	region, _ := state.Regions.Get(e.DB.Snapshot(), state.RegionKey)
	var zones []state.Zone
	if region != nil {
		zones = region.Zones
	}
	q := request{ids: in.ZoneNames, filters: in.Filters}
	for _, id := range in.ZoneIds {
		i := slices.IndexFunc(zones, func(z state.Zone) bool { return z.ID == id })
		if i < 0 {
			return nil, bad("InvalidParameterValue", "Invalid availability zone-id: [%s]", id)
		}
		q.ids = append(q.ids, zones[i].Name)
	}
	out, _, err := list(q, kind[state.Zone, api.AvailabilityZone]{
		name: "zones", rows: slices.Values(zones),
		id:      func(z state.Zone) string { return z.Name },
		missing: func(id string) error { return bad("InvalidParameterValue", "Invalid availability zone: [%s]", id) },
		field: func(z state.Zone, name string) ([]string, bool) {
			switch name {
			case "zone-name":
				return one(z.Name), true
			case "zone-id":
				return one(z.ID), true
			case "region-name", "group-name", "network-border-group":
				return one(e.Region), true
			case "state":
				return one("available"), true
			case "zone-type":
				return one("availability-zone"), true
			case "opt-in-status":
				return one("opt-in-not-required"), true
			}
			return nil, false
		},
		view: func(z state.Zone) api.AvailabilityZone {
			return api.AvailabilityZone{OptInStatus: "opt-in-not-required", RegionName: new(e.Region), ZoneName: new(z.Name), ZoneId: new(z.ID),
				GroupName: new(e.Region), NetworkBorderGroup: new(e.Region), ZoneType: new("availability-zone"), State: "available"}
		},
	})
	return &api.DescribeAvailabilityZonesOutput{AvailabilityZones: out}, err
}

// DescribeRegions lists the one region there is.
func (e *EC2) DescribeRegions(_ context.Context, in *api.DescribeRegionsInput) (*api.DescribeRegionsOutput, error) {
	out, _, err := list(request{ids: in.RegionNames, filters: in.Filters}, kind[string, api.Region]{
		name: "regions", rows: slices.Values([]string{e.Region}),
		id:      func(r string) string { return r },
		missing: func(id string) error { return bad("InvalidParameterValue", "Invalid region name: [%s]", id) },
		field: func(r, name string) ([]string, bool) {
			switch name {
			case "region-name":
				return one(r), true
			case "endpoint":
				return one("ec2." + r + ".amazonaws.com"), true
			case "opt-in-status":
				return one("opt-in-not-required"), true
			}
			return nil, false
		},
		view: func(r string) api.Region {
			return api.Region{RegionName: new(r), Endpoint: new("ec2." + r + ".amazonaws.com"), OptInStatus: new("opt-in-not-required")}
		},
	})
	return &api.DescribeRegionsOutput{Regions: out}, err
}

// derived makes the digits of an id that follows from another.
func derived(id string, n int) string {
	_, digits, _ := strings.Cut(id, "-")
	if len(digits) < 17 {
		return digits
	}
	return digits[:16] + strconv.FormatInt(int64(n%16), 16)
}

// PublicName is the public DNS name of an address (facts: networking).
func PublicName(a netip.Addr, region string) string {
	name := "ec2-" + strings.ReplaceAll(a.String(), ".", "-")
	if region == "us-east-1" {
		return name + ".compute-1.amazonaws.com"
	}
	return name + "." + region + ".compute.amazonaws.com"
}

// DescribeAccountAttributes answers what classic tooling asks first.
func (e *EC2) DescribeAccountAttributes(ctx context.Context, in *api.DescribeAccountAttributesInput) (*api.DescribeAccountAttributesOutput, error) {
	vpc := "none"
	for v := range state.VPCs.By(e.DB.Snapshot(), "account", e.Account(ctx)) {
		if v.Default {
			vpc = v.ID
		}
	}
	out := &api.DescribeAccountAttributesOutput{AccountAttributes: []api.AccountAttribute{}}
	for _, a := range []struct{ name, value string }{
		{"supported-platforms", "VPC"}, {"default-vpc", vpc}, {"vpc-max-security-groups-per-interface", strconv.Itoa(maxGroupsPerInterface)},
	} {
		if len(in.AttributeNames) > 0 && !slices.Contains(in.AttributeNames, api.AccountAttributeName(a.name)) {
			continue
		}
		out.AccountAttributes = append(out.AccountAttributes, api.AccountAttribute{AttributeName: new(a.name), AttributeValues: []api.AccountAttributeValue{{AttributeValue: new(a.value)}}})
	}
	return out, nil
}
