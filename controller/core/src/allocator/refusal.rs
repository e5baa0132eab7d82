//! Why a Service cannot have an address, in a sentence from which one can act.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use herald_model::{Family, PoolName, Scope, ServiceKey};

/// After the name of a pool; what follows are numbers, which change by themselves.
pub(crate) const IS_FULL: &str = " is full: ";
/// After an address that nobody holds, but that is not free.
pub(crate) const BEING_GIVEN_BACK: &str = " is resting or being given back";

/// Why a Service cannot have the addresses it should have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its families are not known yet.
    #[error("the Service has no cluster address yet, so its address families are not known")]
    NoClusterAddress,
    /// Its request cannot be understood.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: Arc<str>,
    },
    /// It asks for addresses of other families than it has cluster addresses of.
    #[error(
        "the requested addresses {} are not one of each of the Service's families ({})",
        List(addresses),
        List(families)
    )]
    FamilyMismatch {
        /// What it asks for.
        addresses: Vec<IpAddr>,
        /// What it has cluster addresses of.
        families: Vec<Family>,
    },
    /// A requested address belongs to no pool.
    #[error("address {address} is in no pool: add it to an IPPool or request another one")]
    OutsidePools {
        /// The address.
        address: IpAddr,
    },
    /// The requested addresses are of two pools.
    #[error(
        "address {} is in pool {} but {} is in pool {}: both must be of one pool",
        first.0, first.1, second.0, second.1
    )]
    TwoPools {
        /// An address and its pool.
        first: (IpAddr, PoolName),
        /// Another address and its pool.
        second: (IpAddr, PoolName),
    },
    /// A requested address is not in the requested pool.
    #[error("address {address} is in pool {pool}, not in the requested pool {requested}")]
    PoolMismatch {
        /// The address.
        address: IpAddr,
        /// The pool it is in.
        pool: PoolName,
        /// The pool that was asked for.
        requested: PoolName,
    },
    /// The requested pool does not exist.
    #[error("pool {pool} does not exist")]
    UnknownPool {
        /// Its name.
        pool: PoolName,
    },
    /// There is no pool at all.
    #[error("there is no IPPool: create one")]
    NoPool,
    /// The pool does not allow the Service.
    #[error("pool {pool} allows only {only}")]
    NotAllowed {
        /// The pool.
        pool: PoolName,
        /// Whom it allows, in words.
        only: String,
    },
    /// The pool serves another scope.
    #[error("pool {pool} is {} but the Service asks for an {} address", Scoped(*pool_scope), Scoped(*asked))]
    WrongScope {
        /// The pool.
        pool: PoolName,
        /// Its scope.
        pool_scope: Scope,
        /// What the Service asks for.
        asked: Scope,
    },
    /// The requested address ends in .0 or .255 and its pool avoids those.
    #[error("address {address} ends in .0 or .255 and pool {pool} has avoidBuggyIPs")]
    Avoided {
        /// The address.
        address: IpAddr,
        /// Its pool.
        pool: PoolName,
    },
    /// The requested address is a node's or a gateway's, or a network's first or last.
    #[error(
        "address {address} is a node's own or its gateway's, or the network or broadcast address of its subnet"
    )]
    Reserved {
        /// The address.
        address: IpAddr,
    },
    /// The requested address is of a range that the cluster itself uses.
    #[error(
        "address {address} is of a range that the cluster uses for its pods or Services, as its pool says"
    )]
    Barred {
        /// The address.
        address: IpAddr,
    },
    /// Somebody else has the requested address.
    #[error("{}", Taken { address: *address, holder: holder.as_ref() })]
    Taken {
        /// The address.
        address: IpAddr,
        /// Who has it; `None`: nobody, but it rests or is being given back.
        holder: Option<ServiceKey>,
    },
    /// A stranger on the LAN uses the requested address.
    #[error(
        "address {address} is in use on the LAN: {stranger}; stop that, or ask for another address: it is asked for again every two minutes"
    )]
    Conflict {
        /// The address.
        address: IpAddr,
        /// Who, in a sentence.
        stranger: Arc<str>,
    },
    /// Every address of the family is given.
    #[error(
        "pool {pool}{IS_FULL}{assigned} of {total} {family} addresses assigned{}",
        Rest { assigned: *assigned, total: *total }
    )]
    Exhausted {
        /// The pool.
        pool: PoolName,
        /// The family.
        family: Family,
        /// How many are given.
        assigned: u128,
        /// How many there are.
        total: u128,
    },
    /// The pool has nothing of the family.
    #[error("pool {pool} has no {family} addresses")]
    NoFamily {
        /// The pool.
        pool: PoolName,
        /// The family.
        family: Family,
    },
    /// The pool serves only Services that ask for it.
    #[error("pool {pool} has autoAssign off: name it in annotation heraldlb.io/pool")]
    OnlyOnRequest {
        /// The pool.
        pool: PoolName,
    },
    /// No pool will do, each for its own reason.
    #[error("{}", Reasons(reasons))]
    NoneFits {
        /// One reason for each pool, in the order they were tried.
        reasons: Vec<Self>,
    },
}

