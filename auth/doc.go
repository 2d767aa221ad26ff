// Package auth says who makes a request and whether they may.
//
// It owns the verification of callers (signatures by package sigv4, long-term
// keys from the store, session tokens that carry themselves), the identifiers
// that IAM hands out, and the authorization of every action: Authorizer
// collects the policies that have a say and lets package policy decide.
//
// It must never write to the store, and never make an exception for a service,
// a caller or a network: whoever may do something may by a policy, apart from
// the account's root user, as in AWS.
package auth
