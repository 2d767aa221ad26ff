package iam

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// serviceNames are the services that reports on access speak of: those that
// Berth knows, by their namespace.
var serviceNames = map[string]string{
	"acm": "AWS Certificate Manager", "apigateway": "Amazon API Gateway", "application-autoscaling": "AWS Application Auto Scaling",
	"autoscaling": "Amazon EC2 Auto Scaling", "cloudformation": "AWS CloudFormation", "cloudwatch": "Amazon CloudWatch",
	"codedeploy": "AWS CodeDeploy", "dynamodb": "Amazon DynamoDB", "ec2": "Amazon EC2", "ec2-instance-connect": "Amazon EC2 Instance Connect",
	"ecr": "Amazon Elastic Container Registry", "ecs": "Amazon Elastic Container Service", "elasticloadbalancing": "AWS Elastic Load Balancing",
	"events": "Amazon EventBridge", "iam": "AWS Identity and Access Management", "kms": "AWS Key Management Service",
	"logs": "Amazon CloudWatch Logs", "route53": "Amazon Route 53", "s3": "Amazon S3", "scheduler": "Amazon EventBridge Scheduler",
	"secretsmanager": "AWS Secrets Manager", "servicediscovery": "AWS Cloud Map", "ssm": "AWS Systems Manager",
	"sts": "AWS Security Token Service", "tag": "Amazon Resource Group Tagging API",
}

// namespaces are the services that are signed for under another name than
// their actions have.
var namespaces = map[string]string{"monitoring": "cloudwatch", "tagging": "tag", "execute-api": "apigateway"}

// A holding is a policy that somebody has, and where they have it from.
type holding struct {
	name, arn, document string // arn "" for an inline policy
	owner               api.PolicyOwnerEntityType
	ownerName           string
}

// An entity is a user, group, role or policy that a report is about.
type entity struct {
	policies []holding
	who      []state.EntityAccess // the users and roles that count, without when
}

func asUser(u *state.User) state.EntityAccess {
	return state.EntityAccess{ARN: u.ARN(), Kind: "USER", Name: u.Name, ID: u.ID, Path: u.Path}
}

func asRole(x *state.Role) state.EntityAccess {
	return state.EntityAccess{ARN: x.ARN(), Kind: "ROLE", Name: x.Name, ID: x.ID, Path: x.Path}
}

// entityByARN finds what an ARN of the account names.
func entityByARN(r store.Reader, acct, arn string) (*entity, error) {
	e := &entity{}
	hold := func(owner api.PolicyOwnerEntityType, name string, inline []state.InlinePolicy, attached []string) {
		for _, p := range inline {
			e.policies = append(e.policies, holding{name: p.Name, document: p.Document, owner: owner, ownerName: name})
		}
		for _, a := range attached {
			if p, err := anyPolicy(r, acct, a); err == nil {
				e.policies = append(e.policies, holding{name: p.Name, arn: a, document: p.Document(), owner: owner, ownerName: name})
			}
		}
	}
	if p, err := anyPolicy(r, acct, arn); err == nil {
		e.policies = append(e.policies, holding{name: p.Name, arn: arn, document: p.Document()})
		use := using(r, acct, arn)
		for _, u := range use.users {
			e.who = append(e.who, asUser(u))
		}
		for _, x := range use.roles {
			e.who = append(e.who, asRole(x))
		}
		for _, g := range use.groups {
			for _, u := range members(r, g) {
				e.who = append(e.who, asUser(u))
			}
		}
		slices.SortFunc(e.who, func(a, b state.EntityAccess) int { return strings.Compare(a.ARN, b.ARN) })
		e.who = slices.CompactFunc(e.who, func(a, b state.EntityAccess) bool { return a.ARN == b.ARN })
		return e, nil
	}
	kind, name, ok := strings.Cut(strings.TrimPrefix(arn, "arn:aws:iam::"+acct+":"), "/")
	name = name[strings.LastIndexByte(name, '/')+1:]
	if ok {
		switch kind {
		case "user":
			if u, err := user(r, acct, name); err == nil && u.ARN() == arn {
				hold(api.PolicyOwnerEntityTypeUser, u.Name, u.Inline, u.Attached)
				for _, n := range u.Groups {
					if g, err := group(r, acct, n); err == nil {
						hold(api.PolicyOwnerEntityTypeGroup, g.Name, g.Inline, g.Attached)
					}
				}
				e.who = append(e.who, asUser(u))
				return e, nil
			}
		case "group":
			if g, err := group(r, acct, name); err == nil && g.ARN() == arn {
				hold(api.PolicyOwnerEntityTypeGroup, g.Name, g.Inline, g.Attached)
				for _, u := range members(r, g) {
					e.who = append(e.who, asUser(u))
				}
				return e, nil
			}
		case "role":
			if x, err := role(r, acct, name); err == nil && x.ARN() == arn {
				hold(api.PolicyOwnerEntityTypeRole, x.Name, x.Inline, x.Attached)
				e.who = append(e.who, asRole(x))
				return e, nil
			}
		}
	}
	return nil, noSuch("ARN %s does not exist.", arn)
}

