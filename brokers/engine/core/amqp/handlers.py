"""What each method does on an open, idle channel.

A handler answers by itself, or asks the broker and leaves the channel busy until that has answered. It
raises ``AmqpError`` for what RabbitMQ refuses, in RabbitMQ's words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from brokers.engine.core.amqp import methods as m
from brokers.engine.core.amqp.confirms import Confirms
from brokers.engine.core.amqp.consumer import Consumer
from brokers.engine.core.amqp.errors import (
    AmqpError,
    channel_error,
    command_invalid,
    no_previous_queue,
    not_allowed,
    not_implemented,
    precondition_failed,
)
from brokers.engine.core.amqp.port import Outcome

if TYPE_CHECKING:
    from brokers.engine.core.amqp.channel import Channel
    from brokers.engine.core.amqp.port import Delivery
    from brokers.engine.core.amqp.transaction import Transaction


def handle(channel: Channel, method: m.Method) -> None:
    """Carry out ``method``. Raises ``AmqpError``, which names the method."""
    handler = _HANDLERS.get(type(method), _unimplemented)
    try:
        handler(channel, method)
    except AmqpError as exc:
        raise exc.during(method.class_id, method.method_id) from None


def _unimplemented(channel: Channel, method: m.Method) -> None:
    raise command_invalid("unimplemented method")


# channel, access, confirm, tx


def _second_open(channel: Channel, method: m.ChannelOpen) -> None:
    raise channel_error("second 'channel.open' seen")


def _close(channel: Channel, method: m.ChannelClose) -> None:
    connection = channel.connection
    channel.close()

    def departed() -> None:
        if not connection.ended:
            channel.send(m.ChannelCloseOk())
            connection.forget(channel)

    connection.broker.departed(connection, departed)


def _flow(channel: Channel, method: m.ChannelFlow) -> None:
    if not method.active:
        raise not_implemented("active=false")
    channel.send(m.ChannelFlowOk(True))


def _access(channel: Channel, method: m.AccessRequest) -> None:
    channel.send(m.AccessRequestOk(1))


def _confirm_select(channel: Channel, method: m.ConfirmSelect) -> None:
    if channel.tx is not None:
        raise precondition_failed("cannot switch from tx to confirm mode")
    if channel.confirms is None:
        channel.confirms = Confirms(channel.number)
    if not method.nowait:
        channel.send(m.ConfirmSelectOk())


def _tx_select(channel: Channel, method: m.TxSelect) -> None:
    if channel.confirms is not None:
        raise precondition_failed("cannot switch from confirm to tx mode")
    channel.select()
    channel.send(m.TxSelectOk())


def _tx(channel: Channel) -> Transaction:
    if channel.tx is None:
        raise precondition_failed("channel is not transactional")
    return channel.tx


def _tx_commit(channel: Channel, method: m.TxCommit) -> None:
    """Busy until all queues have what the transaction published."""
    tx = _tx(channel)
    finish = channel.wait()

    def done(whole: bool) -> None:
        if not finish():
            return
        if whole:
            channel.send(m.TxCommitOk())
        else:
            refusal = precondition_failed("partial tx completion")
            channel.connection.failed(refusal.during(method.class_id, method.method_id), channel)
        channel.resume()

    channel.commit(tx, done)


def _tx_rollback(channel: Channel, method: m.TxRollback) -> None:
    channel.connection.assembling -= _tx(channel).rollback()
    channel.send(m.TxRollbackOk())


# exchange and queue: the broker's, except for names that the channel remembers


def _previous(channel: Channel, queue: str) -> str:
    """An empty queue name means the queue this channel declared last."""
    if queue:
        return queue
    if not channel.last_queue:
        raise no_previous_queue()
    return channel.last_queue


def _topology(channel: Channel, method: Any) -> None:
    _ask(channel, method, method.nowait)


def _queue_named(channel: Channel, method: Any) -> None:
    queue = _previous(channel, method.queue)
    _ask(channel, replace(method, queue=queue), getattr(method, "nowait", False))


def _queue_bound(channel: Channel, method: Any) -> None:
    """queue.bind and unbind: with the queue's name the routing key may be left out too."""
    if not method.queue and not method.routing_key:
        method = replace(method, routing_key=_previous(channel, ""))
    _queue_named(channel, method)


def _ask(channel: Channel, method: m.Method, nowait: bool) -> None:
    """Have the broker do it; busy until then."""
    finish = channel.wait()

    def done(reply: m.Method | AmqpError | None) -> None:
        if not finish():
            return
        if isinstance(reply, AmqpError):
            channel.connection.failed(reply.during(method.class_id, method.method_id), channel)
        elif reply is not None:
            if isinstance(reply, m.QueueDeclareOk):
                channel.last_queue = reply.queue
            if not nowait:
                channel.send(reply)
        channel.resume()

    _answered(done, lambda: channel.connection.broker.call(channel, method, done))


def _answered(done: Callable[[AmqpError], None], call: Callable[[], None]) -> None:
    """An error the broker raises at once is as good as one it answers with."""
    try:
        call()
    except AmqpError as exc:
        done(exc)


# basic


def _qos(channel: Channel, method: m.BasicQos) -> None:
    if method.prefetch_size:
        raise not_implemented(f"prefetch_size!=0 ({method.prefetch_size})")
    if method.global_:
        channel.share_prefetch(method.prefetch_count)
    else:
        channel.prefetch = method.prefetch_count
    channel.send(m.BasicQosOk())


