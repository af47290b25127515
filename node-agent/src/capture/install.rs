//! Puts a pod's rules and routes in, changes their phase, audits them, and takes them out.
//!
//! Everything is "compare, then commit the difference" ([`super::compare`]), so every act is idempotent and an act that
//! was interrupted is completed by the next one. Works in the network namespace of the calling thread.

use std::{collections::BTreeMap, path::Path};

use thiserror::Error;

use super::{
    compare::{self, Deviation, Found, deviations, repair},
    course::{self, Standing},
    guard::Guard,
    mark::CapturePorts,
    netns::{NetnsError, NetnsThread},
    program::{Backend, ProgramError, Programs},
    routes::{self, RouteError},
    rules::{Table, TableName},
    ruleset::{Phase, Way, tables},
    socket::Ipv6,
};
use crate::handover::Family;

/// Why a pod's rules or routes are not as wanted.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The packet filter.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Rule or route.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The kernel took the rules and shows others.
    #[error("the packet filter does not hold what was put in: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Unverified(Vec<Deviation>),
    /// No place to try the programs in.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// What a captured pod must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which rules.
    pub phase: Phase,
    /// Where the listeners are.
    pub ports: CapturePorts,
    /// Which families.
    pub ipv6: Ipv6,
}

/// What an audit found: nothing is what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Audit {
    /// Rules that deviate, by family.
    pub rules: BTreeMap<Family, Vec<Deviation>>,
    /// Families whose policy rule or route is missing or doubled.
    pub routing: Vec<Family>,
    /// The guard's own table is not as wanted.
    pub guard: bool,
    /// Listeners of ours that were closed by somebody, or missing.
    pub listeners: usize,
}

impl Audit {
    /// All is as wanted.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.rules.is_empty() && self.routing.is_empty() && !self.guard && self.listeners == 0
    }
}

/// Knows programs that work here.
#[derive(Clone, Debug)]
pub struct Installer {
    programs: Programs,
    /// None where nft or the kernel lacks something: the guard then stands in the filter table only.
    guard: Option<Guard>,
}

impl Installer {
    /// Tries the back ends with the real rules in a private namespace, and takes the first that works.
    ///
    /// # Errors
    /// What stopped the preferred one; [`ProgramError::Absent`] when there is none.
    pub async fn detect(lock: &Path) -> Result<Self, InstallError> {
        let mut first = None;
        for backend in Backend::ALL {
            match Self::of_backend(backend, lock).await {
                Ok(installer) => return Ok(installer),
                Err(InstallError::Program(ProgramError::Absent)) => {}
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or(InstallError::Program(ProgramError::Absent)))
    }

    /// As [`Self::detect`], but only this back end.
    ///
    /// # Errors
    /// What stops it.
    pub async fn of_backend(backend: Backend, lock: &Path) -> Result<Self, InstallError> {
        let programs = Programs::find(backend, lock).ok_or(ProgramError::Absent)?;
        let installer = Self { programs, guard: None };
        let trial = installer.clone();
        let thread = NetnsThread::in_private_namespace()?;
        thread.run(move || trial.try_all_rules()).await??;
        let guard = thread.run(Guard::learn).await?;
        if let Err(error) = &guard {
            tracing::info!(%error, "no guard in an nft table of its own; it stands in the filter table only");
        }
        Ok(Self { guard: guard.ok(), ..installer })
    }

    /// Which back end was found to work.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.programs.backend()
    }

    /// Installs, repairs or changes the phase: routes first, then mangle, then filter. The listeners must be there.
    /// True: something had to be changed.
    ///
    /// # Errors
    /// [`InstallError`]; what was done until then stays, and the guards fail closed.
    pub fn apply(&self, wanted: Wanted) -> Result<bool, InstallError> {
        for family in wanted.ipv6.families() {
            routes::install(*family)?;
        }
        let mut changed = false;
        let guard_first = course::guard_comes_first(wanted.phase, || self.has_guard())?;
        if guard_first {
            changed |= self.apply_guard(wanted.phase)?;
        }
        for family in wanted.ipv6.guarded() {
            let tables = tables(*family, wanted.phase, wanted.ports);
            let guarded = wanted.phase != Phase::Steady && self.found(*family, TableName::Filter)?.count_ours() > 0;
            for name in course::order(wanted.phase, guarded) {
                for table in tables.iter().filter(|table| table.name == name) {
                    changed |= self.commit(*family, table)?;
                }
            }
        }
        if !guard_first {
            changed |= self.apply_guard(wanted.phase)?;
        }
        Ok(changed)
    }

    fn has_guard(&self) -> Result<bool, InstallError> {
        Ok(self.guard.as_ref().map_or(Ok(false), Guard::exists)?)
    }

