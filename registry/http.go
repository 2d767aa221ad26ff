package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/store/state"
)

// stall is how long a transfer may stand still. Transfers may last: the
// server's own time limits are lifted for as long as bytes move.
const stall = 2 * time.Minute

// A request is one call, authenticated and with its repository in mind.
type request struct {
	g       *Registry
	w       http.ResponseWriter
	r       *http.Request
	ctx     context.Context // carries the caller
	caller  *auth.Caller
	account string // whose registry
	route
}

// key is the repository's.
func (q *request) key() string { return state.RepositoryKey(q.account, q.name) }

// Owns says whether a path belongs to the registry.
func Owns(path string) bool { return path == "/v2" || strings.HasPrefix(path, "/v2/") }

// ServeHTTP serves the distribution API.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if err := g.serve(w, r); err != nil {
		g.fail(w, r, err)
	}
}

func (g *Registry) serve(w http.ResponseWriter, r *http.Request) error {
	q := &request{g: g, w: w, r: r, ctx: r.Context(), route: parsePath(r.URL.Path)}
	if q.kind == link { // carries its own right
		return q.getLink()
	}
	user, password, ok := r.BasicAuth()
	if !ok || user != "AWS" {
		q.challenge()
		return nil
	}
	var err error
	if q.ctx, q.caller, err = g.authenticate(r, password); err != nil {
		return err
	}
	q.account = q.caller.Account
	if account, ok := parseHost(r.Host); ok {
		q.account = account
	}
	if q.name != "" && !image.ValidName(q.name) {
		return &answer{http.StatusBadRequest, "NAME_INVALID",
			"Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression '" + image.NamePattern + "''"}
	}
	m := r.Method
	switch {
	case q.kind == base && (m == http.MethodGet || m == http.MethodHead):
		return q.json(http.StatusOK, "application/json", []byte("{}"))
	case q.kind == tags && m == http.MethodGet:
		return q.listTags()
	case q.kind == referrer && m == http.MethodGet:
		return q.listReferrers()
	case q.kind == manifest && (m == http.MethodGet || m == http.MethodHead):
		return q.getManifest()
	case q.kind == manifest && m == http.MethodPut:
		return q.putManifest()
	case q.kind == manifest && m == http.MethodDelete:
		return q.deleteManifest()
	case q.kind == blob && m == http.MethodHead:
		return q.getBlob("ecr:BatchCheckLayerAvailability")
	case q.kind == blob && m == http.MethodGet:
		return q.getBlob("ecr:GetDownloadUrlForLayer")
	case q.kind == blob && m == http.MethodDelete:
		return q.deleteBlob()
	case q.kind == uploads && m == http.MethodPost:
		return q.beginUpload()
	case q.kind == upload && (m == http.MethodGet || m == http.MethodHead):
		return q.uploadStatus()
	case q.kind == upload && m == http.MethodPatch:
		return q.uploadPart()
	case q.kind == upload && m == http.MethodPut:
		return q.completeUpload()
	case q.kind == upload && m == http.MethodDelete:
		return q.cancelUpload()
	case q.kind == noRoute:
		return notFound
	}
	return unsupported
}

// challenge asks for credentials as ECR does.
func (q *request) challenge() {
	scheme := "http"
	if q.r.TLS != nil {
		scheme = "https"
	}
	h := q.w.Header()
	h.Set("Www-Authenticate", fmt.Sprintf("Basic realm=%q,service=\"ecr.amazonaws.com\"", scheme+"://"+q.r.Host+"/"))
	h.Set("Content-Type", "text/plain; charset=utf-8")
	q.w.WriteHeader(http.StatusUnauthorized)
	io.WriteString(q.w, "Not Authorized\n")
}

// allow checks that the caller may do the action on a repository, and that the
// repository exists: in this order, so that who may not ask learns nothing.
func (q *request) allow(action, name string) (*state.Repository, error) {
	if err := q.may(action, name); err != nil {
		return nil, err
	}
	return repository(q.g.DB.Snapshot(), state.RepositoryKey(q.account, name))
}

