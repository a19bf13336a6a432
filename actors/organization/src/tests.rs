//! Tests of every operation, through the runtime, on both engines.

use callboard_messages::{
    ApiKeyId, CallError, Caller, Code, Cursor, Event, Failure, Limit, OrganizationId, Principal, Scopes, UserId,
    auth::UserRegistered,
    organization::{
        CreateOrganization, EnsurePersonal, GetOrganization, GetPermissions, ListOrganizations, Organization,
        OrganizationCreated, OrganizationError, Role,
    },
};
use callboard_supervisors::{
    Clock,
    events::{CloudEvent, EventTransport},
    testing::TestNode,
};
use futures_util::future::join_all;
use uuid::Uuid;

use super::{DOMAIN, MIGRATIONS, domain};

mod deletion;

async fn on_each(body: impl AsyncFn(&TestNode)) {
    TestNode::on_each(&[(DOMAIN, &MIGRATIONS)], |databases| vec![domain(databases.clone())], body).await;
}

fn person() -> Caller {
    Caller {
        principal: Principal::User,
        user_id: Some(UserId::new()),
        scopes: Scopes::new(["*"]),
        ..Caller::anonymous()
    }
}

fn key_of(person: &Caller, organization_id: OrganizationId, scopes: &[&str]) -> Caller {
    Caller {
        principal: Principal::ApiKey,
        organization_id: Some(organization_id),
        api_key_id: Some(ApiKeyId::new()),
        scopes: Scopes::new(scopes.iter().copied()),
        ..person.clone()
    }
}

fn create(name: &str) -> CreateOrganization {
    CreateOrganization { name: name.to_owned(), display_name: None }
}

fn list(limit: Limit, cursor: Option<Cursor>) -> ListOrganizations {
    ListOrganizations { limit, cursor }
}

fn ensure(person: &Caller, name: &str) -> EnsurePersonal {
    EnsurePersonal { user_id: person.user_id.unwrap(), account_name: name.to_owned(), organization_id: None }
}

#[actix_rt::test]
async fn a_creator_owns_its_organization_and_nobody_else_sees_it() {
    on_each(async |node| {
        let (ada, eve) = (person(), person());
        let made = node.ask(&ada, create("acme")).await.unwrap();
        assert_eq!((made.name.as_str(), made.display_name.as_str(), made.role), ("acme", "acme", Role::Owner));
        assert!(!made.personal);
        let get = {
            let organization_id = made.id;
            move || GetOrganization { organization_id }
        };
        assert_eq!(node.ask(&ada, get()).await.unwrap(), made);
        assert_eq!(node.refusal(&eve, get()).await, OrganizationError::NotFound);
        assert_eq!(node.ask(&ada, list(Limit::default(), None)).await.unwrap().items, [made]);
        assert!(node.ask(&eve, list(Limit::default(), None)).await.unwrap().items.is_empty());
        assert_eq!(node.ask(&Caller::anonymous(), get()).await.unwrap_err().code(), Code::Unauthenticated);
    })
    .await;
}

#[actix_rt::test]
async fn of_concurrent_creations_of_one_name_one_wins() {
    on_each(async |node| {
        let people: Vec<_> = (0..8).map(|_| person()).collect();
        let outcomes = join_all(people.iter().map(|person| node.ask(person, create("acme")))).await;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 7));
        for outcome in lost {
            let taken = OrganizationError::NameTaken("acme".to_owned());
            assert_eq!(outcome.unwrap_err(), CallError::Refused(taken));
        }
    })
    .await;
}

#[actix_rt::test]
async fn bad_names_are_refused() {
    on_each(async |node| {
        let ada = person();
        for name in ["", "A", "admin", "a--", "x".repeat(41).as_str(), "a'; DROP TABLE organizations"] {
            assert_eq!(node.ask(&ada, create(name)).await.unwrap_err().code(), Code::Invalid, "{name}");
        }
        for display_name in ["", "   ", "a\nb", "x".repeat(101).as_str()] {
            let message = CreateOrganization { name: "acme".to_owned(), display_name: Some(display_name.to_owned()) };
            assert_eq!(node.ask(&ada, message).await.unwrap_err().code(), Code::Invalid, "{display_name:?}");
        }
    })
    .await;
}

