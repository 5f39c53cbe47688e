"""Every message between actors, and what a client may ask. Import it as `m`.

Commands are imperative, events past tense, replies nouns. `client.py` is the face, `entities.py` is spoken inside
the engine, `agents.py` between engine and hosts, `inner.py` inside a silo and towards history, `users.py` of users.
"""

from olvm.model.messages.agents import (
    AgentFailed,
    AgentReady,
    AgentRecovering,
    AskTask,
    CancelMigration,
    CheckHostLease,
    CommandDomain,
    CreateDomain,
    DomainMeasured,
    DomainMissing,
    DomainRefused,
    DomainReported,
    DomainState,
    FenceHost,
    FenceReady,
    FenceResult,
    FlushReports,
    ForgetDomain,
    GuestTold,
    Heartbeat,
    HostConfirmedDead,
    HostLeaseChecked,
    HostLost,
    HostReport,
    IncomingReady,
    KdumpSeen,
    MeasureDomain,
    MigrateDomain,
    MigrationFailed,
    MigrationProgressed,
    OpenConsole,
    PrepareIncoming,
    QueryDomain,
    RestartAgent,
    StartAgent,
    StopAgent,
    TaskDomain,
    TaskEnded,
    TaskOfHost,
    TaskWanted,
)
from olvm.model.messages.client import (
    AddHost,
    Arguments,
    ClusterCommand,
    Command,
    ConsoleTicket,
    CreateCluster,
    CreateVm,
    ExplainPlacement,
    HostCommand,
    HostTask,
    HostVerb,
    HostVerdict,
    LookUpOperation,
    OperationView,
    PlacementExplanation,
    Refusal,
    RemoveAffinityGroup,
    RemoveCluster,
    ResumeBehavior,
    Rule,
    SetAffinityGroup,
    Settings,
    ShowConsole,
    Submit,
    TrustedCommand,
    UpdateCluster,
    UpdateVm,
    VmCommand,
    VmTask,
    VmVerb,
)
from olvm.model.messages.entities import (
    AskConsole,
    AskEmpty,
    AskFencing,
    ChangeAffinity,
    ChangeCluster,
    ChangeVm,
    CommandCluster,
    CommandHost,
    CommandVm,
    CopyKind,
    CopyNotPlaced,
    CopyPlaced,
    DrainHost,
    EndCluster,
    EntityRemoved,
    ExplainFor,
    ExplainForVm,
    FencingAdvice,
    HostFenced,
    HostJoined,
    HostLeft,
    HostOccupancy,
    HostReported,
    HostSilent,
    HostStartFailed,
    HostUnresponsive,
    HostUsable,
    MoveReason,
    MoveVm,
    OperationEnded,
    OperationProgressed,
    PassOn,
    PlaceCopy,
    PlaceVm,
    PowerVm,
    PromoteCopy,
    RegisterHost,
    RegisterVm,
    ReleaseVm,
    ResizeVm,
    SlotFree,
    StartCluster,
    StayVm,
    StopDrain,
    TaskHost,
    TaskVm,
    VmChanged,
    VmMoveRefused,
    VmNotPlaced,
    VmPlaced,
    VmPowered,
    VmResized,
)
from olvm.model.messages.inner import (
    CallEnded,
    DomainHappened,
    EventsTold,
    EventTold,
    GuestFactsTold,
    OperationsTold,
    PullEvents,
    PullOperations,
    Recovered,
    Samples,
    SamplesStored,
    TimerFired,
)
from olvm.model.messages.message import Message
from olvm.model.messages.users import (
    ChangeUser,
    CreateUser,
    LogUserOn,
    RemoveUser,
    SetVerifier,
    UserDenied,
)

