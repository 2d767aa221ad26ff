package wire

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// MaxBody bounds a request's body. ECR's UploadLayerPart is the largest that
// AWS takes: 20 MB of layer, in base64.
const MaxBody = 32 << 20

// A Router finds the service and operation that a request means. It is
// immutable and safe for concurrent use.
type Router struct {
	targets   map[string]*Service   // JSON, by target prefix
	versions  map[string][]*Service // Query, by API version
	signing   map[string][]*Service
	queryOnly []*Service
}

// NewRouter makes a router over services.
func NewRouter(services ...*Service) *Router {
	r := &Router{
		targets:  map[string]*Service{},
		versions: map[string][]*Service{},
		signing:  map[string][]*Service{},
	}
	for _, s := range services {
		r.signing[s.SigningName] = append(r.signing[s.SigningName], s)
		if s.Protocol.json() {
			r.targets[s.TargetPrefix] = s
			continue
		}
		r.versions[s.APIVersion] = append(r.versions[s.APIVersion], s)
		r.queryOnly = append(r.queryOnly, s)
	}
	return r
}

// A Call is a request on its way through the server. Its methods are the steps
// of that way, apart so that authentication and authorization come between:
//
//	call, err := router.Route(req, body)   service and operation
//	in, err := call.Decode()
//	err = call.Validate(in)
//	out, err := call.Invoke(ctx, in)
//	call.EncodeResponse(w, id, out)   or   call.EncodeError(w, id, err)
type Call struct {
	Service   *Service   // nil if the request does not say
	Operation *Operation // nil if Route returned an error
	Protocol  Protocol   // to answer in

	body  []byte
	query string    // of the URL: the first part of a form
	form  *formNode // Decode makes it: before, nobody knows who calls
}

// Route finds the operation of a request whose body has been read. The Call is
// never nil: with an error it can still encode that error the way the caller
// understands.
func (r *Router) Route(req *http.Request, body []byte) (*Call, error) {
	signing := SigningName(req)
	c := &Call{body: body}
	// What an error is answered in until more is known.
	c.Protocol = Query
	if s := r.signing[signing]; len(s) > 0 {
		c.Service, c.Protocol = s[0], s[0].Protocol
	}
	content := req.Header.Get("Content-Type")
	if content != contentJSON11[0] {
		content, _, _ = mime.ParseMediaType(content)
	}
	if target := req.Header.Get("X-Amz-Target"); target != "" {
		return c, r.routeJSON(c, req.Method, target, content)
	}
	if strings.HasPrefix(content, "application/x-amz-json-") {
		c.Protocol = jsonOf(content)
		return c, unknownOperation("")
	}
	return c, r.routeQuery(c, req, content, signing)
}

func jsonOf(content string) Protocol {
	if content == "application/x-amz-json-1.0" {
		return JSON10
	}
	return JSON11
}

func unknownOperation(name string) *APIError {
	message := ""
	if name != "" {
		message = fmt.Sprintf("The operation %s is unknown.", shorten(name))
	}
	return NewError(http.StatusBadRequest, "UnknownOperationException", message)
}

func (r *Router) routeJSON(c *Call, method, target, content string) error {
	c.Protocol = jsonOf(content)
	// The last dot, because a prefix may have dots of its own.
	dot := strings.LastIndexByte(target, '.')
	if dot < 0 {
		return unknownOperation(target)
	}
	s, operation := r.targets[target[:dot]], target[dot+1:]
	if s == nil {
		return unknownOperation(operation)
	}
	c.Service = s
	switch content {
	case "application/x-amz-json-1.1", "application/x-amz-json-1.0":
	case "application/json":
		// Hand-made requests say this; AWS takes it too.
		c.Protocol = s.Protocol
	default:
		return unknownOperation(operation)
	}
	if method != http.MethodPost {
		return unknownOperation(operation)
	}
	return c.choose(operation, func() *APIError { return unknownOperation(operation) })
}

