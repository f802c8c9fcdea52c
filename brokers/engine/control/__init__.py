"""The control API: how the console, the command line and tests see and steer a cluster.

Every node serves it on its control port, authenticated by the cluster's secret (``auth``), as JSON objects,
one a line (``protocol``). ``server`` is the node's side, ``client`` the other. ``schema`` has the shapes
below as types.

Calls (``client.call(method, params)``); all names are texts, all times seconds since the epoch (UTC), all
durations in the unit their name ends with, sizes in bytes, rates per second:

==================== ================================ ==================================================
method               params                           result
==================== ================================ ==================================================
ping                 {}                               {"node", "version"}
snapshot             {}                               the snapshot below
queue                {"vhost", "name"}                one row of "queues"; error ``not-found``
transfer_leadership  {"vhost", "name", "target"}      {"from", "to", "unavailable_ms", "term"}; target null:
                                                      the node's choice; errors ``not-found``,
                                                      ``no-quorum``, ``conflict`` (target no voter, or not
                                                      caught up, or the leader already), ``timeout``
shutdown             {}                               {}; the answering node hands over and exits 0
==================== ================================ ==================================================

What an operator sets; the same on every node, and in force when the call returns. ``vhost`` is ``/`` where it
is left out; ``?`` marks what may be. A call that changes something gives {} or what is said. Errors:
``bad-params`` for what makes no sense, ``not-found``, ``conflict`` (with RabbitMQ's text), ``no-quorum``.

========================= ======================================== =======================================
method                    params                                   result
========================= ======================================== =======================================
list_users                {}                                       [{"name", "tags", "has_password"}]
set_user                  {"name", "password"?, "password_hash"?,  {"created"}; what is left out stays; open
                          "tags"?}                                 connections end with the old password
delete_user               {"name"}                                 its connections are closed
list_permissions          {"user"?, "vhost"?}                      [{"user", "vhost", "configure", "write",
                                                                   "read"}]
set_permissions           a row of these
delete_permissions        {"user", "vhost"}
list_topic_permissions    {"user"?, "vhost"?}                      [{"user", "vhost", "exchange", "write",
                                                                   "read"}]
set_topic_permissions     a row of these
delete_topic_permissions  {"user", "vhost", "exchange"?}
list_vhosts               {}                                       [{"name", "description", "tags",
                                                                   "limits", "queues"}]
set_vhost                 {"name", "description"?, "tags"?}        {"created"}
delete_vhost              {"name"}                                 its connections are closed
list_vhost_limits         {"vhost"?}                               [{"vhost", "limits"}]
set_vhost_limits          {"vhost", "limits"}                      limits: max-connections, max-queues; below
                                                                   0 is none; others stay
delete_vhost_limits       {"vhost"}
list_policies             {"vhost"?}                               [{"vhost", "name", "pattern", "apply_to",
                                                                   "priority", "definition"}]
set_policy                a row of these; apply_to (all) and priority (0) may be left out
delete_policy             {"vhost"?, "name"}
..._operator_policy/ies   the same for operator policies, which set limits only
effective_policy          {"vhost"?, "name"} of a queue            {"policy": row | null,
                                                                   "operator_policy": row | null}
declare_queue             {"vhost"?, "name", "durable"? (true),    {"name"}
                          "auto_delete"?, "arguments"?}
delete_queue              {"vhost"?, "name", "if_unused"?,         {"messages"}
                          "if_empty"?}
purge_queue               {"vhost"?, "name"}                       {"messages"}
declare_exchange          {"vhost"?, "name", "type"? (direct), "durable"? (true), "auto_delete"?,
                          "internal"?, "arguments"?}
delete_exchange           {"vhost"?, "name", "if_unused"?}
list_bindings             {"vhost"?}                               [{"vhost", "source", "kind": "queue" |
                                                                   "exchange", "destination",
                                                                   "routing_key", "arguments"}]
bind, unbind              a row of these
publish                   {"vhost"?, "exchange"?, "routing_key"?,  {"routed"}, once all queues have committed
                          "payload", "payload_encoding"?           the message
                          ("string" | "base64"), "properties"?}
peek                      {"vhost"?, "name", "count"? (10),        {"messages": [{"position", "at",
                          "max_bytes"? (65536)}                    "redelivered", "state": "ready" |
                                                                   "unacked", "exchange", "routing_key",
                                                                   "properties", "headers", "payload",
                                                                   "payload_encoding", "payload_bytes",
                                                                   "truncated"}]}; nothing changes by it
history                   {"vhost"?, "name", "first"? | "at"?      {"oldest", "end", "first", "messages": rows
                          (ms since 1970), "count"? (50),          as peek's, "state" also "settled" and
                          "max_bytes"? (256)}                      "dying", with "holder" (a node),
                                                                   "returned", "redelivered"; null where not
                                                                   known}
message                   {"vhost"?, "name", "position",           one such row; ``not-found`` when it is not
                          "max_bytes"? (65536)}                    retained
timeline                  {"vhost"?, "name"}                       {"buckets": [{"at", "until", "first",
                                                                   "end", "settled"}]}
replay_plan               {"vhost"?, "name", "first"?, "end"?,     {"oldest", "first", "end", "count", "bytes",
                          "since"?, "until"? (ms), "match_key"?,   "messages", "counted_to"}; counts for a
                          "match_headers"?, "from"?, "preview"?,   while: ask again with "from" until
                          "to_..."?}                               counted_to is end
replay_start              {"vhost"?, "name", "id", "first",        a job: {"id", "node", "state", "cursor",
                          "end", "match_..."?, "rate"?,            "end", "published", "unroutable", "gone",
                          "to_vhost"?, "to_queue" |                "waiting", "error"}; it stops when it is
                          "to_exchange", "to_routing_key"?}        not asked about for a minute
replay_status             {"id", "node"}                           the job; ``not-found`` once its node has
                                                                   been restarted, ``unavailable``
replay_cancel             {"id", "node"}                           the job, stopped
dead_letter_queues        {}                                       {"queues": [{"vhost", "name", "sources",
                                                                   "source_count", "holds_dead"}],
                                                                   "silent": [nodes that gave no answer]}
dead_letter_groups        {"vhost"?, "name"}                       {"groups": [{"id", "reason", "queue",
                                                                   "routing_key", "exception", "shape",
                                                                   "count", "position", "oldest",
                                                                   "newest"}], "group_count", "counted",
                                                                   "messages", "end", "over_time":
                                                                   [{"at", "seconds", "count"}]}
browse                    {"vhost"?, "name", "from"?, "until"?,    {"messages": as peek, with "group" and
                          "positions"?, "groups"?, "count"? (50),  "cause", "next": position | null, "end"}
                          "max_bytes"?}
redrive                   the selection of browse, "run",          {"next", "done", "kept": {why: count},
                          "exchange"?, "routing_key"?, "unsure"?,  "originals", "came_back", "watched"}; the
                          "edit"?, "watch"?                        same "run" and "from": the same batch
discard                   the selection of browse, "run"           as redrive
close_connection          {"id", "reason"?}                        the client is told 320 and the reason
========================= ======================================== =======================================

For backups (docs/backups.md); ``queues`` is a list of [vhost, name], ``data`` base64 of blocks
(``core/model/blocks.py``):

==================== ========================================== ==========================================
method               params                                     result
==================== ========================================== ==========================================
definitions          {}                                         {"cluster", "definitions": by section}
import_definitions   {"definitions"}                            {"made", "kept": counts by section,
                                                                "conflicts": [texts]}
backup_open          {"queues"}; at a node with replicas        {"queues": [{"group", "runs", "next",
                                                                "messages", "bytes"}]}
backup_end           {"queues"}; at the node that leads them    {"queues": [{"group", "end"}]}
backup_hold          {"queues", "positions"}                    {}; kept readable for two minutes
backup_read          {"vhost"?, "name", "group", "runs",        {"data", "done", "at", "skip", "gone"}
                     "skip"?, "max_bytes"?}
backup_write         {"vhost"?, "name", "data", "mark"?,        {"written", "refused"}, once committed
                     "upload"?, "more"?}
==================== ========================================== ==========================================

Snapshot::

    {"version": 1,
     "cluster": {"id", "name"},
     "answered_by": "node1",
     "metadata": {"leader": name | null, "term", "voters": [names], "state": "running" | "electing" | "no-quorum"},
     "nodes": [{"id", "name", "amqp": "127.0.0.1:5672", "state": "running" | "down" | "starting" | "draining",
                "pid", "uptime", "leaders", "replicas", "connections", "memory", "disk_used", "disk_free",
                "fsync_ms", "loop_delay_ms", "version", "alarms": ["memory", "disk"]}],
     "queues": [{"vhost", "name", "group", "durable", "exclusive", "auto_delete", "type", "arguments",
                 "leader": name | null, "term", "state": "running" | "electing" | "no-quorum",
                 "replicas": [{"node", "role": "leader" | "follower" | "learner" | "down", "lag"}],
                 "messages", "ready", "unacked", "bytes", "consumers",
                 "rates": {"publish", "deliver", "ack", "confirm"}, "oldest_age",
                 "last_failover": {"at", "from", "to", "unavailable_ms", "reason"} | null}],
     "connections": [...],
     "exchanges": [...]}

A node that is down has null for what only it could tell. ``lag`` counts log entries behind the leader, null
when unknown.

``client.watch()`` gives a full snapshot with ``"full": true`` first, then only what changed, coalesced::

    {"nodes": [changed rows], "queues": [changed rows], "removed": {"queues": [[vhost, name]]}}

A row replaces the former one with the same key (a node's ``id``; a queue's ``vhost`` and ``name``). The other
keys of a snapshot (``metadata``, ``connections``, ``exchanges``) come whole when they changed. When the node
that is being watched is lost, the client yields ``{"disconnected": "why"}``, goes on with another node, and
starts again with a full snapshot.
"""
