//! What happens when every place is taken: somebody waits, or somebody goes.
//!
//! Agents have so many connections (`limits.connections`) and as many requests under way. A client that opens them all and then
//! hardly speaks (slow loris, slow bodies, slow readers; row 40) would keep everybody else out for as long as it likes, each of
//! its connections within every time limit. So a place is not kept for a client that does not use it while another asks for
//! one: **whoever has waited longest for its own client goes.** Who waits for an upstream, for a model that thinks for minutes,
//! never goes. If nobody can go, the newcomer waits, and those behind it in the kernel's queue.
//!
//! - Nobody goes that waits for a moment only: a new connection has [`NEWCOMER`] to say what it wants, and what comes in
//!   pieces over a network may pause for [`PAUSE`], all pauses together, as far as it does not make up for them ([`SLOWEST`]):
//!   a byte now and then is not enough. A flood gets no more places in that time than there are.
//! - What is idle goes first where it idled longest, and as if its time were over: HTTP lets a server close an idle connection
//!   at any time (RFC 9112 §9.5), and clients open the next one.
//! - There are no shares by peer address: beside a sidecar, everybody is 127.0.0.1. An agent that really uses all places is
//!   bounded by the `concurrent` of its key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::stall::StallTracker;
use crate::lock::lock;

/// Before its first request, a client may have its place for so long in any case.
pub(super) const NEWCOMER: Duration = Duration::from_millis(100);

/// Within a request or its answer, and before the next request, a client may pause for so long in any case: a request that
/// comes at the very moment when its connection is closed fails.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// For one byte: slower than 4 KiB in a second, a client cannot make up for having been waited for.
pub(super) const SLOWEST: Duration = Duration::from_micros(1_000_000 / 4096);

/// While no place is free, it is looked again so often who could go.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// So many places, and who has them.
#[derive(Debug)]
pub(super) struct ConnectionLimit {
    places: Arc<Semaphore>,
    guests: Mutex<Connections>,
}

#[derive(Debug)]
struct Connections {
    present: HashMap<u64, Arc<StallTracker>>,
    /// The number of the next one.
    next: u64,
    /// So many places there are to be.
    most: usize,
    /// Places that there are beyond that, all of them taken: each goes with its guest.
    surplus: usize,
}

/// A place that nobody has taken yet.
pub(super) struct FreePermit(Permit);

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    crowd: Arc<ConnectionLimit>,
    /// Of who has taken it.
    number: Option<u64>,
    permit: Option<OwnedSemaphorePermit>,
}