// choose sets the operation, or says that it is not to be had here, or returns
// what unknown says.
func (c *Call) choose(operation string, unknown func() *APIError) error {
	if o := c.Service.Operations[operation]; o != nil {
		c.Operation = o
		return nil
	}
	if c.Service.knows(operation) {
		return Unsupported(c.Service.Description, operation)
	}
	return unknown()
}

func (r *Router) routeQuery(c *Call, req *http.Request, content, signing string) error {
	if req.Method != http.MethodPost && req.Method != http.MethodGet {
		return NewError(http.StatusMethodNotAllowed, "UnsupportedHttpVerb", "The requested HTTP verb is not supported: "+shorten(req.Method))
	}
	var action, version string
	note := func(name, value string) error {
		switch name {
		case "Action":
			action = value
		case "Version":
			version = value
		}
		return nil
	}
	c.query = req.URL.RawQuery
	if req.Method == http.MethodGet {
		c.body = nil
	}
	err := parameters(c.query, note)
	if err == nil && req.Method == http.MethodPost {
		if content != "application/x-www-form-urlencoded" && len(c.body) > 0 {
			return NewError(http.StatusBadRequest, "MalformedQueryString", "The content type of the request is not application/x-www-form-urlencoded.")
		}
		err = parameters(string(c.body), note)
	}
	if s := r.queryService(action, version, signing); s != nil {
		c.Service, c.Protocol = s, s.Protocol
	} else {
		c.Service = nil
	}
	if err != nil {
		return err
	}
	if action == "" {
		if c.Protocol == EC2Query {
			return NewError(http.StatusBadRequest, "MissingParameter", "The request must contain the parameter Action")
		}
		return NewError(http.StatusBadRequest, "MissingAction", "The request must contain the parameter Action.")
	}
	if c.Protocol == EC2Query && c.Service != nil {
		switch {
		case version == "":
			return NewError(http.StatusBadRequest, "MissingParameter", "The request must contain the parameter Version")
		case version > c.Service.APIVersion:
			// Older versions are served as the current one.
			return NewError(http.StatusBadRequest, "NoSuchVersion", fmt.Sprintf("The requested version (%s) of service AmazonEC2 does not exist", shorten(version)))
		}
		return c.choose(action, func() *APIError {
			return NewError(http.StatusBadRequest, "InvalidAction", fmt.Sprintf("The action %s is not valid for this web service.", shorten(action)))
		})
	}
	invalid := func() *APIError {
		return NewError(http.StatusBadRequest, "InvalidAction",
			fmt.Sprintf("Could not find operation %s for version %s", shorten(action), shorten(firstOf(version, "NO_VERSION_SPECIFIED"))))
	}
	if c.Service == nil || version != c.Service.APIVersion {
		return invalid()
	}
	return c.choose(action, invalid)
}

// queryService picks a service. The signing name is exact where it is given;
// without one (an unsigned call) the version nearly always is, too.
func (r *Router) queryService(action, version, signing string) *Service {
	for _, candidates := range [][]*Service{r.signing[signing], r.versions[version]} {
		var only *Service
		for _, s := range candidates {
			if s.Protocol.json() {
				continue
			}
			if s.Operations[action] != nil || s.knows(action) || only == nil {
				only = s
			}
		}
		if only != nil {
			return only
		}
	}
	return nil
}

// maxScope is longer than any credential scope.
const maxScope = 1024

// SigningName is the service that the request's credential scope names, or "".
// It is what the caller claims: nothing is verified here.
func SigningName(req *http.Request) string {
	scope := ""
	if _, rest, ok := strings.Cut(req.Header.Get("Authorization"), "Credential="); ok {
		scope, _, _ = strings.Cut(rest, ",")
	} else if strings.Contains(req.URL.RawQuery, "X-Amz-Credential=") {
		if q, err := url.ParseQuery(req.URL.RawQuery); err == nil {
			scope = q.Get("X-Amz-Credential")
		}
	}
	if len(scope) > maxScope {
		return ""
	}
	scope = strings.TrimSpace(scope)
	if strings.Count(scope, "/") < 4 {
		return ""
	}
	scope = scope[:strings.LastIndexByte(scope, '/')]
	return scope[strings.LastIndexByte(scope, '/')+1:]
}
