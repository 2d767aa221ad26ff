// Package policy reads AWS policy documents and decides by them.
//
// It is pure: a decision depends on the request and the documents it is given,
// never on a clock, a store or the network. What is not understood is refused
// when a document is parsed, so that nothing is silently skipped when it is
// evaluated.
package policy
