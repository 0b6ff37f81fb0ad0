//! Seats for connections to the local socket: few for callers without any right, some that only root gets,
//! some that only users get who have few. Who is turned away is told why, and it is true.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    peer::{Peer, Standing, Turns},
    problem::{Problem, ProblemType},
};

/// How many may sit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at once.
    pub all: usize,
    /// Those of one user other than root.
    pub of_user: usize,
    /// Those of all callers without any right.
    pub of_strangers: usize,
    /// Those of one such user.
    pub of_stranger: usize,
    /// Those of callers of whom the system is being asked, and of one of them.
    pub of_unknown: (usize, usize),
    /// Left to root: an operator must get in when everybody else has taken every seat.
    pub for_root: usize,
    /// Left to users who have few.
    pub for_newcomers: usize,
}

impl Limits {
    /// The local socket. The unit allows 8192 files.
    pub(super) const SOCKET: Self = Self {
        all: 4096,
        of_user: 1024,
        of_strangers: 32,
        of_stranger: 8,
        of_unknown: (512, 64),
        for_root: 64,
        for_newcomers: 512,
    };
}

/// So many are few.
const FEW: usize = 8;

/// Requests of one user that are worked on at once, streams and long polls that wait left out.
const fn turns(standing: Standing) -> usize {
    match standing {
        Standing::Trusted => 256,
        Standing::Reader => 16,
        Standing::Stranger | Standing::Unknown => 4,
    }
}

/// The seats; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_standing: BTreeMap<Standing, usize>,
    users: BTreeMap<(u32, Standing), User>,
}

#[derive(Debug)]
struct User {
    seats: usize,
    turns: Turns,
}

/// One connection's; taken until dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    user: (u32, Standing),
    turns: Turns,
}

impl Seats {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            taken: Arc::default(),
        }
    }

    /// A seat, or why there is none.
    pub(super) fn take(&self, peer: Peer, standing: Standing) -> Result<Seat, Problem> {
        let mut taken = self.taken();
        let user = (peer.uid, standing);
        let own = taken.users.get(&user).map_or(0, |user| user.seats);
        if let Some(why) = self.limits.full(&taken, own, standing) {
            return Err(Problem::new(ProblemType::Throttled, why).retry_after(AGAIN));
        }
        taken.all += 1;
        *taken.by_standing.entry(standing).or_default() += 1;
        let entry = taken.users.entry(user).or_insert_with(|| User {
            seats: 0,
            turns: Turns::of(turns(standing)),
        });
        entry.seats += 1;
        let turns = entry.turns.clone();
        drop(taken);
        Ok(Seat {
            seats: self.clone(),
            user,
            turns,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When whoever was turned away may come again.
const AGAIN: Duration = Duration::from_secs(1);

impl Limits {
    /// Why somebody who has `own` seats gets no other.
    fn full(&self, taken: &Taken, own: usize, standing: Standing) -> Option<String> {
        let alike = taken.by_standing.get(&standing).copied().unwrap_or(0);
        match standing {
            Standing::Unknown if own >= self.of_unknown.1 || alike >= self.of_unknown.0 => {
                Some(format!(
                    "the system is still being asked who this user is, and {alike} connections wait for such answers"
                ))
            }
            Standing::Trusted if taken.all >= self.all => Some(format!(
                "renewd has {} connections open, which is the most",
                self.all
            )),
            Standing::Trusted => None,
            Standing::Stranger if own >= self.of_stranger => Some(format!(
                "this user may read no identity here, and {} connections are the most that such a user may have",
                self.of_stranger
            )),
            Standing::Stranger if alike >= self.of_strangers => Some(format!(
                "this user may read no identity here, and the {} connections are taken that all such users have together",
                self.of_strangers
            )),
            Standing::Reader if own >= self.of_user => Some(format!(
                "this user has {} connections open, which is the most",
                self.of_user
            )),
            Standing::Reader | Standing::Stranger | Standing::Unknown => {
                let left = self.for_root + if own < FEW { 0 } else { self.for_newcomers };
                (taken.all + left >= self.all).then(|| {
                    format!("renewd has {} connections open: the last ones are for root and for users with fewer than {FEW}", taken.all)
                })
            }
        }
    }
}

impl Seat {
    /// The turns of its user.
    pub(super) fn turns(&self) -> Turns {
        self.turns.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all -= 1;
        if let Some(count) = taken.by_standing.get_mut(&self.user.1) {
            *count -= 1;
        }
        if let Some(user) = taken.users.get_mut(&self.user) {
            user.seats -= 1;
            if user.seats == 0 {
                taken.users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits {
        all: 80,
        of_user: 20,
        of_strangers: 6,
        of_stranger: 2,
        of_unknown: (4, 2),
        for_root: 4,
        for_newcomers: 16,
    };

    fn fill(seats: &Seats, uid: u32, standing: Standing) -> (Vec<Seat>, String) {
        let mut taken = Vec::new();
        loop {
            match seats.take(Peer { uid, gid: uid }, standing) {
                Ok(seat) => taken.push(seat),
                Err(problem) => return (taken, problem.detail),
            }
        }
    }

    #[test]
    fn callers_without_rights_share_few_seats_and_hear_so() {
        let seats = Seats::new(SMALL);
        let all: Vec<_> = (1..=3)
            .map(|uid| fill(&seats, uid, Standing::Stranger))
            .collect();
        assert!(all.iter().all(|(taken, _)| taken.len() == 2));
        assert!(
            all[0].1.contains("2 connections are the most"),
            "{}",
            all[0].1
        );
        let (none, why) = fill(&seats, 9, Standing::Stranger);
        assert!(none.is_empty() && why.contains("all such users"), "{why}");
        assert_eq!(fill(&seats, 9, Standing::Reader).0.len(), 20);
        drop(all);
        assert_eq!(fill(&seats, 9, Standing::Stranger).0.len(), 2);
    }

    #[test]
    fn readers_who_take_all_they_can_leave_some_to_others_and_root() {
        let seats = Seats::new(SMALL);
        let many: Vec<_> = (1..=4)
            .map(|uid| fill(&seats, uid, Standing::Reader))
            .collect();
        assert!(many[0].1.contains("this user has 20"), "{}", many[0].1);
        assert!(many[3].1.contains("fewer than 8"), "{}", many[3].1);
        let (few, _) = fill(&seats, 7, Standing::Reader);
        assert!(!few.is_empty());
        let (root, why) = fill(&seats, 0, Standing::Trusted);
        assert!(root.len() >= SMALL.for_root, "{}", root.len());
        assert!(why.contains("80 connections"), "{why}");
        drop((many, few, root));
        assert_eq!(seats.taken().all, 0);
        assert!(seats.taken().users.is_empty());
    }
}
