// amqplib under remote control: a command a line on stdin, answers and events a line on stdout (see ../driver.py).
'use strict';

const crypto = require('node:crypto');
const readline = require('node:readline');
const amqp = require('amqplib');
const methods = require('amqplib/lib/defs');

const connections = new Map();
const channels = new Map();
const nacked = new Set();

function say(fields) {
  process.stdout.write(`${new URLSearchParams(fields)}\n`);
}

const converters = {
  i: Number,
  b: (text) => text === '1',
  s: (text) => text,
  l: (text) => text.split(','),
};

function tables(command) {
  const table = {};
  for (const [key, value] of Object.entries(command)) {
    if (!key.startsWith('a.')) continue;
    table[key.slice(2)] = converters[value[0]](value.slice(2));
  }
  return table;
}

function failure(error, scope) {
  const quoted = /with message "(.*)"$/s.exec(error.message);
  return { error: scope, code: error.code ?? 0, text: quoted ? quoted[1] : error.message };
}

function delivery(message) {
  const { fields, properties, content } = message;
  const said = {
    delivery: fields.deliveryTag,
    redelivered: fields.redelivered ? '1' : '0',
    exchange: fields.exchange,
    key: fields.routingKey,
    size: content.length,
    sha: crypto.createHash('sha256').update(content).digest('hex'),
  };
  if (content.length <= 1000) said.body = content.toString();
  if (properties.expiration !== undefined) said.expiration = properties.expiration;
  if (properties.replyTo !== undefined) said.reply_to = properties.replyTo;
  flatten('h', properties.headers ?? {}, said);
  return said;
}

// The leaves of a header, each with its path.
function flatten(name, value, said) {
  if (typeof value !== 'object' || value === null) {
    said[name] = String(value);
    return;
  }
  for (const [key, inner] of Object.entries(value)) flatten(`${name}.${key}`, inner, said);
}

function body(command) {
  if (command.fill === undefined) return Buffer.from(command.body ?? '');
  return Buffer.from(Uint8Array.from({ length: Number(command.fill) }, (_, i) => i % 251));
}

function flags(command, ...names) {
  return Object.fromEntries(names.map((name) => [name, command[name] === '1']));
}

