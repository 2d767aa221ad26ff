package ec2

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	maxEntriesPerCall = 100
	// keptEntries is how many entries all versions of a list may have together:
	// a row has its bounds. Older versions go first.
	keptEntries = 5_000
)

func noPrefixList(id string) error {
	if err := malformed("InvalidPrefixListId", "pl", id); err != nil {
		return err
	}
	return bad("InvalidPrefixListID.NotFound", "The prefix list ID '%s' does not exist", id)
}

func prefixListOf(r store.Reader, account, id string) (*state.PrefixList, error) {
	p, ok := state.PrefixLists.Get(r, id)
	if !ok || p.Account != account {
		return nil, noPrefixList(id)
	}
	return p, nil
}

// prefixEntries adds entries to those of a list.
func prefixEntries(family string, have []state.PrefixListEntry, add []api.AddPrefixListEntry) ([]state.PrefixListEntry, error) {
	if len(add) > maxEntriesPerCall {
		return nil, bad("InvalidParameterValue", "You can specify up to %d entries in a single request.", maxEntriesPerCall)
	}
	out := slices.Clone(have)
	for i, x := range add {
		c, err := netip.ParsePrefix(wire.Value(x.Cidr))
		if err != nil || c.Addr().Is6() != (family == "IPv6") {
			return nil, bad("InvalidParameterValue", "The CIDR '%s' is not a valid %s CIDR block.", wire.Value(x.Cidr), family)
		}
		n := state.PrefixListEntry{CIDR: c.Masked(), Description: wire.Value(x.Description)}
		if len(n.Description) > 255 {
			return nil, bad("InvalidParameterValue", "The description of an entry must have at most 255 characters.")
		}
		if slices.ContainsFunc(add[:i], func(y api.AddPrefixListEntry) bool { return wire.Value(y.Cidr) == wire.Value(x.Cidr) }) {
			return nil, bad("InvalidParameterValue", "The CIDR '%s' is specified more than once.", wire.Value(x.Cidr))
		}
		// An entry that is there gets the new description.
		if at := slices.IndexFunc(out, func(y state.PrefixListEntry) bool { return y.CIDR == n.CIDR }); at >= 0 {
			out[at] = n
		} else {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b state.PrefixListEntry) int {
		if c := a.CIDR.Addr().Compare(b.CIDR.Addr()); c != 0 {
			return c
		}
		return a.CIDR.Bits() - b.CIDR.Bits()
	})
	return out, nil
}

func checkPrefixListName(name string) error {
	if name == "" || len(name) > 255 || strings.HasPrefix(name, "com.amazonaws") {
		return bad("InvalidParameterValue", "Value (%s) for parameter prefixListName is invalid. Names have up to 255 characters and cannot start with com.amazonaws.", name)
	}
	return nil
}

func tooManyEntries() error {
	return bad("PrefixListMaxEntriesExceeded", "You've reached the maximum number of entries for the prefix list.")
}

