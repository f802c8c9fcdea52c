// RabbitMQ's Java client under remote control: a command a line on stdin, answers and events a line on stdout
// (see ../driver.py).

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Envelope;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

public class Driver {
    static final Map<String, Connection> connections = new ConcurrentHashMap<>();
    static final Map<String, Channel> channels = new ConcurrentHashMap<>();

    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            Map<String, String> command = decode(line);
            Map<String, Object> answer = new LinkedHashMap<>();
            answer.put("re", command.get("id"));
            try {
                carryOut(command, answer);
            } catch (Exception error) {
                failure(error, answer);
            }
            say(answer);
        }
        System.exit(0);
    }

    static void carryOut(Map<String, String> command, Map<String, Object> answer) throws Exception {
        Channel channel = command.containsKey("ch") ? channels.get(command.get("ch")) : null;
        switch (command.get("do")) {
            case "connect" -> connect(command);
            case "disconnect" -> connections.get(command.get("c")).close();
            case "channel" -> open(command);
            case "close_channel" -> channel.close();
            case "exchange_declare" -> {
                if (is(command, "passive")) {
                    channel.exchangeDeclarePassive(command.get("name"));
                } else {
                    channel.exchangeDeclare(command.get("name"), command.get("type"), is(command, "durable"),
                            is(command, "auto_delete"), is(command, "internal"), table(command));
                }
            }
            case "exchange_delete" -> channel.exchangeDelete(command.get("name"), is(command, "if_unused"));
            case "exchange_bind" -> channel.exchangeBind(
                    command.get("destination"), command.get("source"), command.get("key"), table(command));
            case "exchange_unbind" -> channel.exchangeUnbind(
                    command.get("destination"), command.get("source"), command.get("key"), table(command));
            case "queue_declare" -> {
                AMQP.Queue.DeclareOk found = is(command, "passive")
                        ? channel.queueDeclarePassive(command.get("name"))
                        : channel.queueDeclare(command.get("name"), is(command, "durable"), is(command, "exclusive"),
                                is(command, "auto_delete"), table(command));
                answer.put("name", found.getQueue());
                answer.put("messages", found.getMessageCount());
                answer.put("consumers", found.getConsumerCount());
            }
            case "queue_bind" -> channel.queueBind(
                    command.get("queue"), command.get("exchange"), command.get("key"), table(command));
            case "queue_unbind" -> channel.queueUnbind(
                    command.get("queue"), command.get("exchange"), command.get("key"), table(command));
            case "queue_purge" -> answer.put("messages", channel.queuePurge(command.get("queue")).getMessageCount());
            case "queue_delete" -> answer.put("messages", channel.queueDelete(
                    command.get("queue"), is(command, "if_unused"), is(command, "if_empty")).getMessageCount());
            case "publish" -> publish(channel, command);
            case "confirmed" -> answer.put("nacked", channel.waitForConfirms(20_000) ? "0" : "1");
            case "get" -> {
                GetResponse got = channel.basicGet(command.get("queue"), is(command, "no_ack"));
                if (got == null) {
                    answer.put("empty", "1");
                } else {
                    delivery(got.getEnvelope(), got.getProps(), got.getBody(), answer);
                    answer.put("messages", got.getMessageCount());
                }
            }
            case "consume" -> answer.put("tag", channel.basicConsume(command.get("queue"), is(command, "no_ack"),
                    command.getOrDefault("tag", ""), false, is(command, "exclusive"), table(command),
                    new Consumer(channel, command.get("ch"))));
            case "cancel" -> channel.basicCancel(command.get("tag"));
            case "qos" -> channel.basicQos(Integer.parseInt(command.get("count")), is(command, "shared"));
            case "ack" -> channel.basicAck(Long.parseLong(command.get("delivery")), is(command, "multiple"));
            case "nack" -> channel.basicNack(
                    Long.parseLong(command.get("delivery")), is(command, "multiple"), is(command, "requeue"));
            case "reject" -> channel.basicReject(Long.parseLong(command.get("delivery")), is(command, "requeue"));
            case "recover" -> channel.basicRecover(true);
            case "tx_select" -> channel.txSelect();
            case "tx_commit" -> channel.txCommit();
            case "tx_rollback" -> channel.txRollback();
            default -> throw new IllegalArgumentException(command.get("do"));
        }
    }

    static void connect(Map<String, String> command) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost("127.0.0.1");
        factory.setPort(Integer.parseInt(command.get("port")));
        factory.setAutomaticRecoveryEnabled(false);
        if (command.containsKey("heartbeat")) {
            factory.setRequestedHeartbeat(Integer.parseInt(command.get("heartbeat")));
        }
        if (command.containsKey("frame_max")) {
            factory.setRequestedFrameMax(Integer.parseInt(command.get("frame_max")));
        }
        Connection connection = factory.newConnection();
        connections.put(command.get("c"), connection);
        connection.addShutdownListener(signal -> {
            if (!signal.isInitiatedByApplication()) {
                event("disconnected", "c", command.get("c"), signal);
            }
        });
    }

    static void open(Map<String, String> command) throws Exception {
        Channel channel = connections.get(command.get("c")).createChannel();
        String name = command.get("ch");
        channels.put(name, channel);
        channel.addReturnListener((code, text, exchange, key, properties, body) -> {
            Map<String, Object> said = new LinkedHashMap<>(Map.of("event", "return", "ch", name, "code", code,
                    "text", text, "exchange", exchange, "key", key, "body", new String(body)));
            say(said);
        });
        channel.addShutdownListener(signal -> {
            if (!signal.isHardError() && !signal.isInitiatedByApplication()) {
                event("closed", "ch", name, signal);
            }
        });
        if (is(command, "confirm")) {
            channel.confirmSelect();
        }
    }

    static void publish(Channel channel, Map<String, String> command) throws Exception {
        byte[] body;
        if (command.containsKey("fill")) {
            body = new byte[Integer.parseInt(command.get("fill"))];
            for (int i = 0; i < body.length; i++) {
                body[i] = (byte) (i % 251);
            }
        } else {
            body = command.getOrDefault("body", "").getBytes(StandardCharsets.UTF_8);
        }
        AMQP.BasicProperties.Builder properties = new AMQP.BasicProperties.Builder().headers(table(command));
        if (is(command, "persistent")) {
            properties.deliveryMode(2);
        }
        if (command.containsKey("expiration")) {
            properties.expiration(command.get("expiration"));
        }
        if (command.containsKey("priority")) {
            properties.priority(Integer.parseInt(command.get("priority")));
        }
        if (command.containsKey("reply_to")) {
            properties.replyTo(command.get("reply_to"));
        }
        channel.basicPublish(command.get("exchange"), command.get("key"), is(command, "mandatory"),
                properties.build(), body);
    }

    static class Consumer extends DefaultConsumer {
        private final String name;

        Consumer(Channel channel, String name) {
            super(channel);
            this.name = name;
        }

        @Override
        public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body) {
            Map<String, Object> said = new LinkedHashMap<>(Map.of("event", "deliver", "ch", name, "tag", tag));
            delivery(envelope, properties, body, said);
            say(said);
        }

        @Override
        public void handleCancel(String tag) {
            say(new LinkedHashMap<>(Map.of("event", "cancel", "ch", name, "tag", tag)));
        }
    }

    static void delivery(Envelope envelope, AMQP.BasicProperties properties, byte[] body, Map<String, Object> said) {
        said.put("delivery", envelope.getDeliveryTag());
        said.put("redelivered", envelope.isRedeliver() ? "1" : "0");
        said.put("exchange", envelope.getExchange());
        said.put("key", envelope.getRoutingKey());
        said.put("size", body.length);
        said.put("sha", sha256(body));
        if (body.length <= 1000) {
            said.put("body", new String(body, StandardCharsets.UTF_8));
        }
        if (properties.getHeaders() != null) {
            flat("h", properties.getHeaders(), said);
        }
        if (properties.getExpiration() != null) {
            said.put("expiration", properties.getExpiration());
        }
        if (properties.getReplyTo() != null) {
            said.put("reply_to", properties.getReplyTo());
        }
    }

    /** The leaves of a header, each with its path. */
    static void flat(String name, Object value, Map<String, Object> said) {
        if (value instanceof Map<?, ?> table) {
            table.forEach((key, inner) -> flat(name + "." + key, inner, said));
        } else if (value instanceof List<?> list) {
            for (int i = 0; i < list.size(); i++) {
                flat(name + "." + i, list.get(i), said);
            }
        } else {
            said.put(name, value);
        }
    }

    static String sha256(byte[] body) {
        try {
            StringBuilder text = new StringBuilder();
            for (byte octet : MessageDigest.getInstance("SHA-256").digest(body)) {
                text.append(String.format("%02x", octet));
            }
            return text.toString();
        } catch (java.security.NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }

    static void event(String kind, String label, String name, ShutdownSignalException signal) {
        Map<String, Object> said = new LinkedHashMap<>(Map.of("event", kind, label, name));
        failure(signal, said);
        say(said);
    }

    static void failure(Throwable error, Map<String, Object> said) {
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            if (cause instanceof ShutdownSignalException signal) {
                Object reason = signal.getReason();
                if (reason instanceof AMQP.Channel.Close close) {
                    said.put("code", close.getReplyCode());
                    said.put("text", close.getReplyText());
                } else if (reason instanceof AMQP.Connection.Close close) {
                    said.put("code", close.getReplyCode());
                    said.put("text", close.getReplyText());
                }
            }
        }
        said.put("error", "error");
        said.putIfAbsent("code", 0);
        said.putIfAbsent("text", String.valueOf(error));
    }

    static boolean is(Map<String, String> command, String flag) {
        return "1".equals(command.get(flag));
    }

    static Map<String, Object> table(Map<String, String> command) {
        Map<String, Object> table = new HashMap<>();
        command.forEach((key, value) -> {
            if (key.startsWith("a.")) {
                String text = value.substring(2);
                Object typed = switch (value.charAt(0)) {
                    case 'i' -> Integer.valueOf(text);
                    case 'b' -> text.equals("1");
                    case 'l' -> List.of(text.split(","));
                    default -> text;
                };
                table.put(key.substring(2), typed);
            }
        });
        return table;
    }

    static Map<String, String> decode(String line) {
        Map<String, String> fields = new HashMap<>();
        for (String pair : line.split("&")) {
            int split = pair.indexOf('=');
            fields.put(unquote(pair.substring(0, split)), unquote(pair.substring(split + 1)));
        }
        return fields;
    }

    static String unquote(String text) {
        return URLDecoder.decode(text, StandardCharsets.UTF_8);
    }

    static void say(Map<String, Object> fields) {
        StringBuilder line = new StringBuilder();
        fields.forEach((key, value) -> line.append(line.length() == 0 ? "" : "&")
                .append(URLEncoder.encode(key, StandardCharsets.UTF_8)).append('=')
                .append(URLEncoder.encode(String.valueOf(value), StandardCharsets.UTF_8)));
        synchronized (System.out) {
            System.out.println(line);
        }
    }
}
