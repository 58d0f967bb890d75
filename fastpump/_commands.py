"""The one-byte commands and flags of a frame (protocol document, section 2.1)."""

from __future__ import annotations

from enum import IntEnum

FLAG_AUTHENTICATED = 0x01
FLAG_TRUSTED_WRITE = 0x02


class Command(IntEnum):
    HeartbeatRequest = 0x01
    HeartbeatResponse = 0x02
    Ping = 0x03
    Pong = 0x04

    WriteEvents = 0x82
    WriteEventsCompleted = 0x83
    TransactionStart = 0x84
    TransactionStartCompleted = 0x85
    TransactionWrite = 0x86
    TransactionWriteCompleted = 0x87
    TransactionCommit = 0x88
    TransactionCommitCompleted = 0x89
    DeleteStream = 0x8A
    DeleteStreamCompleted = 0x8B

    ReadEvent = 0xB0
    Read = 0xB0  # photon-pump's name for it
    ReadEventCompleted = 0xB1
    ReadStreamEventsForward = 0xB2
    ReadStreamEventsForwardCompleted = 0xB3
    ReadStreamEventsBackward = 0xB4
    ReadStreamEventsBackwardCompleted = 0xB5
    ReadAllEventsForward = 0xB6
    ReadAllEventsForwardCompleted = 0xB7
    ReadAllEventsBackward = 0xB8
    ReadAllEventsBackwardCompleted = 0xB9
    FilteredReadAllEventsForward = 0xBA
    FilteredReadAllEventsForwardCompleted = 0xBB
    FilteredReadAllEventsBackward = 0xBC
    FilteredReadAllEventsBackwardCompleted = 0xBE

    SubscribeToStream = 0xC0
    SubscriptionConfirmation = 0xC1
    StreamEventAppeared = 0xC2
    UnsubscribeFromStream = 0xC3
    SubscriptionDropped = 0xC4
    ConnectToPersistentSubscription = 0xC5
    PersistentSubscriptionConfirmation = 0xC6
    PersistentSubscriptionStreamEventAppeared = 0xC7
    CreatePersistentSubscription = 0xC8
    CreatePersistentSubscriptionCompleted = 0xC9
    DeletePersistentSubscription = 0xCA
    DeletePersistentSubscriptionCompleted = 0xCB
    PersistentSubscriptionAckEvents = 0xCC
    PersistentSubscriptionNakEvents = 0xCD
    UpdatePersistentSubscription = 0xCE
    UpdatePersistentSubscriptionCompleted = 0xCF

    ScavengeDatabase = 0xD0
    ScavengeDatabaseCompleted = 0xD1
    FilteredSubscribeToStream = 0xD2
    CheckpointReached = 0xD3

    BadRequest = 0xF0
    NotHandled = 0xF1
    Authenticate = 0xF2
    Authenticated = 0xF3
    NotAuthenticated = 0xF4
    IdentifyClient = 0xF5
    ClientIdentified = 0xF6


def name_of(command: int) -> str:
    """The command's name, or its number where it is not a command we know."""
    try:
        return Command(command).name
    except ValueError:
        return f"command 0x{command:02X}"
