package ssm

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ssm"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Documents of sessions that are here.
const (
	runShell           = "SSM-SessionManagerRunShell"
	interactiveCommand = "AWS-StartInteractiveCommand"
)

// refusedDocuments are AWS's other documents for sessions.
var refusedDocuments = []string{
	"AWS-StartPortForwardingSession", "AWS-StartPortForwardingSessionToRemoteHost", "AWS-StartPortForwardingSessionToSocket",
	"AWS-StartSSHSession", "AWS-StartNonInteractiveCommand",
}

// What an instance's role must allow: that it is known to Systems Manager, and
// that people get in.
const (
	inform          = "ssm:UpdateInstanceInformation"
	instanceService = "ec2.amazonaws.com"
)

var channels = []string{"ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel"}

// documentName is the name of a document that a request gives by name or ARN.
func documentName(given *string) string {
	name := wire.Value(given)
	if i := strings.LastIndex(name, ":document/"); strings.HasPrefix(name, "arn:") && i >= 0 {
		name = name[i+len(":document/"):]
	}
	return cmp.Or(name, runShell)
}

// role is the role of an instance's profile, and its ARN.
func role(r store.Reader, i *state.Instance) (string, bool) {
	p, ok := state.InstanceProfiles.Get(r, state.IAMKey(i.Account, state.ShortARN(i.Profile)))
	if i.Profile == "" || !ok || p.Role == "" {
		return "", false
	}
	role, ok := state.Roles.Get(r, state.IAMKey(i.Account, p.Role))
	if !ok {
		return "", false
	}
	return role.ARN(), true
}

// may tells whether the role of an instance may do these actions.
func (s *SSM) may(ctx context.Context, r store.Reader, i *state.Instance, actions ...string) bool {
	arn, ok := role(r, i)
	return ok && s.RoleMay != nil && s.RoleMay(ctx, r, arn, instanceService, actions...)
}

// reachable tells whether there can be a terminal in an instance.
func (s *SSM) reachable(ctx context.Context, r store.Reader, i *state.Instance) bool {
	return i.State == "running" && i.ReportedState == "running" && s.Connected != nil && s.Connected(i.Node) && s.may(ctx, r, i, append([]string{inform}, channels...)...)
}

// command is what a document runs with these parameters, nil for a shell.
func command(document string, parameters map[string][]string) ([]string, error) {
	if slices.Contains(refusedDocuments, document) {
		return nil, &api.InvalidDocument{Message: fmt.Sprintf("Document with name %s is not supported by this version of Berth.", document)}
	}
	if document != runShell && document != interactiveCommand {
		return nil, &api.InvalidDocument{Message: fmt.Sprintf("Document with name %s does not exist.", document)}
	}
	for name, values := range parameters {
		if document != interactiveCommand || name != "command" || len(values) != 1 {
			return nil, wire.NewError(400, "InvalidParameters", fmt.Sprintf("Parameter %q of document %s is not valid.", name, document))
		}
	}
	if document == runShell {
		return nil, nil
	}
	if len(parameters["command"]) == 0 || strings.TrimSpace(parameters["command"][0]) == "" {
		return nil, wire.NewError(400, "InvalidParameters", "Parameter \"command\" of document "+document+" is required.")
	}
	return []string{"/bin/sh", "-c", parameters["command"][0]}, nil
}

// sessionID begins with who begins it, so that policies can say whose it is.
func sessionID(c *auth.Caller) string {
	name := cmp.Or(c.SessionName, c.Name, "root")
	var b [9]byte
	rand.Read(b[:]) // never fails
	return name + "-" + hex.EncodeToString(b[:])[:17]
}

func newToken() string { return rand.Text() + rand.Text() + rand.Text() }

