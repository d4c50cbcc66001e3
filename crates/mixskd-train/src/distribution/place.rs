//! Which of several processes this one is, as launchers say it.

use crate::{Error, Result};

/// A process among those that share a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 0. The first holds the run directory, evaluates and speaks.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    /// Its number among those on the same machine, from 0: the GPU it takes.
    pub local_rank: usize,
    /// Name or address of the first one's machine.
    pub host: String,
    /// The port on which the first one waits for the others.
    pub port: u16,
}

/// Variables in which a launcher says a process's place.
struct Launcher {
    rank: &'static str,
    world: &'static str,
    local_rank: &'static str,
}

/// Asked in this order: a launcher inside a job of Slurm's speaks for itself.
static LAUNCHERS: [Launcher; 4] = [
    // torchrun, and whoever sets them by hand.
    Launcher {
        rank: "RANK",
        world: "WORLD_SIZE",
        local_rank: "LOCAL_RANK",
    },
    // Open MPI.
    Launcher {
        rank: "OMPI_COMM_WORLD_RANK",
        world: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
    },
    // MPICH and its kin.
    Launcher {
        rank: "PMI_RANK",
        world: "PMI_SIZE",
        local_rank: "MPI_LOCALRANKID",
    },
    // Slurm's srun.
    Launcher {
        rank: "SLURM_PROCID",
        world: "SLURM_NTASKS",
        local_rank: "SLURM_LOCALID",
    },
];

const HOST: &str = "127.0.0.1";
const PORT: u16 = 29_500;

/// More processes than anybody has; what is above is a mistake.
const MOST: usize = 65_536;