// CreateManagedPrefixList makes a list.
func (e *EC2) CreateManagedPrefixList(ctx context.Context, in *api.CreateManagedPrefixListInput) (*api.CreateManagedPrefixListOutput, error) {
	family := *in.AddressFamily
	if family != "IPv4" && family != "IPv6" {
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter addressFamily is invalid. Valid values are IPv4 and IPv6.", family)
	}
	if err := checkPrefixListName(*in.PrefixListName); err != nil {
		return nil, err
	}
	entries, err := prefixEntries(family, nil, in.Entries)
	if err != nil {
		return nil, err
	}
	tags, err := tagsFor("prefix-list", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	account, id := e.Account(ctx), e.id("pl")
	var made *state.PrefixList
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		n := 0
		for p := range state.PrefixLists.By(tx, "account", account) {
			if token := wire.Value(in.ClientToken); token != "" && p.ClientToken == token {
				made = p
				return nil
			}
			n++
		}
		switch {
		case n >= state.Limit(tx, account, "vpc/prefix-lists"):
			return bad("PrefixListLimitExceeded", "The maximum number of prefix lists has been reached.")
		case *in.MaxEntries < 1 || int(*in.MaxEntries) > state.Limit(tx, account, "vpc/prefix-list-entries"):
			return bad("InvalidParameterValue", "Value (%d) for parameter maxEntries is invalid.", *in.MaxEntries)
		case len(entries) > int(*in.MaxEntries):
			return tooManyEntries()
		}
		made = &state.PrefixList{ID: id, Account: account, Name: *in.PrefixListName, Family: family, MaxEntries: int(*in.MaxEntries), Version: 1,
			Versions: []state.PrefixListVersion{{Version: 1, Entries: entries}}, State: "create-complete", ClientToken: wire.Value(in.ClientToken), Tags: tags, CreatedAt: e.Now()}
		state.PrefixLists.Put(tx, made)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateManagedPrefixListOutput{PrefixList: e.prefixListView(made)}, nil
}

func (e *EC2) prefixListView(p *state.PrefixList) *api.ManagedPrefixList {
	return &api.ManagedPrefixList{PrefixListId: new(p.ID), AddressFamily: new(p.Family), State: api.PrefixListState(p.State), PrefixListName: new(p.Name),
		PrefixListArn: e.arn(p.Account, "prefix-list", p.ID), MaxEntries: new(int32(p.MaxEntries)), Version: new(int64(p.Version)), Tags: tagsView(p.Tags), OwnerId: new(p.Account)}
}

// versioned is the list with further entries as its next version.
func versioned(p *state.PrefixList, entries []state.PrefixListEntry, how string) *state.PrefixList {
	n := *p
	n.Version++
	n.State = how
	n.Versions = append(slices.Clone(p.Versions), state.PrefixListVersion{Version: n.Version, Entries: entries})
	kept := 0
	for i := len(n.Versions) - 1; i >= 0; i-- {
		if kept += len(n.Versions[i].Entries) + 1; kept > keptEntries && i < len(n.Versions)-1 {
			n.Versions = n.Versions[i+1:]
			break
		}
	}
	return &n
}

func wrongVersion() error {
	return bad("PrefixListVersionMismatch", "The prefix list has the incorrect version number")
}

// ModifyManagedPrefixList changes a list's name or size, or makes its next version.
func (e *EC2) ModifyManagedPrefixList(ctx context.Context, in *api.ModifyManagedPrefixListInput) (*api.ModifyManagedPrefixListOutput, error) {
	entries := len(in.AddEntries)+len(in.RemoveEntries) > 0
	switch {
	case in.IpamPrefixListResolverSyncEnabled != nil:
		return nil, unsupported("IpamPrefixListResolverSyncEnabled")
	case entries && in.MaxEntries != nil:
		return nil, bad("InvalidParameterCombination", "You cannot modify the size of a prefix list and modify the entries of the same prefix list in the same request.")
	case entries && in.CurrentVersion == nil:
		return nil, bad("MissingParameter", "The request must contain the parameter currentVersion")
	case len(in.RemoveEntries) > maxEntriesPerCall:
		return nil, bad("InvalidParameterValue", "You can specify up to %d entries in a single request.", maxEntriesPerCall)
	case in.PrefixListName != nil:
		if err := checkPrefixListName(*in.PrefixListName); err != nil {
			return nil, err
		}
	}
	var made *state.PrefixList
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		p, err := prefixListOf(tx, e.Account(ctx), *in.PrefixListId)
		if err != nil {
			return err
		}
		if in.CurrentVersion != nil && int(*in.CurrentVersion) != p.Version {
			return wrongVersion()
		}
		n := *p
		if entries {
			left := slices.Clone(p.Entries())
			for _, x := range in.RemoveEntries {
				c, err := netip.ParsePrefix(wire.Value(x.Cidr))
				at := slices.IndexFunc(left, func(y state.PrefixListEntry) bool { return y.CIDR == c.Masked() })
				if err != nil || at < 0 {
					return bad("InvalidParameterValue", "The CIDR '%s' is not an entry of the prefix list.", wire.Value(x.Cidr))
				}
				left = slices.Delete(left, at, at+1)
			}
			if left, err = prefixEntries(p.Family, left, in.AddEntries); err != nil {
				return err
			}
			if len(left) > p.MaxEntries {
				return tooManyEntries()
			}
			n = *versioned(p, left, "modify-complete")
		}
		if in.PrefixListName != nil {
			n.Name, n.State = *in.PrefixListName, "modify-complete"
		}
		if in.MaxEntries != nil {
			if int(*in.MaxEntries) < max(1, len(p.Entries())) || int(*in.MaxEntries) > state.Limit(tx, p.Account, "vpc/prefix-list-entries") {
				return bad("InvalidParameterValue", "Value (%d) for parameter maxEntries is invalid. The list has %d entries.", *in.MaxEntries, len(p.Entries()))
			}
			n.MaxEntries, n.State = int(*in.MaxEntries), "modify-complete"
		}
		state.PrefixLists.Put(tx, &n)
		if n.MaxEntries > p.MaxEntries {
			// Each rule that names the list counts as that many.
			state.SecurityGroups.Guard(tx, "")
			for g := range state.SecurityGroups.By(tx, "account", p.Account) {
				if slices.ContainsFunc(g.Rules, func(r state.SecurityGroupRule) bool { return r.PrefixList == p.ID }) {
					if err := withinLimit(tx, g); err != nil {
						return err
					}
				}
			}
		}
		made = &n
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.ModifyManagedPrefixListOutput{PrefixList: e.prefixListView(made)}, nil
}

// RestoreManagedPrefixListVersion makes what a list held before its next version.
func (e *EC2) RestoreManagedPrefixListVersion(ctx context.Context, in *api.RestoreManagedPrefixListVersionInput) (*api.RestoreManagedPrefixListVersionOutput, error) {
	var made *state.PrefixList
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		p, err := prefixListOf(tx, e.Account(ctx), *in.PrefixListId)
		if err != nil {
			return err
		}
		if int(*in.CurrentVersion) != p.Version {
			return wrongVersion()
		}
		v, err := versionOf(p, *in.PreviousVersion)
		if err != nil {
			return err
		}
		if len(v) > p.MaxEntries {
			return tooManyEntries()
		}
		made = versioned(p, v, "restore-complete")
		state.PrefixLists.Put(tx, made)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.RestoreManagedPrefixListVersionOutput{PrefixList: e.prefixListView(made)}, nil
}

func versionOf(p *state.PrefixList, version int64) ([]state.PrefixListEntry, error) {
	for _, v := range p.Versions {
		if int64(v.Version) == version {
			return v.Entries, nil
		}
	}
	return nil, bad("InvalidPrefixListVersion.NotFound", "The version %d of prefix list '%s' does not exist", version, p.ID)
}

// DeleteManagedPrefixList removes a list that nothing names.
func (e *EC2) DeleteManagedPrefixList(ctx context.Context, in *api.DeleteManagedPrefixListInput) (*api.DeleteManagedPrefixListOutput, error) {
	var gone *state.PrefixList
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		p, err := prefixListOf(tx, e.Account(ctx), *in.PrefixListId)
		if err != nil {
			return err
		}
		state.SecurityGroups.Guard(tx, "")
		state.RouteTables.Guard(tx, "")
		if len(prefixListUsers(tx, p)) > 0 {
			return bad("DependencyViolation", "The prefix list '%s' has dependencies and cannot be deleted.", p.ID)
		}
		n := *p
		n.State = "delete-complete"
		gone = &n
		state.PrefixLists.Delete(tx, p.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteManagedPrefixListOutput{PrefixList: e.prefixListView(gone)}, nil
}

// prefixListUsers are the resources that name a list.
func prefixListUsers(r store.Reader, p *state.PrefixList) (out []api.PrefixListAssociation) {
	for t := range state.RouteTables.All(r) {
		if slices.ContainsFunc(t.Routes, func(x state.Route) bool { return x.PrefixList == p.ID }) {
			out = append(out, api.PrefixListAssociation{ResourceId: new(t.ID), ResourceOwner: new(t.Account)})
		}
	}
	for g := range state.SecurityGroups.By(r, "account", p.Account) {
		if slices.ContainsFunc(g.Rules, func(x state.SecurityGroupRule) bool { return x.PrefixList == p.ID }) {
			out = append(out, api.PrefixListAssociation{ResourceId: new(g.ID), ResourceOwner: new(g.Account)})
		}
	}
	return out
}

// GetManagedPrefixListAssociations lists what names a list.
func (e *EC2) GetManagedPrefixListAssociations(ctx context.Context, in *api.GetManagedPrefixListAssociationsInput) (*api.GetManagedPrefixListAssociationsOutput, error) {
	snap := e.DB.Snapshot()
	p, err := prefixListOf(snap, e.Account(ctx), *in.PrefixListId)
	if err != nil {
		return nil, err
	}
	out, next, err := list(request{max: in.MaxResults, token: in.NextToken}, kind[api.PrefixListAssociation, api.PrefixListAssociation]{
		name: "users of " + p.ID, rows: slices.Values(prefixListUsers(snap, p)),
		id:   func(a api.PrefixListAssociation) string { return *a.ResourceId },
		view: func(a api.PrefixListAssociation) api.PrefixListAssociation { return a },
	})
	return &api.GetManagedPrefixListAssociationsOutput{PrefixListAssociations: out, NextToken: next}, err
}

// GetManagedPrefixListEntries lists what a list holds, or held at a version.
func (e *EC2) GetManagedPrefixListEntries(ctx context.Context, in *api.GetManagedPrefixListEntriesInput) (*api.GetManagedPrefixListEntriesOutput, error) {
	p, err := prefixListOf(e.DB.Snapshot(), e.Account(ctx), *in.PrefixListId)
	if err != nil {
		return nil, err
	}
	version := int64(p.Version)
	if in.TargetVersion != nil {
		version = *in.TargetVersion
	}
	entries, err := versionOf(p, version)
	if err != nil {
		return nil, err
	}
	entries = slices.Clone(entries)
	id := func(x state.PrefixListEntry) string { return x.CIDR.String() }
	slices.SortFunc(entries, func(a, b state.PrefixListEntry) int { return strings.Compare(id(a), id(b)) })
	out, next, err := list(request{ids: nil, max: in.MaxResults, token: in.NextToken}, kind[state.PrefixListEntry, api.PrefixListEntry]{
		name: "entries of " + p.ID + " at " + number(int(version))[0], rows: slices.Values(entries), id: id,
		view: func(x state.PrefixListEntry) api.PrefixListEntry {
			return api.PrefixListEntry{Cidr: new(x.CIDR.String()), Description: optional(x.Description)}
		},
	})
	return &api.GetManagedPrefixListEntriesOutput{Entries: out, NextToken: next}, err
}

// DescribeManagedPrefixLists lists the account's lists.
func (e *EC2) DescribeManagedPrefixLists(ctx context.Context, in *api.DescribeManagedPrefixListsInput) (*api.DescribeManagedPrefixListsOutput, error) {
	type row = *state.PrefixList
	snap := e.DB.Snapshot()
	out, next, err := list(request{in.PrefixListIds, in.Filters, in.MaxResults, in.NextToken}, kind[row, api.ManagedPrefixList]{
		name: "prefix-lists", rows: state.PrefixLists.By(snap, "account", e.Account(ctx)),
		id: func(p row) string { return p.ID }, missing: noPrefixList, tags: func(p row) []state.Tag { return p.Tags },
		filters: filters[row]{
			"owner-id":         func(p row) []string { return one(p.Account) },
			"prefix-list-id":   func(p row) []string { return one(p.ID) },
			"prefix-list-name": func(p row) []string { return one(p.Name) },
		},
		view: func(p row) api.ManagedPrefixList { return *e.prefixListView(p) },
	})
	return &api.DescribeManagedPrefixListsOutput{PrefixLists: out, NextToken: next}, err
}

// DescribePrefixLists lists the lists of AWS's own services with gateway
// endpoints: this region has none.
func (e *EC2) DescribePrefixLists(_ context.Context, in *api.DescribePrefixListsInput) (*api.DescribePrefixListsOutput, error) {
	type row = api.PrefixList
	out, next, err := list(request{in.PrefixListIds, in.Filters, in.MaxResults, in.NextToken}, kind[row, row]{
		name: "aws-prefix-lists", rows: slices.Values([]row{}), id: func(p row) string { return *p.PrefixListId }, missing: noPrefixList,
		filters: filters[row]{
			"prefix-list-id":   func(p row) []string { return one(*p.PrefixListId) },
			"prefix-list-name": func(p row) []string { return one(*p.PrefixListName) },
		},
		view: func(p row) row { return p },
	})
	return &api.DescribePrefixListsOutput{PrefixLists: out, NextToken: next}, err
}
