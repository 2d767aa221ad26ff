// Package sigv4 signs HTTP requests and verifies their signatures by AWS
// Signature Version 4: in headers, in the query string, and over the frames of
// the agents' telemetry stream.
//
// It knows neither who a key belongs to nor what the request may do, and it
// reads no clock: the time is an argument.
package sigv4
