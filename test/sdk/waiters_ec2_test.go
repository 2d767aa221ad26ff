package sdk

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// noneHere is the id of a resource of the kind that there is not.
func noneHere(kind string) string { return kind + "-00000000000000000" }

func TestEC2Waiters(t *testing.T) {
	t.Parallel()
	c := w.ec2
	one := launch(t) // for those who only look at it
	waitFor(t, "ec2", map[string]func(t *testing.T){
		"VpcAvailable": func(t *testing.T) {
			succeeds(t, ec2.NewVpcAvailableWaiter(c), &ec2.DescribeVpcsInput{})
			fails(t, ec2.NewVpcAvailableWaiter(c), &ec2.DescribeVpcsInput{VpcIds: []string{noneHere("vpc")}}, "InvalidVpcID.NotFound")
		},
		"VpcExists": func(t *testing.T) {
			succeeds(t, ec2.NewVpcExistsWaiter(c), &ec2.DescribeVpcsInput{})
			waits(t, ec2.NewVpcExistsWaiter(c), &ec2.DescribeVpcsInput{VpcIds: []string{noneHere("vpc")}})
		},
		"SubnetAvailable": func(t *testing.T) {
			succeeds(t, ec2.NewSubnetAvailableWaiter(c), &ec2.DescribeSubnetsInput{SubnetIds: w.subnets})
			fails(t, ec2.NewSubnetAvailableWaiter(c), &ec2.DescribeSubnetsInput{SubnetIds: []string{noneHere("subnet")}}, "InvalidSubnetID.NotFound")
		},
		"SecurityGroupExists": func(t *testing.T) {
			succeeds(t, ec2.NewSecurityGroupExistsWaiter(c), &ec2.DescribeSecurityGroupsInput{GroupIds: []string{w.group}})
			waits(t, ec2.NewSecurityGroupExistsWaiter(c), &ec2.DescribeSecurityGroupsInput{GroupIds: []string{noneHere("sg")}})
		},
		"InternetGatewayExists": func(t *testing.T) {
			succeeds(t, ec2.NewInternetGatewayExistsWaiter(c), &ec2.DescribeInternetGatewaysInput{})
			// The waiter knows a code that EC2 never answers, and so does not wait here.
			fails(t, ec2.NewInternetGatewayExistsWaiter(c), &ec2.DescribeInternetGatewaysInput{InternetGatewayIds: []string{noneHere("igw")}}, "InvalidInternetGatewayID.NotFound")
		},
		"NetworkInterfaceAvailable": func(t *testing.T) {
			available := ec2.NewNetworkInterfaceAvailableWaiter(c)
			made := must[*ec2.CreateNetworkInterfaceOutput](t)(c.CreateNetworkInterface(t.Context(), &ec2.CreateNetworkInterfaceInput{SubnetId: &w.subnets[0]}))
			succeeds(t, available, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{*made.NetworkInterface.NetworkInterfaceId}})
			// That of an instance is in use.
			waits(t, available, &ec2.DescribeNetworkInterfacesInput{Filters: []types.Filter{{Name: new("attachment.instance-id"), Values: []string{one}}}})
			fails(t, available, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{noneHere("eni")}}, failure)
		},
		"NatGatewayAvailable": func(t *testing.T) {
			available, ctx := ec2.NewNatGatewayAvailableWaiter(c), t.Context()
			ip := must[*ec2.AllocateAddressOutput](t)(c.AllocateAddress(ctx, &ec2.AllocateAddressInput{})).AllocationId
			id := nat(t, &ec2.CreateNatGatewayInput{SubnetId: &w.subnets[0], AllocationId: ip})
			succeeds(t, available, &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{id}})
			// Its address is taken, which EC2 says only in the gateway's state.
			second := nat(t, &ec2.CreateNatGatewayInput{SubnetId: &w.subnets[0], AllocationId: ip})
			fails(t, available, &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{second}}, failure)
			waits(t, available, &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{noneHere("nat")}})
			done(t)(c.DeleteNatGateway(ctx, &ec2.DeleteNatGatewayInput{NatGatewayId: &id}))
			fails(t, available, &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{id}}, failure)
			succeeds(t, ec2.NewNatGatewayDeletedWaiter(c), &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{id}})
			done(t)(c.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: ip})) // as it is free by now
		},
		"NatGatewayDeleted": func(t *testing.T) {
			deleted := ec2.NewNatGatewayDeletedWaiter(c)
			id := nat(t, &ec2.CreateNatGatewayInput{SubnetId: &w.subnets[0], ConnectivityType: types.ConnectivityTypePrivate})
			in := &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{id}}
			succeeds(t, ec2.NewNatGatewayAvailableWaiter(c), in)
			waits(t, deleted, in)
			done(t)(c.DeleteNatGateway(t.Context(), &ec2.DeleteNatGatewayInput{NatGatewayId: &id}))
			succeeds(t, deleted, in)
			succeeds(t, deleted, &ec2.DescribeNatGatewaysInput{NatGatewayIds: []string{noneHere("nat")}})
		},
		"VpcPeeringConnectionExists": func(t *testing.T) {
			id := peer(t, "10.31.0.0/16")
			succeeds(t, ec2.NewVpcPeeringConnectionExistsWaiter(c), &ec2.DescribeVpcPeeringConnectionsInput{VpcPeeringConnectionIds: []string{id}})
			waits(t, ec2.NewVpcPeeringConnectionExistsWaiter(c), &ec2.DescribeVpcPeeringConnectionsInput{VpcPeeringConnectionIds: []string{noneHere("pcx")}})
		},
		"VpcPeeringConnectionDeleted": func(t *testing.T) {
			deleted, id := ec2.NewVpcPeeringConnectionDeletedWaiter(c), peer(t, "10.32.0.0/16")
			in := &ec2.DescribeVpcPeeringConnectionsInput{VpcPeeringConnectionIds: []string{id}}
			waits(t, deleted, in)
			done(t)(c.DeleteVpcPeeringConnection(t.Context(), &ec2.DeleteVpcPeeringConnectionInput{VpcPeeringConnectionId: &id}))
			succeeds(t, deleted, in)
			succeeds(t, deleted, &ec2.DescribeVpcPeeringConnectionsInput{VpcPeeringConnectionIds: []string{noneHere("pcx")}})
		},
		// No group can be associated with a further VPC: there is nothing to end either.
		"SecurityGroupVpcAssociationAssociated": func(t *testing.T) {
			waits(t, ec2.NewSecurityGroupVpcAssociationAssociatedWaiter(c), &ec2.DescribeSecurityGroupVpcAssociationsInput{})
		},
		"SecurityGroupVpcAssociationDisassociated": func(t *testing.T) {
			succeeds(t, ec2.NewSecurityGroupVpcAssociationDisassociatedWaiter(c), &ec2.DescribeSecurityGroupVpcAssociationsInput{})
		},

		"KeyPairExists": func(t *testing.T) {
			meanwhile(t, ec2.NewKeyPairExistsWaiter(c), &ec2.DescribeKeyPairsInput{KeyNames: []string{"waited"}}, func(ctx context.Context) error {
				_, err := c.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: new("waited"), KeyType: types.KeyTypeEd25519})
				return err
			})
		},
		"ImageExists": func(t *testing.T) {
			succeeds(t, ec2.NewImageExistsWaiter(c), &ec2.DescribeImagesInput{ImageIds: []string{w.machine}})
			waits(t, ec2.NewImageExistsWaiter(c), &ec2.DescribeImagesInput{ImageIds: []string{noneHere("ami")}})
		},
		"ImageAvailable": func(t *testing.T) {
			succeeds(t, ec2.NewImageAvailableWaiter(c), &ec2.DescribeImagesInput{ImageIds: []string{w.machine}})
			fails(t, ec2.NewImageAvailableWaiter(c), &ec2.DescribeImagesInput{ImageIds: []string{noneHere("ami")}}, "InvalidAMIID.NotFound")
		},

		"InstanceExists": func(t *testing.T) {
			succeeds(t, ec2.NewInstanceExistsWaiter(c), &ec2.DescribeInstancesInput{InstanceIds: []string{one}})
			waits(t, ec2.NewInstanceExistsWaiter(c), &ec2.DescribeInstancesInput{InstanceIds: []string{noneHere("i")}})
		},
		"InstanceRunning": func(t *testing.T) {
			running := ec2.NewInstanceRunningWaiter(c)
			in := &ec2.DescribeInstancesInput{InstanceIds: []string{launch(t)}}
			succeeds(t, running, in)
			waits(t, running, &ec2.DescribeInstancesInput{InstanceIds: []string{noneHere("i")}})
			done(t)(c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: in.InstanceIds}))
			fails(t, running, in, failure)
		},
		"InstanceStopped": func(t *testing.T) {
			stopped := ec2.NewInstanceStoppedWaiter(c)
			in := &ec2.DescribeInstancesInput{InstanceIds: []string{launch(t)}}
			succeeds(t, ec2.NewInstanceRunningWaiter(c), in)
			waits(t, stopped, in)
			done(t)(c.StopInstances(t.Context(), &ec2.StopInstancesInput{InstanceIds: in.InstanceIds}))
			succeeds(t, stopped, in)
			done(t)(c.StartInstances(t.Context(), &ec2.StartInstancesInput{InstanceIds: in.InstanceIds}))
			succeeds(t, ec2.NewInstanceRunningWaiter(c), in)
			terminate(t, in.InstanceIds)
			fails(t, stopped, in, failure)
		},
		"InstanceTerminated": func(t *testing.T) {
			terminated := ec2.NewInstanceTerminatedWaiter(c)
			in := &ec2.DescribeInstancesInput{InstanceIds: []string{launch(t)}}
			succeeds(t, ec2.NewInstanceRunningWaiter(c), in)
			waits(t, terminated, in)
			done(t)(c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: in.InstanceIds}))
			succeeds(t, terminated, in)
		},
		"InstanceStatusOk": func(t *testing.T) {
			succeeds(t, ec2.NewInstanceStatusOkWaiter(c), &ec2.DescribeInstanceStatusInput{InstanceIds: []string{one}})
			waits(t, ec2.NewInstanceStatusOkWaiter(c), &ec2.DescribeInstanceStatusInput{InstanceIds: []string{noneHere("i")}})
		},
		"SystemStatusOk": func(t *testing.T) {
			succeeds(t, ec2.NewSystemStatusOkWaiter(c), &ec2.DescribeInstanceStatusInput{InstanceIds: []string{one}})
			fails(t, ec2.NewSystemStatusOkWaiter(c), &ec2.DescribeInstanceStatusInput{InstanceIds: []string{noneHere("i")}}, "InvalidInstanceID.NotFound")
		},
		// Instances run Linux, and have none.
		"PasswordDataAvailable": func(t *testing.T) {
			waits(t, ec2.NewPasswordDataAvailableWaiter(c), &ec2.GetPasswordDataInput{InstanceId: &one})
			fails(t, ec2.NewPasswordDataAvailableWaiter(c), &ec2.GetPasswordDataInput{InstanceId: new(noneHere("i"))}, "InvalidInstanceID.NotFound")
		},
		"SpotInstanceRequestFulfilled": func(t *testing.T) {
			fulfilled, ctx := ec2.NewSpotInstanceRequestFulfilledWaiter(c), t.Context()
			made := must[*ec2.RequestSpotInstancesOutput](t)(c.RequestSpotInstances(ctx, &ec2.RequestSpotInstancesInput{LaunchSpecification: &types.RequestSpotLaunchSpecification{
				ImageId: &w.machine, InstanceType: types.InstanceTypeT3Nano, SubnetId: &w.subnets[0]}})).SpotInstanceRequests[0]
			in := &ec2.DescribeSpotInstanceRequestsInput{SpotInstanceRequestIds: []string{*made.SpotInstanceRequestId}}
			succeeds(t, fulfilled, in)
			done(t)(c.CancelSpotInstanceRequests(ctx, &ec2.CancelSpotInstanceRequestsInput{SpotInstanceRequestIds: in.SpotInstanceRequestIds}))
			succeeds(t, fulfilled, in) // as its instance runs on
			terminate(t, []string{*made.InstanceId})
			waits(t, fulfilled, &ec2.DescribeSpotInstanceRequestsInput{SpotInstanceRequestIds: []string{noneHere("sir")}})
		},

		// The roots of instances are the only volumes, and none is ever free.
		"VolumeAvailable": func(t *testing.T) {
			waits(t, ec2.NewVolumeAvailableWaiter(c), &ec2.DescribeVolumesInput{VolumeIds: []string{volume(t, one)}})
			fails(t, ec2.NewVolumeAvailableWaiter(c), &ec2.DescribeVolumesInput{VolumeIds: []string{noneHere("vol")}}, "InvalidVolume.NotFound")
		},
		"VolumeInUse": func(t *testing.T) {
			succeeds(t, ec2.NewVolumeInUseWaiter(c), &ec2.DescribeVolumesInput{VolumeIds: []string{volume(t, one)}})
			fails(t, ec2.NewVolumeInUseWaiter(c), &ec2.DescribeVolumesInput{VolumeIds: []string{noneHere("vol")}}, "InvalidVolume.NotFound")
		},
		"VolumeDeleted": func(t *testing.T) {
			id := launch(t)
			in := &ec2.DescribeVolumesInput{VolumeIds: []string{volume(t, id)}}
			waits(t, ec2.NewVolumeDeletedWaiter(c), in)
			terminate(t, []string{id})
			succeeds(t, ec2.NewVolumeDeletedWaiter(c), in)
		},
	})
}