    fn apply_guard(&self, phase: Phase) -> Result<bool, InstallError> {
        Ok(self.guard.as_ref().map_or(Ok(false), |guard| guard.apply(phase))?)
    }

    /// Takes everything of ours out, in the reverse order.
    ///
    /// # Errors
    /// [`InstallError`].
    pub fn remove(&self, ipv6: Ipv6) -> Result<(), InstallError> {
        if let Some(guard) = &self.guard {
            guard.remove()?;
        }
        for family in ipv6.guarded() {
            for name in course::REMOVAL {
                self.commit(*family, &compare::nothing(name))?;
            }
        }
        for family in ipv6.families() {
            routes::remove(*family)?;
        }
        Ok(())
    }

    /// Compares what is wanted with what is there.
    ///
    /// # Errors
    /// Only when it cannot be read.
    pub fn audit(&self, wanted: Wanted) -> Result<Audit, InstallError> {
        let guard = self.guard.as_ref().map_or(Ok(true), |guard| guard.stands(wanted.phase))?;
        let mut audit = Audit { guard: !guard, ..Audit::default() };
        for family in wanted.ipv6.guarded() {
            let mut all = Vec::new();
            for table in tables(*family, wanted.phase, wanted.ports) {
                all.extend(deviations(&table, &self.found(*family, table.name)?));
            }
            if !all.is_empty() {
                audit.rules.insert(*family, all);
            }
        }
        for family in wanted.ipv6.families() {
            if !routes::audit(*family)?.stands() {
                audit.routing.push(*family);
            }
        }
        Ok(audit)
    }

    /// As [`Self::audit`], and repairs what it finds: the guard first, since it alone closes a pod whose every table was
    /// emptied.
    ///
    /// # Errors
    /// [`InstallError`]; what was repaired until then stays.
    pub fn mend(&self, wanted: Wanted) -> Result<Audit, InstallError> {
        let guard = self.apply_guard(wanted.phase)?;
        let audit = Audit { guard, ..self.audit(wanted)? };
        if !audit.rules.is_empty() || !audit.routing.is_empty() {
            self.apply(wanted)?;
        }
        Ok(audit)
    }

    /// Closes a namespace in which nobody listens: the guards first and whatever else can be put in.
    ///
    /// # Errors
    /// Neither the guard of nft nor the rules stand.
    pub fn close(&self, wanted: Wanted) -> Result<(), InstallError> {
        let guarded = self.apply_guard(wanted.phase);
        match (self.apply(wanted), guarded) {
            (Ok(_), _) => Ok(()),
            (Err(_), Ok(_)) if self.guard.is_some() => Ok(()),
            (Err(error), _) => Err(error),
        }
    }

    /// Which phase the rules that exist are in: `Ok(None)` when there are none and no guard, [`Standing::Damaged`] when they
    /// are no phase's.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn standing(&self, ports: CapturePorts, ipv6: Ipv6) -> Result<Option<Standing>, InstallError> {
        let mut shown = Vec::new();
        for family in ipv6.guarded() {
            for name in [TableName::Mangle, TableName::Filter] {
                shown.push((*family, name, self.found(*family, name)?));
            }
        }
        course::standing(&shown, ports, || self.has_guard())
    }

    /// Whether rules of ours or a guard exist in this namespace, whichever: one program run where nft shows them all.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_there(&self, ipv6: Ipv6) -> Result<bool, InstallError> {
        match &self.guard {
            Some(guard) if self.backend() == Backend::Nft => Ok(guard.or_chains_exist()?),
            _ => Ok(self.has_guard()? || self.count(ipv6)? > 0),
        }
    }

    /// Chains and rules of ours that exist in this namespace.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn count(&self, ipv6: Ipv6) -> Result<usize, InstallError> {
        let mut count = 0;
        for family in ipv6.guarded() {
            for table in [TableName::Mangle, TableName::Filter] {
                count += self.found(*family, table)?.count_ours();
            }
        }
        Ok(count)
    }

    fn found(&self, family: Family, table: TableName) -> Result<Found, InstallError> {
        Ok(Found::parse(&self.programs.save(family, &table.to_string())?))
    }

    fn commit(&self, family: Family, table: &Table) -> Result<bool, InstallError> {
        let Some(text) = repair(table, &self.found(family, table.name)?) else { return Ok(false) };
        self.programs.restore(family, &text)?;
        let left = deviations(table, &self.found(family, table.name)?);
        if left.is_empty() { Ok(true) } else { Err(InstallError::Unverified(left)) }
    }

    fn try_all_rules(&self) -> Result<(), InstallError> {
        for family in Ipv6::detect().guarded() {
            for phase in [Phase::Enrol(Way::Direct), Phase::Steady] {
                for table in tables(*family, phase, CapturePorts::default()) {
                    self.commit(*family, &table)?;
                }
            }
        }
        Ok(())
    }
}
