//! The keys that access tokens are signed with.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AuthError;
use crate::{Access, Operation};

/// A JSON Web Key Set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwks {
    /// The keys that tokens may be signed with now.
    pub keys: Vec<Jwk>,
}

/// An RSA public key, RFC 7517 and 7518.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    /// `RSA`.
    pub kty: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    /// `RS256`.
    pub alg: String,
    /// The key's id, in each token's header.
    pub kid: String,
    /// Modulus, base64url.
    pub n: String,
    /// Exponent, base64url.
    pub e: String,
}

/// The public signing keys, RFC 7517.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GetJwks {}

impl Operation for GetJwks {
    const NAME: &'static str = "auth.jwks";
    const ACCESS: Access = Access::Public;
    const IDEMPOTENT: bool = true;
    type Reply = Jwks;
    type Error = AuthError;
}

/// A signing key takes over; tokens of the one before stay valid until they expire.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RotateSigningKey {}

impl Operation for RotateSigningKey {
    const NAME: &'static str = "auth.rotate_signing_key";
    const ACCESS: Access = Access::Internal;
    type Reply = Jwks;
    type Error = AuthError;
}
