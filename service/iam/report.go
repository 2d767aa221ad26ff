package iam

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"time"

	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// reportLife is how long a credential report is good: AWS makes one every four hours.
const reportLife = 4 * time.Hour

// reportColumns are those of AWS's credential report.
var reportColumns = []string{"user", "arn", "user_creation_time", "password_enabled", "password_last_used", "password_last_changed",
	"password_next_rotation", "mfa_active", "access_key_1_active", "access_key_1_last_rotated", "access_key_1_last_used_date",
	"access_key_1_last_used_region", "access_key_1_last_used_service", "access_key_2_active", "access_key_2_last_rotated",
	"access_key_2_last_used_date", "access_key_2_last_used_region", "access_key_2_last_used_service", "cert_1_active",
	"cert_1_last_rotated", "cert_2_active", "cert_2_last_rotated"}

const none = "N/A"

func reportTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05+00:00") }

// credentialReport is the report of an account as CSV.
func credentialReport(r store.Reader, acct string) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	rows := [][]string{reportColumns}
	root := []string{"<root_account>", "arn:aws:iam::" + acct + ":root", none, "not_supported", "no_information", "not_supported", "not_supported", "false"}
	if a, ok := state.Accounts.Get(r, acct); ok {
		root[2] = reportTime(a.CreatedAt)
	}
	root = append(root, reportKeys(r, keysOf(r, acct, ""))...)
	rows = append(rows, append(root, "false", none, "false", none))
	maxAge := 0
	if p := passwordPolicy(r, acct); p != nil {
		maxAge = p.MaxAge
	}
	var users []*state.User
	for u := range state.Users.Prefix(r, acct+"/") {
		users = append(users, u)
	}
	for _, u := range byKey(users, userKey) {
		row := []string{u.Name, u.ARN(), reportTime(u.CreatedAt), "false", none, none, none, strconv.FormatBool(len(devicesOf(r, u)) > 0)}
		if p, ok := state.LoginProfiles.Get(r, u.ID); ok {
			// No password has ever signed anybody in: there is nothing to sign in to.
			row[3], row[4], row[5] = "true", "no_information", reportTime(p.ChangedAt)
			if maxAge > 0 {
				row[6] = reportTime(p.ChangedAt.AddDate(0, 0, maxAge))
			}
		}
		row = append(row, reportKeys(r, keysOf(r, acct, u.Name))...)
		certificates := signingCertificates(r, u)
		for i := range 2 {
			if i < len(certificates) {
				row = append(row, strconv.FormatBool(certificates[i].Active), reportTime(certificates[i].UploadedAt))
			} else {
				row = append(row, "false", none)
			}
		}
		rows = append(rows, row)
	}
	if err := w.WriteAll(rows); err != nil {
		return nil, fmt.Errorf("write credential report: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// reportKeys are the columns of the two access keys.
func reportKeys(r store.Reader, keys []*state.AccessKey) []string {
	var row []string
	for i := range 2 {
		if i >= len(keys) {
			row = append(row, "false", none, none, none, none)
			continue
		}
		k := keys[i]
		row = append(row, strconv.FormatBool(k.Active), reportTime(k.CreatedAt))
		if use, ok := state.Uses.Get(r, state.UseKey(k.ID, "")); ok {
			row = append(row, reportTime(use.At), use.Region, use.Service)
		} else {
			row = append(row, none, none, none)
		}
	}
	return row
}

// GenerateCredentialReport makes a report, unless there is one that is good.
// AWS takes a while; here the report is there when the call returns, and the
// next call says so.
func (s *Service) GenerateCredentialReport(ctx context.Context, _ *api.GenerateCredentialReportInput) (*api.GenerateCredentialReportOutput, error) {
	acct, now := account(ctx), s.now()
	var out api.GenerateCredentialReportOutput
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		old, ok := state.CredentialReports.Get(tx, acct)
		if ok && now.Sub(old.GeneratedAt) < reportLife {
			out = api.GenerateCredentialReportOutput{State: api.ReportStateTypeComplete}
			return nil
		}
		text, err := credentialReport(tx, acct)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err = z.Write(text); err == nil {
			err = z.Close()
		}
		if err != nil {
			return fmt.Errorf("compress credential report: %w", err)
		}
		state.CredentialReports.Put(tx, &state.CredentialReport{Account: acct, GeneratedAt: now, CSV: b.Bytes()})
		out = api.GenerateCredentialReportOutput{State: api.ReportStateTypeStarted, Description: new("No report exists. Starting a new report generation task")}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// GetCredentialReport shows the newest report.
func (s *Service) GetCredentialReport(ctx context.Context, _ *api.GetCredentialReportInput) (*api.GetCredentialReportOutput, error) {
	report, ok := state.CredentialReports.Get(s.db.Snapshot(), account(ctx))
	if !ok {
		return nil, &api.CredentialReportNotPresentException{Message: "No report exists. Please generate a report first."}
	}
	if s.now().Sub(report.GeneratedAt) >= reportLife {
		return nil, &api.CredentialReportExpiredException{Message: "The most recent credential report has expired. Please generate a new report."}
	}
	z, err := gzip.NewReader(bytes.NewReader(report.CSV))
	if err != nil {
		return nil, fmt.Errorf("read credential report: %w", err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("read credential report: %w", err)
	}
	return &api.GetCredentialReportOutput{Content: text, ReportFormat: api.ReportFormatTypeTextCsv, GeneratedTime: &report.GeneratedAt}, nil
}