def _consume(channel: Channel, method: m.BasicConsume) -> None:
    queue = _previous(channel, method.queue)
    settings = channel.connection.settings
    tag = method.consumer_tag or f"amq.ctag-{settings.token()}"
    if tag in channel.consumers:
        raise not_allowed(f"attempt to reuse consumer tag '{tag}'")
    if len(channel.consumers) >= settings.max_consumers:
        raise not_allowed(f"reached maximum ({settings.max_consumers}) of consumers per channel")
    consumer = Consumer(
        channel,
        tag,
        no_ack=method.no_ack,
        exclusive=method.exclusive,
        arguments=method.arguments,
        prefetch=channel.prefetch,
    )
    consumer.prefetch = channel.shared.prefetch_of(consumer)
    channel.consumers[tag] = consumer
    finish = channel.wait()

    def done(reply: m.Method | AmqpError | None) -> None:
        if not finish():
            return
        if isinstance(reply, AmqpError):
            del channel.consumers[tag]
            channel.connection.failed(reply.during(method.class_id, method.method_id), channel)
        else:
            if not method.nowait:
                channel.send(m.BasicConsumeOk(tag))
            channel.start_consumer(consumer)
        channel.resume()

    request = replace(method, queue=queue, consumer_tag=tag)
    _answered(done, lambda: channel.connection.broker.consume(channel, consumer, request, done))


def _cancel(channel: Channel, method: m.BasicCancel) -> None:
    consumer = channel.consumers.get(method.consumer_tag)
    if consumer is not None:
        channel.connection.broker.cancel(consumer)
        channel.remove_consumer(consumer)
    if method.nowait:
        return
    finish = channel.wait()

    def departed() -> None:
        if finish():
            channel.send(m.BasicCancelOk(method.consumer_tag))
            channel.resume()

    channel.connection.broker.departed(channel.connection, departed)


def _cancelled(channel: Channel, method: m.BasicCancelOk) -> None:
    """The client confirms a cancel of the broker's; nothing waits for that."""


def _get(channel: Channel, method: m.BasicGet) -> None:
    queue = _previous(channel, method.queue)
    holder = Consumer(channel, "", no_ack=method.no_ack, holder=True)
    finish = channel.wait()

    def done(result: Delivery | AmqpError | None, ready: int = 0) -> None:
        if not finish():
            if isinstance(result, tuple) and not method.no_ack:
                holder.give_back((result[0],))
            return
        if isinstance(result, AmqpError):
            channel.connection.failed(result.during(method.class_id, method.method_id), channel)
        elif result is None:
            channel.send(m.BasicGetEmpty())
        else:
            _get_ok(channel, holder, result, ready)
        channel.resume()

    request = replace(method, queue=queue)
    _answered(done, lambda: channel.connection.broker.get(channel, holder, request, done))


def _get_ok(channel: Channel, holder: Consumer, delivery: Delivery, ready: int) -> None:
    position, redelivered, route, header, body = delivery
    channel.delivered += 1
    channel.connection.counts.deliver += 1
    if not holder.no_ack:
        channel.unacked[channel.delivered] = (holder, position)
        channel.shared.fetched += 1
        holder.unsettled = 1
    method = (
        b"\x00\x3c\x00\x47"
        + channel.delivered.to_bytes(8, "big")
        + bytes((redelivered,))
        + route
        + ready.to_bytes(4, "big")
    )
    channel.send_content(method, header, body)


def _settle(channel: Channel, tag: int, multiple: bool, outcome: Outcome) -> None:
    if channel.tx is not None:
        channel.tx.settle(channel.unacked, tag, multiple, outcome)
    else:
        channel.settle(channel.unacked.take(tag, multiple), outcome)


def _ack(channel: Channel, method: m.BasicAck) -> None:
    _settle(channel, method.delivery_tag, method.multiple, Outcome.ACK)


def _nack(channel: Channel, method: m.BasicNack) -> None:
    outcome = Outcome.REQUEUE if method.requeue else Outcome.REJECT
    _settle(channel, method.delivery_tag, method.multiple, outcome)


def _reject(channel: Channel, method: m.BasicReject) -> None:
    outcome = Outcome.REQUEUE if method.requeue else Outcome.REJECT
    _settle(channel, method.delivery_tag, False, outcome)


def _recover(channel: Channel, method: m.BasicRecover | m.BasicRecoverAsync) -> None:
    if not method.requeue:
        raise not_implemented("requeue=false")
    unacked = channel.unacked
    groups = unacked.take_all() if channel.tx is None else channel.tx.recover(unacked)
    channel.settle(groups, Outcome.REQUEUE)
    if isinstance(method, m.BasicRecover):
        channel.send(m.BasicRecoverOk())


_HANDLERS: dict[type[m.Method], Callable[[Channel, Any], None]] = {
    m.ChannelOpen: _second_open,
    m.ChannelClose: _close,
    m.ChannelFlow: _flow,
    m.AccessRequest: _access,
    m.ConfirmSelect: _confirm_select,
    m.TxSelect: _tx_select,
    m.TxCommit: _tx_commit,
    m.TxRollback: _tx_rollback,
    m.ExchangeDeclare: _topology,
    m.ExchangeDelete: _topology,
    m.ExchangeBind: _topology,
    m.ExchangeUnbind: _topology,
    m.QueueDeclare: _topology,
    m.QueueBind: _queue_bound,
    m.QueueUnbind: _queue_bound,
    m.QueuePurge: _queue_named,
    m.QueueDelete: _queue_named,
    m.BasicQos: _qos,
    m.BasicConsume: _consume,
    m.BasicCancel: _cancel,
    m.BasicCancelOk: _cancelled,
    m.BasicGet: _get,
    m.BasicAck: _ack,
    m.BasicNack: _nack,
    m.BasicReject: _reject,
    m.BasicRecover: _recover,
    m.BasicRecoverAsync: _recover,
}
