package ecs

import (
	"slices"
	"strconv"

	api "github.com/berth-run/berth/aws/ecs"
	queries "github.com/berth-run/berth/store/state/query"
)

// validateDevices checks accelerators: those of the task, and what its
// containers ask for.
func validateDevices(d *api.TaskDefinition) error {
	devices := map[string]bool{}
	for _, a := range d.InferenceAccelerators {
		name := val(a.DeviceName)
		switch {
		case name == "" || val(a.DeviceType) == "":
			return client("An inference accelerator must have a 'deviceName' and a 'deviceType'.")
		case devices[name]:
			return client("InferenceAccelerator.deviceName should be unique. Duplicate name: '%s'.", name)
		}
		devices[name] = true
	}
	taken := map[string]bool{}
	for i := range d.ContainerDefinitions {
		c := &d.ContainerDefinitions[i]
		kinds := map[api.ResourceType]bool{}
		for _, r := range c.ResourceRequirements {
			bad := func(format string, args ...any) error {
				return client("Invalid setting for container '"+*c.Name+"'. "+format, args...)
			}
			value := val(r.Value)
			switch r.Type {
			case api.ResourceTypeGpu:
				if n, err := strconv.Atoi(value); err != nil || n < 1 {
					return bad("The value of a GPU resource requirement must be a positive number of GPUs: '%s'.", value)
				}
				if kinds[r.Type] {
					return bad("Only one GPU resource requirement may be specified.")
				}
			case api.ResourceTypeInferenceAccelerator:
				if !devices[value] {
					return bad("The inference accelerator '%s' is not a device of the task definition.", value)
				}
				if taken[value] {
					return bad("The inference accelerator '%s' is already in use by another container.", value)
				}
				taken[value] = true
			default:
				return bad("Invalid type of a resource requirement: '%s'.", r.Type)
			}
			kinds[r.Type] = true
		}
	}
	return nil
}

// validateConstraints checks the placement constraints of a definition.
func validateConstraints(constraints []api.TaskDefinitionPlacementConstraint) error {
	if len(constraints) > maxConstraints {
		return client("The number of placement constraints exceeds the limit of %d.", maxConstraints)
	}
	for _, c := range constraints {
		if c.Type != api.TaskDefinitionPlacementConstraintTypeMemberOf {
			return client("Invalid type of a placement constraint: '%s'.", c.Type)
		}
		if _, err := queries.Parse(val(c.Expression)); err != nil {
			return badExpression(err)
		}
	}
	return nil
}

// checkConstraint validates a constraint of a task or service.
func checkConstraint(c api.PlacementConstraint) error {
	switch c.Type {
	case api.PlacementConstraintTypeDistinctInstance:
		if val(c.Expression) != "" {
			return invalid("The placement constraint distinctInstance has no expression.")
		}
		return nil
	case api.PlacementConstraintTypeMemberOf:
		if _, err := queries.Parse(val(c.Expression)); err != nil {
			return badExpression(err)
		}
		return nil
	}
	return invalid("A placement constraint must have a type.")
}

// usesAccelerators reports whether the definition asks for inference accelerators.
func usesAccelerators(d *api.TaskDefinition) bool {
	return len(d.InferenceAccelerators) > 0 || slices.ContainsFunc(d.ContainerDefinitions, func(c api.ContainerDefinition) bool {
		return slices.ContainsFunc(c.ResourceRequirements, func(r api.ResourceRequirement) bool {
			return r.Type == api.ResourceTypeInferenceAccelerator
		})
	})
}
