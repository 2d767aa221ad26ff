package ssm

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ssm"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	standardSize = 4 << 10
	advancedSize = 8 << 10
	maxVersions  = 100
	maxLabels    = 10
	maxLevels    = 15
	publicPrefix = "/aws/service/"
	defaultKey   = "alias/aws/ssm"
)

var nameText = regexp.MustCompile(`^[a-zA-Z0-9_.\-/]+$`)

// checkName holds a new parameter's name to AWS's rules.
func (s *SSM) checkName(account, name string) error {
	lower := strings.ToLower(name)
	switch {
	case lower == "/aws" || strings.HasPrefix(lower, "/aws/") || lower == "/ssm" || strings.HasPrefix(lower, "/ssm/"):
		return &api.AccessDeniedException{Message: fmt.Sprintf("No access to reserved parameter name: %s.", name)}
	case strings.HasPrefix(strings.TrimPrefix(lower, "/"), "aws") || strings.HasPrefix(strings.TrimPrefix(lower, "/"), "ssm"):
		return invalid(`Parameter name: can't be prefixed with "aws" or "ssm" (case-insensitive).`)
	case !nameText.MatchString(name) || strings.Contains(name, "//") || strings.HasSuffix(name, "/"):
		return invalid(`Parameter name: can't be prefixed with "ssm" (case-insensitive). If formed as a path, it can consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following 3 symbols .-_`)
	case strings.Contains(name, "/") && name[0] != '/':
		return invalid("Parameter name must be a fully qualified name.")
	case strings.Count(name, "/") > maxLevels:
		return &api.HierarchyLevelLimitExceededException{Message: fmt.Sprintf("A hierarchy can have a maximum of %d levels.", maxLevels)}
	case len(s.arn(account, name)) > 1011:
		return invalid("The parameter name is too long: together with its ARN it may have 1011 characters.")
	}
	return nil
}

