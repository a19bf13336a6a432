//! `auth`.

use callboard_messages::auth::{
    CreateApiKey, CreateInvitation, ListApiKeys, ListSessions, Login, Logout, LogoutAll, RefreshToken, Register,
    RevokeApiKey, RevokeSession, WhoAmI,
};

use crate::{ask::ask, table::Routes};

pub(super) fn routes() -> Routes {
    Routes::new(super::API)
        .post("/auth/register", ask::<Register>().sign_in().created(|_| "/api/v1/auth/whoami".to_owned()))
        .post("/auth/login", ask::<Login>().sign_in())
        .post("/auth/refresh", ask::<RefreshToken>().sign_in())
        .post("/auth/logout", ask::<Logout>())
        .post("/auth/logout-all", ask::<LogoutAll>())
        .get("/auth/whoami", ask::<WhoAmI>())
        .get("/auth/sessions", ask::<ListSessions>().listing::<{ ListSessions::MOST }>())
        .delete("/auth/sessions/{session_id}", ask::<RevokeSession>())
        .get("/auth/api-keys", ask::<ListApiKeys>().listing::<{ ListApiKeys::MOST }>())
        .post("/auth/api-keys", ask::<CreateApiKey>().created(|_| "/api/v1/auth/api-keys".to_owned()))
        .delete("/auth/api-keys/{api_key_id}", ask::<RevokeApiKey>())
        .post("/auth/invitations", ask::<CreateInvitation>().created(|_| "/setup".to_owned()))
}
