"""The tables: what is measured, of whom, and what the reader should know of each."""

from __future__ import annotations

from tests.bench import absurd_peer, celery_plain, costs, dbos_peer, floor, http, ours, pipelines, storm, webhooks
from tests.bench.harness import Column, Ratio, Workload

STEPS = Workload(
    name="steps",
    title="A durable step",
    about=(
        "Trivial steps one after the other inside one running flow, timed inside the flow, so that starting and "
        "ending it is not counted. A step is a function whose result is on the disk before the next begins. The "
        "bare insert is the row of such a result written by the driver alone, one commit each: what no durable step "
        "can go below on this database. *Cost* is the time of a step over that of the bare insert in the same "
        "database and round. The Celery chain is there for scale: 50 messages on two processes, from the first "
        "submit to the last result, and a crash loses what is left of it."
    ),
    columns=(
        Column(key="steps_per_second", title="steps/s"),
        Column(key="p50_ms", title="p50, ms"),
        Column(key="p99_ms", title="p99, ms"),
    ),
    ratios=(Ratio(key="cost", title="cost, bare insert = 1", of="steps_per_second", inverse=True),),
    cases=(*floor.STEPS, *ours.STEPS, *celery_plain.CHAINS, *dbos_peer.STEPS, *absurd_peer.STEPS),
)

ONE_LEG = Workload(
    name="one-leg",
    title="Submit to result",
    about=(
        "A flow that does one trivial thing, submitted by one process and run by another. Latency: submit, wait for "
        "the result, repeat. Throughput: submit many one by one and count until the last has ended; submitting and "
        "working share the machine. Celery and axme use one worker of two prefork processes, axme a beat process "
        "besides; DBOS one worker in its defaults, Absurd one worker of eight threads. DBOS and Absurd poll for "
        "work and for results: they are measured as installed, and polling every 10 ms; submits come at all moments "
        "between two polls. p99 of fewer than 100 samples is the worst of them, which is so where a submit takes "
        "about a second. *No step* is a task whose call is an intent; *one step* has a step inside, as the flows of "
        "DBOS and Absurd do. *Three bare commits* are the floor: an ordinary task, recorded by the driver alone as "
        "submitted, begun and ended, one narrow row of a table and one statement each, and with no audit, outbox or lease "
        "to keep a promise with."
    ),
    columns=(
        Column(key="p50_ms", title="p50, ms"),
        Column(key="p99_ms", title="p99, ms"),
        Column(key="submits_per_second", title="submits/s"),
        Column(key="flows_per_second", title="flows/s"),
    ),
    ratios=(
        Ratio(key="latency", title="p50, plain Celery = 1", of="p50_ms"),
        Ratio(key="throughput", title="flows/s, plain Celery = 1", of="flows_per_second"),
    ),
    cases=(*celery_plain.ONE_LEG, *floor.ONE_LEG, *ours.ONE_LEG, *dbos_peer.ONE_LEG, *absurd_peer.ONE_LEG),
)

COSTS = Workload(
    name="costs",
    title="Where the time of a flow goes",
    about=(
        "Processor time that one flow takes of each process, in microseconds, while many are submitted and run as in "
        "the table above. The machine has as many seconds of it in a second as it has cores, and a flow cannot cost less "
        "than all of these together: so this table is the reason for that one. The database's time is that of the "
        "processes that serve this run; on SQLite it is within the others'. Waiting for the disk costs no processor time."
    ),
    columns=(
        Column(key="submitter_us", title="submitting"),
        Column(key="parent_us", title="worker's parent"),
        Column(key="children_us", title="pool children"),
        Column(key="database_us", title="database"),
        Column(key="redis_us", title="Redis"),
        Column(key="total_us", title="in all, us"),
    ),
    ratios=(Ratio(key="cost", title="in all, plain Celery = 1", of="total_us"),),
    rounds=2,
    cases=costs.COSTS,
)

ORDINARY = Workload(
    name="ordinary",
    title="Ordinary tasks, with the extension installed",
    about=(
        "The same trivial Celery task, in an app without the extension and in one with it, where the task is not "
        "named in `axme_tasks`. They differ by no more than two rounds of the same app do when the extension costs "
        "nothing."
    ),
    columns=ONE_LEG.columns,
    ratios=ONE_LEG.ratios,
    rounds=8,
    quick_rounds=2,
    cases=(*celery_plain.ONE_LEG, *ours.ORDINARY),
)

CRASHES = Workload(
    name="crash",
    title="SIGKILL in step 47 of 50",
    about=(
        "Fifty steps; the process that runs the 47th is killed in the middle of it. Time from the kill until a step "
        "runs again, and until the last has run; and how many steps ran more than once (the interrupted one must). "
        "How a crash is noticed differs: axme by a lease that the worker's parent process renews, or by the parent "
        "itself when only its child dies; Absurd by a claim that runs out; DBOS when the same executor starts "
        "again, so its time is that of starting a Python process (its commercial conductor, not measured, can have "
        "another do it). Plain Celery is given 20 s."
    ),
    columns=(
        Column(key="resumed_s", title="kill to running again, s", never="not within the time allowed"),
        Column(key="done_s", title="kill to done, s", never="not within the time allowed"),
        Column(key="repeated", title="steps run twice"),
    ),
    rounds=2,
    cases=(*ours.CRASHES, *celery_plain.CRASHES, *dbos_peer.CRASHES, *absurd_peer.CRASHES),
)

