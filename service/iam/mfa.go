package iam

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"rsc.io/qr"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// device finds a virtual device of the account by its serial number.
func device(r store.Reader, account, serial string) (*state.MFADevice, error) {
	d, ok := state.MFADevices.Get(r, serial)
	if !ok || d.Account != account {
		return nil, noSuch("VirtualMFADevice with serial number %s doesn't exist.", serial)
	}
	return d, nil
}

func devicesOf(r store.Reader, u *state.User) []*state.MFADevice {
	return byKey(slices.Collect(state.MFADevices.By(r, "user", u.ID)), (*state.MFADevice).ARN)
}

func userByID(r store.Reader, id string) *state.User {
	for u := range state.Users.By(r, "id", id) {
		return u
	}
	return nil
}

// seedBytes is how long a seed is: AWS's has 64 characters.
const seedBytes = 40

// CreateVirtualMFADevice makes a device and shows its seed, once.
func (s *Service) CreateVirtualMFADevice(ctx context.Context, in *api.CreateVirtualMFADeviceInput) (*api.CreateVirtualMFADeviceOutput, error) {
	acct := account(ctx)
	d := &state.MFADevice{Account: acct, Path: pathOf(in.Path), Name: *in.VirtualMFADeviceName, Seed: make([]byte, seedBytes), CreatedAt: s.now()}
	rand.Read(d.Seed)
	var err error
	if d.Tags, err = newTags(nil, in.Tags); err != nil {
		return nil, err
	}
	if len(d.ARN()) > maxSerial {
		return nil, validation("The serial number %s is longer than %d characters.", d.ARN(), maxSerial)
	}
	seed := base32.StdEncoding.EncodeToString(d.Seed)
	code, err := qr.Encode("otpauth://totp/"+url.PathEscape(d.Name+"@"+acct)+"?secret="+seed+"&issuer="+url.QueryEscape("Amazon Web Services"), qr.M)
	if err != nil {
		return nil, fmt.Errorf("make QR code: %w", err)
	}
	err = s.update(ctx, func(tx *store.Tx) error {
		if state.MFADevices.Has(tx, d.ARN()) {
			return exists("MFADevice entity at the same path and name already exists.")
		}
		state.MFADevices.Put(tx, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateVirtualMFADeviceOutput{VirtualMFADevice: &api.VirtualMFADevice{SerialNumber: new(d.ARN()),
		Base32StringSeed: []byte(seed), QRCodePNG: code.PNG(), Tags: viewTags(d.Tags)}}, nil
}

// maxSerial is how long a serial number may be in a request.
const maxSerial = 256

// setDevice changes a copy of a device.
func (s *Service) setDevice(ctx context.Context, serial string, change func(*store.Tx, *state.MFADevice) error) error {
	return s.update(ctx, func(tx *store.Tx) error {
		old, err := device(tx, account(ctx), serial)
		if err != nil {
			return err
		}
		next := *old
		if err := change(tx, &next); err != nil {
			return err
		}
		state.MFADevices.Put(tx, &next)
		return nil
	})
}

var errCode = &api.InvalidAuthenticationCodeException{Message: "Authentication code for device is not valid."}

// resync sets a device right by two codes that it showed one after the other.
func resync(d *state.MFADevice, first, second string, now time.Time) error {
	step, drift, ok := auth.SyncTOTP(d.Seed, first, second, now)
	if !ok || step <= d.LastStep {
		return errCode
	}
	d.LastStep, d.Drift = step, drift
	return nil
}

// EnableMFADevice makes a device a user's, who shows by two codes to have it.
func (s *Service) EnableMFADevice(ctx context.Context, in *api.EnableMFADeviceInput) (*api.EnableMFADeviceOutput, error) {
	now := s.now()
	return &api.EnableMFADeviceOutput{}, s.setDevice(ctx, *in.SerialNumber, func(tx *store.Tx, d *state.MFADevice) error {
		u, err := user(tx, d.Account, *in.UserName)
		if err != nil {
			return err
		}
		if d.UserID != "" {
			return exists("MFA Device is already in use.")
		}
		if err := full(tx, d.Account, "MFADevicesPerUser", "mfa-devices-per-user", len(devicesOf(tx, u))); err != nil {
			return err
		}
		d.UserID, d.EnabledAt = u.ID, now
		return resync(d, *in.AuthenticationCode1, *in.AuthenticationCode2, now)
	})
}

// ofOwner checks that a device is the user's.
func ofOwner(tx *store.Tx, d *state.MFADevice, name *string) error {
	u, err := user(tx, d.Account, *name)
	if err != nil {
		return err
	}
	if d.UserID != u.ID {
		return noSuch("MFA Device invalid for user.")
	}
	return nil
}

// ResyncMFADevice sets a device right whose clock has run off.
func (s *Service) ResyncMFADevice(ctx context.Context, in *api.ResyncMFADeviceInput) (*api.ResyncMFADeviceOutput, error) {
	now := s.now()
	return &api.ResyncMFADeviceOutput{}, s.setDevice(ctx, *in.SerialNumber, func(tx *store.Tx, d *state.MFADevice) error {
		if err := ofOwner(tx, d, in.UserName); err != nil {
			return err
		}
		return resync(d, *in.AuthenticationCode1, *in.AuthenticationCode2, now)
	})
}

// DeactivateMFADevice takes a device from its user. What it has already shown
// stays of no use.
func (s *Service) DeactivateMFADevice(ctx context.Context, in *api.DeactivateMFADeviceInput) (*api.DeactivateMFADeviceOutput, error) {
	return &api.DeactivateMFADeviceOutput{}, s.setDevice(ctx, *in.SerialNumber, func(tx *store.Tx, d *state.MFADevice) error {
		name := in.UserName
		if name == nil {
			u, err := named(ctx, tx, nil)
			if err != nil {
				return err
			}
			name = &u.Name
		}
		if err := ofOwner(tx, d, name); err != nil {
			return err
		}
		d.UserID, d.EnabledAt = "", time.Time{}
		return nil
	})
}

// DeleteVirtualMFADevice deletes a device that is nobody's.
func (s *Service) DeleteVirtualMFADevice(ctx context.Context, in *api.DeleteVirtualMFADeviceInput) (*api.DeleteVirtualMFADeviceOutput, error) {
	return &api.DeleteVirtualMFADeviceOutput{}, s.update(ctx, func(tx *store.Tx) error {
		d, err := device(tx, account(ctx), *in.SerialNumber)
		if err != nil {
			return err
		}
		if d.UserID != "" {
			return &api.DeleteConflictException{Message: "MFA VirtualDevice in use. Must deactivate first."}
		}
		state.MFADevices.Delete(tx, d.ARN())
		return nil
	})
}

// ListMFADevices lists the devices of a user, or of the caller.
func (s *Service) ListMFADevices(ctx context.Context, in *api.ListMFADevicesInput) (*api.ListMFADevicesOutput, error) {
	snap := s.db.Snapshot()
	out := &api.ListMFADevicesOutput{MFADevices: []api.MFADevice{}, IsTruncated: new(false)}
	name, err := owner(ctx, snap, in.UserName)
	if err != nil || name == "" { // the root user has none
		return out, err
	}
	u, err := user(snap, account(ctx), name)
	if err != nil {
		return nil, err
	}
	all, more, marker, err := cut(ctx, s, in, devicesOf(snap, u), (*state.MFADevice).ARN)
	if err != nil {
		return nil, err
	}
	out.IsTruncated, out.Marker = more, marker
	for _, d := range all {
		out.MFADevices = append(out.MFADevices, api.MFADevice{UserName: &u.Name, SerialNumber: new(d.ARN()), EnableDate: &d.EnabledAt})
	}
	return out, nil
}

// GetMFADevice shows a device and whose it is.
func (s *Service) GetMFADevice(ctx context.Context, in *api.GetMFADeviceInput) (*api.GetMFADeviceOutput, error) {
	snap := s.db.Snapshot()
	d, err := device(snap, account(ctx), *in.SerialNumber)
	if err != nil {
		return nil, err
	}
	u := userByID(snap, d.UserID)
	// Without a name, a user was authorized for itself.
	if c := auth.FromContext(ctx); in.UserName == nil && c.Kind == auth.User && (u == nil || u.ID != c.PrincipalID()) {
		return nil, noSuch("MFA Device invalid for user.")
	}
	if in.UserName != nil && (u == nil || !strings.EqualFold(u.Name, *in.UserName)) {
		return nil, noSuch("MFA Device invalid for user.")
	}
	out := &api.GetMFADeviceOutput{SerialNumber: new(d.ARN())}
	if u != nil {
		out.UserName, out.EnableDate = &u.Name, &d.EnabledAt
	}
	return out, nil
}

// ListVirtualMFADevices lists the account's devices by serial number.
func (s *Service) ListVirtualMFADevices(ctx context.Context, in *api.ListVirtualMFADevicesInput) (*api.ListVirtualMFADevicesOutput, error) {
	snap := s.db.Snapshot()
	all := slices.Collect(state.MFADevices.By(snap, "account", account(ctx)))
	all = slices.DeleteFunc(all, func(d *state.MFADevice) bool {
		return in.AssignmentStatus == api.AssignmentStatusTypeAssigned && d.UserID == "" ||
			in.AssignmentStatus == api.AssignmentStatusTypeUnassigned && d.UserID != ""
	})
	all, more, marker, err := cut(ctx, s, in, all, (*state.MFADevice).ARN)
	if err != nil {
		return nil, err
	}
	out := &api.ListVirtualMFADevicesOutput{IsTruncated: more, Marker: marker, VirtualMFADevices: []api.VirtualMFADevice{}}
	for _, d := range all {
		v := api.VirtualMFADevice{SerialNumber: new(d.ARN())}
		if u := userByID(snap, d.UserID); u != nil {
			v.User, v.EnableDate = viewUser(u, false), &d.EnabledAt
		}
		out.VirtualMFADevices = append(out.VirtualMFADevices, v)
	}
	return out, nil
}

// TagMFADevice adds tags.
func (s *Service) TagMFADevice(ctx context.Context, in *api.TagMFADeviceInput) (*api.TagMFADeviceOutput, error) {
	return &api.TagMFADeviceOutput{}, s.setDevice(ctx, *in.SerialNumber, func(_ *store.Tx, d *state.MFADevice) (err error) {
		d.Tags, err = newTags(d.Tags, in.Tags)
		return err
	})
}

// UntagMFADevice removes tags.
func (s *Service) UntagMFADevice(ctx context.Context, in *api.UntagMFADeviceInput) (*api.UntagMFADeviceOutput, error) {
	return &api.UntagMFADeviceOutput{}, s.setDevice(ctx, *in.SerialNumber, func(_ *store.Tx, d *state.MFADevice) error {
		d.Tags = withoutTags(d.Tags, in.TagKeys)
		return nil
	})
}

// ListMFADeviceTags lists tags by key.
func (s *Service) ListMFADeviceTags(ctx context.Context, in *api.ListMFADeviceTagsInput) (*api.ListMFADeviceTagsOutput, error) {
	d, err := device(s.db.Snapshot(), account(ctx), *in.SerialNumber)
	if err != nil {
		return nil, err
	}
	tags, more, marker, err := tagPage(ctx, s, in, d.Tags)
	return &api.ListMFADeviceTagsOutput{Tags: tags, IsTruncated: more, Marker: marker}, err
}
