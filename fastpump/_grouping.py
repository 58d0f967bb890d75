"""Persistent subscriptions: making them, changing them, consuming them."""

from __future__ import annotations

from uuid import UUID

from fastpump._arguments import MAX_INT32, check_name, check_number, credential_of
from fastpump._group_consumer import Group, GroupConsumer
from fastpump._group_operations import (
    ChangeGroup,
    CreateGroup,
    DeleteGroup,
    UpdateGroup,
    group_key,
)
from fastpump._requesting import Requesting
from fastpump.exceptions import UsageError
from fastpump.messages import ROUND_ROBIN, Credential, Token
from fastpump.persistent import PersistentSubscription
from fastpump.persistent_settings import PersistentSubscriptionSettings


class Grouping(Requesting):
    """Create, change and delete persistent subscriptions, and be a consumer of one.

    Only administrators may create, change and delete them.
    """

    async def create_subscription(
        self,
        name: str,
        stream: str,
        resolve_links: bool = True,
        start_from: int = -1,
        timeout_ms: int = 30000,
        record_statistics: bool = False,
        live_buffer_size: int = 500,
        read_batch_size: int = 500,
        buffer_size: int = 1000,
        max_retry_count: int = 10,
        prefer_round_robin: bool = False,
        checkpoint_after_ms: int = 2000,
        checkpoint_max_count: int = 1000,
        checkpoint_min_count: int = 10,
        subscriber_max_count: int = 10,
        credential: Credential | Token | tuple[str, str] | None = None,
        conversation_id: UUID | None = None,
        consumer_strategy: str = ROUND_ROBIN,
        *,
        settings: PersistentSubscriptionSettings | None = None,
    ) -> None:
        """Create a persistent subscription. The stream need not exist yet.

        Give its settings one by one, as to photon-pump and with its defaults, or all at once as
        `settings`, with the defaults of the reference client.

        Args:
            name: what it is called among those of the stream.
            stream: the stream.
            timeout_ms, checkpoint_after_ms: `message_timeout` and `checkpoint_after` of
                PersistentSubscriptionSettings, in whole milliseconds.
            resolve_links, start_from, record_statistics, live_buffer_size, read_batch_size,
                buffer_size, max_retry_count, prefer_round_robin, checkpoint_max_count,
                checkpoint_min_count, subscriber_max_count, consumer_strategy: as in
                PersistentSubscriptionSettings.
            credential: whose right to do it counts, as in `Client.acting_as`.
            conversation_id: correlation id of the request; a new one by default.
            settings: all of them, in place of single ones.

        Raises:
            PersistentSubscriptionAlreadyExists: the stream has one of that name. If the connection
                was lost meanwhile, this very call may have made it.
            SubscriptionCreationFailed: the server refused, for instance an unknown strategy or the
                stream "$all"; the text says why.
            AccessDenied: only administrators may.

        >>> await client.create_subscription("billing", "account-7", start_from=0)
        """
        check_number("timeout_ms", timeout_ms, 0, MAX_INT32)
        check_number("checkpoint_after_ms", checkpoint_after_ms, 0, MAX_INT32)
        single = PersistentSubscriptionSettings(
            resolve_links=resolve_links,
            start_from=start_from,
            message_timeout=timeout_ms / 1000,
            record_statistics=record_statistics,
            live_buffer_size=live_buffer_size,
            read_batch_size=read_batch_size,
            buffer_size=buffer_size,
            max_retry_count=max_retry_count,
            checkpoint_after=checkpoint_after_ms / 1000,
            checkpoint_max_count=checkpoint_max_count,
            checkpoint_min_count=checkpoint_min_count,
            subscriber_max_count=subscriber_max_count,
            consumer_strategy=consumer_strategy,
            prefer_round_robin=prefer_round_robin,
        )
        if settings is None:
            settings = single
        elif single != _PHOTON_PUMPS:
            raise UsageError("settings", "takes the place of single ones; give those in it")
        auth = None if credential is None else credential_of("credential", credential).auth_block
        correlation_id = self._new_id(conversation_id, "conversation_id")
        await self._change_group(CreateGroup, name, stream, settings, correlation_id, auth)

    async def update_subscription(
        self, name: str, stream: str, settings: PersistentSubscriptionSettings
    ) -> None:
        """Give a persistent subscription other settings, all of them.

        Its consumers are dropped, and their loops end; they may connect again.

        Args:
            name, stream: which one.
            settings: what holds from now on. To change single ones, take `dataclasses.replace` of
                those it was made with: the server does not tell them.

        Raises:
            PersistentSubscriptionNotFound: there is none of that name.
            PersistentSubscriptionCommandFailed: the server refused; the text says why.
            AccessDenied: only administrators may.

        >>> settings = PersistentSubscriptionSettings(max_retry_count=3)
        >>> await client.update_subscription("billing", "account-7", settings)
        """
        await self._change_group(UpdateGroup, name, stream, settings, self._new_id(None))

    async def delete_subscription(self, name: str, stream: str) -> None:
        """Delete a persistent subscription with its checkpoint and its parked events.

        Its consumers are dropped, and their loops end.

        Args:
            name, stream: which one.

        Raises:
            PersistentSubscriptionNotFound: there is none of that name.
            PersistentSubscriptionCommandFailed: the server refused; the text says why.
            AccessDenied: only administrators may.

        >>> await client.delete_subscription("billing", "account-7")
        """
        correlation_id = self._new_id(None)
        check_name("name", name)
        check_name("stream", stream)
        frame = DeleteGroup.encode(correlation_id, stream, name, None)
        await self._perform(DeleteGroup, correlation_id, frame, group_key(stream, name))

    async def connect_subscription(
        self,
        subscription: str,
        stream: str,
        conversation_id: UUID | None = None,
        *,
        in_flight: int = 10,
        auto_ack: bool = False,
    ) -> PersistentSubscription:
        """Become a consumer of a persistent subscription.

        Args:
            subscription: its name, as in `create_subscription`.
            stream: the stream.
            conversation_id: correlation id of the request; a new one by default, and after each
                reconnect.
            in_flight: how many events may be here unanswered, 1 to 2**31 - 1. More of them make the
                way to the server and back matter less.
            auto_ack: acknowledge each event when the next one is asked for.

        Raises:
            PersistentSubscriptionNotFound: there is none of that name.
            MaximumSubscribersReached: it has as many consumers as it may.
            AccessDenied: the stream may not be read with these credentials.
            SubscriptionCreationFailed: the server refused for another reason.

        >>> async with await client.connect_subscription("billing", "account-7") as subscription:
        ...     async for event in subscription.events:
        ...         await subscription.ack(event)
        """
        outlet = self._outlet or self._not_connected()
        check_name("subscription", subscription)
        check_name("stream", stream)
        check_number("in_flight", in_flight, 1, MAX_INT32)
        correlation_id = self._new_id(conversation_id, "conversation_id")
        group = Group(outlet, self._timeout, stream, subscription, in_flight)
        consumer = GroupConsumer(group)
        await consumer.start(correlation_id)
        return PersistentSubscription(consumer, auto_ack)

    async def _change_group(
        self,
        kind: type[ChangeGroup],
        name: str,
        stream: str,
        settings: PersistentSubscriptionSettings,
        correlation_id: bytes,
        auth: bytes | None = None,
    ) -> None:
        check_name("name", name)
        check_name("stream", stream)
        if not isinstance(settings, PersistentSubscriptionSettings):
            raise UsageError(
                "settings", f"must be PersistentSubscriptionSettings, not {settings!r:.80}"
            )
        frame = kind.encode(correlation_id, stream, name, auth, **settings.to_fields())
        await self._perform(kind, correlation_id, frame, group_key(stream, name))


_PHOTON_PUMPS = PersistentSubscriptionSettings(
    resolve_links=True,
    read_batch_size=500,
    buffer_size=1000,
    subscriber_max_count=10,
    prefer_round_robin=False,
)
"""The defaults of `create_subscription`."""
