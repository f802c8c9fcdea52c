"""The methods of AMQP 0-9-1 and RabbitMQ's extensions, with the argument names of the specification.

Source: the specification's XML (amqp0-9-1.extended.xml) for classes, numbers and order of arguments. Of its
reserved arguments those that RabbitMQ revived have their names back: ``auto_delete`` and ``internal`` of
exchange.declare.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from brokers.engine.core.amqp.wire import (
    Bit,
    FieldTable,
    Long,
    LongLong,
    LongString,
    Method,
    Octet,
    RoutingKey,
    Short,
    ShortString,
    all_methods,
    decode_method,
    encode,
    method,
    method_class,
)

__all__ = ["Method", "all_methods", "decode_method", "encode", "method_class"]


# connection (10)


@method(10, 10)
class ConnectionStart(Method):
    version_major: Octet = 0
    version_minor: Octet = 9
    server_properties: FieldTable = field(default_factory=dict)
    mechanisms: LongString = b"PLAIN"
    locales: LongString = b"en_US"


@method(10, 11)
class ConnectionStartOk(Method):
    client_properties: FieldTable = field(default_factory=dict)
    mechanism: ShortString = "PLAIN"
    response: LongString = b""
    locale: ShortString = "en_US"


@method(10, 20)
class ConnectionSecure(Method):
    challenge: LongString = b""


@method(10, 21)
class ConnectionSecureOk(Method):
    response: LongString = b""


@method(10, 30)
class ConnectionTune(Method):
    channel_max: Short = 0
    frame_max: Long = 0
    heartbeat: Short = 0


@method(10, 31)
class ConnectionTuneOk(Method):
    channel_max: Short = 0
    frame_max: Long = 0
    heartbeat: Short = 0


@method(10, 40)
class ConnectionOpen(Method):
    virtual_host: ShortString = "/"
    reserved_1: ClassVar[ShortString] = ""
    reserved_2: ClassVar[Bit] = False


@method(10, 41)
class ConnectionOpenOk(Method):
    reserved_1: ClassVar[ShortString] = ""


@method(10, 50)
class ConnectionClose(Method):
    reply_code: Short = 200
    reply_text: ShortString = ""
    failing_class_id: Short = 0
    failing_method_id: Short = 0


@method(10, 51)
class ConnectionCloseOk(Method):
    pass


@method(10, 60)
class ConnectionBlocked(Method):
    reason: ShortString = ""


@method(10, 61)
class ConnectionUnblocked(Method):
    pass


@method(10, 70)
class ConnectionUpdateSecret(Method):
    new_secret: LongString = b""
    reason: ShortString = ""


@method(10, 71)
class ConnectionUpdateSecretOk(Method):
    pass


# channel (20)


@method(20, 10)
class ChannelOpen(Method):
    reserved_1: ClassVar[ShortString] = ""


@method(20, 11)
class ChannelOpenOk(Method):
    reserved_1: ClassVar[LongString] = b""


@method(20, 20)
class ChannelFlow(Method):
    active: Bit = True


@method(20, 21)
class ChannelFlowOk(Method):
    active: Bit = True


@method(20, 40)
class ChannelClose(Method):
    reply_code: Short = 200
    reply_text: ShortString = ""
    failing_class_id: Short = 0
    failing_method_id: Short = 0


@method(20, 41)
class ChannelCloseOk(Method):
    pass


# access (30): of AMQP 0-8; clients that still ask are given a ticket nobody looks at


@method(30, 10)
class AccessRequest(Method):
    realm: ShortString = "/data"
    exclusive: Bit = False
    passive: Bit = True
    active: Bit = True
    write: Bit = True
    read: Bit = True


@method(30, 11)
class AccessRequestOk(Method):
    ticket: Short = 1


# exchange (40)


@method(40, 10)
class ExchangeDeclare(Method):
    reserved_1: ClassVar[Short] = 0
    exchange: ShortString = ""
    type: ShortString = "direct"
    passive: Bit = False
    durable: Bit = False
    auto_delete: Bit = False
    internal: Bit = False
    nowait: Bit = False
    arguments: FieldTable = field(default_factory=dict)


@method(40, 11)
class ExchangeDeclareOk(Method):
    pass


@method(40, 20)
class ExchangeDelete(Method):
    reserved_1: ClassVar[Short] = 0
    exchange: ShortString = ""
    if_unused: Bit = False
    nowait: Bit = False


@method(40, 21)
class ExchangeDeleteOk(Method):
    pass


@method(40, 30)
class ExchangeBind(Method):
    reserved_1: ClassVar[Short] = 0
    destination: ShortString = ""
    source: ShortString = ""
    routing_key: RoutingKey = ""
    nowait: Bit = False
    arguments: FieldTable = field(default_factory=dict)


@method(40, 31)
class ExchangeBindOk(Method):
    pass


@method(40, 40)
class ExchangeUnbind(Method):
    reserved_1: ClassVar[Short] = 0
    destination: ShortString = ""
    source: ShortString = ""
    routing_key: RoutingKey = ""
    nowait: Bit = False
    arguments: FieldTable = field(default_factory=dict)


@method(40, 51)
class ExchangeUnbindOk(Method):
    pass


# queue (50)


@method(50, 10)
class QueueDeclare(Method):
    reserved_1: ClassVar[Short] = 0
    queue: ShortString = ""
    passive: Bit = False
    durable: Bit = False
    exclusive: Bit = False
    auto_delete: Bit = False
    nowait: Bit = False
    arguments: FieldTable = field(default_factory=dict)


@method(50, 11)
class QueueDeclareOk(Method):
    queue: ShortString
    message_count: Long = 0
    consumer_count: Long = 0


@method(50, 20)
class QueueBind(Method):
    reserved_1: ClassVar[Short] = 0
    queue: ShortString = ""
    exchange: ShortString = ""
    routing_key: RoutingKey = ""
    nowait: Bit = False
    arguments: FieldTable = field(default_factory=dict)


@method(50, 21)
class QueueBindOk(Method):
    pass


@method(50, 30)
class QueuePurge(Method):
    reserved_1: ClassVar[Short] = 0
    queue: ShortString = ""
    nowait: Bit = False


@method(50, 31)
class QueuePurgeOk(Method):
    message_count: Long = 0


@method(50, 40)
class QueueDelete(Method):
    reserved_1: ClassVar[Short] = 0
    queue: ShortString = ""
    if_unused: Bit = False
    if_empty: Bit = False
    nowait: Bit = False


@method(50, 41)
class QueueDeleteOk(Method):
    message_count: Long = 0


@method(50, 50)
class QueueUnbind(Method):
    reserved_1: ClassVar[Short] = 0
    queue: ShortString = ""
    exchange: ShortString = ""
    routing_key: RoutingKey = ""
    arguments: FieldTable = field(default_factory=dict)


@method(50, 51)
class QueueUnbindOk(Method):
    pass


# basic (60)


@method(60, 10)
class BasicQos(Method):
    prefetch_size: Long = 0
    prefetch_count: Short = 0
    global_: Bit = False


@method(60, 11)
class BasicQosOk(Method):
    pass


@method(60, 20)
class BasicConsume(Method):
    reserved_1: ClassVar[Short] = 0
    queue: ShortString = ""
    consumer_tag: ShortString = ""
    no_local: Bit = False
    no_ack: Bit = False
    exclusive: Bit = False
    nowait: Bit = False
    arguments: FieldTable = field(default_factory=dict)


@method(60, 21)
class BasicConsumeOk(Method):
    consumer_tag: ShortString = ""


@method(60, 30)
class BasicCancel(Method):
    consumer_tag: ShortString = ""
    nowait: Bit = False


@method(60, 31)
class BasicCancelOk(Method):
    consumer_tag: ShortString = ""


@method(60, 40, content=True)
class BasicPublish(Method):
    reserved_1: ClassVar[Short] = 0
    exchange: ShortString = ""
    routing_key: RoutingKey = ""
    mandatory: Bit = False
    immediate: Bit = False


@method(60, 50, content=True)
class BasicReturn(Method):
    reply_code: Short = 312
    reply_text: ShortString = "NO_ROUTE"
    exchange: ShortString = ""
    routing_key: RoutingKey = ""


@method(60, 60, content=True)
class BasicDeliver(Method):
    consumer_tag: ShortString = ""
    delivery_tag: LongLong = 0
    redelivered: Bit = False
    exchange: ShortString = ""
    routing_key: RoutingKey = ""


@method(60, 70)
class BasicGet(Method):
    reserved_1: ClassVar[Short] = 0
    queue: ShortString = ""
    no_ack: Bit = False


@method(60, 71, content=True)
class BasicGetOk(Method):
    delivery_tag: LongLong = 0
    redelivered: Bit = False
    exchange: ShortString = ""
    routing_key: RoutingKey = ""
    message_count: Long = 0


@method(60, 72)
class BasicGetEmpty(Method):
    reserved_1: ClassVar[ShortString] = ""


@method(60, 80)
class BasicAck(Method):
    delivery_tag: LongLong = 0
    multiple: Bit = False


@method(60, 90)
class BasicReject(Method):
    delivery_tag: LongLong = 0
    requeue: Bit = True


@method(60, 100)
class BasicRecoverAsync(Method):
    requeue: Bit = False


@method(60, 110)
class BasicRecover(Method):
    requeue: Bit = False


@method(60, 111)
class BasicRecoverOk(Method):
    pass


@method(60, 120)
class BasicNack(Method):
    delivery_tag: LongLong = 0
    multiple: Bit = False
    requeue: Bit = True


# confirm (85)


@method(85, 10)
class ConfirmSelect(Method):
    nowait: Bit = False


@method(85, 11)
class ConfirmSelectOk(Method):
    pass


# tx (90)


@method(90, 10)
class TxSelect(Method):
    pass


@method(90, 11)
class TxSelectOk(Method):
    pass


@method(90, 20)
class TxCommit(Method):
    pass


@method(90, 21)
class TxCommitOk(Method):
    pass


@method(90, 30)
class TxRollback(Method):
    pass


@method(90, 31)
class TxRollbackOk(Method):
    pass
