//! What stands around every page: navigation, organizations, the person, and what was just done.

use callboard_messages::{
    Limit, OrganizationId,
    auth::WhoAmI,
    organization::{ListOrganizations, Organization},
};
use futures_util::join;
use serde::Serialize;
use uuid::Uuid;

use super::{
    navigation::{self, EntryView},
    request::PageRequest,
    toast::Toast,
};

/// Organizations that the switch lists; the page of organizations has all.
const ORGANIZATIONS: Limit = Limit::of(100);

/// What the person may do in the organization; a page leaves out what would be refused.
#[derive(Debug, Serialize)]
struct May {
    create: bool,
    deploy: bool,
    configure: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Frame {
    /// How the person is addressed; empty while auth does not answer.
    account: String,
    email: String,
    administrator: bool,
    /// The one acted for.
    acts_for: Option<OrganizationId>,
    /// The same; absent while nobody knows its name.
    organization: Option<Organization>,
    organizations: Vec<Organization>,
    navigation: Vec<EntryView>,
    toast: Option<Toast>,
    /// This page's path, with its query.
    address: String,
    may: May,
    /// What makes a form of this page the same one when it is sent again.
    attempt: Uuid,
    /// Whether the page of components is there.
    development: bool,
}

impl Frame {
    /// A page is shown also while auth or organization does not answer: the frame lacks their part then.
    pub(super) async fn of(request: &PageRequest, toast: Option<Toast>) -> Self {
        let list = ListOrganizations { limit: ORGANIZATIONS, cursor: None };
        let (identity, organizations) = join!(request.ask(WhoAmI {}), request.ask(list));
        let account = identity.ok().map(|identity| identity.account);
        let organizations = organizations.map(|page| page.items).unwrap_or_default();
        let caller = request.caller();
        let acted_for = |organization: &&Organization| Some(organization.id) == caller.organization_id;
        let (name, email) = account.map(|account| (account.name, account.email)).unwrap_or_default();
        Self {
            account: if name.is_empty() { email.clone() } else { name },
            email,
            administrator: caller.administrator,
            acts_for: caller.organization_id,
            organization: organizations.iter().find(acted_for).cloned(),
            organizations,
            navigation: navigation::entries(request.http().path(), caller.administrator),
            toast,
            address: request.address(),
            may: May {
                create: caller.scopes.allows("project:write") && caller.scopes.allows("deploy:create"),
                deploy: caller.scopes.allows("deploy:create"),
                configure: caller.scopes.allows("project:write"),
            },
            attempt: Uuid::now_v7(),
            development: request.worker().shared.development,
        }
    }
}
