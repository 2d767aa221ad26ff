package wire

import (
	"errors"
	"fmt"
	"net/http"
)

// Error is an error as AWS answers it. The generated exceptions implement it,
// and so does APIError for codes that no model names.
type Error interface {
	error
	ErrorCode() string
	HTTPStatus() int
}

// APIError is an error by code, for codes without a type of their own.
type APIError struct {
	Code    string
	Message string
	Status  int
}

// NewError makes an APIError. The argument order is that of a status line.
func NewError(status int, code, message string) *APIError {
	return &APIError{Code: code, Message: message, Status: status}
}

func (e *APIError) Error() string     { return e.Code + ": " + e.Message }
func (e *APIError) ErrorCode() string { return e.Code }
func (e *APIError) HTTPStatus() int   { return e.Status }

// Code returns the AWS code in err's chain, or "".
func Code(err error) string {
	if e, ok := errors.AsType[Error](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// Unsupported is the answer to an operation of the API that this region does
// not have. It is a client error on purpose: SDKs retry server errors.
func Unsupported(d *Description, operation string) *APIError {
	code := "UnsupportedOperation"
	if d.Protocol.json() {
		code = "UnsupportedOperationException"
	}
	return NewError(http.StatusBadRequest, code,
		fmt.Sprintf("The operation %s of %s is not supported by Berth.", operation, d.Title))
}

// Value returns what p points to, or the zero value.
func Value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