// may checks that the caller may do the action on a repository, if there is one.
func (q *request) may(action, name string) error {
	snap := q.g.DB.Snapshot()
	return q.g.Authorizer.Check(q.ctx, snap, q.caller, q.g.Check(snap, q.caller, action, q.account, name))
}

func (q *request) json(status int, mediaType string, b []byte) error {
	h := q.w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(b)))
	q.w.WriteHeader(status)
	q.w.Write(b)
	return nil
}

// created answers that something is there now.
func (q *request) created(what, digest string) error {
	h := q.w.Header()
	h.Set("Location", "/v2/"+q.name+"/"+what+"/"+digest)
	h.Set("Docker-Content-Digest", digest)
	h.Set("Content-Length", "0")
	q.w.WriteHeader(http.StatusCreated)
	return nil
}

// defaultPage is how many tags a page has when nobody says.
const defaultPage = 1000

func (q *request) listTags() error {
	if _, err := q.allow("ecr:ListImages", q.name); err != nil {
		return err
	}
	query := q.r.URL.Query()
	n := defaultPage
	if s := query.Get("n"); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil || v < 0 {
			return badPage
		}
		n = min(v, defaultPage)
	}
	last, names, more := query.Get("last"), []string{}, false
	for t := range state.ImageTags.Prefix(q.g.DB.Snapshot(), state.ImageTagKey(q.key(), "")) {
		if t.Tag <= last {
			continue
		}
		if len(names) == n {
			more = true
			break
		}
		names = append(names, t.Tag)
	}
	if more && n > 0 {
		next := url.Values{"last": {names[n-1]}, "n": {strconv.Itoa(n)}}
		q.w.Header().Set("Link", "</v2/"+q.name+"/tags/list?"+next.Encode()+`>; rel="next"`)
	}
	b, err := json.Marshal(struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{q.name, names})
	if err != nil {
		return err
	}
	return q.json(http.StatusOK, "application/json", b)
}

func (q *request) listReferrers() error {
	if _, err := q.allow("ecr:BatchGetImage", q.name); err != nil {
		return err
	}
	if _, ok := content.ParseDigest(q.ref); !ok {
		return noDigest
	}
	type descriptor struct {
		MediaType    string            `json:"mediaType"`
		Digest       string            `json:"digest"`
		Size         int64             `json:"size"`
		ArtifactType string            `json:"artifactType,omitempty"`
		Annotations  map[string]string `json:"annotations,omitempty"`
	}
	types := q.r.URL.Query()["artifactType"]
	list := []descriptor{}
	for _, i := range image.Referrers(q.g.DB.Snapshot(), q.key(), q.ref) {
		if len(types) == 0 || slices.Contains(types, i.ArtifactType) {
			list = append(list, descriptor{i.MediaType, i.Digest, i.Size, i.ArtifactType, i.Annotations})
		}
	}
	if len(types) > 0 {
		q.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	b, err := json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}{2, image.OCIIndex, list})
	if err != nil {
		return err
	}
	return q.json(http.StatusOK, image.OCIIndex, b)
}

// reference splits what a manifest is called by into digest or tag.
func (q *request) reference() (digest, tag string, err error) {
	if strings.Contains(q.ref, ":") {
		if _, ok := content.ParseDigest(q.ref); !ok {
			return "", "", noDigest
		}
		return q.ref, "", nil
	}
	return "", q.ref, nil
}

