//! The one table of routes: the server's router, the command line's requests and the OpenAPI document are made from it.

use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    AccountStateAnswer, AccountStatus, AttemptOptions, CancelledAnswer, ClientSnippet, ClosedSession,
    ConfigurationStatus, DroppedNames, EventStream, ExportRequest, Identified, ImportRequest, KeyRotation,
    MovedConfirmation, OpenApiDocument, PageUrl, PastedAnswer, RevocationAnswer, SealedExport, Session, SetupCode,
    StartedAttempt, StaticCredential,
};

/// One call of the API, with the types of its bodies.
pub trait Call {
    /// The body that is sent; `()` where there is none.
    type Request: Serialize + DeserializeOwned + JsonSchema;
    /// The body of a successful answer.
    type Answer: Serialize + DeserializeOwned + JsonSchema;
    /// Its method.
    const METHOD: Method;
    /// Its path, with at most one parameter in braces.
    const PATH: &'static str;
}

/// Where a call is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// On the page's port, without a session.
    Open,
    /// On the control socket, and with a session on the page's port.
    Session,
    /// On the control socket alone.
    ControlSocket,
}

/// One row of [`ROUTES`].
pub struct Route {
    /// What it does.
    pub operation: Operation,
    /// The operation's name in the OpenAPI document.
    pub id: &'static str,
    /// Its method.
    pub method: Method,
    /// Its path, with at most one parameter in braces.
    pub path: &'static str,
    /// Where it is served.
    pub access: Access,
    pub(super) summary: &'static str,
    pub(super) request: fn(&mut SchemaGenerator) -> Schema,
    pub(super) request_is_optional: fn() -> bool,
    pub(super) answer: fn(&mut SchemaGenerator) -> Schema,
}

