// Package state holds the objects of a region and the tables they live in.
//
// It is where services, controllers and dispatch meet: an object here is what
// is true (or wanted), not what an API answers. Documents whose shape is AWS's
// own (container definitions, network configurations) are kept in the
// generated types so that they come back exactly as they were sent.
//
// The package owns identifiers, keys and the few transitions that must hold
// wherever they are made (a task's status only moves forward). It must never
// decide anything: no clock, no I/O, no policy.
//
// Objects are immutable once they are in a table: copy before changing.
package state