func (q *request) getManifest() error {
	if err := q.may("ecr:BatchGetImage", q.name); err != nil {
		return err
	}
	digest, tag, err := q.reference()
	if err != nil {
		return err
	}
	img, err := q.g.Fetch(q.ctx, q.account, q.name, digest, tag)
	if err != nil {
		return err
	}
	h := q.w.Header()
	h.Set("Docker-Content-Digest", img.Digest)
	h.Set("ETag", `"`+img.Digest+`"`)
	if q.r.Method == http.MethodHead {
		h.Set("Content-Type", img.MediaType)
		h.Set("Content-Length", strconv.FormatInt(img.Size, 10))
		q.w.WriteHeader(http.StatusOK)
		return nil
	}
	b := img.Manifest
	if b == nil {
		if b, err = q.g.Manifest(img.Image); err != nil {
			return err
		}
		q.g.Pulled(q.ctx, img.Image)
	}
	return q.json(http.StatusOK, img.MediaType, b)
}

func (q *request) putManifest() error {
	_, err := q.allow("ecr:PutImage", q.name)
	if _, ok := errors.AsType[*image.NoRepositoryError](err); ok {
		_, err = q.createOnPush()
	}
	if err != nil {
		return err
	}
	digest, tag, err := q.reference()
	if err != nil {
		return err
	}
	b, err := io.ReadAll(http.MaxBytesReader(q.w, io.NopCloser(q.body()), image.MaxManifest))
	if err != nil {
		return err
	}
	mediaType, _, _ := strings.Cut(q.r.Header.Get("Content-Type"), ";")
	img, _, err := q.g.PutImage(q.ctx, q.key(), strings.TrimSpace(mediaType), b, tag, digest)
	if err != nil {
		return err
	}
	if img.Subject != "" {
		q.w.Header().Set("OCI-Subject", img.Subject)
	}
	return q.created("manifests", img.Digest)
}

func (q *request) deleteManifest() error {
	if _, err := q.allow("ecr:BatchDeleteImage", q.name); err != nil {
		return err
	}
	digest, tag, err := q.reference()
	if err != nil {
		return err
	}
	if _, _, err := q.g.DeleteImage(q.ctx, q.key(), digest, tag); err != nil {
		return err
	}
	q.w.Header().Set("Content-Length", "0")
	q.w.WriteHeader(http.StatusAccepted)
	return nil
}

// deleteBlob takes a layer out of the repository, unless an image needs it.
func (q *request) deleteBlob() error {
	if _, err := q.allow("ecr:BatchDeleteImage", q.name); err != nil {
		return err
	}
	d, ok := content.ParseDigest(q.ref)
	if !ok {
		return noDigest
	}
	if err := q.g.DeleteLayer(q.ctx, q.key(), d); err != nil {
		return err
	}
	q.w.Header().Set("Content-Length", "0")
	q.w.WriteHeader(http.StatusAccepted)
	return nil
}

// getBlob serves a layer: sent by the kernel from the file where the
// connection is plain TCP.
func (q *request) getBlob(action string) error {
	if _, err := q.allow(action, q.name); err != nil {
		return err
	}
	d, ok := content.ParseDigest(q.ref)
	if !ok {
		return noDigest
	}
	if q.r.Method == http.MethodGet { // who only asks may be about to push it
		if err := q.g.fetchLayer(q.ctx, q.account, q.name, d); err != nil {
			return err
		}
	}
	snap := q.g.DB.Snapshot()
	if err := InArchive(snap, q.key(), d); err != nil && q.r.Method == http.MethodGet {
		return err
	}
	if _, ok := state.RepositoryLayers.Get(snap, state.ImageKey(q.key(), string(d))); !ok {
		// A manifest is content too, and some clients fetch it as such.
		if _, ok := state.Images.Get(snap, state.ImageKey(q.key(), string(d))); !ok {
			return blobUnknown
		}
	}
	return q.serveContent(d)
}

func (q *request) getLink() error {
	if q.r.Method != http.MethodGet && q.r.Method != http.MethodHead {
		return unsupported
	}
	d, err := q.g.openLink(q.ref)
	switch {
	case errors.Is(err, errExpired):
		return linkExpired
	case err != nil:
		return &answer{http.StatusForbidden, "DENIED", "The link is not valid"}
	}
	return q.serveContent(d)
}