AnyMessage = (
    CreateCluster
    | UpdateCluster
    | RemoveCluster
    | ClusterCommand
    | SetAffinityGroup
    | RemoveAffinityGroup
    | AddHost
    | HostCommand
    | CreateVm
    | UpdateVm
    | VmCommand
    | Submit
    | LookUpOperation
    | ExplainPlacement
    | OperationView
    | Refusal
    | HostVerdict
    | PlacementExplanation
    | StartCluster
    | ChangeCluster
    | EndCluster
    | CommandCluster
    | ChangeAffinity
    | RegisterHost
    | CommandHost
    | RegisterVm
    | ChangeVm
    | CommandVm
    | OperationProgressed
    | OperationEnded
    | EntityRemoved
    | VmChanged
    | PlaceVm
    | VmPlaced
    | VmNotPlaced
    | PlaceCopy
    | CopyPlaced
    | CopyNotPlaced
    | SlotFree
    | PromoteCopy
    | ReleaseVm
    | ResizeVm
    | VmResized
    | MoveVm
    | StayVm
    | VmMoveRefused
    | PowerVm
    | VmPowered
    | ExplainFor
    | ExplainForVm
    | HostJoined
    | HostUsable
    | HostLeft
    | HostSilent
    | HostUnresponsive
    | HostFenced
    | HostReported
    | HostStartFailed
    | DrainHost
    | StopDrain
    | AskEmpty
    | HostOccupancy
    | AskFencing
    | FencingAdvice
    | StartAgent
    | StopAgent
    | RestartAgent
    | AgentReady
    | AgentRecovering
    | AgentFailed
    | Heartbeat
    | HostReport
    | KdumpSeen
    | CreateDomain
    | CommandDomain
    | PrepareIncoming
    | IncomingReady
    | MigrateDomain
    | CancelMigration
    | MigrationProgressed
    | MigrationFailed
    | ForgetDomain
    | QueryDomain
    | DomainReported
    | FlushReports
    | DomainMissing
    | MeasureDomain
    | DomainMeasured
    | DomainRefused
    | HostLost
    | HostConfirmedDead
    | FenceHost
    | FenceReady
    | FenceResult
    | CheckHostLease
    | HostLeaseChecked
    | TimerFired
    | Recovered
    | CallEnded
    | DomainHappened
    | Samples
    | SamplesStored
    | GuestFactsTold
    | EventsTold
    | EventTold
    | PullEvents
    | PullOperations
    | OperationsTold
    | ShowConsole
    | PassOn
    | TaskDomain
    | AskTask
    | TaskWanted
    | TaskOfHost
    | TaskEnded
    | OpenConsole
    | GuestTold
    | VmTask
    | HostTask
    | ConsoleTicket
    | TaskVm
    | TaskHost
    | AskConsole
    | CreateUser
    | ChangeUser
    | RemoveUser
    | SetVerifier
    | LogUserOn
    | UserDenied
)

__all__ = [
    "AddHost",
    "AgentFailed",
    "AgentReady",
    "AgentRecovering",
    "AnyMessage",
    "Arguments",
    "AskConsole",
    "AskEmpty",
    "AskFencing",
    "AskTask",
    "CallEnded",
    "CancelMigration",
    "ChangeAffinity",
    "ChangeCluster",
    "ChangeUser",
    "ChangeVm",
    "CheckHostLease",
    "ClusterCommand",
    "Command",
    "CommandCluster",
    "CommandDomain",
    "CommandHost",
    "CommandVm",
    "ConsoleTicket",
    "CopyKind",
    "CopyNotPlaced",
    "CopyPlaced",
    "CreateCluster",
    "CreateDomain",
    "CreateUser",
    "CreateVm",
    "DomainHappened",
    "DomainMeasured",
    "DomainMissing",
    "DomainRefused",
    "DomainReported",
    "DomainState",
    "DrainHost",
    "EndCluster",
    "EntityRemoved",
    "EventTold",
    "EventsTold",
    "ExplainFor",
    "ExplainForVm",
    "ExplainPlacement",
    "FenceHost",
    "FenceReady",
    "FenceResult",
    "FencingAdvice",
    "FlushReports",
    "ForgetDomain",
    "GuestFactsTold",
    "GuestTold",
    "Heartbeat",
    "HostCommand",
    "HostConfirmedDead",
    "HostFenced",
    "HostJoined",
    "HostLeaseChecked",
    "HostLeft",
    "HostLost",
    "HostOccupancy",
    "HostReport",
    "HostReported",
    "HostSilent",
    "HostStartFailed",
    "HostTask",
    "HostUnresponsive",
    "HostUsable",
    "HostVerb",
    "HostVerdict",
    "IncomingReady",
    "KdumpSeen",
    "LogUserOn",
    "LookUpOperation",
    "MeasureDomain",
    "Message",
    "MigrateDomain",
    "MigrationFailed",
    "MigrationProgressed",
    "MoveReason",
    "MoveVm",
    "OpenConsole",
    "OperationEnded",
    "OperationProgressed",
    "OperationView",
    "OperationsTold",
    "PassOn",
    "PlaceCopy",
    "PlaceVm",
    "PlacementExplanation",
    "PowerVm",
    "PrepareIncoming",
    "PromoteCopy",
    "PullEvents",
    "PullOperations",
    "QueryDomain",
    "Recovered",
    "Refusal",
    "RegisterHost",
    "RegisterVm",
    "ReleaseVm",
    "RemoveAffinityGroup",
    "RemoveCluster",
    "RemoveUser",
    "ResizeVm",
    "RestartAgent",
    "ResumeBehavior",
    "Rule",
    "Samples",
    "SamplesStored",
    "SetAffinityGroup",
    "SetVerifier",
    "Settings",
    "ShowConsole",
    "SlotFree",
    "StartAgent",
    "StartCluster",
    "StayVm",
    "StopAgent",
    "StopDrain",
    "Submit",
    "TaskDomain",
    "TaskEnded",
    "TaskHost",
    "TaskOfHost",
    "TaskVm",
    "TaskWanted",
    "TimerFired",
    "TrustedCommand",
    "UpdateCluster",
    "UpdateVm",
    "UserDenied",
    "VmChanged",
    "VmCommand",
    "VmMoveRefused",
    "VmNotPlaced",
    "VmPlaced",
    "VmPowered",
    "VmResized",
    "VmTask",
    "VmVerb",
]
