package iam

import (
	"context"
	"fmt"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// NodeRole is the role of the machines of a region: what an ECS agent needs,
// and no more. Its path keeps it apart from the user's roles.
const (
	NodeRole     = "node"
	NodeRolePath = "/berth/"
	// NodeService is the principal that may take the node role. No API takes it:
	// the server mints the nodes' credentials.
	NodeService = "node.berth.internal"
)

const nodeTrust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"` + NodeService + `"},"Action":"sts:AssumeRole"}]}`

const nodePolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ecs:DiscoverPollEndpoint","ecs:Poll","ecs:RegisterContainerInstance","ecs:StartTelemetrySession","ecs:Submit*","ecs:UpdateContainerInstancesState","ecs:ListTagsForResource"],"Resource":"*"}]}`

// Furnish gives a new account its row and the access key of its root user.
func Furnish(tx *store.Tx, account string, now time.Time) RootKey {
	now = now.UTC().Truncate(time.Second)
	k := &state.AccessKey{ID: auth.NewKeyID(auth.PrefixAccessKey, account), Account: account, Secret: auth.NewSecret(), Active: true, CreatedAt: now}
	state.Accounts.Put(tx, &state.Account{ID: account, CreatedAt: now})
	state.AccessKeys.Put(tx, k)
	return RootKey{k.ID, k.Secret}
}

// A RootKey is the access key of an account's root user.
type RootKey struct{ AccessKeyID, Secret string }

// Bootstrap makes the account, its root access key and the node role, as far
// as they are missing, and returns the key. Doing it again changes nothing. An
// account whose root keys were all deleted gets a new one: it is the owner of
// the machine who asks.
func Bootstrap(ctx context.Context, db *store.DB, account string, now time.Time) (RootKey, error) {
	now = now.UTC().Truncate(time.Second)
	fresh := &state.AccessKey{ID: auth.NewKeyID(auth.PrefixAccessKey, account), Account: account, Secret: auth.NewSecret(), Active: true, CreatedAt: now}
	var key RootKey
	err := db.Update(ctx, func(tx *store.Tx) error {
		tx.Guard("iam")
		if !state.Accounts.Has(tx, account) {
			state.Accounts.Put(tx, &state.Account{ID: account, CreatedAt: now})
		}
		if !state.Roles.Has(tx, state.IAMKey(account, NodeRole)) {
			state.Roles.Put(tx, &state.Role{Account: account, Path: NodeRolePath, Name: NodeRole, ID: auth.NewID(auth.PrefixRole, account),
				Trust: nodeTrust, Description: "Berth's machines", MaxSessionDuration: 12 * 3600, CreatedAt: now,
				Inline: []state.InlinePolicy{{Name: "agent", Document: nodePolicy}}})
		}
		key = RootKey{}
		for _, k := range keysOf(tx, account, "") {
			if k.Active {
				key = RootKey{k.ID, k.Secret}
				return nil
			}
		}
		state.AccessKeys.Put(tx, fresh)
		key = RootKey{fresh.ID, fresh.Secret}
		return nil
	})
	if err != nil {
		return RootKey{}, fmt.Errorf("bootstrap account %s: %w", account, err)
	}
	return key, nil
}
