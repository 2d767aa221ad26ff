package sdk

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"golang.org/x/crypto/ssh"
)

const allowNothing = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}`

func fiveTags() (tags []types.Tag, keys []string) {
	keys = five("key")
	for i := range keys {
		tags = append(tags, types.Tag{Key: &keys[i], Value: new("v")})
	}
	return tags, keys
}

func TestIAMPaginators(t *testing.T) {
	t.Parallel()
	c, ctx := w.iam, t.Context()
	tags, keys := fiveTags()
	user, group, role := new("paged-user"), new("paged-group"), new("paged-role")

	// One of each, with much of everything.
	done(t)(c.CreateUser(ctx, &iam.CreateUserInput{UserName: user, Path: new("/paged/"), Tags: tags}))
	done(t)(c.CreateGroup(ctx, &iam.CreateGroupInput{GroupName: group, Path: new("/paged/")}))
	done(t)(c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: role, Path: new("/paged/"), AssumeRolePolicyDocument: new(trustTasks), Tags: tags}))
	done(t)(c.CreateAccountAlias(ctx, &iam.CreateAccountAliasInput{AccountAlias: new("paged-alias")}))

	users, groups, roles, profiles, policies, inline := five("u"), five("g"), five("r"), five("p"), five("m"), five("i")
	var policyARNs []string
	for i := range users {
		done(t)(c.CreateUser(ctx, &iam.CreateUserInput{UserName: &users[i], Path: new("/paged/five/")}))
		done(t)(c.CreateGroup(ctx, &iam.CreateGroupInput{GroupName: &groups[i], Path: new("/paged/five/")}))
		done(t)(c.AddUserToGroup(ctx, &iam.AddUserToGroupInput{GroupName: group, UserName: &users[i]}))
		done(t)(c.AddUserToGroup(ctx, &iam.AddUserToGroupInput{GroupName: &groups[i], UserName: user}))
		done(t)(c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &roles[i], Path: new("/paged/five/"), AssumeRolePolicyDocument: new(trustTasks)}))
		done(t)(c.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: &profiles[i], Path: new("/paged/five/"), Tags: tags}))
		done(t)(c.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: &profiles[i], RoleName: role}))
		p := must[*iam.CreatePolicyOutput](t)(c.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: &policies[i], Path: new("/paged/"), PolicyDocument: new(allowNothing), Tags: tags}))
		arn := p.Policy.Arn
		policyARNs = append(policyARNs, *arn)
		done(t)(c.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: user, PolicyArn: arn}))
		done(t)(c.AttachGroupPolicy(ctx, &iam.AttachGroupPolicyInput{GroupName: group, PolicyArn: arn}))
		done(t)(c.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: role, PolicyArn: arn}))
		done(t)(c.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: user, PolicyName: &inline[i], PolicyDocument: new(allowNothing)}))
		done(t)(c.PutGroupPolicy(ctx, &iam.PutGroupPolicyInput{GroupName: group, PolicyName: &inline[i], PolicyDocument: new(allowNothing)}))
		done(t)(c.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: role, PolicyName: &inline[i], PolicyDocument: new(allowNothing)}))
	}
	for i := range users {
		done(t)(c.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: &users[i], PolicyArn: &policyARNs[0]}))
	}
	versions := []string{"v1", "v2", "v3", "v4", "v5"}
	for range versions[1:] {
		done(t)(c.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: &policyARNs[0], PolicyDocument: new(allowNothing)}))
	}

	// Credentials.
	var access, sshKeys, signing, serials, certificates []string
	for i := range 2 {
		k := must[*iam.CreateAccessKeyOutput](t)(c.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: user}))
		access = append(access, *k.AccessKey.AccessKeyId)
		certificate, _ := certify(t, fmt.Sprint("signing ", i))
		s := must[*iam.UploadSigningCertificateOutput](t)(c.UploadSigningCertificate(ctx, &iam.UploadSigningCertificateInput{UserName: user, CertificateBody: &certificate}))
		signing = append(signing, *s.Certificate.CertificateId)
	}
	for range 5 {
		k := must[*iam.UploadSSHPublicKeyOutput](t)(c.UploadSSHPublicKey(ctx, &iam.UploadSSHPublicKeyInput{UserName: user, SSHPublicKeyBody: new(sshKey(t))}))
		sshKeys = append(sshKeys, *k.SSHPublicKey.SSHPublicKeyId)
	}
	certificate, key := certify(t, "paged.example.com")
	for i := range five("c") {
		name := fmt.Sprintf("paged-%d", i)
		done(t)(c.UploadServerCertificate(ctx, &iam.UploadServerCertificateInput{ServerCertificateName: &name, Path: new("/paged/"), CertificateBody: &certificate, PrivateKey: &key, Tags: tags}))
		certificates = append(certificates, name)
		d := must[*iam.CreateVirtualMFADeviceOutput](t)(c.CreateVirtualMFADevice(ctx, &iam.CreateVirtualMFADeviceInput{VirtualMFADeviceName: &name, Path: new("/paged/"), Tags: tags}))
		serials = append(serials, *d.VirtualMFADevice.SerialNumber)
		seed := must[[]byte](t)(base32.StdEncoding.DecodeString(string(d.VirtualMFADevice.Base32StringSeed)))
		step := time.Now().Unix() / 30
		done(t)(c.EnableMFADevice(ctx, &iam.EnableMFADeviceInput{UserName: user, SerialNumber: d.VirtualMFADevice.SerialNumber, AuthenticationCode1: new(totp(seed, step-1)), AuthenticationCode2: new(totp(seed, step))}))
	}
	oidc := must[*iam.CreateOpenIDConnectProviderOutput](t)(c.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: new("https://paged.example.com"),
		ThumbprintList: []string{strings.Repeat("a", 40)}, Tags: tags})).OpenIDConnectProviderArn
	saml := must[*iam.CreateSAMLProviderOutput](t)(c.CreateSAMLProvider(ctx, &iam.CreateSAMLProviderInput{Name: new("paged"), SAMLMetadataDocument: new(samlMetadata(certificate)), Tags: tags})).SAMLProviderArn

	var actions []string
	for _, name := range five("op") {
		actions = append(actions, "ecs:"+strings.ReplaceAll(name, "-", ""))
	}

	paginate(t, "iam", []listing{
		pages(c, iam.NewListUsersPaginator, &iam.ListUsersInput{PathPrefix: new("/paged/five/")}, 2, "Users.UserName", users),
		pages(c, iam.NewListGroupsPaginator, &iam.ListGroupsInput{PathPrefix: new("/paged/five/")}, 2, "Groups.GroupName", groups),
		pages(c, iam.NewListRolesPaginator, &iam.ListRolesInput{PathPrefix: new("/paged/five/")}, 2, "Roles.RoleName", roles),
		pages(c, iam.NewListInstanceProfilesPaginator, &iam.ListInstanceProfilesInput{PathPrefix: new("/paged/five/")}, 2, "InstanceProfiles.InstanceProfileName", profiles),
		pages(c, iam.NewListInstanceProfilesForRolePaginator, &iam.ListInstanceProfilesForRoleInput{RoleName: role}, 2, "InstanceProfiles.InstanceProfileName", profiles),
		pages(c, iam.NewListPoliciesPaginator, &iam.ListPoliciesInput{Scope: types.PolicyScopeTypeLocal, PathPrefix: new("/paged/")}, 2, "Policies.Arn", policyARNs),
		pages(c, iam.NewListPoliciesPaginator, &iam.ListPoliciesInput{Scope: types.PolicyScopeTypeAws}, 5, "Policies.Arn", nil),
		pages(c, iam.NewListPolicyVersionsPaginator, &iam.ListPolicyVersionsInput{PolicyArn: &policyARNs[0]}, 2, "Versions.VersionId", versions),
		pages(c, iam.NewListEntitiesForPolicyPaginator, &iam.ListEntitiesForPolicyInput{PolicyArn: &policyARNs[0], EntityFilter: types.EntityTypeUser}, 2, "PolicyUsers.UserName", append([]string{*user}, users...)),
		pages(c, iam.NewGetGroupPaginator, &iam.GetGroupInput{GroupName: group}, 2, "Users.UserName", users),
		pages(c, iam.NewListGroupsForUserPaginator, &iam.ListGroupsForUserInput{UserName: user}, 2, "Groups.GroupName", groups),
		pages(c, iam.NewListAttachedUserPoliciesPaginator, &iam.ListAttachedUserPoliciesInput{UserName: user}, 2, "AttachedPolicies.PolicyName", policies),
		pages(c, iam.NewListAttachedGroupPoliciesPaginator, &iam.ListAttachedGroupPoliciesInput{GroupName: group}, 2, "AttachedPolicies.PolicyName", policies),
		pages(c, iam.NewListAttachedRolePoliciesPaginator, &iam.ListAttachedRolePoliciesInput{RoleName: role}, 2, "AttachedPolicies.PolicyName", policies),
		pages(c, iam.NewListUserPoliciesPaginator, &iam.ListUserPoliciesInput{UserName: user}, 2, "PolicyNames", inline),
		pages(c, iam.NewListGroupPoliciesPaginator, &iam.ListGroupPoliciesInput{GroupName: group}, 2, "PolicyNames", inline),
		pages(c, iam.NewListRolePoliciesPaginator, &iam.ListRolePoliciesInput{RoleName: role}, 2, "PolicyNames", inline),
		pages(c, iam.NewGetAccountAuthorizationDetailsPaginator, &iam.GetAccountAuthorizationDetailsInput{Filter: []types.EntityType{types.EntityTypeUser}}, 2, "UserDetailList.UserName", append([]string{*user}, users...)),
		pages(c, iam.NewSimulateCustomPolicyPaginator, &iam.SimulateCustomPolicyInput{PolicyInputList: []string{allowNothing}, ActionNames: actions}, 2, "EvaluationResults.EvalActionName", actions),
		pages(c, iam.NewSimulatePrincipalPolicyPaginator, &iam.SimulatePrincipalPolicyInput{PolicySourceArn: new("arn:aws:iam::" + w.Account + ":user/paged/" + *user), ActionNames: actions}, 2, "EvaluationResults.EvalActionName", actions),

		pages(c, iam.NewListAccessKeysPaginator, &iam.ListAccessKeysInput{UserName: user}, 1, "AccessKeyMetadata.AccessKeyId", access).few(2),
		pages(c, iam.NewListSigningCertificatesPaginator, &iam.ListSigningCertificatesInput{UserName: user}, 1, "Certificates.CertificateId", signing).few(2),
		pages(c, iam.NewListAccountAliasesPaginator, &iam.ListAccountAliasesInput{}, 1, "AccountAliases", []string{"paged-alias"}).few(1),
		pages(c, iam.NewListSSHPublicKeysPaginator, &iam.ListSSHPublicKeysInput{UserName: user}, 2, "SSHPublicKeys.SSHPublicKeyId", sshKeys),
		pages(c, iam.NewListServerCertificatesPaginator, &iam.ListServerCertificatesInput{PathPrefix: new("/paged/")}, 2, "ServerCertificateMetadataList.ServerCertificateName", certificates),
		pages(c, iam.NewListMFADevicesPaginator, &iam.ListMFADevicesInput{UserName: user}, 2, "MFADevices.SerialNumber", serials),
		pages(c, iam.NewListVirtualMFADevicesPaginator, &iam.ListVirtualMFADevicesInput{}, 2, "VirtualMFADevices.SerialNumber", serials),

		pages(c, iam.NewListUserTagsPaginator, &iam.ListUserTagsInput{UserName: user}, 2, "Tags.Key", keys),
		pages(c, iam.NewListRoleTagsPaginator, &iam.ListRoleTagsInput{RoleName: role}, 2, "Tags.Key", keys),
		pages(c, iam.NewListPolicyTagsPaginator, &iam.ListPolicyTagsInput{PolicyArn: &policyARNs[0]}, 2, "Tags.Key", keys),
		pages(c, iam.NewListInstanceProfileTagsPaginator, &iam.ListInstanceProfileTagsInput{InstanceProfileName: &profiles[0]}, 2, "Tags.Key", keys),
		pages(c, iam.NewListServerCertificateTagsPaginator, &iam.ListServerCertificateTagsInput{ServerCertificateName: &certificates[0]}, 2, "Tags.Key", keys),
		pages(c, iam.NewListMFADeviceTagsPaginator, &iam.ListMFADeviceTagsInput{SerialNumber: &serials[0]}, 2, "Tags.Key", keys),
		pages(c, iam.NewListOpenIDConnectProviderTagsPaginator, &iam.ListOpenIDConnectProviderTagsInput{OpenIDConnectProviderArn: oidc}, 2, "Tags.Key", keys),
		pages(c, iam.NewListSAMLProviderTagsPaginator, &iam.ListSAMLProviderTagsInput{SAMLProviderArn: saml}, 2, "Tags.Key", keys),
	})
}

// certify makes a certificate that signed itself, and its key, in PEM.
func certify(t *testing.T, name string) (certificate, private string) {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key))
	secret := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

// sshKey is the public half of a key that nobody has the other half of.
func sshKey(t *testing.T) string {
	t.Helper()
	n := make([]byte, 256)
	_, _ = rand.Read(n) // never fails
	n[0] |= 0x80
	n[255] |= 1
	k := must[ssh.PublicKey](t)(ssh.NewPublicKey(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}))
	return string(ssh.MarshalAuthorizedKey(k))
}

// totp is the code that a device shows at a step of time (RFC 6238).
func totp(seed []byte, step int64) string {
	mac := hmac.New(sha1.New, seed)
	_ = binary.Write(mac, binary.BigEndian, step) // a hash takes everything
	sum := mac.Sum(nil)
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[sum[len(sum)-1]&15:])&(1<<31-1)%1_000_000)
}

// samlMetadata is how an identity provider describes itself.
func samlMetadata(certificate string) string {
	lines := strings.Split(strings.TrimSpace(certificate), "\n")
	return `<?xml version="1.0"?><md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="https://idp.example.com/saml">` +
		`<md:IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"><md:KeyDescriptor use="signing">` +
		`<ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data><ds:X509Certificate>` + strings.Join(lines[1:len(lines)-1], "") +
		`</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>` +
		`<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="https://idp.example.com/sso"/>` +
		`</md:IDPSSODescriptor><!-- ` + strings.Repeat("x", 1000) + ` --></md:EntityDescriptor>`
}
