// Package service is the front door of a region: one HTTP handler in front of
// every service, and the certificates and listener it stands behind.
//
// A request passes it in fixed steps: routed and decoded by package wire, its
// caller verified and each of its actions authorized by package auth, handed
// to the service's handler, answered. The door owns the limits on size and
// time, the request id and the request log. It must never know what an
// operation does: which action and resource an operation needs is said by the
// service that has it, and what the service does not name is authorized as the
// operation itself on every resource.
package service