macro_rules! routes {
    ($($(#[doc = $summary:literal])+ $call:ident: $method:ident $path:literal $access:ident, $request:ty => $answer:ty;)+) => {
        /// Every call of the API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Operation {
            $($(#[doc = $summary])+ $call,)+
        }

        /// Every route of the API.
        pub static ROUTES: &[Route] = &[$(Route {
            operation: Operation::$call,
            id: stringify!($call),
            method: Method::$method,
            path: $path,
            access: Access::$access,
            summary: concat!($($summary),+),
            request: SchemaGenerator::subschema_for::<$request>,
            request_is_optional: accepts_null::<$request>,
            answer: SchemaGenerator::subschema_for::<$answer>,
        },)+];

        $(
            $(#[doc = $summary])+
            pub struct $call;

            impl Call for $call {
                type Request = $request;
                type Answer = $answer;
                const METHOD: Method = Method::$method;
                const PATH: &'static str = $path;
            }
        )+
    };
}

routes! {
    /// Opens a session with a setup code.
    OpenSession: POST "/api/session" Open, SetupCode => Session;
    /// Closes the session of the call; its event streams end.
    CloseSession: DELETE "/api/session" Session, () => ClosedSession;
    /// Lists every account, in the order of the configuration.
    ListAccounts: GET "/api/accounts" Session, () => Vec<AccountStatus>;
    /// Streams the accounts: at once, and after every change.
    StreamAccounts: GET "/api/events" Session, () => EventStream;
    /// Describes this API as OpenAPI 3.1.
    DescribeApi: GET "/api/openapi.json" Session, () => OpenApiDocument;
    /// Lists what each kind of agent needs to use the account.
    ShowSnippets: GET "/api/accounts/{name}/env" Session, () => Vec<ClientSnippet>;
    /// Begins an attempt to link the account; an older attempt of the same account ends.
    BeginAttempt: POST "/api/accounts/{name}/attempts" Session, Option<AttemptOptions> => StartedAttempt;
    /// Links the account with an API key or a client secret.
    SetStaticCredential: POST "/api/accounts/{name}/key" Session, StaticCredential => AccountStateAnswer;
    /// Requests a refresh of the access token.
    RefreshAccount: POST "/api/accounts/{name}/refresh" Session, () => AccountStateAnswer;
    /// Confirms that the login may be sent to the origins that are configured now.
    ConfirmMoved: POST "/api/accounts/{name}/moved" Session, Option<MovedConfirmation> => AccountStateAnswer;
    /// Revokes the login at the provider and deletes it.
    UnlinkAccount: DELETE "/api/accounts/{name}" Session, () => RevocationAnswer;
    /// Exchanges the authorization code that the person pasted.
    Paste: POST "/api/attempts/{id}/paste" Session, PastedAnswer => Identified;
    /// Confirms whose account it is, and stores the login.
    ConfirmAttempt: POST "/api/attempts/{id}/confirm" Session, () => AccountStateAnswer;
    /// Cancels the attempt; a grant that was exchanged is revoked.
    CancelAttempt: DELETE "/api/attempts/{id}" Session, () => CancelledAnswer;
    /// Accepts an older copy of the login that was restored into the vault.
    AcceptOlderCopy: POST "/api/accounts/{name}/older-copy" ControlSocket, () => AccountStateAnswer;
    /// Shows the names of header fields and query keys that agents sent and that were not forwarded.
    ShowDropped: GET "/api/accounts/{name}/dropped" ControlSocket, () => DroppedNames;
    /// Reports where the configuration is, and whether its last change was applied.
    ReadConfiguration: GET "/api/configuration" ControlSocket, () => ConfigurationStatus;
    /// Makes a setup code and returns the page's address with it.
    SetupUrl: POST "/api/setup" ControlSocket, () => PageUrl;
    /// Makes a new key and seals every login with it.
    RotateVaultKey: POST "/api/vault/rotate" ControlSocket, () => KeyRotation;
    /// Exports every login, sealed to a passphrase.
    ExportVault: POST "/api/vault/export" ControlSocket, ExportRequest => SealedExport;
    /// Imports an export, and lists its accounts.
    ImportVault: POST "/api/vault/import" ControlSocket, ImportRequest => Vec<String>;
}

/// The route of a request and the value of its path parameter, which is empty where the path has none.
pub fn find_route<'p>(method: &Method, path: &'p str) -> Option<(&'static Route, &'p str)> {
    let routes = ROUTES.iter().filter(|route| route.method == *method);
    routes.into_iter().find_map(|route| Some((route, route.parameter_of(path)?)))
}

impl Route {
    fn parameter_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        let Some((before, _, after)) = split_path(self.path) else { return (path == self.path).then_some("") };
        let value = path.strip_prefix(before)?.strip_suffix(after)?;
        (!value.is_empty() && !value.contains('/')).then_some(value)
    }
}

/// A path around its parameter; `None` where it has none.
pub(super) fn split_path(path: &'static str) -> Option<(&'static str, &'static str, &'static str)> {
    let (before, rest) = path.split_once('{')?;
    let (name, after) = rest.split_once('}')?;
    Some((before, name, after))
}

/// The path of a call with this value of its parameter.
pub fn path_of<C: Call>(parameter: &str) -> String {
    split_path(C::PATH).map_or_else(|| C::PATH.to_owned(), |(before, _, after)| format!("{before}{parameter}{after}"))
}

fn accepts_null<T: DeserializeOwned>() -> bool {
    serde_json::from_str::<T>("null").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_route_and_its_parameter() {
        let find = |method: Method, path| find_route(&method, path).map(|(route, value)| (route.operation, value));
        assert_eq!(find(Method::GET, "/api/accounts"), Some((Operation::ListAccounts, "")));
        assert_eq!(find(Method::DELETE, "/api/accounts/a"), Some((Operation::UnlinkAccount, "a")));
        assert_eq!(find(Method::GET, "/api/accounts/a/env"), Some((Operation::ShowSnippets, "a")));
        assert_eq!(find(Method::DELETE, "/api/accounts/a/env"), None);
        assert_eq!(find(Method::GET, "/api/accounts/a/b/env"), None);
        assert_eq!(find(Method::POST, "/api/vault/other"), None);
        assert_eq!(find(Method::DELETE, "/api/accounts/"), None);
        assert_eq!(path_of::<ConfirmAttempt>("x"), "/api/attempts/x/confirm");
        assert_eq!(path_of::<ListAccounts>(""), "/api/accounts");
    }

    #[test]
    fn no_two_routes_answer_the_same_request() {
        for route in ROUTES {
            let path = route.path.replace(['{', '}'], "");
            let (found, _) = find_route(&route.method, &path).unwrap();
            assert_eq!(found.operation, route.operation, "{}", route.path);
        }
    }
}
