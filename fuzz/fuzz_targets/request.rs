//! The steps of `Proxy::pass` up to the request that would be sent.

use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use pixy::clock::Clock;
use pixy::internals::{Purpose, Route, attach, find_route, into_request, strip};
use pixy::proxy::agent::Agents;
use pixy::server::ConnectionLimit;
use pixy::upstream::Body;

use crate::linked_account::LINKED;

/// The route and the request to the upstream. `None` if a step refuses the request or Pixy answers it locally.
pub fn prepare(bound: bool, method: &Method, uri: &Uri, headers: HeaderMap) -> Option<(Route, Request<Body>)> {
    let account = &LINKED.account;
    let route = find_route(account, bound, method, uri).ok()?;
    let stripped = strip(headers, &route);
    let grant = Agents::new(Vec::new(), Clock::default(), ConnectionLimit::new(1)).authorize(&stripped, account.name()).ok()?;
    if route.purpose() == Purpose::ConnectivityProbe {
        return None;
    }
    let body: Body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let outgoing = attach(&grant, &route, &stripped, &LINKED.bearer, method.clone(), body, None).ok()?;
    Some((route, into_request(outgoing)))
}
