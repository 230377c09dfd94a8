// STUB
use crate::config::Config;
pub(super) fn check(_: &Config) -> String {
    String::new()
}
pub(super) fn providers() -> String {
    String::new()
}
pub(super) fn provider(_: &str) -> Option<String> {
    None
}