impl Refusal {
    /// Every reason of which this is made up.
    pub(crate) fn each<'a>(&'a self, visit: &mut impl FnMut(&'a Self)) {
        match self {
            Self::NoneFits { reasons } => reasons.iter().for_each(|reason| reason.each(visit)),
            reason => visit(reason),
        }
    }

    /// The reason of the condition: one word of a closed set.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoClusterAddress => "NoClusterAddress",
            Self::Invalid { .. }
            | Self::FamilyMismatch { .. }
            | Self::TwoPools { .. }
            | Self::PoolMismatch { .. } => "InvalidRequest",
            Self::OutsidePools { .. } => "OutsidePools",
            Self::UnknownPool { .. } => "UnknownPool",
            Self::NoPool => "NoPool",
            Self::NotAllowed { .. } | Self::WrongScope { .. } | Self::OnlyOnRequest { .. } => {
                "NotAllowed"
            }
            Self::Avoided { .. } => "AddressAvoided",
            Self::Reserved { .. } | Self::Barred { .. } => "AddressReserved",
            Self::Taken { .. } => "AddressInUse",
            Self::Conflict { .. } => "AddressConflict",
            Self::Exhausted { .. } => "PoolExhausted",
            Self::NoFamily { .. } => "NoAddressOfFamily",
            Self::NoneFits { reasons } => {
                let kinds = || reasons.iter().map(Self::kind);
                ["PoolExhausted", "NoAddressOfFamily"]
                    .into_iter()
                    .find(|kind| kinds().any(|other| other == *kind))
                    .unwrap_or("NotAllowed")
            }
        }
    }
}

/// Addresses that are neither assigned nor free.
struct Rest {
    assigned: u128,
    total: u128,
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.total.saturating_sub(self.assigned) {
            0 if self.total == 0 => f.write_str(", as none of its addresses may be given"),
            0 => Ok(()),
            rest => write!(
                f,
                ", {rest} resting, in use by strangers or being given back"
            ),
        }
    }
}

struct List<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, item) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{item}")?;
        }
        Ok(())
    }
}

struct Scoped(Scope);

impl fmt::Display for Scoped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Scope::External => "external",
            Scope::Internal => "internal",
        })
    }
}

struct Taken<'a> {
    address: IpAddr,
    holder: Option<&'a ServiceKey>,
}

impl fmt::Display for Taken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, holder } = self;
        match holder {
            Some(holder) => write!(
                f,
                "address {address} is held by Service {holder}, with which this Service cannot share it"
            ),
            None => write!(
                f,
                "address {address}{BEING_GIVEN_BACK}: it will be tried again"
            ),
        }
    }
}

/// The first reasons in full, the rest as a number: a condition's message is for people. The pools
/// that are meant for the Service come first, however many others there are.
struct Reasons<'a>(&'a [Refusal]);

const REASONS_IN_FULL: usize = 4;

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons: Vec<&Refusal> = self.0.iter().collect();
        reasons.sort_by_key(|reason| {
            matches!(
                reason,
                Refusal::NotAllowed { .. } | Refusal::WrongScope { .. }
            )
        });
        for (position, reason) in reasons.into_iter().take(REASONS_IN_FULL).enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{reason}")?;
        }
        match self.0.len().saturating_sub(REASONS_IN_FULL) {
            0 => Ok(()),
            1 => f.write_str("; and 1 more pool"),
            more => write!(f, "; and {more} more pools"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pool_is_named_before_many_that_do_not_allow_the_service() {
        let mut reasons: Vec<Refusal> = (0..9)
            .map(|number| Refusal::NotAllowed {
                pool: format!("other-{number}").into(),
                only: "namespaces db, and web is none of them".to_owned(),
            })
            .collect();
        reasons.push(Refusal::Exhausted {
            pool: "public".into(),
            family: Family::V4,
            assigned: 51,
            total: 51,
        });
        let said = Refusal::NoneFits { reasons }.to_string();
        assert!(
            said.starts_with("pool public is full: 51 of 51 IPv4 addresses assigned; pool other-0"),
            "{said}"
        );
        assert!(said.ends_with("; and 6 more pools"), "{said}");
    }
}
