package iam_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/berth-run/berth/store/state"
)

func TestPasswordPolicy(t *testing.T) {
	w := newWorld(t)
	refused(t, "NoSuchEntity", "The Password Policy with domain name 000000000000 cannot be found.")(w.GetAccountPasswordPolicy(w.ctx, nil))
	refused(t, "NoSuchEntity", "The account policy with name PasswordPolicy cannot be found.")(w.DeleteAccountPasswordPolicy(w.ctx, nil))
	must(t)(w.UpdateAccountPasswordPolicy(w.ctx, &sdk.UpdateAccountPasswordPolicyInput{}))
	got, err := w.GetAccountPasswordPolicy(w.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := got.PasswordPolicy
	if *p.MinimumPasswordLength != 6 || p.RequireSymbols || p.RequireNumbers || p.RequireUppercaseCharacters || p.RequireLowercaseCharacters ||
		p.AllowUsersToChangePassword || p.ExpirePasswords || p.MaxPasswordAge != nil || p.PasswordReusePrevention != nil || p.HardExpiry != nil {
		t.Errorf("defaults %+v", p)
	}
	must(t)(w.UpdateAccountPasswordPolicy(w.ctx, &sdk.UpdateAccountPasswordPolicyInput{MinimumPasswordLength: new(int32(12)), RequireSymbols: true,
		RequireNumbers: true, RequireUppercaseCharacters: true, RequireLowercaseCharacters: true, MaxPasswordAge: new(int32(90)),
		PasswordReusePrevention: new(int32(5)), HardExpiry: new(true)}))
	if got, err = w.GetAccountPasswordPolicy(w.ctx, nil); err != nil {
		t.Fatal(err)
	}
	if p := got.PasswordPolicy; *p.MinimumPasswordLength != 12 || !p.ExpirePasswords || *p.MaxPasswordAge != 90 || *p.PasswordReusePrevention != 5 || !*p.HardExpiry {
		t.Errorf("set %+v", p)
	}
	w.user("bob", "")
	for password, text := range map[string]string{
		"Aa1!":          "Password should have a minimum length of 12",
		"aaaaaaaaaaa1!": "Password should have at least one uppercase letter",
		"AAAAAAAAAAA1!": "Password should have at least one lowercase letter",
		"AAAAAAAAAAAa!": "Password should have at least one number",
		"AAAAAAAAAAAa1": "Password should have at least one symbol",
	} {
		refused(t, "PasswordPolicyViolation", text)(w.CreateLoginProfile(w.ctx, &sdk.CreateLoginProfileInput{UserName: new("bob"), Password: &password}))
	}
	refused(t, "NoSuchEntity", "")(w.root(other).GetAccountPasswordPolicy(w.ctx, nil))
}

func TestLoginProfile(t *testing.T) {
	w := newWorld(t)
	w.user("bob", "")
	name := new("bob")
	refused(t, "NoSuchEntity", "Login Profile for User bob cannot be found.")(w.GetLoginProfile(w.ctx, &sdk.GetLoginProfileInput{UserName: name}))
	refused(t, "PasswordPolicyViolation", "minimum length of 8")(w.CreateLoginProfile(w.ctx, &sdk.CreateLoginProfileInput{UserName: name, Password: new("Aa1")}))
	refused(t, "PasswordPolicyViolation", "does not conform")(w.CreateLoginProfile(w.ctx, &sdk.CreateLoginProfileInput{UserName: name, Password: new("aaaaaaaaaa")}))
	const secret = "Correct-Horse-7"
	made, err := w.CreateLoginProfile(w.ctx, &sdk.CreateLoginProfileInput{UserName: name, Password: new(secret), PasswordResetRequired: true})
	if err != nil {
		t.Fatal(err)
	}
	if *made.LoginProfile.UserName != "bob" || !made.LoginProfile.PasswordResetRequired || made.LoginProfile.CreateDate == nil {
		t.Errorf("made %+v", made.LoginProfile)
	}
	refused(t, "EntityAlreadyExists", "Login Profile for user bob already exists.")(w.CreateLoginProfile(w.ctx, &sdk.CreateLoginProfileInput{UserName: name, Password: new(secret)}))
	for p := range state.LoginProfiles.All(w.db.Snapshot()) {
		if text, _ := json.Marshal(p); strings.Contains(string(text), secret) {
			t.Errorf("the password is kept: %s", text)
		}
	}
	must(t)(w.UpdateLoginProfile(w.ctx, &sdk.UpdateLoginProfileInput{UserName: name, PasswordResetRequired: new(false)}))
	// The profile stays with the user, whatever its name is.
	must(t)(w.UpdateUser(w.ctx, &sdk.UpdateUserInput{UserName: name, NewUserName: new("rob")}))
	got, err := w.GetLoginProfile(w.ctx, &sdk.GetLoginProfileInput{UserName: new("rob")})
	if err != nil || got.LoginProfile.PasswordResetRequired || *got.LoginProfile.UserName != "rob" {
		t.Errorf("renamed %+v %v", got, err)
	}
	refused(t, "DeleteConflict", "must delete login profile first.")(w.DeleteUser(w.ctx, &sdk.DeleteUserInput{UserName: new("rob")}))
	must(t)(w.DeleteLoginProfile(w.ctx, &sdk.DeleteLoginProfileInput{UserName: new("rob")}))
	refused(t, "NoSuchEntity", "Login Profile for User rob cannot be found.")(w.DeleteLoginProfile(w.ctx, &sdk.DeleteLoginProfileInput{UserName: new("rob")}))
}

func TestChangePassword(t *testing.T) {
	w := newWorld(t)
	bob := w.user("bob", "")
	must(t)(w.CreateLoginProfile(w.ctx, &sdk.CreateLoginProfileInput{UserName: new("bob"), Password: new("First-Pass-1")}))
	change := func(from, to string) (any, error) {
		return bob.ChangePassword(w.ctx, &sdk.ChangePasswordInput{OldPassword: &from, NewPassword: &to})
	}
	refused(t, "InvalidUserType", "Only IAM Users can change their own password")(w.ChangePassword(w.ctx, &sdk.ChangePasswordInput{OldPassword: new("a"), NewPassword: new("b")}))
	refused(t, "AccessDenied", "iam:ChangePassword on resource: arn:aws:iam::000000000000:user/bob")(change("First-Pass-1", "Second-Pass-2"))
	must(t)(w.UpdateAccountPasswordPolicy(w.ctx, &sdk.UpdateAccountPasswordPolicyInput{AllowUsersToChangePassword: true, PasswordReusePrevention: new(int32(2)), MinimumPasswordLength: new(int32(8))}))
	must(t)(bob.GetAccountPasswordPolicy(w.ctx, nil))
	refused(t, "AccessDenied", "The old password was incorrect.")(change("Not-It-0", "Second-Pass-2"))
	refused(t, "PasswordPolicyViolation", "minimum length of 8")(change("First-Pass-1", "x"))
	refused(t, "PasswordPolicyViolation", "reuse")(change("First-Pass-1", "First-Pass-1"))
	must(t)(change("First-Pass-1", "Second-Pass-2"))
	refused(t, "AccessDenied", "The old password was incorrect.")(change("First-Pass-1", "Third-Pass-3"))
	refused(t, "PasswordPolicyViolation", "reuse")(change("Second-Pass-2", "First-Pass-1"))
	must(t)(change("Second-Pass-2", "Third-Pass-3"))
	must(t)(change("Third-Pass-3", "First-Pass-1")) // two are remembered, and it is the third
	// What denies it still denies it.
	must(t)(w.PutUserPolicy(w.ctx, &sdk.PutUserPolicyInput{UserName: new("bob"), PolicyName: new("no"),
		PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"iam:ChangePassword","Resource":"*"}]}`)}))
	refused(t, "AccessDenied", "explicit deny")(change("First-Pass-1", "Fourth-Pass-4"))
}

func TestCredentialReport(t *testing.T) {
	w := newWorld(t)
	refused(t, "ReportNotPresent", "")(w.GetCredentialReport(w.ctx, nil))
	w.user("bob", "")
	w.user("ann", "")
	must(t)(w.CreateLoginProfile(w.ctx, &sdk.CreateLoginProfileInput{UserName: new("bob"), Password: new("First-Pass-1")}))
	must(t)(w.UpdateAccountPasswordPolicy(w.ctx, &sdk.UpdateAccountPasswordPolicyInput{MaxPasswordAge: new(int32(10))}))
	for _, want := range []string{"STARTED", "COMPLETE"} {
		out, err := w.GenerateCredentialReport(w.ctx, nil)
		if err != nil || string(out.State) != want {
			t.Errorf("%v %v, want %s", out, err, want)
		}
	}
	out, err := w.GetCredentialReport(w.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out.Content), "\n")
	const head = "user,arn,user_creation_time,password_enabled,password_last_used,password_last_changed,password_next_rotation,mfa_active," +
		"access_key_1_active,access_key_1_last_rotated,access_key_1_last_used_date,access_key_1_last_used_region,access_key_1_last_used_service," +
		"access_key_2_active,access_key_2_last_rotated,access_key_2_last_used_date,access_key_2_last_used_region,access_key_2_last_used_service," +
		"cert_1_active,cert_1_last_rotated,cert_2_active,cert_2_last_rotated"
	if len(lines) != 4 || lines[0] != head || string(out.ReportFormat) != "text/csv" {
		t.Fatalf("report:\n%s", out.Content)
	}
	at := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05+00:00") }
	for i, want := range []string{
		"<root_account>,arn:aws:iam::000000000000:root,*,not_supported,no_information,not_supported,not_supported,false,true,*,N/A,N/A,N/A,false,N/A,N/A,N/A,N/A,false,N/A,false,N/A",
		"ann,arn:aws:iam::000000000000:user/ann,*,false,N/A,N/A,N/A,false,true,*,N/A,N/A,N/A,false,N/A,N/A,N/A,N/A,false,N/A,false,N/A",
		"bob,arn:aws:iam::000000000000:user/bob,*,true,no_information," + at(w.clock()) + "," + at(w.clock().AddDate(0, 0, 10)) + ",false,true,*,N/A,N/A,N/A,false,N/A,N/A,N/A,N/A,false,N/A,false,N/A",
	} {
		got, fields := strings.Split(lines[i+1], ","), strings.Split(want, ",")
		if len(got) != len(fields) {
			t.Errorf("line %s", lines[i+1])
			continue
		}
		for n := range got {
			if got[n] != fields[n] && fields[n] != "*" {
				t.Errorf("%s: column %d is %s, want %s", got[0], n, got[n], fields[n])
			}
		}
	}
	w.pass(5 * time.Hour)
	refused(t, "ReportExpired", "")(w.GetCredentialReport(w.ctx, nil))
	if out, err := w.GenerateCredentialReport(w.ctx, nil); err != nil || string(out.State) != "STARTED" {
		t.Errorf("%v %v", out, err)
	}
	refused(t, "ReportNotPresent", "")(w.root(other).GetCredentialReport(w.ctx, nil))
}
