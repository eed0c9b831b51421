"""The demo: an analytics export whose worker is really killed, and which ends all the same.

``axme-celery demo`` needs no project and no server. It starts a warehouse, two
Celery workers and a beat on this machine, kills a worker with SIGKILL at page
47 of 50, and shows at the end what ran where, and that no page was written twice.

    app.py        the Celery app: one task with steps and waits (read this one)
    warehouse.py  the outside system the task waits for, a process of its own
    source.py     what the warehouse runs its query on
    broker.py     a broker without set-up: a private Redis, or files (files.py)
    runner.py     the story: who is started, killed, asked and stopped
    proof.py      what must hold at the end, checked
"""