impl Place {
    /// The only process.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            world: 1,
            local_rank: 0,
            host: HOST.into(),
            port: PORT,
        }
    }

    /// Whether it is the one that holds the run directory.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// The place that the variables of a launcher say: torchrun's (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`), Open MPI's, MPICH's or Slurm's, the
    /// first of them that is there; with the meeting place in `MASTER_ADDR` and `MASTER_PORT`, 127.0.0.1 and 29500 by default. A launcher that
    /// says no local rank has all processes on one machine.
    ///
    /// # Errors
    /// When no variable is there, only half of them are, or one has no sense. The error names it.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let launcher = LAUNCHERS
            .iter()
            .find(|l| get(l.rank).is_some() || get(l.world).is_some());
        let Some(launcher) = launcher else {
            return Err(wrong(
                "RANK",
                "is not set, nor are WORLD_SIZE and their like of MPI and Slurm: a distributed run wants a launcher",
                "RANK=0 WORLD_SIZE=2 for the first of two processes, RANK=1 WORLD_SIZE=2 for the other; docs/distributed.md has the lines",
            ));
        };
        let needed = |name: &'static str, other: &str| match get(name) {
            Some(value) => number(name, &value),
            None => Err(wrong(
                name,
                &format!("is not set, but {other} is"),
                &format!("set both {} and {}", launcher.rank, launcher.world),
            )),
        };
        let rank = needed(launcher.rank, launcher.world)?;
        let world = needed(launcher.world, launcher.rank)?;
        if !(1..=MOST).contains(&world) {
            return Err(wrong(
                launcher.world,
                &format!("must be from 1 to {MOST}, got {world}"),
                "it is the number of processes",
            ));
        }
        if rank >= world {
            return Err(wrong(
                launcher.rank,
                &format!(
                    "must be below {}, which is {world}, got {rank}",
                    launcher.world
                ),
                "ranks count from 0",
            ));
        }
        let local_rank = match get(launcher.local_rank) {
            Some(value) => number(launcher.local_rank, &value)?,
            None => rank,
        };
        let port = match get("MASTER_PORT") {
            None => PORT,
            Some(value) => match value.trim().parse() {
                Ok(port) if port != 0 => port,
                _ => {
                    return Err(wrong(
                        "MASTER_PORT",
                        &format!("must be from 1 to 65535, got `{value}`"),
                        "a free port of the first process's machine",
                    ));
                }
            },
        };
        // torchrun's own agent listens at the port that it hands out.
        let taken = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
        Ok(Self {
            rank,
            world,
            local_rank,
            host: get("MASTER_ADDR").unwrap_or_else(|| HOST.into()),
            port: match port {
                u16::MAX if taken => u16::MAX - 1,
                port if taken => port + 1,
                port => port,
            },
        })
    }

    /// `HOST:PORT`.
    pub(super) fn address(&self) -> String {
        let host = &self.host;
        if host.contains(':') {
            format!("[{host}]:{}", self.port)
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

fn wrong(variable: &str, message: &str, hint: &str) -> Error {
    Error::Config {
        place: variable.into(),
        message: message.into(),
        hint: Some(hint.into()),
    }
}

fn number(variable: &str, value: &str) -> Result<usize> {
    value.trim().parse().map_err(|_| {
        wrong(
            variable,
            &format!("must be a whole number, got `{value}`"),
            "the launcher sets it; unset it where there is none",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &str) -> Result<Place> {
        Place::from_variables(|name| {
            let mut pairs = variables.split_whitespace().map(|v| v.split_once('='));
            let found = pairs.find_map(|pair| pair.filter(|(key, _)| *key == name));
            found.map(|(_, value)| value.into())
        })
    }

    fn check(variables: &str, rank: usize, world: usize, local_rank: usize, address: &str) {
        let place = place(variables).unwrap();
        let got = (place.rank, place.world, place.local_rank);
        assert_eq!(got, (rank, world, local_rank), "{variables}");
        assert_eq!(place.address(), address);
    }

    #[test]
    fn every_launcher_is_understood() {
        let here = "127.0.0.1:29500";
        check("RANK=1 WORLD_SIZE=2", 1, 2, 1, here);
        check("RANK=9 WORLD_SIZE=16 LOCAL_RANK=1", 9, 16, 1, here);
        check(
            "OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=1",
            3,
            4,
            1,
            here,
        );
        check("PMI_RANK=2 PMI_SIZE=3", 2, 3, 2, here);
        check(
            "SLURM_PROCID=5 SLURM_NTASKS=8 SLURM_LOCALID=1 MASTER_ADDR=node1 MASTER_PORT=7000",
            5,
            8,
            1,
            "node1:7000",
        );
        // Inside a job of Slurm's, the launcher's own word holds.
        check(
            "RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 SLURM_PROCID=3 SLURM_NTASKS=4 MASTER_ADDR=::1",
            0,
            2,
            0,
            "[::1]:29500",
        );
        check(
            "RANK=0 WORLD_SIZE=1 MASTER_PORT=7000 TORCHELASTIC_USE_AGENT_STORE=True",
            0,
            1,
            0,
            "127.0.0.1:7001",
        );
    }

    #[test]
    fn a_wrong_variable_is_named() {
        for (variables, name, wanted) in [
            ("", "RANK", "not set"),
            ("WORLD_SIZE=2", "RANK", "is not set, but WORLD_SIZE is"),
            ("RANK=0", "WORLD_SIZE", "is not set, but RANK is"),
            ("PMI_RANK=0", "PMI_SIZE", "not set"),
            ("RANK=2 WORLD_SIZE=2", "RANK", "below WORLD_SIZE"),
            ("RANK=0 WORLD_SIZE=0", "WORLD_SIZE", "from 1"),
            ("RANK=-1 WORLD_SIZE=2", "RANK", "whole number"),
            ("RANK=0 WORLD_SIZE=two", "WORLD_SIZE", "whole number"),
            ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=x", "LOCAL_RANK", "whole"),
            ("RANK=0 WORLD_SIZE=2 MASTER_PORT=0", "MASTER_PORT", "65535"),
            (
                "RANK=0 WORLD_SIZE=2 MASTER_PORT=99999",
                "MASTER_PORT",
                "65535",
            ),
        ] {
            let error = place(variables).unwrap_err();
            let text = error.to_string();
            assert!(error.is_usage() && error.hint().is_some(), "{variables}");
            assert!(text.starts_with(&format!("{name}: ")), "{text}");
            assert!(text.contains(wanted), "{text}");
        }
    }
}