// launch launches an instance.
func launch(t *testing.T) string {
	t.Helper()
	return *must[*ec2.RunInstancesOutput](t)(w.ec2.RunInstances(t.Context(), &ec2.RunInstancesInput{ImageId: &w.machine, InstanceType: types.InstanceTypeT3Nano,
		MinCount: new(int32(1)), MaxCount: new(int32(1)), SubnetId: &w.subnets[0]})).Instances[0].InstanceId
}

// volume is the root of an instance.
func volume(t *testing.T, instance string) string {
	t.Helper()
	found := must[*ec2.DescribeVolumesOutput](t)(w.ec2.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{Filters: []types.Filter{{Name: new("attachment.instance-id"), Values: []string{instance}}}}))
	if len(found.Volumes) != 1 {
		t.Fatalf("%s has %d volumes", instance, len(found.Volumes))
	}
	return *found.Volumes[0].VolumeId
}

func nat(t *testing.T, in *ec2.CreateNatGatewayInput) string {
	t.Helper()
	return *must[*ec2.CreateNatGatewayOutput](t)(w.ec2.CreateNatGateway(t.Context(), in)).NatGateway.NatGatewayId
}

// peer asks for the peering of a new VPC with the default one.
func peer(t *testing.T, cidr string) string {
	t.Helper()
	v := must[*ec2.CreateVpcOutput](t)(w.ec2.CreateVpc(t.Context(), &ec2.CreateVpcInput{CidrBlock: &cidr})).Vpc.VpcId
	return *must[*ec2.CreateVpcPeeringConnectionOutput](t)(w.ec2.CreateVpcPeeringConnection(t.Context(), &ec2.CreateVpcPeeringConnectionInput{VpcId: v, PeerVpcId: &w.vpc})).VpcPeeringConnection.VpcPeeringConnectionId
}