// texts reads what JSON has as one string or a list of them.
type texts []string

func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// grants reports whether a policy allows any action of a service, whatever its
// resources and conditions are.
func grants(document, namespace string) bool {
	type statement struct {
		Effect            string
		Action, NotAction texts
	}
	var doc struct{ Statement json.RawMessage }
	if json.Unmarshal([]byte(document), &doc) != nil {
		return false
	}
	var all []statement
	if json.Unmarshal(doc.Statement, &all) != nil {
		var one statement
		if json.Unmarshal(doc.Statement, &one) != nil {
			return false
		}
		all = []statement{one}
	}
	whole := func(action string) bool { return action == "*" || strings.EqualFold(action, namespace+":*") }
	for _, st := range all {
		if st.Effect != "Allow" {
			continue
		}
		for _, a := range st.Action {
			vendor, _, _ := strings.Cut(a, ":")
			if a == "*" || strings.EqualFold(vendor, namespace) {
				return true
			}
		}
		if len(st.NotAction) > 0 && !slices.ContainsFunc(st.NotAction, whole) {
			return true
		}
	}
	return false
}

// ListPoliciesGrantingServiceAccess lists which policies let somebody use which services.
func (s *Service) ListPoliciesGrantingServiceAccess(ctx context.Context, in *api.ListPoliciesGrantingServiceAccessInput) (*api.ListPoliciesGrantingServiceAccessOutput, error) {
	if strings.Contains(*in.Arn, ":policy/") {
		return nil, invalidInput("The ARN must be that of a user, group, or role.")
	}
	e, err := entityByARN(s.db.Snapshot(), account(ctx), *in.Arn)
	if err != nil {
		return nil, err
	}
	names := once(in.ServiceNamespaces)
	names, more, marker, err := cut(ctx, s, in, names, func(n string) string { return n })
	if err != nil {
		return nil, err
	}
	out := &api.ListPoliciesGrantingServiceAccessOutput{IsTruncated: more, Marker: marker, PoliciesGrantingServiceAccess: []api.ListPoliciesGrantingServiceAccessEntry{}}
	for _, n := range names {
		entry := api.ListPoliciesGrantingServiceAccessEntry{ServiceNamespace: &n, Policies: []api.PolicyGrantingServiceAccess{}}
		for _, p := range e.policies {
			if !grants(p.document, n) {
				continue
			}
			v := api.PolicyGrantingServiceAccess{PolicyName: &p.name}
			if p.arn != "" {
				v.PolicyType, v.PolicyArn = api.PolicyTypeManaged, &p.arn
			} else {
				v.PolicyType, v.EntityType, v.EntityName = api.PolicyTypeInline, p.owner, &p.ownerName
			}
			entry.Policies = append(entry.Policies, v)
		}
		out.PoliciesGrantingServiceAccess = append(out.PoliciesGrantingServiceAccess, entry)
	}
	return out, nil
}

// Reports on access are kept for a day, and no more of an account than this.
const (
	accessReportLife = 24 * time.Hour
	maxAccessReports = 100
)

