//! The JSON API of the page and the control socket as data: requests, answers, problems, and the one table of routes.
//!
//! The server builds its answers from these types and the command line reads them back, so that neither can drift from the
//! other. `openapi` describes the same types and the same table as OpenAPI 3.1.

mod account;
mod attempt;
mod routes;
mod configuration;
pub mod openapi;
mod problem;
mod redirect;
mod secret_text;
mod time;
mod vault;

pub use crate::oauth::profile::{Flow, TermsStatus};
pub use account::{
    AccountError, AccountState, AccountStateAnswer, AccountStatus, ClientSnippet, DroppedNames, ErrorReason,
    MovedConfirmation, PendingRevocation, QuotaLimit, Revocation, RevocationAnswer, StaticCredential, Terms,
    UsageHistory, UsageHour, Variable,
};
pub use attempt::{
    AttemptError, AttemptOptions, AttemptRedirect, AttemptStage, AttemptStatus, Cancelled, CancelledAnswer, Identified,
    PastedAnswer, StartedAttempt,
};
pub use configuration::{
    Closed, ClosedSession, ConfigurationStatus, EventStream, OpenApiDocument, PageUrl, Session, SetupCode,
};
pub use problem::Problem;
pub use redirect::Redirect;
pub use routes::{
    AcceptOlderCopy, Access, BeginAttempt, Call, CancelAttempt, CloseSession, ConfirmAttempt, ConfirmMoved,
    DescribeApi, ExportVault, ImportVault, ListAccounts, OpenSession, Operation, Paste, ROUTES, ReadConfiguration,
    RefreshAccount, RotateVaultKey, Route, SetStaticCredential, SetupUrl, ShowDropped, ShowSnippets, StreamAccounts,
    UnlinkAccount, find_route, path_of,
};
pub use secret_text::SecretText;
pub use time::Time;
pub use vault::{ExportRequest, ImportRequest, KeyRotation, SealedExport};
