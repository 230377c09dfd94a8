//! STUB
pub struct Asset {
    pub path: &'static str,
    pub content_type: &'static str,
    pub body: &'static [u8],
}
pub fn asset(_path: &str) -> Option<Asset> {
    None
}
#[derive(Debug, Clone)]
pub struct Facts {
    pub version: &'static str,
    pub agent_addresses: Vec<String>,
    pub store: String,
}
pub fn index(_facts: &Facts) -> String {
    "<p>Pixy".into()
}
pub enum CallbackOutcome {
    Exchanged { title: String },
    Refused { sentence: String },
}
pub fn callback(outcome: &CallbackOutcome) -> String {
    match outcome {
        CallbackOutcome::Exchanged { title } => title.clone(),
        CallbackOutcome::Refused { sentence } => sentence.clone(),
    }
}
pub const SECURITY_HEADERS: &[(&str, &str)] = &[("cache-control", "no-store")];
