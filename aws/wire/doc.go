// Package wire puts AWS's shapes on the wire and reads them from it.
//
// It owns the protocols (AWS JSON 1.0 and 1.1, Query, EC2 Query), each written
// once over schemas and in both directions; event streams; the routing of a request to a
// service and operation; the check of a request against the constraints of the
// model; and the error envelopes. Services are described by generated code.
//
// It must never know who calls, whether they may, or what an operation does:
// the front door authenticates and authorizes between Decode and Invoke.
package wire
