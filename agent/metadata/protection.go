package metadata

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
)

// protectionAnswer is the answer of the task protection endpoint: one of its
// three fields.
type protectionAnswer struct {
	Protection *protectedTask     `json:"protection,omitempty"`
	Failure    *protectionFailure `json:"failure,omitempty"`
	Error      *protectionError   `json:"error,omitempty"`
}

type protectedTask struct {
	ExpirationDate    *time.Time `json:",omitempty"`
	ProtectionEnabled bool
	TaskArn           string
}

type protectionFailure struct {
	Arn, Reason string
	Detail      string `json:",omitempty"`
}

type protectionError struct {
	Arn           string
	Code, Message string
}

const protectionBody = 1 << 10

// protection reads or changes the protection of the task of a container, in
// the name of the task's own role.
func (s *Server) protection(w http.ResponseWriter, r *http.Request) {
	task := ""
	fail := func(status int, code, message string) {
		reply(w, status, protectionAnswer{Error: &protectionError{Arn: task, Code: code, Message: message}})
	}
	t, _ := s.Tasks.Lookup(r.PathValue("id"))
	if t == nil || !asks(r, t.Def.Arn) {
		fail(http.StatusNotFound, "ResourceNotFoundException", "Failed to find a task for the request")
		return
	}
	task = t.Def.Arn
	if t.RoleCredentials == "" {
		fail(http.StatusForbidden, "AccessDeniedException", "Invalid Request: no task IAM role credentials available for task")
		return
	}
	var in *ecs.UpdateTaskProtectionInput
	switch r.Method {
	case http.MethodGet:
	case http.MethodPut:
		var body struct {
			ProtectionEnabled *bool
			ExpiresInMinutes  *int32
		}
		d := json.NewDecoder(io.LimitReader(r.Body, protectionBody))
		d.DisallowUnknownFields()
		if err := d.Decode(&body); err != nil {
			fail(http.StatusBadRequest, "InvalidParameterException", "UpdateTaskProtection: failed to decode request")
			return
		}
		if body.ProtectionEnabled == nil {
			fail(http.StatusBadRequest, "InvalidParameterException", "Invalid request: does not contain 'ProtectionEnabled' field")
			return
		}
		in = &ecs.UpdateTaskProtectionInput{ProtectionEnabled: body.ProtectionEnabled, ExpiresInMinutes: body.ExpiresInMinutes}
	default:
		w.Header().Set("Allow", "GET, PUT")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	out, err := s.Protection(r.Context(), t, in)
	if err != nil {
		if code, ok := status(err); ok {
			fail(code, wire.Code(err), err.Error())
		} else {
			fail(http.StatusInternalServerError, "ServerException", err.Error())
		}
		return
	}
	switch {
	case len(out.Failures) > 0:
		f := out.Failures[0]
		reply(w, http.StatusOK, protectionAnswer{Failure: &protectionFailure{wire.Value(f.Arn), wire.Value(f.Reason), wire.Value(f.Detail)}})
	case len(out.ProtectedTasks) > 0:
		p := out.ProtectedTasks[0]
		reply(w, http.StatusOK, protectionAnswer{Protection: &protectedTask{p.ExpirationDate, wire.Value(p.ProtectionEnabled), wire.Value(p.TaskArn)}})
	default:
		fail(http.StatusInternalServerError, "ServerException", "Unexpected error: should return exactly one protected task")
	}
}

// status is the HTTP status that the control plane answered an error with.
func status(err error) (int, bool) {
	e, ok := errors.AsType[wire.Error](err)
	if !ok {
		return 0, false
	}
	return e.HTTPStatus(), true
}
