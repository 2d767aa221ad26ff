package ecs

import (
	api "github.com/berth-run/berth/aws/ecs"
)

// fillDefaults makes the registered view of a definition: what AWS stores and
// shows where the request said nothing.
func fillDefaults(d *api.TaskDefinition) {
	d.Volumes = list(d.Volumes)
	d.PlacementConstraints = list(d.PlacementConstraints)
	for i := range d.Volumes {
		v := &d.Volumes[i]
		if v.Host == nil && v.DockerVolumeConfiguration == nil && v.EfsVolumeConfiguration == nil &&
			v.FsxWindowsFileServerVolumeConfiguration == nil && v.S3filesVolumeConfiguration == nil && !val(v.ConfiguredAtLaunch) {
			v.Host = &api.HostVolumeProperties{}
		}
		if f := v.EfsVolumeConfiguration; f != nil && f.RootDirectory == nil {
			f.RootDirectory = new("/")
		}
		if c := v.DockerVolumeConfiguration; c != nil && c.Scope == "" {
			c.Scope = api.ScopeTask
		}
	}
	for i := range d.ContainerDefinitions {
		c := &d.ContainerDefinitions[i]
		if c.Cpu == nil {
			c.Cpu = new(int32(0))
		}
		if c.Essential == nil {
			c.Essential = new(true)
		}
		c.PortMappings = list(c.PortMappings)
		c.Environment = list(c.Environment)
		c.MountPoints = list(c.MountPoints)
		c.VolumesFrom = list(c.VolumesFrom)
		c.SystemControls = list(c.SystemControls)
		for j := range c.PortMappings {
			p := &c.PortMappings[j]
			if p.Protocol == "" {
				p.Protocol = api.TransportProtocolTcp
			}
			if p.ContainerPortRange != nil {
				continue
			}
			if d.NetworkMode == api.NetworkModeAwsvpc || d.NetworkMode == api.NetworkModeHost {
				p.HostPort = p.ContainerPort
			} else if p.HostPort == nil {
				p.HostPort = new(int32(0))
			}
		}
		if h := c.HealthCheck; h != nil {
			for _, f := range []struct {
				p **int32
				v int32
			}{{&h.Interval, 30}, {&h.Timeout, 5}, {&h.Retries, 3}} {
				if *f.p == nil {
					*f.p = &f.v
				}
			}
		}
		if l := c.LogConfiguration; l != nil {
			l.SecretOptions = list(l.SecretOptions)
		}
		if p := c.RestartPolicy; p != nil && val(p.Enabled) && p.RestartAttemptPeriod == nil {
			p.RestartAttemptPeriod = new(int32(300))
		}
	}
}
