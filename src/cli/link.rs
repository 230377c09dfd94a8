//! `pixy link NAME`: links an account from a terminal or a pipe.

mod messages;
mod qr;

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::control_client::{CallError, ControlClient};
use super::terminal::{
    EchoOff, OutputStyle, TerminalLocation, is_interactive, print_error, print_json, print_line, prompt,
};
use super::{CommandError, problem_text, runtime};
use crate::api::{
    self, AccountStatus, AttemptError, AttemptRedirect, AttemptStage, AttemptStatus, ErrorReason, Flow, Identified,
    MovedConfirmation, PastedAnswer, Problem, StartedAttempt, StaticCredential,
};
use crate::secret::Secret;

/// How often the state of an attempt is read.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Lines of standard input.
type InputLines = Lines<BufReader<Stdin>>;

/// The linking of one account, and how its steps are printed.
struct LinkSession<'a> {
    control: &'a ControlClient,
    name: &'a str,
    style: OutputStyle,
    as_json: bool,
}

/// Why nothing was linked.
enum LinkError {
    /// Pixy or the provider refused.
    Refused(AttemptError),
    /// The person stopped: the attempt is cancelled.
    Stopped(&'static str),
    /// Anything else.
    Command(CommandError),
}

/// What the person confirms: the answer to a paste, or an attempt whose code arrived by a redirect or from a device.
#[derive(Serialize)]
#[serde(untagged)]
enum Exchanged {
    Pasted(Identified),
    Polled(Box<AttemptStatus>),
}

/// A step for programs: one line of JSON.
#[derive(Serialize)]
struct Step<'a, T> {
    step: &'a str,
    #[serde(flatten)]
    content: &'a T,
}

pub(super) fn run(control: &ControlClient, name: &str, yes: bool, as_json: bool) -> Result<(), CommandError> {
    let session = LinkSession { control, name, style: OutputStyle::of_stdout(), as_json };
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let mut stop = StopSignals::listen()?;
        let account = control.account(name).await?;
        let mut input = BufReader::new(tokio::io::stdin()).lines();
        match account.flow {
            Flow::ApiKey | Flow::ClientCredentials => session.store_credential(&account, &mut input, &mut stop).await?,
            Flow::AuthorizationCode | Flow::DeviceCode => session.login(&account, yes, &mut input, &mut stop).await?,
        }
        session.print_linked().await
    });
    runtime.shutdown_background(); // a pending read of standard input would keep the process alive
    outcome.map_err(|error| session.report(error))
}

/// Accepts an older copy of the login that was restored into the vault on purpose.
pub(super) fn accept_older_copy(control: &ControlClient, name: &str, as_json: bool) -> Result<(), CommandError> {
    let session = LinkSession { control, name, style: OutputStyle::of_stdout(), as_json };
    let outcome = runtime()?.block_on(async {
        control.call::<api::AcceptOlderCopy>(name, &()).await?;
        session.print_linked().await
    });
    outcome.map_err(|error| session.report(error))
}

/// Shows where the configuration has moved the login, and confirms it.
pub(super) fn confirm_moved(control: &ControlClient, name: &str, yes: bool, as_json: bool) -> Result<(), CommandError> {
    let session = LinkSession { control, name, style: OutputStyle::of_stdout(), as_json };
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let error = control.account(name).await?.error.filter(|error| error.reason == Some(ErrorReason::Moved));
        let Some(error) = error else {
            return Err(LinkError::Stopped("it was not moved, so there is nothing to confirm"));
        };
        session.print("moved", &error, || error.title.clone());
        let mut input = BufReader::new(tokio::io::stdin()).lines();
        if !yes && !session.ask("Send it there from now on? [y/N] ", &mut input).await {
            return Err(LinkError::Stopped("not confirmed, so the login is still sent nowhere"));
        }
        let seen = MovedConfirmation { seen: Some(error.title) };
        control.call::<api::ConfirmMoved>(name, &Some(seen)).await?;
        session.print_linked().await
    });
    runtime.shutdown_background(); // a pending read of standard input would keep the process alive
    outcome.map_err(|error| session.report(error))
}