#[actix_rt::test]
async fn a_list_is_paged_newest_first_without_gaps() {
    on_each(async |node| {
        let ada = person();
        let mut made = Vec::new();
        for number in 0..5 {
            made.insert(0, node.ask(&ada, create(&format!("team-{number}"))).await.unwrap());
        }
        let (mut seen, mut cursor) = (Vec::<Organization>::new(), None);
        loop {
            let page = node.ask(&ada, list(Limit::of(2), cursor)).await.unwrap();
            assert!(page.items.len() <= 2);
            seen.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, made);
        assert_eq!(node.ask(&ada, list(Limit::of(100), None)).await.unwrap().items, made);
    })
    .await;
}

#[actix_rt::test]
async fn a_personal_organization_is_made_once_however_often_it_is_asked_for() {
    on_each(async |node| {
        let (ada, system) = (person(), Caller::system());
        let outcomes = join_all((0..8).map(|_| node.ask(&system, ensure(&ada, "Ada Lovelace")))).await;
        let first = outcomes[0].clone().unwrap();
        assert!(first.personal);
        assert_eq!((first.name.as_str(), first.display_name.as_str()), ("ada-lovelace", "Ada Lovelace"));
        for outcome in outcomes {
            assert_eq!(outcome.unwrap(), first);
        }
        let all = node.ask(&ada, list(Limit::default(), None)).await.unwrap();
        assert_eq!(all.items, [first]);
    })
    .await;
}

#[actix_rt::test]
async fn people_of_one_name_get_organizations_of_different_names() {
    on_each(async |node| {
        let system = Caller::system();
        let people: Vec<_> = (0..6).map(|_| person()).collect();
        let made = join_all(people.iter().map(|person| node.ask(&system, ensure(person, "Ada")))).await;
        let mut names: Vec<_> = made.into_iter().map(|made| made.unwrap().name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 6);
        assert_eq!(names[0], "ada");
    })
    .await;
}

#[actix_rt::test]
async fn a_person_can_join_an_organization_instead_of_getting_one() {
    on_each(async |node| {
        let (operator, ada, system) = (person(), person(), Caller::system());
        let shared = node.ask(&system, ensure(&operator, "operator")).await.unwrap();
        let join = || EnsurePersonal { organization_id: Some(shared.id), ..ensure(&ada, "Ada") };
        for _ in 0..2 {
            let joined = node.ask(&system, join()).await.unwrap();
            assert_eq!((joined.id, joined.role), (shared.id, Role::Owner));
        }
        let permissions = GetPermissions { user_id: ada.user_id.unwrap(), organization_id: None };
        assert_eq!(node.ask(&system, permissions).await.unwrap().organization_id, shared.id);

        let nowhere = EnsurePersonal { organization_id: Some(OrganizationId::new()), ..ensure(&person(), "Eve") };
        assert_eq!(node.ask(&system, nowhere).await.unwrap_err().code(), Code::NotFound);
        let later = EnsurePersonal { organization_id: Some(shared.id), ..ensure(&operator, "operator") };
        assert_eq!(node.ask(&system, later).await.unwrap().id, shared.id);
    })
    .await;
}

#[actix_rt::test]
async fn permissions_are_those_of_the_role_and_none_elsewhere() {
    on_each(async |node| {
        let (ada, system) = (person(), Caller::system());
        let user_id = ada.user_id.unwrap();
        let personal = node.ask(&system, ensure(&ada, "Ada")).await.unwrap();
        let acme = node.ask(&ada, create("acme")).await.unwrap();
        let theirs = node.ask(&person(), create("theirs")).await.unwrap();

        let by_default = node.ask(&system, GetPermissions { user_id, organization_id: None }).await.unwrap();
        assert_eq!((by_default.organization_id, by_default.role), (personal.id, Role::Owner));
        assert!(by_default.scopes.allows("project:write"));
        let there = GetPermissions { user_id, organization_id: Some(acme.id) };
        assert_eq!(node.ask(&system, there).await.unwrap().organization_id, acme.id);
        for organization_id in [theirs.id, OrganizationId::new()] {
            let message = GetPermissions { user_id, organization_id: Some(organization_id) };
            assert_eq!(node.refusal(&system, message).await, OrganizationError::NotFound);
        }
        let stranger = GetPermissions { user_id: UserId::new(), organization_id: None };
        assert_eq!(node.ask(&system, stranger).await.unwrap_err().code(), Code::NotFound);
    })
    .await;
}

