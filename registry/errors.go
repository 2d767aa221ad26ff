package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"syscall"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/store"
)

// An answer is an error as the distribution API tells it.
type answer struct {
	status  int
	code    string
	message string
}

func (a *answer) Error() string { return a.code + ": " + a.message }

var (
	blobUnknown     = &answer{http.StatusNotFound, "BLOB_UNKNOWN", "The requested layer was not found in the repository"}
	blobInUse       = &answer{http.StatusConflict, "DENIED", "The requested layer is part of an image of the repository"}
	manifestUnknown = &answer{http.StatusNotFound, "MANIFEST_UNKNOWN", "Requested image not found"}
	uploadUnknown   = &answer{http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "The specified layer upload does not exist"}
	digestInvalid   = &answer{http.StatusBadRequest, "DIGEST_INVALID", "The provided digest did not match the uploaded content"}
	noDigest        = &answer{http.StatusBadRequest, "DIGEST_INVALID", "The provided digest is not a sha256 or sha512 digest"}
	badRange        = &answer{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "The uploaded part does not continue the layer"}
	unsupported     = &answer{http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported"}
	notFound        = &answer{http.StatusNotFound, "UNSUPPORTED", "There is nothing at this path"}
	badPage         = &answer{http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "The number of results must be a whole number that is not negative"}
	expired         = &answer{http.StatusForbidden, "DENIED", "Your authorization token has expired. Reauthenticate and try again."}
	invalidToken    = &answer{http.StatusBadRequest, "DENIED", "Your Authorization Token is invalid."}
	linkExpired     = &answer{http.StatusForbidden, "DENIED", "Request has expired"}
)

// answerTo says how an error is told. ok is false for failures of ours, whose
// text stays in the log.
func answerTo(err error) (a *answer, ok bool) {
	if a, ok := errors.AsType[*answer](err); ok {
		return a, true
	}
	bad := func(code string) *answer { return &answer{http.StatusBadRequest, code, err.Error()} }
	if e, ok := errors.AsType[*auth.Denied](err); ok {
		return &answer{http.StatusForbidden, "DENIED", e.Text}, true
	}
	if e, ok := errors.AsType[*image.NoRepositoryError](err); ok {
		return &answer{http.StatusNotFound, "NAME_UNKNOWN", e.Error()}, true
	}
	if _, ok := errors.AsType[*image.NotFoundError](err); ok {
		return manifestUnknown, true
	}
	if _, ok := errors.AsType[*image.ImmutableError](err); ok {
		return bad("TAG_INVALID"), true
	}
	if _, ok := errors.AsType[*TagError](err); ok {
		return bad("TAG_INVALID"), true
	}
	if _, ok := errors.AsType[*image.MissingLayersError](err); ok {
		return bad("MANIFEST_BLOB_UNKNOWN"), true
	}
	if _, ok := errors.AsType[*image.MissingImagesError](err); ok {
		return bad("MANIFEST_BLOB_UNKNOWN"), true
	}
	if _, ok := errors.AsType[*image.ReferencedError](err); ok {
		return bad("DENIED"), true
	}
	if _, ok := errors.AsType[*image.LimitError](err); ok {
		return bad("DENIED"), true
	}
	if _, ok := errors.AsType[*image.ArchivedError](err); ok {
		return bad("DENIED"), true
	}
	if e, ok := errors.AsType[*UpstreamError](err); ok {
		return &answer{e.status(), e.code(), e.Error()}, true
	}
	if _, ok := errors.AsType[*ManifestError](err); ok {
		return bad("MANIFEST_INVALID"), true
	}
	if _, ok := errors.AsType[*DigestError](err); ok {
		return bad("DIGEST_INVALID"), true
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &answer{http.StatusRequestEntityTooLarge, "SIZE_INVALID", "The request is larger than " + strconv.FormatInt(e.Limit, 10) + " bytes"}, true
	}
	switch {
	case errors.Is(err, errExpired):
		return expired, true
	case errors.Is(err, errInvalid):
		return invalidToken, true
	case errors.Is(err, content.ErrUnknownUpload):
		return uploadUnknown, true
	case errors.Is(err, content.ErrDigest):
		return digestInvalid, true
	case errors.Is(err, content.ErrOffset):
		return badRange, true
	case errors.Is(err, content.ErrTooLarge):
		return &answer{http.StatusRequestEntityTooLarge, "SIZE_INVALID", "The layer is larger than the quota allows"}, true
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, store.ErrNoSpace):
		return &answer{http.StatusInsufficientStorage, "UNKNOWN", "There is no space left in the registry's storage"}, false
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.Canceled), errors.Is(err, syscall.ECONNRESET):
		// The client went away; nobody reads this.
		return &answer{http.StatusBadRequest, "SIZE_INVALID", "The request ended before its content did"}, true
	}
	return &answer{http.StatusInternalServerError, "UNKNOWN", "An internal error occurred"}, false
}

// fail answers a request with an error.
func (g *Registry) fail(w http.ResponseWriter, r *http.Request, err error) {
	a, ok := answerTo(err)
	if !ok {
		g.Log.LogAttrs(r.Context(), slog.LevelError, "registry request failed",
			slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Any("error", err))
	}
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	b, err := json.Marshal(map[string][]one{"errors": {{a.code, a.message}}})
	if err != nil {
		b = []byte(`{"errors":[]}`) // strings always marshal
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(a.status)
	w.Write(b)
}