TIMERS = Workload(
    name="timers",
    title="Lateness of timers",
    about=(
        "1,000 legs (200 in a quick run) that wait for a time, due evenly within one second or within ten, on one "
        "worker of two prefork processes. Late is the time at which the code after the wait runs, less the time "
        "asked for; when more fall due in a second than the worker can run, the rest is queueing, for Celery as for "
        "axme. Celery's ETA is a timer in a worker's memory: precise, and gone with the worker. The other waits are "
        "open in the same ledger and not due for 30 days."
    ),
    columns=(
        Column(key="p50_late_ms", title="p50 late, ms"),
        Column(key="p99_late_ms", title="p99 late, ms"),
        Column(key="worst_late_ms", title="worst, ms"),
        Column(key="earliest_ms", title="earliest, ms"),
    ),
    ratios=(Ratio(key="lateness", title="p99, Celery's ETA = 1", of="p99_late_ms"),),
    rounds=2,
    cases=(*celery_plain.TIMERS, *ours.TIMERS),
)

STORM = Workload(
    name="storm",
    title="Everything due at once",
    about=(
        "Waits for a time that all fall due in the same moment, each with a task after it, on one worker of two prefork "
        "processes. Fired is when the last wait is closed in the ledger and its task queued; until then so many tasks "
        "have run, and the rest is in the queue. Meanwhile people are asked and answer, one after the other. Their tasks, "
        "and the sweep, have a queue and a worker of their own, as [in production](guides/production.md#beat-and-the-sweep): "
        "in one queue with everything that is due they would have their turn when all that has run, as with any Celery."
    ),
    columns=(
        Column(key="fired_s", title="due to all fired, s", never="not within the time allowed"),
        Column(key="done_meanwhile", title="tasks run by then"),
        Column(key="answer_p95_ms", title="an answer, p95, ms"),
        Column(key="answer_worst_ms", title="worst, ms"),
        Column(key="end_p95_ms", title="answer to the end of its task, p95, ms"),
    ),
    rounds=1,
    cases=storm.STORM,
)

CHAINS = Workload(
    name="chains",
    title="Chains of 50",
    about=(
        "40 chains of 50 trivial tasks (8 in a quick run), submitted one after the other and all under way at once, from "
        "the first submit to the last end, on one worker of two prefork processes. For axme they are ordinary tasks in "
        "a submitted canvas: every link is a message of its own and its end is in the ledger before the next begins. DBOS "
        "and Absurd have no chain of tasks; their 50 steps run one after the other in the process that has the flow."
    ),
    columns=(
        Column(key="flows_per_second", title="chains/s"),
        Column(key="links_per_second", title="links/s"),
    ),
    ratios=(Ratio(key="throughput", title="links/s, plain Celery = 1", of="links_per_second"),),
    rounds=2,
    cases=pipelines.CHAINS,
)

GROUPS = Workload(
    name="groups",
    title="Chords of 100 to 10,000",
    about=(
        "A chord of trivial tasks whose body counts what it was given, from before its submission to its result, on one "
        "worker of two prefork processes. For axme every member is a leg, whose end counts in the ledger's join; the "
        "last column shows whether a leg costs more in a large group than in a small one."
    ),
    columns=(
        Column(key="submit_s", title="submit, s"),
        Column(key="done_s", title="to the result, s"),
        Column(key="legs_per_second", title="legs/s"),
        Column(key="ms_per_leg", title="ms a leg"),
    ),
    ratios=(Ratio(key="growth", title="ms a leg, chord of 100 = 1", of="ms_per_leg"),),
    rounds=1,
    cases=pipelines.GROUPS,
)

WEBHOOKS = Workload(
    name="webhooks",
    title="Webhooks",
    about=(
        "Signed webhooks, each a POST on a new connection to a receiver in a process of its own that answers at once, "
        "sent by one process. Arrival: events told one at a time, from before the commit to the receiver. Deliveries a "
        "second: 2,000 events (300 in a quick run) for each receiver that lie in the ledger, until the last has "
        "arrived. One process has four calls at most under way to one receiver. One that hangs takes five seconds of "
        "each call; it is not counted, and must not slow the others."
    ),
    columns=(
        Column(key="p50_ms", title="arrival, p50, ms"),
        Column(key="p99_ms", title="p99, ms"),
        Column(key="per_second", title="deliveries/s"),
    ),
    rounds=2,
    cases=webhooks.DELIVERIES,
)

HTTP = Workload(
    name="http",
    title="Submit over HTTP",
    about=(
        "Intents for an agent outside Celery, submitted by eight clients at once, each on one connection, to two web "
        "processes; every answer means that the intent is on the disk. Clients, web processes and PostgreSQL share the "
        "machine. With an Idempotency-Key each answer is kept as well, which is two more commits. The same submits "
        "from Python, in eight threads of one process, are there for scale."
    ),
    columns=(
        Column(key="submits_per_second", title="submits/s"),
        Column(key="p50_ms", title="p50, ms"),
        Column(key="p99_ms", title="p99, ms"),
    ),
    ratios=(Ratio(key="share", title="submits/s, Python = 1", of="submits_per_second"),),
    cases=http.SUBMITS,
)

FOLLOWERS = Workload(
    name="followers",
    title="Many followers of one intent",
    about=(
        "Streams of one intent's events, held open by one client process, on two web processes; every half second an "
        "event is committed. Time from that commit until each of the streams has the event, all together."
    ),
    columns=(
        Column(key="followers", title="followers"),
        Column(key="p50_ms", title="p50, ms"),
        Column(key="p99_ms", title="p99, ms"),
        Column(key="last_ms", title="the last, ms"),
    ),
    cases=http.FOLLOWERS_CASES,
)

WORKLOADS = (STEPS, ONE_LEG, COSTS, ORDINARY, CHAINS, GROUPS, CRASHES, TIMERS, STORM, HTTP, FOLLOWERS, WEBHOOKS)