impl ConnectionLimit {
    pub(super) fn new(most: usize) -> Arc<Self> {
        let most = most.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            places: Arc::new(Semaphore::new(most)),
            guests: Mutex::new(Connections { present: HashMap::new(), next: 0, most, surplus: 0 }),
        })
    }

    /// So many places from now on. Nobody goes for that; who comes waits, or has somebody go, until there are fewer.
    pub(super) fn resize(&self, most: usize) {
        let most = most.min(Semaphore::MAX_PERMITS);
        let mut guests = lock(&self.guests);
        let before = std::mem::replace(&mut guests.most, most);
        if most < before {
            let fewer = before - most;
            guests.surplus += fewer - self.places.forget_permits(fewer);
        } else {
            let more = most - before;
            let kept = more.min(guests.surplus);
            guests.surplus -= kept;
            self.places.add_permits(more - kept);
        }
    }

    /// A place that is free now.
    pub(super) fn free(self: &Arc<Self>) -> Option<FreePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok().map(|permit| self.room_of(permit))
    }

    /// StallTracker for a place, in turn. While there is none, those of this crowd and of `others` are asked to go, one by one.
    /// `None`: never, the semaphore is not closed.
    pub(super) async fn room(self: &Arc<Self>, others: Option<&Arc<Self>>) -> Option<FreePermit> {
        if let Some(room) = self.free() {
            return Some(room);
        }
        let permit = Arc::clone(&self.places).acquire_owned();
        tokio::pin!(permit);
        loop {
            ask_one([Some(self), others].into_iter().flatten());
            tokio::select! {
                permit = &mut permit => return permit.ok().map(|permit| self.room_of(permit)),
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    fn room_of(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> FreePermit {
        FreePermit(Permit { crowd: Arc::clone(self), number: None, permit: Some(permit) })
    }
}

impl FreePermit {
    pub(super) fn taken_by(self, guest: Arc<StallTracker>) -> Permit {
        let Self(mut place) = self;
        let mut guests = lock(&place.crowd.guests);
        let number = guests.next;
        guests.next += 1;
        guests.present.insert(number, guest);
        drop(guests);
        place.number = Some(number);
        place
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut guests = lock(&self.crowd.guests);
        if let Some(number) = self.number {
            guests.present.remove(&number);
        }
        // Given back while the guests are locked: `resize`, on another thread, must find each place either taken or free.
        let permit = self.permit.take();
        if guests.surplus > 0
            && let Some(permit) = permit
        {
            guests.surplus -= 1;
            permit.forget();
        }
    }
}

/// Asks whoever has waited longest for its client to go.
fn ask_one<'a>(limits: impl Iterator<Item = &'a Arc<ConnectionLimit>>) {
    let now = Instant::now();
    let mut longest: Option<(Instant, Arc<StallTracker>)> = None;
    for crowd in limits {
        for guest in lock(&crowd.guests).present.values() {
            let Some(since) = guest.dispensable(now).filter(|_| !guest.is_asked()) else { continue };
            if longest.as_ref().is_none_or(|(other, _)| since < *other) {
                longest = Some((since, Arc::clone(guest)));
            }
        }
    }
    if let Some((_, guest)) = longest {
        guest.ask_to_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(60);

    /// Takes a place for a guest.
    async fn enter(crowd: &Arc<ConnectionLimit>, guest: &Arc<StallTracker>) -> Permit {
        crowd.room(None).await.unwrap().taken_by(Arc::clone(guest))
    }

    /// Which of them goes first when one more comes.
    async fn who_goes(crowd: &Arc<ConnectionLimit>, guests: &[&Arc<StallTracker>]) -> Option<usize> {
        let gone = guests.iter().map(|guest| Box::pin(guest.gone()));
        tokio::select! {
            _ = crowd.room(None) => None,
            ((), which, _) = futures_util::future::select_all(gone) => Some(which),
            () = tokio::time::sleep(SOON) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attack_40_who_has_waited_longest_for_its_client_goes() {
        let crowd = ConnectionLimit::new(3);
        let mut guests = Vec::new();
        let mut places = Vec::new();
        for _ in 0..3 {
            let guest = StallTracker::new();
            places.push(enter(&crowd, &guest).await);
            guests.push(guest);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        guests[0].begin(); // its request came, and an upstream works on it
        assert_eq!(who_goes(&crowd, &guests.iter().collect::<Vec<_>>()).await, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_goes_who_waits_for_an_upstream_or_for_a_moment_only() {
        let crowd = ConnectionLimit::new(4);
        let (thinking, pausing, used) = (StallTracker::new(), StallTracker::new(), StallTracker::new());
        let _places = [enter(&crowd, &thinking).await, enter(&crowd, &pausing).await, enter(&crowd, &used).await];
        thinking.begin();
        pausing.begin();
        tokio::time::sleep(Duration::from_mins(10)).await;
        pausing.reading.begin();
        tokio::time::sleep(Duration::from_millis(1)).await;
        used.begin();
        used.end();
        let new = StallTracker::new();
        let _fourth = enter(&crowd, &new).await;
        let all = [&thinking, &pausing, &used, &new];
        assert_eq!(who_goes(&crowd, &all).await, None, "all have their reasons");
        tokio::time::sleep(SOON).await;
        assert_eq!(who_goes(&crowd, &all).await, Some(3), "it had its moment");
        new.begin();
        tokio::time::sleep(PAUSE).await;
        assert_eq!(who_goes(&crowd, &all).await, Some(1), "it had its pause");
        pausing.reading.end();
        assert_eq!(who_goes(&crowd, &all).await, Some(2), "so had the one between two requests");
    }

    #[tokio::test(start_paused = true)]
    async fn attack_40_drops_do_not_make_up_for_a_wait_and_a_stream_does() {
        let crowd = ConnectionLimit::new(2);
        let (dripping, slow) = (StallTracker::new(), StallTracker::new());
        let _places = [enter(&crowd, &dripping).await, enter(&crowd, &slow).await];
        for guest in [&dripping, &slow] {
            guest.begin();
        }
        for _ in 0..20 {
            for (guest, bytes) in [(&dripping, 60), (&slow, 600)] {
                guest.writing.begin();
                tokio::time::sleep(Duration::from_millis(60)).await;
                guest.writing.moved(bytes);
                guest.writing.begin();
            }
        }
        assert_eq!(who_goes(&crowd, &[&slow, &dripping]).await, Some(1));
        dripping.writing.end();
        assert_eq!(who_goes(&crowd, &[&slow, &dripping]).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_places_end_nobody_and_more_let_in_who_waits() {
        let crowd = ConnectionLimit::new(3);
        let guests = [StallTracker::new(), StallTracker::new(), StallTracker::new()];
        let [first, second, third] =
            [enter(&crowd, &guests[0]).await, enter(&crowd, &guests[1]).await, enter(&crowd, &guests[2]).await];
        for guest in &guests {
            guest.begin();
        }
        let none_is_free =
            async |crowd: &Arc<ConnectionLimit>| tokio::time::timeout(SOON, crowd.room(None)).await.is_err();
        crowd.resize(1);
        assert!(none_is_free(&crowd).await);
        drop(first);
        assert!(none_is_free(&crowd).await, "two are one too many");
        drop(second);
        assert!(none_is_free(&crowd).await, "one is as many as there may be");
        drop(third);
        let one = enter(&crowd, &guests[0]).await;
        assert!(none_is_free(&crowd).await);
        // One waits while there are more.
        let waiting = tokio::spawn({
            let crowd = Arc::clone(&crowd);
            async move { crowd.room(None).await }
        });
        tokio::time::sleep(SOON).await;
        crowd.resize(2);
        let two = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
        assert!(none_is_free(&crowd).await);
        // Fewer and more at once: what was to go stays.
        crowd.resize(1);
        crowd.resize(3);
        let three = enter(&crowd, &guests[1]).await;
        assert!(none_is_free(&crowd).await);
        drop((one, two, three));
        crowd.resize(1);
        let _one = enter(&crowd, &guests[1]).await;
        assert!(none_is_free(&crowd).await, "a free place goes at once");
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_asked_and_then_heard_from_its_client_stays() {
        let crowd = ConnectionLimit::new(1);
        let guest = StallTracker::new();
        let _place = enter(&crowd, &guest).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let newcomer = tokio::spawn({
            let crowd = Arc::clone(&crowd);
            async move { crowd.room(None).await.is_some() }
        });
        tokio::time::sleep(SOON).await;
        assert!(guest.is_asked());
        guest.begin();
        assert!(tokio::time::timeout(SOON, guest.gone()).await.is_err());
        guest.end();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(tokio::time::timeout(SOON, guest.gone()).await.is_ok(), "it is asked again");
        newcomer.abort();
    }
}
