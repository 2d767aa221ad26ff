package iam_test

import (
	"bytes"
	"encoding/base32"
	"image/png"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func TestMFADevice(t *testing.T) {
	w := newWorld(t)
	w.user("bob", "")
	made, err := w.CreateVirtualMFADevice(w.ctx, &sdk.CreateVirtualMFADeviceInput{VirtualMFADeviceName: new("phone"), Path: new("/mobile/"),
		Tags: []types.Tag{{Key: new("k"), Value: new("v")}}})
	if err != nil {
		t.Fatal(err)
	}
	serial := made.VirtualMFADevice.SerialNumber
	if *serial != "arn:aws:iam::000000000000:mfa/mobile/phone" {
		t.Errorf("serial %s", *serial)
	}
	seed, err := base32.StdEncoding.DecodeString(string(made.VirtualMFADevice.Base32StringSeed))
	if err != nil || len(seed) != 40 {
		t.Fatalf("seed %q: %v", made.VirtualMFADevice.Base32StringSeed, err)
	}
	if img, err := png.Decode(bytes.NewReader(made.VirtualMFADevice.QRCodePNG)); err != nil || img.Bounds().Dx() < 100 {
		t.Errorf("QR code: %v", err)
	}
	refused(t, "EntityAlreadyExists", "MFADevice entity at the same path and name already exists.")(
		w.CreateVirtualMFADevice(w.ctx, &sdk.CreateVirtualMFADeviceInput{VirtualMFADeviceName: new("phone"), Path: new("/mobile/")}))

	code := func(ahead int64) *string { return new(auth.TOTP(seed, auth.TOTPAt(w.clock())+ahead)) }
	enable := func(first, second *string) (any, error) {
		return w.EnableMFADevice(w.ctx, &sdk.EnableMFADeviceInput{UserName: new("bob"), SerialNumber: serial, AuthenticationCode1: first, AuthenticationCode2: second})
	}
	refused(t, "InvalidAuthenticationCode", "Authentication code for device is not valid.")(enable(code(0), code(0)))
	refused(t, "InvalidAuthenticationCode", "")(enable(code(0), code(2)))
	refused(t, "NoSuchEntity", "doesn't exist.")(w.EnableMFADevice(w.ctx, &sdk.EnableMFADeviceInput{UserName: new("bob"), SerialNumber: new(*serial + "x"), AuthenticationCode1: code(0), AuthenticationCode2: code(1)}))
	must(t)(enable(code(-1), code(0)))
	refused(t, "EntityAlreadyExists", "")(enable(code(1), code(2)))

	list, err := w.ListMFADevices(w.ctx, &sdk.ListMFADevicesInput{UserName: new("bob")})
	if err != nil || len(list.MFADevices) != 1 || *list.MFADevices[0].SerialNumber != *serial || list.MFADevices[0].EnableDate == nil {
		t.Errorf("devices %+v %v", list, err)
	}
	one, err := w.GetMFADevice(w.ctx, &sdk.GetMFADeviceInput{SerialNumber: serial})
	if err != nil || *one.UserName != "bob" || one.EnableDate == nil {
		t.Errorf("device %+v %v", one, err)
	}
	virtual, err := w.ListVirtualMFADevices(w.ctx, &sdk.ListVirtualMFADevicesInput{AssignmentStatus: types.AssignmentStatusTypeAssigned})
	if err != nil || len(virtual.VirtualMFADevices) != 1 || *virtual.VirtualMFADevices[0].User.UserName != "bob" || virtual.VirtualMFADevices[0].Base32StringSeed != nil {
		t.Errorf("virtual %+v %v", virtual, err)
	}
	if virtual, err = w.ListVirtualMFADevices(w.ctx, &sdk.ListVirtualMFADevicesInput{AssignmentStatus: types.AssignmentStatusTypeUnassigned}); err != nil || len(virtual.VirtualMFADevices) != 0 {
		t.Errorf("virtual %+v %v", virtual, err)
	}

	// The code of the enabling is used up; the next is good, once.
	bob, _ := state.Users.Get(w.db.Snapshot(), state.IAMKey(acct, "bob"))
	use := func(code *string) error {
		return w.db.Update(w.ctx, func(tx *store.Tx) error {
			return auth.UseMFA(tx, &auth.Caller{Kind: auth.User, Account: acct, UserID: bob.ID}, *serial, *code, w.clock())
		})
	}
	if use(code(0)) == nil {
		t.Error("the code of the enabling is good again")
	}
	w.pass(30 * time.Second)
	if err := use(code(0)); err != nil {
		t.Error(err)
	}

	// A device whose clock has run off is set right by two codes.
	if use(code(8)) == nil {
		t.Error("a code of four minutes later is good")
	}
	must(t)(w.ResyncMFADevice(w.ctx, &sdk.ResyncMFADeviceInput{UserName: new("bob"), SerialNumber: serial, AuthenticationCode1: code(8), AuthenticationCode2: code(9)}))
	if err := use(code(10)); err != nil {
		t.Error(err)
	}

	refused(t, "DeleteConflict", "must delete MFA device first.")(w.deleteUserWithoutKeys("bob"))
	refused(t, "DeleteConflict", "")(w.DeleteVirtualMFADevice(w.ctx, &sdk.DeleteVirtualMFADeviceInput{SerialNumber: serial}))
	must(t)(w.DeactivateMFADevice(w.ctx, &sdk.DeactivateMFADeviceInput{UserName: new("bob"), SerialNumber: serial}))
	must(t)(w.DeleteVirtualMFADevice(w.ctx, &sdk.DeleteVirtualMFADeviceInput{SerialNumber: serial}))
	must(t)(w.deleteUserWithoutKeys("bob"))
}

// deleteUserWithoutKeys deletes a user after its access keys.
func (w *world) deleteUserWithoutKeys(name string) (any, error) {
	keys, err := w.ListAccessKeys(w.ctx, &sdk.ListAccessKeysInput{UserName: &name})
	if err != nil {
		return nil, err
	}
	for _, k := range keys.AccessKeyMetadata {
		if _, err := w.DeleteAccessKey(w.ctx, &sdk.DeleteAccessKeyInput{UserName: &name, AccessKeyId: k.AccessKeyId}); err != nil {
			return nil, err
		}
	}
	return w.DeleteUser(w.ctx, &sdk.DeleteUserInput{UserName: &name})
}

// A user who may look at itself sees nothing of what others have.
func TestDeviceOfAnotherIsNotShown(t *testing.T) {
	w := newWorld(t)
	bob := w.user("bob", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:GetMFADevice","Resource":"arn:aws:iam::*:user/bob"}}`)
	eve := w.someone("AIDAEVE", "AKIAXXXXXXXXXXXXXXXX")
	b, _ := state.Users.Get(w.db.Snapshot(), state.IAMKey(acct, "bob"))
	w.put(func(tx *store.Tx) {
		for name, id := range map[string]string{"bobs": b.ID, "eves": eve.UserID} {
			state.MFADevices.Put(tx, &state.MFADevice{Account: acct, Path: "/", Name: name, Seed: []byte("seed"), UserID: id, EnabledAt: w.now})
		}
	})
	must(t)(bob.GetMFADevice(w.ctx, &sdk.GetMFADeviceInput{SerialNumber: new("arn:aws:iam::" + acct + ":mfa/bobs")}))
	refused(t, "NoSuchEntity", "MFA Device invalid for user.")(bob.GetMFADevice(w.ctx, &sdk.GetMFADeviceInput{SerialNumber: new("arn:aws:iam::" + acct + ":mfa/eves")}))
}
