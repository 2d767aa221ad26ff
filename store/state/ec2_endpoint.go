package state

import "strings"

// EndpointNames are the DNS names of an interface endpoint: its own, and those
// of its service, which resolve to it where private DNS is on. A name that
// begins with "*." is that of every name below it.
func EndpointNames(region string, e *Endpoint) (own, private []string) {
	service := strings.TrimPrefix(strings.TrimPrefix(e.Service, "com.amazonaws."), region+".")
	own = []string{e.ID + "." + service + "." + region + ".vpce.amazonaws.com", "*." + e.ID + "." + service + "." + region + ".vpce.amazonaws.com"}
	domain := region + ".amazonaws.com"
	switch service {
	case "ecr.api":
		private = []string{"api.ecr." + domain}
	case "ecr.dkr":
		private = []string{"*.dkr.ecr." + domain}
	case "ecs-agent":
		private = []string{"ecs-a." + domain}
	case "ecs-telemetry":
		private = []string{"ecs-t." + domain}
	case "iam":
		private = []string{"iam.amazonaws.com"}
	default:
		private = []string{service + "." + domain}
	}
	return own, private
}