func (q *request) serveContent(d content.Digest) error {
	f, size, err := q.g.content.Blob(d)
	if err != nil {
		return fmt.Errorf("layer %s: %w", d, err)
	}
	defer f.Close()
	h := q.w.Header()
	h.Set("Docker-Content-Digest", string(d))
	h.Set("ETag", `"`+string(d)+`"`)
	h.Set("Accept-Ranges", "bytes")
	h.Set("Cache-Control", "max-age=31536000, private")
	start, n, status := int64(0), size, http.StatusOK
	if s := q.r.Header.Get("Range"); s != "" && q.r.Method == http.MethodGet {
		if a, length, ok := parseRange(s, size); ok {
			if length == 0 {
				h.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
				return &answer{http.StatusRequestedRangeNotSatisfiable, "SIZE_INVALID", "The layer has no bytes in the requested range"}
			}
			start, n, status = a, length, http.StatusPartialContent
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, start+n-1, size))
		}
	}
	if start > 0 {
		if _, err := f.Seek(start, io.SeekStart); err != nil {
			return fmt.Errorf("layer %s: %w", d, err)
		}
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	q.w.WriteHeader(status)
	if q.r.Method == http.MethodHead {
		return nil
	}
	// One deadline for the whole, since sendfile is one call: a client may be
	// as slow as 64 KiB a second.
	c := http.NewResponseController(q.w)
	c.SetWriteDeadline(time.Now().Add(stall + time.Duration(n>>16)*time.Second))
	defer c.SetWriteDeadline(time.Time{}) // the connection may have further requests
	io.CopyN(q.w, f, n)                   // the client went away: there is nobody to tell
	return nil
}

// body is the request's body, which must not stand still.
func (q *request) body() io.Reader {
	return &movingReader{q.r.Body, http.NewResponseController(q.w)}
}

type movingReader struct {
	r io.Reader
	c *http.ResponseController
}

func (m *movingReader) Read(b []byte) (int, error) {
	m.c.SetReadDeadline(time.Now().Add(stall)) // not supported: nor are limits
	return m.r.Read(b)
}

func (q *request) beginUpload() error {
	repo, err := q.allow("ecr:InitiateLayerUpload", q.name)
	if _, ok := errors.AsType[*image.NoRepositoryError](err); ok {
		repo, err = q.createOnPush()
	}
	if err != nil {
		return err
	}
	query := q.r.URL.Query()
	if s := query.Get("mount"); s != "" {
		if d, ok := content.ParseDigest(s); ok {
			if done, err := q.mount(repo, d, query.Get("from")); done || err != nil {
				return err
			}
		}
	} else if s := query.Get("digest"); s != "" {
		return q.uploadAtOnce(s)
	}
	u, err := q.g.BeginUpload(q.key())
	if err != nil {
		return err
	}
	return q.uploadAt(http.StatusAccepted, u.ID, 0)
}

// mount tries to take a layer from another repository. What speaks against it
// is no error: the client then uploads.
func (q *request) mount(repo *state.Repository, d content.Digest, from string) (done bool, err error) {
	snap := q.g.DB.Snapshot()
	if _, ok := state.RepositoryLayers.Get(snap, state.ImageKey(q.key(), string(d))); ok {
		return true, q.created("blobs", string(d)) // it is here already
	}
	if !mounting(snap, q.account) {
		return false, nil
	}
	sources := []string{from}
	if from == "" { // wherever the account has it
		sources = nil
		for l := range state.RepositoryLayers.By(snap, "digest", string(d)) {
			if account, name := state.RepositoryOf(l.Repository); account == q.account {
				sources = append(sources, name)
			}
		}
	}
	for _, from := range sources {
		if !image.ValidName(from) {
			continue
		}
		source, err := q.allow("ecr:GetDownloadUrlForLayer", from)
		if err != nil || source.Encryption != repo.Encryption || source.KMSKey != repo.KMSKey {
			continue
		}
		ok, err := q.g.Mount(q.ctx, source.Key(), q.key(), d)
		if err != nil {
			return false, err
		}
		if ok {
			return true, q.created("blobs", string(d))
		}
	}
	return false, nil
}

