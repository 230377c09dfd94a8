//! The files in the binary: the reference configuration and the provider profiles.

/// The commented reference, used when no other file is found.
pub(super) const CONFIGURATION: &str = include_str!("../../config/pixy.yaml");

/// Its name in messages.
pub(super) const CONFIGURATION_NAME: &str = "config/pixy.yaml";

/// Name and text of every profile, in the order of `pixy providers`.
pub(super) const PROFILES: [(&str, &str); 10] = [
    ("claude", include_str!("../../config/providers/claude.yaml")),
    ("anthropic", include_str!("../../config/providers/anthropic.yaml")),
    ("chatgpt", include_str!("../../config/providers/chatgpt.yaml")),
    ("codex", include_str!("../../config/providers/codex.yaml")),
    ("openrouter", include_str!("../../config/providers/openrouter.yaml")),
    ("huggingface", include_str!("../../config/providers/huggingface.yaml")),
    ("openai", include_str!("../../config/providers/openai.yaml")),
    ("gemini", include_str!("../../config/providers/gemini.yaml")),
    ("openai-compatible", include_str!("../../config/providers/openai-compatible.yaml")),
    ("oauth", include_str!("../../config/providers/oauth.yaml")),
];

/// A shipped provider profile as it is written.
pub fn profile_text(name: &str) -> Option<&'static str> {
    PROFILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