// GenerateServiceLastAccessedDetails makes a report on which services somebody
// may use, and when they last did. Uses of single actions are not recorded.
func (s *Service) GenerateServiceLastAccessedDetails(ctx context.Context, in *api.GenerateServiceLastAccessedDetailsInput) (*api.GenerateServiceLastAccessedDetailsOutput, error) {
	if in.Granularity == api.AccessAdvisorUsageGranularityTypeActionLevel {
		return nil, invalidInput("The granularity ACTION_LEVEL is not supported by Berth: it records when services were used, not their actions.")
	}
	acct, now := account(ctx), s.now()
	id := newJobID()
	err := s.update(ctx, func(tx *store.Tx) error {
		e, err := entityByARN(tx, acct, *in.Arn)
		if err != nil {
			return err
		}
		report := &state.AccessReport{ID: id, Account: acct, ARN: *in.Arn, CreatedAt: now}
		for ns := range serviceNames {
			if slices.ContainsFunc(e.policies, func(p holding) bool { return grants(p.document, ns) }) {
				report.Services = append(report.Services, state.ServiceAccess{Namespace: ns, Entities: uses(tx, e.who, ns)})
			}
		}
		byKey(report.Services, func(a state.ServiceAccess) string { return a.Namespace })
		old := byKey(slices.Collect(state.AccessReports.By(tx, "account", acct)), func(r *state.AccessReport) string { return r.CreatedAt.Format(time.RFC3339) })
		for i, r := range old {
			if now.Sub(r.CreatedAt) >= accessReportLife || len(old)-i >= maxAccessReports {
				state.AccessReports.Delete(tx, r.ID)
			}
		}
		state.AccessReports.Put(tx, report)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.GenerateServiceLastAccessedDetailsOutput{JobId: &id}, nil
}

// uses are when those of who have used a service, newest first.
func uses(r store.Reader, who []state.EntityAccess, namespace string) []state.EntityAccess {
	var all []state.EntityAccess
	for _, e := range who {
		for use := range state.Uses.Prefix(r, e.ID+"/") {
			ns := use.What
			if n, ok := namespaces[ns]; ok {
				ns = n
			}
			if ns == namespace {
				e.At, e.Region = use.At, use.Region
				all = append(all, e)
				break
			}
		}
	}
	slices.SortStableFunc(all, func(a, b state.EntityAccess) int { return b.At.Compare(a.At) })
	return all
}

// newJobID makes a random UUID.
func newJobID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (s *Service) accessReport(ctx context.Context, id string) (*state.AccessReport, error) {
	r, ok := state.AccessReports.Get(s.db.Snapshot(), id)
	if !ok || r.Account != account(ctx) || s.now().Sub(r.CreatedAt) >= accessReportLife {
		return nil, noSuch("Report with job id %s cannot be found.", id)
	}
	return r, nil
}

// GetServiceLastAccessedDetails shows a report.
func (s *Service) GetServiceLastAccessedDetails(ctx context.Context, in *api.GetServiceLastAccessedDetailsInput) (*api.GetServiceLastAccessedDetailsOutput, error) {
	r, err := s.accessReport(ctx, *in.JobId)
	if err != nil {
		return nil, err
	}
	all, more, marker, err := cut(ctx, s, in, slices.Clone(r.Services), func(a state.ServiceAccess) string { return a.Namespace })
	if err != nil {
		return nil, err
	}
	out := &api.GetServiceLastAccessedDetailsOutput{JobStatus: api.JobStatusTypeCompleted, JobType: api.AccessAdvisorUsageGranularityTypeServiceLevel,
		JobCreationDate: &r.CreatedAt, JobCompletionDate: &r.CreatedAt, IsTruncated: more, Marker: marker, ServicesLastAccessed: []api.ServiceLastAccessed{}}
	for _, a := range all {
		v := api.ServiceLastAccessed{ServiceName: new(serviceNames[a.Namespace]), ServiceNamespace: &a.Namespace, TotalAuthenticatedEntities: new(int32(len(a.Entities)))}
		if len(a.Entities) > 0 {
			last := a.Entities[0]
			v.LastAuthenticated, v.LastAuthenticatedEntity, v.LastAuthenticatedRegion = &last.At, &last.ARN, &last.Region
		}
		out.ServicesLastAccessed = append(out.ServicesLastAccessed, v)
	}
	return out, nil
}

// GetServiceLastAccessedDetailsWithEntities shows who has used one service of a report.
func (s *Service) GetServiceLastAccessedDetailsWithEntities(ctx context.Context, in *api.GetServiceLastAccessedDetailsWithEntitiesInput) (*api.GetServiceLastAccessedDetailsWithEntitiesOutput, error) {
	r, err := s.accessReport(ctx, *in.JobId)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(r.Services, func(a state.ServiceAccess) bool { return a.Namespace == *in.ServiceNamespace })
	if i < 0 {
		return nil, noSuch("The report with job id %s says nothing of the service %s.", *in.JobId, *in.ServiceNamespace)
	}
	// Newest first: later times sort first.
	key := func(e state.EntityAccess) string { return fmt.Sprintf("%012d %s", 1<<36-e.At.Unix(), e.ID) }
	all, more, marker, err := cut(ctx, s, in, slices.Clone(r.Services[i].Entities), key)
	if err != nil {
		return nil, err
	}
	out := &api.GetServiceLastAccessedDetailsWithEntitiesOutput{JobStatus: api.JobStatusTypeCompleted, JobCreationDate: &r.CreatedAt,
		JobCompletionDate: &r.CreatedAt, IsTruncated: more, Marker: marker, EntityDetailsList: []api.EntityDetails{}}
	for _, e := range all {
		out.EntityDetailsList = append(out.EntityDetailsList, api.EntityDetails{LastAuthenticated: &e.At,
			EntityInfo: &api.EntityInfo{Arn: &e.ARN, Name: &e.Name, Type: api.PolicyOwnerEntityType(e.Kind), Id: &e.ID, Path: &e.Path}})
	}
	return out, nil
}