const verbs = {
  async connect(command) {
    const options = { protocol: 'amqp', hostname: '127.0.0.1', port: Number(command.port) };
    if (command.heartbeat) options.heartbeat = Number(command.heartbeat);
    if (command.frame_max) options.frameMax = Number(command.frame_max);
    const connection = await amqp.connect(options, { noDelay: true });
    connections.set(command.c, connection);
    connection.on('error', (error) => say({ event: 'disconnected', c: command.c, ...failure(error, 'connection') }));
  },
  async disconnect(command) {
    await connections.get(command.c).close();
  },
  async channel(command) {
    const connection = connections.get(command.c);
    const confirm = command.confirm === '1';
    const channel = await (confirm ? connection.createConfirmChannel() : connection.createChannel());
    channels.set(command.ch, channel);
    channel.on('error', (error) => say({ event: 'closed', ch: command.ch, ...failure(error, 'channel') }));
    channel.on('return', ({ fields, content }) => {
      say({ event: 'return', ch: command.ch, code: fields.replyCode, text: fields.replyText, key: fields.routingKey,
        exchange: fields.exchange, body: content.toString() });
    });
  },
  async close_channel(command, channel) {
    await channel.close();
  },
  async exchange_declare(command, channel) {
    if (command.passive === '1') return void (await channel.checkExchange(command.name));
    await channel.assertExchange(command.name, command.type, {
      durable: command.durable === '1', autoDelete: command.auto_delete === '1', internal: command.internal === '1',
      arguments: tables(command),
    });
  },
  async exchange_delete(command, channel) {
    await channel.deleteExchange(command.name, { ifUnused: command.if_unused === '1' });
  },
  async exchange_bind(command, channel) {
    await channel.bindExchange(command.destination, command.source, command.key, tables(command));
  },
  async exchange_unbind(command, channel) {
    await channel.unbindExchange(command.destination, command.source, command.key, tables(command));
  },
  async queue_declare(command, channel) {
    const found = await (command.passive === '1'
      ? channel.checkQueue(command.name)
      : channel.assertQueue(command.name, {
        durable: command.durable === '1', exclusive: command.exclusive === '1',
        autoDelete: command.auto_delete === '1', arguments: tables(command),
      }));
    return { name: found.queue, messages: found.messageCount, consumers: found.consumerCount };
  },
  async queue_bind(command, channel) {
    await channel.bindQueue(command.queue, command.exchange, command.key, tables(command));
  },
  async queue_unbind(command, channel) {
    await channel.unbindQueue(command.queue, command.exchange, command.key, tables(command));
  },
  async queue_purge(command, channel) {
    return { messages: (await channel.purgeQueue(command.queue)).messageCount };
  },
  async queue_delete(command, channel) {
    const options = { ifUnused: command.if_unused === '1', ifEmpty: command.if_empty === '1' };
    return { messages: (await channel.deleteQueue(command.queue, options)).messageCount };
  },
  async publish(command, channel) {
    const options = { ...flags(command, 'mandatory', 'persistent'), headers: tables(command) };
    if (command.expiration) options.expiration = command.expiration;
    if (command.priority) options.priority = Number(command.priority);
    if (command.reply_to) options.replyTo = command.reply_to;
    // waitForConfirms does not know of what was refused before it was called.
    channel.publish(command.exchange, command.key, body(command), options, (error) => {
      if (error?.message === 'message nacked') nacked.add(command.ch);
    });
  },
  async confirmed(command, channel) {
    try {
      await channel.waitForConfirms();
    } catch (error) {
      if (!nacked.has(command.ch)) throw error;
    }
    return { nacked: nacked.delete(command.ch) ? '1' : '0' };
  },
  async get(command, channel) {
    const message = await channel.get(command.queue, { noAck: command.no_ack === '1' });
    return message ? { ...delivery(message), messages: message.fields.messageCount } : { empty: '1' };
  },
  async consume(command, channel) {
    const options = { noAck: command.no_ack === '1', exclusive: command.exclusive === '1', arguments: tables(command) };
    if (command.tag) options.consumerTag = command.tag;
    let tag = command.tag;
    const started = await channel.consume(command.queue, (message) => {
      if (message === null) say({ event: 'cancel', ch: command.ch, tag });
      else say({ event: 'deliver', ch: command.ch, tag: message.fields.consumerTag, ...delivery(message) });
    }, options);
    tag = started.consumerTag;
    return { tag };
  },
  async cancel(command, channel) {
    await channel.cancel(command.tag);
  },
  async qos(command, channel) {
    await channel.prefetch(Number(command.count), command.shared === '1');
  },
  async ack(command, channel) {
    channel.ack({ fields: { deliveryTag: Number(command.delivery) } }, command.multiple === '1');
  },
  async nack(command, channel) {
    const message = { fields: { deliveryTag: Number(command.delivery) } };
    channel.nack(message, command.multiple === '1', command.requeue === '1');
  },
  async reject(command, channel) {
    channel.reject({ fields: { deliveryTag: Number(command.delivery) } }, command.requeue === '1');
  },
  async recover(command, channel) {
    await channel.recover();
  },
  // amqplib has no calls for transactions, but sends any method it is given.
  async tx_select(command, channel) {
    await channel.rpc(methods.TxSelect, {}, methods.TxSelectOk);
  },
  async tx_commit(command, channel) {
    await channel.rpc(methods.TxCommit, {}, methods.TxCommitOk);
  },
  async tx_rollback(command, channel) {
    await channel.rpc(methods.TxRollback, {}, methods.TxRollbackOk);
  },
};

let last = Promise.resolve();
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const command = Object.fromEntries(new URLSearchParams(line));
  last = last.then(async () => {
    try {
      const answer = await verbs[command.do](command, channels.get(command.ch));
      say({ re: command.id, ...answer });
    } catch (error) {
      say({ re: command.id, ...failure(error, 'error') });
    }
  });
}).on('close', () => process.exit(0));
process.on('uncaughtException', (error) => process.stderr.write(`${error.stack}\n`));
