package state

import (
	"time"

	"github.com/berth-run/berth/store"
)

// What hangs on a user names it by its id, which no renaming changes.

// LoginProfile is the password of a user. The password itself is nowhere.
type LoginProfile struct {
	Account, UserID string
	Hash            string   // see service/iam for its form
	Previous        []string // hashes of passwords before it, newest first
	ResetRequired   bool
	CreatedAt       time.Time
	ChangedAt       time.Time
}

// LoginProfiles is keyed by the user's id.
var LoginProfiles = store.NewTable("loginprofile", func(p *LoginProfile) string { return p.UserID },
	store.Sealed(),
	store.Index("account", func(p *LoginProfile) []string { return []string{p.Account} }))

// MFADevice is a virtual device that makes codes.
type MFADevice struct {
	Account, Path, Name string
	Seed                []byte
	UserID              string    // whose it is, "" while it is nobody's
	EnabledAt           time.Time // zero while it is nobody's
	Drift               int64     // by how many steps the device's clock is ahead
	LastStep            int64     // of the newest code that was accepted: none is accepted twice
	Tags                []Tag
	CreatedAt           time.Time
}

// ARN is the device's ARN, which is its serial number.
func (d *MFADevice) ARN() string { return iamARN(d.Account, "mfa", d.Path, d.Name) }

// MFADevices is keyed by ARN, and sealed: it holds seeds; indexes "account" and "user".
var MFADevices = store.NewTable("mfadevice", func(d *MFADevice) string { return d.ARN() },
	store.Sealed(),
	store.Index("account", func(d *MFADevice) []string { return []string{d.Account} }),
	store.Index("user", func(d *MFADevice) []string {
		if d.UserID == "" {
			return nil
		}
		return []string{d.UserID}
	}))

// ServerCertificate is a certificate for a listener, with its key.
type ServerCertificate struct {
	Account, Path, Name string
	ID                  string // ASCA…
	Body, Chain, Key    string // PEM
	Tags                []Tag
	UploadedAt          time.Time
	Expires             time.Time
}

// ARN is the certificate's ARN.
func (c *ServerCertificate) ARN() string {
	return iamARN(c.Account, "server-certificate", c.Path, c.Name)
}

// ServerCertificates is keyed by account/name, and sealed: it holds keys; index "arn".
var ServerCertificates = store.NewTable("servercertificate", func(c *ServerCertificate) string { return IAMKey(c.Account, c.Name) },
	store.Sealed(),
	store.Index("arn", func(c *ServerCertificate) []string { return []string{c.ARN()} }))

// SigningCertificate is an X.509 certificate of a user.
type SigningCertificate struct {
	ID              string
	Account, UserID string
	Body            string // PEM
	Digest          string // of the certificate: nobody has it twice
	Active          bool
	UploadedAt      time.Time
}

// SigningCertificates is keyed by id; indexes "user" and "digest".
var SigningCertificates = store.NewTable("signingcertificate", func(c *SigningCertificate) string { return c.ID },
	store.Index("user", func(c *SigningCertificate) []string { return []string{c.UserID} }),
	store.Index("digest", func(c *SigningCertificate) []string { return []string{c.Account + "/" + c.Digest} }))

// SSHPublicKey is a public key of a user.
type SSHPublicKey struct {
	ID              string // APKA…
	Account, UserID string
	Body            string // ssh-rsa …
	Fingerprint     string // MD5, in pairs of hex digits
	Active          bool
	UploadedAt      time.Time
}

// SSHPublicKeys is keyed by id; index "user".
var SSHPublicKeys = store.NewTable("sshkey", func(k *SSHPublicKey) string { return k.ID },
	store.Index("user", func(k *SSHPublicKey) []string { return []string{k.UserID} }))

// ServiceCredential is a user name and password, or a key, for one service.
type ServiceCredential struct {
	ID              string // ACCA…
	Account, UserID string
	Service         string // codecommit.amazonaws.com
	Name            string // by which the service knows it
	Hash            string // of the password or key
	Active          bool
	CreatedAt       time.Time
	Expires         time.Time // zero: never
}

// ServiceCredentials is keyed by id; indexes "account" and "user".
var ServiceCredentials = store.NewTable("servicecredential", func(c *ServiceCredential) string { return c.ID },
	store.Sealed(),
	store.Index("account", func(c *ServiceCredential) []string { return []string{c.Account} }),
	store.Index("user", func(c *ServiceCredential) []string { return []string{c.UserID} }))
