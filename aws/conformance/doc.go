// Package conformance holds the codecs of package wire against the requests
// and responses that AWS's own SDK for Go records of itself. It has tests only.
package conformance
