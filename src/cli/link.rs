//! `pixy link NAME`: the whole of linking, in a terminal or a pipe.

mod qr;
mod messages;

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::control::{Control, Refused};
use super::terminal::{Place, Screen, ask, complain, say, say_step};
use super::{Failure, is_terminal, runtime, told};

/// How often it is looked how far the attempt is.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a person types, line by line.
type Typed = Lines<BufReader<Stdin>>;

/// One account that is being linked, and how it is told of.
struct Session<'a> {
    control: Control,
    name: &'a str,
    screen: Screen,
    as_json: bool,
}

/// Why nothing was linked.
enum Ended {
    /// Pixy or the provider says why.
    Told { kind: String, title: String, detail: String },
    /// The person went away from it: the attempt is given up.
    Left(&'static str),
    /// Pixy was not reached, or something like it.
    Failure(Failure),
}

pub(super) fn link(control: Control, name: &str, yes: bool, as_json: bool) -> Result<(), Failure> {
    let session = Session { control, name, screen: Screen::of_stdout(), as_json };
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let mut stop = Stop::listen()?;
        let account = account(&session.control, name).await?;
        let mut typed = BufReader::new(tokio::io::stdin()).lines();
        match account["flow"].as_str() {
            Some("api_key" | "client_credentials") => session.key(&account, &mut typed, &mut stop).await?,
            _ => session.login(&account, yes, &mut typed, &mut stop).await?,
        }
        session.linked().await
    });
    runtime.shutdown_background(); // a read of standard input that nobody answers would hold the process
    outcome.map_err(|ended| session.failure(ended))
}

/// An older copy of the vault was put back on purpose.
pub(super) fn take_older_copy(control: Control, name: &str, as_json: bool) -> Result<(), Failure> {
    let session = Session { control, name, screen: Screen::of_stdout(), as_json };
    let outcome = runtime()?.block_on(async {
        session.control.call(Method::POST, &format!("/api/accounts/{name}/older-copy"), None).await?;
        session.linked().await
    });
    outcome.map_err(|ended| session.failure(ended))
}

/// An account as `GET /api/accounts` tells it.
pub(super) async fn account(control: &Control, name: &str) -> Result<Value, Failure> {
    let accounts = control.call(Method::GET, "/api/accounts", None).await?;
    let accounts = accounts.as_array().cloned().unwrap_or_default();
    let found = accounts.iter().find(|account| account["name"] == name).cloned();
    found.ok_or_else(|| {
        let names: Vec<_> = accounts.iter().filter_map(|account| account["name"].as_str()).collect();
        Failure::Runtime(format!("there is no account \"{name}\"; the configuration has {}", names.join(", ")))
    })
}

