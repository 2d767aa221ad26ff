package main

import (
	"testing"

	"github.com/berth-run/berth/agent/api"
	"github.com/berth-run/berth/store/state"
)

// The public parameters say which agent is in the ECS-optimized images.
func TestImagesNameTheirAgent(t *testing.T) {
	if state.ImageAgentVersion != api.Version {
		t.Errorf("the images name agent %s, the agent is %s", state.ImageAgentVersion, api.Version)
	}
}