#[actix_rt::test]
async fn internal_operations_are_closed_to_people() {
    on_each(async |node| {
        let ada = person();
        let permissions = GetPermissions { user_id: ada.user_id.unwrap(), organization_id: None };
        assert_eq!(node.ask(&ada, permissions).await.unwrap_err().code(), Code::Forbidden);
        assert_eq!(node.ask(&ada, ensure(&ada, "Ada")).await.unwrap_err().code(), Code::Forbidden);
    })
    .await;
}

#[actix_rt::test]
async fn a_key_is_confined_to_its_organization_and_scopes() {
    on_each(async |node| {
        let ada = person();
        let (acme, other) =
            (node.ask(&ada, create("acme")).await.unwrap(), node.ask(&ada, create("other")).await.unwrap());
        let key = key_of(&ada, acme.id, &["organization:read"]);
        let listed = node.ask(&key, list(Limit::default(), None)).await.unwrap();
        assert_eq!(listed.items, std::slice::from_ref(&acme));
        let elsewhere = GetOrganization { organization_id: other.id };
        assert_eq!(node.ask(&key, elsewhere).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(
            node.ask(&key, create("more")).await.unwrap_err(),
            CallError::Failed(Failure::Forbidden("organization:write".into()))
        );
        let blind = key_of(&ada, acme.id, &["project:read"]);
        let here = GetOrganization { organization_id: acme.id };
        assert_eq!(node.ask(&blind, here).await.unwrap_err().code(), Code::Forbidden);
    })
    .await;
}

fn registered(person: &Caller, name: &str, organization_id: Option<OrganizationId>) -> CloudEvent {
    let event = UserRegistered { user_id: person.user_id.unwrap(), name: name.to_owned(), organization_id };
    CloudEvent::new("auth", Clock::system().now(), &event).unwrap()
}

async fn created(node: &TestNode) -> i64 {
    let count = "SELECT COUNT(*) FROM outbox WHERE type = $1";
    node.database(DOMAIN).await.query(count).bind(OrganizationCreated::NAME).fetch_scalar().await.unwrap()
}

#[actix_rt::test]
async fn a_registration_that_is_heard_of_gives_a_person_one_organization() {
    on_each(async |node| {
        let (ada, system) = (person(), Caller::system());
        let event = registered(&ada, "Ada", None);
        // Twice, while the sign-in asks as well: the first creates it, and the others find it.
        let (first, again, asked) = futures_util::join!(
            node.events.publish(event.clone()),
            node.events.publish(event.clone()),
            node.ask(&system, ensure(&ada, "Ada")),
        );
        first.unwrap();
        again.unwrap();
        let asked = asked.unwrap();
        assert!(asked.personal);
        let list = node.ask(&ada, list(Limit::default(), None)).await.unwrap();
        assert_eq!(list.items, std::slice::from_ref(&asked));
        assert_eq!(created(node).await, 1, "and it is told once");

        let eve = person();
        node.events.publish(registered(&eve, "Eve", Some(asked.id))).await.unwrap();
        let joined = node.ask(&system, GetPermissions { user_id: eve.user_id.unwrap(), organization_id: None }).await;
        assert_eq!((joined.as_ref().unwrap().organization_id, joined.unwrap().role), (asked.id, Role::Owner));
    })
    .await;
}

#[actix_rt::test]
async fn a_request_that_comes_again_finds_what_it_made() {
    on_each(async |node| {
        let ada = person();
        let as_request = |person: &Caller, request| Caller { request: Some(request), ..person.clone() };
        let request = Uuid::now_v7();
        let first = as_request(&ada, request);
        let made = join_all((0..8).map(|_| node.ask(&first, create("acme")))).await;
        let organization = made[0].as_ref().unwrap();
        assert!(made.iter().all(|made| made.as_ref() == Ok(organization)), "{made:?}");
        let listed = node.ask(&ada, list(Limit::default(), None)).await.unwrap();
        assert_eq!(listed.items.as_slice(), std::slice::from_ref(organization));

        let taken = CallError::Refused(OrganizationError::NameTaken("acme".to_owned()));
        for other in [ada.clone(), as_request(&ada, Uuid::now_v7()), as_request(&person(), request)] {
            assert_eq!(node.ask(&other, create("acme")).await.unwrap_err(), taken);
        }
    })
    .await;
}