impl Session<'_> {
    async fn key(&self, account: &Value, typed: &mut Typed, stop: &mut Stop) -> Result<(), Ended> {
        let what = if account["flow"] == "api_key" { "key" } else { "client secret" };
        let title = account["title"].as_str().unwrap_or(self.name);
        if is_terminal() {
            ask(&format!("Paste the {what} of {title} (it is not shown), and press Enter: "));
        }
        let key = {
            let _quiet = Quiet::begin();
            tokio::select! {
                line = typed.next_line() => Ok(line.ok().flatten().unwrap_or_default()),
                () = stop.asked() => Err(Ended::Left("stopped, so nothing was linked")),
            }
        };
        if is_terminal() {
            complain("");
        }
        let path = format!("/api/accounts/{}/key", self.name);
        self.control.call(Method::POST, &path, Some(&json!({ "key": key? }))).await?;
        Ok(())
    }

    async fn login(&self, account: &Value, yes: bool, typed: &mut Typed, stop: &mut Stop) -> Result<(), Ended> {
        let begun = self.control.call(Method::POST, &format!("/api/accounts/{}/attempts", self.name), None).await?;
        let id = begun["attempt"].as_str().unwrap_or_default();
        let title = account["title"].as_str().unwrap_or(self.name);
        self.tell("begun", &begun, || messages::begun(&begun, title, self.screen, Place::find()));
        let decided = tokio::select! {
            decided = self.decide(&begun, id, yes, typed) => decided,
            () = stop.asked() => {
                complain("");
                Err(Ended::Left("stopped: the attempt is cancelled and nothing was linked"))
            }
        };
        if let Err(Ended::Left(_)) = decided {
            // If Pixy is gone, so is the attempt.
            let _ = self.control.call(Method::DELETE, &format!("/api/attempts/{id}"), None).await;
        }
        decided?;
        // Not stopped from here on: it would not be known whether it is linked.
        self.control.call(Method::POST, &format!("/api/attempts/{id}/confirm"), None).await?;
        Ok(())
    }

    /// Until the person has said that it is them.
    async fn decide(&self, begun: &Value, id: &str, yes: bool, typed: &mut Typed) -> Result<(), Ended> {
        let found = self.identify(begun, id, typed).await?;
        self.tell("identified", &found, || format!("\n{}", messages::identified(&found, self.screen)));
        if yes || self.confirmed(typed).await {
            return Ok(());
        }
        Err(Ended::Left("not confirmed, so nothing was linked, and the login was given back"))
    }

    /// Until the code has come, by the browser or by hand, or was typed elsewhere.
    async fn identify(&self, begun: &Value, id: &str, typed: &mut Typed) -> Result<Value, Ended> {
        let on_device = begun["flow"] == "device_code";
        let takes_nothing = on_device || begun["redirect"] == "loopback";
        // What is piped in while a device is waited for is the answer to the question that comes later.
        let mut listening = !on_device || is_terminal();
        loop {
            tokio::select! {
                line = typed.next_line(), if listening => match line.ok().flatten() {
                    Some(line) if line.trim().is_empty() => {}
                    Some(_) if on_device => complain("   There is nothing to type here: the code goes into the page."),
                    Some(line) => match self.paste(id, &line).await? {
                        Ok(identified) => return Ok(identified),
                        Err(sentence) => complain(&format!("   {sentence}")),
                    },
                    None if takes_nothing => listening = false,
                    None => return Err(Ended::Left("nothing was pasted, so nothing was linked")),
                },
                () = tokio::time::sleep(LOOK_AGAIN) => if let Some(found) = self.look(id).await? {
                    return Ok(found);
                }
            }
        }
    }

    /// How far it is; `None` while it waits.
    async fn look(&self, id: &str) -> Result<Option<Value>, Ended> {
        let attempt = account(&self.control, self.name).await?["attempt"].take();
        if attempt["attempt"] != id {
            return Err(Ended::Failure(Failure::Runtime(
                "this attempt is over: it was confirmed or cancelled on the page, took too long, or a newer one took its place. \
                 `pixy status` says what is linked"
                    .to_owned(),
            )));
        }
        match attempt["stage"].as_str() {
            Some("to_confirm") => Ok(Some(attempt)),
            Some("failed") => {
                let text = |name: &str| attempt["error"][name].as_str().unwrap_or_default().to_owned();
                Err(Ended::Told { kind: text("type"), title: text("title"), detail: text("detail") })
            }
            _ => Ok(None),
        }
    }

    /// The inner error is a typo: the attempt goes on.
    async fn paste(&self, id: &str, line: &str) -> Result<Result<Value, String>, Ended> {
        let body = json!({ "text": line });
        match self.control.call(Method::POST, &format!("/api/attempts/{id}/paste"), Some(&body)).await {
            Ok(identified) => Ok(Ok(identified)),
            // `code_used`: the browser was faster, and what comes of it is seen by looking.
            Err(Refused::Problem(problem))
                if problem.kind.starts_with("urn:pixy:problem:paste_")
                    || problem.kind == "urn:pixy:problem:code_used" =>
            {
                Ok(Err(told(&problem)))
            }
            Err(refused) => Err(refused.into()),
        }
    }

    async fn confirmed(&self, typed: &mut Typed) -> bool {
        if !self.as_json {
            ask("Link it? [y/N] ");
        }
        let answer = typed.next_line().await.ok().flatten().unwrap_or_default();
        matches!(answer.trim(), "y" | "Y" | "yes")
    }

    async fn linked(&self) -> Result<(), Ended> {
        let recipes = self.control.call(Method::GET, &format!("/api/accounts/{}/env", self.name), None).await?;
        let told = json!({ "account": self.name, "env": recipes });
        self.tell("linked", &told, || messages::linked(self.name, &recipes, self.screen));
        Ok(())
    }

    fn tell(&self, step: &str, told: &Value, words: impl FnOnce() -> String) {
        if self.as_json {
            say_step(step, told);
        } else {
            say(&words());
        }
    }

    fn failure(&self, ended: Ended) -> Failure {
        let (kind, title, detail) = match ended {
            Ended::Told { kind, title, detail } => (Some(kind), title, Some(detail)),
            Ended::Left(title) => (None, title.to_owned(), None),
            Ended::Failure(Failure::Runtime(title)) => (None, title, None),
            Ended::Failure(usage @ Failure::Usage(_)) => return usage,
        };
        if self.as_json {
            say_step("failed", &json!({ "error": { "type": kind, "title": title, "detail": detail } }));
        }
        Failure::Runtime(detail.map_or(title.clone(), |detail| format!("{title}\n      {detail}")))
    }
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Problem(problem) => {
                Self::Told { kind: problem.kind, title: problem.title, detail: problem.detail }
            }
            Refused::Failure(failure) => Self::Failure(failure),
        }
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Ctrl-C, a closed terminal, or an end that is asked for: what was begun is cancelled first.
struct Stop([Signal; 3]);

impl Stop {
    fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::Runtime(format!("no signals can be heard ({error})")));
        Ok(Self([listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?, listen(SignalKind::terminate())?]))
    }

    async fn asked(&mut self) {
        let [interrupt, hangup, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Typing is not shown while this lives.
pub(super) struct Quiet(Option<rustix::termios::Termios>);

impl Quiet {
    pub(super) fn begin() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else { return Self(None) }; // a pipe shows nothing anyway
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let changed = tcsetattr(&stdin, OptionalActions::Now, &quiet).is_ok();
        Self(changed.then_some(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, before); // the terminal is gone
        }
    }
}
