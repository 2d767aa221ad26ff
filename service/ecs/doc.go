// Package ecs is Amazon ECS as its API answers it: clusters, task definitions,
// tasks, services with their deployments and task sets, tags, account settings
// and the calls of agents.
//
// A handler validates, makes one store transaction and answers with what that
// transaction made true. It never waits for the world: RunTask answers
// PROVISIONING, and controllers, dispatch and agents do the rest. The package
// owns how AWS's documents are checked and shown, and the transitions that an
// agent's report causes. It must never reach into a kernel, call another
// service, or report a state that the store does not hold.
//
// What has no machinery yet is refused by an error that names the field; the
// few fields that are kept without being acted upon are listed by Stored.
package ecs