// PutParameter makes a parameter or a new version of it.
func (s *SSM) PutParameter(ctx context.Context, in *api.PutParameterInput) (*api.PutParameterOutput, error) {
	owner := account(ctx)
	name, value := s.bare(owner, wire.Value(in.Name)), wire.Value(in.Value)
	if err := s.checkName(owner, name); err != nil {
		return nil, err
	}
	overwrite := wire.Value(in.Overwrite)
	if overwrite && len(in.Tags) > 0 {
		return nil, invalid("Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please remove overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or RemoveTagsFromResource.")
	}
	tags, err := setTags(nil, in.Tags)
	if err != nil {
		return nil, err
	}
	if value == "" {
		return nil, invalid("1 validation error detected: Value '' at 'value' failed to satisfy constraint: Member must have length greater than or equal to 1.")
	}
	switch wire.Value(in.DataType) {
	case "", "text", "aws:ssm:integration":
	case "aws:ec2:image":
		if !strings.HasPrefix(value, "ami-") {
			return nil, invalid("The parameter value must be the id of an AMI, as its data type is aws:ec2:image.")
		}
	default:
		return nil, invalid("The following data type is not supported: %s (Data type names are all lowercase.)", *in.DataType)
	}
	if err := checkPolicies(wire.Value(in.Policies)); err != nil {
		return nil, err
	}
	if in.KeyId != nil && in.Type != "SecureString" && in.Type != "" {
		return nil, invalid("KeyId is required for SecureString type parameter only.")
	}
	out := &api.PutParameterOutput{}
	err = s.DB.Update(ctx, func(tx *store.Tx) error {
		key := state.ParameterKey(owner, name)
		p, exists := state.Parameters.Get(tx, key)
		v := state.ParameterVersion{Account: owner, Name: name, Version: 1, Type: string(in.Type), Value: value, DataType: "text", ModifiedAt: s.Now(), ModifiedBy: auth.FromContext(ctx).ARN}
		var next state.Parameter
		switch {
		case exists && !overwrite:
			return &api.ParameterAlreadyExists{Message: "The parameter already exists. To overwrite this value, set the overwrite option in the request to true."}
		case exists:
			old, ok := state.ParameterVersions.Get(tx, state.ParameterVersionKey(owner, name, p.Latest))
			if !ok {
				return fmt.Errorf("parameter %s of %s has no version %d", name, owner, p.Latest)
			}
			if v.Type == "" {
				v.Type = old.Type
			}
			if v.Type != old.Type {
				return &api.HierarchyTypeMismatchException{Message: "Parameter Store doesn't support changing a parameter type in a hierarchy. For example, you can't change a parameter from a String type to a SecureString type. You must create a new, unique parameter."}
			}
			v.Version, v.Tier, v.KeyID, v.DataType = p.Latest+1, old.Tier, old.KeyID, old.DataType
			v.Description, v.AllowedPattern, v.Policies = old.Description, old.AllowedPattern, old.Policies
			next = *p
			next.Latest = v.Version
			if err := forget(tx, key); err != nil {
				return err
			}
		default:
			if v.Type == "" {
				return invalid("A parameter type is required when you create a parameter.")
			}
			n := 0
			for range state.Parameters.By(tx, "account", owner) {
				n++
			}
			if n >= state.Limit(tx, owner, "ssm/parameters") {
				return &api.ParameterLimitExceeded{Message: "You have exceeded the number of parameters for this AWS account. Delete one or more parameters and try again."}
			}
			next = state.Parameter{Account: owner, Name: name, Latest: 1, Tags: tags, CreatedAt: s.Now()}
		}
		if in.Description != nil {
			v.Description = *in.Description
		}
		if in.AllowedPattern != nil {
			v.AllowedPattern = *in.AllowedPattern
		}
		if in.Policies != nil {
			v.Policies = *in.Policies
		}
		if wire.Value(in.DataType) != "" {
			v.DataType = *in.DataType
		}
		if v.Type == "SecureString" {
			if in.KeyId != nil {
				v.KeyID = *in.KeyId
			} else if v.KeyID == "" {
				v.KeyID = defaultKey
			}
		}
		if v.AllowedPattern != "" {
			pattern, err := regexp.Compile(v.AllowedPattern)
			if err != nil {
				return &api.InvalidAllowedPatternException{Message: fmt.Sprintf("The request does not meet the regular expression requirement: %s", v.AllowedPattern)}
			}
			if !pattern.MatchString(value) {
				return &api.ParameterPatternMismatchException{Message: fmt.Sprintf("Parameter value, cannot be validated against allowedPattern: %s", v.AllowedPattern)}
			}
		}
		if v.Tier, err = tier(v.Tier, string(in.Tier), len(value), v.Policies); err != nil {
			return err
		}
		state.Parameters.Put(tx, &next)
		state.ParameterVersions.Put(tx, &v)
		*out = api.PutParameterOutput{Version: new(int64(v.Version)), Tier: api.ParameterTier(v.Tier)}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// tier is the tier of a new version: of what was asked and what there was.
func tier(had, asked string, size int, policies string) (string, error) {
	advanced := policies != "" && policies != "[]" && policies != "{}"
	t := asked
	switch {
	case asked == "" && had == "":
		t = "Standard"
	case asked == "":
		t = had
	case asked == "Intelligent-Tiering":
		t = "Standard"
		if had == "Advanced" || size > standardSize || advanced {
			t = "Advanced"
		}
	case asked == "Standard" && had == "Advanced":
		return "", invalid("This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the advanced-parameter tier to the standard-parameter tier. If necessary, you can delete the advanced parameter and recreate it as a standard parameter. Be aware that the standard-parameter tier supports a maximum of 4096 characters and does not support parameter policies.")
	}
	switch {
	case t == "Standard" && size > standardSize:
		return "", invalid("Standard tier parameters support a maximum parameter value of 4096 characters. To create a larger parameter value, upgrade the parameter to use the advanced-parameter tier. For more information, see https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html")
	case size > advancedSize:
		return "", invalid("Advanced tier parameters support a maximum parameter value of 8192 characters.")
	case t == "Standard" && advanced:
		return "", invalid("Parameter policies are supported by the advanced-parameter tier only.")
	}
	return t, nil
}

func checkPolicies(text string) error {
	if text == "" {
		return nil
	}
	var list []struct{ Type string }
	if json.Unmarshal([]byte(text), &list) != nil {
		return &api.InvalidPolicyTypeException{Message: "The policies must be a JSON array of policies."}
	}
	if len(list) > 10 {
		return &api.PoliciesLimitExceededException{Message: "You specified more than the maximum number of allowed policies for the parameter. The maximum is 10."}
	}
	for _, p := range list {
		if p.Type != "Expiration" && p.Type != "ExpirationNotification" && p.Type != "NoChangeNotification" {
			return &api.InvalidPolicyTypeException{Message: "The policy type isn't supported. Parameter Store supports the following policy types: Expiration, ExpirationNotification, and NoChangeNotification."}
		}
	}
	return nil
}

// forget removes the oldest version of a parameter that has as many as it may,
// unless it has a label.
func forget(tx *store.Tx, key string) error {
	versions := slices.Collect(state.ParameterVersions.By(tx, "parameter", key))
	if len(versions) < maxVersions {
		return nil
	}
	oldest := slices.MinFunc(versions, func(a, b *state.ParameterVersion) int { return a.Version - b.Version })
	if len(oldest.Labels) > 0 {
		return &api.ParameterMaxVersionLimitExceeded{Message: fmt.Sprintf("You attempted to create a new version of %s by calling the PutParameter API with the overwrite flag. Version %d, the oldest version, can't be deleted because it has a label associated with it. Move the label to another version of the parameter, and try again.", oldest.Name, oldest.Version)}
	}
	state.ParameterVersions.Delete(tx, state.ParameterVersionKey(oldest.Account, oldest.Name, oldest.Version))
	return nil
}

// find answers one parameter by name, with a selector or without.
func (s *SSM) find(r store.Reader, owner, given string, decrypt bool) (api.Parameter, error) {
	name, selector := split(given)
	name = s.bare(owner, name)
	if strings.HasPrefix(name, publicPrefix) {
		p, ok := state.PublicParameterValue(s.Region, name)
		if !ok {
			return api.Parameter{}, noParameter(given)
		}
		if selector != "" && selector != "1" {
			return api.Parameter{}, noVersion(selector, name)
		}
		return s.publicView(p, selector), nil
	}
	v, exists := state.FindParameter(r, owner, name, selector)
	switch {
	case !exists:
		return api.Parameter{}, noParameter(given)
	case v == nil:
		return api.Parameter{}, noVersion(selector, name)
	}
	return s.view(v, selector, decrypt), nil
}

func noVersion(selector, name string) error {
	if _, err := strconv.Atoi(selector); err != nil {
		return &api.ParameterVersionNotFound{Message: fmt.Sprintf("Systems Manager could not find label %s for parameter %s.", selector, name)}
	}
	return &api.ParameterVersionNotFound{Message: fmt.Sprintf("Systems Manager could not find version %s of %s. Verify the version and try again.", selector, name)}
}

func (s *SSM) publicView(p state.PublicParameter, selector string) api.Parameter {
	out := api.Parameter{Name: new(p.Name), Type: "String", Value: new(p.Value), Version: new(int64(1)), LastModifiedDate: new(state.ImagesSince), ARN: new(s.arn("", p.Name)), DataType: new(p.DataType)}
	if selector != "" {
		out.Selector = new(":" + selector)
	}
	return out
}

func (s *SSM) view(v *state.ParameterVersion, selector string, decrypt bool) api.Parameter {
	out := api.Parameter{Name: new(v.Name), Type: api.ParameterType(v.Type), Value: new(shown(v, decrypt)), Version: new(int64(v.Version)), LastModifiedDate: new(v.ModifiedAt),
		ARN: new(s.arn(v.Account, v.Name)), DataType: new(v.DataType)}
	if selector != "" {
		out.Selector = new(":" + selector)
	}
	return out
}

// shown is a value as it may be seen. In the place of what is encrypted stands
// a text that says nothing of it, but is another for each version.
func shown(v *state.ParameterVersion, decrypt bool) string {
	if v.Type != "SecureString" || decrypt {
		return v.Value
	}
	sum := sha256.Sum256([]byte(state.ParameterVersionKey(v.Account, v.Name, v.Version)))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// GetParameter answers one parameter.
func (s *SSM) GetParameter(ctx context.Context, in *api.GetParameterInput) (*api.GetParameterOutput, error) {
	p, err := s.find(s.DB.Snapshot(), account(ctx), wire.Value(in.Name), wire.Value(in.WithDecryption))
	if err != nil {
		return nil, err
	}
	return &api.GetParameterOutput{Parameter: &p}, nil
}

// GetParameters answers those that there are, and names the others.
func (s *SSM) GetParameters(ctx context.Context, in *api.GetParametersInput) (*api.GetParametersOutput, error) {
	out := &api.GetParametersOutput{Parameters: []api.Parameter{}, InvalidParameters: []string{}}
	snap := s.DB.Snapshot()
	names := slices.Clone(in.Names)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		p, err := s.find(snap, account(ctx), name, wire.Value(in.WithDecryption))
		if err != nil {
			out.InvalidParameters = append(out.InvalidParameters, name)
			continue
		}
		out.Parameters = append(out.Parameters, p)
	}
	return out, nil
}

// below reports whether a parameter is in a hierarchy: anywhere, or right below its path.
func below(name, path string, recursive bool) bool {
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(path, "/")+"/")
	if path == "/" && !strings.HasPrefix(name, "/") {
		rest, ok = name, true // what is in no hierarchy is at its root
	}
	return ok && rest != "" && (recursive || !strings.Contains(rest, "/"))
}

// GetParametersByPath answers a hierarchy.
func (s *SSM) GetParametersByPath(ctx context.Context, in *api.GetParametersByPathInput) (*api.GetParametersByPathOutput, error) {
	owner, path, snap := account(ctx), wire.Value(in.Path), s.DB.Snapshot()
	if !strings.HasPrefix(path, "/") || !nameText.MatchString(path) || strings.Contains(path, "//") {
		return nil, invalid(`The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward slash "/". It can't be prefixed with "aws" or "ssm" (case-insensitive). It must use only letters, numbers, or the following symbols: . (period), - (hyphen), _ (underscore). Special characters are not allowed. All sub-paths, if specified, must use the forward slash symbol "/". Valid example: /get/parameters2-/by1./path0_.`)
	}
	for _, f := range in.ParameterFilters {
		if k := wire.Value(f.Key); k != "Type" && k != "KeyId" && k != "Label" {
			return nil, &api.InvalidFilterKey{Message: fmt.Sprintf("The following filter key is not valid: %s. Valid filter keys include: [Type, KeyId, Label].", k)}
		}
	}
	var rows []api.Parameter
	if strings.HasPrefix(path+"/", publicPrefix) {
		for _, p := range state.PublicParameters(s.Region) {
			if below(p.Name, path, wire.Value(in.Recursive)) && len(in.ParameterFilters) == 0 {
				rows = append(rows, s.publicView(p, ""))
			}
		}
	}
	for p := range state.Parameters.By(snap, "account", owner) {
		v, ok := state.ParameterVersions.Get(snap, state.ParameterVersionKey(owner, p.Name, p.Latest))
		if !ok || !below(p.Name, path, wire.Value(in.Recursive)) {
			continue
		}
		selector := ""
		match := true
		for _, f := range in.ParameterFilters {
			if wire.Value(f.Key) == "Label" {
				// The version that has the label, and not the newest.
				if len(f.Values) == 0 {
					return nil, &api.InvalidFilterValue{Message: "The filter value isn't valid. Verify the value and try again."}
				}
				v, _ = state.FindParameter(snap, owner, p.Name, f.Values[0])
				if _, err := strconv.Atoi(f.Values[0]); err == nil {
					v = nil
				}
				if match = v != nil; match {
					selector = f.Values[0]
				}
			} else {
				ok, err := passes(f, p, v)
				if err != nil {
					return nil, err
				}
				match = match && ok
			}
			if !match {
				break
			}
		}
		if match {
			rows = append(rows, s.view(v, selector, wire.Value(in.WithDecryption)))
		}
	}
	filters, err := json.Marshal(in.ParameterFilters)
	if err != nil {
		return nil, fmt.Errorf("query of the page: %w", err)
	}
	q := page.Query{"ByPath", owner, path, fmt.Sprint(wire.Value(in.Recursive)), string(filters)}
	out, next, err := pages(s, q, rows, func(p api.Parameter) string { return *p.Name }, in.MaxResults, 10, in.NextToken)
	return &api.GetParametersByPathOutput{Parameters: out, NextToken: next}, err
}

// pages cuts a page out of what is listed.
func pages[T any](s *SSM, q page.Query, rows []T, key func(T) string, limit *int32, usual int, token *string) ([]T, *string, error) {
	slices.SortFunc(rows, func(a, b T) int { return strings.Compare(key(a), key(b)) })
	after := ""
	if wire.Value(token) != "" {
		var err error
		if after, err = page.Decode(q, *token, s.Now()); errors.Is(err, page.ErrInvalid) || errors.Is(err, page.ErrExpired) {
			return nil, nil, &api.InvalidNextToken{Message: "The specified token isn't valid."}
		} else if err != nil {
			return nil, nil, err
		}
	}
	n := usual
	if limit != nil {
		n = int(*limit)
	}
	out := []T{}
	for _, r := range rows {
		if after != "" && key(r) <= after {
			continue
		}
		if len(out) == n {
			return out, new(page.Encode(q, key(out[n-1]), s.Now())), nil
		}
		out = append(out, r)
	}
	return out, nil, nil
}

// passes reports whether a parameter passes a filter of DescribeParameters.
func passes(f api.ParameterStringFilter, p *state.Parameter, v *state.ParameterVersion) (bool, error) {
	key, option := wire.Value(f.Key), wire.Value(f.Option)
	if option == "" {
		option = "Equals"
	}
	wrong := func(options ...string) error {
		if slices.Contains(options, option) {
			return nil
		}
		return &api.InvalidFilterOption{Message: fmt.Sprintf("The following filter option is not valid: %s. Valid options include: %v.", option, options)}
	}
	any := func(have ...string) bool {
		for _, h := range have {
			for _, want := range f.Values {
				if option == "Equals" && h == want || option == "BeginsWith" && strings.HasPrefix(h, want) || option == "Contains" && strings.Contains(h, want) {
					return true
				}
			}
		}
		return false
	}
	if tag, ok := strings.CutPrefix(key, "tag:"); ok {
		i := slices.IndexFunc(p.Tags, func(t state.Tag) bool { return t.Key == tag })
		return i >= 0 && (len(f.Values) == 0 || any(p.Tags[i].Value)), wrong("Equals")
	}
	if len(f.Values) == 0 {
		return false, &api.InvalidFilterValue{Message: fmt.Sprintf("The following filter values are missing : for filter key %s", key)}
	}
	switch key {
	case "Name":
		return any(p.Name) || any(strings.TrimPrefix(p.Name, "/")), wrong("Equals", "BeginsWith", "Contains")
	case "Type":
		return any(v.Type), wrong("Equals", "BeginsWith")
	case "KeyId":
		return any(v.KeyID), wrong("Equals", "BeginsWith")
	case "Tier":
		return any(v.Tier), wrong("Equals")
	case "DataType":
		return any(v.DataType), wrong("Equals", "BeginsWith")
	case "Label":
		return any(v.Labels...), wrong("Equals", "BeginsWith")
	case "Path":
		if f.Option == nil {
			option = "OneLevel"
		}
		return slices.ContainsFunc(f.Values, func(path string) bool { return below(p.Name, path, option == "Recursive") }), wrong("Recursive", "OneLevel")
	}
	return false, &api.InvalidFilterKey{Message: fmt.Sprintf("The following filter key is not valid: %s. Valid filter keys include: [Path, Name, Type, KeyId, Tier, DataType, Label].", key)}
}

// DescribeParameters lists parameters without their values.
func (s *SSM) DescribeParameters(ctx context.Context, in *api.DescribeParametersInput) (*api.DescribeParametersOutput, error) {
	owner, snap := account(ctx), s.DB.Snapshot()
	if len(in.Filters) > 0 && len(in.ParameterFilters) > 0 {
		return nil, invalid("You can use either Filters or ParameterFilters in a single request.")
	}
	filters := slices.Clone(in.ParameterFilters)
	for _, f := range in.Filters { // the older way, which finds by beginnings
		filters = append(filters, api.ParameterStringFilter{Key: new(string(f.Key)), Option: new("BeginsWith"), Values: f.Values})
	}
	// A filter that is wrong is wrong without parameters, too.
	for _, f := range filters {
		if _, err := passes(f, &state.Parameter{}, &state.ParameterVersion{}); err != nil {
			return nil, err
		}
	}
	var rows []api.ParameterMetadata
	for p, v := range latest(snap, owner) {
		match := true
		for _, f := range filters {
			ok, err := passes(f, p, v)
			if err != nil {
				return nil, err
			}
			match = match && ok
		}
		if match {
			rows = append(rows, api.ParameterMetadata{Name: new(p.Name), ARN: new(s.arn(owner, p.Name)), Type: api.ParameterType(v.Type), KeyId: optional(v.KeyID), LastModifiedDate: new(v.ModifiedAt),
				LastModifiedUser: new(v.ModifiedBy), Description: optional(v.Description), AllowedPattern: optional(v.AllowedPattern), Version: new(int64(v.Version)),
				Tier: api.ParameterTier(v.Tier), Policies: policiesView(v.Policies), DataType: new(v.DataType)})
		}
	}
	text, err := json.Marshal(filters)
	if err != nil {
		return nil, fmt.Errorf("query of the page: %w", err)
	}
	out, next, err := pages(s, page.Query{"Describe", owner, string(text)}, rows, func(p api.ParameterMetadata) string { return *p.Name }, in.MaxResults, 50, in.NextToken)
	return &api.DescribeParametersOutput{Parameters: out, NextToken: next}, err
}

// latest are an account's parameters with their newest versions.
func latest(r store.Reader, owner string) iter.Seq2[*state.Parameter, *state.ParameterVersion] {
	return func(yield func(*state.Parameter, *state.ParameterVersion) bool) {
		for p := range state.Parameters.By(r, "account", owner) {
			if v, ok := state.ParameterVersions.Get(r, state.ParameterVersionKey(owner, p.Name, p.Latest)); ok && !yield(p, v) {
				return
			}
		}
	}
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// policiesView shows policies. They are kept, and none of them is ever due.
func policiesView(text string) []api.ParameterInlinePolicy {
	out := []api.ParameterInlinePolicy{}
	var list []json.RawMessage
	if json.Unmarshal([]byte(text), &list) != nil {
		return out // there are none
	}
	for _, p := range list {
		var kind struct{ Type string }
		if json.Unmarshal(p, &kind) == nil {
			out = append(out, api.ParameterInlinePolicy{PolicyText: new(string(p)), PolicyType: new(kind.Type), PolicyStatus: new("Pending")})
		}
	}
	return out
}

// GetParameterHistory lists the versions of a parameter, oldest first.
func (s *SSM) GetParameterHistory(ctx context.Context, in *api.GetParameterHistoryInput) (*api.GetParameterHistoryOutput, error) {
	owner, snap := account(ctx), s.DB.Snapshot()
	name := s.bare(owner, wire.Value(in.Name))
	if _, ok := state.Parameters.Get(snap, state.ParameterKey(owner, name)); !ok {
		return nil, noParameter(name)
	}
	var rows []api.ParameterHistory
	for v := range state.ParameterVersions.By(snap, "parameter", state.ParameterKey(owner, name)) {
		rows = append(rows, api.ParameterHistory{Name: new(v.Name), Type: api.ParameterType(v.Type), KeyId: optional(v.KeyID), LastModifiedDate: new(v.ModifiedAt), LastModifiedUser: new(v.ModifiedBy),
			Description: optional(v.Description), Value: new(shown(v, wire.Value(in.WithDecryption))), AllowedPattern: optional(v.AllowedPattern), Version: new(int64(v.Version)),
			Labels: append([]string{}, v.Labels...), Tier: api.ParameterTier(v.Tier), Policies: policiesView(v.Policies), DataType: new(v.DataType)})
	}
	out, next, err := pages(s, page.Query{"History", owner, name}, rows, func(h api.ParameterHistory) string { return fmt.Sprintf("%08d", *h.Version) }, in.MaxResults, 50, in.NextToken)
	return &api.GetParameterHistoryOutput{Parameters: out, NextToken: next}, err
}

func remove(tx *store.Tx, owner, name string) bool {
	key := state.ParameterKey(owner, name)
	if _, ok := state.Parameters.Get(tx, key); !ok {
		return false
	}
	for v := range state.ParameterVersions.By(tx, "parameter", key) {
		state.ParameterVersions.Delete(tx, state.ParameterVersionKey(owner, name, v.Version))
	}
	state.Parameters.Delete(tx, key)
	return true
}

// DeleteParameter removes a parameter with its history.
func (s *SSM) DeleteParameter(ctx context.Context, in *api.DeleteParameterInput) (*api.DeleteParameterOutput, error) {
	owner := account(ctx)
	return &api.DeleteParameterOutput{}, s.DB.Update(ctx, func(tx *store.Tx) error {
		if !remove(tx, owner, s.bare(owner, wire.Value(in.Name))) {
			return noParameter(wire.Value(in.Name))
		}
		return nil
	})
}

// DeleteParameters removes those that there are, and names the others.
func (s *SSM) DeleteParameters(ctx context.Context, in *api.DeleteParametersInput) (*api.DeleteParametersOutput, error) {
	owner := account(ctx)
	var out *api.DeleteParametersOutput
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		out = &api.DeleteParametersOutput{DeletedParameters: []string{}, InvalidParameters: []string{}}
		for _, name := range in.Names {
			if remove(tx, owner, s.bare(owner, name)) {
				out.DeletedParameters = append(out.DeletedParameters, name)
			} else {
				out.InvalidParameters = append(out.InvalidParameters, name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

var labelText = regexp.MustCompile(`^[a-zA-Z_.\-][a-zA-Z0-9_.\-]{0,99}$`)

func validLabel(l string) bool {
	lower := strings.ToLower(l)
	return labelText.MatchString(l) && !strings.HasPrefix(lower, "aws") && !strings.HasPrefix(lower, "ssm")
}

// LabelParameterVersion gives labels to a version. A label that another
// version has moves.
func (s *SSM) LabelParameterVersion(ctx context.Context, in *api.LabelParameterVersionInput) (*api.LabelParameterVersionOutput, error) {
	owner := account(ctx)
	var out *api.LabelParameterVersionOutput
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		p, v, err := s.version(tx, owner, in.Name, in.ParameterVersion)
		if err != nil {
			return err
		}
		out = &api.LabelParameterVersionOutput{InvalidLabels: []string{}, ParameterVersion: new(int64(v.Version))}
		var good []string
		for _, l := range in.Labels {
			if !validLabel(l) {
				out.InvalidLabels = append(out.InvalidLabels, l)
			} else if !slices.Contains(good, l) {
				good = append(good, l)
			}
		}
		for other := range state.ParameterVersions.By(tx, "parameter", state.ParameterKey(owner, p.Name)) {
			if other.Version == v.Version || !slices.ContainsFunc(other.Labels, func(l string) bool { return slices.Contains(good, l) }) {
				continue
			}
			next := *other
			next.Labels = slices.DeleteFunc(slices.Clone(other.Labels), func(l string) bool { return slices.Contains(good, l) })
			state.ParameterVersions.Put(tx, &next)
		}
		next := *v
		next.Labels = slices.Clone(v.Labels)
		for _, l := range good {
			if !slices.Contains(next.Labels, l) {
				next.Labels = append(next.Labels, l)
			}
		}
		if len(next.Labels) > maxLabels {
			return &api.ParameterVersionLabelLimitExceeded{Message: "A parameter version can have a maximum of ten labels."}
		}
		state.ParameterVersions.Put(tx, &next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// version is the version of a parameter that the labelling calls name.
func (s *SSM) version(r store.Reader, owner string, name *string, number *int64) (*state.Parameter, *state.ParameterVersion, error) {
	bare := s.bare(owner, wire.Value(name))
	p, ok := state.Parameters.Get(r, state.ParameterKey(owner, bare))
	if !ok {
		return nil, nil, noParameter(bare)
	}
	n := p.Latest
	if number != nil {
		n = int(*number)
	}
	v, ok := state.ParameterVersions.Get(r, state.ParameterVersionKey(owner, bare, n))
	if !ok {
		return nil, nil, noVersion(strconv.Itoa(n), bare)
	}
	return p, v, nil
}

// UnlabelParameterVersion takes labels from a version.
func (s *SSM) UnlabelParameterVersion(ctx context.Context, in *api.UnlabelParameterVersionInput) (*api.UnlabelParameterVersionOutput, error) {
	owner := account(ctx)
	var out *api.UnlabelParameterVersionOutput
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		_, v, err := s.version(tx, owner, in.Name, in.ParameterVersion)
		if err != nil {
			return err
		}
		out = &api.UnlabelParameterVersionOutput{RemovedLabels: []string{}, InvalidLabels: []string{}}
		next := *v
		next.Labels = slices.Clone(v.Labels)
		for _, l := range in.Labels {
			if i := slices.Index(next.Labels, l); i >= 0 {
				next.Labels = slices.Delete(next.Labels, i, i+1)
				out.RemovedLabels = append(out.RemovedLabels, l)
			} else {
				out.InvalidLabels = append(out.InvalidLabels, l)
			}
		}
		state.ParameterVersions.Put(tx, &next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
