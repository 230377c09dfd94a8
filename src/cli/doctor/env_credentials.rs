//! Credentials in the agent's environment. Names are printed, values never.

use super::{Outcome, Report};
use crate::secret::Secret;

/// A variable that may hold a credential.
pub(super) struct Candidate {
    name: String,
    value: Secret,
    shape: Shape,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A credential of a provider, by its prefix: it is never sent anywhere.
    ProviderCredential,
    /// A credential of a provider, by its name: it may be the agent's own key for Pixy.
    ProviderVariable,
    /// Some secret, by its name.
    Other,
}

/// Those of `variables` that may hold a credential.
pub(super) fn candidates(variables: Vec<(String, Secret)>) -> Vec<Candidate> {
    let candidate = |(name, value): (String, Secret)| {
        let text = value.expose().trim();
        let shape = if text.len() < MIN_LENGTH || PLACEHOLDERS.contains(&text) {
            return None;
        } else if has_provider_shape(text) {
            Shape::ProviderCredential
        } else if PROVIDER_VARIABLES.contains(&name.as_str()) {
            Shape::ProviderVariable
        } else if name == "PIXY_AGENT_KEY" || is_named_like_a_secret(&name) {
            Shape::Other
        } else {
            return None;
        };
        Some(Candidate { name, value, shape })
    };
    variables.into_iter().filter_map(candidate).collect()
}

/// Values that may be sent to Pixy as the agent's key: none that looks like a provider's credential.
pub(super) fn possible_keys(candidates: &[Candidate]) -> impl Iterator<Item = &Secret> {
    candidates.iter().filter(|candidate| candidate.shape != Shape::ProviderCredential).map(|candidate| &candidate.value)
}

/// Reports every credential that does not belong there. `agent_key` is the value that Pixy has accepted.
pub(super) fn check(candidates: &[Candidate], agent_key: Option<&Secret>, report: &mut Report) {
    for Candidate { name, value, shape } in candidates {
        if agent_key.is_some_and(|key| key.matches(value.expose())) {
            report.good("environment", format!("{name} holds the agent's own key for Pixy, as it should"));
            continue;
        }
        let (outcome, says) = match shape {
            Shape::ProviderCredential | Shape::ProviderVariable => {
                let advice = "Remove it from the agent's environment.";
                (Outcome::Bad, format!("holds a credential that is not the agent's key for Pixy. {advice}"))
            }
            Shape::Other => (Outcome::Warning, "may hold a credential; check whether the agent needs it.".to_owned()),
        };
        report.add("environment", outcome, format!("{name} {says}"));
    }
    report.good_by_default("environment", "no variable holds a provider's credential");
}

fn has_provider_shape(text: &str) -> bool {
    let is_token = |rest: &str| {
        rest.len() >= 16 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    // A JWT has three parts; the first is a JSON object in base64url (RFC 7519 §3).
    PREFIXES.iter().any(|prefix| text.strip_prefix(prefix).is_some_and(is_token))
        || text.starts_with("eyJ") && text.matches('.').count() == 2 && is_token(text)
}

fn is_named_like_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["API_KEY", "APIKEY", "_TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL"].iter().any(|word| name.contains(word))
        // The location of a secret is no secret.
        && !["_FILE", "_PATH", "_URL", "_DIRECTORY", "_DIR"].iter().any(|end| name.ends_with(end))
}

const PROVIDER_VARIABLES: [&str; 13] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "AZURE_OPENAI_API_KEY",
    "CLAUDE_CODE_OAUTH_REFRESH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CODEX_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "HF_TOKEN",
    "MISTRAL_API_KEY",
    "OPENAI_ADMIN_KEY",
    "OPENAI_API_KEY",
    "OPENROUTER_API_KEY",
];
/// `sk-` is the prefix of Anthropic, OpenAI and OpenRouter.
const PREFIXES: [&str; 7] = ["sk-", "AIza", "ya29.", "hf_", "gsk_", "ghp_", "xai-"];
/// What `pixy env` prints for clients that require a value.
const PLACEHOLDERS: [&str; 2] = ["pixy", "your-agent-key"];
const MIN_LENGTH: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(pairs: &[(&str, &str)], key: Option<&str>) -> Vec<Outcome> {
        let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned())));
        let key = key.map(|key| Secret::new(key.to_owned()));
        let mut report = Report::default();
        check(&candidates(variables.collect()), key.as_ref(), &mut report);
        for finding in &report.findings {
            assert!(
                pairs.iter().all(|(_, value)| value.len() < MIN_LENGTH || !finding.says.contains(value)),
                "a value is never printed"
            );
        }
        report.findings.iter().map(|finding| finding.outcome).collect()
    }

    #[test]
    fn credentials_are_found_by_name_and_by_shape() {
        use Outcome::{Bad, Good, Warning};
        let token = "sk-ant-oat01-0123456789abcdef";
        assert_eq!(outcomes(&[("ANTHROPIC_API_KEY", token), ("ANY_NAME", token)], None), [Bad, Bad]);
        assert_eq!(outcomes(&[("OPENAI_API_KEY", "0123456789abcdef")], None), [Bad]);
        assert_eq!(outcomes(&[("DATABASE_PASSWORD", "correct horse")], None), [Warning]);
        assert_eq!(outcomes(&[("ID", "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl")], None), [Bad]);
        assert_eq!(outcomes(&[("ANTHROPIC_AUTH_TOKEN", "pixy"), ("OPENAI_API_KEY", "your-agent-key")], None), [Good]);
        assert_eq!(outcomes(&[("PATH", "/usr/bin:/bin"), ("GITHUB_TOKEN_FILE", "/run/secrets/x")], None), [Good]);
    }

    #[test]
    fn the_agents_key_is_accepted_and_a_providers_is_never_sent() {
        let key = "agent-key-0123456789";
        assert_eq!(outcomes(&[("ANTHROPIC_AUTH_TOKEN", key)], Some(key)), [Outcome::Good]);
        assert_eq!(outcomes(&[("ANTHROPIC_AUTH_TOKEN", key)], Some("another-key-01234567")), [Outcome::Bad]);
        let variables = [("A_TOKEN", "sk-ant-oat01-0123456789abcdef"), ("PIXY_AGENT_KEY", key)];
        let found = candidates(variables.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).into());
        assert_eq!(possible_keys(&found).map(Secret::expose).collect::<Vec<_>>(), [key]);
    }
}
