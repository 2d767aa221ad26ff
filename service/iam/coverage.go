package iam

// Stored lists the request fields that are kept and shown but not acted upon,
// by operation and field, each with what that means.
var Stored = map[string]string{
	"CreateLoginProfile.PasswordResetRequired":                      "kept; there is no sign-in that a password opens",
	"UpdateLoginProfile.PasswordResetRequired":                      "kept; there is no sign-in that a password opens",
	"UpdateAccountPasswordPolicy.MaxPasswordAge":                    "kept; only the credential report tells of it, as there is no sign-in",
	"UpdateAccountPasswordPolicy.HardExpiry":                        "kept; there is no sign-in that a password opens",
	"SetSecurityTokenServicePreferences.GlobalEndpointTokenVersion": "kept and shown by GetAccountSummary; all tokens are of one kind",
	"CreateOpenIDConnectProvider.ThumbprintList":                    "kept; the certificate of a provider is checked as any other",
	"UpdateOpenIDConnectProviderThumbprint.ThumbprintList":          "kept; the certificate of a provider is checked as any other",
	"CreateSAMLProvider.AssertionEncryptionMode":                    "kept; encrypted assertions are not decrypted",
	"CreateSAMLProvider.AddPrivateKey":                              "kept, sealed; encrypted assertions are not decrypted",
	"UpdateSAMLProvider.AssertionEncryptionMode":                    "kept; encrypted assertions are not decrypted",
	"UpdateSAMLProvider.AddPrivateKey":                              "kept, sealed; encrypted assertions are not decrypted",
	"UploadSigningCertificate.CertificateBody":                      "kept; no API of Berth takes signatures by certificate",
	"UploadSSHPublicKey.SSHPublicKeyBody":                           "kept; CodeCommit, which it is for, does not exist",
	"CreateServiceSpecificCredential.ServiceName":                   "kept; none of the services that take such credentials exists",
	"UploadServerCertificate.PrivateKey":                            "kept, sealed, for the listeners that name the certificate",
}