// uploadAtOnce takes a layer in the body of the POST.
func (q *request) uploadAtOnce(digest string) error {
	for _, action := range []string{"ecr:UploadLayerPart", "ecr:CompleteLayerUpload"} {
		if _, err := q.allow(action, q.name); err != nil {
			return err
		}
	}
	d, ok := content.ParseDigest(digest)
	if !ok {
		return noDigest
	}
	u, err := q.g.BeginUpload(q.key())
	if err != nil {
		return err
	}
	if _, _, err := q.g.CompleteUpload(q.ctx, q.key(), u, d, q.body(), 0); err != nil {
		// Nobody knows the id, so nobody can go on.
		u.Cancel(context.WithoutCancel(q.ctx))
		return err
	}
	return q.created("blobs", string(d))
}

// uploadAt answers how far an upload is.
func (q *request) uploadAt(status int, id string, size int64) error {
	q.uploadHeader(id, size)
	q.w.Header().Set("Content-Length", "0")
	q.w.WriteHeader(status)
	return nil
}

func (q *request) uploadHeader(id string, size int64) {
	h := q.w.Header()
	h.Set("Location", "/v2/"+q.name+"/blobs/uploads/"+id)
	h.Set("Docker-Upload-Uuid", id)
	h.Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
}

// find finds the upload that the path names, for a caller who may do the action.
func (q *request) find(action string) (*content.Upload, error) {
	if _, err := q.allow(action, q.name); err != nil {
		return nil, err
	}
	return q.g.Upload(q.key(), q.ref)
}

func (q *request) uploadStatus() error {
	u, err := q.find("ecr:UploadLayerPart")
	if err != nil {
		return err
	}
	size, err := u.Size(q.ctx)
	if err != nil {
		return err
	}
	return q.uploadAt(http.StatusNoContent, u.ID, size)
}

func (q *request) cancelUpload() error {
	u, err := q.find("ecr:UploadLayerPart")
	if err != nil {
		return err
	}
	if err := u.Cancel(q.ctx); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

// offset says where the body belongs: -1 if the request does not say.
func (q *request) offset() (int64, error) {
	s := q.r.Header.Get("Content-Range")
	if s == "" {
		return -1, nil
	}
	first, last, ok := parseContentRange(s)
	if !ok || q.r.ContentLength >= 0 && last-first+1 != q.r.ContentLength {
		return 0, &answer{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "The range of the uploaded part is not that of its content"}
	}
	return first, nil
}

func (q *request) uploadPart() error {
	u, err := q.find("ecr:UploadLayerPart")
	if err != nil {
		return err
	}
	at, err := q.offset()
	if err != nil {
		return err
	}
	size, err := u.Append(q.ctx, q.body(), at)
	if err != nil {
		if size > 0 {
			q.uploadHeader(u.ID, size) // from where to go on
		}
		return err
	}
	return q.uploadAt(http.StatusAccepted, u.ID, size)
}

func (q *request) completeUpload() error {
	u, err := q.find("ecr:CompleteLayerUpload")
	if err != nil {
		return err
	}
	d, ok := content.ParseDigest(q.r.URL.Query().Get("digest"))
	if !ok {
		return noDigest
	}
	at, err := q.offset()
	if err != nil {
		return err
	}
	var body io.Reader
	if q.r.ContentLength != 0 {
		if _, err := q.allow("ecr:UploadLayerPart", q.name); err != nil {
			return err
		}
		body = q.body()
	}
	size, _, err := q.g.CompleteUpload(q.ctx, q.key(), u, d, body, at)
	if err != nil {
		if size > 0 && !errors.Is(err, content.ErrDigest) {
			q.uploadHeader(u.ID, size)
		}
		return err
	}
	return q.created("blobs", string(d))
}
