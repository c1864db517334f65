//! Who takes part: keys, roles, stakes, and which of them are of one crew.
//!
//! Everything follows from the scenario and the seed. Hotkeys are hashes; a crew tries keys until they
//! fall into one group, as anybody may (P-6). Honest validators hold the majority of the stake.

use std::net::{IpAddr, Ipv4Addr};

use connito_protocol::Identity;
use connito_protocol::ids::{GroupId, Hotkey};
use connito_protocol::machine::{Character, Role};
use connito_protocol::snapshot::Endpoint;

use crate::adversary::{HostileMiner, HostileValidator, Setting};
use crate::node::Kind;
use crate::random::Random;
use crate::scenario::Scenario;

/// One who takes part from the beginning.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) kind: Kind,
    pub(crate) character: Character,
    pub(crate) stake: u64,
    /// Which crew, counted from 0.
    pub(crate) crew: Option<usize>,
    pub(crate) slow: bool,
    /// The miner that a self-dealing validator favours.
    pub(crate) friend: Option<Hotkey>,
}

/// Stake of an honest validator, in rao.
const STAKE: u64 = 1_000_000_000_000;

/// Everybody, the owner first, then the validators, then the miners.
#[derive(Debug)]
pub(crate) struct Cast {
    pub(crate) members: Vec<Member>,
    /// The hotkeys of each crew.
    pub(crate) crews: Vec<Vec<Hotkey>>,
}

impl Cast {
    /// Draws everybody's key and gives everybody a part.
    pub(crate) fn new(scenario: &Scenario, seed: u64, setting: &Setting) -> Self {
        let mut cast = Self {
            members: Vec::new(),
            crews: Vec::new(),
        };
        let role = Role::Owner { task: setting.task };
        cast.add(Kind::Owner, owner_key(seed), role, setting);
        cast.add_validators(scenario, seed, setting);
        cast.add_miners(scenario, seed, setting);
        cast
    }

    fn add(&mut self, kind: Kind, hotkey: Hotkey, role: Role, setting: &Setting) -> &mut Member {
        let serves = !matches!(kind, Kind::Miner(_));
        let place = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        self.members.push(Member {
            kind,
            character: Character {
                identity: Identity {
                    hotkey,
                    network: setting.network,
                    endpoint: serves.then(|| endpoint(place)),
                },
                role,
            },
            stake: 0,
            crew: None,
            slow: false,
            friend: None,
        });
        self.members.last_mut().expect("one was just added")
    }

    fn add_validators(&mut self, scenario: &Scenario, seed: u64, setting: &Setting) {
        let hostile = &scenario.validators.hostile;
        let hostile: Vec<HostileValidator> = hostile
            .iter()
            .flat_map(|(kind, count)| (0..*count).map(|_| *kind))
            .collect();
        let honest = scenario.validators.honest;
        let stake_of_hostile = match scenario.validators.hostile_stake_percent {
            Some(percent) if !hostile.is_empty() => {
                let all = f64::from(honest) * percent / (100.0 - percent);
                all / hostile.len() as f64
            }
            _ => 1.0,
        };
        let kinds = (0..honest)
            .map(|_| None)
            .chain(hostile.into_iter().map(Some));
        for (number, kind) in kinds.enumerate() {
            let hotkey = key(seed, "validator", number as u64);
            let slow = kind.is_none() && (number as u64) < u64::from(scenario.validators.slow);
            let member = self.add(Kind::Validator(kind), hotkey, Role::Validator, setting);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a stake, far below 2⁶⁴"
            )]
            let of_hostile = (STAKE as f64 * stake_of_hostile) as u64;
            member.stake = if kind.is_some() { of_hostile } else { STAKE };
            member.slow = slow;
            if kind == Some(HostileValidator::SelfDealer) {
                member.friend = Some(key(seed, "friend", number as u64));
            }
        }
    }

    fn add_miners(&mut self, scenario: &Scenario, seed: u64, setting: &Setting) {
        for number in 0..scenario.miners.honest {
            let hotkey = key(seed, "miner", u64::from(number));
            let member = self.add(Kind::Miner(None), hotkey, Role::Miner, setting);
            member.slow = number < scenario.miners.slow;
        }
        let first = self.members.iter().find(|m| m.kind == Kind::Miner(None));
        let victim = first.map(|member| member.character.identity.hotkey);
        for (kind, count) in &scenario.miners.hostile {
            self.add_hostile((*kind, *count), (seed, victim), setting);
        }
        // A self-dealer's friend mines too, and does no work.
        let friends: Vec<Hotkey> = self.members.iter().filter_map(|m| m.friend).collect();
        for friend in friends {
            let kind = Kind::Miner(Some(HostileMiner::Lazy));
            self.add(kind, friend, Role::Miner, setting);
        }
    }

    fn add_hostile(
        &mut self,
        (kind, count): (HostileMiner, u32),
        (seed, victim): (u64, Option<Hotkey>),
        setting: &Setting,
    ) {
        let crew = kind.is_crew().then_some(self.crews.len());
        if crew.is_some() {
            self.crews.push(Vec::new());
        }
        let group = crew.map(|_| setting.group(key(seed, kind.name(), 0)));
        let mut keys = KeysOfGroup {
            seed,
            label: kind.name(),
            group: group.flatten(),
            next: 0,
        };
        for _ in 0..count {
            let hotkey = keys.next(setting);
            let role = match (kind, victim) {
                (HostileMiner::Copier, Some(victim)) => Role::Copier { victim },
                _ => Role::Miner,
            };
            self.add(Kind::Miner(Some(kind)), hotkey, role, setting)
                .crew = crew;
            if let Some(crew) = crew.and_then(|crew| self.crews.get_mut(crew)) {
                crew.push(hotkey);
            }
        }
    }
}

/// Hotkeys of one series; with a group, only those that fall into it.
struct KeysOfGroup {
    seed: u64,
    label: &'static str,
    group: Option<GroupId>,
    next: u64,
}

impl KeysOfGroup {
    fn next(&mut self, setting: &Setting) -> Hotkey {
        loop {
            let hotkey = key(self.seed, self.label, self.next);
            self.next += 1;
            if self
                .group
                .is_none_or(|group| setting.group(hotkey) == Some(group))
            {
                return hotkey;
            }
        }
    }
}

/// A run's owner.
pub(crate) fn owner_key(seed: u64) -> Hotkey {
    key(seed, "owner", 0)
}

/// A hotkey of a run.
pub(crate) fn key(seed: u64, label: &str, number: u64) -> Hotkey {
    let mut random = Random::new(seed, label, number);
    let mut hotkey = [0; 32];
    hotkey[..16].copy_from_slice(&random.bytes());
    hotkey[16..].copy_from_slice(&random.bytes());
    Hotkey(hotkey)
}

/// An address that no two participants share.
pub(crate) fn endpoint(place: u32) -> Endpoint {
    let [_, a, b, c] = place.to_be_bytes();
    Endpoint {
        ip: IpAddr::V4(Ipv4Addr::new(10, a, b, c)),
        port: 9_000,
    }
}