// StartSession makes a terminal in an instance, which is there once the client
// that shows the token comes.
func (s *SSM) StartSession(ctx context.Context, in *api.StartSessionInput) (*api.StartSessionOutput, error) {
	caller, target, document := auth.FromContext(ctx), *in.Target, documentName(in.DocumentName)
	runs, err := command(document, in.Parameters)
	if err != nil {
		return nil, err
	}
	id, token, now := sessionID(caller), newToken(), s.Now()
	err = s.DB.Update(ctx, func(tx *store.Tx) error {
		i, ok := state.Instances.Get(tx, target)
		if !ok || i.Account != caller.Account || !s.reachable(ctx, tx, i) {
			return &api.TargetNotConnected{Message: target + " is not connected."}
		}
		if state.LiveSessions(tx, caller.Account) >= state.Limit(tx, caller.Account, "ssm/sessions") {
			return wire.NewError(400, "LimitExceededException", "The number of sessions that are active at once has reached its limit.")
		}
		state.Sessions.Put(tx, &state.Session{
			ID: id, Account: caller.Account, Owner: caller.ARN, Target: target, Instance: i.ID, Node: i.Node, Command: runs,
			Document: document, Reason: wire.Value(in.Reason), Hash: state.SessionToken(token), Status: state.SessionConnecting, CreatedAt: now,
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.StartSessionOutput{SessionId: &id, TokenValue: &token, StreamUrl: new(auth.StreamURL(ctx, id))}, nil
}

// own is a session of the account.
func own(r store.Reader, account, id string) (*state.Session, bool) {
	x, ok := state.Sessions.Get(r, id)
	return x, ok && x.Account == account
}

func noSession(id string) error {
	return &api.DoesNotExistException{Message: "Session " + id + " does not exist."}
}

// ResumeSession gives who lost the connection another token.
func (s *SSM) ResumeSession(ctx context.Context, in *api.ResumeSessionInput) (*api.ResumeSessionOutput, error) {
	token := newToken()
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		x, ok := own(tx, account(ctx), *in.SessionId)
		if !ok || !x.Live() {
			return noSession(*in.SessionId)
		}
		n := *x
		n.Hash = state.SessionToken(token)
		state.Sessions.Put(tx, &n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.ResumeSessionOutput{SessionId: in.SessionId, TokenValue: &token, StreamUrl: new(auth.StreamURL(ctx, *in.SessionId))}, nil
}

// TerminateSession ends a session. One that has ended has.
func (s *SSM) TerminateSession(ctx context.Context, in *api.TerminateSessionInput) (*api.TerminateSessionOutput, error) {
	now := s.Now()
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		x, ok := own(tx, account(ctx), *in.SessionId)
		if !ok {
			return noSession(*in.SessionId)
		}
		if x.Live() {
			state.Sessions.Put(tx, x.End(state.SessionTerminated, now))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.TerminateSessionOutput{SessionId: in.SessionId}, nil
}

// DescribeSessions lists the account's sessions, the newest first.
func (s *SSM) DescribeSessions(ctx context.Context, in *api.DescribeSessionsInput) (*api.DescribeSessionsOutput, error) {
	q := page.Query{"DescribeSessions", account(ctx), string(in.State)}
	for _, f := range in.Filters {
		q = append(q, string(f.Key), wire.Value(f.Value))
	}
	var rows []*state.Session
	for x := range state.Sessions.By(s.DB.Snapshot(), "account", account(ctx)) {
		if x.Live() != (in.State == "Active") {
			continue
		}
		ok := true
		for _, f := range in.Filters {
			match, err := sessionMatches(x, string(f.Key), wire.Value(f.Value))
			if err != nil {
				return nil, err
			}
			ok = ok && match
		}
		if ok {
			rows = append(rows, x)
		}
	}
	key := func(x *state.Session) string { return x.CreatedAt.UTC().Format("20060102150405.000") + "/" + x.ID }
	slices.SortFunc(rows, func(a, b *state.Session) int { return strings.Compare(key(b), key(a)) })
	after := ""
	if wire.Value(in.NextToken) != "" {
		var err error
		if after, err = page.Decode(q, *in.NextToken, s.Now()); err != nil {
			return nil, &api.InvalidNextToken{Message: "The specified token isn't valid."}
		}
	}
	out := &api.DescribeSessionsOutput{Sessions: []api.Session{}}
	most := 200
	if in.MaxResults != nil {
		most = int(*in.MaxResults)
	}
	last := ""
	for _, x := range rows {
		if after != "" && key(x) >= after {
			continue
		}
		if len(out.Sessions) == most {
			out.NextToken = new(page.Encode(q, last, s.Now()))
			break
		}
		last = key(x)
		v := api.Session{SessionId: &x.ID, Target: &x.Target, Status: api.SessionStatus(x.Status), StartDate: &x.CreatedAt, Owner: &x.Owner, AccessType: "Standard"}
		if x.Document != "" {
			v.DocumentName = &x.Document
		}
		if x.Reason != "" {
			v.Reason = &x.Reason
		}
		if !x.EndedAt.IsZero() {
			v.EndDate = &x.EndedAt
		}
		out.Sessions = append(out.Sessions, v)
	}
	return out, nil
}

func sessionMatches(x *state.Session, key, value string) (bool, error) {
	switch key {
	case "Target":
		return x.Target == value, nil
	case "Owner":
		return x.Owner == value, nil
	case "Status":
		return x.Status == value, nil
	case "SessionId":
		return x.ID == value, nil
	case "AccessType":
		return value == "Standard", nil
	case "InvokedAfter", "InvokedBefore":
		at, err := time.Parse(time.RFC3339, value)
		if err != nil {
			return false, invalid("Value of filter %s is not a time: %s", key, value)
		}
		if key == "InvokedAfter" {
			return x.CreatedAt.After(at), nil
		}
		return x.CreatedAt.Before(at), nil
	}
	return false, &api.InvalidFilterKey{Message: "The specified filter key " + key + " isn't valid."}
}

// GetConnectionStatus says whether a terminal can be had.
func (s *SSM) GetConnectionStatus(ctx context.Context, in *api.GetConnectionStatusInput) (*api.GetConnectionStatusOutput, error) {
	snap := s.DB.Snapshot()
	out := &api.GetConnectionStatusOutput{Target: in.Target, Status: "notconnected"}
	if i, ok := state.Instances.Get(snap, *in.Target); ok && i.Account == account(ctx) && s.reachable(ctx, snap, i) {
		out.Status = "connected"
	}
	return out, nil
}

// DescribeInstanceInformation lists the instances that have made themselves
// known: those whose role lets them.
func (s *SSM) DescribeInstanceInformation(ctx context.Context, in *api.DescribeInstanceInformationInput) (*api.DescribeInstanceInformationOutput, error) {
	type filter struct {
		key    string
		values []string
	}
	var filters []filter
	q := page.Query{"DescribeInstanceInformation", account(ctx)}
	for _, f := range in.Filters {
		filters = append(filters, filter{wire.Value(f.Key), f.Values})
	}
	for _, f := range in.InstanceInformationFilterList {
		filters = append(filters, filter{string(f.Key), f.ValueSet})
	}
	for _, f := range filters {
		q = append(append(q, f.key), f.values...)
	}
	snap := s.DB.Snapshot()
	var rows []api.InstanceInformation
	for i := range state.Instances.By(snap, "account", account(ctx)) {
		if i.State == "terminated" || i.State == "shutting-down" || i.ReportedState == "" || !s.may(ctx, snap, i, inform) {
			continue
		}
		v := s.information(snap, i)
		ok := true
		for _, f := range filters {
			match, err := informationMatches(&v, i, f.key, f.values)
			if err != nil {
				return nil, err
			}
			ok = ok && match
		}
		if ok {
			rows = append(rows, v)
		}
	}
	slices.SortFunc(rows, func(a, b api.InstanceInformation) int { return strings.Compare(*a.InstanceId, *b.InstanceId) })
	after := ""
	if wire.Value(in.NextToken) != "" {
		var err error
		if after, err = page.Decode(q, *in.NextToken, s.Now()); err != nil {
			return nil, &api.InvalidNextToken{Message: "The specified token isn't valid."}
		}
	}
	most := 50
	if in.MaxResults != nil {
		most = int(*in.MaxResults)
	}
	out := &api.DescribeInstanceInformationOutput{InstanceInformationList: []api.InstanceInformation{}}
	for _, v := range rows {
		if *v.InstanceId <= after {
			continue
		}
		if n := len(out.InstanceInformationList); n == most {
			out.NextToken = new(page.Encode(q, *out.InstanceInformationList[n-1].InstanceId, s.Now()))
			break
		}
		out.InstanceInformationList = append(out.InstanceInformationList, v)
	}
	return out, nil
}

func (s *SSM) information(r store.Reader, i *state.Instance) api.InstanceInformation {
	v := api.InstanceInformation{
		InstanceId: &i.ID, PingStatus: "ConnectionLost", PlatformType: "Linux", ResourceType: "EC2Instance", RegistrationDate: &i.CreatedAt,
		SourceId: &i.ID, SourceType: "AWS::EC2::Instance",
	}
	if i.State == "running" && i.ReportedState == "running" && s.Connected != nil && s.Connected(i.Node) {
		v.PingStatus, v.LastPingDateTime = "Online", new(s.Now())
	}
	for e := range state.NetworkInterfaces.By(r, "instance", i.ID) {
		if e.Attachment != nil && e.Attachment.Device == 0 {
			v.IPAddress, v.ComputerName = new(e.Address.String()), new(e.PrivateDNSName)
		}
	}
	return v
}

func informationMatches(v *api.InstanceInformation, i *state.Instance, key string, values []string) (bool, error) {
	have := ""
	switch key {
	case "InstanceIds":
		have = *v.InstanceId
	case "PingStatus":
		have = string(v.PingStatus)
	case "PlatformTypes":
		have = string(v.PlatformType)
	case "ResourceType":
		have = string(v.ResourceType)
	case "IamRole", "ActivationIds", "AgentVersion", "AssociationStatus": // of none
	case "SourceIds":
		have = i.ID
	case "SourceTypes":
		have = string(v.SourceType)
	default:
		if tag, ok := strings.CutPrefix(key, "tag:"); ok {
			for _, t := range i.Tags {
				if t.Key == tag && slices.Contains(values, t.Value) {
					return true, nil
				}
			}
			return false, nil
		}
		if key == "tag-key" {
			return slices.ContainsFunc(i.Tags, func(t state.Tag) bool { return slices.Contains(values, t.Key) }), nil
		}
		return false, &api.InvalidFilterKey{Message: "The specified filter key " + key + " isn't valid."}
	}
	return slices.Contains(values, have), nil
}
