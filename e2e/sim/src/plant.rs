//! Faults that are planted, to see that the simulation finds them: what a tired programmer might write, or what Weft once did.
//! Each is a value that a world is made with; nothing of the real code changes.

use clap::ValueEnum;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// An agent that takes an answer without policies for "there are none".
    EmptyAnswerForgetsPolicies,
    /// An agent that acknowledges a response and puts it in force when the next one comes.
    AcknowledgesFirst,
    /// An agent that begins every stream with an empty mesh.
    ForgetsWithTheStream,
    /// An agent that asks for workloads, and then for policies.
    AsksForWorkloadsFirst,
    /// An agent that answers who was permitted once without asking again.
    CachesPermits,
    /// An agent that takes the name in the `baggage` header for the caller's.
    BelievesBaggage,
    /// An agent that is content with whoever answers its tunnel, as long as it is of the same namespace.
    AcceptsNeighbours,
    /// An agent that believes at once whatever a control plane that comes back has lost.
    BelievesEmptyAnswers,
    /// An agent that doubts no answer that takes longer than the time of confirmation (Weft's did).
    BelievesLateAnswers,
    /// An agent that acknowledges what it doubts.
    AcknowledgesDoubted,
    /// A control plane that sends workloads before the policies that they name.
    WorkloadsFirst,
    /// A control plane that takes no last good version for a file that is broken.
    ForgetsLastGood,
    /// A capture half that changes rules by taking them out and putting new ones in.
    ReplacesInTwoActs,
    /// A capture half that takes its rules along when it ends.
    TakesRulesAlong,
    /// A capture half that never looks at rules again.
    NeverAudits,
    /// A capture half that has not read its directory when it first acts.
    ActsBeforeItReads,
    /// A capture half whose auditor puts routes back, but not rules.
    MendsRoutesOnly,
    /// A capture half that puts no guard in although it could.
    ForgetsTheGuard,
    /// A capture half whose auditor repairs the guard after everything else.
    MendsTheGuardLast,
    /// A capture half that takes a pod of which only the guard is left for one that was never captured (Weft did).
    OverlooksTheGuard,
}
