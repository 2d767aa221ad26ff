package ecs

import (
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Limits of an awsvpcConfiguration.
const (
	maxSubnets        = 16
	maxSecurityGroups = 5
)

// checkNetwork validates the network configuration of a new task or service
// against its definition and against the subnets and groups that exist.
func checkNetwork(r store.Reader, account string, d *api.TaskDefinition, launch string, n *api.NetworkConfiguration) (*api.AwsVpcConfiguration, error) {
	given := n != nil && n.AwsvpcConfiguration != nil
	switch {
	case d.NetworkMode == api.NetworkModeAwsvpc && !given:
		return nil, invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
	case d.NetworkMode != api.NetworkModeAwsvpc && given:
		return nil, invalid("Network Configuration is not valid for the given networkMode of this task definition.")
	case !given:
		return nil, nil
	}
	v := n.AwsvpcConfiguration
	switch {
	case len(v.Subnets) == 0:
		return nil, invalid("subnets can not be empty.")
	case len(v.Subnets) > maxSubnets:
		return nil, invalid("subnets can have at most %d items.", maxSubnets)
	case len(v.SecurityGroups) > maxSecurityGroups:
		return nil, invalid("securityGroups can have at most %d items.", maxSecurityGroups)
	case launch != string(api.LaunchTypeFargate) && v.AssignPublicIp == api.AssignPublicIpEnabled:
		return nil, invalid("Assign public IP is not supported for this launch type.")
	}
	if err := checkSubnets(r, account, v.Subnets, v.SecurityGroups); err != nil {
		return nil, err
	}
	return v, nil
}

// checkSubnets finds subnets and security groups, which must be of one VPC.
func checkSubnets(r store.Reader, account string, subnets, groups []string) error {
	vpc := ""
	for _, id := range subnets {
		s, ok := state.Subnets.Get(r, id)
		if !ok || s.Account != account {
			return invalid("Error retrieving subnet information for [%s]: The subnet ID '%s' does not exist (ErrorCode: InvalidSubnetID.NotFound)", id, id)
		}
		if vpc != "" && s.VPC != vpc {
			return invalid("All subnets must belong to the same VPC.")
		}
		vpc = s.VPC
	}
	for _, id := range groups {
		g, ok := state.SecurityGroups.Get(r, id)
		if !ok || g.Account != account {
			return invalid("Error retrieving security group information for [%s]: The security group '%s' does not exist (ErrorCode: InvalidGroup.NotFound)", id, id)
		}
		if g.VPC != vpc {
			return invalid("The security groups and the subnets must belong to the same VPC.")
		}
	}
	return nil
}

// storedNetwork is a service's network configuration with AWS's defaults filled in.
func storedNetwork(n *api.NetworkConfiguration) *api.NetworkConfiguration {
	if n == nil || n.AwsvpcConfiguration == nil {
		return nil
	}
	v := *n.AwsvpcConfiguration
	v.SecurityGroups = list(v.SecurityGroups)
	if v.AssignPublicIp == "" {
		v.AssignPublicIp = api.AssignPublicIpDisabled
	}
	return &api.NetworkConfiguration{AwsvpcConfiguration: &v}
}