impl LinkSession<'_> {
    async fn store_credential(
        &self,
        account: &AccountStatus,
        input: &mut InputLines,
        stop: &mut StopSignals,
    ) -> Result<(), LinkError> {
        let what = if account.flow == Flow::ApiKey { "key" } else { "client secret" };
        if is_interactive() {
            prompt(&format!("Paste the {what} of {} (it is not shown), and press Enter: ", account.title));
        }
        let key = {
            let _echo_off = EchoOff::begin();
            tokio::select! {
                line = input.next_line() => Ok(line.ok().flatten().unwrap_or_default()),
                () = stop.received() => Err(LinkError::Stopped("stopped, so nothing was linked")),
            }
        };
        if is_interactive() {
            print_error("");
        }
        let credential = StaticCredential { key: api::SecretText(Secret::new(key?)) };
        self.control.call::<api::SetStaticCredential>(self.name, &credential).await?;
        Ok(())
    }

    async fn login(
        &self,
        account: &AccountStatus,
        yes: bool,
        input: &mut InputLines,
        stop: &mut StopSignals,
    ) -> Result<(), LinkError> {
        let started = self.control.call::<api::BeginAttempt>(self.name, &None).await?;
        self.print("begun", &started, || {
            messages::started(&started, &account.title, self.style, TerminalLocation::detect())
        });
        let confirmed = tokio::select! {
            confirmed = self.confirm(&started, yes, input) => confirmed,
            () = stop.received() => {
                print_error("");
                Err(LinkError::Stopped("stopped: the attempt is cancelled and nothing was linked"))
            }
        };
        if let Err(LinkError::Stopped(_)) = confirmed {
            // If Pixy has ended, so has the attempt.
            let _ = self.control.call::<api::CancelAttempt>(&started.attempt, &()).await;
        }
        confirmed?;
        // Not stopped from here on: it would be unknown whether the account is linked.
        self.control.call::<api::ConfirmAttempt>(&started.attempt, &()).await?;
        Ok(())
    }

    /// Returns when the person has confirmed whose account it is.
    async fn confirm(&self, started: &StartedAttempt, yes: bool, input: &mut InputLines) -> Result<(), LinkError> {
        let exchanged = self.exchanged(started, input).await?;
        self.print("identified", &exchanged, || {
            format!("\n{}", messages::identified(&exchanged.identified(), self.style))
        });
        if yes || self.ask("Link it? [y/N] ", input).await {
            return Ok(());
        }
        Err(LinkError::Stopped("not confirmed, so nothing was linked, and the login was revoked"))
    }

    /// Returns when the code was exchanged: it was pasted, came by a redirect, or was entered on a device.
    async fn exchanged(&self, started: &StartedAttempt, input: &mut InputLines) -> Result<Exchanged, LinkError> {
        let id = &started.attempt;
        let on_device = started.flow == Flow::DeviceCode;
        let input_is_optional = on_device || started.redirect == AttemptRedirect::Loopback;
        // With a device code, piped input is the answer to the later question.
        let mut reading = !on_device || is_interactive();
        loop {
            tokio::select! {
                line = input.next_line(), if reading => match line.ok().flatten() {
                    Some(line) if line.trim().is_empty() => {}
                    Some(_) if on_device => {
                        print_error("   There is nothing to type here: enter the code on the provider's page.");
                    }
                    Some(line) => if let Some(identified) = self.paste(id, line).await? {
                        return Ok(Exchanged::Pasted(identified));
                    },
                    None if input_is_optional => reading = false,
                    None => return Err(LinkError::Stopped("nothing was pasted, so nothing was linked")),
                },
                () = tokio::time::sleep(POLL_INTERVAL) => if let Some(attempt) = self.poll(id).await? {
                    return Ok(Exchanged::Polled(Box::new(attempt)));
                }
            }
        }
    }

    /// The attempt once its code was exchanged; `None` before.
    async fn poll(&self, id: &str) -> Result<Option<AttemptStatus>, LinkError> {
        let attempt = self.control.account(self.name).await?.attempt.filter(|attempt| attempt.started.attempt == id);
        let Some(attempt) = attempt else {
            return Err(LinkError::Command(CommandError::Runtime(
                "this attempt is over: it was confirmed or cancelled on the page, timed out, or was replaced by a newer one. \
                 `pixy status` shows what is linked"
                    .to_owned(),
            )));
        };
        match (attempt.stage, &attempt.error) {
            (AttemptStage::ToConfirm, _) => Ok(Some(attempt)),
            (AttemptStage::Failed, Some(error)) => Err(LinkError::Refused(error.clone())),
            (AttemptStage::Waiting | AttemptStage::Exchanging | AttemptStage::Failed, _) => Ok(None),
        }
    }

    /// `None` when the person may paste again.
    async fn paste(&self, id: &str, line: String) -> Result<Option<Identified>, LinkError> {
        let pasted = PastedAnswer { text: api::SecretText(Secret::new(line)) };
        match self.control.call::<api::Paste>(id, &pasted).await {
            Ok(identified) => Ok(Some(identified)),
            // `code_used`: the redirect was faster, and polling shows its outcome.
            Err(CallError::Problem(problem))
                if problem.kind.starts_with("urn:pixy:problem:paste_")
                    || problem.kind == "urn:pixy:problem:code_used" =>
            {
                print_error(&format!("   {}", problem_text(&problem)));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn ask(&self, question: &str, input: &mut InputLines) -> bool {
        if !self.as_json {
            prompt(question);
        }
        let answer = input.next_line().await.ok().flatten().unwrap_or_default();
        matches!(answer.trim(), "y" | "Y" | "yes")
    }

    async fn print_linked(&self) -> Result<(), LinkError> {
        let snippets = self.control.call::<api::ShowSnippets>(self.name, &()).await?;
        let linked = json!({ "account": self.name, "env": snippets });
        self.print("linked", &linked, || messages::linked(self.name, &snippets, self.style));
        Ok(())
    }

    fn print(&self, step: &str, content: &impl Serialize, text: impl FnOnce() -> String) {
        if self.as_json {
            print_json(&Step { step, content });
        } else {
            print_line(&text());
        }
    }

    /// Prints the last step for programs, and returns the text for people.
    fn report(&self, error: LinkError) -> CommandError {
        let (kind, title, detail) = match error {
            LinkError::Refused(AttemptError { kind, title, detail }) => (Some(kind), title, Some(detail)),
            LinkError::Stopped(title) => (None, title.to_owned(), None),
            LinkError::Command(CommandError::Runtime(title)) => (None, title, None),
            LinkError::Command(usage @ CommandError::Usage(_)) => return usage,
        };
        if self.as_json {
            let error = json!({ "error": { "type": kind, "title": title, "detail": detail } });
            print_json(&Step { step: "failed", content: &error });
        }
        CommandError::Runtime(detail.map_or(title.clone(), |detail| format!("{title}\n      {detail}")))
    }
}

impl Exchanged {
    fn identified(&self) -> Identified {
        match self {
            Self::Pasted(identified) => identified.clone(),
            Self::Polled(attempt) => Identified {
                identity: attempt.identity.clone().unwrap_or_default(),
                scopes: attempt.granted.clone().unwrap_or_default(),
                missing_scopes: attempt.missing_scopes.clone(),
                replaces: attempt.replaces.clone(),
            },
        }
    }
}

impl From<CallError> for LinkError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Problem(Problem { kind, title, detail, .. }) => {
                Self::Refused(AttemptError { kind, title, detail })
            }
            other => Self::Command(other.into()),
        }
    }
}

impl From<CommandError> for LinkError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

/// SIGINT, SIGHUP and SIGTERM: the attempt is cancelled before the command ends.
struct StopSignals([Signal; 3]);

impl StopSignals {
    fn listen() -> Result<Self, CommandError> {
        let listen =
            |kind| signal(kind).map_err(|error| CommandError::Runtime(format!("signals cannot be received ({error})")));
        Ok(Self([listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?, listen(SignalKind::terminate())?]))
    }

    async fn received(&mut self) {
        let [interrupt, hangup, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
