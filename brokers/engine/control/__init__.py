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
